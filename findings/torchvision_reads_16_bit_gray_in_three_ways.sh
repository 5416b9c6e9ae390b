#!/usr/bin/env bash
# torchvision 0.28.0 reads one gray PNG of 16 bits in three ways, and two of them are wrong, without an error. ImageFolder
# makes it white: all above 255, which is 1/257 of white, becomes 255. ToTensor, of the picture that Pillow opens, gives
# int16 in which the bright half is negative: white is -1. PILToTensor gives the right uint16. A gray PNG of 16 bits
# with an alpha channel, and one in color, come out right from ImageFolder: of these Pillow keeps the upper eight bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchvision==0.28.0 torch==2.13.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

# torchvision's compiled ops do not load beside a torch for the CPU alone. They are not used here.
torch.library.register_fake = lambda *args, **options: lambda function: function
warnings.filterwarnings("ignore", message="Failed to load image Python extension")

from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder


def png(pixels):
    """The bytes of a PNG of 16 bits: pixels (H, W, C) of one channel, gray and alpha, or three colors."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ramp = np.array([0, 255, 256, 13107, 32767, 32768, 52428, 65535], np.uint16)[None, :, None]  # black to white
Path("set/gray").mkdir(parents=True)
Path("set/gray/0.png").write_bytes(png(ramp))
Path("set/gray/1_alpha.png").write_bytes(png(np.concatenate([ramp, np.full_like(ramp, 65535)], 2)))
Path("set/gray/2_color.png").write_bytes(png(ramp.repeat(3, 2)))

print("in the file:           ", ramp.ravel().tolist())
by_folder = [np.asarray(picture)[0, :, 0].tolist() for picture, _ in ImageFolder("set")]
for name, values in zip(("gray", "gray and alpha", "color"), by_folder):
    print(f"ImageFolder, {name:<14}: {values}")
picture = Image.open("set/gray/0.png")
by_to_tensor, by_pil_to_tensor = transforms.ToTensor()(picture), transforms.PILToTensor()(picture)
print(f"ToTensor, gray:         {by_to_tensor.dtype} {by_to_tensor.ravel().tolist()}")
print(f"PILToTensor, gray:      {by_pil_to_tensor.dtype} {by_pil_to_tensor.ravel().tolist()}")

upper = (ramp >> 8).ravel().tolist()
assert by_folder == [[0, 255, 255, 255, 255, 255, 255, 255], upper, upper]
assert by_to_tensor.dtype == torch.int16
assert by_to_tensor.ravel().tolist() == [0, 255, 256, 13107, 32767, -32768, -13108, -1]
assert by_pil_to_tensor.dtype == torch.uint16
assert by_pil_to_tensor.ravel().tolist() == ramp.ravel().tolist()
PYTHON
