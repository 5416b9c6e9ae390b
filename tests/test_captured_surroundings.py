"""What a captured step shares with the program around it: arguments, results, gradients, modules; as an eager step."""

import random
import warnings
from collections import namedtuple

import numpy as np
import pytest

import needle as ndl
from needle import nn, ops, optim


def inputs(seed, requires_grad=False):
    return ndl.Tensor(np.random.RandomState(seed).randn(6, 4).astype("float32"), requires_grad=requires_grad)


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))


def learn(model, x):
    loss = ops.summation(model(x) ** 2)
    loss.backward(create_graph=False, accumulate=True)
    return loss


def bits(values):
    return [(x.shape, x.dtype, np.asarray(x).tobytes()) for x in map(as_array, values)]


def as_array(value):
    return value.numpy() if isinstance(value, ndl.Tensor) else np.asarray(value)


def grads(model):
    return [0 if p.grad is None else p.grad.numpy() for p in model.parameters()]


def argument_that_is_learned(capture):
    """The step reaches its argument by the optimizer, too."""
    model, noise = mlp(), ndl.zeros(6, 4, requires_grad=True)
    optimizer = optim.SGD([noise], lr=0.1)

    @capture
    def step(x, noise):
        optimizer.reset_grad()
        loss = ops.summation(model(x + noise) ** 2)
        loss.backward(create_graph=False)
        optimizer.step()
        return loss

    for i in range(6):
        yield step(inputs(i), noise).item()
        yield noise.numpy()


def gradients_of_an_argument(capture):
    """They are added to those of calls before."""
    model, x = mlp(), inputs(0, True)
    step = capture(lambda x: learn(model, x))
    for i in range(8):
        if i == 6:
            x.grad = None
        yield step(x)
        yield x.grad.numpy()


def gradients_between_the_calls(capture):
    """The step ends without gradients, but once it begins with some."""
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @capture
    def step(x):
        loss = learn(model, x)
        optimizer.step()
        optimizer.reset_grad()
        return loss

    for i in range(8):
        if i == 6:
            learn(model, inputs(9))
        yield step(inputs(i)).item()
        yield from model.parameters()


def gradients_of_two_calls(capture):
    model = mlp()
    step = capture(lambda x: learn(model, x))
    for i in range(10):
        yield step(inputs(i)).item()
        yield from grads(model)
        if i % 2:
            for parameter in model.parameters():
                parameter.grad = None


def parts_of_results(capture):
    """Views of results stay as they are, as the results do."""
    model = mlp()

    @capture
    def step(x):
        y = model(x)
        return y, ops.summation(y)

    seen = []
    for i in range(7):
        y, total = step(inputs(i))
        seen += [y[0].detach(), y.detach(), total.detach(), ops.reshape(y, (24,)).detach()]
    yield from seen


def memory_order_of_results(capture):
    layer = nn.Conv2d(2, 3, 3)
    step = capture(lambda x: layer(x))
    seen = [step(ndl.ones(4, 2, 5, 5)) for _ in range(6)]
    yield from (y.array.strides for y in seen)


def graphs_on_results(capture):
    """A graph on a result, whose gradients are asked for after the next call."""
    teacher, model = mlp(), mlp()
    step = capture(lambda x: teacher(x).detach())
    before = None
    for i in range(7):
        loss = ops.summation((model(inputs(i)) * step(inputs(i))) ** 2)
        if before is not None:
            before.backward()
            yield from grads(model)
        before = loss


def tensor_of_the_step_as_an_argument(capture):
    model, other = mlp(), inputs(0, True)

    @capture
    def step(x):
        loss = ops.summation(model(x) * model(other))
        loss.backward(create_graph=False)
        return loss

    for i in range(8):
        x = other if i == 5 else inputs(i, True)
        yield step(x).item()
        yield x.grad.numpy()
        yield other.grad.numpy()


def written_memory_as_an_argument(capture):
    """An argument on the memory of a parameter, which the step writes to before it reads the argument."""
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @capture
    def step(x, w):
        learn(model, x)
        optimizer.step()
        return ops.summation(w**2)

    for i in range(8):
        yield step(inputs(i), model[0].weight.detach() if i == 5 else ndl.ones(4, 5)).item()


def flags_of_an_argument(capture):
    def step(x):
        x.requires_grad = True
        ops.summation(x**3).backward(create_graph=False)

    step = capture(step)
    for i in range(6):
        x = inputs(i)
        step(x)
        yield x.requires_grad
        yield x.grad.numpy()


