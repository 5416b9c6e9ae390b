"""The loop: rows, modes, order of events, schedules, averaged weights, stopping, the progress bar."""

from __future__ import annotations

import io
import signal
import sys

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset
from needle.metrics import Accuracy, ConfusionMatrix
from needle.optim import lr_scheduler
from needle.training import EarlyStopping, NonFiniteLoss, StopOnSignal, bar
from tests.training.runs import Augmented, adam, bytes_of, make, network, repeatable
from tests.training.test_figures import BATCHES, First, identity


def small(epochs=2, **options):
    """Train the identity on three items in two batches."""
    model = options.pop("model", None) or identity()
    loader = DataLoader(NDArrayDataset(np.float32([[9, 0], [4, 0], [7, 0]]), np.array([0, 1, 0])), 2)
    optimizer = options.pop("optimizer", None) or optim.SGD(model.parameters(), lr=0.01)
    loader = options.pop("loader", loader)
    return training.fit(model, options.pop("loss_fn", First()), optimizer, loader, epochs=epochs, **options)


def test_an_epoch_trains_and_then_validates():
    metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix(2)}
    rows = small(validation=BATCHES, metrics=metrics)
    names = ["epoch", "loss", "train_accuracy", "lr", "seconds", "items_per_second", "val_loss", "val_accuracy"]
    assert [[*row] for row in rows] == [names] * 2
    assert [row["epoch"] for row in rows] == [1, 2]
    # Two steps lower the weight of the first logit, by 0.01 times the input of each last row, and its bias by 0.01.
    weight, bias = 1.0, 0.0
    for row in rows:
        losses = []
        for x, count in ((4, 2), (7, 1)):
            losses += [weight * x + bias] * count
            weight, bias = weight - 0.01 * x, bias - 0.01
        assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["val_loss"] == pytest.approx((3 * (weight * 4 + bias) + weight * 8 + bias) / 4, rel=1e-5)
        assert (row["train_accuracy"], row["val_accuracy"]) == (pytest.approx(2 / 3), 3 / 4)
        assert row["items_per_second"] == pytest.approx(3 / row["seconds"])
        assert all(type(value) in (int, float) for value in row.values())


def test_without_validation_there_are_no_figures_of_it():
    assert [*small(1)[0]] == ["epoch", "loss", "lr", "seconds", "items_per_second"]


def test_an_epoch_is_that_of_a_loop_of_ones_own():
    model, _, run = make(validation=None)
    run(epochs=1)
    ndl.seed(1)
    twin = network()
    optimizer = adam(twin.parameters())
    for images, labels in DataLoader(Augmented(), 4, shuffle=True):
        loss = nn.CrossEntropyLoss()(twin(images), labels)
        loss.backward(create_graph=False)
        optimizer.step()
    assert bytes_of(twin) == bytes_of(model)


class Recorder:
    def __init__(self):
        self.events = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda state: self.events.append((name.removeprefix("on_"), state.epoch, state.batch))


def test_the_order_of_events():
    recorder = Recorder()
    small(callbacks=[recorder])
    epochs = [[("epoch_start", i, 0), ("step", i, 1), ("step", i, 2), ("epoch_end", i + 1, 0)] for i in range(2)]
    assert recorder.events == [("start", 0, 0), *epochs[0], *epochs[1], ("end", 2, 0), ("exit", 2, 0)]
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        small(callbacks=[recorder], loss_fn=lambda outputs, targets: 1 / 0)
    assert recorder.events == [("start", 0, 0), ("epoch_start", 0, 0), ("exit", 0, 0)]


class Stop:
    def __init__(self, epoch, batch):
        self.at = epoch, batch

    def on_step(self, state):
        if (state.epoch, state.batch) == self.at:
            state.stop("enough")

    on_epoch_end = on_step


@pytest.mark.parametrize(("at", "rows"), [((0, 1), 0), ((0, 2), 0), ((1, 0), 1), ((1, 1), 1)])
def test_a_callback_stops_after_the_current_step(at, rows):
    recorder = Recorder()
    assert len(small(callbacks=[recorder, Stop(*at)])) == rows
    assert recorder.events[-3:] == [recorder.events[-3], ("end", *at), ("exit", *at)]


def test_a_reason_may_be_empty():
    class Silent:
        def on_step(self, state):
            state.stop("")

    recorder = Recorder()
    assert small(callbacks=[recorder, Silent()]) == []
    assert recorder.events[-2:] == [("end", 0, 1), ("exit", 0, 1)]


