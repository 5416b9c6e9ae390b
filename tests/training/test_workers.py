"""A run by several workers is the run by one: rows, weights, stops, errors, and how it goes on."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset
from needle.distributed import current_communicator
from needle.metrics import Accuracy
from needle.optim import lr_scheduler
from needle.training.loop import train
from needle.training.workers import go_on, left_behind
from tests.distributed.threads import run_ranks
from tests.training.runs import Stops, bytes_of, make, repeatable

STREAM = np.random.RandomState(2)
ONE_BY_ONE = threading.Lock()  # for ranks that are threads and draw their weights
IMAGES, LABELS = STREAM.randn(22, 2, 6, 6), STREAM.randint(0, 3, 22)


def batches(size):
    """All items in float64, a list of batches of this size; the last one may be smaller."""
    cuts = [slice(start, start + size) for start in range(0, len(LABELS), size)]
    return [(ndl.Tensor(IMAGES[cut], requires_grad=False), ndl.Tensor(LABELS[cut])) for cut in cuts]


def network():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, dtype="float64"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 3, dtype="float64"),
    )  # fmt: skip


@pytest.fixture
def by_threads(monkeypatch):
    """Let the workers of `fit` be threads; the models of all of them are in the list that this returns."""
    models = []

    def with_threads(run):
        if run.state.workers == 1:
            train(run)
            return
        models.clear()
        pending = left_behind(run)
        content = pickle.dumps((run, pending))

        def work(communicator):
            mine, gradients = (run, pending) if communicator.rank == 0 else pickle.loads(content)
            models.append(mine.model)
            go_on(mine, gradients)

        run_ranks(run.state.workers, work)

    monkeypatch.setattr("needle.training.fitting.train_by_workers", with_threads)
    return models


def play(workers, size=8, epochs=3, make_scheduler=None, ema=None, **options):
    """Train from the start: the model, its rows, and what else was asked for."""
    with ONE_BY_ONE:
        ndl.seed(7)
        model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    options["scheduler"] = make_scheduler and make_scheduler(optimizer)
    options["ema"] = ema and optim.ExponentialMovingAverage(model, ema)
    options = {"validation": batches(5), "metrics": {"accuracy": Accuracy()}, "bar": False} | options
    rows = training.fit(
        model, options.pop("loss_fn", nn.CrossEntropyLoss()), optimizer, batches(size), epochs=epochs, workers=workers,
        **options,
    )  # fmt: skip
    return model, rows, optimizer


def assert_same(one, other, tolerance=1e-10):
    """The same rows and the same weights, up to rounding."""
    for first, second in zip(repeatable(one[1]), repeatable(other[1]), strict=True):
        assert first == pytest.approx(second, rel=tolerance, abs=tolerance)
    for first, second in zip(one[0].parameters(), other[0].parameters(), strict=True):
        np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=tolerance, atol=tolerance)


OPTIONS = {
    "as it is": {},
    "batches of 5": {"size": 5},
    "accumulation and clipping": {"size": 5, "accumulate": 3, "clip_norm": 0.5, "clip_value": 0.1},
    "averages": {"ema": 0.5},
    "plateau": {"make_scheduler": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)},
    "one cycle": {"make_scheduler": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=9)},
    "label smoothing": {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)},
    "weights and ignored classes": {
        "loss_fn": nn.CrossEntropyLoss(weight=ndl.Tensor([0.5, 1.0, 3.0], dtype="float64"), ignore_index=1),
        "metrics": {"accuracy": Accuracy(ignore_index=1)},
        "validation": batches(11),
    },
    "no metrics": {"metrics": None, "validation": None},
}


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_rows_and_weights_are_those_of_one_worker(name, workers, by_threads):
    """22 items in batches of 8 leave 6, and of 5 leave 2: fewer than three workers."""
    several = play(workers, **OPTIONS[name])
    models = [bytes_of(model) for model in by_threads]
    assert len(models) == workers
    assert all(model == models[0] for model in models[1:])
    assert_same(several, play(1, **OPTIONS[name]))


def halve(grad):
    return grad * 0.5


def test_hooks_of_parameters_reach_all(by_threads):
    """Copies of parameters have none of their own."""

    def train(workers):
        ndl.seed(3)
        model = network()
        model[4].weight.register_hook(halve)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        return model, training.fit(model, nn.CrossEntropyLoss(), optimizer, batches(8), epochs=2, workers=workers)

    several = train(2)
    assert bytes_of(by_threads[0]) == bytes_of(by_threads[1])
    assert_same(several, train(1))
    model = network()
    model[4].weight.register_hook(lambda grad: None)
    with pytest.raises(TypeError, match=r"^fit: for several workers hooks of the parameters must be something that"):
        training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), batches(8), epochs=1, workers=2)


@pytest.mark.parametrize("stop", [{"batches": 4}, {"epochs": 2}])
def test_a_stop_ends_all_after_the_step(stop, by_threads):
    one, two = Stops(**stop), Stops(**stop)
    assert_same(play(2, callbacks=[two]), play(1, callbacks=[one]))
    assert one.seen == two.seen
    assert bytes_of(by_threads[0]) == bytes_of(by_threads[1])


class Meddles:
    """A callback that changes the learning rate at once; weights, frozen layers and other options between epochs."""

    def __init__(self, model=None):
        self.steps = 0

    def on_step(self, state):
        self.steps += 1
        state.parts["optimizer"].lr *= 0.9
        np.random.rand(self.steps)  # the first worker's stream is ahead of the others' until the next epoch

    def on_epoch_start(self, state):
        model = state.parts["model"]
        model[0].weight.requires_grad_(state.epoch != 1)
        model[-1].bias.data = model[-1].bias.data + 0.5
        state.parts["optimizer"].param_groups[0]["weight_decay"] = 0.1 * state.epoch


def test_what_callbacks_change_reaches_all(by_threads):
    assert_same(play(2, callbacks=[Meddles()]), play(1, callbacks=[Meddles()]))
    assert bytes_of(by_threads[0]) == bytes_of(by_threads[1])


def test_callbacks_evaluate_alone(by_threads):
    figures = []

    class Evaluates:
        def on_step(self, state):
            figures.append(training.evaluate(state.parts["model"], nn.CrossEntropyLoss(), batches(5))["loss"])

    play(2, callbacks=[Evaluates()])
    play(1, callbacks=[Evaluates()])
    assert len(figures) == 18
    assert figures[:9] == pytest.approx(figures[9:], rel=1e-10)


def test_early_stopping_gives_the_best_weights(by_threads):
    one, two = (play(n, epochs=12, early_stopping=2, size=22, loss_fn=Rises()) for n in (1, 2))
    assert 2 < len(one[1]) < 12
    assert_same(one, two)


class Rises:
    """A loss that a counter makes worse in time."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += 1
        return nn.CrossEntropyLoss()(outputs, targets) + 0.01 * self.calls**2


