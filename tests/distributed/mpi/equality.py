"""Training that ranks do together and one process does alone: networks, losses and optimizers of every kind.

Each case returns all losses, the last gradients, weights and buffers as one array.

The networks have no bias in front of a normalization: its gradient is nothing but rounding, which Adam makes large.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction

import numpy as np

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset, RandomFlipHorizontal, Shard, worker_batches
from needle.distributed import SharedGradients, current_communicator
from needle.metrics import Accuracy
from needle.nn import functional as F
from tests.distributed import nets

# Of shards; of some batches a rank has no item.
LENGTHS = {
    1: (20,), 2: (13, 7), 3: (9, 10, 1), 4: (2, 9, 5, 4),
    5: (2, 9, 1, 4, 4), 8: (1, 4, 5, 2, 1, 3, 3, 1),
}  # fmt: skip
STEPS = 50
SIZES = [6, 7, 5, 3, 11]  # items per batch: some that the ranks do not divide, and fewer than ranks


def convolutions():
    """With both kinds of batch norm, max-pooling and dropout."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False, dtype="float64"), nn.BatchNorm2d(4, dtype="float64"), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 6, bias=False, dtype="float64"),
        nn.BatchNorm1d(6, momentum=None, dtype="float64"), nn.ReLU(), nn.Linear(6, 3, dtype="float64"),
    )  # fmt: skip


def batches(steps=STEPS):
    draws = np.random.RandomState(3)
    sizes = [SIZES[i % len(SIZES)] for i in range(steps)]
    return [(draws.randn(n, 2, 6, 6), draws.randint(0, 3, n)) for n in sizes]


def collected(losses, model):
    tensors = [*model.parameters(), *(buffer for _, buffer in model.named_buffers() if buffer is not None)]
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return np.concatenate([losses, *(tensor.numpy().ravel() for tensor in [*grads, *tensors])])


def train(model, loss_fn, optimizer, batches, **options):
    stepper, losses = training.Stepper(optimizer, **options), []
    for x, y in worker_batches(batches):
        loss = stepper.backward(loss_fn(model(ndl.Tensor(x)), ndl.Tensor(y)), len(y))
        stepper.step()
        losses.append(loss.numpy())
    stepper.flush()
    return collected(losses, model)


def convolutions_with_adam(size):
    model = convolutions()
    return train(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01), batches())


def residual_clipped(size):
    """Momentum, and the norm of all gradients together is limited."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, dtype="float64"), nets.Residual(4), nn.InstanceNorm2d(4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4, dtype="float64"), nn.Linear(4, 3, dtype="float64"),
    )  # fmt: skip
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    return train(model, nn.CrossEntropyLoss(), optimizer, batches(), clip_norm=0.3)


def weighted_groups(size):
    """Means that divide by the weights of the whole batch, and steps with the gradients of three batches."""
    model = convolutions()
    loss_fn = nn.CrossEntropyLoss(weight=ndl.Tensor([1.0, 2.0, 4.0]), ignore_index=1, label_smoothing=0.1)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    return train(model, loss_fn, optimizer, batches(), accumulate=3, clip_value=0.2)


class Sequences(nn.Module):
    """Recurrent layers and attention, with dropout in all of them."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(6, 4, num_layers=2, dropout=0.4, batch_first=True, dtype="float64")
        self.second = nn.TransformerLayer(4, 2, 3, 8, dropout=0.3, dtype="float64")
        self.last = nn.Linear(4, 3, dtype="float64")

    def forward(self, x):
        y, _ = self.first(x[:, 0, :3])
        return self.last(self.second(y).mean(1))


def sequences(size):
    model = Sequences()
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    return train(model, nn.CrossEntropyLoss(), optimizer, batches(20))


class Experts(nn.Module):
    """Each item goes through one of several layers: where none of a rank's items does, the layer is left out there."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(72, 3, dtype="float64") for _ in range(4)])

    def forward(self, x):
        chosen = (x.numpy()[:, 0, 0, 0] > 0) + 2 * (x.numpy()[:, 0, 0, 1] > 0.5)
        x, places, results = x.reshape(x.shape[0], -1), [], []
        for number, expert in enumerate(self.experts):
            places.append(np.flatnonzero(chosen == number))
            if len(places[-1]):
                results.append(expert(x[places[-1]]))
        return ndl.concatenate(results)[np.argsort(np.concatenate(places))]


def experts(size):
    model = Experts()
    return train(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), batches())


def in_float64(model, batch):
    images, labels = batch
    return model(images.astype("float64")), labels


def fitted(size):
    """Shuffled batches with random transforms, metrics, validation, a schedule and averaged weights."""
    stream = np.random.RandomState(1)
    images, labels = stream.rand(30, 2, 6, 6).astype("float32"), stream.randint(0, 3, 30)
    data = [NDArrayDataset(images[part], labels[part]) for part in (slice(0, 23), slice(23, 30))]
    model = convolutions()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    history = training.fit(
        model, nn.CrossEntropyLoss(weight=ndl.Tensor([1.0, 2.0, 4.0])), optimizer,
        DataLoader(data[0], 5, shuffle=True, transforms=[RandomFlipHorizontal()]), epochs=10,
        validation=DataLoader(data[1], 3), metrics={"accuracy": Accuracy()}, forward=in_float64, clip_norm=1,
        scheduler=optim.lr_scheduler.CosineAnnealingLR(optimizer, 10), accumulate=2,
        ema=optim.ExponentialMovingAverage(model, 0.9),
    )  # fmt: skip
    return collected(np.ravel([row_of(row) for row in history]), model)


def shards_of(items, lengths):
    return np.split(items, np.cumsum(lengths)[:-1])


def sharded(size):
    """Each rank has items of its own. One process has the same batches: each shard's items at even distances."""
    communicator, lengths = current_communicator(), LENGTHS[size]
    stream = np.random.RandomState(1)
    fields = stream.randn(20, 2, 6, 6).astype("float32"), stream.randint(0, 3, 20)
    if communicator.size == size:
        loader = DataLoader(Shard(NDArrayDataset(*(shards_of(x, lengths)[communicator.rank] for x in fields))), 5)
    else:
        numbers = shards_of(np.arange(20), lengths)
        places = sorted((Fraction(2 * j + 1, 2 * n), rank, j) for rank, n in enumerate(lengths) for j in range(n))
        batches = [sorted((rank, j) for _, rank, j in places[start : start + 5]) for start in range(0, 20, 5)]
        chosen = [np.array([numbers[rank][j] for rank, j in batch]) for batch in batches]
        loader = [[ndl.Tensor(x[batch]) for x in fields] for batch in chosen]
    model = convolutions()
    optimizer, losses = optim.Adam(model.parameters(), lr=0.01), []
    gradients = SharedGradients(model.parameters())
    for _ in range(13):
        for x, y in worker_batches(loader):
            losses.append(gradients.backward(F.cross_entropy(model(x.astype("float64")), y)).numpy())
            optimizer.step()
    return collected(losses, model)