def test_a_loader_need_not_tell_its_length():
    class Loader:
        def __len__(self):
            raise TypeError("as that of torch's iterable datasets")

        def __iter__(self):
            return iter(BATCHES)

    assert len(small(loader=Loader(), bar=True)) == 2


def test_a_signal_stops_and_the_run_goes_on_later(tmp_path):
    class Raise:
        def on_step(self, state):
            if (state.epoch, state.batch) == (1, 3):
                signal.raise_signal(signal.SIGTERM)

    whole, _, run = make()
    history = run()
    stopped, _, run = make()
    with StopOnSignal() as stop:
        assert len(run(callbacks=[Raise(), stop], checkpoints=tmp_path)) == 1
    resumed, _, run = make()
    with StopOnSignal() as stop:
        assert repeatable(run(callbacks=[stop], checkpoints=tmp_path, resume=True)) == repeatable(history)
    assert bytes_of(resumed) == bytes_of(whole) != bytes_of(stopped)


def test_training_mode_is_set_once_so_that_a_callback_may_freeze_layers():
    class Freeze:
        def on_start(self, state):
            state.parts["model"][1].eval()

    model, _, run = make(callbacks=[Freeze()])
    run()
    assert not model[1].running_mean.numpy().any()
    assert model.training


# ---- schedules and averages ------------------------------------------------------------------------------------------


class Rates:
    def __init__(self):
        self.rates = []

    def on_step(self, state):
        self.rates.append(state.parts["optimizer"].lr)


@pytest.mark.parametrize(
    ("schedule", "options", "rates", "told"),
    [
        (lambda o: lr_scheduler.StepLR(o, 1, 0.5), {}, [1, 1, 0.5, 0.5], [1, 0.5]),
        (lambda o: lr_scheduler.StepLR(o, 1, 0.5), {"schedule_by": "step"}, [0.5, 0.25, 0.125, 0.0625], [0.25, 0.0625]),
        (lambda o: lr_scheduler.StepLR(o, 1, 0.5), {"schedule_by": "step", "accumulate": 2}, [1, 0.5, 0.5, 0.25],
         [0.5, 0.25]),
        (lambda o: lr_scheduler.StepLR(o, 1, 0.5), {"schedule_by": "step", "accumulate": 3}, [1, 1, 0.5, 0.5],
         [0.5, 0.25]),  # the incomplete group steps after the last batch
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5, mode="max"), {"epochs": 3},
         [1, 1, 1, 1, 0.5, 0.5], [1, 1, 0.5]),
    ],
)  # fmt: skip
def test_a_scheduler_steps_by_epoch_or_by_step(schedule, options, rates, told):
    model, recorder = identity(), Rates()
    optimizer = optim.SGD(model.parameters(), lr=1)
    history = small(
        **{"epochs": 2} | options, model=model, optimizer=optimizer, scheduler=schedule(optimizer), callbacks=[recorder]
    )
    assert recorder.rates == rates
    assert [row["lr"] for row in history] == told


def test_one_cycle_steps_after_each_batch():
    model, recorder = identity(), Rates()
    optimizer = optim.SGD(model.parameters(), momentum=0.9)
    twin = optim.SGD(identity().parameters(), momentum=0.9)
    schedule, expected = lr_scheduler.OneCycleLR(twin, 0.1, total_steps=5), []
    for _ in range(4):
        twin.step()
        schedule.step()
        expected.append(twin.lr)
    small(
        model=model,
        optimizer=optimizer,
        callbacks=[recorder],
        scheduler=lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5),
    )
    assert recorder.rates == expected


def test_a_plateau_looks_at_the_validation_loss():
    """The training loss falls in each epoch; the validation loss rises."""
    model = identity()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    negative = [(ndl.Tensor([[-9.0, 0]], dtype="float32"), ndl.Tensor([0]))]
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    history = small(3, model=model, optimizer=optimizer, scheduler=schedule, validation=negative)
    assert history[2]["loss"] < history[1]["loss"] < history[0]["loss"]
    assert [row["lr"] for row in history] == [0.01, 0.01, 0.005]


