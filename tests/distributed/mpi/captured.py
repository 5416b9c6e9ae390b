"""Captured steps of ranks beside eager ones from the same start: what both leave, and how many calls were replayed."""

from __future__ import annotations

import warnings

import numpy as np

import needle as ndl
from needle import nn, optim, tuning
from needle.distributed import SharedGradients, current_communicator
from tests.distributed import programs

LIMITS = {"GRADIENT_BUCKET_BYTES": 400}  # so that some buckets are full within backward
IGNORED = -100


class Layers(nn.Module):
    """Layers of which the middle one is for some items only, and a weight that nobody uses."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.middle = nn.Linear(16, 12, dtype=dtype), nn.Linear(12, 12, dtype=dtype)
        self.last = nn.Linear(12, 3, dtype=dtype)
        self.unused = nn.Parameter(ndl.ones(5, dtype=dtype))

    def forward(self, x, takes_all):
        hidden = nn.functional.relu(self.first(x))
        return self.last(nn.functional.relu(self.middle(hidden)) if takes_all else hidden)


class Norms(nn.Module):
    """Batch norm of both kinds of running averages, pooling and dropout."""

    def __init__(self, dtype):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 8, dtype=dtype),
            nn.BatchNorm1d(8, momentum=None, dtype=dtype), nn.ReLU(), nn.Linear(8, 3, dtype=dtype),
        )  # fmt: skip

    def forward(self, x, takes_all):
        return self.layers(x.reshape((-1, 1, 4, 4)))


class Run:
    """A network in training; the step is captured or eager."""

    def __init__(self, captures, make=Layers, dtype="float32", compression=None, clips=False, only_rank=None):
        np.random.seed(3)
        self.model, self.clips, self.runs = make(dtype), clips, 0  # how often Python has computed a loss
        self.takes_all = only_rank in (None, current_communicator().rank)
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.gradients = SharedGradients(self.model.parameters(), compression)
        self.step = ndl.capture(self.learn) if captures else self.learn
        self.add = ndl.capture(self.added) if captures else self.added

    def loss(self, x, y, leaves=False):
        self.runs += 1
        scores = self.model(x, self.takes_all and not leaves)
        return nn.functional.cross_entropy(scores, y, ignore_index=IGNORED)

    def learn(self, x, y, groups=1, leaves=False, tag=None):
        """A step for a batch, or for one in groups of which the last exchanges the gradients."""
        self.optimizer.reset_grad()
        for i in range(groups):
            part = slice(i, None, groups)
            loss = self.loss(x[part], y[part]) if groups > 1 else self.loss(x, y, leaves)
            loss = self.gradients.backward(loss, 1 / groups, accumulate=i > 0, exchange=i == groups - 1)
        norm = self.optimizer.clip_grad_norm(0.5) if self.clips else None
        self.optimizer.step()
        return loss, norm

    def added(self, x, y):
        return self.gradients.backward(self.loss(x, y), accumulate=True), None

    def state(self):
        grads = [parameter.grad for parameter in self.model.parameters()]
        found = [*self.model.parameters(), *(buffer for _, buffer in self.model.named_buffers()), *grads]
        return [None if x is None else x.numpy().tobytes() for x in found] + [repr(ndl.get_rng_state())]


def batches(count, sizes, dtype):
    """This rank's items of batches, with their parts."""
    communicator, stream = current_communicator(), np.random.RandomState(4)
    for i in range(count):
        items = sizes[i % len(sizes)]
        x, y = stream.standard_normal((items, 16)).astype(dtype), stream.randint(0, 3, items)
        communicator.part = part = communicator.part_of(items)
        mine = slice(None) if part is None else slice(part.start, part.stop)
        yield ndl.Tensor(x[mine], requires_grad=False), y[mine]
    communicator.part = None


