#!/usr/bin/env bash
# CuPy 14.2.0: `cupy.fmod` of int64 and uint64 converts both operands to double, although its types say `qq->q` as NumPy's
# do. From 2^53 on a remainder is that of another number: fmod(2^53 + 1, 10) is 2, NumPy says 3; `cupy.remainder`
# divides integers exactly. `cupy.remainder` of floats is x - floor(x / y) * y, so remainder(1, inf) is NaN where NumPy
# and Python say 1, and where x / y rounds up to an integer it is 0 instead of nearly y: remainder(1, 0.1).
# The formulas are read from CuPy's own tables, and computed here in their arithmetic: no GPU is needed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cupy-cuda13x==14.2.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import math
from pathlib import Path

import cupy
import numpy as np

print("CuPy", cupy.__version__, "NumPy", np.__version__)


def formula(ufunc, dtype):
    """The C expression by which CuPy computes a function of two arrays of this dtype."""
    return next(op.routine for op in ufunc._ops.ops if op.in_types == (np.dtype(dtype),) * 2)


for dtype in ("int64", "uint64"):
    print(f"cupy.fmod of {dtype} ({'qq->q' in cupy.fmod.types}):", formula(cupy.fmod, dtype))
    assert formula(cupy.fmod, dtype) == "out0 = in1 == 0 ? 0 : fmod((double)in0, (double)in1)"
x, y = 2**53 + 1, 10
by_cupy, by_numpy = math.fmod(float(x), float(y)), np.fmod(np.int64(x), np.int64(y))
print(f"fmod({x}, {y}): that formula gives {by_cupy:.0f}, NumPy {by_numpy}")
assert (by_cupy, by_numpy) == (2, 3)

print("cupy.remainder of int64:", formula(cupy.remainder, "int64"))
assert "double" not in formula(cupy.remainder, "int64")
print("cupy.remainder of float64:", formula(cupy.remainder, "float64"))
assert formula(cupy.remainder, "float64") == "out0 = in0 - _floor_divide(in0, in1) * in1"
header = Path(cupy.__file__).parent / "_core/include/cupy/carray.cuh"
assert "double _floor_divide(double x, double y) {\n  return floor(x / y);\n}" in header.read_text()


def remainder(x, y):
    return x - math.floor(x / y) * y


for x, y in [(1.0, math.inf), (1.0, 0.1), (0.7, 0.1)]:
    print(f"remainder({x}, {y}): that formula gives {remainder(x, y)}, NumPy {np.remainder(x, y)}, Python {x % y}")
assert math.isnan(remainder(1.0, math.inf)) and np.remainder(1.0, math.inf) == 1
assert remainder(0.7, 0.1) != np.remainder(0.7, 0.1)
PYTHON
