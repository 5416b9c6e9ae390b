"""Every convolution algorithm by name: against torch, against the others to second order, and the choice by shape."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

import needle as ndl
from needle import kernels
from needle.backend import blas
from needle.kernels.conv import dispatch, gemm, im2col, winograd
from needle.ops.conv import Correlate
from tests.kernels.oracles import PASSES, pass_by_loops, pass_by_needle, passes_by_torch, result_shape
from tests.kernels.thresholds import thresholds
from tests.kernels.windows import any_problems, arrange, orders, problem_of, problems
from tests.ops.derivatives import by_needle
from tests.profiles import examples

IMPLEMENTED = {
    "forward": ("im2col", "winograd", "taps", "toeplitz", "tensordot"),
    "backward_data": ("winograd", "polyphase", "col2im", "convolution"),
    "backward_weight": ("im2col", "winograd", "taps", "convolution"),
}
NAMES = tuple(dict.fromkeys(itertools.chain(*IMPLEMENTED.values())))
ALL = [
    pytest.param(direction, name, id=f"{direction} by {name}")
    for direction, names in IMPLEMENTED.items()
    for name in names
]
EACH = pytest.mark.parametrize(("direction", "name"), ALL)
EXACT = pytest.mark.parametrize(
    ("direction", "name"), [pair for pair in ALL if pair.values[1] not in ("winograd", "toeplitz")]
)
close = partial(assert_allclose, rtol=1e-10, atol=1e-10)


def suited(direction, name, **options):
    """Problems for an algorithm. Few problems suit winograd, so it has problems of its own."""
    return (
        problems(tiled=True, **options)
        if name == "winograd" and direction != "backward_data"
        else any_problems(**options)
    )


def run_named(name, direction, *arguments, **options):
    """One pass by the algorithm of that name."""
    with ndl.conv_algorithm(name):
        return pass_by_needle(direction, *arguments, **options)


# The error of sums of at most a few hundred terms of size 1; half precision rounds once more, in the end.
PRECISION = {"float64": (1e-12, 1e-11), "float32": (1e-5, 1e-4), "float16": (2**-10, 1e-4)}


@EACH
@given(
    data=st.data(),
    orders=st.tuples(orders, orders, orders),
    dtype=st.sampled_from([*PRECISION]),
    with_bias=st.booleans(),
)
def test_each_algorithm_agrees_with_torch(device, direction, name, data, orders, dtype, with_bias):
    problem = data.draw(suited(direction, name, batches=(0, 3)))
    values = problem.values(dtype=dtype)
    arrays = [arrange(array, order, device) for array, order in zip(values, orders, strict=True)]
    if with_bias and direction == "forward":
        arrays.append(device.asarray(np.arange(1, 1 + problem.out_channels).astype(dtype)))
    exact = [np.array(device.to_host(array), "float64") for array in arrays]
    rtol, atol = PRECISION[dtype]
    result, expected = run_named(name, direction, problem, *arrays), reference(direction, problem, *exact)
    assert result.shape == expected.shape
    assert result.dtype == dtype
    assert_allclose(device.to_host(result), expected, rtol=rtol, atol=atol)


# Shapes as in networks: more than one block of columns, and batches of more than a few images.
REAL = {
    "first layer": problem_of((32, 1, 28, 28), (8, 1, 3, 3), padding=1),
    "3x3": problem_of((16, 16, 15, 9), (24, 16, 3, 3), padding=1),
    "3x3 at stride 2": problem_of((16, 16, 16, 15), (24, 16, 3, 3), stride=2, padding=1),
    "1x1": problem_of((16, 32, 14, 14), (64, 32, 1, 1)),
    "one large image": problem_of((1, 3, 97, 61), (8, 3, 5, 5), padding=2),
    "depthwise": problem_of((16, 32, 17, 17), (32, 1, 3, 3), padding=1, groups=32),
    "two per channel": problem_of((16, 32, 17, 17), (64, 1, 3, 3), stride=2, padding=1, groups=32),
    "one line": problem_of((4, 8, 6000), (8, 4, 9), padding=8, dilation=2, groups=2),
    "3x3, dilated": problem_of((4, 4, 23, 22), (8, 4, 3, 3), padding=1, dilation=2),
    "3-d": problem_of((4, 4, 9, 8, 7), (8, 4, 3, 3, 3), padding=1),
    "patches": problem_of((4, 3, 32, 32), (24, 3, 8, 8), stride=8),
}


@pytest.mark.on_cpu
@EACH
@pytest.mark.parametrize("shapes", REAL)
def test_algorithms_agree_on_shapes_from_networks(device, direction, name, shapes):
    problem = REAL[shapes]
    arrays = problem.values(dtype="float32")
    expected = reference(direction, problem, *arrays)
    result = run_named(name, direction, problem, *map(device.asarray, arrays))
    assert result.dtype == "float32"
    atol = 3e-6 if name != "winograd" else 1e-5
    assert_allclose(device.to_host(result), expected, rtol=0, atol=atol * abs(expected).max())


def reference(direction, problem, x, w, y, bias=None):
    """One pass in float64 by torch."""
    passes = passes_by_torch(problem, *(array.astype("float64") for array in (x, w, y)))
    result = passes[[*IMPLEMENTED].index(direction)]
    return result if bias is None else result + bias.reshape(-1, *(1,) * problem.rank)


@EXACT
@examples(20)
@given(problem=any_problems(), place=st.integers(0, 100))
def test_an_infinity_reaches_only_the_results_that_read_it(device, direction, name, problem, place):
    """Padding, elements beyond the last window and surplus outputs do not reach the result.

    Winograd's algorithm is the exception: a tile that holds an infinity is NaN.
    """
    arrays = [abs(array) + 1 for array in problem.values()]
    holder = arrays[2 if direction == "backward_data" else 0]
    holder.flat[place % holder.size] = np.inf
    with np.errstate(invalid="ignore"):  # BLAS multiplies whole vectors, including unused elements
        result = device.to_host(run_named(name, direction, problem, *map(device.asarray, arrays)))
    read = pass_by_loops(direction, problem, *(np.isinf(a) * 1.0 if a is holder else np.ones_like(a) for a in arrays))
    assert_array_equal(np.isinf(result), read > 0)
    assert not np.isnan(result).any()


@st.composite
def depthwise(draw):
    """Depthwise problems over two axes, without dilation of the first: those of banded matrices."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride, padding, channels = draw(pair), draw(pair), draw(st.tuples(*[st.integers(0, 4)] * 2)), draw(pair)[0]
    dilation = (1, draw(st.integers(1, 3)))
    size = [d * (k - 1) + draw(st.integers(1, 6)) for k, d in zip(kernel, dilation, strict=True)]
    shape = draw(st.integers(1, 3)), channels, *size
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    return problem_of(shape, (channels, 1, *kernel), seed=draw(st.integers(0, 99)), **options)


