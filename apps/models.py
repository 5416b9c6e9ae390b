"""The networks of the apps: for images, the course's ResNet9 among them, and the course's language models.

`MODELS` maps the names of the command line to functions that build a network for images of a shape. The networks of the
benchmark are in `benchmark/cases.py`: data from which each library builds its own twin.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import needle as ndl
from needle import nn

__all__ = [
    "MODELS",
    "Autoencoder",
    "ConvNet1d",
    "LanguageModel",
    "LeNet",
    "ResNet9",
    "TinyCNN",
    "UNet",
    "ndl",
    "nn",
    "np",
]

Shape = tuple[int, int, int]  # of an image: channels, height, width
State = ndl.Tensor | tuple[ndl.Tensor, ndl.Tensor]


def _check_side(model: str, shape: Shape, least: int) -> None:
    _, height, width = shape
    if min(height, width) < least:
        raise ValueError(f"{model}: images must have at least {least}x{least} pixels, but got {height}x{width}")


# ---- classification --------------------------------------------------------------------------------------------------


class TinyCNN(nn.Module):
    """Three convolutions and a linear layer: (N, C, H, W) -> (N, classes).

    `side` is H and W, or the pair (H, W); both must be at least 4, since two poolings halve them.
    """

    def __init__(
        self,
        side: int | tuple[int, int],
        classes: int = 10,
        device: ndl.BackendDevice | None = None,
        dtype: str = "float32",
        channels: int = 1,
    ) -> None:
        super().__init__()
        height, width = (side, side) if isinstance(side, int) else side
        _check_side("TinyCNN", (channels, height, width), 4)
        options = {"device": device, "dtype": dtype}
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, **options),
            nn.BatchNorm2d(16, **options),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, **options),
            nn.BatchNorm2d(32, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, **options),
            nn.BatchNorm2d(64, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classify = nn.Linear(64 * (height // 4) * (width // 4), classes, **options)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        return self.classify(self.features(x))


class LeNet(nn.Sequential):
    """LeNet-5 with rectifiers and max-pooling: (N, C, H, W) -> (N, classes); H and W must be at least 12.

    Images of 28x28 are padded to the 32x32 of the paper. Source: LeCun, Bottou, Bengio and Haffner, Gradient-based
    learning applied to document recognition, Proceedings of the IEEE 86 (1998), section II.B.
    """

    def __init__(self, shape: Shape, classes: int = 10, **options: Any) -> None:
        _check_side("LeNet", shape, 12)
        channels, *sides = shape
        height, width = ((side // 2 - 4) // 2 for side in sides)
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=2, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, **options),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120, **options),
            nn.ReLU(),
            nn.Linear(120, 84, **options),
            nn.ReLU(),
            nn.Linear(84, classes, **options),
        )


def _resnet9(shape: Shape, classes: int, **options: Any) -> list[nn.Module]:
    """The layers of `ResNet9` for images of any shape and any number of classes."""
    channels, *sides = shape
    height, width = (-(-side // 32) for side in sides)  # the strides are 4, 2, 2 and 2

    def conv_bn(channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
        convolution = nn.Conv(channels, out_channels, kernel_size, stride, **options)
        return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, **options), nn.ReLU())

    def pair(channels: int) -> nn.Module:
        return nn.Residual(nn.Sequential(conv_bn(channels, channels, 3, 1), conv_bn(channels, channels, 3, 1)))

    return [
        conv_bn(channels, 16, 7, 4),
        conv_bn(16, 32, 3, 2),
        pair(32),
        conv_bn(32, 64, 3, 2),
        conv_bn(64, 128, 3, 2),
        pair(128),
        nn.Flatten(),
        nn.Linear(128 * height * width, 128, **options),
        nn.ReLU(),
        nn.Linear(128, classes, **options),
    ]


class ResNet9(nn.Sequential):
    """Eight convolutions, four of them in two residual pairs, and two linear layers: (N, 3, 32, 32) -> (N, 10)."""

    def __init__(self, device: ndl.BackendDevice | None = None, dtype: str = "float32") -> None:
        super().__init__(*_resnet9((3, 32, 32), 10, device=device, dtype=dtype))


class ConvNet1d(nn.Module):
    """Four strided 1-d convolutions over the sequence of pixels, row after row: (N, C, H, W) -> (N, classes).

    Neighbours above and below are W steps apart, so this network shows what the second dimension is worth.
    """

    def __init__(self, shape: Shape, classes: int = 10, **options: Any) -> None:
        super().__init__()
        widths = (shape[0], 16, 32, 64, 64)
        layers: list[nn.Module] = []
        for channels, out_channels in pairwise(widths):
            convolution = nn.Conv1d(channels, out_channels, 9, stride=2, padding=4, bias=False, **options)
            layers += [convolution, nn.BatchNorm1d(out_channels, **options), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(widths[-1], classes, **options)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        count, channels, height, width = x.shape
        return self.classify(self.features(x.reshape((count, channels, height * width))).mean(2))


# ---- images from images ----------------------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """Images through a code of `code` numbers and back: (N, C, H, W) in [0, 1] -> (N, C, H, W) in (0, 1)."""

    def __init__(self, shape: Shape, code: int = 32, **options: Any) -> None:
        super().__init__()
        _check_side("Autoencoder", shape, 4)
        self.shape = channels, height, width = shape
        self.small = 32, -(-height // 4), -(-width // 4)
        features = 32 * self.small[1] * self.small[2]
        self.encode = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1, **options),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, **options),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(features, code, **options),
        )
        self.expand = nn.Sequential(nn.Linear(code, features, **options), nn.ReLU())
        self.decode = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1, **options),
            nn.ReLU(),
            nn.ConvTranspose2d(16, channels, 4, stride=2, padding=1, **options),
            nn.Sigmoid(),
        )

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        _, height, width = self.shape
        y = self.expand(self.encode(x))
        return self.decode(y.reshape((len(x), *self.small)))[:, :, :height, :width]


class UNet(nn.Module):
    """Down twice and up again with skips, logits for each pixel: (N, C, H, W) -> (N, classes, H, W).

    H and W must be multiples of 4. Source: Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical
    image segmentation, MICCAI 2015; here with padding, batch normalization and 8 channels at first.
    """

    def __init__(self, shape: Shape, classes: int = 2, **options: Any) -> None:
        super().__init__()
        channels, height, width = shape
        if height % 4 or width % 4:
            raise ValueError(f"UNet: height and width must be multiples of 4, but got images of {height}x{width}")

        def block(channels: int, out_channels: int) -> nn.Module:
            layers: list[nn.Module] = []
            for size in (channels, out_channels):
                layers.append(nn.Conv2d(size, out_channels, 3, padding=1, bias=False, **options))
                layers += [nn.BatchNorm2d(out_channels, **options), nn.ReLU()]
            return nn.Sequential(*layers)

        self.pool = nn.MaxPool2d(2)
        self.down1, self.down2, self.bottom = block(channels, 8), block(8, 16), block(16, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, stride=2, **options)
        self.merge2 = block(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, stride=2, **options)
        self.merge1 = block(16, 8)
        self.classify = nn.Conv2d(8, classes, 1, **options)

    def forward(self, x: ndl.Tensor) -> ndl.Tensor:
        x1 = self.down1(x)
        x2 = self.down2(self.pool(x1))
        y = self.up2(self.bottom(self.pool(x2)))
        y = self.up1(self.merge2(ndl.concatenate([x2, y], axis=1)))
        return self.classify(self.merge1(ndl.concatenate([x1, y], axis=1)))


# ---- by name ---------------------------------------------------------------------------------------------------------

MODELS: dict[str, Callable[..., nn.Module]] = {  # each takes the shape of an image, a number of classes, and options
    "tinycnn": lambda shape, classes, **options: TinyCNN(shape[1:], classes, channels=shape[0], **options),
    "lenet": LeNet,
    "resnet9": lambda shape, classes, **options: nn.Sequential(*_resnet9(shape, classes, **options)),
    "conv1d": ConvNet1d,
    "autoencoder": lambda shape, classes, **options: Autoencoder(shape, **options),
    "unet": UNet,
}


# ---- text ------------------------------------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    """An embedding, a sequence model and a linear layer: words (T, B) -> logits of the next word (T·B, output_size).

    `seq_model` is "rnn", "lstm" or "transformer". The transformer takes at most `seq_len` words at a time; its features
    stay `embedding_size` wide, where the recurrent models have `hidden_size`.
    """

    def __init__(
        self,
        embedding_size: int,
        output_size: int,
        hidden_size: int,
        num_layers: int = 1,
        seq_model: str = "rnn",
        seq_len: int = 40,
        device: ndl.BackendDevice | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if seq_model not in ("rnn", "lstm", "transformer"):
            raise ValueError(
                f"LanguageModel: seq_model must be one of 'rnn', 'lstm', 'transformer', but got {seq_model!r}"
            )
        options = {"device": device, "dtype": dtype}
        sizes = (embedding_size, hidden_size, num_layers)
        self.embedding = nn.Embedding(output_size, embedding_size, **options)
        if seq_model == "transformer":
            self.sequence = nn.Transformer(*sizes, sequence_len=seq_len, **options)
        else:
            self.sequence = {"rnn": nn.RNN, "lstm": nn.LSTM}[seq_model](*sizes, **options)
        features = embedding_size if seq_model == "transformer" else hidden_size
        self.linear = nn.Linear(features, output_size, **options)

    def forward(self, x: ndl.Tensor, h: State | None = None) -> tuple[ndl.Tensor, State]:
        """Words (T, B) and the state, None at first -> logits (T·B, output_size) and the next state.

        The state is a tensor (L, B, hidden_size); an LSTM has a tuple of two.
        """
        y, h = self.sequence(self.embedding(x), h)
        length, batch, features = y.shape
        return self.linear(y.reshape((length * batch, features))), h