class Noisy(NDArrayDataset):
    """Items to which noise is added, which no other rank draws."""

    def take(self, indices):
        images, labels = super().take(indices)
        return images + np.random.randn(*images.shape).astype("float32") / 4, labels


def resumed(size):
    """Shards with noise of their own: a run as a whole, then one that is stopped within an epoch and goes on."""
    lengths, rank = LENGTHS[size], current_communicator().rank
    stream = np.random.RandomState(1)
    fields = [shards_of(x, lengths)[rank] for x in (stream.rand(20, 2, 6, 6).astype("float32"), np.arange(20) % 3)]
    results = []

    def fit(folder, **options):
        ndl.seed(6)
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        loader = DataLoader(Shard(Noisy(*fields)), 5, shuffle=True, transforms=[RandomFlipHorizontal()])
        history = training.fit(
            model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), loader, epochs=3, checkpoints=folder,
            validation=DataLoader(Shard(NDArrayDataset(*fields)), 6), metrics={"accuracy": Accuracy()}, **options,
        )  # fmt: skip
        return collected(np.ravel([row_of(row) for row in history]), model)

    with tempfile.TemporaryDirectory() as folder:
        results.append(fit(f"{folder}/whole"))
        for options in ({"callbacks": [Stop()]}, {"resume": True}):
            results[1:] = [fit(f"{folder}/parts", **options)]
    return np.stack(results)


class Stop:
    """Stops in the second epoch."""

    def on_step(self, state):
        if (state.epoch, state.batch) == (1, 2):
            state.stop("for now")


def row_of(row):
    """The figures of an epoch without its times."""
    return [x for name, x in row.items() if "second" not in name]


def in_float32(size):
    """Batch norm, dropout and momentum, whose sums are rounded more."""
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(80, 3)
    )
    items = [(x.astype("float32"), y) for x, y in batches(8)]
    return train(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9), items)


def narrow(size, wire="bfloat16"):
    """Gradients that travel in 16 bits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 40), nn.ReLU(), nn.Linear(40, 3))
    return train_shared(model, wire, batches(8))


def wide(size, dtype="float32", wire=None):
    """Batch norm, and a gradient that travels in pieces while backward goes on."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 9000, bias=False, dtype=dtype), nn.BatchNorm1d(9000, dtype=dtype), nn.ReLU(),
        nn.Linear(9000, 30, dtype=dtype), nn.BatchNorm1d(30, dtype=dtype), nn.ReLU(), nn.Linear(30, 3, dtype=dtype),
    )  # fmt: skip
    return train_shared(model, wire, batches(4), dtype)


def train_shared(model, wire, batches, dtype="float32"):
    """Train by a loop without `Stepper`."""
    gradients, losses = SharedGradients(model.parameters(), compression=wire), []
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for x, y in worker_batches(batches):
        loss = gradients.backward(F.cross_entropy(model(ndl.Tensor(x.astype(dtype))), ndl.Tensor(y)))
        losses.append(loss.numpy())
        optimizer.step()
    return collected(losses, model)


EXACT = {  # of 50 steps in float64, of the slowest 20
    "convolutions, Adam": convolutions_with_adam,
    "residual, momentum, clipped": residual_clipped,
    "class weights in groups of batches": weighted_groups,
    "sequences": sequences,
    "layers left out": experts,
    "fit": fitted,
    "shards": sharded,
}
ROUNDED = {
    "float32": in_float32,
    "resumed": resumed,
    "bfloat16": narrow,
    "float16": lambda size: narrow(size, "float16"),
    "wide": wide,
    "wide, float64": lambda size: wide(size, "float64"),
    "wide, bfloat16": lambda size: wide(size, wire="bfloat16"),
}
CASES = EXACT | ROUNDED


def run(name, size):
    """A case of `size` ranks, by this one, or by one process that does all of it."""
    ndl.seed(5)
    return CASES[name](size)


def main(communicator, names=tuple(CASES)):
    """The results of the cases, by name."""
    return {name: run(name, communicator.size) for name in names}


def launched(names):
    """`main` for `launch`."""
    return main(current_communicator(), names)
