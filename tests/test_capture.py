"""Captured steps on the CPU: the bits of eager ones, whatever changes between calls, and what cannot be captured."""

import copy
import re
import tracemalloc
import warnings
from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import nn, ops, optim
from needle.autograd import TensorTuple
from needle.backend import Missed, again, asked, kept
from needle.backend.blas import limited_to
from needle.capture.captured import MANY_KINDS
from tests.ops import table
from tests.standin.device import STANDIN


def draws(count, *shape, seed=0):
    stream = np.random.RandomState(seed)
    return [ndl.Tensor(stream.randn(*shape).astype("float32"), requires_grad=False) for _ in range(count)]


def classes(count, size, number=3, seed=1):
    stream = np.random.RandomState(seed)
    return [ndl.Tensor(stream.randint(0, number, size), requires_grad=False) for _ in range(count)]


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


def batch_norms():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 8),
        nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def running_norms():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.Linear(64, 8),
        nn.BatchNorm1d(8, momentum=None), nn.Linear(8, 3),
    )  # fmt: skip


def dropouts():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.4), nn.Linear(64, 3))


class Last(nn.Module):
    """Scores from the last state of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][-1])


class Sentences(nn.Module):
    """Scores of sentences of words."""

    def __init__(self):
        super().__init__()
        self.words, self.body, self.out = nn.Embedding(11, 8), nn.Transformer(8, 8, 1, num_head=2), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.body(self.words(x))[0].mean(0))


def autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1)
    )


NETWORKS = {
    "mlp": (mlp, (7, 5)),
    "lenet": (lenet, (7, 1, 8, 8)),
    "batch_norms": (batch_norms, (7, 2, 6, 6)),
    "running_norms": (running_norms, (7, 2, 6, 6)),
    "dropouts": (dropouts, (7, 2, 6, 6)),
    "lstm": (lambda: Last(nn.LSTM(4, 6)), (5, 7, 4)),
    "gru": (lambda: Last(nn.GRU(4, 6)), (5, 7, 4)),
    "autoencoder": (autoencoder, (7, 1, 8, 8)),
}


class Run:
    """The training of a network, captured or not: `losses`, `state()`."""

    def __init__(self, make, captured, optimizer=optim.Adam, loss=None, **options):
        np.random.seed(3)
        self.model = make()
        self.optimizer = optimizer(self.model.parameters(), **({"lr": 0.05} | options))
        self.loss = loss or nn.CrossEntropyLoss()
        self.step = ndl.capture(self.eager) if captured else self.eager

    def eager(self, x, y):
        self.optimizer.reset_grad()
        loss = self.loss(self.model(x), y)
        loss.backward(create_graph=False)
        self.optimizer.step()
        return loss

    def train(self, xs, ys):
        return [self.step(x, y) for x, y in zip(xs, ys, strict=True)]

    def state(self):
        arrays = [value.copy() for value in self.model.state_dict().values()]
        grads = [parameter.grad.numpy() for parameter in self.model.parameters() if parameter.grad is not None]
        return arrays, grads, np.random.get_state()[1:3]


def assert_equal(first, second):
    """Equal structures of arrays and numbers, to the bit."""
    if isinstance(first, (tuple, list)):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_equal(*pair)
    else:
        assert np.asarray(first).tobytes() == np.asarray(second).tobytes()


def both(make, xs, ys, **options):
    """The captured run of a network, which equals the eager one in all its losses and in the end."""
    runs = [Run(make, captured, **options) for captured in (False, True)]
    losses = []
    for run in runs:
        np.random.seed(5)
        losses.append([loss.item() for loss in run.train(xs, ys)])
        losses.append(run.state())
    assert losses[0] == losses[2]
    assert_equal(losses[1], losses[3])
    return runs[1]


def is_captured(step, count=1):
    """Whether so many kinds of calls are recorded, and checked."""
    recorded = [kind.recorded for kind in step._kinds.values() if kind.recorded is not None]
    return len(recorded) == count and all(entry.is_checked for entry in recorded)


@pytest.fixture(autouse=True)
def _strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_twenty_captured_steps_equal_eager_ones(name, threads):
    make, shape = NETWORKS[name]
    batch = 7
    xs = draws(20, *shape)
    ys = xs if name == "autoencoder" else classes(20, batch)
    with limited_to(threads):
        run = both(make, xs, ys, loss=nn.MSELoss() if name == "autoencoder" else None)
        assert is_captured(run.step)


def test_a_transformer():
    run = both(Sentences, classes(12, (5, 7), 11), classes(12, 7))
    assert is_captured(run.step)


OPTIMIZERS = [
    optimizer
    for name in sorted(optim.__all__)
    if isinstance(optimizer := getattr(optim, name), type)
    and issubclass(optimizer, optim.Optimizer)
    and optimizer is not optim.Optimizer
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.01}])
def test_optimizers(optimizer, options):
    run = both(mlp, draws(12, 7, 5), classes(12, 7), optimizer=optimizer, **options)
    assert is_captured(run.step)


def test_large_arrays_on_threads():
    """Loops of several chunks, and parameters that threads share."""

    def make():
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3),
            nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 256), nn.ReLU(), nn.Linear(256, 3),
        )  # fmt: skip

    for threads in (1, 2):
        with limited_to(threads):
            run = both(make, draws(6, 32, 3, 16, 16), classes(6, 32))
            assert is_captured(run.step)


def test_a_replay_asks_for_no_memory():
    """NumPy's own buffers of a ufunc, tens of KiB, are all that comes to what is kept. An eager step needs far more."""
    run = Run(lenet, captured=True)
    xs, ys = draws(8, 512, 1, 8, 8), classes(8, 512)
    run.train(xs[:5], ys[:5])
    assert is_captured(run.step)
    peaks = []
    for step in (run.step, run.eager):
        step(xs[5], ys[5])
        tracemalloc.start()
        step(xs[6], ys[6])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 2**18 < peaks[1] / 4


