"""Pooling of every kind against torch: results, indices, derivatives to second order, layers and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from tests.kernels.windows import arrange, orders
from tests.nn.compare import assert_refused
from tests.ops.derivatives import assert_like_torch

LARGEST = {1: 4, 2: 3, 3: 2}  # by rank: the most that sizes exceed the smallest valid one
LEVELS = 3  # distinct values in inputs with ties


def both(name, *arguments, **options):
    """The functions of that name in needle and torch, with the same arguments."""
    return (
        lambda x: getattr(F, name)(x, *arguments, **options),
        lambda x: getattr(torch.nn.functional, name)(x, *arguments, **options),
    )


def assert_alike(name, x, device, *arguments, **options):
    assert_like_torch(*both(name, *arguments, **options), [x], device)


def shuffled(shape, seed=0):
    """Distinct values in random order."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) / 8


@st.composite
def windows(draw, *, dilated, whole_kernel_in_3d=False):
    """The shape of an input, with or without a batch axis, and keyword arguments of a pooling that fits into it.

    Sizes are derived: every window covers an element of the input, and in `ceil_mode` the first one may exceed it.
    """
    rank = draw(st.integers(1, 3))
    ceil_mode = draw(st.booleans())
    size, kernel, stride, padding, dilation = [], [], [], [], []
    for _ in range(rank):
        k, s = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        d, before = draw(st.integers(1, 3)) if dilated else 1, draw(st.integers(0, k // 2))
        least = d * (k - 1) + 1 - 2 * before - ceil_mode * (s - 1)
        least = max(least, d, k * (whole_kernel_in_3d and rank == 3))
        for values, value in zip(
            (size, kernel, stride, padding, dilation),
            (least + draw(st.integers(0, LARGEST[rank])), k, s, before, d),
            strict=True,
        ):
            values.append(value)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    return (*batch, draw(st.integers(1, 2)), *size), options | ({"dilation": dilation} if dilated else {})


@st.composite
def outputs(draw):
    """The shape of an input, with or without a batch axis, and the output size of an adaptive pooling."""
    rank = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(1, 4 + LARGEST[rank]), min_size=rank, max_size=rank))
    sizes = st.integers(1, 4 + LARGEST[rank])
    output = draw(st.lists(sizes if rank == 1 else st.none() | sizes, min_size=rank, max_size=rank))
    return (*draw(st.sampled_from([(), (1,), (2,)])), draw(st.integers(1, 2)), *size), tuple(output)


def name_of(kind, shape, output):
    return f"{kind}_pool{len(output)}d"


# ---- against torch, to second order ----------------------------------------------------------------------------------

# Arguments in torch's names and order.
MAX_TABLE = {
    "defaults": ((2, 3, 6, 7), 2),
    "stride": ((2, 3, 6, 7), 2, 3),
    "padding": ((2, 3, 6, 7), (3, 2), 2, (1, 0)),
    "dilation": ((2, 3, 7, 8), 2, 1, 1, (2, 3)),
    "rounded up": ((2, 3, 7, 8), 2, 2, 0, 1, True),
    "rounded up, but no window starts in the padding after": ((2, 3, 3, 3), 2, 2, 1, 1, True),
    "rounded up, kernel beyond the input": ((2, 3, 4, 4), 5, 3, 0, 1, True),
    "all options": ((2, 2, 9, 8), (3, 2), (2, 3), 1, (2, 3), True),
    "without a batch": ((3, 6, 7), 3, 2, 1),
    "an empty batch": ((0, 3, 6, 7), 3, 2, 1),
    "1d": ((2, 3, 9), 3, 2, 1, 2, True),
    "1d without a batch": ((3, 9), 3, 2, 1, 2, True),
    "3d": ((2, 2, 5, 6, 7), (2, 3, 2), 2, 1, (1, 2, 1), True),
    "3d without a batch": ((2, 5, 6, 7), 2),
}
AVG_TABLE = {
    "defaults": ((2, 3, 6, 7), 2),
    "stride": ((2, 3, 6, 7), 2, 3),
    "padding": ((2, 3, 6, 7), (3, 2), 2, (1, 0)),
    "padding not counted": ((2, 3, 6, 7), (3, 2), 2, (1, 0), False, False),
    "rounded up": ((2, 3, 7, 8), 3, 2, 1, True),
    "rounded up, padding not counted": ((2, 3, 7, 8), 3, 2, 1, True, False),
    "rounded up, kernel beyond the input": ((2, 3, 4, 4), 5, 3, 0, True),
    "another divisor": ((2, 3, 6, 7), 2, 2, 1, False, True, 3),
    "a negative divisor": ((2, 3, 6, 7), 3, 2, 1, True, False, -5),
    "without a batch": ((3, 6, 7), 3, 2, 1),
    "an empty batch": ((0, 3, 6, 7), 3, 2, 1, True, False),
    "1d": ((2, 3, 9), 3, 2, 1, True, False),
    "1d without a batch": ((3, 9), 3, 2, 1),
    "3d": ((2, 2, 5, 6, 7), (2, 3, 2), 2, 1, True, False, None),
    "3d with another divisor": ((2, 5, 6, 7), 2, None, 0, False, True, 7),
}


