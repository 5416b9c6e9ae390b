"""Convolution as a differentiable op, and the laws that make its gradients convolutions.

tests/test_conv_conformance.py compares it with torch, together with the kernels, functions and layers.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import needle as ndl
from needle import kernels
from needle.ops.conv import Correlate, CorrelateTranspose, CorrelateWeight, Unfold
from tests.conv_cases import CASES
from tests.kernels.counting import count_kernels
from tests.kernels.windows import problems
from tests.ops.derivatives import assert_like_torch, by_needle
from tests.profiles import examples

CONV = (ndl.conv1d, ndl.conv2d, ndl.conv3d)
TORCH_CONV = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
close = partial(assert_allclose, rtol=1e-10, atol=1e-10)


def tensors(device, *arrays):
    return tuple(ndl.Tensor(array, device=device) for array in arrays)


# ---- derivatives and arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1d with everything", "everything", "channel multiplier", "patches with remainder"])
def test_derivatives_pass_gradcheck(device, name):
    x, weight, options = CASES[name]
    arrays = tensors(device, *(np.random.randn(*shape) for shape in (x, weight, weight[:1])))
    assert ndl.gradcheck(partial(CONV[len(x) - 3], **options), *arrays)


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_arguments_need_not_be_tensors(device, kind):
    x, w, b = np.random.randn(2, 3, 5, 5), np.random.randn(4, 3, 3, 3), np.random.randn(4)
    expected = ndl.conv2d(*tensors(device, x, w, b), padding=1).numpy()
    x, w = tensors(device, x, w)
    b = ndl.Tensor(b, device=device) if kind == "tensor" else device.array(b)
    close(ndl.conv2d(x, w, b, 1, 1, 1, 1).numpy(), expected)


def test_gradients_of_views(device):
    """The weight is a flipped and permuted view and x a broadcast one: no memory order is special."""
    x, w = np.random.randn(1, 3, 6, 6), np.random.randn(3, 3, 3, 4)

    def function(x, w):
        w = ndl.flip(ndl.permute(w, (3, 2, 0, 1)), (2, 3))
        return ndl.conv2d(ndl.broadcast_to(x, (2, 3, 6, 6)), w, padding=1, stride=2)

    def torch_function(x, w):
        return TORCH_CONV[1](x.expand(2, 3, 6, 6), w.permute(3, 2, 0, 1).flip((2, 3)), padding=1, stride=2)

    assert_like_torch(function, torch_function, [x, w], device)


# ---- the triad -------------------------------------------------------------------------------------------------------


@examples(30)
@given(problem=problems(), role=st.sampled_from(["Correlate", "CorrelateTranspose", "CorrelateWeight"]))
def test_each_op_has_the_other_two_for_gradients(device, problem, role):
    """With padding that differs before and after, which the public functions do not offer."""
    x, w, y = problem.values()
    conv = Correlate(problem.window)
    transpose = CorrelateTranspose(problem.window, problem.size)
    weight = CorrelateWeight(problem.window, problem.kernel)
    op, arguments, out_grad, gradients = {
        "Correlate": (conv, (x, w), y, lambda x, w, y: (transpose(y, w), weight(x, y))),
        "CorrelateTranspose": (transpose, (y, w), x, lambda y, w, x: (conv(x, w), weight(x, y))),
        "CorrelateWeight": (weight, (x, y), w, lambda x, y, w: (transpose(y, w), conv(x, w))),
    }[role]
    first, second = tensors(device, *arguments)
    op(first, second).backward(ndl.Tensor(out_grad, device=device))
    expected = gradients(*tensors(device, *arguments, out_grad))
    for actual, reference in zip((first.grad, second.grad), expected, strict=True):
        close(actual.numpy(), reference.numpy())


@examples(30)
@given(problem=problems())
def test_the_bias_is_a_third_input(device, problem):
    """To second order against torch, with padding that differs before and after."""
    window = problem.window
    pads = [n for pair in reversed(window.padding) for n in pair]

    def by_torch(x, w, bias):
        x = torch.nn.functional.pad(x, pads)
        return TORCH_CONV[problem.rank - 1](x, w, bias, window.stride, 0, window.dilation, window.groups)

    bias = np.random.default_rng(problem.seed).standard_normal(problem.out_channels)
    assert_like_torch(Correlate(window), by_torch, [*problem.values()[:2], bias], device)


def test_the_bias_may_change_before_backward(device):
    """No gradient reads the bias, unlike x and the weight."""
    x, w, b = tensors(device, np.random.randn(2, 3, 6), np.random.randn(4, 3, 3), np.random.randn(4))
    y = ndl.conv1d(x, w, b)
    b.cached_data.fill(9)
    y.sum().backward(retain_graph=True)
    close(b.grad.numpy(), [8, 8, 8, 8])
    for value in (x, w):
        value.cached_data.fill(9)
        with pytest.raises(RuntimeError, match="must not change in place"):
            y.sum().backward(retain_graph=True)
        y = ndl.conv1d(x, w, b)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_with_bias_is_one_node(device, rank):
    x, w, b = tensors(device, np.ones((2, 3, *(4,) * rank)), np.ones((4, 3, *(2,) * rank)), np.arange(4.0))
    y = CONV[rank - 1](x, w, b)
    assert (type(y.op), y.inputs) == (Correlate, (x, w, b))


@pytest.mark.parametrize("op", ["CorrelateTranspose", "CorrelateWeight"])
def test_the_other_two_pass_gradcheck(device, op):
    window = kernels.Window((2, 1), ((1, 0), (2, 1)), (1, 2), 2)
    x, w = np.random.randn(2, 4, 6, 5), np.random.randn(2, 2, 3, 2)
    y = np.random.randn(2, 2, *window.output(x.shape[2:], w.shape[2:]))
    if op == "CorrelateTranspose":
        assert ndl.gradcheck(CorrelateTranspose(window, x.shape[2:]), *tensors(device, y, w))
    else:
        assert ndl.gradcheck(CorrelateWeight(window, w.shape[2:]), *tensors(device, x, y))


DENSE, WIDE = (kernels.Window((1, 1), ((0, 0), (0, 0)), (d, d), g) for d, g in ((1, 1), (9, 2)))
MISFITS = {  # an op, and the shapes of its inputs: none fits
    "channels of w": (Correlate(DENSE), (2, 3, 5, 5), (4, 4, 3, 3)),
    "kernel": (Correlate(DENSE), (2, 3, 5, 5), (4, 3, 6, 1)),
    "dilation": (Correlate(WIDE), (2, 2, 9, 9), (2, 1, 2, 2)),
    "groups": (Correlate(WIDE), (2, 2, 9, 9), (3, 1, 1, 1)),
    "rank": (Correlate(DENSE), (2, 3, 5), (4, 3, 3)),
    "empty kernel": (Correlate(DENSE), (2, 3, 5, 5), (4, 3, 0, 3)),
    "size": (CorrelateTranspose(DENSE, (9, 9)), (2, 4, 3, 3), (4, 3, 3, 3)),
    "channels of y": (CorrelateTranspose(DENSE, (5, 5)), (2, 5, 3, 3), (4, 3, 3, 3)),
    "weight's kernel": (CorrelateWeight(DENSE, (4, 3)), (2, 3, 5, 5), (2, 4, 3, 3)),
    "batch": (CorrelateWeight(DENSE, (3, 3)), (2, 3, 5, 5), (3, 4, 3, 3)),
    "weight's groups": (CorrelateWeight(WIDE, (1, 1)), (2, 3, 5, 5), (2, 4, 5, 5)),
    "columns": (Unfold(DENSE, (6, 6)), (2, 3, 5, 5)),
    "NumPy's integers": (CorrelateWeight(DENSE, (np.int8(3), 3)), (2, 3, 5, 5), (2, 4, 3, 3)),
    "rank of columns": (Unfold(DENSE, (2,)), (2, 3, 5, 5)),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_op_reads_no_element_outside_of_its_inputs(device, misfit):
    """The algorithms read through strides: shapes that do not fit are refused, whoever calls."""
    op, *shapes = MISFITS[misfit]
    with pytest.raises(ValueError, match=r"^correlate: shapes must fit together, but got "):
        op(*tensors(device, *map(np.ones, shapes)))


MIXED = {  # an op, and the dtypes of its inputs: the elements of one are not where the other's would be
    "forward": (Correlate(DENSE), ("float64", (2, 3, 5, 5)), ("float32", (4, 3, 3, 3))),
    "input": (CorrelateTranspose(DENSE, (5, 5)), ("float32", (2, 4, 3, 3)), ("float64", (4, 3, 3, 3))),
    "weight": (CorrelateWeight(DENSE, (3, 3)), ("float64", (2, 3, 5, 5)), ("float16", (2, 4, 3, 3))),
}


@pytest.mark.parametrize("mixed", MIXED)
def test_an_op_reads_all_inputs_as_of_one_dtype(device, mixed):
    op, *inputs = MIXED[mixed]
    with pytest.raises(TypeError, match=r"^correlate: arrays must have one dtype, but got float\d\d and float\d\d$"):
        op(*(ndl.Tensor(np.ones(shape, dtype), device=device, requires_grad=False) for dtype, shape in inputs))


def test_sizes_of_numpys_integers_do_not_overflow_where_they_are_cached():
    window, kernel, size = kernels.Window((1,), ((99, 98),), (251,)), (np.uint8(2),), (np.uint8(250),)
    assert (window.extent(kernel), window.padded(size), window.output(size, kernel)) == ((252,), (447,), (196,))
    assert (window.input(size, kernel), window.interior(size)[1].stop) == ((304,), 349)
    assert window.without_dead_taps(size, kernel) == ((slice(0, 2),), window)
    assert all(type(n) is int for n in (*window.extent((2,)), *window.padded((250,)), *window.input((250,), (2,))))


@pytest.mark.parametrize(
    "options",
    [
        ((np.int8(100),), ((0, 0),), (1,)),
        ((1,), ((0, np.uint8(9)),), (1,)),
        ((1,), ((0, 0),), (1.5,)),
        ((1,), ((0, 0),), (1,), True),
    ],
)
def test_a_window_is_of_integers_that_do_not_overflow(options):
    with pytest.raises(TypeError, match=r"^Window: sizes must be of Python's type int, but got "):
        kernels.Window(*options)


@pytest.mark.parametrize(
    "options",
    [
        ((0,), ((0, 0),), (1,)),
        ((1,), ((0, 0),), (-1,)),
        ((1,), ((0, -1),), (1,)),
        ((1,), ((0, 0),), (1,), 0),
        ((1, 1), ((0, 0),), (1, 1)),
    ],
)
def test_a_window_does_not_leave_its_input(options):
    with pytest.raises(ValueError, match=r"^Window: sizes must be positive, of one rank, and padding not negative, "):
        kernels.Window(*options)


def test_an_op_is_its_parameters():
    window = kernels.Window((1,), ((0, 0),), (1,))
    same, other = (kernels.Window((stride,), ((0, 0),), (1,)) for stride in (1, 2))
    assert Correlate(window) == Correlate(same) != Correlate(other)
    assert CorrelateTranspose(window, (5,)) == CorrelateTranspose(window, (5,)) != CorrelateTranspose(window, (6,))
    assert CorrelateWeight(window, (3,)) == CorrelateWeight(window, (3,)) != CorrelateTranspose(window, (3,))
    assert "stride=(1,)" in repr(Correlate(window))


# ---- backward is convolution -----------------------------------------------------------------------------------------


def input_gradient_by_convolution(out_grad, w, problem):
    """The stride-1 convolution of the dilated and padded `out_grad` with the flipped, channel-swapped kernel."""
    window, rank = problem.window, problem.rank
    groups, per_group = window.groups, w.shape[1]
    axes = tuple(range(2, 2 + rank))
    pairs = [(0, 0), (0, 0)]
    for axis, s, (before, _), d in zip(axes, window.stride, window.padding, window.dilation, strict=True):
        out_grad = ndl.dilate(out_grad, axis, s - 1)
        reach = d * (w.shape[axis] - 1)
        first = reach - before  # negative: the first outputs read only padding
        pairs.append((first, problem.size[axis - 2] + reach - out_grad.shape[axis] - first))
    swapped = ndl.reshape(w, (groups, -1, per_group, *w.shape[2:]))
    swapped = ndl.permute(swapped, (0, 2, 1, *range(3, 3 + rank)))
    swapped = ndl.flip(ndl.reshape(swapped, (groups * per_group, -1, *w.shape[2:])), axes)
    options = {"dilation": window.dilation, "groups": groups}
    return CONV[rank - 1](ndl.pad(out_grad, pairs), swapped, **options)


def weight_gradient_by_convolution(x, out_grad, problem):
    """The convolution of both, with batch and channels exchanged and stride and dilation exchanged, cut to the kernel.

    With groups the images of all groups stand side by side as channels: (N, G·C, *S) -> (C, G·N, *S).
    """
    window, rank = problem.window, problem.rank
    groups, batch = window.groups, problem.batch
    x = ndl.pad(x, [(0, 0), (0, 0), *window.padding])
    images = ndl.permute(ndl.reshape(x, (batch, groups, -1, *x.shape[2:])), (2, 1, 0, *range(3, 3 + rank)))
    images = ndl.reshape(images, (-1, groups * batch, *x.shape[2:]))
    kernel = ndl.permute(out_grad, (1, 0, *range(2, 2 + rank)))
    options = {"stride": window.dilation, "dilation": window.stride, "groups": groups}
    w = ndl.permute(CONV[rank - 1](images, kernel, **options), (1, 0, *range(2, 2 + rank)))
    surplus = [(0, k - n) for k, n in zip(problem.kernel, w.shape[2:], strict=True)]  # elements left over
    return ndl.pad(w, [(0, 0), (0, 0), *surplus])


def assert_same_to_second_order(function, reference, arrays, device):
    """Both functions, their first and their second derivatives agree."""
    draws = np.random.default_rng(1)
    shape = reference(*tensors(device, *arrays)).shape
    v, *us = (draws.standard_normal(s) for s in (shape, *(a.shape for a in arrays)))
    actual, expected = (by_needle(f, arrays, v, us, device) for f in (function, reference))
    for order, references in zip(actual, expected, strict=True):
        for result, expected_result in zip(order, references, strict=True):
            close(result, expected_result)


@examples(30)
@given(problem=problems())
def test_the_input_gradient_is_a_convolution(device, problem):
    x, w, y = problem.values()
    assert_same_to_second_order(
        lambda y, w: input_gradient_by_convolution(y, w, problem),
        CorrelateTranspose(problem.window, problem.size),
        [y, w],
        device,
    )
    leaf, w, y = tensors(device, x, w, y)
    Correlate(problem.window)(leaf, w).backward(y)
    close(input_gradient_by_convolution(y, w, problem).numpy(), leaf.grad.numpy())


@examples(30)
@given(problem=problems())
def test_the_weight_gradient_is_a_convolution(device, problem):
    x, w, y = problem.values()
    assert_same_to_second_order(
        lambda x, y: weight_gradient_by_convolution(x, y, problem),
        CorrelateWeight(problem.window, problem.kernel),
        [x, y],
        device,
    )
    x, leaf, y = tensors(device, x, w, y)
    Correlate(problem.window)(x, leaf).backward(y)
    close(weight_gradient_by_convolution(x, y, problem).numpy(), leaf.grad.numpy())


# ---- the course's convolution ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((2, 6, 5, 3), (3, 3, 3, 4), {}),
        ((2, 6, 5, 3), (3, 3, 3, 4), {"padding": 0}),
        ((2, 7, 6, 3), (3, 3, 3, 4), {"stride": 2, "padding": 1}),
        ((2, 6, 6, 3), (1, 1, 3, 4), {"padding": 0}),
        ((1, 8, 8, 2), (2, 2, 2, 5), {"stride": 2, "padding": 0}),
        ((2, 5, 5, 1), (5, 5, 1, 2), {"padding": 2}),
    ],
)
def test_conv_is_conv2d_with_channels_last(device, x, weight, options):
    arrays = [np.random.randn(*shape) for shape in (x, weight)]

    def reference(x, weight):
        y = ndl.conv2d(ndl.permute(x, (0, 3, 1, 2)), ndl.permute(weight, (3, 2, 0, 1)), **({"padding": 1} | options))
        return ndl.permute(y, (0, 2, 3, 1))

    def by_torch(x, weight):
        y = TORCH_CONV[1](x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), **({"padding": 1} | options))
        return y.permute(0, 2, 3, 1)

    assert_same_to_second_order(partial(ndl.conv, **options), reference, arrays, device)
    assert_like_torch(partial(ndl.conv, **options), by_torch, arrays, device)


def test_conv_takes_stride_and_padding_in_this_order(device):
    x, weight = tensors(device, np.random.randn(1, 7, 7, 2), np.random.randn(3, 3, 2, 2))
    close(ndl.conv(x, weight, 2, 0).numpy(), ndl.conv(x, weight, stride=2, padding=0).numpy())
    assert ndl.conv(x, weight).shape == (1, 7, 7, 2)


# ---- skipped computations --------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The number of runs of each of the three kernels, and of the sum of the bias gradient."""
    return count_kernels(monkeypatch, "correlate", "correlate_transpose", "correlate_weight", "sums")


