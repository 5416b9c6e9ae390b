"""What a trained network makes of pictures: probabilities of classes, or another picture.

    python apps/predict.py runs/first photo.jpg digit.png

A picture is scaled and cut to the size that the network was trained on. It is written, as the network saw it and with
what an autoencoder or a unet made of it, into the folder predictions of the run. Needs Pillow, in the extra apps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import errors
import needle as ndl
import ranks
from image_run import network_of
from needle import nn
from needle.data import read_image
from run_folder import read_config
from runs import load_weights

SHOWN = 3  # classes of a line
SIDE = 256  # pixels to which small pictures are enlarged


def main(arguments: Sequence[str] | None = None) -> list[np.ndarray]:
    """Run the script; returns what the network made of each picture: probabilities (classes,), or pixels (C, H, W)."""
    ranks.alone("predict")
    options = parse(arguments)
    with errors.interruptible(), errors.user_errors("predict"):
        config = read_config(options.run)
        model = network_of(config, options.run)
        load_weights(model, options.run)
        channels, *size = config["shape"]
        images = [read_image(path, (size[0], size[1]), channels) for path in options.image]
        if options.invert:
            images = [1 - image for image in images]
        results = [outcome(model, image, config["task"]) for image in images]
        for path, image, result in zip(options.image, images, results, strict=True):
            is_picture = result.ndim == 3
            target = write(options.run / "predictions", path, [image, result] if is_picture else [image])
            what = "what the network saw, and made of it" if is_picture else probabilities(result, config["classes"])
            print(f"{path}: {what}{':' if is_picture else '; it saw'} {target}")
    return results


def outcome(model: nn.Module, image: np.ndarray, task: str) -> np.ndarray:
    """What the network makes of an image (C, H, W): probabilities (classes,), or a picture (1 or C, H, W) in [0, 1]."""
    model.eval()
    with ndl.no_grad():
        output = model(ndl.Tensor(image[None], requires_grad=False))
        if task == "classification":
            return ndl.softmax(output, 1).numpy()[0]
        if task == "segmentation":
            return output.argmax(1).numpy().astype("float32")
    return output.numpy()[0]


def probabilities(result: np.ndarray, classes: Sequence[str]) -> str:
    """The most probable classes in words."""
    best = np.argsort(-result, kind="stable")[:SHOWN]
    return ", ".join(f"{classes[index]} {result[index]:.2%}" for index in best)


def write(folder: Path, path: Path, pictures: Sequence[np.ndarray]) -> Path:
    """Write pictures (1 or C, H, W) side by side as a PNG file that is named after a path; returns its path."""
    from PIL import Image

    channels = max(map(len, pictures))
    row = np.concatenate([np.broadcast_to(picture, (channels, *picture.shape[1:])) for picture in pictures], 2)
    scale = max(1, SIDE // row.shape[1])
    pixels = np.round(255 * row.clip(0, 1)).astype(np.uint8).repeat(scale, 1).repeat(scale, 2)
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.stem}.png"
    number = 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem}-{number}.png"
    Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)).save(target)
    return target


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that was trained on images")
    parser.add_argument("image", type=Path, metavar="IMAGE", nargs="+", help="a picture")
    parser.add_argument(
        "--invert", action="store_true", help="swap dark and bright: for ink on paper, say"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