@examples(60)
@given(problem=depthwise(), order=orders, dtype=st.sampled_from(["float64", "float32"]))
def test_banded_matrices_agree_with_torch(device, problem, order, dtype):
    x, w, y = problem.values(dtype=dtype)
    bias = np.arange(problem.out_channels).astype(dtype)
    arrays = [arrange(x, order, device), *map(device.asarray, (w, y, bias))]
    result = device.to_host(run_named("toeplitz", "forward", problem, *arrays))
    rtol, atol = PRECISION[dtype]
    assert_allclose(result, reference("forward", problem, x, w, y, bias), rtol=rtol, atol=atol)


@examples(20)
@given(place=st.integers(0, 18), kernel=st.integers(2, 3), value=st.sampled_from([np.inf, -np.inf, np.nan]))
def test_an_infinity_makes_its_tiles_nan(device, place, kernel, value):
    """Outputs of Winograd's tiles (of 4) that read it are NaN; all others do not change."""
    problem = problem_of((1, 2, 19), (3, 2, kernel))
    x, w, y = problem.values()
    expected = pass_by_loops("forward", problem, x, w, y)
    x[0, 1, place] = value
    with np.errstate(invalid="ignore"):
        result = device.to_host(run_named("winograd", "forward", problem, *map(device.asarray, (x, w, y))))
    first = np.arange(problem.output[0]) // 4 * 4
    read = (first <= place) & (place < first + 4 + kernel - 1)
    assert np.isnan(result[..., read]).all()
    assert_allclose(result[..., ~read], expected[..., ~read], rtol=1e-10, atol=1e-10)


@EACH
@examples(15)
@given(data=st.data(), orders=st.tuples(*[orders.filter(lambda order: order != "broadcast")] * 3))
def test_arguments_are_only_read_and_results_have_memory_of_their_own(device, direction, name, data, orders):
    problem = data.draw(suited(direction, name))
    arrays = [arrange(array, order, device) for array, order in zip(problem.values(), orders, strict=True)]
    if direction == "forward":
        arrays.append(device.asarray(np.arange(1.0, 1 + problem.out_channels)))
    before = [np.array(device.to_host(array)) for array in arrays]
    result = run_named(name, direction, problem, *arrays)
    for array, values in zip(arrays, before, strict=True):
        assert_array_equal(device.to_host(array), values)
    kept = np.array(device.to_host(result))
    run_named(name, direction, problem, *(array + 1 for array in arrays))
    for array in arrays:
        array[...] = 7
    assert_array_equal(device.to_host(result), kept)


@EACH
def test_a_sum_over_no_channels_is_zero(device, direction, name):
    for (channels, out_channels), kernel, groups in itertools.product(
        [(0, 4), (4, 0), (0, 0)], [(1, 1), (3, 2)], [1, 2]
    ):
        problem = problem_of((3, channels, 5, 5), (out_channels, channels, *kernel), groups=groups)
        result = run_named(name, direction, problem, *map(device.asarray, problem.values()))
        zeros = np.zeros(result_shape(direction, problem))
        assert_array_equal(device.to_host(result), zeros, err_msg=str(problem))


@pytest.mark.parametrize("name", IMPLEMENTED["forward"])
def test_a_sum_over_no_channels_is_the_bias(device, name):
    problem = problem_of((3, 0, 5, 5), (2, 0, 3, 3))
    bias = np.array([1.0, 2.0])
    result = run_named(name, "forward", problem, *map(device.asarray, (*problem.values(), bias)))
    assert_array_equal(device.to_host(result), np.broadcast_to(bias.reshape(2, 1, 1), problem.y_shape))


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory_limits(size):
    """Thresholds for kernels that work on `size` bytes at a time."""
    return dict.fromkeys(("BLOCK_BYTES", "TAPS_ACCUMULATOR_BYTES", "WINOGRAD_TILE_BYTES"), size) | {
        "WINOGRAD_MIN_COLUMNS": 1
    }


