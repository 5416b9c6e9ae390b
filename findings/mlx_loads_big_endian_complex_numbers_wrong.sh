#!/usr/bin/env bash
# mlx 0.32.4: `mx.load` reads big-endian .npy files, but it turns around the eight bytes of a complex64 as if they were
# one number. So real and imaginary parts change places, and no error comes: 1+2j is read as 2+1j. Big-endian floats and
# integers, and little-endian complex numbers, are right. np.load returns the numbers that were saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import mlx.core as mx
import numpy as np

for dtype in ("<c8", ">c8", ">f4", ">i8"):
    array = np.array([1, 2, 3]).astype(dtype)
    if array.dtype.kind == "c":
        array.imag = [2, 0, -1]
    np.save("a.npy", array)
    read = np.array(mx.load("a.npy"))
    print(f"{array} of {dtype}: mlx reads {read}, np.load {np.load('a.npy')}")
    expected = array.imag + 1j * array.real if dtype == ">c8" else array
    assert np.array_equal(read, expected)
PYTHON