def train(captures, count=9, sizes=(8,), updates=0, groups=1, tags=0, leaves=99, ignored=(), **options):
    """What each call returns and leaves, and how many were replays.

    With `updates`, calls only add to the gradients, and each so many of them are followed by an update. In `tags` calls
    of rank 1 an argument has another value, so they are of another kind. From the call number `leaves` on it leaves out
    the middle layer. `ignored` are calls in which rank 1 ignores an item.
    """
    run, seen, is_one = Run(captures, **options), [], current_communicator().rank == 1
    for i, (x, y) in enumerate(batches(count, sizes, options.get("dtype", "float32"))):
        if i in ignored and is_one:
            y[0] = IGNORED
        y = ndl.Tensor(y, requires_grad=False)
        if updates:
            results = run.add(x, y)
            if i % updates == 0:
                run.optimizer.step()
                run.optimizer.reset_grad()
        else:
            results = run.step(x, y, groups, is_one and i >= leaves, tag=is_one and i < tags)
        seen += [result.numpy().tobytes() for result in results if result is not None] + run.state()
    return seen, count - run.runs // groups


CASES = {
    "plain": {},
    "float64, clipped": {"dtype": "float64", "clips": True},
    "not even": {"sizes": (7,)},
    "a smaller last batch": {"sizes": (7, 7, 6), "count": 15},  # of which a rank has as many items
    "batch norm": {"make": Norms, "sizes": (7,), "dtype": "float64"},
    "batch norm in float32": {"make": Norms, "clips": True},
    "float16": {"compression": "float16"},
    "bfloat16": {"compression": "bfloat16"},
    "groups": {"groups": 2},
    "groups in bfloat16": {"groups": 2, "compression": "bfloat16"},
    "added up": {"updates": 3, "count": 16},
    "a parameter of one rank": {"only_rank": 1},
    "a parameter of nobody any more": {"only_rank": 1, "leaves": 8, "count": 12},
    "a rank is late": {"tags": 2, "make": Norms, "count": 10},
    "values of a rank lead elsewhere": {"make": Norms, "ignored": (3, 6, 7), "count": 10},
    "too small to divide": {"sizes": (1,)},
}


def main(communicator, names=tuple(CASES)):
    """By the name of a case: whether captured steps leave what eager ones do, and the replays of all ranks."""
    found = {}
    for name in names:
        eager, captured = train(False, **CASES[name]), train(True, **CASES[name])
        found[name] = eager[0] == captured[0], communicator.all_gather_object(captured[1])
    return found


def check(found):
    """What a rank has found: all steps gave the bits of eager ones, and most were replayed."""
    for name, (are_equal, replays) in found.items():
        assert are_equal, name
        assert min(replays) >= 3, (name, replays)


def workers(names):
    """`main` of workers: what each of them finds."""
    vars(tuning).update(LIMITS)
    communicator = current_communicator()
    return communicator.all_gather_object(main(communicator, names))


def outside():
    """Of steps that exchange by a communicator from outside of them: how many results differ, and what they warn of."""
    communicator, found = current_communicator(), []

    def sums(x):
        communicator.all_reduce(x.array)
        return x * 1

    def gathers(x):
        return ndl.Tensor.make_const(communicator.all_gather(x.array)[1]) * 1

    def meets(x):
        communicator.barrier()
        return x * 1

    for exchange in (sums, gathers, meets):
        for size in (2, 100_000):
            step = ndl.capture(lambda x, exchange=exchange: exchange(x * 2))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                results = {step(ndl.ones(size) + communicator.rank).numpy().tobytes() for _ in range(7)}
            found.append((len(results), str(caught[0].message) if caught else ""))
    return communicator.all_gather_object(found)


def misbehave(what):
    """Replay a step for a long time, while rank 1 does something else after a while."""
    vars(tuning).update(LIMITS)
    communicator, run = current_communicator(), Run(True)
    for i, (x, y) in enumerate(batches(3000, (8,), "float32")):
        if communicator.rank == 1 and i == 6:
            assert run.runs == 4
            programs.DEEDS[what]()
            return
        if what == "stop" and i == 6:
            communicator.timeout = 0.3
        run.step(x, ndl.Tensor(y, requires_grad=False))