@EACH
@examples(20)
@given(
    data=st.data(),
    memory=st.sampled_from([1, 100, 300, 1000, 3000]),
    small=st.sampled_from([1, 10, 100, 10**6]),
)
def test_chunks_of_any_size_give_the_same(device, direction, name, data, memory, small):
    """Varies the bytes that kernels work on at a time, and the size of their products."""
    problem = data.draw(suited(direction, name, batches=(0, 3)))
    arrays = [device.asarray(array) for array in problem.values()]
    with thresholds(**memory_limits(1 << 40)):
        undivided = run_named(name, direction, problem, *arrays)
    least = dict.fromkeys(("SMALL_GEMM_MIN_COLUMNS", "SMALL_GEMM_SHORT_MIN_COLUMNS", "SMALL_GEMM_MIN_ROWS"), 1)
    limits = {"SMALL_GEMM_MACS": small, "PARALLEL_CONV_MACS": 1, **least}
    with thresholds(**memory_limits(memory), **limits):
        close(device.to_host(run_named(name, direction, problem, *arrays)), device.to_host(undivided))


@pytest.mark.parametrize(
    ("macs", "length", "count"),
    [(10_240, 128, 2), (10_240, 256, 4), (12_800, 256, 4), (10_240, 1280, 16), (12_800, 1280, 1), (10, 128, 1)],
)
def test_short_rows_are_cut_finer(macs, length, count):
    """Into 64 columns and more; longer rows into 80 and more."""
    limits = {"SMALL_GEMM_MACS": 10**6, "SMALL_GEMM_MIN_COLUMNS": 80}
    with thresholds(**limits, SMALL_GEMM_SHORT_ROW=256, SMALL_GEMM_SHORT_MIN_COLUMNS=64):
        assert gemm.split_count(macs, length) == count


@pytest.mark.parametrize(
    ("rows", "macs", "count"),
    [
        (128, 8192, 2),
        (128, 12_288, 2),
        (128, 16_384, 1),
        (256, 12_288, 4),
        (120, 8192, 1),
        (130, 8192, 2),
        (31, 12_288, 1),
    ],
)
def test_rows_are_cut_where_the_cache_holds_the_other_operand(rows, macs, count):
    """Into equal blocks of 16 rows and more, whose products are small."""
    with thresholds(SMALL_GEMM_MACS=10**6, SMALL_GEMM_MIN_ROWS=16, SMALL_GEMM_CACHED=12_288):
        assert gemm.split_rows(rows, macs) == count


# ---- derivatives -----------------------------------------------------------------------------------------------------


def to_second_order(function, problem, device, names=()):
    """Values, first and second derivatives of a function of x and w, all computed by the algorithms of those names."""
    x, w, y = problem.values()
    draws = np.random.default_rng(problem.seed)
    directions = [draws.standard_normal(array.shape) for array in (x, w)]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(ndl.conv_algorithm(name))
        return by_needle(function, [x, w], y, directions, device)


PAIRS = tuple(itertools.combinations(NAMES, 2))


@pytest.mark.parametrize("name", NAMES)
@examples(20)
@given(problem=any_problems(batches=(0, 3)))
def test_derivatives_agree_to_second_order(device, name, problem):
    """An algorithm by name against those chosen by shape."""
    function = Correlate(problem.window)
    derivatives = to_second_order(function, problem, device, [name])
    expected = to_second_order(function, problem, device)
    for order, references in zip(derivatives, expected, strict=True):
        for derivative, other in zip(order, references, strict=True):
            close(derivative, other)


# ---- the choice by shape ---------------------------------------------------------------------------------------------


@contextmanager
def recording():
    """The algorithms that run, nested ones as "outer > inner", and "rows" where im2col overlaps rows."""
    ran, within = [], ContextVar("within", default=())  # helper threads inherit the context

    def recorded(name, function):
        def run(*arguments):
            names = (*within.get(), name)
            ran.append(" > ".join(names))
            token = within.set(names)
            try:
                return function(*arguments)
            finally:
                within.reset(token)

        return run

    def columns_for(*arguments):
        columns = im2col.Columns(*arguments)
        if columns.overlap:
            ran.append(" > ".join((*within.get(), "rows")))
        return columns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(im2col, "columns_for", columns_for)
        for name, algorithm in dispatch.ALGORITHMS.items():
            passes = {direction: getattr(algorithm, direction) for direction in PASSES}
            passes = {direction: recorded(name, function) for direction, function in passes.items() if function}
            patch.setitem(dispatch.ALGORITHMS, name, algorithm._replace(**passes))
        yield ran


