"""What training refuses: arguments, states, folders; each error with its message, and nothing changed."""

from __future__ import annotations

import sys
import tempfile
import threading
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, NDArrayDataset, Shard
from needle.metrics import Accuracy
from needle.optim import lr_scheduler
from needle.training import Checkpoints, EarlyStopping, Figures, NonFiniteLoss, Stepper, TrainingState
from needle.training.exchanges import whole_batch
from needle.training.workers import check_workers
from tests.distributed.threads import run_ranks
from tests.nn.functional.alike import raises
from tests.training.runs import bytes_of, make

MODEL = nn.Linear(2, 2)
BATCH = ndl.ones(1, 2), ndl.Tensor([0])


def sgd(model=MODEL):
    return optim.SGD(model.parameters(), lr=0.1)


def fit(*, model=MODEL, optimizer=None, loader=(BATCH,), epochs=1, loss_fn=None, **options):
    return training.fit(model, loss_fn or nn.CrossEntropyLoss(), optimizer or sgd(), loader, epochs=epochs, **options)


def mean(outputs, targets):
    return outputs.mean()


SGD = sgd()


class Blank:
    """A loader without batches, which does not tell."""

    def __iter__(self):
        return iter(())


def in_folder(call, *files):
    """Call with a new folder that holds files of these names; its path is the word FOLDER in the error."""
    with tempfile.TemporaryDirectory() as folder:
        for name in files:
            Path(folder, name).touch()
        try:
            return call(folder)
        except Exception as error:
            error.args = tuple(str(arg).replace(folder, "FOLDER") for arg in error.args)
            raise


