"""The networks of the apps: a small CNN for digits, the course's ResNet9 for images, and its language models.

The networks of the benchmark are in `benchmark/cases.py`: data from which each library builds its own twin.
"""

from __future__ import annotations

import numpy as np

import needle as ndl
from needle import nn

__all__ = ["LanguageModel", "ResNet9", "TinyCNN", "ndl", "nn", "np"]

State = ndl.Tensor | tuple[ndl.Tensor, ndl.Tensor]


class TinyCNN(nn.Module):
    """Three convolutions and a linear layer for gray images: (N, 1, H, W) -> (N, classes).

    `side` is H and W, or the pair (H, W); both must be at least 4, since two poolings halve them.
    """

    def __init__(
        self,
        side: int | tuple[int, int],
        classes: int = 10,
        device: ndl.BackendDevice | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        height, width = (side, side) if isinstance(side, int) else side
        if min(height, width) < 4:
            raise ValueError(f"TinyCNN: images must have at least 4x4 pixels, but got {height}x{width}")
        options = {"device": device, "dtype": dtype}
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, **options),
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


class ResNet9(nn.Sequential):
    """Eight convolutions, four of them in two residual pairs, and two linear layers: (N, 3, 32, 32) -> (N, 10)."""

    def __init__(self, device: ndl.BackendDevice | None = None, dtype: str = "float32") -> None:
        options = {"device": device, "dtype": dtype}

        def conv_bn(channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
            convolution = nn.Conv(channels, out_channels, kernel_size, stride, **options)
            return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, **options), nn.ReLU())

        def pair(channels: int) -> nn.Module:
            return nn.Residual(nn.Sequential(conv_bn(channels, channels, 3, 1), conv_bn(channels, channels, 3, 1)))

        super().__init__(
            conv_bn(3, 16, 7, 4),
            conv_bn(16, 32, 3, 2),
            pair(32),
            conv_bn(32, 64, 3, 2),
            conv_bn(64, 128, 3, 2),
            pair(128),
            nn.Flatten(),
            nn.Linear(128, 128, **options),
            nn.ReLU(),
            nn.Linear(128, 10, **options),
        )


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