def rank_of(title, shape):
    return int(title[0]) if title[1] == "d" else 2


@pytest.mark.parametrize("title", MAX_TABLE)
def test_max_pool_like_torch(device, title):
    shape, *arguments = MAX_TABLE[title]
    assert_alike(f"max_pool{rank_of(title, shape)}d", shuffled(shape), device, *arguments)


@pytest.mark.parametrize("title", AVG_TABLE)
def test_avg_pool_like_torch(device, title):
    shape, *arguments = AVG_TABLE[title]
    assert_alike(f"avg_pool{rank_of(title, shape)}d", shuffled(shape), device, *arguments)


@given(problem=windows(dilated=True))
def test_max_pool_like_torch_in_any_window(device, problem):
    shape, options = problem
    assert_alike(f"max_pool{len(options['kernel_size'])}d", shuffled(shape), device, **options)


@given(problem=windows(dilated=False, whole_kernel_in_3d=True), include=st.booleans(), divisor=st.sampled_from([3, -2]))
def test_avg_pool_like_torch_in_any_window(device, problem, include, divisor):
    shape, options = problem
    rank = len(options["kernel_size"])
    options |= {"count_include_pad": include} | ({"divisor_override": divisor} if rank > 1 and include else {})
    assert_alike(f"avg_pool{rank}d", shuffled(shape), device, **options)


@given(problem=outputs())
def test_adaptive_avg_pool_like_torch(device, problem):
    shape, output = problem
    assert_alike(f"adaptive_avg_pool{len(output)}d", shuffled(shape), device, output)


@given(problem=outputs())
def test_adaptive_max_pool_like_torch(device, problem):
    shape, output = problem
    assert_alike(f"adaptive_max_pool{len(output)}d", shuffled(shape), device, output)


@pytest.mark.parametrize("output", [1, 2, 4, 5, 9, (2, None), (None, 3), [3, 4]])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pools_of_one_image(device, kind, output):
    x = shuffled((2, 3, 4, 6))
    assert_alike(f"adaptive_{kind}_pool2d", x, device, output)
    assert_alike(f"adaptive_{kind}_pool2d", x[0], device, output)
    assert_alike(f"adaptive_{kind}_pool2d", x[:0], device, output)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("max_pool2d", (3, 2, 1, 1, True)),
        ("avg_pool2d", (3, 2, 1, True, False)),
        ("adaptive_avg_pool2d", ((3, 5),)),
        ("adaptive_max_pool2d", ((3, 5),)),
    ],
)
def test_precision_is_kept(device, name, arguments):
    x = shuffled((2, 3, 7, 8)).astype("float32")
    assert_like_torch(*both(name, *arguments), [x], device, rtol=1e-5, atol=1e-5)
    half = ndl.Tensor(x.astype("float16") * 1000, device=device)  # the sums of the averages overflow float16
    y = getattr(F, name)(half, *arguments)
    y.backward()
    assert y.dtype == half.grad.dtype == "float16"
    assert_allclose(y.numpy(), getattr(torch.nn.functional, name)(torch.tensor(half.numpy()), *arguments), rtol=2e-3)