@pytest.mark.parametrize("workers", [(1, 2), (2, 1), (2, 3)])
def test_a_run_goes_on_with_another_number_of_workers(workers, by_threads, tmp_path):
    """Also from the middle of a group of batches, whose gradients wait."""
    options = {"size": 5, "accumulate": 3, "checkpoints": tmp_path, "resume": True}
    whole = play(1, size=5, accumulate=3)
    play(workers[0], callbacks=[Stops(batches=7)], **options)
    assert len(ndl.load(tmp_path / "last.npz")["history"]) == 1
    assert_same(play(workers[1], **options), whole)


def test_checkpoints_are_those_of_one_worker(by_threads, tmp_path):
    states = []
    for workers in (1, 2):
        play(workers, checkpoints=tmp_path / str(workers), ema=0.5)
        states += [dict(flat(ndl.load(tmp_path / str(workers) / name))) for name in ("last.npz", "best.npz")]
    for one, two in (states[::2], states[1::2]):
        assert one.keys() == two.keys()
        for name, value in one.items():
            if "second" not in name:
                is_text = isinstance(value, str | None)
                assert value == two[name] if is_text else np.allclose(value, two[name], 1e-9, 1e-12), name


def flat(state, path=""):
    """The leaves of a checkpoint by their paths."""
    if isinstance(state, (dict, list)):
        for name, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from flat(value, f"{path}{name}.")
    else:
        yield path, state


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_no_number_ends_all(rank, by_threads):
    images, labels = batches(8)[0]
    images = images.numpy()
    images[3 + rank] = np.nan  # the last item of the first worker, or the first of the second
    bad = [(ndl.Tensor(images, requires_grad=False), labels)]
    model = network()
    with pytest.raises(training.NonFiniteLoss, match="got nan in batch 1 of epoch 1"):
        training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), bad, epochs=1, workers=2)


