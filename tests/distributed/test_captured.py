"""Captured steps of several ranks: each call makes the exchanges of an eager one, once, and gives its bits."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import needle as ndl
from needle import nn, tuning
from needle.backend.communicator import CallsDiffer, Communicator, Part, using
from needle.capture.exchanges import ExchangesDiffer
from needle.distributed import Alone, current_communicator, launch
from tests.distributed.mpi import captured
from tests.standin.device import STANDIN


class Echo(Communicator):
    """Rank 0 of two, of which the other one sends the same. It keeps what is called, in order."""

    rank, size = 0, 2

    def __init__(self):
        self.part = Part(0, 4, 8)
        self.calls = []
        self.length = None  # of what the other one has to gather
        self.errors = {}  # by the name of a call that raises the next time

    def all_reduce(self, array, wire=None):
        self.add("all_reduce", array)

    def start_all_reduce(self, array, wire=None):
        self.calls.append(("start", array.shape))
        return Started(self, array)

    def add(self, name, array):
        self.calls.append((name, array.shape))
        if array.ndim != 0 and name in self.errors:
            raise self.errors.pop(name)
        array += array

    def all_gather(self, array):
        self.calls.append(("all_gather", array.shape))
        return [array.copy(), array[: self.length].copy()]

    def broadcast(self, array, root=0):
        self.calls.append(("broadcast", array.shape))
        array[...] = array * 2

    def progress(self):
        self.calls.append("progress")
        return False


class Started:
    """A sum that is added when it is first waited for."""

    def __init__(self, communicator, array):
        self.communicator, self.array = communicator, array

    def wait(self):
        array, self.array = self.array, None
        if array is not None:
            self.communicator.add("wait", array)


class Pools(nn.Module):
    """Max pooling, which asks for NaN on the way back, when the sums of the last layer are under way."""

    def __init__(self, dtype):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 40), nn.Tanh())
        self.last = nn.Linear(40, 3)

    def forward(self, x, takes_all):
        return self.last(self.layers(x.reshape((-1, 1, 4, 4))))


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    for name, value in captured.LIMITS.items():
        monkeypatch.setattr(tuning, name, value)
    monkeypatch.setattr(tuning, "PROGRESS_SECONDS", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def learn(run, x, y):
    return run.learn(x, y)


def gradients(run, x, y):
    return run.gradients.backward(run.loss(x, y)), None


def nothing(i, run, x, y):
    pass


def both(learn=learn, change=nothing, count=12, **options):
    """The captured run of the step `learn(run, x, y)`: each call returns, leaves and exchanges what the eager one does.

    `change(i, run, x, y)` is called before the call number i.
    """
    found = []
    for wrap in (lambda step: step, ndl.capture):
        run, stream, seen = None, np.random.RandomState(0), []
        communicator = Echo()
        with using(communicator):
            run = captured.Run(False, **options)
        run.communicator, run.step = communicator, wrap(lambda x, y, run=run: learn(run, x, y))
        for i in range(count):
            x, y = stream.standard_normal((4, 16)).astype("float32"), stream.randint(0, 3, 4)
            change(i, run, x, y)
            with using(run.communicator):
                try:
                    results = run.step(ndl.Tensor(x, requires_grad=False), ndl.Tensor(y, requires_grad=False))
                except ExchangesDiffer:
                    raise
                except BaseException as error:
                    seen.append(repr(error))
                    continue
            seen.append([result.numpy().tobytes() for result in results if result is not None])
            seen.append(run.state())
        calls = [call for call in communicator.calls if call != "progress"]
        found.append((seen, [call for call in calls if call[0] != "wait"], calls))
    assert found[0][:2] == found[1][:2]
    run.waits_in_order = found[0] == found[1]
    run.errors = [entry for entry in seen if isinstance(entry, str)]
    return run


def replays(run):
    """Of each kind of calls, how many were replayed since the last recording."""
    return [kind.recorded and kind.recorded.replays for kind in run.step._kinds.values()]


@pytest.mark.parametrize("make", [captured.Layers, captured.Norms])
def test_replays_exchange_where_eager_steps_do(make):
    """Buckets begin within backward, before later sums of batch norm, and go on there."""
    run = both(make=make)
    assert replays(run) == [8]
    assert run.waits_in_order
    calls = [call[0] for call in run.communicator.calls]  # "p" is progress
    while calls[-1] in "wait, p":
        calls.pop()
    assert "p" in calls[-calls[::-1].index("wait") :][calls[-calls[::-1].index("wait") :].index("start") :]


def test_losses_of_several_layers():
    """A parameter that only the first of two losses needs has no gradient in the second exchange."""

    def two_losses(run, x, y):
        run.optimizer.reset_grad()
        first = run.gradients.backward(run.loss(x, y))
        second = run.gradients.backward(run.loss(x, y, leaves=True), accumulate=True)
        run.optimizer.step()
        return first, second

    assert replays(both(two_losses)) == [8]


def changed_part(i, run, x, y):
    run.communicator.part = Part(0, 4, 7 if i % 2 else 8)


def changed_compression(i, run, x, y):
    if i == 6:
        run.gradients.compression = "bfloat16"


def frozen(i, run, x, y):
    """A parameter that nobody uses goes out of the sums."""
    if i == 6:
        run.model.unused.requires_grad = False


def other_parameters(i, run, x, y):
    if i == 6:
        run.gradients.parameters = [*run.model.last.parameters()]


def waiting(i, run, x, y):
    if i == 6:
        run.gradients.waiting = [ndl.ones(*parameter.shape) for parameter in run.model.parameters()]


def other_communicator(i, run, x, y):
    """Another block of `join`."""
    if i == 6:
        calls, run.communicator = run.communicator.calls, Echo()
        run.communicator.calls = calls


CHANGES = {
    changed_part: [2, 2], changed_compression: [2], frozen: [2], other_parameters: [2], waiting: [2],
    other_communicator: [2],
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change):
    assert replays(both(change=change)) == CHANGES[change]


def test_a_rank_that_calls_the_step_alone_in_between_keeps_both_recordings():
    echo, step = Echo(), ndl.capture(lambda x: x * 2)
    echo.part = None
    for communicator in (echo, Alone()) * 8:
        with using(communicator):
            step(ndl.ones(3))
    assert [kind.recorded.replays for kind in step._kinds.values()] == [4, 4]


def ignored(i, run, x, y):
    if i == 6:
        y[0] = captured.IGNORED


def with_nan(i, run, x, y):
    if i == 6:
        x[0] = np.nan


def overwriting(run, x, y):
    """A step that writes to the sums before values decide how it goes on."""
    loss, _ = gradients(run, x, y * 0)
    for parameter in run.model.last.parameters():
        parameter.grad[...] = parameter.grad * 2
    return loss, run.loss(x, y)


def raw(run, x, y):
    """Exchanges by hand."""
    total = x * 2
    for exchange in (run.now.all_reduce, run.now.broadcast):
        exchange(total.array)
    return total + run.now.all_gather(total.array)[1], run.loss(x, y)


def by_hand(run, x, y):
    run.now = current_communicator()
    return raw(run, x, y)


def from_before(run, x, y):
    """What lay in the memory before the replay is put back where it is taken back."""
    memory = run.model.unused.array
    memory *= 0.6
    current_communicator().all_reduce(memory)
    return run.loss(x, y), run.model.unused * 2


def gathering(run, x, y):
    """The other rank has as many items as this one, but in one call fewer."""
    total = run.model.unused.array
    total += 1
    rows = current_communicator().all_gather(x.array)
    return run.model.unused + sum(row.sum() for row in rows[1:]), None


def shorter(i, run, x, y):
    run.communicator.length = 1 if i == 6 else 4


ELSEWHERE = {
    "batch norm": (learn, ignored, captured.Norms), "under way": (gradients, with_nan, Pools),
    "overwritten": (overwriting, ignored, captured.Layers), "by hand": (by_hand, ignored, captured.Layers),
    "memory from before": (from_before, ignored, captured.Layers),
    "other lengths": (gathering, shorter, captured.Layers),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_replay_that_is_taken_back_has_made_the_first_exchanges(name):
    step, change, make = ELSEWHERE[name]
    run = both(step, change, make=make)
    assert replays(run) == [7]
    assert [kind.recorded.misses for kind in run.step._kinds.values()] == [1]


def wrong_class(i, run, x, y):
    if i == 6:
        y[0] = 3


def interrupted(i, run, x, y):
    if i == 6:
        run.communicator.errors["wait"] = KeyboardInterrupt("while it waits")


def differing(i, run, x, y):
    if i == 6:
        run.communicator.errors["all_reduce"] = error = CallsDiffer("all_reduce: the others do not")
        error.are_sums = True


FAILURES = {
    wrong_class: (8, "must lie in [0, 2]"), interrupted: (2, "while it waits"),
    differing: (8, "SharedGradients: in a network with batch norm"),
}  # fmt: skip


@pytest.mark.parametrize("change", FAILURES)
def test_errors_in_replays_are_those_of_eager_steps(change):
    """What is under way after them has its memory for itself: the next calls are recorded anew."""
    run = both(change=change, count=13, make=captured.Norms)
    count, message = FAILURES[change]
    assert replays(run) == [count]
    assert [message in error for error in run.errors] == [True]


def counted(run, x, y):
    """A step that exchanges more in some calls for reasons that no recording sees."""
    for _ in range(run.number in run.more):
        run.now = current_communicator()
        raw(run, x, y)
    return run.learn(x, y)


def counting(*more):
    def change(i, run, x, y):
        run.number, run.more = i, more
        if i == 6:
            y[0] = captured.IGNORED

    return change


def strange():
    """Values lead a replay elsewhere, where the step does not do what was replayed."""
    both(counted, counting(6), make=captured.Norms)


def late(run, x, y):
    results = run.learn(x, y)
    if run.number in run.more:
        run.now = current_communicator()
        raw(run, x, y)
    return results


def weighted(run, x, y):
    """A step whose Python changes only what the ranks send."""
    return run.gradients.backward(run.loss(x, y), 1.0 + run.number), None


def waiting_gradients(run, x, y):
    return run.gradients.backward(run.loss(x, y), accumulate=True, exchange=False), None


def earlier(i, run, x, y):
    with using(run.communicator):
        waiting_gradients(run, ndl.Tensor(x), ndl.Tensor(y))


def forgotten(i, run, x, y):
    run.gradients.waiting = None


def exchanging(run, x, y):
    return run.gradients.backward(run.loss(x, y), accumulate=True), None


def of_host(run, x, y):
    current_communicator().all_reduce(np.ones(2))
    return x * 2, None


def under_way(run, x, y):
    request = current_communicator().start_all_reduce(run.model.unused.array)
    loss = run.loss(x, y)
    request.wait()
    return loss, None


def of_lengths(run, x, y):
    communicator = current_communicator()
    inner = getattr(communicator, "inner", communicator)
    inner.all_gather = lambda array: [array, array[:1]]
    return ndl.Tensor.make_const(communicator.all_gather(x.array)[1] * 2), None


MUST = "recorded work must be the same without Python, but got"
REFUSED = {
    "waits": (waiting_gradients, forgotten, f"{MUST} a tensor, a module, an optimizer or gradients that wait"),
    "waited": (exchanging, earlier, f"SharedGradients: {MUST} gradients that wait since an earlier call"),
    "host": (of_host, nothing, f"Communicator: {MUST} an exchange of arrays of the host"),
    "under way": (under_way, nothing, f"Communicator: {MUST} an exchange under way of an array from before the step"),
    "lengths": (of_lengths, nothing, f"Communicator: {MUST} an exchange of arrays of several lengths"),
    "more": (counted, counting(3), f"{MUST} a step whose replay differs from an eager run"),
    "more at the end": (late, counting(3), f"{MUST} a step whose replay differs from an eager run"),
    "others": (weighted, counting(), f"{MUST} a step whose replay differs from an eager run"),
    "fewer": (counted, counting(0, 1, 2), f"{MUST} a step whose replay differs from an eager run"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    """The step runs as it is, and no exchange is made twice."""
    step, change, message = REFUSED[name]
    with pytest.warns(UserWarning, match=re.escape(f"capture: {message}")) as caught:
        run = both(step, change)
    assert len(caught) == 1
    assert run.step._is_eager


def test_on_another_device_steps_run_as_they_are():
    with using(Echo()):
        step = ndl.capture(lambda x: x * 2)
        for _ in range(6):
            step(ndl.ones(2, device=STANDIN))
    assert [kind.recorded for kind in step._kinds.values()] == [None]
    assert not step._is_eager


def test_workers_capture():
    names = ["a smaller last batch", "batch norm", "a rank is late", "values of a rank lead elsewhere"]
    names += ["a parameter of nobody any more", "bfloat16"]
    for found in launch(captured.workers, 2, (names,)):
        captured.check(found)


def test_an_exchange_by_a_communicator_from_outside_of_the_step_is_refused():
    for found in launch(captured.outside, 2):
        for count, message in found:
            assert count == 1
            assert f"{MUST} an exchange by a communicator from outside of the step (" in message


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("raise", LookupError, "^mine$"),
        ("stop", TimeoutError, "^all_reduce: all ranks must come within 0.3 s, but rank 1 has not$"),
        pytest.param("kill", RuntimeError, "but worker 1 of 2 was killed by SIGKILL", marks=pytest.mark.slow),
        pytest.param(
            "return", RuntimeError, "but rank 0 calls all_reduce .* and rank 1 has ret", marks=pytest.mark.slow
        ),
    ],
)
def test_a_rank_that_fails_ends_those_that_replay(what, kind, text):
    with pytest.raises(kind, match=text):
        launch(captured.misbehave, 2, (what,))


ERRORS = [
    (strange, ExchangesDiffer, "capture: a step must exchange the same when it is done again from the same state"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