def test_validation_and_early_stopping_see_the_averages():
    """After two steps per epoch the average of the weights is that of a loop of one's own."""
    model, twin = identity(), identity()
    ema = optim.ExponentialMovingAverage(model, 0.5)
    seen = []
    history = small(1, model=model, ema=ema, validation=BATCHES, early_stopping=3, callbacks=[Seen(seen)])
    averages = optim.ExponentialMovingAverage(twin, 0.5)
    optimizer = optim.SGD(twin.parameters(), lr=0.01)
    for images, labels in [(np.float32([[9, 0], [4, 0]]), [0, 1]), (np.float32([[7, 0]]), [0])]:
        First()(twin(ndl.Tensor(images)), labels).backward()
        optimizer.step()
        averages.update()
    assert seen == [bytes_of(twin)]  # outside of validation the model has its own weights
    averages.copy_to()
    assert history[0]["val_loss"] == training.evaluate(twin, First(), BATCHES)["loss"]
    assert bytes_of(model) == bytes_of(twin)  # the best weights, restored at the end, are the averages


class Seen:
    def __init__(self, seen):
        self.seen = seen

    def on_epoch_end(self, state):
        self.seen.append(bytes_of(state.parts["model"]))


# ---- early stopping --------------------------------------------------------------------------------------------------


def rising():
    """Validation data whose loss rises with every step."""
    return [(ndl.Tensor([[-9.0, 0]], dtype="float32"), ndl.Tensor([0]))]


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_ends_the_run_and_restores_the_best_epoch(restore):
    model, best = identity(), identity()
    small(1, model=best)
    history = small(9, model=model, validation=rising(), early_stopping=EarlyStopping(2, restore_best=restore))
    assert len(history) == 3
    assert (bytes_of(model) == bytes_of(best)) is restore


def test_the_best_epoch_is_restored_after_the_last_one_too_but_not_after_a_stop():
    best = identity()
    small(1, model=best)
    for callbacks, restored in ([], True), ([Stop(1, 0)], True), ([Stop(1, 1)], False):
        model = identity()
        small(2, model=model, validation=rising(), early_stopping=9, callbacks=callbacks)
        assert (bytes_of(model) == bytes_of(best)) is restored, callbacks


def test_a_figure_of_choice_is_watched():
    stopping = EarlyStopping(1, monitor="train_accuracy", mode="max")
    assert len(small(9, metrics={"accuracy": Accuracy()}, early_stopping=stopping)) == 2
    stopping = EarlyStopping(1, monitor="train_confusion")
    with pytest.raises(ValueError, match=r"^fit: monitor must be one of .*'loss'.*, but got 'train_confusion'"):
        small(metrics={"confusion": ConfusionMatrix(2)}, early_stopping=stopping)


# ---- losses that are no numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_ends_training_before_its_step(bad, tmp_path):
    model = identity()
    good = identity()
    small(1, model=good, loader=[BATCHES[1]], loss_fn=lambda outputs, targets: First()(outputs, targets))

    def loss_fn(outputs, targets):
        return First()(outputs, targets) * (bad if len(targets) == 3 else 1)

    with pytest.raises(NonFiniteLoss) as error:
        small(model=model, loader=[BATCHES[1], BATCHES[0]], loss_fn=loss_fn, checkpoints=tmp_path)
    assert str(error.value) == (
        f"fit: the loss must be finite, but got {bad} in batch 2 of epoch 1; lower the learning rate, clip the "
        "gradients (clip_norm=1), or look for the first bad value with ndl.detect_anomaly()"
    )
    assert bytes_of(model) == bytes_of(good)


# ---- the progress bar ------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_progress_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(bar, "REFRESH", 0)
    monkeypatch.setattr(sys, "stderr", terminal)
    with_bar = small(metrics={"accuracy": Accuracy()})
    small(bar=False)
    monkeypatch.undo()
    shown = terminal.getvalue()
    assert shown.count("0/2 ") == 2  # one bar per epoch
    assert "epoch 1/2" in shown
    assert "loss 4.0000, accuracy 0.5000" in shown
    assert "items/s" in shown
    assert repeatable(with_bar) == repeatable(small(metrics={"accuracy": Accuracy()}))


def test_a_bar_on_request(capsys):
    small(bar=True)
    assert "epoch 2/2" in capsys.readouterr().err


@pytest.mark.parametrize("is_terminal", [False, True])
def test_without_tqdm_or_terminal_there_is_no_bar(monkeypatch, is_terminal, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert len(small()) == 2
    monkeypatch.setattr(sys, "stderr", None)
    assert len(small()) == 2
    assert not capsys.readouterr().err