def test_gradients_of_gradients():
    model, xs = mlp(), draws(8, 7, 5)

    def penalty(x):
        y = ops.summation(model(x) ** 2)
        (grad,) = ndl.grad(y, [model[0].weight], create_graph=True)
        loss = ops.summation(grad**2)
        loss.backward()
        return loss

    step = ndl.capture(penalty)
    for x in xs:
        found = [step(x).item(), model[0].weight.grad.numpy()]
        assert_equal(found, [penalty(x).item(), model[0].weight.grad.numpy()])
    assert is_captured(step)


def test_gradients_that_are_added_up():
    """A step that adds to the gradients of the last one, which another function takes."""
    models = [mlp(), mlp()]
    for own, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        other.data = own.data

    def added(model, x, y):
        nn.CrossEntropyLoss()(model(x), y).backward(create_graph=False, accumulate=True)

    steps = [partial(added, models[0]), ndl.capture(partial(added, models[1]))]
    for i, (x, y) in enumerate(zip(draws(16, 7, 5), classes(16, 7), strict=True)):
        for step, model in zip(steps, models, strict=True):
            if i in (8, 12):
                for parameter in model.parameters():
                    parameter.grad = None
            step(x, y)
        grads = [[parameter.grad.numpy() for parameter in model.parameters()] for model in models]
        assert_equal(*grads)
    assert is_captured(steps[1])


def test_arguments_that_require_a_gradient_get_it():
    step = ndl.capture(lambda x: ops.summation(x**3).backward(create_graph=False))
    for x in draws(6, 4):
        x.requires_grad = True
        step(x)
        assert_equal(x.grad.numpy(), 3 * x.numpy() ** 2)
    assert is_captured(step)


