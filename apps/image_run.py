"""The runs of the scripts that train on images: from images and options to a network with its task and loaders."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import needle as ndl
from image_sets import Splits
from models import MODELS
from needle import nn
from needle.data import DataLoader
from runs import Run

__all__ = ["image_run", "network_of", "task_of"]

TITLES = {
    "tinycnn": "TinyCNN",
    "lenet": "LeNet",
    "resnet9": "ResNet9",
    "conv1d": "ConvNet1d",
    "autoencoder": "Autoencoder",
    "unet": "UNet",
}
TASKS = {"autoencoder": "reconstruction", "unet": "segmentation"}  # others classify
INK = ("paper", "ink")


def task_of(name: str) -> str:
    """The task of a network by its name on the command line."""
    return TASKS.get(name, "classification")


def network_of(config: Mapping[str, Any], folder: Path) -> nn.Module:
    """The untrained network of a run on images, from its config.json.

    Raises ValueError if the run is of another kind, or the configuration damaged.
    """
    if config.get("task") == "language":
        raise ValueError(f"RUN must be a network for images, but {folder} is a run of {config['script']}.py")
    name, shape, classes = (config.get(key) for key in ("network", "shape", "classes"))
    is_shape = isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)
    if not (name in TITLES and is_shape and isinstance(classes, list) and classes and config["task"] == task_of(name)):
        raise ValueError(f"{folder / 'config.json'} must name a network, a shape and classes, but it is damaged")
    return MODELS[name](tuple(shape), len(classes))


def image_run(script: str, options: argparse.Namespace, images: Splits, network: str, device: ndl.BackendDevice) -> Run:
    """A run of the network of this name on these images.

    Raises ValueError if the images do not fit the network, or a batch is too small for its batch normalization.
    """
    task = task_of(network)
    classes = INK if task == "segmentation" else images.classes
    if task == "classification" and len(classes) < 2:
        raise ValueError(f"images must be of at least 2 classes, but all are of class {classes[0]}")
    if task == "classification" and len(seen := np.unique(images.labels)) < len(classes):
        missing = classes[np.setdiff1d(np.arange(len(classes)), seen)[0]]
        raise ValueError(
            f"each class must have an image to train on, but all of {missing} are held out; "
            "use more of them, fewer for --validation, or another --seed"
        )
    total = len(images.train)
    model = MODELS[network](images.shape, len(classes), device=device)
    if 1 in (options.batch_size, total % options.batch_size):
        try:
            ndl.summary(model, (1, *images.shape))
        except ValueError as error:
            raise ValueError(
                "batch normalization needs at least 2 images in every batch, "
                f"but --batch-size {options.batch_size} of {total} leaves a batch of 1"
            ) from error

    def loader(dataset: Any, batch_size: int = 256, **options: Any) -> Any:
        return None if dataset is None else DataLoader(dataset, batch_size, prefetch=2, device=device, **options)

    return Run(
        script=script,
        options=options,
        task=task,
        title=TITLES[network],
        model=model,
        train=loader(images.train, options.batch_size, shuffle=True, transforms=images.transforms),
        validation=loader(images.validation),
        test=loader(images.test),
        unit="images",
        input_shape=(min(options.batch_size, total), *images.shape),
        classes=classes,
        data={"name": images.name, **images.counts, "checksum": images.checksum},
        data_line=str(images),
        facts={"network": network, "shape": list(images.shape)},
    )
