#!/usr/bin/env bash
# torch 2.13.0 (CPU): `interpolate(antialias=True)` to an output of one column returns one row for all rows. 0, 1 … 15 as
# a column, resized to 8 x 1, is 0.7143 eight times; as a row, resized to 1 x 8, it is 0.7143, 2.5 … 14.2857, and so is
# each of two equal columns. Bilinear and bicubic, float32 and float64, of any batch, shrinking and stretching, also
# where the width shrinks to 1 on the way (16 x 5 to 8 x 1). There is no warning; gradcheck finds that the gradient is
# that of the right function. Pillow and antialias=False are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import PIL
import torch
from PIL import Image
from torch.nn.functional import interpolate

print("torch", torch.__version__, "Pillow", PIL.__version__)
values = torch.arange(16.0)
column = values.reshape(1, 1, 16, 1)


def resized(x, *size, mode="bilinear", antialias=True):
    return interpolate(x, size=size, mode=mode, antialias=antialias)


expected = resized(values.reshape(1, 1, 1, 16), 1, 8).flatten()
print("expected, from a row:          ", expected.numpy().round(4))
image = Image.fromarray(values.numpy()[:, None]).resize((1, 8), Image.Resampling.BILINEAR)
print("Pillow, 16 x 1 to 8 x 1:       ", np.asarray(image).ravel().round(4))
assert np.allclose(np.asarray(image).ravel(), expected, atol=1e-5)
two = resized(column.expand(1, 1, 16, 2), 8, 2)[0, 0, :, 0]
print("torch, one of two equal columns:", two.numpy().round(4))
assert torch.allclose(two, expected)

alone = resized(column, 8, 1).flatten()
print("torch, 16 x 1 to 8 x 1:        ", alone.numpy().round(4))
assert torch.equal(alone, expected[:1].expand(8))
for dtype in (torch.float32, torch.float64):
    for mode in ("bilinear", "bicubic"):
        for x in (column, column.expand(1, 1, 16, 5)):
            for height in (8, 32):
                result = resized(x.contiguous().to(dtype), height, 1, mode=mode).flatten()
                assert (result == result[0]).all(), (dtype, mode, x.shape, height, result)
print("the same for float64, bicubic, 32 x 1, and from 16 x 5: all rows are equal")
plain = resized(column, 8, 1, antialias=False).flatten()
print("torch, antialias=False:        ", plain.numpy())
assert torch.equal(plain, torch.arange(0.5, 16, 2))

try:
    torch.autograd.gradcheck(lambda x: resized(x, 8, 1), column.double().requires_grad_())
except RuntimeError as error:
    assert "Jacobian mismatch" in str(error)
    print("gradcheck: the gradient is that of another function")
else:
    raise AssertionError("gradcheck passes")
PYTHON