@pytest.mark.parametrize("row", {row.op: row for row in reversed(table.ROWS) if row.op != "to"}.values(), ids=str)
def test_every_op(row):
    """One row of each op in the table, its results and gradients; `to` another device cannot be captured."""

    def step(*inputs):
        result = row.apply(*inputs)
        outputs = [*result] if isinstance(result, (tuple, list, TensorTuple)) else [result]
        sums = [output.sum() for output in outputs if output.requires_grad]
        if sums:
            sum(sums).backward(create_graph=False)
        return outputs

    captured, draws = ndl.capture(step), np.random.default_rng(7)
    for _ in range(5):
        values = [x if isinstance(x, np.ndarray) else np.asarray(row.draw(draws, x), "float32") for x in row.inputs]
        found = []
        for function in (step, captured):
            inputs, _ = table.tensors(row, [value.copy() for value in values])
            found.append([output.numpy() for output in function(*inputs)])
            found[-1] += [x.grad.numpy() for x in inputs if x.grad is not None]
        assert_equal(*found)
    assert is_captured(captured)


# ---- what changes between calls --------------------------------------------------------------------------------------


def pair(make=mlp, **options):
    """Two runs of a network from the same start, eager and captured."""
    return Run(make, False, **options), Run(make, True, **options)


def train(runs, count, *shape, seed=0):
    """Train both; their losses and states must be equal."""
    xs, ys, losses = draws(count, *shape, seed=seed), classes(count, shape[0], seed=seed), []
    for run in runs:
        np.random.seed(seed)
        losses.append([[loss.item() for loss in run.train(xs, ys)], run.state()])
    assert_equal(*losses)


@pytest.mark.parametrize("optimizer", [optim.Adam, optim.SGD])
def test_a_changed_rate_is_heeded(optimizer):
    runs = pair(optimizer=optimizer)
    train(runs, 6, 7, 5)
    for run in runs:
        run.optimizer.lr = 0.001
    train(runs, 3, 7, 5)
    assert is_captured(runs[1].step)


def test_a_schedule_between_the_steps():
    runs = pair()
    schedules = [optim.lr_scheduler.ExponentialLR(run.optimizer, 0.7) for run in runs]
    for seed in range(8):
        train(runs, 1, 7, 5, seed=seed)
        for schedule in schedules:
            schedule.step()
    assert is_captured(runs[1].step)


def test_dropout_differs_from_step_to_step():
    layer = nn.Dropout(0.5)
    step = ndl.capture(lambda x: layer(x) * 1.0)
    results = [step(ndl.ones(40)).numpy().tobytes() for _ in range(8)]
    assert is_captured(step)
    assert len({*results}) == 8


def test_a_smaller_last_batch():
    runs = pair(batch_norms)
    for seed in range(6):
        train(runs, 4, 7, 2, 6, 6, seed=seed)
        train(runs, 1, 3, 2, 6, 6, seed=seed)
    assert is_captured(runs[1].step, 2)


def test_at_most_four_kinds_are_recorded():
    step = ndl.capture(lambda x: x * 2)
    for _ in range(5):
        for size in range(1, 8):
            assert_equal(step(ndl.ones(size)).numpy(), 2 * np.ones(size, "float32"))
    assert is_captured(step, 4)


def test_values_of_other_arguments_are_kinds():
    step = ndl.capture(lambda x, factor, shift=0.0: x * factor + shift)
    for _ in range(5):
        assert step(ndl.ones(1), 2, shift=1.0).item() == 3
        assert step(ndl.ones(1), 3).item() == 3
    assert is_captured(step, 2)


def test_structures_of_tensors():
    def step(batch, *, scale):
        return {"sum": batch["x"] + batch["y"][0], "both": (scale, batch["x"] * scale), "name": "a"}

    captured = ndl.capture(step)
    for i in range(6):
        x, y, scale = (ndl.ones(2) * float(i + k) for k in range(3))
        result = captured({"x": x, "y": [y]}, scale=scale)
        wanted = step({"x": x, "y": [y]}, scale=scale)
        assert_equal(result["sum"].numpy(), wanted["sum"].numpy())
        assert_equal([entry.numpy() for entry in result["both"]], [entry.numpy() for entry in wanted["both"]])
        assert result["name"] == "a"
    assert is_captured(captured)