def negative_zero(capture):
    step = capture(lambda x, factor: ops.abs(x) * factor)
    for i in range(12):
        yield step(inputs(i), -0.0 if i > 5 else 0.0)


def methods(capture):
    class Trainer:
        def __init__(self):
            self.model = mlp()

        @capture
        def step(self, x):
            """Learn."""
            return learn(self.model, x)

    trainers = [Trainer(), Trainer()]
    for i in range(6):
        for trainer in trainers:
            yield trainer.step(inputs(i)).item()
    assert Trainer.step.__name__ == "step"
    assert Trainer.step.__doc__ == "Learn."


def replaced_parameter(capture):
    """Of a layer that a Sequential computes together with the ReLU behind it, while the former one stays in use."""
    model, other = mlp(), mlp()
    other[0].weight = model[0].weight
    step = capture(lambda x: model(x) + other(x))
    for i in range(9):
        if i == 5:
            other[0].weight = nn.Parameter(ndl.ones(4, 5))
        yield step(inputs(i))


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.named = [nn.Linear(4, 4)], {"last": nn.Linear(4, 4)}

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.named["last"](x)


def lists_of_modules(capture):
    model, more = Listed(), [nn.Linear(4, 4) for _ in range(3)]
    step = capture(lambda x: model(x))
    for i in range(20):
        if i == 5:
            model.layers.append(more[0])
        if i == 10:
            model.layers[0] = more[1]
        if i == 15:
            model.named["last"] = more[2]
        yield step(inputs(i))


SAME = [
    gradients_of_an_argument, gradients_between_the_calls, gradients_of_two_calls, parts_of_results,
    memory_order_of_results, graphs_on_results, tensor_of_the_step_as_an_argument, written_memory_as_an_argument,
    flags_of_an_argument, negative_zero, methods, replaced_parameter, lists_of_modules,
]  # fmt: skip


def both(make):
    """What a program sees with an eager step, and with a captured one, whose kinds are returned as well."""
    found, steps = [], []

    def capture(step):
        steps.append(ndl.capture(step))
        return steps[0]

    for wrapped in (lambda step: step, capture):
        np.random.seed(0)
        random.seed(0)
        found.append(bits(make(wrapped)))
    return (*found, steps[0])


@pytest.mark.parametrize("make", SAME, ids=lambda make: make.__name__)
def test_a_captured_step_is_to_others_what_an_eager_one_is(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eager, captured, step = both(make)
    assert captured == eager
    assert any(kind.recorded is not None for kind in step._kinds.values())


def hook_of_a_relu(capture):
    """Within a pair of modules that a Sequential computes together."""
    model = mlp()
    step = capture(lambda x: model(x))
    for i in range(12):
        if i == 6:
            model[1].register_forward_hook(lambda module, args, output: output * 2)
        yield step(inputs(i))


def branch_by_chance(capture):
    step = capture(lambda x: x * 2 if random.random() < 0.9 else -x)
    for i in range(30):
        yield step(inputs(i))


class Batch(dict):
    """With a method of its own."""

    def first(self):
        return self["x"]


def other_dicts(capture):
    step = capture(lambda batch: batch.first() * 2)
    for i in range(4):
        yield step(Batch(x=inputs(i)))


def other_results(capture):
    step = capture(lambda x: Batch(x=x * 2))
    for i in range(4):
        yield step(inputs(i)).first()


REFUSED = {
    argument_that_is_learned: "a step that writes into its arguments",
    hook_of_a_relu: "ReLU: recorded work must be the same without Python, but got a hook",
    branch_by_chance: "capture: recorded work .* but got numbers drawn by Python's random",
    other_dicts: "an argument of type Batch",
    other_results: "a result of type Batch",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_be_captured_is_refused_and_runs_as_it_is(make):
    with pytest.warns(UserWarning, match=REFUSED[make]) as caught:
        eager, captured, _ = both(make)
    assert captured == eager
    assert len(caught) == 1


def test_named_tuples_of_tensors():
    pair = namedtuple("pair", "x y")
    step = ndl.capture(lambda given: pair(given.y, given.x * 2))
    for i in range(6):
        found = step(pair(inputs(i), inputs(i + 1)))
        assert type(found) is pair
        assert bits(found) == bits([inputs(i + 1), inputs(i) * 2])
    assert any(kind.recorded is not None for kind in step._kinds.values())


def test_tf32_is_part_of_the_kind():
    step = ndl.capture(lambda x: x @ ndl.ones(4, 2))
    for _ in range(5):
        step(inputs(0))
        with ndl.allow_tf32(True):
            step(inputs(0))
    assert len(step._kinds) == 2
