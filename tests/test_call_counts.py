"""The path from a call to its kernel is short: needle's Python calls, counted by `sys.setprofile`."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle.nn import functional

SOURCES = str(Path(ndl.__file__).resolve().parent)


def calls_of(function):
    """The names of needle's functions that a call runs, in order; comprehensions count as calls."""
    names = []

    def profile(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(SOURCES):
            names.append(f"{Path(frame.f_code.co_filename).relative_to(SOURCES)}:{frame.f_code.co_name}")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names


@pytest.fixture
def operands():
    draws = np.random.default_rng(0)
    shapes = {"x": (8, 3, 12, 12), "weight": (4, 3, 3, 3), "bias": (4,)}
    arrays = {name: draws.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    return [ndl.Tensor(array, requires_grad=name != "x") for name, array in arrays.items()]


def test_the_counter_counts():
    def twice():
        ndl.relu(tensor)
        ndl.relu(tensor)

    tensor = ndl.ones(2)
    ndl.relu(tensor)
    once = calls_of(lambda: ndl.relu(tensor))
    assert once[0] == str(Path("ops/elementwise.py:relu"))
    assert calls_of(twice) == 2 * once


def test_a_convolution_takes_at_most_70_calls(operands):
    functional.conv2d(*operands, padding=1)  # fills the caches of geometry and of the choice of algorithms
    assert len(calls_of(lambda: functional.conv2d(*operands, padding=1))) <= 70


def test_a_convolution_of_one_image_takes_at_most_36_calls(operands):
    operands[0] = ndl.Tensor(operands[0].numpy()[:1], requires_grad=False)
    functional.conv2d(*operands, padding=1)
    assert len(calls_of(lambda: functional.conv2d(*operands, padding=1))) <= 36


def test_max_pooling_takes_at_most_36_calls(operands):
    functional.max_pool2d(operands[0], 2)
    assert len(calls_of(lambda: functional.max_pool2d(operands[0], 2))) <= 36


def test_its_backward_takes_at_most_112_calls(operands):
    for _ in range(2):
        loss = functional.conv2d(*operands, padding=1).sum()
        calls = calls_of(lambda loss=loss: loss.backward(create_graph=False))
    assert operands[1].grad is not None
    assert len(calls) <= 112  # 96 if BLAS has one thread, so that its number need not be limited


def test_batch_norm_in_training_takes_at_most_90_calls(operands):
    layer = ndl.nn.BatchNorm2d(3)
    layer(operands[0])
    assert len(calls_of(lambda: layer(operands[0]))) <= 90


def test_a_module_without_hooks_only_calls_forward():
    layer = ndl.nn.Identity()
    layer.register_forward_hook(print).remove()
    names = calls_of(lambda: layer(1))
    assert names == [str(Path("nn/hooks.py:__call__")), str(Path("nn/container.py:forward"))]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_of_ten_small_parameters_takes_few_calls(groups):
    """10 of them count versions and 20 ask for shapes or arrays; each further group takes 25 more."""
    params = [ndl.ones(5, requires_grad=True) for _ in range(10)]
    for parameter in params:
        parameter.grad = ndl.ones(5)
    optimizer = ndl.optim.Adam([{"params": params[i::groups]} for i in range(groups)])
    for _ in range(2):
        optimizer.step()
    assert len(calls_of(optimizer.step)) <= 50 + 25 * groups


@pytest.mark.parametrize(("name", "most"), [("relu", 8), ("exp", 8), ("sum", 16), ("reshape", 10)])
def test_methods_take_few_calls(name, most):
    x = ndl.ones(2, 3, requires_grad=True)
    arguments = [(6,)] if name == "reshape" else []
    getattr(x, name)(*arguments)
    assert len(calls_of(lambda: getattr(x, name)(*arguments))) <= most


@pytest.mark.parametrize(
    ("name", "options", "tensors"),
    [
        ("batch_norm", {"running_mean": None, "running_var": None, "training": True}, 3),
        ("group_norm", {"num_groups": 3}, 3),
        ("layer_norm", {"normalized_shape": (3, 2, 2)}, 1),
        ("leaky_relu", {}, 1),
        ("max_pool2d", {"kernel_size": (2, 2)}, 1),
        ("avg_pool2d", {"kernel_size": 2}, 1),
        ("adaptive_avg_pool2d", {"output_size": 1}, 1),
        ("mse_loss", {"target": True}, 2),
        ("dropout", {}, 1),
    ],
)
def test_each_argument_is_coerced_once(name, options, tensors):
    """No tensor is coerced or checked for its dtype twice."""
    x = ndl.ones(4, 3, 2, 2)
    options = {key: x if key == "target" else value for key, value in options.items()}
    if tensors == 3:
        options |= {"weight": ndl.ones(3), "bias": ndl.zeros(3)}
    call = partial(getattr(functional, name), x, **options)
    call()
    names = calls_of(call)
    assert names.count(str(Path("ops/operand.py:tensor"))) <= tensors
    assert names.count("check.py:floats") <= tensors
    assert names.count("check.py:sizes") <= 1
    assert not {"check.py:axes", "check.py:axis"} & {*names}
