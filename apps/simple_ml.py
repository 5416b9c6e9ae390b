"""The course's functions around a model: MNIST's files, a two-layer network, image classifiers, language models.

The signatures, the seed and the return values are the course's. The loop itself is `needle.training.fit`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import needle as ndl
from needle import nn
from needle.metrics import Accuracy
from needle.training import evaluate, fit

if __package__:  # imported as apps.simple_ml
    from .text import CarriedState, Text
else:  # imported as simple_ml, as the course's tests do: this folder is on sys.path
    from text import CarriedState, Text

__all__ = [  # what a star import brings: the course's names
    "epoch_general_cifar10",
    "epoch_general_ptb",
    "evaluate_cifar10",
    "evaluate_ptb",
    "loss_err",
    "ndl",
    "nn",
    "nn_epoch",
    "np",
    "parse_mnist",
    "softmax_loss",
    "train_cifar10",
    "train_ptb",
]

SEED = 4  # the course's loops seed NumPy's global generator with it
Batches = Iterable[tuple[ndl.Tensor, ...]]  # images and labels


# ---- a two-layer network ---------------------------------------------------------------------------------------------


def parse_mnist(
    image_filename: str | os.PathLike[str], label_filename: str | os.PathLike[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Read two IDX files, gzipped or plain: float32 images (N, H·W) in 0..1 and uint8 labels (N,)."""
    images, labels = ndl.data.MNISTDataset(image_filename, label_filename).arrays
    count, height, width, _ = images.shape
    return images.reshape(count, height * width), labels


def softmax_loss(Z: ndl.Tensor, y_one_hot: ndl.Tensor) -> ndl.Tensor:
    """Mean cross-entropy of logits (N, C) and one-hot labels (N, C) -> ()."""
    if Z.shape != y_one_hot.shape:
        raise ValueError(f"softmax_loss: Z and y_one_hot must agree in shape, but got {Z.shape} and {y_one_hot.shape}")
    return -(ndl.logsoftmax(Z) * y_one_hot).sum() / Z.shape[0]


def nn_epoch(
    X: np.ndarray, y: np.ndarray, W1: ndl.Tensor, W2: ndl.Tensor, lr: float = 0.1, batch: int = 100
) -> tuple[ndl.Tensor, ndl.Tensor]:
    """One pass of SGD for relu(X @ W1) @ W2 over X (N, D) and labels y (N,), in order; returns the new (W1, W2).

    The arguments W1 and W2 are not modified.
    """
    W1, W2 = ndl.Tensor(W1), ndl.Tensor(W2)
    opt = ndl.optim.SGD([W1, W2], lr=lr)
    for start in range(0, len(X), batch):
        x = ndl.Tensor(X[start : start + batch], device=W1.device, requires_grad=False)
        logits = ndl.relu(x @ W1) @ W2
        opt.reset_grad()
        softmax_loss(logits, _one_hot(logits, y[start : start + batch])).backward(create_graph=False)
        opt.step()
    return W1, W2