# name: a problem, its pass, and the algorithms chosen for it on a device with `strided_gemm`
FORWARD, DATA, WEIGHT = PASSES
CHOSEN = {
    "rows that overlap": (problem_of((16, 8, 27, 25), (24, 8, 3, 3), padding=1), FORWARD, "im2col > rows"),
    "rows, large kernel": (problem_of((8, 3, 33, 30), (16, 3, 7, 5), padding=2), FORWARD, "im2col > rows"),
    "rows, stride 2": (problem_of((16, 3, 41, 40), (8, 3, 7, 7), stride=2, padding=3), FORWARD, "im2col > rows"),
    "rows, stride 2 and 3": (problem_of((16, 3, 41, 40), (8, 3, 5, 5), stride=(2, 3)), FORWARD, "im2col > rows"),
    "rows, dilation": (
        problem_of((16, 8, 31, 30), (8, 8, 3, 3), padding=4, dilation=(3, 2)), FORWARD, "im2col > rows",
    ),
    "rows, dilation beside a stride": (
        problem_of((16, 8, 31, 30), (8, 8, 3, 3), stride=(1, 2), dilation=(3, 2)), FORWARD, "im2col > rows",
    ),
    "rows, groups": (problem_of((16, 16, 27, 25), (24, 4, 3, 3), padding=1, groups=4), FORWARD, "im2col > rows"),
    "rows, depthwise": (problem_of((16, 16, 27, 60), (16, 1, 3, 3), padding=1, groups=16), FORWARD, "im2col > rows"),
    "rows, 1-d": (problem_of((40, 16, 501), (32, 16, 9), padding=4), FORWARD, "im2col > rows"),
    "rows, 3-d": (problem_of((4, 3, 13, 12, 11), (8, 3, 3, 3, 3), padding=1), FORWARD, "im2col > rows"),
    "rows, 3-d, stride 2": (problem_of((4, 3, 33, 12, 11), (8, 3, 5, 3, 3), stride=2), FORWARD, "im2col > rows"),
    "no rows: small": (problem_of((2, 3, 6, 6), (8, 3, 3, 3), padding=1), FORWARD, "im2col"),
    "no rows: many out-channels": (problem_of((1, 3, 12, 40), (512, 3, 3, 3)), FORWARD, "im2col"),
    "no rows: stride and dilation": (
        problem_of((16, 8, 41, 40), (8, 8, 3, 3), stride=2, dilation=2), FORWARD, "im2col",
    ),
    "no rows: 1x1": (problem_of((16, 8, 27, 25), (24, 8, 1, 1)), FORWARD, "im2col"),
    "weight by rows": (problem_of((16, 3, 27, 25), (24, 3, 5, 5), padding=1), WEIGHT, "im2col > rows"),
    "weight by rows, stride 2": (problem_of((16, 3, 41, 40), (8, 3, 7, 7), stride=2), WEIGHT, "im2col > rows"),
    "weight by rows, dilation": (problem_of((16, 3, 31, 30), (8, 3, 3, 3), dilation=3), WEIGHT, "im2col > rows"),
    "weight by rows, depthwise": (
        problem_of((24, 16, 27, 25), (16, 1, 3, 3), stride=(1, 2), groups=16), WEIGHT, "im2col > rows",
    ),
    "weight by rows, 1-d": (problem_of((300, 3, 101), (32, 3, 9), padding=4), WEIGHT, "im2col > rows"),
    "weight by rows, 3-d": (problem_of((4, 3, 13, 12, 11), (8, 3, 3, 3, 3)), WEIGHT, "im2col > rows"),
    "weight by columns": (problem_of((2, 3, 6, 6), (8, 3, 3, 3), padding=1), WEIGHT, "im2col"),
    "phases of one": (problem_of((4, 8, 15, 14), (16, 8, 3, 3), padding=1), DATA, "polyphase > im2col > rows"),
    "phases of 4": (
        problem_of((64, 16, 28, 27), (32, 16, 3, 3), stride=2, padding=1), DATA, "polyphase > im2col > rows",
    ),
    "phases of 9": (problem_of((64, 16, 40, 42), (32, 16, 5, 5), stride=3), DATA, "polyphase > im2col"),
    "phases, dilation shares a factor": (
        problem_of((64, 16, 30, 31), (16, 16, 3, 3), stride=2, padding=2, dilation=2), DATA, "polyphase > im2col",
    ),
    "phases, stride 4 and dilation 6": (
        problem_of((16, 64, 60, 61), (64, 32, 3, 3), stride=4, padding=6, dilation=6), DATA, "polyphase > im2col",
    ),
    "phases, kernel below the stride": (
        problem_of((64, 64, 30, 31), (64, 64, 2, 2), stride=3), DATA, "polyphase > im2col",
    ),
    "phases, unequal": (
        problem_of((64, 32, 30, 31), (32, 32, 1, 4), stride=(2, 1), padding=(0, 3)), DATA, "polyphase > im2col",
    ),
    "phases, padding beyond the kernel": (
        problem_of((32, 32, 12, 13), (32, 32, 2, 3), stride=2, padding=(5, 7)), DATA, "polyphase > im2col",
    ),
    "phases, groups": (
        problem_of((64, 32, 28, 27), (64, 8, 3, 3), stride=2, padding=1, groups=4), DATA, "polyphase > im2col",
    ),
    "phases, 1-d": (problem_of((64, 32, 500), (32, 32, 9), stride=2, padding=4), DATA, "polyphase > im2col"),
    "phases, 3-d": (problem_of((8, 8, 12, 13, 11), (16, 8, 3, 3, 3), padding=1), DATA, "polyphase > im2col"),
    "col2im: few channels": (problem_of((64, 3, 28, 27), (32, 3, 3, 3), padding=1), DATA, "col2im"),
    "col2im: small phases": (problem_of((4, 8, 15, 14), (16, 8, 3, 3), stride=2), DATA, "col2im"),
    "tiles": (problem_of((16, 64, 15, 13), (64, 64, 3, 3), padding=1), FORWARD, "winograd"),
    "tiles, dilation": (problem_of((16, 64, 19, 18), (64, 64, 3, 3), dilation=2), FORWARD, "winograd"),
    "tiles, 2x3": (problem_of((16, 64, 17, 18), (64, 64, 2, 3)), FORWARD, "winograd"),
    "tiles, 1-d": (problem_of((16, 128, 101), (160, 128, 3), padding=1), FORWARD, "winograd"),
    "few channels for tiles, 1-d": (problem_of((32, 64, 101), (96, 64, 3), padding=1), FORWARD, "im2col > rows"),
    "tiles, 3-d": (problem_of((1, 128, 7, 8, 8), (128, 128, 3, 3, 3), padding=1), FORWARD, "winograd"),
    "input gradient by tiles": (
        problem_of((16, 64, 15, 13), (64, 64, 3, 3), padding=1), DATA, "polyphase > winograd",
    ),
    "input gradient by tiles, 1-d": (
        problem_of((16, 128, 101), (160, 128, 3), padding=1), DATA, "polyphase > winograd",
    ),
    "input gradient by tiles of phases": (
        problem_of((16, 96, 29, 30), (96, 96, 5, 5), stride=2, padding=2), DATA, "polyphase > winograd",
    ),
    "banded": (problem_of((16, 16, 27, 25), (16, 1, 3, 3), padding=1, groups=16), FORWARD, "toeplitz"),
    "banded, stride 2": (problem_of((16, 8, 9, 8), (8, 1, 5, 3), stride=2, padding=4, groups=8), FORWARD, "toeplitz"),
    "banded, dilation": (
        problem_of((16, 8, 9, 8), (8, 1, 3, 3), dilation=(1, 3), padding=2, groups=8), FORWARD, "toeplitz",
    ),
    "input gradient by banded matrices": (
        problem_of((16, 16, 27, 25), (16, 1, 3, 3), padding=1, groups=16), DATA, "polyphase > toeplitz",
    ),
    "weight by tiles": (problem_of((16, 64, 15, 13), (64, 64, 3, 3), padding=1), WEIGHT, "winograd"),
    "weight by tiles, dilation": (problem_of((16, 64, 19, 18), (64, 64, 3, 3), dilation=2), WEIGHT, "winograd"),
    "weight by tiles, 3-d": (problem_of((1, 128, 7, 8, 8), (128, 128, 3, 3, 3), padding=1), WEIGHT, "winograd"),
    "weight by taps": (problem_of((20, 16, 15, 14), (32, 16, 3, 3), padding=1), WEIGHT, "taps"),
    "weight by taps, stride 2 in the rows": (
        problem_of((20, 16, 17, 14), (32, 16, 3, 3), stride=(2, 1), padding=1), WEIGHT, "taps",
    ),
    "weight by taps, dilation": (problem_of((40, 16, 15, 14), (32, 16, 2, 3), dilation=(2, 3)), WEIGHT, "taps"),
    "weight by taps, groups": (problem_of((20, 32, 15, 14), (64, 16, 3, 3), padding=1, groups=2), WEIGHT, "taps"),
    "weight by taps, depthwise": (
        problem_of((16, 16, 27, 25), (16, 1, 3, 3), padding=1, groups=16), WEIGHT, "taps",
    ),
    "weight by taps, 1-d": (problem_of((8, 16, 1024), (32, 16, 9), padding=4), WEIGHT, "taps"),
    "weight by taps, 3-d": (problem_of((40, 12, 9, 8, 7), (12, 12, 3, 3, 3), padding=1), WEIGHT, "taps"),
}  # fmt: skip


