#!/usr/bin/env bash
# tinygrad 0.14.0 on its Python device: a maximum that meets a NaN keeps or loses it by its place. max is NaN if the NaN
# comes first, else the largest number; max_pool2d differs from window to window. argmax of [nan, 1, 3] is 3, an index that
# does not exist. sort of [1, 3, nan] returns inf in place of the NaN, and of [nan, 1, 3] three NaNs. relu of NaN is 0, so
# a diverged activation looks healthy. torch and NumPy return NaN, its index, and 0 to 2 in argmax.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0 numpy==2.4.6
DEV=PYTHON "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from tinygrad import Tensor

nan = float("nan")
seen = {}
for values in ([nan, 1, 3], [1, nan, 3], [1, 3, nan]):
    x = Tensor(np.array(values, "float32"))
    seen[str(values)] = [x.max().item(), x.argmax().item(), x.sort()[0].tolist(), x.relu().tolist()]
pooled = Tensor(np.array([[[[1, nan, 2, 3]]]], "float32")).max_pool2d((1, 2), 1).tolist()
for values, results in seen.items():
    print(f"{values}: max, argmax, sort, relu ->", *results)
print("max_pool2d of [1, nan, 2, 3], kernel 2, stride 1 ->", pooled)
expected = {
    "[nan, 1, 3]": [nan, 3, [nan, nan, nan], [0.0, 1.0, 3.0]],
    "[1, nan, 3]": [3.0, 2, [1.0, 1.0, 3.0], [1.0, 0.0, 3.0]],
    "[1, 3, nan]": [3.0, 1, [1.0, 3.0, float("inf")], [1.0, 3.0, 0.0]],
}
assert str(seen) == str(expected)
assert str(pooled) == "[[[[1.0, nan, 3.0]]]]"
PYTHON
