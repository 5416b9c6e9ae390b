"""Convolution, its transpose and its columns as functions: against torch, by loops, and by algebraic identities."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import kernels
from needle.kernels import Window
from needle.nn import functional
from tests.kernels.counting import count_kernels
from tests.kernels.windows import LARGEST, Problem, problems
from tests.ops.derivatives import assert_like_torch, by_needle

CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
TORCH_CONV = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
TORCH_TRANSPOSED = (
    torch.nn.functional.conv_transpose1d,
    torch.nn.functional.conv_transpose2d,
    torch.nn.functional.conv_transpose3d,
)
torch.set_num_threads(1)  # the arrays are too small for threads
close = partial(assert_allclose, rtol=1e-10, atol=1e-10)
seeds = st.integers(0, 2**32 - 1)


def tensors(device, *arrays):
    return tuple(ndl.Tensor(array, device=device) for array in arrays)


def assert_same_to_second_order(function, reference, arrays, device):
    """Assert that two functions of needle agree, with their first and second derivatives."""
    draws = np.random.default_rng(1)
    shape = reference(*tensors(device, *arrays)).shape
    v, *us = (draws.standard_normal(s) for s in (shape, *(array.shape for array in arrays)))
    actual, expected = (by_needle(f, arrays, v, us, device) for f in (function, reference))
    for order, references in zip(actual, expected, strict=True):
        for result, desired in zip(order, references, strict=True):
            assert result.shape == desired.shape
            close(result, desired)


@st.composite
def transposes(draw, *, symmetric=True):
    """A Problem for the transpose, y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S), and its output padding.

    Padding may leave a single element of the output, which may consist of output padding only.
    """
    rank = draw(st.integers(1, 3))
    sizes, steps = st.integers(1, LARGEST[rank]), st.integers(1, 3)
    output, kernel, stride, dilation, padding, size, extra = [], [], [], [], [], [], []
    for _ in range(rank):
        p, k, s, d = draw(sizes), draw(sizes), draw(steps), draw(steps)
        more = draw(st.integers(0, max(s, d) - 1))
        most = s * (p - 1) + d * (k - 1) + more  # padding that leaves one element
        before = draw(st.integers(0, most // 2 if symmetric else most))
        after = before if symmetric else draw(st.integers(0, most - before))
        for values, value in zip(
            (output, kernel, stride, dilation, padding, size, extra),
            (p, k, s, d, (before, after), most + 1 - before - after, more),
            strict=True,
        ):
            values.append(value)
    groups = draw(st.integers(1, 3))
    problem = Problem(
        Window(tuple(stride), tuple(padding), tuple(dilation), groups),
        draw(st.integers(0, 3)),
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        tuple(size),
        tuple(kernel),
        tuple(output),
        draw(seeds),
    )
    return problem, tuple(extra)


def transposed(problem, extra, functions):
    """The transposed convolution of a Problem, by needle or torch."""
    return partial(functions[problem.rank - 1], **problem.options, output_padding=extra)


# ---- convolution -----------------------------------------------------------------------------------------------------


def padded_by_torch(problem):
    """torch's convolution, with different padding before and after."""
    window = problem.window
    flat = [n for pair in reversed(window.padding) for n in pair]
    options = {"stride": window.stride, "dilation": window.dilation, "groups": window.groups}
    conv = TORCH_CONV[problem.rank - 1]
    return lambda x, *others: conv(torch.nn.functional.pad(x, flat), *others, **options)


@given(problem=problems(batches=(0, 3)), with_bias=st.booleans())
def test_conv_with_padding_by_sides_matches_torch(device, problem, with_bias):
    x, w, _ = problem.values()
    bias = [np.arange(1.0, 1 + problem.out_channels)] * with_bias
    conv = partial(CONV[problem.rank - 1], **(problem.options | {"padding": problem.window.padding}))
    assert_like_torch(conv, padded_by_torch(problem), [x, w, *bias], device)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("functions", [CONV, TRANSPOSED], ids=["conv", "conv_transpose"])