def chosen(device, direction, path):
    """The algorithms for a problem of `CHOSEN` on a device; there are fewer where matmul copies strided operands."""
    if device.strided_gemm:
        return path
    path = re.sub("> (winograd|toeplitz)", "> im2col", path.replace(" > rows", ""))
    return path if direction == "backward_data" else "im2col"


@cache
def chosen_reference(name):
    """The arguments of a row of CHOSEN, with a bias if forward, and what torch computes."""
    problem, direction, _ = CHOSEN[name]
    arrays = problem.values(dtype="float32")
    if direction == "forward":
        arrays += (np.arange(problem.out_channels).astype("float32"),)
    return arrays, reference(direction, problem, *arrays)


@pytest.mark.parametrize("name", CHOSEN)
def test_the_algorithm_chosen_by_shape_is_reached_and_correct(device, name):
    problem, direction, path = CHOSEN[name]
    arrays, expected = chosen_reference(name)
    with recording() as ran:
        result = pass_by_needle(direction, problem, *map(device.asarray, arrays))
    if str(device) == "cuda()":  # which has kernels of its own for most of them
        assert set(ran) <= {chosen(device, direction, path)}
    else:
        assert chosen(device, direction, path) in ran
        outermost, _, inner = chosen(device, direction, path).partition(" > ")
        assert {way.split(" > ")[0] for way in ran} == {outermost}
        assert inner or not any("rows" in way for way in ran)
    assert (result.shape, result.dtype) == (expected.shape, "float32")
    atol = 1e-5 if "winograd" in path else 3e-6
    assert_allclose(device.to_host(result), expected, rtol=0, atol=atol * abs(expected).max())


EAGER = {  # thresholds that send small problems down the paths of large ones
    "OVERLAP_MIN_ROW_FORWARD": 1, "OVERLAP_MIN_ROW_BACKWARD_WEIGHT": 1, "KERNEL_REORDER_COST": 0,
    "SMALL_GEMM_MACS": 40, "SMALL_GEMM_MIN_COLUMNS": 1, "SMALL_GEMM_SHORT_MIN_COLUMNS": 1, "SMALL_GEMM_MIN_ROWS": 1,
    "PARALLEL_CONV_MACS": 1,
    "WINOGRAD_MIN_MACS": 1, "WINOGRAD_PRODUCT_COST": 1, "WINOGRAD_TRANSFORM_COST": 0, "WINOGRAD_MAX_COST": 3,
    "TAPS_MIN_ROW": 1, "TAPS_MIN_CHANNELS": 1, "TAPS_MAX_CHANNEL_PAIRS": 10**6,
    "POLYPHASE_MIN_IN_CHANNELS": 0, "POLYPHASE_MIN_MACS": 1, "PADDED_PARTS_BYTES": 1, "ONE_IMAGE_BYTES": 2000,
    "TOEPLITZ_MAX_TERMS": 10**6, "TOEPLITZ_MIN_BATCH": 1, **memory_limits(2000),
}  # fmt: skip


