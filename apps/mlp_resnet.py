"""The course's residual network of linear maps, and its training on MNIST."""

import numpy as np

import needle as ndl
from needle import nn

if __package__:  # imported as apps.mlp_resnet; otherwise the folder apps is on sys.path
    from apps.simple_ml import SEED, epoch_general_cifar10, last_epoch
else:
    from simple_ml import SEED, epoch_general_cifar10, last_epoch

__all__ = ["MLPResNet", "ResidualBlock", "epoch", "ndl", "nn", "np", "train_mnist"]


class ResidualBlock(nn.Sequential):
    """relu(x + F(x)), where F goes through `hidden_dim` features: (N, dim) -> (N, dim)."""

    def __init__(self, dim, hidden_dim, norm=nn.BatchNorm1d, drop_prob=0.1):
        through = nn.Sequential(
            nn.Linear(dim, hidden_dim),
            norm(hidden_dim),
            nn.ReLU(),
            nn.Dropout(drop_prob),
            nn.Linear(hidden_dim, dim),
            norm(dim),
        )
        super().__init__(nn.Residual(through), nn.ReLU())


class MLPResNet(nn.Sequential):
    """A linear map, `num_blocks` residual blocks and a linear map: (N, dim) -> (N, num_classes)."""

    def __init__(self, dim, hidden_dim=100, num_blocks=3, num_classes=10, norm=nn.BatchNorm1d, drop_prob=0.1):
        super().__init__(
            nn.Linear(dim, hidden_dim),
            nn.ReLU(),
            *(ResidualBlock(hidden_dim, hidden_dim // 2, norm, drop_prob) for _ in range(num_blocks)),
            nn.Linear(hidden_dim, num_classes),
        )


def epoch(dataloader, model, opt=None):
    """One pass over a loader of images, which the model sees flat: (error rate, mean loss).

    With `opt` in training mode and a step for each batch, without in evaluation mode. NumPy's global generator starts
    at the same seed, so that a shuffling loader gives the same order in every epoch.
    """
    accuracy, loss = epoch_general_cifar10(dataloader, nn.Sequential(nn.Flatten(), model), nn.SoftmaxLoss(), opt)
    return 1 - accuracy, loss


def train_mnist(
    batch_size=100,
    epochs=10,
    optimizer=ndl.optim.Adam,
    lr=0.001,
    weight_decay=0.001,
    hidden_dim=100,
    data_dir="data",
):
    """Train MLPResNet(784, hidden_dim) on MNIST: (train error, train loss, test error, test loss) of the last epoch.

    `optimizer` is a class; `data_dir` holds the four IDX files, gzipped or plain.
    """
    np.random.seed(SEED)
    train_set, test_set = (ndl.data.MNISTDataset(*ndl.data.idx_files(data_dir, train=train)) for train in (True, False))
    train_loader = ndl.data.DataLoader(train_set, batch_size, shuffle=True)
    model = MLPResNet(784, hidden_dim)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    trained = last_epoch("train_mnist", epochs, lambda: epoch(train_loader, model, opt))
    return (*trained, *epoch(ndl.data.DataLoader(test_set, batch_size), model))
