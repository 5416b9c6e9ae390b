"""`workers="auto"`: what is measured, what is chosen, and that nothing has changed afterwards."""

from __future__ import annotations

import random

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.backend.cores import usable_cores
from needle.data import DataLoader, NDArrayDataset
from needle.distributed.processes import WorkerDied
from needle.training import WorkerChoice, auto, choose_workers
from tests.training.runs import Augmented, adam, bytes_of, network
from tests.training.test_workers import by_threads as by_threads


@pytest.fixture
def cores(monkeypatch, by_threads):
    """Two cores; workers are threads."""
    monkeypatch.setattr(auto, "usable_cores", lambda: 2)
    monkeypatch.setattr(auto, "EPOCH_SECONDS", 0.02)
    monkeypatch.setattr("needle.training.auto.train_by_workers", training.fitting.train_by_workers)


BATCH = ndl.ones(4, 3, 8, 8), ndl.Tensor([0, 1, 2, 0])


@pytest.mark.parametrize("loader", [DataLoader(Augmented(), 4, shuffle=True, seed=1), [BATCH]], ids=["loader", "list"])
def test_the_run_stays_as_it_was(loader, cores):
    model = network()
    optimizer = adam(model.parameters())
    next(iter(loader))

    def state():
        position = loader.state_dict() if isinstance(loader, DataLoader) else None
        return bytes_of(model), str(optimizer.state_dict()), str(ndl.get_rng_state()), str(position), model.training

    before = state()
    choice = choose_workers(model, nn.CrossEntropyLoss(), optimizer, loader)
    assert state() == before
    assert choice.workers in (1, 2)
    assert choice.alone > 0
    assert choice.shared > 0
    assert " by 1 worker and " in choice.reason


class Noisy(NDArrayDataset):
    """Draws from a generator of its own, and from Python's stream."""

    def __init__(self):
        super().__init__(np.full((8, 2), 1e3, "float32"), np.zeros((8, 2), "float32"))
        self.stream = np.random.default_rng(1)

    def take(self, indices):
        inputs, targets = super().take(indices)
        return inputs + self.stream.normal() + random.random(), targets


def test_a_run_that_would_diverge_without_its_options_is_measured(cores):
    dataset, model = Noisy(), nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    before = str(dataset.stream.bit_generator.state), random.getstate()
    choice = choose_workers(model, nn.MSELoss(), optimizer, DataLoader(dataset, 4))
    assert choice.shared > 0
    assert (str(dataset.stream.bit_generator.state), random.getstate()) == before
    assert optimizer.lr == 1.0


class Flat(DataLoader):
    """Yields images as rows."""

    def __iter__(self):
        for images, labels in super().__iter__():
            yield images.reshape((len(images.numpy()), -1)), labels


def test_a_loader_with_an_iter_of_its_own_is_measured(cores):
    model = nn.Linear(4, 2)
    loader = Flat(NDArrayDataset(np.ones((6, 2, 2)), np.zeros(6, "int64")), 4)
    assert choose_workers(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), loader).shared > 0


def test_a_worker_that_dies_leaves_one(cores, monkeypatch):
    def measure(workers, loader, parts, epochs):
        if workers > 1:
            raise WorkerDied("fit: workers must live until the end, but worker 1 of 2 was killed by SIGKILL")
        return 1.0

    monkeypatch.setattr(auto, "_seconds", measure)
    model = nn.Linear(2, 2)
    choice = choose_workers(model, nn.MSELoss(), optim.SGD(model.parameters()), [(ndl.ones(2, 2), ndl.ones(2, 2))])
    assert choice.workers == 1
    assert "was killed by SIGKILL" in choice.reason


@pytest.mark.parametrize(("shared", "workers"), [(0.5, 2), (0.98, 1), (2.0, 1)])
def test_the_faster_number_is_chosen(shared, workers, cores, monkeypatch):
    monkeypatch.setattr(auto, "_seconds", lambda workers, loader, parts, epochs: 1.0 if workers == 1 else shared)
    model = nn.Linear(2, 2)
    choice = choose_workers(model, nn.MSELoss(), optim.SGD(model.parameters()), [(ndl.ones(2, 2), ndl.ones(2, 2))])
    assert choice == (workers, choice.reason, 1.0, shared)


def test_where_workers_are_not_possible_one_is_chosen(cores, monkeypatch):
    model = nn.Linear(2, 2)
    optimizer, batch = optim.SGD(model.parameters()), (ndl.ones(2, 2), ndl.ones(2, 2))

    def choice(loss_fn, loader):
        return choose_workers(model, loss_fn, optimizer, loader)

    assert choice(nn.MSELoss(), iter([batch])) == WorkerChoice(1, "the loader can be read only once")
    reason = choice(lambda outputs, targets: nn.MSELoss()(outputs, targets), [batch]).reason
    assert reason.startswith("fit: for several workers loss_fn must be")
    monkeypatch.setattr(auto, "usable_cores", lambda: 1)
    assert choice(nn.MSELoss(), [batch]) == WorkerChoice(1, "the process may use 1 core")


def test_fit_takes_the_number(cores, monkeypatch):
    monkeypatch.setattr("needle.training.fitting.choose_workers", lambda *parts, **options: WorkerChoice(2, "faster"))
    numbers = []

    class Sees:
        def on_start(self, state):
            numbers.append(state.workers)

    model = nn.Linear(3, 2)
    loader = DataLoader(NDArrayDataset(np.ones((4, 3)), np.zeros((4, 2))), 4)
    options = {"epochs": 1, "callbacks": [Sees()], "bar": False}
    training.fit(model, nn.MSELoss(), optim.SGD(model.parameters()), loader, workers="auto", **options)
    assert numbers == [2]


# ---- cores -----------------------------------------------------------------------------------------------------------


def version_1(group, quota):
    """The files of a control group of version 1."""
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("4:memory:/x\n3:cpuacct,cpu:/elsewhere\n0::/\n", version_1("cpu", 300_000), 3),
        ("3:cpu:/c\n", version_1("cpu/c", -1), 64),
        ("strange", {}, 64),
        (None, {}, 64),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_count(membership, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    own = tmp_path / "membership"
    if membership is not None:
        own.write_text(membership)
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert usable_cores(tmp_path / "groups", own) == expected
    assert usable_cores() >= 1
