"""Checkpoints: when they are written, what is best, failed writes, other loaders, longer runs."""

from __future__ import annotations

import resource
import signal
import warnings

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset
from needle.metrics import Accuracy
from needle.training import Checkpoints, EarlyStopping, NonFiniteLoss, TrainingState
from tests.standin.array import counts
from tests.standin.device import STANDIN
from tests.training.runs import bytes_of, make, repeatable
from tests.training.test_figures import BATCHES, identity
from tests.training.test_fit import Stop, rising, small


class Spy(Checkpoints):
    """Notes (file, epoch, batch) of each write."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        self.written = []

    def save(self, path, state):
        super().save(path, state)
        self.written.append((path.stem, state.epoch, state.batch))


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, [("last", 0, 0), ("best", 1, 0), ("last", 1, 0), ("best", 2, 0), ("last", 2, 0)]),
        ({"every": 2}, [("last", 0, 0), ("last", 0, 2), ("best", 1, 0), ("last", 1, 0), ("last", 1, 2), ("best", 2, 0),
                        ("last", 2, 0)]),
        ({"mode": "max"}, [("last", 0, 0), ("best", 1, 0), ("last", 1, 0), ("last", 2, 0)]),
    ],
)  # fmt: skip
def test_when_files_are_written(tmp_path, options, written):
    spy = Spy(tmp_path / "new" / "run", **options)
    small(checkpoints=spy)
    assert spy.written == written


def test_a_run_that_is_stopped_is_written(tmp_path):
    spy = Spy(tmp_path)
    small(checkpoints=spy, callbacks=[Stop(0, 1)])
    assert spy.written == [("last", 0, 0), ("last", 0, 1)]
    assert not spy.best.exists()


def test_the_best_epoch_is_kept(tmp_path):
    best = identity()
    small(1, model=best)
    history = small(3, checkpoints=tmp_path, validation=rising())
    state = ndl.load(tmp_path / "best.npz")
    assert {name: array.tobytes() for name, array in state["model"].items()} == bytes_of(best)
    assert repeatable(state["history"]) == repeatable(history[:1])
    assert len(ndl.load(tmp_path / "last.npz")["history"]) == 3


def test_the_model_of_a_checkpoint_is_a_plain_state(tmp_path):
    model = identity()
    small(model=model, checkpoints=tmp_path)
    with np.load(tmp_path / "last.npz") as file:
        assert {"model.0.weight", "model.0.bias"} <= {*file}
        assert file["model.0.weight"].tobytes() == model[0].weight.numpy().tobytes()


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_run_may_become_longer(tmp_path):
    """Also if early stopping put the best weights into the model: the file has the last ones."""
    whole, _, run = make(early_stopping=9)
    history = run(epochs=3)
    first, _, run = make(early_stopping=9)
    run(epochs=2, checkpoints=tmp_path)
    longer, _, run = make(early_stopping=9)
    assert repeatable(run(epochs=3, checkpoints=tmp_path, resume=True)) == repeatable(history)
    assert bytes_of(longer) == bytes_of(whole)
    again, _, run = make(early_stopping=9)
    assert repeatable(run(epochs=3, checkpoints=tmp_path, resume=True)) == repeatable(history)
    assert bytes_of(again) == bytes_of(whole)
    del first


def test_a_run_that_ended_early_is_over_unless_the_patience_grows(tmp_path):
    model, again, patient = identity(), identity(), identity()
    assert len(small(9, model=model, validation=rising(), early_stopping=2, checkpoints=tmp_path)) == 3
    options = {"validation": rising(), "checkpoints": tmp_path, "resume": True}
    assert len(small(9, model=again, early_stopping=2, **options)) == 3
    assert bytes_of(again) == bytes_of(model)
    assert len(small(9, model=patient, early_stopping=EarlyStopping(4), **options)) == 5


@pytest.mark.parametrize("seed", [None, 3])
def test_loaders_that_somebody_looked_into_begin_anew(tmp_path, seed):
    """A batch read before training, or by a callback, is not part of an epoch, also not after going on."""

    class Look:
        def on_step(self, state):
            if state.batch in (2, 4):
                next(iter(state.parts["validation"]))

    def run(**options):
        ndl.seed(5)
        model = identity()
        items = NDArrayDataset(np.random.randn(10, 2).astype("float32"), np.arange(10) % 2)
        loader, validation = (DataLoader(items, 2, shuffle=True, seed=seed) for _ in "ab")
        for each in (loader, validation):
            next(iter(each))
        history = small(model=model, loader=loader, validation=validation, callbacks=[*options.pop("stop", ()), Look()],
                        loss_fn=nn.CrossEntropyLoss(), **options)  # fmt: skip
        return bytes_of(model), repeatable(history), validation.state_dict()

    expected = run()
    for epoch, batch in ((0, 1), (0, 3), (1, 0), (1, 4)):
        folder = tmp_path / f"{epoch}-{batch}"
        run(checkpoints=folder, stop=[Stop(epoch, batch)])
        np.testing.assert_equal(run(checkpoints=folder, resume=True), expected)


def test_an_error_in_the_first_step_leaves_all_as_it_was(tmp_path):
    model = identity()
    before, stream = bytes_of(model), ndl.get_rng_state()

    def fail(state):
        state.parts["model"][0].weight.data = ndl.ones(2, 2)
        raise ZeroDivisionError(np.random.rand())

    for resume in (False, True, False):
        with pytest.raises(ZeroDivisionError):
            small(model=model, checkpoints=tmp_path, resume=resume, callbacks=[Hook("on_epoch_start", fail)])
        assert bytes_of(model) == before
        np.testing.assert_equal(ndl.get_rng_state(), stream)
        assert not [*tmp_path.iterdir()]
    with pytest.raises(ZeroDivisionError):
        small(checkpoints=tmp_path, callbacks=[Stop(0, 1), Hook("on_end", fail)])
    assert [*tmp_path.iterdir()] == [tmp_path / "last.npz"]


class Hook:
    def __init__(self, event, method):
        setattr(self, event, method)


def test_keepers_may_serve_another_run(tmp_path):
    """Without what they noted in the first one."""
    stopping, checkpoints = EarlyStopping(1), Checkpoints(tmp_path)
    for _ in range(2):
        options = {"validation": rising(), "early_stopping": stopping, "checkpoints": checkpoints}
        assert len(small(9, **options)) == 2
        assert len(ndl.load(checkpoints.best)["history"]) == 1
        checkpoints.best.unlink()
        checkpoints.last.unlink()


class Shuffled:
    """Batches without a state: an order drawn at the start of an epoch, and noise with each batch."""

    def __iter__(self):
        for i in np.random.permutation(5):
            yield (
                ndl.Tensor(np.random.randn(3, 2).astype("float32") + i, requires_grad=False),
                ndl.Tensor([0, 1, i % 2]),
            )


class Carrying:
    """A forward that adds something of the batch before to the outputs, as a language model does with its state."""

    def __init__(self):
        self.carried = 0.0

    def reset(self):
        self.carried = 0.0

    def __call__(self, model, batch):
        inputs, targets = batch
        outputs = model(inputs) + self.carried
        self.carried = inputs.numpy().mean().item()
        return outputs, targets

    def state_dict(self):
        return {"carried": self.carried}

    def load_state_dict(self, state):
        self.carried = state["carried"]


def test_loaders_without_a_state_and_a_forward_with_one(tmp_path):
    def run(**options):
        ndl.seed(3)
        model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        optimizer = optim.Adam(model.parameters())
        options |= {"forward": Carrying(), "validation": BATCHES}
        history = training.fit(model, nn.CrossEntropyLoss(), optimizer, Shuffled(), epochs=2, **options)
        return bytes_of(model), repeatable(history)

    expected = run()
    for epoch in (0, 1):
        for batch in range(1, 6):
            folder = tmp_path / f"{epoch}-{batch}"
            stopped = run(checkpoints=folder, callbacks=[Stop(epoch, batch)])
            assert len(stopped[1]) == epoch
            assert run(checkpoints=folder, resume=True) == expected, (epoch, batch)


def test_a_run_on_a_gpu_goes_on(tmp_path):
    def run(**options):
        ndl.seed(2)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout2d(0.4), nn.Flatten(), nn.Linear(12, 2)).to(STANDIN)
        images, labels = np.random.randn(10, 1, 4, 4).astype("float32"), np.arange(10) % 2
        loader = DataLoader(NDArrayDataset(images, labels), 2, shuffle=True, device=STANDIN)
        optimizer = optim.Adam(model.parameters())
        metrics = {"accuracy": Accuracy()}
        options = {"metrics": metrics, "accumulate": 2, "clip_norm": 0.1} | options
        history = training.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=2, **options)
        assert model[0].weight.device == STANDIN
        return bytes_of(model), repeatable(history)

    expected = run()
    for epoch, batch in ((0, 1), (0, 5), (1, 4)):
        folder = tmp_path / f"{epoch}-{batch}"
        run(checkpoints=folder, callbacks=[Stop(epoch, batch)])
        assert run(checkpoints=folder, resume=True) == expected, (epoch, batch)


def test_a_part_may_be_anything_with_a_state(tmp_path):
    carrying, other = Carrying(), Carrying()
    carrying.carried = 2.5
    state = TrainingState(a=carrying, b=None)
    state.epoch, state.history = 3, [{"loss": float("nan")}]
    state.save(tmp_path / "a.npz")
    expected = np.random.rand()
    twin = TrainingState(a=other)
    twin.load(tmp_path / "a.npz")
    assert (other.carried, twin.epoch, np.random.rand()) == (2.5, 3, expected)
    assert np.isnan(twin.history[0]["loss"])


# ---- writes that fail ------------------------------------------------------------------------------------------------


class Full:
    """A disk that is full during some epochs: files beyond 100 bytes cannot be written."""

    def __init__(self, *epochs):
        self.epochs = epochs

    def on_epoch_start(self, state):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 if state.epoch in self.epochs else hard, hard))


@pytest.fixture
def writes_fail():
    """Writes beyond the limit fail with an error, not by a signal; the limit comes back."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_is_told_and_tried_again(tmp_path, writes_fail):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        small(4, checkpoints=tmp_path, callbacks=[Full(1, 2)])
    told = [str(warning.message) for warning in told if warning.category is RuntimeWarning]
    names = ["best.npz", "last.npz"] * 2
    assert [message.partition(", ")[0] for message in told] == [
        f"fit: {tmp_path / name} was not written" for name in names
    ]
    assert all("too large" in message for message in told)
    best, last = (ndl.load(tmp_path / f"{name}.npz") for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (4, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.npz", "last.npz"]


def test_a_write_that_fails_at_the_end_is_raised(tmp_path, writes_fail):
    with pytest.warns(RuntimeWarning, match="was not written"), pytest.raises(OSError, match="too large"):
        small(2, checkpoints=tmp_path, callbacks=[Full(1)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert [ndl.load(tmp_path / f"{name}.npz")["epoch"] for name in ("best", "last")] == [1, 1]


def test_a_folder_that_cannot_be_written_to_is_found_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    model = identity()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="file"):
            small(model=model, checkpoints=folder)
    assert bytes_of(model) == bytes_of(identity())


# ---- weights that are not finite -------------------------------------------------------------------------------------


def test_weights_that_a_step_spoilt_are_not_written(tmp_path):
    """The loss is finite, its gradient is not."""

    class Spoil:
        def on_step(self, state):
            if state.epoch == 1:
                with ndl.no_grad():
                    state.parts["model"][0].weight.fill_(np.inf)

    with pytest.raises(
        NonFiniteLoss, match=r"^fit: the weights must be finite before they are saved, but got .* model\.0"
    ):
        small(checkpoints=Checkpoints(tmp_path, every=1), callbacks=[Spoil()])
    assert ndl.load(tmp_path / "last.npz")["epoch"] == 1


def test_on_a_gpu_a_loss_is_looked_at_after_the_epoch_and_before_a_checkpoint(tmp_path):
    images = np.float32([[9, 0], [4, 0], [np.nan, 0], [7, 0]])
    loader = DataLoader(NDArrayDataset(images, np.array([0, 1, 0, 1])), 1, device=STANDIN)
    steps = []

    class Count:
        def on_step(self, state):
            steps.append(state.batch)

    def run(**options):
        steps.clear()
        model = identity().to(STANDIN)
        with pytest.raises(NonFiniteLoss) as error:
            small(model=model, loader=loader, callbacks=[Count()], **options)
        return str(error.value)

    assert run().startswith("fit: the loss must be finite, but got nan in epoch 1; ")
    assert steps == [1, 2, 3, 4]
    assert "got NaN or infinity in model.0.weight" in run(checkpoints=Checkpoints(tmp_path, every=1))
    assert steps == [1, 2, 3]
    assert ndl.load(tmp_path / "last.npz")["batch"] == 2


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "clip_norm": 1.0, "clip_value": 0.5}])
def test_on_a_gpu_no_step_waits(options):
    batches = [(ndl.ones(2, 2, device=STANDIN), ndl.Tensor([0, 1], device=STANDIN))] * 4
    seen = []

    class Count:
        def on_step(self, state):
            seen.append((counts.downloads, counts.waits))

    model, metrics = identity().to(STANDIN), {"accuracy": Accuracy()}
    small(
        1, model=model, loader=batches, loss_fn=nn.CrossEntropyLoss(), metrics=metrics, callbacks=[Count()], **options
    )
    assert len(seen) == 4
    assert len({*seen}) == 1