def test_one_tensor_in_two_places_is_another_kind():
    step = ndl.capture(lambda a, b: a * 2 + b)
    for i in range(5):
        x, y = ndl.ones(1) * float(i), ndl.ones(1)
        assert step(x, x).item() == 3 * i
        assert step(x, y).item() == 2 * i + 1
    assert is_captured(step, 2)


def load_weights(run):
    run.model.load_state_dict({name: value * 0.5 for name, value in run.model.state_dict().items()})


def replace_weights(run):
    for parameter in run.model.parameters():
        parameter.data = ndl.Tensor(parameter.numpy() * 0.5)


def write_weights(run):
    with ndl.no_grad():
        for parameter in run.model.parameters():
            parameter[...] = parameter * 0.5


def load_optimizer(run):
    run.optimizer.load_state_dict(run.optimizer.state_dict())


def freeze(run):
    run.model[0].weight.requires_grad = False
    run.model[0].weight.grad = ndl.zeros(5, 8)


def other_layer(run):
    run.model[2] = nn.Linear(8, 3)
    run.optimizer.params = list(run.model.parameters())


def other_option(run):
    run.optimizer.weight_decay = 0.1


@pytest.mark.parametrize(
    "change", [load_weights, replace_weights, write_weights, load_optimizer, freeze, other_option, other_layer]
)
def test_a_change_of_what_the_step_uses_is_noticed(change):
    runs = pair()
    train(runs, 6, 7, 5)
    for run in runs:
        np.random.seed(0)
        change(run)
    train(runs, 6, 7, 5, seed=9)
    assert is_captured(runs[1].step)


def test_evaluation_mode_is_noticed():
    model = dropouts()
    step, x = ndl.capture(lambda x: model(x)), draws(1, 7, 2, 6, 6)[0]
    for _ in range(3):
        for training in (True, False, False, False, False):
            model.train(training)
            np.random.seed(2)
            found = step(x).numpy()
            np.random.seed(2)
            assert_equal(found, model(x).numpy())


def test_no_grad_is_another_kind():
    model = mlp()
    step = ndl.capture(model)
    for x in draws(5, 7, 5):
        with ndl.no_grad():
            free = step(x)
        assert_equal(step(x).numpy(), free.numpy())
    assert is_captured(step, 2)


def test_a_run_goes_on_in_another_capture():
    """Weights, optimizer and random numbers of a captured run, loaded into another, which captures again."""
    whole, first, second = Run(dropouts, True), Run(dropouts, True), Run(dropouts, True)
    xs, ys = draws(16, 7, 2, 6, 6), classes(16, 7)
    np.random.seed(5)
    wanted = [loss.item() for loss in whole.train(xs, ys)]
    np.random.seed(5)
    found = [loss.item() for loss in first.train(xs[:8], ys[:8])]
    saved = first.model.state_dict(), first.optimizer.state_dict(), ndl.get_rng_state()
    second.model.load_state_dict(saved[0])
    second.optimizer.load_state_dict(saved[1])
    ndl.set_rng_state(saved[2])
    found += [loss.item() for loss in second.train(xs[8:], ys[8:])]
    assert found == wanted
    assert_equal(whole.state(), second.state())
    assert is_captured(second.step)


def test_numbers_drawn_in_the_step():
    model = nn.Linear(5, 3)
    step = ndl.capture(lambda x: model(x) + ndl.init.randn(7, 3) * ndl.init.randint(0, 9, (7, 3)) + ndl.init.rand(3))
    for x in draws(8, 7, 5):
        found = []
        for function in (step, step._step):
            np.random.seed(3)
            found.append([function(x).numpy(), np.random.rand()])
        assert_equal(*found)
    assert is_captured(step)


def test_arrays_of_the_host_are_read_in_each_replay():
    shift = np.zeros(2)
    step = ndl.capture(lambda x: x + ndl.Tensor(shift, requires_grad=False))
    for i in range(6):
        shift[:] = i
        assert step(ndl.ones(2, dtype="float64")).numpy().tolist() == [1.0 + i] * 2
    assert is_captured(step)