@pytest.mark.parametrize("direction", PASSES)
def test_small_problems_take_every_path(device, direction):
    seen = set()

    @examples(100)
    @given(
        problem=st.one_of(any_problems(), depthwise()),
        dtype=st.sampled_from(["float64", "float32"]),
        orders=st.tuples(*[orders] * 3),
    )
    def run(problem, dtype, orders):
        values = problem.values(dtype=dtype)
        arrays = [arrange(array, order, device) for array, order in zip(values, orders, strict=True)]
        expected = reference(direction, problem, *(np.array(device.to_host(array), "float64") for array in arrays))
        with thresholds(**EAGER), recording() as ran:
            result = pass_by_needle(direction, problem, *arrays)
        seen.update(ran)
        rtol, atol = PRECISION[dtype]
        assert_allclose(device.to_host(result), expected, rtol=rtol, atol=atol)

    run()
    ways = {path for _, of, path in CHOSEN.values() if of == direction}
    assert seen >= {chosen(device, direction, path) for path in ways}


def test_both_gradients_by_one_pass_are_those_of_two(device):
    """By overlapping rows and by tiles, and where each takes a pass of its own."""
    seen = set()

    @examples(100)
    @given(
        problem=any_problems(),
        dtype=st.sampled_from(["float64", "float32"]),
        orders=st.tuples(*[orders] * 3),
    )
    def run(problem, dtype, orders):
        values = problem.values(dtype=dtype)
        x, w, y = (arrange(array, order, device) for array, order in zip(values, orders, strict=True))
        wide = [np.array(device.to_host(array), "float64") for array in (x, w, y)]
        with thresholds(**EAGER, LANES_MAX_ROW=1, POLYPHASE_MAX_EXTRA_MACS=10**6):
            if device.strided_gemm:
                plan = dispatch._gradients_plan(x.shape, w.shape, y.shape, problem.window, (x.dtype,) * 3)
                seen.add(plan and plan.algorithm)
            results = kernels.correlate_gradients(x, w, y, problem.window)
        rtol, atol = PRECISION[dtype]
        for direction, result in zip(("backward_data", "backward_weight"), results, strict=True):
            assert_allclose(device.to_host(result), reference(direction, problem, *wide), rtol=rtol, atol=atol)

    run()
    assert not device.strided_gemm or seen == {None, "im2col", "winograd"}


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("weight by taps", "im2col"),
        ("weight by tiles", "winograd"),
        ("weight by taps, 1-d", None),
        ("phases of 4", None),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_large_gradients_by_one_pass(name, algorithm, workers):
    problem = CHOSEN[name][0]
    x, w, y = problem.values(dtype="float32")
    plan = dispatch._gradients_plan(x.shape, w.shape, y.shape, problem.window, (x.dtype,) * 3)
    assert (plan and plan.algorithm) == algorithm
    with threadpool_limits(workers, "blas"):
        results = kernels.correlate_gradients(x, w, y, problem.window)
    for direction, result in zip(("backward_data", "backward_weight"), results, strict=True):
        expected = reference(direction, problem, x, w, y)
        assert_allclose(result, expected, rtol=0, atol=1e-5 * abs(expected).max())


@EACH
def test_columns_do_not_overlap_where_products_copy_them(direction, name):
    """On a device without `strided_gemm`; every algorithm still runs there by name."""
    problem = REAL["first layer"]
    arrays = problem.values()
    with pytest.MonkeyPatch.context() as patch, recording() as ran:
        patch.setattr(ndl.cpu(), "strided_gemm", False)
        result = run_named(name, direction, problem, *arrays)
    assert not any("rows" in way for way in ran)
    close(result, reference(direction, problem, *arrays))


# ---- rounding --------------------------------------------------------------------------------------------------------


def rounding(name, direction, problem):
    """The root mean square of the errors in float32, divided by the root mean square of the values."""
    arrays = problem.values(dtype="float32")
    exact = reference(direction, problem, *arrays)
    error = run_named(name, direction, problem, *arrays) - exact
    return np.sqrt((error**2).mean() / (exact**2).mean())


@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize(
    ("most", "problem"),
    [
        (3, problem_of((8, 64, 256), (64, 64, 3))),
        (3, problem_of((8, 64, 256), (64, 64, 2))),
        (7, problem_of((8, 64, 16, 16), (64, 64, 3, 3), padding=1)),
        (7, problem_of((8, 64, 16, 16), (64, 64, 2, 3))),
        (7, problem_of((2, 256, 14, 14), (256, 256, 3, 3), padding=1)),
        (15, problem_of((1, 64, 8, 8, 8), (64, 64, 3, 3, 3), padding=1)),
    ],
    ids=lambda value: str(getattr(value, "w_shape", value)),
)
def test_the_rounding_errors_of_tiles_are_a_small_multiple(direction, most, problem):
    """At most 3 times the error of the plain sum along one axis, 7 along two, 15 along three."""
    assert rounding("winograd", direction, problem) < most * rounding(
        "col2im" if direction == "backward_data" else "im2col", direction, problem
    )


def test_the_points_of_tiles_halve_the_rounding_errors(monkeypatch):
    """Half the error of the obvious points 0, 1, -1, 2, -2."""
    problem = problem_of((8, 64, 16, 16), (64, 64, 3, 3), padding=1)
    result = {direction: rounding("winograd", direction, problem) for direction in PASSES}
    monkeypatch.setattr(winograd, "POINTS", (0, 1, -1, 2, -2))
    winograd.matrices.cache_clear()
    try:
        for direction, error in result.items():
            assert rounding("winograd", direction, problem) > 1.8 * error
    finally:
        winograd.matrices.cache_clear()