def test_one_padding_has_many_forms(device, functions, rank):
    function = functions[rank - 1]
    x, w = tensors(device, np.random.randn(2, 3, *(5,) * rank), np.random.randn(3, 3, *(3,) * rank))
    expected = function(x, w, None, 1, 1).numpy()
    forms = [(1,) * rank, [1] * rank, ((1, 1),) * rank, [[1, 1]] * rank, np.int64(1), torch.Size([1] * rank)]
    for padding in forms:
        assert_array_equal(function(x, w, padding=padding).numpy(), expected)
    one_side = function(x, w, padding=((1, 0),) * rank)
    assert one_side.shape[2:] == tuple(n + (1 if functions is TRANSPOSED else -1) for n in expected.shape[2:])


def test_a_pair_of_numbers_is_one_for_each_axis_and_a_pair_of_pairs_is_before_and_after(device):
    x, w = ndl.ones(1, 1, 5, 5, device=device), ndl.ones(1, 1, 1, 1, device=device)
    assert functional.conv2d(x, w, padding=(1, 2)).shape == (1, 1, 7, 9)
    assert functional.conv2d(x, w, padding=((1, 2), (0, 0))).shape == (1, 1, 8, 5)
    assert functional.conv2d(x, w, padding=((1, 2), (3, 4))).shape == (1, 1, 8, 12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(problem=problems(batches=(0, 3)), name=st.sampled_from(["same", "valid"]))
def test_named_padding_matches_torch(device, problem, name):
    window = problem.window
    size = window.padded(problem.size) if name == "valid" else problem.size
    x = np.random.default_rng(problem.seed).standard_normal((problem.batch, problem.channels, *size))
    _, w, _ = problem.values()
    stride = window.stride if name == "valid" else 1
    options = {"stride": stride, "padding": name, "dilation": window.dilation, "groups": window.groups}
    rank = problem.rank - 1
    assert_like_torch(partial(CONV[rank], **options), partial(TORCH_CONV[rank], **options), [x, w], device)
    if name == "same":
        assert CONV[rank](*tensors(device, x, w), **options).shape[2:] == size


@given(problem=problems(batches=(1, 1)))
def test_same_padding_matches_tensorflow(device, problem):
    """ceil(S / stride) outputs; padding by TensorFlow's documented formulas, the odd element after."""
    window = problem.window
    pairs = functional.same_padding(problem.size, problem.kernel, window.stride, window.dilation)
    for n, k, s, d, pair in zip(problem.size, problem.kernel, window.stride, window.dilation, pairs, strict=True):
        extent = d * (k - 1) + 1
        total = max(extent - s, 0) if n % s == 0 else max(extent - n % s, 0)
        assert pair == (total // 2, total - total // 2)
    x, w, _ = problem.values()
    y = CONV[problem.rank - 1](*tensors(device, x, w), **(problem.options | {"padding": pairs}))
    assert y.shape[2:] == tuple(math.ceil(n / s) for n, s in zip(problem.size, window.stride, strict=True))


def test_same_padding_takes_one_number_for_all_axes():
    assert functional.same_padding((5, 6), 3) == ((1, 1), (1, 1))
    assert functional.same_padding([5, 6, 7], 4, 2) == ((1, 2), (1, 1), (1, 2))
    assert functional.same_padding((9,), (3,), (2,), (4,)) == ((4, 4),)
    assert functional.same_padding((9,), 1, 3) == ((0, 0),)


# ---- transposed convolution ------------------------------------------------------------------------------------------


@given(drawn=transposes(), with_bias=st.booleans())
def test_the_transpose_matches_torch(device, drawn, with_bias):
    problem, extra = drawn
    _, w, y = problem.values()
    arrays = [y, w, *[np.arange(1.0, 1 + problem.channels)] * with_bias]
    function, reference = transposed(problem, extra, TRANSPOSED), transposed(problem, extra, TORCH_TRANSPOSED)
    assert_like_torch(function, reference, arrays, device)


@given(drawn=transposes(symmetric=False))
def test_the_transpose_scatters(device, drawn):
    """By definition: each input element times the kernel is added into the output."""
    problem, extra = drawn
    _, w, y = problem.values()
    window = problem.window
    per_group, out_per_group = problem.channels // window.groups, problem.out_channels // window.groups
    expected = np.zeros(problem.x_shape)
    for p, k in itertools.product(np.ndindex(problem.output), np.ndindex(problem.kernel)):
        axes = zip(p, k, window.stride, window.dilation, window.padding, strict=True)
        place = [s * i + d * j - before for i, j, s, d, (before, _) in axes]
        if all(0 <= i < n for i, n in zip(place, problem.size, strict=True)):
            for o, c in np.ndindex(w.shape[:2]):
                channel = o // out_per_group * per_group + c
                expected[(slice(None), channel, *place)] += y[(slice(None), o, *p)] * w[(o, c, *k)]
    options = problem.options | {"padding": window.padding, "output_padding": extra}
    actual = TRANSPOSED[problem.rank - 1](*tensors(device, y, w), **options)
    assert actual.shape == problem.x_shape
    close(actual.numpy(), expected)


@given(drawn=transposes(symmetric=False))
def test_the_transpose_dilates_flips_and_convolves(device, drawn):
    problem, extra = drawn
    _, w, y = problem.values()
    window, rank = problem.window, problem.rank
    groups, axes = window.groups, tuple(range(2, 2 + rank))
    options = problem.options | {"padding": window.padding, "output_padding": extra}

    def by_convolution(y, w):
        pairs = [(0, 0), (0, 0)]
        for axis, s, d, (before, _), n in zip(
            axes, window.stride, window.dilation, window.padding, problem.size, strict=True
        ):
            y = ndl.dilate(y, axis, s - 1)
            reach = d * (w.shape[axis] - 1)
            pairs.append((reach - before, n + before - y.shape[axis]))
        turned = ndl.flip(ndl.reshape(w, (groups, -1, *w.shape[1:])), tuple(range(3, 3 + rank)))
        turned = ndl.permute(turned, (0, 2, 1, *range(3, 3 + rank)))
        turned = ndl.reshape(turned, (problem.channels, -1, *w.shape[2:]))
        y = ndl.pad(y, [(max(before, 0), max(after, 0)) for before, after in pairs])
        y = ndl.pad(y, [(min(before, 0), min(after, 0)) for before, after in pairs])  # may crop more than y's size
        return CONV[rank - 1](y, turned, dilation=window.dilation, groups=groups)

    assert_same_to_second_order(partial(TRANSPOSED[rank - 1], **options), by_convolution, [y, w], device)


@given(problem=problems(symmetric=True, batches=(0, 3)))
def test_the_transpose_is_the_gradient_of_the_convolution(device, problem):
    """`output_padding` selects the size that the convolution read, among those with the same output."""
    x, w, y = tensors(device, *problem.values())
    CONV[problem.rank - 1](x, w, **problem.options).backward(y)
    window = problem.window
    least = [
        s * (p - 1) - 2 * before + d * (k - 1) + 1
        for s, p, (before, _), d, k in zip(
            window.stride, problem.output, window.padding, window.dilation, problem.kernel, strict=True
        )
    ]
    extra = tuple(n - m for n, m in zip(problem.size, least, strict=True))
    actual = TRANSPOSED[problem.rank - 1](y, w, **problem.options, output_padding=extra)
    close(actual.numpy(), x.grad.numpy())


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"padding": 2, "output_padding": 4, "stride": 5}, 1),  # the output consists of output padding only
        ({"padding": 1, "output_padding": 3, "stride": 4}, 2),
        ({"padding": 1, "output_padding": 2, "stride": 3}, 1),
        ({"padding": ((3, 0),), "output_padding": 4, "stride": 5}, 2),
    ],
)
def test_output_padding_alone_is_zeros(device, options, size):
    x, w, bias = tensors(device, np.ones((2, 3, 1)), np.ones((3, 4, 1)), np.arange(4.0))
    y = functional.conv_transpose1d(x, w, bias, **options)
    assert_array_equal(y.numpy(), np.broadcast_to(np.arange(4.0)[:, None], (2, 4, size)))
    y.sum().backward()
    assert not x.grad.numpy().any()
    assert not w.grad.numpy().any()
    assert_array_equal(bias.grad.numpy(), np.full(4, 2.0 * size))