def test_means_of_float16_are_computed_in_float32(device):
    x = abs(np.random.randn(1, 1, 3001)).astype("float16")
    y = F.adaptive_avg_pool1d(ndl.Tensor(x, device=device), 2)
    expected = np.array([[[x[..., :1501].mean(dtype="float64"), x[..., 1500:].mean(dtype="float64")]]])
    assert_allclose(y.numpy(), expected, rtol=2**-11)


# ---- places, ties, NaN -----------------------------------------------------------------------------------------------


def assert_same_places(name, x, device, *arguments, **options):
    """Elements, indices and gradients equal torch's, also with ties and NaN."""
    leaf, torch_leaf = ndl.Tensor(x, device=device), torch.tensor(x, requires_grad=True)
    y, index = getattr(F, name)(leaf, *arguments, **options, return_indices=True)
    expected, torch_index = getattr(torch.nn.functional, name)(torch_leaf, *arguments, **options, return_indices=True)
    assert index.dtype == "int64"
    assert not index.requires_grad
    assert_array_equal(index.numpy(), torch_index.numpy())
    assert_array_equal(y.numpy(), expected.detach().numpy())
    v = np.random.default_rng(1).standard_normal(y.shape)
    y.backward(ndl.Tensor(v, device=device))
    expected.backward(torch.tensor(v))
    assert_allclose(leaf.grad.numpy(), torch_leaf.grad.numpy(), rtol=1e-10, atol=1e-10)


def levels(shape, draws, extremes):
    """Few distinct values, some of them extreme."""
    x = draws.integers(0, LEVELS, shape).astype("float64")
    for value in extremes:
        x[draws.random(shape) < 0.3] = value
    return x


extremes = st.sampled_from([[], [-np.inf], [np.nan], [np.nan, -np.inf, np.inf]])
seeds = st.integers(0, 2**32 - 1)


@given(problem=windows(dilated=True), extremes=extremes, seed=seeds)
def test_places_of_maxima(device, problem, extremes, seed):
    shape, options = problem
    x = levels(shape, np.random.default_rng(seed), extremes)
    assert_same_places(f"max_pool{len(options['kernel_size'])}d", x, device, **options)


@given(problem=outputs(), extremes=extremes, seed=seeds)
def test_places_of_adaptive_maxima(device, problem, extremes, seed):
    shape, output = problem
    x = levels(shape, np.random.default_rng(seed), extremes)
    assert_same_places(f"adaptive_max_pool{len(output)}d", x, device, output)


def test_places_by_hand(device):
    x = ndl.Tensor([[[[1.0, 5.0, 5.0], [5.0, 0.0, 5.0]]]], device=device)
    y, index = F.max_pool2d(x, 2, 1, return_indices=True)
    assert (y.numpy().tolist(), index.numpy().tolist()) == ([[[[5, 5]]]], [[[[1, 1]]]])
    y, index = F.max_pool1d(ndl.Tensor([[1.0, 5.0, 5.0, 7.0]], device=device), 3, 2, 1, return_indices=True)
    assert (y.numpy().tolist(), index.numpy().tolist()) == ([[5, 7]], [[1, 3]])


def test_the_last_of_several_nans_counts(device):
    x = ndl.Tensor([[[1.0, np.nan, np.nan, 2.0]]], device=device)
    y, index = F.max_pool1d(x, 4, return_indices=True)
    y.backward()
    assert np.isnan(y.numpy()).all()
    assert index.numpy().tolist() == [[[2]]]
    assert x.grad.numpy().tolist() == [[[0, 0, 1, 0]]]