def test_double_precision_keeps_the_plain_sum():
    problem, _, _ = CHOSEN["tiles"]
    with recording() as ran:
        for direction in PASSES:
            pass_by_needle(direction, problem, *problem.values())
    assert "winograd" not in str(ran)


# ---- threads ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[3])
def count(request):
    """BLAS with that number of threads; needle uses as many."""
    with threadpool_limits(request.param, user_api="blas"):
        if blas.worker_count() != request.param:
            pytest.skip("no BLAS whose threads can be set")
        yield request.param


def assert_the_same_with_threads(compute):
    """Threads give the same to rounding as one thread, and the same bits every time."""
    result = compute()
    with threadpool_limits(1, user_api="blas"):
        alone = compute()
    assert_allclose(result, alone, rtol=0, atol=1e-5 * abs(alone).max())
    assert compute().tobytes() == result.tobytes()


@EACH
def test_threads_give_the_same(count, direction, name):
    with thresholds(**memory_limits(1 << 15), PARALLEL_CONV_MACS=1):
        for problem in REAL.values():
            arrays = problem.values(dtype="float32")
            assert_the_same_with_threads(lambda: run_named(name, direction, problem, *arrays))  # noqa: B023


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("count", [2], indirect=True)
def test_threads_give_the_same_by_shape(count, name):
    problem, direction, _ = CHOSEN[name]
    arrays = problem.values(dtype="float32")
    assert_the_same_with_threads(lambda: pass_by_needle(direction, problem, *arrays))


# ---- the choice by name ----------------------------------------------------------------------------------------------


@pytest.fixture
def calls():
    """The names of the algorithms that ran, in order, without those that ran within another."""

    class Outermost:
        def __init__(self, ran):
            self.ran = ran

        def __call__(self):
            """The names since the last call."""
            names = [way for way in self.ran if " > " not in way]
            self.ran.clear()
            return names

    with recording() as ran:
        yield Outermost(ran)


def step(device, *, stride=1, groups=1, kernel=3):
    """One convolution and its backward pass."""
    x, w = np.random.randn(2, 4, 6, 5), np.random.randn(8, 4 // groups, kernel, kernel)
    x, w = ndl.Tensor(x, device=device), ndl.Tensor(w, device=device)
    y = ndl.conv2d(x, w, stride=stride, padding=1, groups=groups)
    y.sum().backward(create_graph=False)
    return y, x.grad, w.grad


def default_step(device, calls, **options):
    """The algorithms that a step runs, chosen by shape."""
    calls()
    step(device, **options)
    return calls()


def named(name, default):
    """The algorithms that a step runs under a name; passes that the name lacks use the choice by shape."""
    return [name if name in names else other for names, other in zip(IMPLEMENTED.values(), default, strict=True)]


def test_every_algorithm_has_its_tests():
    for direction, names in IMPLEMENTED.items():
        assert [name for name, entry in dispatch.ALGORITHMS.items() if getattr(entry, direction)] == [*names]
    assert tuple(PASSES) == dispatch.PASSES


def test_the_documented_table_lists_every_algorithm():
    rows = [line.split("|")[1:-1] for line in kernels.conv_algorithm.__doc__.splitlines() if " | " in line][2:]
    listed = {name.strip(): [bool(cell.strip()) for cell in cells] for name, *cells in rows}
    assert listed == {name: [name in names for names in IMPLEMENTED.values()] for name in dispatch.ALGORITHMS}


@pytest.mark.on_cpu
@pytest.mark.parametrize(  # the layer of a step is not depthwise, as toeplitz needs it
    "names", [pair for pair in itertools.permutations(NAMES, 2) if "toeplitz" not in pair], ids=" and ".join
)
def test_only_the_named_algorithms_run(device, calls, names):
    for groups in (1,) if "winograd" in names else (1, 2, 4):  # winograd has no groups
        expected = default_step(device, calls, groups=groups)
        for name in names:
            expected = named(name, expected)
        with ndl.conv_algorithm(names[0]), ndl.conv_algorithm(names[1]):
            step(device, groups=groups)
        assert calls() == expected, f"groups={groups}"


@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 2}, {"kernel": 4}], ids=str)
def test_unsupported_shapes_fall_back_from_winograd(device, calls, options):
    default = default_step(device, calls, **options)
    with ndl.conv_algorithm("winograd"):
        step(device, **options)
    assert calls() == default


MODULES = {"tensordot": "reference", "convolution": "reference"}  # others have the name of their algorithm


@EACH
def test_a_named_algorithm_enters_its_own_functions_only(device, direction, name):
    """The pass of that algorithm's module is entered, and no other module's."""
    marks = {other: (MODULES.get(other, other), direction) for other in IMPLEMENTED[direction]}
    if direction == "backward_data":
        marks["winograd"] = ("winograd", "forward")  # within polyphase
    entered = set()

    def profile(frame, event, argument):
        entered.add((frame.f_globals.get("__name__", "").rpartition(".")[2], frame.f_code.co_name))

    problem = problem_of((2, 3, 5, 5), (4, 3, 3, 3), padding=1)
    if name == "toeplitz":  # depthwise only
        problem = problem_of((2, 3, 5, 5), (3, 1, 3, 3), padding=1, groups=3)
    arrays = [device.asarray(array) for array in problem.values()]
    sys.setprofile(profile)
    try:
        run_named(name, direction, problem, *arrays)
    finally:
        sys.setprofile(None)
    ran = [other for other, mark in marks.items() if mark in entered]
    assert ran == (["winograd", "polyphase"] if (direction, name) == ("backward_data", "winograd") else [name])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_without_a_name_each_pass_is_chosen_by_shape(device, calls, groups, stride):
    result = default_step(device, calls, groups=groups, stride=stride)
    for name, names in zip(result, IMPLEMENTED.values(), strict=True):
        assert name in names