# ---- columns ---------------------------------------------------------------------------------------------------------


def columns_of(problem, *, sides=False):
    """The options of unfold and fold, with padding per side on request."""
    window = problem.window
    padding = window.padding if sides else problem.options["padding"]
    return {"kernel_size": problem.kernel, "dilation": window.dilation, "padding": padding, "stride": window.stride}


def columns_shape(problem):
    return (problem.batch, problem.channels * math.prod(problem.kernel), math.prod(problem.output))


def in_two_axes(problem):
    """The last two spatial axes of a Problem; a single one gets an axis of size 1 in front."""
    window, size, kernel, output = problem.window, problem.size, problem.kernel, problem.output
    lead = (1,) * (2 - problem.rank)
    window = Window(
        (*lead, *window.stride)[-2:],
        (*((0, 0) for _ in lead), *window.padding)[-2:],
        (*lead, *window.dilation)[-2:],
        window.groups,
    )
    size, kernel, output = ((*lead, *sizes)[-2:] for sizes in (size, kernel, output))
    return replace(problem, window=window, size=size, kernel=kernel, output=output)


@given(problem=problems(symmetric=True, batches=(0, 3)).map(in_two_axes))
def test_unfold_and_fold_match_torch(device, problem):
    options, (x, _, _) = columns_of(problem), problem.values()
    columns = np.random.default_rng(problem.seed).standard_normal(columns_shape(problem))
    for name, array in (
        ("unfold", x),
        ("fold", columns),
    ):
        size = {"output_size": problem.size} if name == "fold" else {}
        function, reference = (partial(getattr(m, name), **size, **options) for m in (functional, torch.nn.functional))
        assert_like_torch(function, reference, [array], device)