def test_a_last_window_beyond_the_padding_is_divided_by_what_it_holds(device):
    x = ndl.Tensor(np.ones((1, 1, 4)), device=device)  # windows at -1 and 2, padding at -1 and 4
    assert F.avg_pool1d(x, 3, 3, 1, ceil_mode=True).numpy().tolist() == [[[2 / 3, 2 / 3]]]
    assert F.avg_pool1d(x, 4, 3, 1, ceil_mode=True).numpy().tolist() == [[[3 / 4, 2 / 3]]]
    assert F.avg_pool1d(x, 4, 3, 1, ceil_mode=True, count_include_pad=False).numpy().tolist() == [[[1, 1]]]


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("adaptive_avg_pool2d", {"output_size": (3, 4)}),
        ("adaptive_max_pool2d", {"output_size": (3, 4)}),
    ],
)
@given(order=orders, v_order=orders, batch=st.sampled_from([(), (1,), (3,)]))
def test_any_memory_order_gives_the_same(device, name, options, order, v_order, batch):
    def run(rearrange):
        x = ndl.Tensor.make_const(rearrange(shuffled((*batch, 2, 5, 7)), order), requires_grad=True)
        y = getattr(F, name)(x, **options)
        y.backward(ndl.Tensor.make_const(rearrange(shuffled(y.shape, 1), v_order)))
        return y.numpy(), x.grad.numpy()

    actual = run(lambda values, order: arrange(values, order, device))
    expected = run(lambda values, order: device.array(device.to_host(arrange(values, order, device))))
    for result, reference in zip(actual, expected, strict=True):
        assert_allclose(result, reference, rtol=1e-12)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_results_have_memory_of_their_own(device, name):
    """Also for windows of one element, where the result equals the input."""
    x = arrange(shuffled((3, 2, 4, 5)), "batch-last", device)
    y = getattr(F, name)(ndl.Tensor.make_const(x), (4, 5) if "adaptive" in name else 1)
    expected = np.array(device.to_host(x))
    x[...] = 0
    assert_array_equal(y.numpy(), expected)


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = [
    ("MaxPool1d", (3,), {}, (2, 3, 9)),
    ("MaxPool1d", (3, 2, 1, 2, True, True), {}, (2, 3, 9)),
    ("MaxPool2d", (2,), {}, (2, 3, 6, 7)),
    ("MaxPool2d", ((3, 2),), {"stride": 2, "padding": (1, 0), "ceil_mode": True}, (3, 6, 7)),
    ("MaxPool2d", (2,), {"return_indices": True}, (2, 3, 6, 7)),
    ("MaxPool3d", ((1, 2, 2), 1), {}, (2, 3, 4, 5, 6)),
    ("AvgPool1d", (3,), {}, (2, 3, 9)),
    ("AvgPool1d", ((3,), 2, (1,), True, False), {}, (2, 3, 9)),
    ("AvgPool2d", (2,), {}, (2, 3, 6, 7)),
    ("AvgPool2d", ((2, 3), 1, (0, 1), True, False, 5), {}, (2, 3, 6, 7)),
    ("AvgPool3d", (2,), {"count_include_pad": False, "padding": 1}, (2, 3, 4, 5, 6)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, (2, 3, 6, 7)),
    ("AdaptiveAvgPool3d", (2,), {}, (3, 4, 5, 6)),
    ("AdaptiveMaxPool1d", (3,), {"return_indices": True}, (2, 3, 8)),
    ("AdaptiveMaxPool2d", ((4, 3),), {}, (2, 3, 6, 7)),
    ("AdaptiveMaxPool3d", (2, True), {}, (3, 4, 5, 6)),
]


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_layers_like_torch(device, name, arguments, options, shape):
    layer, torch_layer = (getattr(nn, name)(*arguments, **options) for nn in (ndl.nn, torch.nn))
    assert repr(layer) == repr(torch_layer)
    assert layer.parameters() == []
    x = shuffled(shape)
    actual, expected = layer(ndl.Tensor(x, device=device)), torch_layer(torch.tensor(x))
    assert isinstance(actual, tuple) == isinstance(expected, tuple)
    for y, reference in zip(*(t if isinstance(t, tuple) else (t,) for t in (actual, expected)), strict=True):
        assert_allclose(y.numpy(), reference.numpy(), rtol=1e-12)


# ---- refusals --------------------------------------------------------------------------------------------------------

