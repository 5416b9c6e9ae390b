"""The course's models: ResNet9 for images of 32x32 in colour, and language models over words."""

import numpy as np

import needle as ndl
from needle import nn

__all__ = ["LanguageModel", "ResNet9", "ndl", "nn", "np"]


class ResNet9(nn.Sequential):
    """Eight convolutions with two residual pairs among them, then two linear maps: (N, 3, 32, 32) -> (N, 10)."""

    def __init__(self, device=None, dtype="float32"):
        options = {"device": device, "dtype": dtype}

        def conv_bn(channels, out_channels, kernel_size, stride):
            convolution = nn.Conv(channels, out_channels, kernel_size, stride, **options)
            return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, **options), nn.ReLU())

        def pair(channels):
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
    """An embedding of words, a sequence model, and a linear map: words (T, B) -> logits of the next (T·B, output_size).

    `seq_model` is "rnn", "lstm" or "transformer"; the last is for stretches of up to `seq_len` words, and keeps to
    `embedding_size` where the others go over to `hidden_size`.
    """

    def __init__(
        self,
        embedding_size,
        output_size,
        hidden_size,
        num_layers=1,
        seq_model="rnn",
        seq_len=40,
        device=None,
        dtype="float32",
    ):
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

    def forward(self, x, h=None):
        """Words (T, B) and the state, None at first: the logits (T·B, output_size) and the next state.

        The state is a tensor (L, B, hidden_size), for "lstm" a tuple of two.
        """
        y, h = self.sequence(self.embedding(x), h)
        length, batch, features = y.shape
        return self.linear(y.reshape((length * batch, features))), h
