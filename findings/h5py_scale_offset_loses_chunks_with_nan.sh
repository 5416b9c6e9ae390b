#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0): with scaleoffset=3, "absolute error less than" 0.0005 by its documentation, a NaN comes back
# as a number, the smallest of its chunk, without an error. So gaps in measured data become values. Where the NaN is the
# first of a chunk of float32, the file is written without an error too, but the chunk cannot be read any more: all of its
# numbers are lost. (Smallest and largest are sought from the first value on, and no number is smaller than a NaN.)
# In float64 such a chunk is right, with its NaN. An infinity is right anywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import h5py
import numpy as np

print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version)


def chunks_read(values):
    """The three chunks of 8 values after a file was written and opened again; None for one that cannot be read."""
    with h5py.File("values.h5", "w") as file:
        file.create_dataset("values", data=values, scaleoffset=3, chunks=(8,))
    read = []
    with h5py.File("values.h5") as file:
        for start in (0, 8, 16):
            try:
                read.append(file["values"][start : start + 8])
            except OSError as error:
                print("  ", error)
                read.append(None)
    return read


for dtype in ("float32", "float64"):
    for place in (3, 0):
        values = np.random.RandomState(0).standard_normal(24).astype(dtype)
        values[8 + place] = np.nan
        print(f"{dtype}, a NaN at place {place} of the second chunk")
        first, second, third = chunks_read(values)
        assert abs(first - values[:8]).max() < 0.0005 and abs(third - values[16:]).max() < 0.0005
        if place == 3:
            print("   wrote", values[8:16], "\n   read ", second)
            assert second[3] == second.min() and abs(second[3] - np.nanmin(values[8:16])) < 0.0005
            assert np.nanmax(abs(second - values[8:16])) < 0.0005
        elif dtype == "float32":
            assert second is None
        else:
            assert np.array_equal(second, values[8:16], equal_nan=True)
        values[8 + place] = np.inf
        assert np.array_equal(chunks_read(values)[1], values[8:16])
PYTHON