IMAGE = (2, 3, 6, 7)
AXES = r"must have 4 axes, \(N, C, \*S\), or 3, \(C, \*S\), of which only N may be 0, but got shape"
REFUSED = [
    ("max_pool2d", (6, 7), (2,), {}, ValueError, rf"max_pool2d: x {AXES} \(6, 7\)"),
    ("max_pool2d", (1, 2, 3, 6, 7), (2,), {}, ValueError, rf"max_pool2d: x {AXES} \(1, 2, 3, 6, 7\)"),
    ("max_pool2d", (2, 0, 6, 7), (2,), {}, ValueError, rf"max_pool2d: x {AXES} \(2, 0, 6, 7\)"),
    ("avg_pool2d", (2, 3, 0, 7), (2,), {}, ValueError, rf"avg_pool2d: x {AXES} \(2, 3, 0, 7\)"),
    ("avg_pool2d", (0, 6, 7), (2,), {}, ValueError, rf"avg_pool2d: x {AXES} \(0, 6, 7\)"),
    ("adaptive_avg_pool2d", (6, 7), (2,), {}, ValueError, rf"adaptive_avg_pool2d: x {AXES} \(6, 7\)"),
    ("adaptive_max_pool2d", (2, 3, 0, 7), (2,), {}, ValueError, rf"adaptive_max_pool2d: x {AXES} \(2, 3, 0, 7\)"),
    ("max_pool2d", IMAGE, (0,), {}, ValueError, "max_pool2d: kernel_size must be at least 1, but got 0"),
    ("max_pool2d", IMAGE, (2.0,), {}, TypeError, r"max_pool2d: kernel_size must be an integer, but got 2\.0"),
    ("max_pool2d", IMAGE, ((2, 2, 2),), {}, ValueError, r"kernel_size must be one integer or 2, but got 3: \(2, 2"),
    ("max_pool2d", IMAGE, (2, 0), {}, ValueError, "max_pool2d: stride must be at least 1, but got 0"),
    ("max_pool2d", IMAGE, (2, 1, -1), {}, ValueError, "max_pool2d: padding must be at least 0, but got -1"),
    ("max_pool2d", IMAGE, (2, 1, ((1, 0), (0, 0))), {}, TypeError, r"padding must be an integer, but got \(1, 0\)"),
    ("max_pool2d", IMAGE, (3, 1, 2), {}, ValueError, r"must be at most half of the kernel \(3, 3\), but got \(2, 2"),
    ("max_pool2d", IMAGE, (3, 1, 2, 2), {}, ValueError, "max_pool2d: padding must be at most half of the kernel"),
    ("avg_pool2d", IMAGE, (3, 1, 2), {}, ValueError, "avg_pool2d: padding must be at most half of the kernel"),
    ("max_pool2d", IMAGE, (2, 1, 0, 0), {}, ValueError, "max_pool2d: dilation must be at least 1, but got 0"),
    ("max_pool2d", IMAGE, (7,), {}, ValueError, r"kernel must fit .* \(7, 7\) and the padded size of x .* \(6, 7\)"),
    ("max_pool2d", IMAGE, (4, 1, 0, 2), {}, ValueError, r"max_pool2d: the kernel must fit .* \(7, 7\)"),
    ("avg_pool2d", IMAGE, (8, 1), {"ceil_mode": True}, ValueError, "avg_pool2d: the kernel must fit"),
    ("max_pool2d", IMAGE, (2,), {"ceil_mode": 1}, TypeError, "max_pool2d: ceil_mode must be a bool, but got int"),
    ("avg_pool2d", IMAGE, (2,), {"ceil_mode": "no"}, TypeError, "avg_pool2d: ceil_mode must be a bool, but got str"),
    ("avg_pool1d", (2, 6), (2,), {"count_include_pad": 1}, TypeError, "count_include_pad must be a bool, but got int"),
    ("avg_pool1d", (2, 6), (2,), {"divisor_override": 2}, TypeError, "unexpected keyword argument 'divisor_override'"),
    ("avg_pool2d", IMAGE, (2,), {"divisor_override": 0}, ValueError, "divisor_override must not be zero, but got 0"),
    ("avg_pool2d", IMAGE, (2,), {"divisor_override": 2.5}, TypeError, r"divisor_override must be an integer, but got"),
    ("adaptive_avg_pool2d", IMAGE, (-1,), {}, ValueError, "output_size must be at least 1, but got -1"),
    ("adaptive_max_pool2d", IMAGE, (-1,), {}, ValueError, "output_size must be at least 1, but got -1"),
    ("adaptive_avg_pool2d", IMAGE, (None,), {}, TypeError, "output_size must be an integer, but got None"),
    ("adaptive_avg_pool1d", (2, 6), ((None,),), {}, TypeError, "output_size must be an integer, but got None"),
    ("adaptive_max_pool2d", IMAGE, (2.0,), {}, TypeError, r"output_size must be an integer, but got 2\.0"),
    ("adaptive_max_pool2d", IMAGE, ((2, 2, 2),), {}, ValueError, "output_size must be one integer or 2, but got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "arguments", "options", "error", "message"), REFUSED)
def test_what_torch_refuses_is_refused(device, name, shape, arguments, options, error, message):
    assert_refused(name, ndl.Tensor(np.zeros(shape), device=device), arguments, options, error, message)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("max_pool1d", "bool"),
        ("max_pool2d", "bool"),
        ("avg_pool2d", "bool"),
        ("avg_pool2d", "int32"),
        ("lp_pool2d", "int32"),
        ("adaptive_avg_pool2d", "int64"),
        ("adaptive_max_pool2d", "int64"),
    ],
)
def test_only_floats_are_pooled(device, name, dtype):
    x = np.zeros((2, 3, 6, 7)[: 2 + int(name[-2])], dtype)
    sizes = (2,) if "adaptive" in name else (2, 2)
    with pytest.raises(TypeError, match=f"{name}: x must have a floating dtype, but got {dtype}"):
        getattr(F, name)(ndl.Tensor(x, device=device, requires_grad=False), *sizes)
    with pytest.raises(NotImplementedError):
        getattr(torch.nn.functional, name)(torch.tensor(x), *sizes)