def test_what_was_written_and_drawn_before_values_decide_otherwise_is_taken_back():
    found = []
    for wrap in (ndl.capture, lambda step: step):
        np.random.seed(0)
        count = ndl.zeros(1, requires_grad=False)

        def step(x, y, count=count):
            count[...] = count + 1
            return nn.functional.cross_entropy(nn.functional.dropout(x, 0.5), y)

        call = wrap(step)
        for i, (x, y) in enumerate(zip(draws(9, 4, 3), classes(9, 4), strict=True)):
            if i == 6:
                with pytest.raises(ValueError, match="must lie in"):
                    call(x, y + 3)
            found.append([call(x, y).item(), count.item()])
    assert_equal(found[:9], found[9:])


def test_gradients_that_a_replay_has_added_to_before_values_decide_otherwise_are_taken_back():
    found = []
    for wrap in (lambda step: step, ndl.capture):
        np.random.seed(0)
        model = nn.Linear(3, 2)

        def step(x, y, model=model):
            (model(x) ** 2).mean().backward(create_graph=False, accumulate=True)
            return nn.functional.cross_entropy(x, y)

        call = wrap(step)
        for i, (x, y) in enumerate(zip(draws(9, 4, 3), classes(9, 4), strict=True)):
            if i == 6:
                y[0] = -100  # which is ignored
            found.append([call(x, y).item(), model.weight.grad.numpy()])
    assert_equal(found[:9], found[9:])
    assert is_captured(call)


def test_an_argument_taken_for_a_constant_is_noticed_once_it_changes():
    step = ndl.capture(lambda x, factor: x * memoryview(factor.array)[0])
    x, factor = ndl.ones(1), ndl.ones(1)
    assert [step(x, factor).item() for _ in range(6)] == [1] * 6
    with pytest.warns(UserWarning, match="a step whose replay differs from an eager run"):
        assert step(x, factor * 3.0).item() == 3


def test_memory_orders_are_kinds():
    runs = []
    step = ndl.capture(lambda x: runs.append(x.array.strides) or x * 2)
    (x,) = draws(1, 3, 3)
    turned = ndl.Tensor.make_const(np.asfortranarray(x.array))
    for tensor in [x] * 6 + [turned]:
        assert_equal(step(tensor).numpy(), 2 * x.numpy())
    assert runs == [x.array.strides] * 4 + [turned.array.strides]


def test_a_graph_on_a_result_is_good_after_the_next_replay():
    step, factor = ndl.capture(lambda x: x + 1), ndl.ones(1, requires_grad=True)
    for i in range(8):
        product = step(ndl.ones(1, requires_grad=False) * float(i)) * factor
    step(ndl.zeros(1, requires_grad=False))
    product.backward()
    assert factor.grad.item() == 8


def test_results_stay():
    step = ndl.capture(lambda x: x + 1)
    results = [step(ndl.ones(2) * float(i)) for i in range(8)]
    assert [result.numpy().tolist() for result in results] == [[i + 1.0] * 2 for i in range(8)]
    assert is_captured(step)


def test_graphs_from_before_a_replay_are_stale():
    run = Run(mlp, True)
    run.train(draws(6, 7, 5), classes(6, 7))
    loss = run.loss(run.model(draws(1, 7, 5)[0]), classes(1, 7)[0])
    run.train(draws(1, 7, 5), classes(1, 7))
    with pytest.raises(RuntimeError, match="must not change in place"):
        loss.backward()


def test_another_way_that_values_decide_runs_eagerly():
    """A NaN leads max pooling another way; so does the next batch, back again."""
    pool = nn.MaxPool2d(2)

    def step(x):
        loss = ops.summation(pool(x) ** 2)
        loss.backward(create_graph=False)
        return loss

    captured = ndl.capture(step)
    for i, x in enumerate(draws(9, 2, 1, 4, 4)):
        x.requires_grad = True
        if i == 6:
            x.cached_data[0, 0, 0, 0] = float("nan")
        found = [captured(x).item(), x.grad.numpy()]
        assert_equal(found, [step(x).item(), x.grad.numpy()])
    assert is_captured(captured)