class Sees(Accuracy):
    """Keeps the shapes of what it gets."""

    seen = []  # noqa: RUF012

    def update(self, outputs, targets):
        self.seen.append((outputs["logits"].shape, [x.shape for x in targets]))
        super().update(outputs["logits"], targets.labels)


class Targets(NamedTuple):
    """Two fields, with names."""

    labels: ndl.Tensor
    pairs: np.ndarray


def test_outputs_of_any_structure_reach_the_metrics(by_threads):
    options = {"metrics": {"accuracy": Sees()}, "forward": structured, "loss_fn": first_loss}
    several = play(2, epochs=1, validation=None, **options)
    assert Sees.seen[::2] == Sees.seen[1::2] == [((n, 3), [(n,), (n, 2)]) for n in (8, 8, 6)]
    assert_same(several, play(1, epochs=1, validation=None))


def structured(model, batch):
    images, labels = batch
    logits = model(images)
    return {"logits": logits, "features": [logits * 2]}, Targets(labels, np.stack([labels.numpy()] * 2, 1))


def first_loss(outputs, targets):
    return nn.CrossEntropyLoss()(outputs["logits"], targets[0])


def test_a_complete_run_starts_no_workers(monkeypatch, tmp_path):
    """A resumed run may be complete, or a callback may stop it before it begins."""

    class Never:
        def on_start(self, state):
            state.stop("nothing to do")

    monkeypatch.setattr(sys.modules["needle.training.workers"], "started", None)
    play(1, epochs=1, checkpoints=tmp_path)
    assert len(play(2, epochs=1, checkpoints=tmp_path, resume=True)[1]) == 1
    assert play(2, callbacks=[Never()])[1] == []


# ---- processes -------------------------------------------------------------------------------------------------------


def test_processes_train_as_one(tmp_path):
    """Everything that draws random numbers or looks at whole batches; then the run goes on with one process."""
    options = {"accumulate": 3, "clip_norm": 0.5, "checkpoints": tmp_path, "resume": True, "bar": False}

    def train(workers, **more):
        model, _, run = make()
        stream = np.random.RandomState(4)
        items = NDArrayDataset(stream.randn(10, 3, 8, 8).astype("float32"), stream.randint(0, 3, 10))
        return model, run(workers=workers, validation=DataLoader(items, 4, shuffle=True), **options | more)

    whole = train(1, checkpoints=None, resume=False, callbacks=[Draws()])
    train(2, callbacks=[Stops(batches=5), Draws()])
    assert_same(train(1, callbacks=[Draws()]), whole, tolerance=1e-4)


class Draws:
    """A callback that draws random numbers: the first worker's stream is ahead of the others'."""

    def on_epoch_start(self, state):
        if not state.batch:
            np.random.rand(3)


class Fails(nn.CrossEntropyLoss):
    """A loss that fails in the second worker, in its third batch."""

    calls = 0

    def forward(self, x, target):
        self.calls += 1
        if self.calls == 3 and current_communicator().rank == 1:
            raise LookupError("no third batch")
        return super().forward(x, target)


def test_an_error_of_a_worker_is_that_of_fit():
    """And callbacks are told of the end."""
    ended = []

    class Ends:
        def on_exit(self, state):
            ended.append(state.batch)

    with pytest.raises(LookupError, match="no third batch") as caught:
        play(2, loss_fn=Fails(), callbacks=[Ends()])
    assert "in forward" in str(caught.value.__cause__)
    assert ended == [2]
    assert not multiprocessing.active_children()
