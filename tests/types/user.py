"""A user's script as type checkers see it: `make lint` runs mypy --strict and pyright over it, `make test` runs it.

`assert_type` holds for a checker exactly if it infers that type; at run time it returns its argument.
"""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np

import needle as ndl
from needle import Tensor, TensorTuple, init, nn, ops, optim
from needle.data import DataLoader, DigitsDataset, NDArrayDataset
from needle.nn import functional as F


class Net(nn.Module):
    """A network of one's own: a call has the types of `forward`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding="same"),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.1),
            nn.Flatten(),
        )
        self.head = nn.Linear(channels * 16, 10)
        self.scale = nn.Parameter(init.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)) * self.scale


def train() -> float:
    ndl.seed(0)
    model = Net(4)
    assert_type(model(ndl.zeros(2, 1, 8, 8)), Tensor)
    assert_type(model.parameters(), list[nn.Parameter])
    assert_type(model.train(), Net)
    assert_type(model.eval().to(ndl.cpu()), Net)
    optimizer = optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4, betas=(0.9, 0.99))
    loss_fn = nn.CrossEntropyLoss()
    losses: list[float] = []
    for images, labels in DataLoader(DigitsDataset(train=True), batch_size=256, shuffle=True):
        assert_type(images, Tensor)
        loss = assert_type(loss_fn(model(images), labels), Tensor)
        optimizer.zero_grad()
        loss.backward(create_graph=False)
        assert_type(optimizer.clip_grad_norm(1.0), Tensor)
        assert_type(nn.utils.clip_grad_norm_(model.parameters(), 1.0), Tensor)
        optimizer.step()
        losses.append(float(loss))
    groups = optim.SGD([{"params": model.parameters(), "lr": 0.1}], momentum=0.9)
    assert_type(groups.lr, float)
    assert_type(groups.dampening, float | None)
    groups.param_groups[0]["lr"] = optimizer.lr = 0.5
    optimizer.load_state_dict(optimizer.state_dict())
    model.load_state_dict(model.state_dict())
    images, labels = next(iter(DataLoader(DigitsDataset(train=False), batch_size=355)))
    with ndl.no_grad():
        assert_type(ndl.equal(model(images).argmax(1), labels), Tensor)
    return losses[-1]


def arithmetic() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], device=ndl.cpu(), dtype="float32")
    assert_type(x.shape, tuple[int, ...])
    assert_type(x + 1, Tensor)
    assert_type(2 - x * x / 3, Tensor)
    assert_type(x @ x.transpose(), Tensor)
    assert_type(x**2 > 1, Tensor)
    assert_type((x == x) != (x == 1), Tensor)
    assert_type(f"{x.sum():.2f}", str)
    assert_type(1.0 in x, bool)
    assert_type(x[0].sum(), Tensor)
    assert_type(x.mean(axes=(0, 1), keepdims=True), Tensor)
    assert_type(x.mean(dim=1, keepdim=True) + x.sum(axis=1, keepdims=True) + x.max(axis=(0, 1)), Tensor)
    assert_type(ndl.summation(x, dim=1) + ndl.softmax(x, dim=1).argmax(dim=1), Tensor)
    assert_type(ndl.stack([x, x], dim=1).permute(1, 0, 2).transpose(0, 1), Tensor)
    assert_type(x.reshape((4,)).broadcast_to((2, 4)), Tensor)
    assert_type(x.T @ x.mT.float().squeeze().unsqueeze(0).flatten(1).view(-1, 2), Tensor)
    assert_type(x.chunk(2), tuple[Tensor, ...])
    assert_type((x > 1).any(dim=1) & ndl.all(x > 1, dim=1), Tensor)
    assert_type(ndl.tensor([1.0], dtype=ndl.float32).eq(1), Tensor)
    assert_type(ndl.zeros((2, 3)) + ndl.full((2, 3), 1.0) + ndl.randn(2, 3), Tensor)
    assert_type(ndl.grad(x.sum(), x), tuple[Tensor | None, ...])
    assert_type(x.reshape(4, -1).clip(min=0).clamp(0, 1), Tensor)
    assert_type(x.relu().tanh().exp().log().clip(0, 1).astype("float64"), Tensor)
    assert_type(ndl.where(x > 1, x, 0.0), Tensor)
    assert_type(ndl.maximum(x, 1) + ndl.minimum(x, np.ones(2)), Tensor)
    assert_type(ndl.stack([x, x], axis=1), Tensor)
    assert_type(ndl.concatenate([x, x]), Tensor)
    assert_type(ndl.split(x, 0), TensorTuple)
    assert_type(ndl.split(x)[0], Tensor)
    assert_type(ndl.pad(x, ((1, 1), (0, 0))), Tensor)
    assert_type(ndl.flip(ndl.dilate(x, 0, 1), (0,)), Tensor)
    assert_type(ndl.logsumexp(x, 1) + ndl.logsoftmax(x).sum(1) + ndl.softmax(x).max(1), Tensor)
    assert_type(ops.standardize(x, 1), tuple[Tensor, Tensor, Tensor])
    assert_type(ndl.one_hot(3, Tensor([0, 2])), Tensor)
    assert_type(x.numpy(), np.ndarray[Any, np.dtype[Any]])
    assert_type(x.detach(), Tensor)
    x.sum().backward()
    x.sum().backward(accumulate=True)
    with ndl.no_grad():
        x[0] = 0
    if x.grad is not None:
        assert_type(x.grad, Tensor)
    assert_type(ndl.gradcheck(ndl.sqrt, Tensor([1.0, 2.0])), bool)


def functions() -> None:
    x, weight = init.randn(2, 3, 8, 8), init.kaiming_uniform(27, 36, shape=(4, 3, 3, 3))
    y = assert_type(F.conv2d(x, weight, stride=2, padding=(1, 1)), Tensor)
    assert_type(F.conv_transpose2d(y, weight), Tensor)
    assert_type(ndl.conv1d(init.rand(1, 2, 9), init.ones(3, 2, 3)), Tensor)
    assert_type(F.max_pool2d(x, 2), Tensor)
    assert_type(F.max_pool2d(x, 2, return_indices=True), tuple[Tensor, Tensor])
    assert_type(F.avg_pool2d(x, 2), Tensor)
    assert_type(F.adaptive_avg_pool2d(x, 1), Tensor)
    assert_type(F.layer_norm(x, (8, 8)), Tensor)
    assert_type(F.group_norm(x, 3), Tensor)
    assert_type(F.dropout(x, 0.5), Tensor)
    assert_type(F.interpolate(x, scale_factor=2), Tensor)
    assert_type(F.cross_entropy(init.randn(2, 5), Tensor([1, 3])), Tensor)
    assert_type(F.mse_loss(x, x), Tensor)
    assert_type(F.unfold(x, 3), Tensor)
    assert_type(init.zeros_like(x, dtype="float64"), Tensor)
    with ndl.conv_algorithm("taps"):
        assert_type(nn.Conv2d(3, 4, 3)(x), Tensor)
    assert_type(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))(x), Tensor)
    hidden, state = nn.LSTM(3, 5)(init.randn(4, 2, 3))
    assert_type(hidden, Tensor)
    assert_type(state, tuple[Tensor, Tensor])
    items = NDArrayDataset(np.ones((4, 2)), np.zeros(4))
    assert_type(len(items), int)


if __name__ == "__main__":
    assert train() < 3
    arithmetic()
    functions()