def loss_err(h: ndl.Tensor, y: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and error rate of logits h (N, C) for labels y (N,), each in [0, C)."""
    return softmax_loss(h, _one_hot(h, y)).item(), float(np.mean(h.numpy().argmax(1) != y))


def _one_hot(logits: ndl.Tensor, y: np.ndarray) -> ndl.Tensor:
    """Labels (N,) -> one-hot rows (N, C), with the dtype and device of logits (N, C)."""
    labels = ndl.Tensor(y, device=ndl.cpu())  # where their range is checked
    return ndl.init.one_hot(logits.shape[1], labels, device=logits.device, dtype=logits.dtype)


# ---- one pass --------------------------------------------------------------------------------------------------------


def pass_over(
    model: nn.Module,
    batches: Batches,
    loss_fn: nn.Module,
    opt: ndl.optim.Optimizer | None,
    clip: float | None = None,
    **options: Any,
) -> tuple[float, float]:
    """Accuracy and mean loss over all targets: of training with a step per batch, or of evaluation without `opt`."""
    options["metrics"] = {"accuracy": Accuracy()}
    model.train(opt is not None)
    if opt is None:
        figures = evaluate(model, loss_fn, batches, **options)
        return figures["accuracy"], figures["loss"]
    (row,) = fit(model, loss_fn, opt, batches, epochs=1, clip_norm=clip, bar=False, **options)
    return row["train_accuracy"], row["loss"]


# ---- image classifiers -----------------------------------------------------------------------------------------------


def last_epoch(op: str, n_epochs: int, run: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Call `run` `n_epochs` times and return the last result; raises ValueError if `n_epochs` is below 1."""
    if n_epochs < 1:
        raise ValueError(f"{op}: the number of epochs must be at least 1, but got {n_epochs}")
    return [run() for _ in range(n_epochs)][-1]


def epoch_general_cifar10(
    dataloader: Batches,
    model: nn.Module,
    loss_fn: nn.Module = nn.SoftmaxLoss(),  # noqa: B008
    opt: ndl.optim.Optimizer | None = None,
) -> tuple[float, float]:
    """One pass over batches of images and labels, with steps if there is an `opt`: (accuracy, mean loss)."""
    np.random.seed(SEED)
    return pass_over(model, dataloader, loss_fn, opt)


def train_cifar10(
    model: nn.Module,
    dataloader: Batches,
    n_epochs: int = 1,
    optimizer: Callable[..., ndl.optim.Optimizer] = ndl.optim.Adam,
    lr: float = 0.001,
    weight_decay: float = 0.001,
    loss_fn: Callable[[], nn.Module] = nn.SoftmaxLoss,
) -> tuple[float, float]:
    """Train `model` on batches of images and labels: (accuracy, mean loss) of the last epoch."""
    np.random.seed(SEED)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    return last_epoch("train_cifar10", n_epochs, lambda: epoch_general_cifar10(dataloader, model, loss_fn(), opt))


def evaluate_cifar10(
    model: nn.Module, dataloader: Batches, loss_fn: Callable[[], nn.Module] = nn.SoftmaxLoss
) -> tuple[float, float]:
    """(accuracy, mean loss) of `model` on batches of images and labels."""
    return epoch_general_cifar10(dataloader, model, loss_fn())


# ---- language models -------------------------------------------------------------------------------------------------


def epoch_general_ptb(
    data: np.ndarray,
    model: nn.Module,
    seq_len: int = 40,
    loss_fn: nn.Module = nn.SoftmaxLoss(),  # noqa: B008
    opt: ndl.optim.Optimizer | None = None,
    clip: float | None = None,
    device: Any = None,
    dtype: str = "float32",
) -> tuple[float, float]:
    """One pass over word ids (T, B) from `batchify`, with steps if there is an `opt`: (accuracy, mean loss)."""
    np.random.seed(SEED)
    return pass_over(model, Text(data, seq_len, device, dtype), loss_fn, opt, clip, forward=CarriedState())


def train_ptb(
    model: nn.Module,
    data: np.ndarray,
    seq_len: int = 40,
    n_epochs: int = 1,
    optimizer: Callable[..., ndl.optim.Optimizer] = ndl.optim.SGD,
    lr: float = 4.0,
    weight_decay: float = 0.0,
    loss_fn: Callable[[], nn.Module] = nn.SoftmaxLoss,
    clip: float | None = None,
    device: Any = None,
    dtype: str = "float32",
) -> tuple[float, float]:
    """Train a language model on word ids (T, B) from `batchify`: (accuracy, mean loss) of the last epoch.

    `clip` bounds the norm of all gradients together.
    """
    np.random.seed(SEED)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    return last_epoch(
        "train_ptb", n_epochs, lambda: epoch_general_ptb(data, model, seq_len, loss_fn(), opt, clip, device, dtype)
    )


def evaluate_ptb(
    model: nn.Module,
    data: np.ndarray,
    seq_len: int = 40,
    loss_fn: Callable[[], nn.Module] = nn.SoftmaxLoss,
    device: Any = None,
    dtype: str = "float32",
) -> tuple[float, float]:
    """(accuracy, mean loss) of a language model on word ids (T, B) from `batchify`."""
    return epoch_general_ptb(data, model, seq_len, loss_fn(), device=device, dtype=dtype)