def test_names_nest_and_are_restored(device, calls):
    default = default_step(device, calls)
    result = []
    with ndl.conv_algorithm("tensordot"):
        with ndl.conv_algorithm("taps"), ndl.conv_algorithm("convolution"):
            step(device)
            result.append(calls())
        step(device)
        result.append(calls())
        with ndl.conv_algorithm("col2im"):
            step(device)
            result.append(calls())
    step(device)
    assert [*result, calls()] == [
        ["taps", "convolution", "convolution"],
        ["tensordot", *default[1:]],
        ["tensordot", "col2im", default[2]],
        default,
    ]


@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
def test_names_are_restored_after_an_exception(device, calls, names):
    default = default_step(device, calls)
    with pytest.raises(ZeroDivisionError), ndl.conv_algorithm(names[0]), ndl.conv_algorithm(names[1]):
        raise ZeroDivisionError
    assert default_step(device, calls) == default


def test_a_refused_name_changes_nothing(device, calls):
    with ndl.conv_algorithm("tensordot"):
        with pytest.raises(ValueError, match="conv_algorithm"), ndl.conv_algorithm("fft"):
            pytest.fail("the block must not run")
        step(device)
    assert calls()[0] == "tensordot"


@pytest.mark.parametrize(
    ("former", "name"), [("contraction", "tensordot"), ("phases", "polyphase"), ("fold", "col2im")]
)
def test_former_names_keep_working(device, calls, former, name):
    with ndl.conv_algorithm(name):
        step(device)
    expected = calls()
    with ndl.conv_algorithm(former):
        step(device)
    assert name in expected
    assert calls() == expected


@pytest.mark.parametrize("name", ["fft", "IM2COL", "", None, 3, ["taps"], ("col2im", "taps")])
def test_another_name_is_refused(name):
    names = ", ".join(map(repr, dispatch.ALGORITHMS))
    rule = f"conv_algorithm: name must be one of {names}, but got {name!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"), ndl.conv_algorithm(name):
        pytest.fail("the block must not run")


def test_a_name_may_decorate_a_function(device, calls):
    default = default_step(device, calls)
    decorated = ndl.conv_algorithm("tensordot")(step)
    for _ in range(2):
        decorated(device)
        assert calls() == ["tensordot", *default[1:]]
    assert default_step(device, calls) == default


def test_a_name_holds_for_its_thread_only(device, calls):
    """A thread does not see the name set by the one that started it, nor the other way round."""
    begun, done = threading.Event(), threading.Event()
    seen = {}

    def work():
        seen["inherited"] = default_step(device, calls)
        with ndl.conv_algorithm("taps"), ndl.conv_algorithm("convolution"):
            begun.set()
            done.wait(10)
            seen["own"] = default_step(device, calls)

    default = default_step(device, calls)
    with ndl.conv_algorithm("tensordot"):
        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(10)
        seen["while the other has a name"] = default_step(device, calls)
        done.set()
        thread.join(10)
    assert seen == {
        "inherited": default,
        "while the other has a name": ["tensordot", *default[1:]],
        "own": ["taps", "convolution", "convolution"],
    }


def test_the_name_is_looked_up_when_a_pass_runs(device, calls):
    """The forward pass and the backward pass each use the name in effect when they run."""
    x = ndl.Tensor(np.random.randn(1, 2, 5), device=device)
    w = ndl.Tensor(np.random.randn(3, 2, 3), device=device)
    with ndl.conv_algorithm("taps"), ndl.conv_algorithm("col2im"):
        y = ndl.conv1d(x, w)
    with ndl.conv_algorithm("convolution"):
        y.sum().backward()
    assert calls() == ["taps", "convolution", "convolution"]


@given(problem=problems(symmetric=True))
def test_equal_windows_give_equal_results_whatever_their_groups(device, problem):
    """A depthwise convolution, and the dense one with the same kernel on the diagonal, which takes other algorithms."""
    groups = problem.window.groups
    problem = replace(problem, channels=groups, window=problem.window)
    x, w, y = problem.values()
    block = np.zeros((problem.out_channels, groups, *problem.kernel))
    share = problem.out_channels // groups
    for o in range(problem.out_channels):
        block[o, o // share] = w[o, 0]
    dense = replace(problem.window, groups=1)
    result = kernels.correlate(device.asarray(x), device.asarray(w), problem.window)
    expected = kernels.correlate(device.asarray(x), device.asarray(block), dense)
    close(device.to_host(result), device.to_host(expected))
    result = kernels.correlate_transpose(device.asarray(y), device.asarray(w), problem.window, problem.size)
    expected = kernels.correlate_transpose(device.asarray(y), device.asarray(block), dense, problem.size)
    close(device.to_host(result), device.to_host(expected))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_banded_product_spreads_nan_along_rows_of_one_channel_of_one_image_only(value):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((16, 4, 9, 8)).astype("float32"), rng.standard_normal((4, 1, 3, 3)).astype("float32")
    window = kernels.Window((1, 1), ((1, 1), (1, 1)), (1, 1), 4)
    results = []
    for bad in (None, value):
        x[5, 2, 4, 3] = x[5, 2, 4, 3] if bad is None else bad
        with kernels.conv_algorithm("toeplitz"), np.errstate(invalid="ignore"):
            results.append(kernels.correlate(x, w, window))
    before, after = results
    assert not np.isfinite(after[5, 2, 3:6, 2:5]).any()
    after[5, 2, 3:6] = before[5, 2, 3:6]
    np.testing.assert_array_equal(after, before)