@given(problem=problems(batches=(0, 3)))
def test_unfold_reads_windows(device, problem):
    """By loops: rows run over channels, then kernel elements; columns over outputs; all row-major."""
    x, _, _ = problem.values()
    window, (batch, rows, positions) = problem.window, columns_shape(problem)
    padded = np.pad(x, [(0, 0), (0, 0), *window.padding])
    expected = np.zeros((batch, rows, positions))
    for row, (c, *k) in enumerate(np.ndindex(problem.channels, *problem.kernel)):
        for column, p in enumerate(np.ndindex(problem.output)):
            place = [s * i + d * j for i, j, s, d in zip(p, k, window.stride, window.dilation, strict=True)]
            expected[:, row, column] = padded[(slice(None), c, *place)]
    (x,) = tensors(device, x)
    assert_array_equal(functional.unfold(x, **columns_of(problem, sides=True)).numpy(), expected)


@given(problem=problems(batches=(0, 3)))
def test_fold_is_the_transpose_of_unfold(device, problem):
    """⟨unfold(x), c⟩ = ⟨x, fold(c)⟩, and fold(unfold(x)) counts the windows over each element."""
    options, (x, _, _) = columns_of(problem, sides=True), problem.values()
    columns = np.random.default_rng(problem.seed).standard_normal(columns_shape(problem))
    x, columns = tensors(device, x, columns)
    unfolded, folded = functional.unfold(x, **options), functional.fold(columns, problem.size, **options)
    assert (unfolded.shape, folded.shape) == (columns.shape, x.shape)
    close(float((unfolded * columns).sum().item()), float((x * folded).sum().item()))

    counts = np.zeros(problem.size)
    window = problem.window
    for p, k in itertools.product(np.ndindex(problem.output), np.ndindex(problem.kernel)):
        axes = zip(p, k, window.stride, window.dilation, window.padding, strict=True)
        place = tuple(s * i + d * j - before for i, j, s, d, (before, _) in axes)
        if all(0 <= i < n for i, n in zip(place, problem.size, strict=True)):
            counts[place] += 1
    close(functional.fold(unfolded, problem.size, **options).numpy(), x.numpy() * counts)


