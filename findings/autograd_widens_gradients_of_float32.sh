#!/usr/bin/env bash
# autograd 1.9.1 (NumPy 2.4.6): the gradient of a float32 array is float64 if the function contains mean, var, std, max,
# where or a maximum with a number, although the value itself is float32; sum, exp, dot, norm, clip and cumsum keep
# float32. One such function is enough to train in float64 from there on: parameters minus a float64 gradient are float64.
# And the gradient of prod is NaN at each zero (the right gradient at [0, 2, 3] is [6, 0, 0]).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check autograd==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import autograd.numpy as np
from autograd import grad

x = np.array([1.0, 2.0, 4.0], "float32")
functions = {
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "max": np.max,
    "where": lambda x: np.sum(np.where(x > 1, x, 0)),
    "maximum": lambda x: np.sum(np.maximum(x, 0)),
    "sum": np.sum,
    "exp": lambda x: np.sum(np.exp(x)),
    "dot": lambda x: np.dot(x, x),
    "norm": np.linalg.norm,
    "clip": lambda x: np.sum(np.clip(x, 0, 1)),
    "cumsum": lambda x: np.sum(np.cumsum(x)),
}
seen = {name: str(grad(function)(x).dtype) for name, function in functions.items()}
print(seen)
assert all(function(x).dtype == "float32" for function in functions.values())
assert list(seen.values()) == ["float64"] * 6 + ["float32"] * 6
moved = x - np.float32(0.1) * grad(np.mean)(x)
print("after one step of descent on the mean:", moved.dtype)
assert moved.dtype == "float64"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    products = [grad(np.prod)(np.array(values)).tolist() for values in ([0.0, 2.0, 3.0], [0.0, 2.0, 0.0])]
print("gradient of prod at [0, 2, 3] and [0, 2, 0]:", products)
assert str(products) == "[[nan, 0.0, 0.0], [nan, 0.0, nan]]"
PYTHON
