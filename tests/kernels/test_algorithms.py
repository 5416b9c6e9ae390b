"""Every algorithm of the convolution, by name: held against loops, to second order against each other, and chosen."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import kernels
from needle.kernels import Window, convolution
from needle.ops import Correlate
from tests.kernels.windows import Problem, arrange, orders, problems
from tests.ops.derivatives import by_needle

FORWARD = ("im2col", "taps", "contraction")
BACKWARD = ("fold", "convolution")
NAMES = (*FORWARD, *BACKWARD)
PAIRS = tuple(itertools.product(FORWARD, BACKWARD))
close = partial(assert_allclose, rtol=1e-10, atol=1e-10)


def products(name, problem, x, w, y):
    """What the algorithm of that name computes: y of the forward ones, x and w of the backward ones."""
    window = problem.window
    with ndl.conv_algorithm(name):
        if name in FORWARD:
            return (kernels.correlate(x, w, window),)
        return (
            kernels.correlate_transpose(y, w, window, problem.size),
            kernels.correlate_weight(x, y, window, problem.kernel),
        )


def products_by_loops(name, problem, x, w, y):
    """The same by the definition: over all outputs and kernel elements, whichever element of the input they meet."""
    window = problem.window
    per_group, out_per_group = problem.channels // window.groups, problem.out_channels // window.groups
    found_y, found_x, found_w = np.zeros(problem.y_shape), np.zeros(problem.x_shape), np.zeros(problem.w_shape)
    axes = list(zip(window.stride, window.dilation, window.padding, strict=True))
    for p, k in itertools.product(np.ndindex(problem.output), np.ndindex(problem.kernel)):
        place = [s * i + d * j - before for i, j, (s, d, (before, _)) in zip(p, k, axes, strict=True)]
        if not all(0 <= i < n for i, n in zip(place, problem.size, strict=True)):
            continue  # padding
        for o, c in np.ndindex(problem.w_shape[:2]):
            at_x = (slice(None), o // out_per_group * per_group + c, *place)
            at_w, at_y = (o, c, *k), (slice(None), o, *p)
            found_y[at_y] += x[at_x] * w[at_w]
            found_x[at_x] += y[at_y] * w[at_w]
            found_w[at_w] += (x[at_x] * y[at_y]).sum()
    return (found_y,) if name in FORWARD else (found_x, found_w)


# The error of sums of at most a few hundred terms of size 1; half precision rounds once more, in the end.
PRECISION = {"float64": (1e-12, 1e-11), "float32": (1e-5, 1e-4), "float16": (2**-10, 1e-4)}


@pytest.mark.parametrize("name", NAMES)
@given(problem=problems(batches=(0, 3)), orders=st.tuples(orders, orders, orders), dtype=st.sampled_from([*PRECISION]))
def test_each_is_the_loops(device, name, problem, orders, dtype):
    values = problem.values(dtype=dtype)
    arrays = [arrange(array, order, device) for array, order in zip(values, orders, strict=True)]
    exact = [np.array(device.to_host(array), "float64") for array in arrays]
    rtol, atol = PRECISION[dtype]
    found, expected = products(name, problem, *arrays), products_by_loops(name, problem, *exact)
    for result, loops in zip(found, expected, strict=True):
        assert result.shape == loops.shape
        assert result.dtype == dtype
        assert_allclose(device.to_host(result), loops, rtol=rtol, atol=atol)


# Shapes as in networks: more than one block of columns, and batches that are not a handful.
REAL = {
    "first layer": Problem(Window((1, 1), ((1, 1), (1, 1)), (1, 1)), 32, 1, 8, (28, 28), (3, 3), (28, 28)),
    "3x3": Problem(Window((1, 1), ((1, 1), (1, 1)), (1, 1)), 16, 16, 24, (15, 9), (3, 3), (15, 9)),
    "3x3 at stride 2": Problem(Window((2, 2), ((1, 1), (1, 1)), (1, 1)), 16, 16, 24, (16, 15), (3, 3), (8, 8)),
    "1x1": Problem(Window((1, 1), ((0, 0), (0, 0)), (1, 1)), 16, 32, 64, (14, 14), (1, 1), (14, 14)),
    "one large image": Problem(Window((1, 1), ((2, 2), (2, 2)), (1, 1)), 1, 3, 8, (97, 61), (5, 5), (97, 61)),
    "depthwise": Problem(Window((1, 1), ((1, 1), (1, 1)), (1, 1), 32), 16, 32, 32, (17, 17), (3, 3), (17, 17)),
    "two per channel": Problem(Window((2, 2), ((1, 1), (1, 1)), (1, 1), 32), 16, 32, 64, (17, 17), (3, 3), (9, 9)),
    "one line": Problem(Window((1,), ((8, 8),), (2,), 2), 4, 8, 8, (6000,), (9,), (6000,)),
    "3-d": Problem(Window((1, 1, 1), ((1, 1),) * 3, (1, 1, 1)), 4, 4, 8, (9, 8, 7), (3, 3, 3), (9, 8, 7)),
    "patches": Problem(Window((8, 8), ((0, 0), (0, 0)), (1, 1)), 4, 3, 24, (32, 32), (8, 8), (4, 4)),
}


@pytest.mark.parametrize("shapes", REAL)
def test_they_agree_on_shapes_as_in_networks(device, shapes):
    problem = REAL[shapes]
    arrays = [device.asarray(array) for array in problem.values(dtype="float32")]
    exact = [device.asarray(device.to_host(array).astype("float64")) for array in arrays]
    for names in (FORWARD, BACKWARD):
        expected = products(names[0], problem, *exact)
        for name in names:
            for result, reference in zip(products(name, problem, *arrays), expected, strict=True):
                reference = device.to_host(reference)
                assert result.dtype == "float32"
                assert_allclose(device.to_host(result), reference, rtol=0, atol=3e-6 * abs(reference).max())


@pytest.mark.parametrize("name", FORWARD)
@given(problem=problems(), place=st.integers(0, 100))
def test_an_infinity_reaches_only_what_it_meets(device, name, problem, place):
    """Padding, what a stride leaves over and what is computed beyond the output's edges do not reach the result."""
    x, w, y = problem.values()
    x, w = abs(x) + 1, abs(w) + 1
    x.flat[place % x.size] = np.inf
    (found,) = products(name, problem, device.asarray(x), device.asarray(w), device.asarray(y))
    (met,) = products_by_loops(name, problem, np.isinf(x).astype(float), np.ones_like(w), y)
    assert_array_equal(np.isinf(device.to_host(found)), met > 0)
    assert not np.isnan(device.to_host(found)).any()