# torch pools integers by max_pool1d only if the indices are returned.
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
@given(problem=windows(dilated=True), seed=seeds)
def test_integers_have_maxima_and_places_as_in_torch(device, dtype, problem, seed):
    shape, options = problem
    bounds = np.iinfo(dtype)
    x = np.random.default_rng(seed).choice(np.array([bounds.min, 0, 1, bounds.max], dtype), shape)
    name = f"max_pool{len(options['kernel_size'])}d"
    leaf = ndl.Tensor(x, device=device, requires_grad=False)
    best, index = getattr(F, name)(leaf, **options, return_indices=True)
    expected, place = getattr(torch.nn.functional, name)(torch.tensor(x), **options, return_indices=True)
    assert (best.dtype, index.dtype) == (dtype, "int64")
    assert_array_equal(best.numpy(), expected.numpy())
    assert_array_equal(index.numpy(), place.numpy())
    assert_array_equal(getattr(F, name)(leaf, **options).numpy(), expected.numpy())


@given(problem=windows(dilated=False, whole_kernel_in_3d=True), seed=seeds, include=st.booleans())
def test_means_of_integers_are_cut_off_as_in_torch(device, problem, seed, include):
    shape, options = problem
    x = np.random.default_rng(seed).integers(-9, 9, shape) + 2**56  # sums that float64 does not hold
    x[..., :1] -= 2**57
    name, options = f"avg_pool{len(options['kernel_size'])}d", {**options, "count_include_pad": include}
    actual = getattr(F, name)(ndl.Tensor(x, device=device, requires_grad=False), **options)
    assert actual.dtype == "int64"
    assert_array_equal(actual.numpy(), getattr(torch.nn.functional, name)(torch.tensor(x), **options).numpy())


def test_return_indices_is_a_bool(device):
    x = ndl.Tensor(np.zeros((2, 6)), device=device)
    for function in (F.max_pool1d, F.adaptive_max_pool1d):
        with pytest.raises(TypeError, match=rf"{function.__name__}: return_indices must be a bool, but got int"):
            function(x, 3, return_indices=1)


def test_a_layer_checks_what_it_prints():
    with pytest.raises(ValueError, match=r"AvgPool1d: kernel_size must be one integer or 1, but got 2: \(2, 2\)"):
        ndl.nn.AvgPool1d((2, 2))