def leaves(device, *, x, w, b):
    shapes = ((2, 3, 6, 6), (4, 3, 3, 3), (4,))
    return [
        ndl.Tensor(np.random.randn(*shape), device=device, requires_grad=grad)
        for shape, grad in zip(shapes, (x, w, b), strict=True)
    ]


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize(
    ("needed", "transposes", "weights"),
    [
        ({"x": False, "w": True, "b": True}, 0, 1),
        ({"x": True, "w": False, "b": True}, 1, 0),
        ({"x": True, "w": True, "b": False}, 1, 1),
        ({"x": False, "w": False, "b": True}, 0, 0),
    ],
)
def test_only_gradients_that_are_required_are_computed(device, calls, needed, transposes, weights, create_graph):
    tensors = leaves(device, **needed)
    ndl.conv2d(*tensors, padding=1).backward(create_graph=create_graph)
    sums = int(needed["b"])
    assert calls == {"correlate": 1, "correlate_transpose": transposes, "correlate_weight": weights, "sums": sums}
    assert [x.grad is not None for x in tensors] == list(needed.values())


def test_the_second_order_computes_only_required_gradients(device, calls):
    x, w, _ = leaves(device, x=False, w=True, b=False)
    ndl.conv2d(x, w).backward(ndl.ones(2, 4, 4, 4, device=device, dtype="float64"))
    assert not w.grad.requires_grad  # the derivative in w does not depend on w
    calls |= dict.fromkeys(calls, 0)
    x, w, _ = leaves(device, x=True, w=False, b=False)
    out_grad = ndl.Tensor(np.ones((2, 4, 4, 4)), device=device)
    ndl.conv2d(x, w).backward(out_grad)
    x.grad.sum().backward()
    assert calls == {"correlate": 2, "correlate_transpose": 1, "correlate_weight": 0, "sums": 1}
    assert out_grad.grad.shape == (2, 4, 4, 4)


def test_nothing_is_recorded_for_constants_or_under_no_grad(device, calls):
    constants = leaves(device, x=False, w=False, b=False)
    assert ndl.conv2d(*constants).op is None
    with ndl.no_grad():
        assert ndl.conv2d(*leaves(device, x=True, w=True, b=True)).op is None
    assert calls == {"correlate": 2, "correlate_transpose": 0, "correlate_weight": 0, "sums": 0}