def test_what_eager_calls_refuse_is_refused():
    """A label out of range: the error of an eager step, and no trace of the step that failed."""
    runs = pair()
    train(runs, 6, 7, 5)
    for run in runs:
        with pytest.raises(ValueError, match="got 0 to 3"):
            run.step(draws(1, 7, 5)[0], ndl.Tensor([0, 1, 2, 3, 0, 1, 2], requires_grad=False))
    train(runs, 6, 7, 5, seed=9)
    assert is_captured(runs[1].step)


# ---- what cannot be captured -----------------------------------------------------------------------------------------


def changing_module():
    layer = nn.Linear(2, 2)

    def step(x):
        layer.note = object()
        return layer(x)

    return step


def changing_argument(x):
    x[0] = 0.0
    return x * 2


def replacing_a_tensor():
    weight = nn.Parameter(ndl.ones(2))

    def step(x):
        y = x * weight
        weight.data = ndl.ones(2)
        return y

    return step


def counting():
    """A step whose Python differs from call to call."""
    calls = []

    def step(x):
        calls.append(x)
        return x * float(len(calls))

    return step


def hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, args, output: None)
    return layer


def tensor_hook(x):
    weight = nn.Parameter(ndl.ones(2))
    weight.register_hook(lambda grad: grad * 2)
    ops.summation(x * weight).backward(create_graph=False)
    return weight.grad


