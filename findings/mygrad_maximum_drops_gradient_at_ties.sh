#!/usr/bin/env bash
# mygrad 2.5.0 (NumPy 2.4.6): at ties, `maximum` and `minimum` give a gradient of 0 to both arguments, so part of the
# gradient is lost: it no longer sums to that of the result. Even `maximum(a, a)`, which is a, has the gradient 0. `max`
# over an axis keeps all of it and gives it to the first of equal elements. torch, JAX, autograd and tinygrad give half
# to each argument.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mygrad==2.5.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import mygrad as mg


def gradients(function, *values):
    tensors = [mg.tensor(value) for value in values]
    function(*tensors).sum().backward()
    return [tensor.grad.tolist() for tensor in tensors]


seen = {
    "maximum([1, 3], [1, 2])": gradients(mg.maximum, [1.0, 3.0], [1.0, 2.0]),
    "minimum([1, 3], [1, 2])": gradients(mg.minimum, [1.0, 3.0], [1.0, 2.0]),
    "maximum(a, a), a = [1, 2]": gradients(lambda a: mg.maximum(a, a), [1.0, 2.0]),
    "max([1, 3, 3])": gradients(mg.max, [1.0, 3.0, 3.0]),
}
for call, result in seen.items():
    print(call, "->", result)
assert list(seen.values()) == [[[0, 1], [0, 0]], [[0, 0], [0, 1]], [[0, 0]], [[0, 1, 0]]]
PYTHON
