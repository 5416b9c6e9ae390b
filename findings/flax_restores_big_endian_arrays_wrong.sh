#!/usr/bin/env bash
# flax 0.12.8: `to_bytes` stores an array by its raw bytes and the name of its dtype, which says nothing of the byte
# order. So a big-endian NumPy array (raw MNIST files, FITS images, many HDF5 files) comes back from `from_bytes` with
# other numbers, and no error: the labels 5, 0, 4 as 83886080, 0, 67108864, and the floats 1, 2, 3 as less than 1e-40.
# Little-endian arrays are right. np.save, h5py, zarr, joblib and safetensors return the numbers that were saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import io
import numpy as np
from flax import serialization

labels, floats = np.array([5, 0, 4], ">i4"), np.array([1, 2, 3], ">f4")
for array in (labels, floats, labels.astype("<i4")):
    restored = serialization.from_bytes(None, serialization.to_bytes({"a": array}))["a"]
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    print(f"{array} of {array.dtype.str}: flax returns {restored} of {restored.dtype.str}, np.load {np.load(file)}")
    expected = array if array.dtype.isnative else array.view(array.dtype.newbyteorder("<"))
    assert np.array_equal(restored, expected)
    assert np.array_equal(restored, array) == array.dtype.isnative
PYTHON