def without_tqdm(call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tqdm", None)
        return call()


def diverged():
    model = nn.Linear(2, 1)
    model.load_state_dict({"weight": np.array([[1.0], [np.inf]]), "bias": np.zeros((1, 1))})
    return model


def one_state():
    return TrainingState(model=MODEL).state_dict()


class Cuda:
    """A model that says that it is on a GPU."""

    def __init__(self):
        self.device = mock.Mock(is_async=True, __str__=lambda self: "cuda:0")

    def parameters(self):
        return [self]


class Carries:
    """A forward with a state."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Locked(Blank):
    """A loader with something that cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()


def interactive(call):
    """Call where the program is no file, with a class that was defined there."""
    main = types.ModuleType("__main__")
    main.Net = type("Net", (nn.Linear,), {"__module__": "__main__"})
    with pytest.MonkeyPatch.context() as patch:  # which leaves alone what is imported meanwhile
        patch.setitem(sys.modules, "__main__", main)
        return call(main.Net(2, 2))


def gather(outputs):
    """Two ranks that gather outputs of one item each."""

    def rank(communicator):
        communicator.part = communicator.part_of(2)
        return whole_batch(outputs, ndl.Tensor([0]), True)

    return run_ranks(2, rank)


ERRORS = [
    (lambda: fit(workers=0), ValueError, "fit: workers must be at least 1, but got 0"),
    (lambda: fit(workers="all"), TypeError, "fit: workers must be an integer, but got 'all'"),
    (lambda: run_ranks(2, lambda communicator: fit(workers=2)), ValueError,
     "fit: workers must be 1 where several ranks call it, but got 2 on each of 2"),
    (lambda: check_workers(2, model=Cuda()), ValueError,
     "fit: workers share the cores of a CPU and must be 1 elsewhere, but the model is on cuda:0"),
    (lambda: fit(workers=2, loss_fn=nn.CrossEntropyLoss(reduction="sum")), ValueError,
     "fit: loss_fn must be a mean over items for several processes, but got reduction 'sum'"),
    (lambda: run_ranks(2, lambda communicator: fit(loss_fn=nn.CrossEntropyLoss(reduction="sum"))), ValueError,
     "fit: loss_fn must be a mean over items for several processes, but got reduction 'sum'"),
    (lambda: fit(workers=2, forward=Carries()), ValueError,
     "fit: forward must have no state for several processes, each with its own, but got Carries"),
    (lambda: fit(workers=2, loader=Locked()), TypeError,
     ("fit: for several workers train_loader must be something that pickle can copy, with functions and classes that "
      "stand at the top of a module, but got: cannot pickle '_thread.lock' object")),
    (lambda: fit(workers=2, loader=DataLoader(Shard(NDArrayDataset([1])))), ValueError,
     "fit: train_loader must not be of a Shard for workers, which get copies of it, but got one"),
    (lambda: interactive(lambda model: fit(workers=2, model=model)), TypeError,
     ("fit: for several workers model must be of functions and classes that other processes can import, but Net is of "
      "an interactive session; put it into a file of its own")),
    (lambda: gather("yes"), TypeError,
     "fit: outputs and targets that ranks gather for metrics must be tensors, but got str"),
    (lambda: gather(ndl.Tensor(1.0)), ValueError,
     ("fit: outputs and targets that ranks gather for metrics must have the items along their first axis, but got "
      "shape () for 1 items")),
    (lambda: fit(epochs=0), ValueError, "fit: epochs must be at least 1, but got 0"),
    (lambda: fit(model=3), TypeError, "fit: model must be a Module, but got int"),
    (lambda: fit(loader=[]), ValueError, "fit: train_loader must yield at least one batch, but yielded none"),
    (lambda: fit(validation=[]), ValueError, "fit: validation must yield at least one batch, but yielded none"),
    (lambda: fit(loader=Blank()), ValueError, "fit: train_loader must yield at least one batch, but yielded none"),
    (lambda: fit(validation=Blank()), ValueError, "evaluate: loader must yield at least one batch, but yielded none"),
    (lambda: fit(loader=3), TypeError, "fit: train_loader must be a loader of batches, but got int"),
    (lambda: fit(validation=3), TypeError, "fit: validation must be a loader of batches, but got int"),
    (lambda: fit(loader=iter([BATCH]), epochs=2), TypeError,
     "fit: train_loader must be read anew in each epoch, but got the iterator list_iterator, which ends"),
    (lambda: fit(validation=(BATCH for _ in "ab"), epochs=2), TypeError,
     "fit: validation must be read anew in each epoch, but got the iterator generator, which ends"),
    (lambda: fit(loader=[{"x": 1}]), TypeError,
     "fit: a batch must be a pair (inputs, targets), or forward must take it apart, but got dict"),
    (lambda: fit(loader=[(*BATCH, 1)]), TypeError,
     "fit: a batch must be a pair (inputs, targets), or forward must take it apart, but got 3 values"),
    (lambda: fit(loader=[(BATCH[0], None)], loss_fn=mean), ValueError,
     "Figures: targets must have an axis of items, but got None"),
    (lambda: fit(loader=[(BATCH[0], BATCH[1][0])], loss_fn=mean), ValueError,
     "Figures: targets must have an axis of items, but got shape ()"),
    (lambda: fit(loss_fn=lambda outputs, targets: 1.5), TypeError, "fit: loss must be a Tensor, but got float"),
    (lambda: fit(loss_fn=nn.CrossEntropyLoss(reduction="none"), loader=[(ndl.ones(2, 2), ndl.Tensor([0, 1]))]),
     ValueError, "item: the tensor must have one element, but got shape (2,)"),
    (lambda: fit(loader=[(BATCH[0][:0], BATCH[1][:0])], loss_fn=lambda outputs, targets: outputs.sum()), ValueError,
     "Stepper: size must be at least 1, but got 0"),
    (lambda: fit(callbacks=[print]), TypeError,
     ("fit: callbacks must have any of the methods on_start, on_epoch_start, on_step, on_epoch_end, on_end, on_exit, "
      "but got builtin_function_or_method")),
    (lambda: fit(early_stopping="3"), TypeError, "EarlyStopping: patience must be an integer, but got '3'"),
    (lambda: fit(scheduler=lr_scheduler.StepLR(sgd(), 1)), ValueError,
     "fit: scheduler must be one of the optimizer, but got one of another optimizer"),
    (lambda: training.evaluate(3, mean, [BATCH]), TypeError, "evaluate: model must be a Module, but got int"),
    (lambda: fit(accumulate=0), ValueError, "Stepper: accumulate must be at least 1, but got 0"),
    (lambda: fit(clip_norm=0), ValueError, "Stepper: clip_norm must lie in (0, inf], but got 0"),
    (lambda: fit(clip_value=-1), ValueError, "Stepper: clip_value must lie in (0, inf], but got -1"),
    (lambda: fit(metrics={"a": 3}), TypeError, "Figures: metrics['a'] must be a Metric, but got int"),
    (lambda: fit(metrics=Accuracy()), TypeError, "Figures: metrics must be a Mapping, but got Accuracy"),
    (lambda: fit(metrics={"loss": Accuracy()}), ValueError,
     "Figures: metrics must not be named 'loss', the name of the mean loss, but one is"),
    (lambda: fit(scheduler=3), TypeError, "fit: scheduler must be a LRScheduler, but got int"),
    (lambda: fit(schedule_by="batch"), ValueError,
     "fit: schedule_by must be one of 'epoch', 'step', None, but got 'batch'"),
    (lambda: fit(optimizer=SGD, scheduler=lr_scheduler.ReduceLROnPlateau(SGD), schedule_by="step"), ValueError,
     "fit: schedule_by must be 'epoch' for ReduceLROnPlateau, but got 'step'"),
    (lambda: fit(early_stopping=EarlyStopping(monitor="val_loss")), ValueError,
     "fit: monitor must be one of 'loss', but got 'val_loss'"),
    (lambda: fit(checkpoints=Checkpoints("nowhere", monitor="a"), metrics={"a": Accuracy()}), ValueError,
     "fit: monitor must be one of 'loss', 'train_a', but got 'a'"),
    (lambda: fit(early_stopping=True), TypeError, "EarlyStopping: patience must be an integer, but got True"),
    (lambda: EarlyStopping(0), ValueError, "EarlyStopping: patience must be at least 1, but got 0"),
    (lambda: EarlyStopping(mode="low"), ValueError, "EarlyStopping: mode must be one of 'min', 'max', but got 'low'"),
    (lambda: Checkpoints("a", every=0), ValueError, "Checkpoints: every must be at least 1, but got 0"),
    (lambda: fit(resume=True), ValueError, "fit: resume must be a path unless there are checkpoints, but got True"),
    (lambda: fit(bar=1), TypeError, "fit: bar must be a bool, but got int"),
    (lambda: without_tqdm(lambda: fit(bar=True)), ModuleNotFoundError,
     "fit: bar needs tqdm, which `pip install tqdm` installs, but got no module tqdm"),
    (lambda: in_folder(lambda folder: fit(checkpoints=folder), "best.npz"), FileExistsError,
     "fit: checkpoints must be a folder without a run, or resume must name it, but got FOLDER/best.npz"),
    (lambda: in_folder(lambda folder: fit(checkpoints=folder, resume="elsewhere/last.npz"), "last.npz"),
     FileExistsError,
     "fit: checkpoints must be a folder without a run, or resume must name it, but got FOLDER/last.npz"),
    (lambda: in_folder(lambda folder: fit(model=diverged(), optimizer=sgd(), checkpoints=folder)), NonFiniteLoss,
     ("fit: the weights must be finite before they are saved, but got NaN or infinity in model.weight; the earlier "
      "checkpoint stays; lower the learning rate or clip the gradients (clip_norm=1)")),
    (lambda: fit(loader=[(ndl.Tensor([[np.nan, 1]], dtype="float32"), BATCH[1])]), NonFiniteLoss,
     ("fit: the loss must be finite, but got nan in batch 1 of epoch 1; lower the learning rate, clip the gradients "
      "(clip_norm=1), or look for the first bad value with ndl.detect_anomaly()")),
    (lambda: TrainingState(model=MODEL, epoch=MODEL), ValueError,
     "TrainingState: parts must not be named epoch, batch, seconds, history, rng, but got epoch"),
    (lambda: TrainingState(model=3), TypeError,
     "TrainingState: model must have state_dict and load_state_dict, but got int"),
    (lambda: TrainingState().load_state_dict(one_state()), ValueError,
     ("TrainingState: state must hold epoch, batch, seconds, history, rng, but got model, epoch, batch, seconds, "
      "history, rng")),
    (lambda: TrainingState(model=MODEL).load_state_dict(one_state() | {"epoch": -1}), ValueError,
     "TrainingState: epoch must be at least 0, but got -1"),
    (lambda: TrainingState(model=MODEL).load_state_dict(one_state() | {"seconds": "1"}), TypeError,
     "TrainingState: seconds must be a number, but got '1'"),
    (lambda: TrainingState(model=MODEL).load_state_dict(one_state() | {"history": 3}), TypeError,
     "TrainingState: history must be a list, but got int"),
    (lambda: TrainingState(model=MODEL).load_state_dict(one_state() | {"history": [1]}), TypeError,
     "TrainingState: each row of history must be a dict, but got int"),
    (lambda: Stepper(sgd()).load_state_dict(Stepper(sgd()).state_dict() | {"grads": []}), ValueError,
     "Stepper: parameters and gradients of the state must agree in number, but got 2 and 0"),
    (lambda: Stepper(sgd()).load_state_dict(
        Stepper(sgd()).state_dict() | {"grads": [None, {"values": np.ones(3), "axes": [1, 0]}]}), ValueError,
     "Stepper: a parameter and its gradient must agree in shape, but got (2, 1) and (3,)"),
    (lambda: Figures().load_state_dict(Figures({"a": Accuracy()}).state_dict()), ValueError,
     "Figures: metrics of the state must hold nothing, but got a"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_refusals(call, error, message):
    before = bytes_of(MODEL)
    raises(call, error, message)
    if "evaluate" not in message:
        assert bytes_of(MODEL) == before


def test_a_state_that_a_part_refuses_changes_nothing():
    model, optimizer, run = make()
    states = []

    class Copy:
        def on_step(self, state):
            states.append(state)

    run(callbacks=[Copy()], epochs=1)
    state = states[0]
    other = make()[0]
    before = ndl.get_rng_state(), bytes_of(model), state.state_dict()
    for name, bad in (("rng", {}), ("callbacks", {"A": 1}), ("figures", {}), ("stepper", 3), ("optimizer", {})):
        with pytest.raises((ValueError, TypeError)):
            state.load_state_dict(before[2] | {"model": other.state_dict(), "epoch": 7, name: bad})
        np.testing.assert_equal(ndl.get_rng_state(), before[0])
        assert (bytes_of(model), state.epoch) == (before[1], 1)
        np.testing.assert_equal(state.state_dict()["optimizer"], before[2]["optimizer"])
    assert optimizer.state_dict()["param_groups"] == before[2]["optimizer"]["param_groups"]