MUST = "recorded work must be the same without Python, but got"
HOST = f"{MUST} a value read on the host"
REFUSED = {
    "item": (lambda x: x * ops.summation(x).item(), f"item: {HOST}"),
    "float": (lambda x: x * float(x[0]), f"item: {HOST}"),
    "truth": (lambda x: x * 2 if ops.summation(x) > 0 else x, f"item: {HOST}"),
    "print": (lambda x: (str(x * 2), x * 2)[1], f"repr: {MUST} values read on the host"),
    "numpy": (lambda x: ndl.Tensor((x * 2).numpy(), requires_grad=False), f"numpy: {MUST} values read on the host"),
    "mask": (lambda x: (x * 2)[x > 0], f"getitem: {MUST} a result whose shape depends on values"),
    "module": (changing_module(), f"{MUST} a tensor, a module or an optimizer that changes between calls"),
    "argument": (changing_argument, f"{MUST} a step that writes into its arguments"),
    "tensor": (replacing_a_tensor(), f"{MUST} a tensor, a module, an optimizer or gradients that wait, which the step"),
    "python": (counting(), f"{MUST} a step whose replay differs from an eager run"),
    "hook": (hooked(), f"Linear: {MUST} a hook"),
    "tensor_hook": (tensor_hook, f"register_hook: {MUST} a hook of a tensor"),
    "result": (lambda x: (x * 2).cached_data, f"{MUST} a result of type NDArray"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    step, message = REFUSED[name]
    captured, seen = ndl.capture(step), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(16):
            x = ndl.ones(2) * float(i + 1)
            seen.append(np.asarray(captured(x).numpy()).tolist())
    assert [str(warning.message).startswith(f"capture: {message}") for warning in caught] == [True]
    assert "; the step runs eagerly from now on" in str(caught[0].message)
    assert caught[0].filename == __file__
    if name != "argument":
        wanted = [i + 1.0 for i in range(16)]
        factors = {"item": [2 * w for w in wanted], "float": wanted, "python": wanted}.get(name)
        assert factors is None or seen == [[w * f] * 2 for w, f in zip(wanted, factors, strict=True)]


def test_a_refusal_names_the_line():
    step = ndl.capture(lambda x: x * x.item())
    for _ in range(2):
        step(ndl.ones(1))
    with pytest.warns(UserWarning, match=r"item: .* \(.*test_capture\.py:\d+\); the step runs eagerly from now on"):
        step(ndl.ones(1))


def test_arguments_that_cannot_be_told_apart():
    step = ndl.capture(lambda x, y: x * float(y[0]))
    with pytest.warns(UserWarning, match="capture: .* but got an argument of type ndarray"):
        assert step(ndl.ones(1), np.ones(1)).item() == 1


def test_an_argument_with_a_graph():
    step, w = ndl.capture(lambda x: x * 2), nn.Parameter(ndl.ones(1))
    with pytest.warns(UserWarning, match="but got an argument with a graph"):
        step(w * 3).backward()
    assert w.grad.item() == 6


def test_errors_of_the_step_pass_through():
    calls = []

    def step(x):
        calls.append(x)
        if len(calls) == 3:
            raise ZeroDivisionError
        return x * 2

    captured = ndl.capture(step)
    for i in range(8):
        if i == 2:
            with pytest.raises(ZeroDivisionError):
                captured(ndl.ones(1))
        else:
            assert captured(ndl.ones(1)).item() == 2
    assert is_captured(captured)
    assert ndl.cpu().xp is np
    assert type(ndl.ones(1).array) is np.ndarray


def test_watched_calls_are_eager():
    run = Run(mlp, True)
    run.train(draws(6, 7, 5), classes(6, 7))
    with ndl.detect_anomaly():
        run.train(draws(2, 7, 5), classes(2, 7))
    with pytest.raises(RuntimeError, match="must be finite"), ndl.detect_anomaly():
        run.step(draws(1, 7, 5)[0] * float("inf"), classes(1, 7)[0])


def warned(make, *args):
    """Call a captured step until it warns; the warning is raised."""
    step = ndl.capture(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(16):
            step(*(args or [ndl.ones(2)]))


def missed():
    array = np.ones(1)
    recording = ndl.cpu().record(lambda: bool(kept(array) > 0))
    array[:] = -1
    recording.replay()


def other_values():
    array = np.ones(2)
    recording = ndl.cpu().record(lambda: asked(kept(array)))
    array[:] = -1
    recording.replay()


def other_lengths():
    array, length = np.ones(2), 2
    recording = ndl.cpu().record(lambda: again(lambda: [array[:length].copy()]))
    length = 1
    recording.replay()


def many_kinds():
    step = ndl.capture(lambda x, factor: x * factor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(64):
            step(ndl.ones(1), i)


def elsewhere():
    """A step that values lead another way in most calls: NaN in max pooling."""
    pool = nn.MaxPool2d(2)
    step = ndl.capture(lambda x: ops.summation(pool(x)).backward(create_graph=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(16):
            step(ndl.full((1, 1, 2, 2), float("nan") if i > 4 else 1.0, requires_grad=True))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_gradients_that_calls_add_up(every, frozen):
    """A call that finds no gradient sets it, others add to it; what has none at an update is left as it is."""
    results = []
    for wrap in (lambda function: function, ndl.capture):
        np.random.seed(0)
        model = mlp()
        model[0].requires_grad_(not frozen)
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        def add(x, y, model=model):
            loss = nn.CrossEntropyLoss()(model(x), y)
            loss.backward(create_graph=False, accumulate=True)
            return loss

        add, update, losses = wrap(add), wrap(optimizer.step), []
        for i, (x, y) in enumerate(zip(draws(40, 4, 5), classes(40, 4), strict=True)):
            if i == 24:
                model[0].requires_grad_(True)
            losses.append(add(x, y).item())
            if i % (every if i < 36 else 2) == 0:
                update()
                optimizer.reset_grad()
        results.append(losses)
    assert results[0] == results[1]
    assert is_captured(add)
    assert is_captured(update)


def test_gradients_that_one_step_adds_up():
    """It takes them away first, so those from before do not matter."""
    results = []
    for wrap in (lambda function: function, ndl.capture):
        np.random.seed(0)
        model = mlp()
        optimizer = optim.Adam(model.parameters(), lr=0.01)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.reset_grad()
            for half in (slice(0, 2), slice(2, 4)):
                loss = nn.CrossEntropyLoss()(model(x[half]), y[half])
                loss.backward(create_graph=False, accumulate=True)
            optimizer.step()
            return loss

        step = wrap(step)
        results.append([step(x, y).item() for x, y in zip(draws(12, 4, 5), classes(12, 4), strict=True)])
    assert results[0] == results[1]
    assert [kind.recorded.replays for kind in step._kinds.values()] == [8]


def test_gradients_set_by_hand_that_the_step_takes_away():
    """Also where the step makes no other use of their tensors, as of a layer that is left out."""
    for has_gradient in (False, True):
        optimizer = optim.SGD([w := nn.Parameter(ndl.ones(2)), idle := nn.Parameter(ndl.ones(2))], lr=0.5)

        def learn(x, optimizer=optimizer, w=w):
            optimizer.reset_grad()
            (w * x).sum().backward(create_graph=False)
            optimizer.step()

        step = ndl.capture(learn)
        for i in range(6):
            if has_gradient or i == 5:
                idle.grad = ndl.ones(2)
            step(ndl.ones(2))
            assert idle.grad is None
        assert is_captured(step)
        assert w.numpy().tolist() == [-2, -2]


def test_a_copy_captures_anew():
    optimizer = optim.SGD([nn.Parameter(ndl.ones(2))], lr=0.1)
    twin = copy.deepcopy({"optimizer": optimizer, "step": ndl.capture(optimizer.step)})
    assert twin["step"]._step.__self__ is twin["optimizer"]


def test_many_kinds_of_arguments_warn_once():
    step = ndl.capture(lambda x, factor: x * factor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(70):
            assert step(ndl.ones(1), i).item() == i
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == MANY_KINDS


def away(step):
    """A captured step with an optimizer whose parameters are on another device than the default one, and arguments."""
    weight = nn.Parameter(ndl.ones(2, device=STANDIN))
    optimizer = optim.SGD([weight], lr=0.5)
    weight.grad = ndl.ones(2, device=STANDIN)
    return weight, ndl.capture(partial(step, optimizer))


PLACES = {
    "no tensors": (lambda optimizer: optimizer.step(), (), f"record: {MUST} work on standin\\(\\), which cannot"),
    "host": (
        lambda optimizer, x: (optimizer.step(), x * 2)[1], (ndl.ones(2),),
        f"{MUST} work on standin\\(\\) and cpu\\(\\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_the_device_of_the_work_need_not_be_that_of_the_arguments(name):
    """A step without tensors as arguments works on the device of its eager calls."""
    step, arguments, message = PLACES[name]
    weight, captured = away(step)
    values = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5):
            captured(*arguments)
            values.append(weight.numpy()[0])
    assert values == [0.5, 0.0, -0.5, -1.0, -1.5]
    assert [bool(re.match(f"capture: {message}", str(warning.message))) for warning in caught] == [True]


def on_two_devices():
    _, captured = away(PLACES["host"][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            captured(ndl.ones(2))


AWAY = "; the step runs eagerly from now on"
ERRORS = [
    (lambda: ndl.capture(1), TypeError, "capture: step must be callable, but got int"),
    (missed, Missed, ""),
    (other_values, Missed, ""),
    (other_lengths, Missed, ""),
    (partial(warned, lambda: len, np.ones(1)), UserWarning, f"{MUST} an argument of type ndarray{AWAY}"),
    (
        partial(warned, lambda: ops.exp, nn.Parameter(ndl.ones(1)) * 1.0), UserWarning,
        f"{MUST} an argument with a graph{AWAY}",
    ),
    (
        partial(warned, changing_module), UserWarning,
        f"{MUST} a tensor, a module or an optimizer that changes between calls{AWAY}",
    ),
    (partial(warned, lambda: REFUSED["mask"][0]), UserWarning, f"{MUST} a result whose shape depends on values"),
    (partial(warned, lambda: changing_argument), UserWarning, f"{MUST} a step that writes into its arguments{AWAY}"),
    (on_two_devices, UserWarning, "work on standin() and cpu()" + AWAY),
    (many_kinds, UserWarning, MANY_KINDS),
    (elsewhere, UserWarning, f"_max_masks: {MUST} values that lead to other work in most calls{AWAY}"),
    (partial(warned, counting), UserWarning, f"{MUST} a step whose replay differs from an eager run{AWAY}"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