@pytest.mark.parametrize("name", NAMES)
@given(problem=problems(), orders=st.tuples(*[orders.filter(lambda order: order != "broadcast")] * 3))
def test_arguments_are_only_read_and_results_have_memory_of_their_own(device, name, problem, orders):
    arrays = [arrange(array, order, device) for array, order in zip(problem.values(), orders, strict=True)]
    before = [np.array(device.to_host(array)) for array in arrays]
    results = products(name, problem, *arrays)
    for array, values in zip(arrays, before, strict=True):
        assert_array_equal(device.to_host(array), values)
    kept = [np.array(device.to_host(result)) for result in results]
    products(name, problem, *(array + 1 for array in arrays))
    for array in arrays:
        array[...] = 7
    for result, values in zip(results, kept, strict=True):
        assert_array_equal(device.to_host(result), values)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)])
@pytest.mark.parametrize(("channels", "out_channels"), [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_a_sum_over_no_channels_is_zero(device, name, kernel, channels, out_channels):
    output = (6 - kernel[0], 6 - kernel[1])
    problem = Problem(Window((1, 1), ((0, 0), (0, 0)), (1, 1), 2), 3, channels, out_channels, (5, 5), kernel, output)
    for result, expected in zip(
        products(name, problem, *map(device.asarray, problem.values())),
        [problem.y_shape] if name in FORWARD else [problem.x_shape, problem.w_shape],
        strict=True,
    ):
        assert_array_equal(device.to_host(result), np.zeros(expected))


# ---- memory ----------------------------------------------------------------------------------------------------------


def limit_memory(monkeypatch, size):
    """Set how many bytes a kernel works on at a time, wherever one keeps such a limit."""
    modules = [module for name, module in sys.modules.items() if name.startswith("needle.kernels.")]
    limits = [(m, name) for m in modules for name in ("BLOCK_BYTES", "CHUNK_BYTES") if hasattr(m, name)]
    for module, name in limits:
        monkeypatch.setattr(module, name, size)
    return {name for _, name in limits}


@pytest.mark.parametrize("name", NAMES)
@given(problem=problems(batches=(0, 3)), size=st.sampled_from([1, 100, 300, 1000, 3000]))
def test_pieces_of_any_size_give_the_same(device, name, problem, size):
    arrays = [device.asarray(array) for array in problem.values()]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert limit_memory(monkeypatch, 1 << 40) == {"BLOCK_BYTES", "CHUNK_BYTES"}
        whole = products(name, problem, *arrays)
        limit_memory(monkeypatch, size)
        for result, expected in zip(products(name, problem, *arrays), whole, strict=True):
            close(device.to_host(result), device.to_host(expected))


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


@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
@given(problem=problems(batches=(0, 3)))
def test_derivatives_agree_to_second_order(device, names, problem):
    """By default, chosen by shape, and by name."""
    function = Correlate(problem.window)
    found = to_second_order(function, problem, device, names)
    expected = to_second_order(function, problem, device)
    for order, references in zip(found, expected, strict=True):
        for result, reference in zip(order, references, strict=True):
            close(result, reference)


# ---- the choice ------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The names of the algorithms that have run, in order; a backward one comes once for each of its two products."""
    ran = []

    def recorded(name, product):
        def run(*arguments):
            ran.append(name)
            return product(*arguments)

        return run

    for name, product in convolution.FORWARD.items():
        monkeypatch.setitem(convolution.FORWARD, name, recorded(name, product))
    for name, pair in convolution.BACKWARD.items():
        monkeypatch.setitem(convolution.BACKWARD, name, tuple(recorded(name, product) for product in pair))
    return ran


def step(device, *, groups=1):
    """One convolution and its backward pass."""
    x, w = np.random.randn(2, 4, 6, 5), np.random.randn(8, 4 // groups, 3, 3)
    x, w = ndl.Tensor(x, device=device), ndl.Tensor(w, device=device)
    y = ndl.conv2d(x, w, stride=2, padding=1, groups=groups)
    y.sum().backward(create_graph=False)
    return y, x.grad, w.grad


def test_every_algorithm_has_its_tests():
    assert set(convolution.FORWARD) == set(FORWARD)
    assert set(convolution.BACKWARD) == set(BACKWARD)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_the_named_one_runs_and_no_other(device, calls, forward, backward, groups):
    with ndl.conv_algorithm(forward), ndl.conv_algorithm(backward):
        step(device, groups=groups)
    assert calls == [forward, backward, backward]


MARKS = {  # a function of the kernels that only this algorithm calls
    "im2col": ("columns", "correlate"),
    "taps": ("alternatives", "correlate_by_taps"),
    "contraction": ("alternatives", "correlate_by_contraction"),
    "fold": ("columns", "correlate_weight"),
    "convolution": ("alternatives", "weight_by_convolution"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_what_it_says(device, name):
    """Of the functions that mark an algorithm exactly the right ones are entered, however they are reached."""
    entered = set()

    def profile(frame, event, argument):
        entered.add((frame.f_globals["__name__"].rpartition(".")[2], frame.f_code.co_name))

    problem = Problem(Window((1, 1), ((1, 1), (1, 1)), (1, 1)), 2, 3, 4, (5, 5), (3, 3), (5, 5))
    arrays = [device.asarray(array) for array in problem.values()]
    sys.setprofile(profile)
    try:
        products(name, problem, *arrays)
    finally:
        sys.setprofile(None)
    stage = FORWARD if name in FORWARD else BACKWARD
    assert [other for other in stage if MARKS[other] in entered] == [name]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_without_a_name_the_shapes_choose_one_of_each(device, calls, groups):
    step(device, groups=groups)
    assert len(calls) == 3
    assert calls[0] in FORWARD
    assert set(calls[1:]) <= set(BACKWARD)


def test_columns_are_the_default(device, calls):
    step(device, groups=4)
    step(device, groups=1)
    assert calls == ["im2col", *calls[1:3], "im2col", *calls[4:]]


def test_names_nest_and_come_back(device, calls):
    step(device)
    default = list(calls)
    calls.clear()
    with ndl.conv_algorithm("contraction"):
        with ndl.conv_algorithm("taps"), ndl.conv_algorithm("convolution"):
            step(device)
        step(device)
        with ndl.conv_algorithm("fold"):
            step(device)
    step(device)
    assert calls == [
        *("taps", "convolution", "convolution"),
        *("contraction", *default[1:]),
        *("contraction", "fold", "fold"),
        *default,
    ]


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_names_come_back_after_an_exception(device, calls, forward, backward):
    step(device)
    default = list(calls)
    with pytest.raises(ZeroDivisionError), ndl.conv_algorithm(forward), ndl.conv_algorithm(backward):
        raise ZeroDivisionError
    calls.clear()
    step(device)
    assert calls == default


def test_a_refused_name_changes_nothing(device, calls):
    with ndl.conv_algorithm("contraction"):
        with pytest.raises(ValueError, match="conv_algorithm"), ndl.conv_algorithm("fft"):
            pytest.fail("the block must not run")
        step(device)
    assert calls[0] == "contraction"


@pytest.mark.parametrize("name", ["fft", "IM2COL", "", None, 3, ["taps"], ("fold", "taps")])
def test_another_name_is_refused(name):
    rule = "conv_algorithm: name must be one of 'im2col', 'taps', 'contraction', 'fold', 'convolution', but got "
    with pytest.raises(ValueError, match=f"^{re.escape(rule + repr(name))}$"), ndl.conv_algorithm(name):
        pytest.fail("the block must not run")


def test_a_name_may_decorate_a_function(device, calls):
    decorated = ndl.conv_algorithm("contraction")(step)
    for _ in range(2):
        decorated(device)
    step(device)
    assert calls[::3] == ["contraction", "contraction", "im2col"]


def test_a_name_holds_for_its_thread_only(device, calls):
    """Neither does a thread see the name of the one that started it, nor the other way round."""
    named, done = threading.Event(), threading.Event()
    seen = {}

    def work():
        step(device)
        seen["inherited"] = list(calls)
        with ndl.conv_algorithm("taps"), ndl.conv_algorithm("convolution"):
            named.set()
            done.wait(10)
            calls.clear()
            step(device)
            seen["own"] = list(calls)

    step(device)
    default = list(calls)
    calls.clear()
    with ndl.conv_algorithm("contraction"):
        thread = threading.Thread(target=work)
        thread.start()
        assert named.wait(10)
        calls.clear()
        step(device)
        seen["while the other has a name"] = list(calls)
        done.set()
        thread.join(10)
    assert seen == {
        "inherited": default,
        "while the other has a name": ["contraction", *default[1:]],
        "own": ["taps", "convolution", "convolution"],
    }


def test_the_name_is_that_of_the_moment_of_the_computation(device, calls):
    """The forward pass takes what holds when it is called, the backward pass what holds when that one is."""
    x = ndl.Tensor(np.random.randn(1, 2, 5), device=device)
    w = ndl.Tensor(np.random.randn(3, 2, 3), device=device)
    with ndl.conv_algorithm("taps"), ndl.conv_algorithm("fold"):
        y = ndl.conv1d(x, w)
    with ndl.conv_algorithm("convolution"):
        y.sum().backward()
    assert calls == ["taps", "convolution", "convolution"]


@given(problem=problems(symmetric=True))
def test_equal_windows_give_equal_results_whatever_their_groups(device, problem):
    """Depthwise, where the default changes over to another algorithm, against the same with the kernel spread out."""
    groups = problem.window.groups
    problem = replace(problem, channels=groups, window=problem.window)
    x, w, y = problem.values()
    block = np.zeros((problem.out_channels, groups, *problem.kernel))
    share = problem.out_channels // groups
    for o in range(problem.out_channels):
        block[o, o // share] = w[o, 0]
    dense = replace(problem.window, groups=1)
    found = kernels.correlate(device.asarray(x), device.asarray(w), problem.window)
    expected = kernels.correlate(device.asarray(x), device.asarray(block), dense)
    close(device.to_host(found), device.to_host(expected))
    found = kernels.correlate_transpose(device.asarray(y), device.asarray(w), problem.window, problem.size)
    expected = kernels.correlate_transpose(device.asarray(y), device.asarray(block), dense, problem.size)
    close(device.to_host(found), device.to_host(expected))
