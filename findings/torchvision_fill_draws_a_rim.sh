#!/usr/bin/env bash
# torchvision 0.28.0 (torch 2.13.0): with bilinear interpolation, `fill` draws a rim around a rotated image. A white
# image on a white background becomes gray along its edge, 193 of 255 and in float 0.757, where both are 255 or 1. The
# pixels at the edge have been interpolated against 0, which weights the image by a mask m, and then image and fill are
# mixed by m once more: m (m x) + (1 - m) fill. So do affine, perspective and elastic, in `v2` and before, for floats
# and bytes. The same call on a Pillow image is right, so a pipeline sees other images once ToTensor stands before it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchvision==0.28.0 torch==2.13.0 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import PIL
import torch

try:
    import torchvision
except RuntimeError:  # a torchvision for another kind of torch (CPU, CUDA) lacks the binary of these two; not used here
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as first
from torchvision.transforms.v2 import functional as second

print("torchvision", torchvision.__version__, "torch", torch.__version__, "Pillow", PIL.__version__)
bilinear = InterpolationMode.BILINEAR
white = torch.ones(1, 8, 8)
for name, functions in (("transforms", first), ("transforms.v2", second)):
    floats = functions.rotate(white, 30, bilinear, fill=1.0)
    integers = functions.rotate((white * 255).byte(), 30, bilinear, fill=255)
    print(f"{name}: white rotated by 30 degrees on white, darkest pixel; expected 1.0 and 255:",
          round(floats.min().item(), 3), integers.min().item())
    assert round(floats.min().item(), 3) == 0.757
    assert integers.min().item() == 193
    scaled = functions.affine(white, 0, [0, 0], 0.9, [0.0, 0.0], bilinear, fill=1.0)
    print(f"{name}: scaled by 0.9 on white; expected 1.0:", round(scaled.min().item(), 3))
    assert round(scaled.min().item(), 3) == 0.762

corners = [[0, 0], [7, 0], [7, 7], [0, 7]]
moved = second.perspective(white, corners, [[1, 1], [6, 0], [7, 6], [1, 7]], bilinear, fill=1.0)
elastic = second.elastic(white, torch.full((1, 8, 8, 2), 0.1), bilinear, fill=1.0)
print("perspective, elastic on white; expected 1.0, 1.0:", *(round(x.min().item(), 3) for x in (moved, elastic)))
assert max(moved.min(), elastic.min()) < 0.9

pillow = np.asarray(second.rotate(Image.new("L", (8, 8), 255), 30, bilinear, fill=255))
print("the same rotation of a Pillow image; expected 255:", pillow.min())
assert pillow.min() == 255

black = second.rotate(white, 30, bilinear, fill=0.0)
mask = second.rotate(white, 30, bilinear)  # without fill: interpolated against 0, which is m itself
print("fill=0 and no fill differ, though both put 0 outside, by:", round((black - mask).abs().max().item(), 3))
assert torch.allclose(black, mask * mask, atol=1e-6)
PYTHON