@given(problem=problems())
def test_unfold_and_fold_are_gradients_of_each_other(device, problem):
    options, (x, _, _) = columns_of(problem, sides=True), problem.values()
    unfold = partial(functional.unfold, **options)
    fold = partial(functional.fold, output_size=problem.size, **options)
    columns = np.random.default_rng(problem.seed).standard_normal(columns_shape(problem))
    for function, transpose, array, out_grad in ((unfold, fold, x, columns), (fold, unfold, columns, x)):
        x_leaf, out_grad = tensors(device, array, out_grad)
        function(x_leaf).backward(out_grad)
        assert_array_equal(x_leaf.grad.numpy(), transpose(out_grad).numpy())
        x_leaf.grad.sum().backward()
        assert_array_equal(out_grad.grad.numpy(), function(ndl.ones_like(x_leaf)).numpy())


@given(problem=problems(batches=(0, 3)))
def test_convolution_is_a_matrix_product_with_the_columns(device, problem):
    """Convolution as unfold and matmul in the graph, with their derivatives."""
    window, (x, w, _) = problem.window, problem.values()
    groups = window.groups

    def by_columns(x, w):
        columns = functional.unfold(x, **columns_of(problem, sides=True))
        columns = ndl.reshape(columns, (problem.batch, groups, columns.shape[1] // groups, columns.shape[2]))
        matrix = ndl.reshape(w, (groups, w.shape[0] // groups, columns.shape[2]))
        return ndl.reshape(matrix @ columns, problem.y_shape)

    conv = partial(CONV[problem.rank - 1], **(problem.options | {"padding": window.padding}))
    assert_same_to_second_order(conv, by_columns, [x, w], device)


def test_one_integer_stands_for_two_axes(device):
    (x,) = tensors(device, np.random.randn(2, 3, 6, 5))
    columns = functional.unfold(x, 3)
    assert_array_equal(columns.numpy(), functional.unfold(x, (3, 3)).numpy())
    assert_array_equal(columns.numpy(), functional.unfold(x, np.int64(3)).numpy())
    (columns,) = tensors(device, np.random.randn(2, 27, 16))
    assert_array_equal(functional.fold(columns, 6, 3).numpy(), functional.fold(columns, (6, 6), [3, 3]).numpy())


# ---- every function of the family ------------------------------------------------------------------------------------

# name: shapes of the arguments, options. The first word of a name is the function.
FAMILY = {
    "conv1d": ([(2, 3, 7), (4, 3, 3), (4,)], {"padding": 1}),
    "conv1d of all options": (
        [(2, 4, 9), (6, 2, 3), (6,)],
        {"stride": 2, "padding": 2, "dilation": 2, "groups": 2},
    ),
    "conv2d": ([(2, 3, 5, 4), (4, 3, 3, 3), (4,)], {"padding": 1}),
    "conv2d of all options": (
        [(2, 4, 6, 5), (4, 2, 3, 2), (4,)],
        {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "groups": 2},
    ),
    "conv2d depthwise": ([(2, 3, 5, 4), (6, 1, 3, 3), (6,)], {"padding": 1, "groups": 3}),
    "conv2d of kernel 1": ([(2, 3, 5, 4), (4, 3, 1, 1), (4,)], {}),
    "conv3d": ([(2, 2, 3, 4, 3), (3, 2, 2, 3, 2), (3,)], {"stride": (1, 2, 1), "padding": 1}),
    "conv3d of all options": (
        [(2, 2, 4, 3, 4), (4, 1, 2, 2, 2), (4,)],
        {"stride": 2, "padding": (1, 0, 1), "dilation": (1, 2, 1), "groups": 2},
    ),
    "conv_transpose1d": ([(2, 3, 5), (3, 4, 3), (4,)], {"padding": 1}),
    "conv_transpose1d of all options": (
        [(2, 4, 4), (4, 3, 3), (6,)],
        {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2, "dilation": 2},
    ),
    "conv_transpose2d": ([(2, 3, 4, 3), (3, 2, 3, 3), (2,)], {"padding": 1}),
    "conv_transpose2d of all options": (
        [(2, 4, 3, 3), (4, 1, 2, 3), (2,)],
        {"stride": (2, 1), "padding": (0, 2), "output_padding": (1, 1), "groups": 2, "dilation": (1, 2)},
    ),
    "conv_transpose3d": ([(2, 2, 2, 3, 2), (2, 2, 2, 2, 3), (2,)], {"stride": 2, "padding": (0, 1, 0)}),
    "conv_transpose3d of all options": (
        [(1, 2, 2, 2, 3), (2, 2, 2, 2, 2), (4,)],
        {"stride": (1, 2, 3), "padding": 1, "output_padding": (0, 1, 2), "groups": 2, "dilation": (2, 1, 1)},
    ),
    "unfold": ([(2, 3, 5, 4)], {"kernel_size": 3}),
    "unfold of all options": (
        [(2, 3, 5, 6)],
        {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (0, 1), "stride": (1, 2)},
    ),
    "fold": ([(2, 12, 12)], {"output_size": (5, 4), "kernel_size": 2}),
    "fold of all options": (
        [(2, 12, 9)],
        {"output_size": (5, 6), "kernel_size": (2, 3), "dilation": (2, 1), "padding": (0, 1), "stride": (1, 2)},
    ),
}


def family(name, module=functional):
    """A function of the family with its options bound."""
    return partial(getattr(module, name.split()[0]), **FAMILY[name][1])


def family_values(name, dtype="float64"):
    return [np.asarray(np.random.randn(*shape)).astype(dtype) for shape in FAMILY[name][0]]


def test_the_table_has_every_function():
    here = {getattr(functional, name) for name in functional.__all__}
    here = {f.__name__ for f in here if f.__module__ == functional.conv2d.__module__}
    assert here == {name.split()[0] for name in FAMILY} | {"same_padding"}


@pytest.mark.parametrize("name", FAMILY)
def test_derivatives_pass_gradcheck(device, name):
    """First and second order, of each argument and together; the bias may be missing."""
    arrays = family_values(name)
    assert ndl.gradcheck(family(name), *tensors(device, *arrays), order=2)
    if len(arrays) == 3:
        assert ndl.gradcheck(family(name), *tensors(device, *arrays[:2]), order=2)
    for i in range(len(arrays)):
        alone = [ndl.Tensor(array, device=device, requires_grad=i == j) for j, array in enumerate(arrays)]
        assert ndl.gradcheck(family(name), *alone, order=2)


@pytest.mark.parametrize(("by", "at"), [("conv2d", 0), ("conv_transpose2d", 1)])
def test_differences_find_a_wrong_derivative(device, monkeypatch, by, at):
    """An error of 0.1 % in one kernel is detected."""
    exact = kernels.correlate_weight
    monkeypatch.setattr(kernels, "correlate_weight", lambda *arguments: exact(*arguments) * 1.001)
    with pytest.raises(AssertionError, match="wrong derivative of order 1 in input 1"):
        ndl.gradcheck(family(by), *tensors(device, *family_values(by)))


@pytest.mark.parametrize("name", FAMILY)
def test_without_a_batch_axis(device, name):
    x, *others = family_values(name)
    x, torch_function = x[0], family(name, torch.nn.functional)
    assert_like_torch(family(name), torch_function, [x, *others], device)
    batched = family(name)(*tensors(device, x[None], *others)).numpy()
    assert_array_equal(family(name)(*tensors(device, x, *others)).numpy(), batched[0])


@pytest.mark.parametrize("name", FAMILY)
def test_an_empty_batch(device, name):
    x, *others = family_values(name)
    assert_like_torch(family(name), family(name, torch.nn.functional), [x[:0], *others], device)


@pytest.mark.parametrize("name", FAMILY)
def test_single_precision_stays_single(device, name):
    assert_like_torch(
        family(name), family(name, torch.nn.functional), family_values(name, "float32"), device, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_stays_half(device, name):
    """Against float64: results and first derivatives, each rounded once or, with a bias, twice."""
    arrays = [abs(array) / 4 for array in family_values(name, "float16")]
    leaves = tensors(device, *arrays)
    exact = tensors(device, *(array.astype("float64") for array in arrays))
    actual, expected = family(name)(*leaves), family(name)(*exact)
    actual.sum().backward()
    expected.sum().backward()
    for result, reference in zip(
        (actual, *(x.grad for x in leaves)), (expected, *(x.grad for x in exact)), strict=True
    ):
        assert result.dtype == "float16"
        assert_allclose(result.numpy(), reference.numpy(), rtol=2**-9, atol=1e-3)


def test_half_precision_accumulates_in_single(device):
    """2048 + 0.5 is 2048 in float16: sums in float16 would lose sixty-four halves, one by one."""
    line = np.full((1, 1, 65), 0.5, "float16")
    line[..., 0] = 2048
    x, ones = tensors(device, line, np.ones((1, 1, 65), "float16"))
    assert functional.conv1d(x, ones).numpy().item() == 2080
    assert functional.conv_transpose1d(x, ones).numpy()[0, 0, 64] == 2080
    columns = np.full((1, 65, 65), 0.5, "float16")  # each kernel element k reads element 64, at column 64 - k
    columns[0, 0, 64] = 2048
    (columns,) = tensors(device, columns)
    folded = functional.fold(columns, (129,), (65,))
    assert folded.dtype == "float16"
    assert folded.numpy()[0, 0, 64] == 2080
    (x,) = tensors(device, np.zeros((1, 1, 129), "float16"))
    functional.unfold(x, (65,)).backward(columns)
    assert x.grad.numpy()[0, 0, 64] == 2080


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool"])
@pytest.mark.parametrize("name", FAMILY)
def test_integers_are_refused(device, name, dtype):
    arrays = [ndl.Tensor(array, device=device, requires_grad=False) for array in family_values(name, dtype)]
    with pytest.raises(TypeError, match=f"^{name.split()[0]}: .* must have (one|a) floating dtype, but got {dtype}"):
        family(name)(*arrays)


def test_arrays_and_lists_are_constants(device):
    x, w, bias = family_values("conv2d")
    expected = family("conv2d")(*tensors(device, x, w, bias)).numpy()
    for arguments in ((x, w, bias), (x.tolist(), w.tolist(), bias.tolist())):
        actual = family("conv2d")(*arguments)
        assert actual.op is None
        close(actual.numpy(), expected)


# ---- skipped computations --------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Counts of how often each kernel ran."""
    return count_kernels(monkeypatch, "correlate", "correlate_transpose", "correlate_weight", "unfold", "fold")


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize(("of_x", "of_w"), [(False, True), (True, False), (True, True), (False, False)])
@pytest.mark.parametrize("name", [name for name in FAMILY if "of all options" in name and "conv" in name])
def test_only_gradients_that_are_required_are_computed(device, calls, name, of_x, of_w, create_graph):
    needed = (of_x, of_w, True)
    leaves = [
        ndl.Tensor(array, device=device, requires_grad=grad)
        for array, grad in zip(family_values(name), needed, strict=True)
    ]
    family(name)(*leaves).backward(create_graph=create_graph)
    forward, backward = (
        ("correlate_transpose", "correlate") if "transpose" in name else ("correlate", "correlate_transpose")
    )
    assert calls == {forward: 1, backward: of_x, "correlate_weight": of_w, "unfold": 0, "fold": 0}
    assert [x.grad is not None for x in leaves] == list(needed)


@pytest.mark.parametrize("name", FAMILY)
def test_nothing_is_recorded_for_constants_or_under_no_grad(device, name):
    constants = [ndl.Tensor(array, device=device, requires_grad=False) for array in family_values(name)]
    assert family(name)(*constants).op is None
    with ndl.no_grad():
        assert family(name)(*tensors(device, *family_values(name))).op is None


def test_unfold_and_fold_save_no_values_for_their_gradients(device, calls):
    """Writing into x between forward and backward is allowed: unfold and fold do not read it again."""
    x, columns = tensors(device, *family_values("unfold"), *family_values("fold"))
    unfolded, folded = family("unfold")(x), family("fold")(columns)
    x.data, columns.data = ndl.zeros_like(x), ndl.zeros_like(columns)
    unfolded.sum().backward(create_graph=False)
    folded.sum().backward(create_graph=False)
    assert calls == {"correlate": 0, "correlate_transpose": 0, "correlate_weight": 0, "unfold": 2, "fold": 2}
