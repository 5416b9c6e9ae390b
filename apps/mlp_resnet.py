"""The course's residual network of linear layers, and its training on MNIST."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import numpy as np

import needle as ndl
from needle import nn

if __package__:  # imported as apps.mlp_resnet
    from .simple_ml import SEED, epoch_general_cifar10, last_epoch
else:  # imported as mlp_resnet, as the course's tests do: this folder is on sys.path
    from simple_ml import SEED, epoch_general_cifar10, last_epoch

__all__ = ["MLPResNet", "ResidualBlock", "epoch", "ndl", "nn", "np", "train_mnist"]


class ResidualBlock(nn.Sequential):
    """relu(x + F(x)), where F has `hidden_dim` hidden features: (N, dim) -> (N, dim)."""

    def __init__(
        self, dim: int, hidden_dim: int, norm: Callable[[int], nn.Module] = nn.BatchNorm1d, drop_prob: float = 0.1
    ) -> None:
        body = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            norm(hidden_dim),
            nn.ReLU(),
            nn.Dropout(drop_prob),
            nn.Linear(hidden_dim, dim),
            norm(dim),
        )
        super().__init__(nn.Residual(body), nn.ReLU())


class MLPResNet(nn.Sequential):
    """A linear layer, `num_blocks` residual blocks and a linear layer: (N, dim) -> (N, num_classes)."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int = 100,
        num_blocks: int = 3,
        num_classes: int = 10,
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
        drop_prob: float = 0.1,
    ) -> None:
        super().__init__(
            nn.Linear(dim, hidden_dim),
            nn.ReLU(),
            *(ResidualBlock(hidden_dim, hidden_dim // 2, norm, drop_prob) for _ in range(num_blocks)),
            nn.Linear(hidden_dim, num_classes),
        )


def epoch(
    dataloader: Iterable[tuple[ndl.Tensor, ...]], model: nn.Module, opt: ndl.optim.Optimizer | None = None
) -> tuple[float, float]:
    """One pass over batches of images, which the model receives flattened: (error rate, mean loss).

    With `opt` in training mode and a step per batch, without it in evaluation mode. Seeds NumPy's global generator, so
    a shuffling loader repeats the same order in every epoch.
    """
    accuracy, loss = epoch_general_cifar10(dataloader, nn.Sequential(nn.Flatten(), model), nn.SoftmaxLoss(), opt)
    return 1 - accuracy, loss


def train_mnist(
    batch_size: int = 100,
    epochs: int = 10,
    optimizer: Callable[..., ndl.optim.Optimizer] = ndl.optim.Adam,
    lr: float = 0.001,
    weight_decay: float = 0.001,
    hidden_dim: int = 100,
    data_dir: str | os.PathLike[str] = "data",
) -> tuple[float, float, float, float]:
    """Train MLPResNet(784, hidden_dim) on MNIST: (train error, train loss, test error, test loss) of the last epoch.

    `data_dir` holds the four IDX files, gzipped or plain.
    """
    np.random.seed(SEED)
    train_set, test_set = (ndl.data.MNISTDataset(*ndl.data.idx_files(data_dir, train=train)) for train in (True, False))
    train_loader = ndl.data.DataLoader(train_set, batch_size, shuffle=True)
    model = MLPResNet(784, hidden_dim)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    trained = last_epoch("train_mnist", epochs, lambda: epoch(train_loader, model, opt))
    return (*trained, *epoch(ndl.data.DataLoader(test_set, batch_size), model))
