"""The three passes of a convolution against loops, against torch, and against each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import ThreadpoolController

from needle import kernels, tuning
from needle.kernels import Window
from needle.kernels.conv import dispatch
from tests.kernels.oracles import passes_by_loops, passes_by_needle, passes_by_torch
from tests.kernels.thresholds import thresholds
from tests.kernels.windows import Problem, arrange, is_batch_last, orders, problems
from tests.profiles import examples

close = partial(assert_allclose, rtol=1e-10, atol=1e-10)


def on_device(problem, x, w, y, device):
    """The three passes of host arrays, computed on a device and brought back."""
    return tuple(device.to_host(array) for array in passes_by_needle(problem, *map(device.asarray, (x, w, y))))


def problem_2d(*, x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1, seed=0):
    """A Problem from shapes; torch computes the size of its output."""
    window = Window(stride, padding, dilation, groups)
    before, after = zip(*padding, strict=True)
    padded = torch.zeros(x[0], x[1], *np.add(x[2:], np.add(before, after)))
    y = torch.nn.functional.conv2d(padded, torch.zeros(w), None, stride, 0, dilation, groups)
    return Problem(window, x[0], x[1], w[0], x[2:], w[2:], tuple(y.shape[2:]), seed)


# ---- the values ------------------------------------------------------------------------------------------------------


@examples(50)
@given(problems(), orders, orders, orders)
def test_the_three_passes_follow_the_definition(device, problem, x_order, w_order, y_order):
    ordered = zip(problem.values(), (x_order, w_order, y_order), strict=True)
    arrays = [arrange(values, order, device) for values, order in ordered]
    actual = passes_by_needle(problem, *arrays)
    expected = passes_by_loops(problem, *(np.array(device.to_host(array)) for array in arrays))
    for result, loops in zip(actual, expected, strict=True):
        assert result.shape == loops.shape
        assert result.dtype == "float64"
        close(device.to_host(result), loops)


@given(problems(batches=(0, 9)))
def test_the_three_passes_agree_with_torch(device, problem):
    arrays = problem.values()
    for result, expected in zip(on_device(problem, *arrays, device), passes_by_torch(problem, *arrays), strict=True):
        assert result.shape == expected.shape
        close(result, expected)


# Shapes as in real networks: columns larger than a core's cache, and batches of more than a few images.
REAL = {
    "first layer": problem_2d(x=(32, 1, 28, 28), w=(8, 1, 3, 3), padding=((1, 1), (1, 1))),
    "3x3": problem_2d(x=(16, 16, 15, 13), w=(32, 16, 3, 3), padding=((1, 1), (1, 1))),
    "3x3 with stride 2": problem_2d(x=(16, 16, 16, 15), w=(24, 16, 3, 3), stride=(2, 2), padding=((1, 1), (1, 1))),
    "5x5 of one large image": problem_2d(x=(1, 3, 97, 101), w=(16, 3, 5, 5), padding=((2, 2), (2, 2))),
    "3x3 of one small image": problem_2d(x=(1, 16, 14, 14), w=(32, 16, 3, 3), padding=((1, 1), (1, 1))),
    "3x3 of one small image by groups": problem_2d(x=(1, 16, 14, 13), w=(32, 4, 3, 3), dilation=(2, 1), groups=4),
    "7x7 with stride 2": problem_2d(x=(3, 3, 64, 64), w=(16, 3, 7, 7), stride=(2, 2), padding=((3, 3), (3, 3))),
    "1x1": problem_2d(x=(16, 32, 14, 14), w=(64, 32, 1, 1)),
    "1x1 with stride 2": problem_2d(x=(16, 32, 15, 15), w=(64, 32, 1, 1), stride=(2, 2)),
    "1x1 with padding": problem_2d(x=(16, 8, 9, 9), w=(4, 8, 1, 1), padding=((1, 1), (0, 2))),
    "1x1 by groups": problem_2d(x=(16, 32, 9, 9), w=(64, 8, 1, 1), groups=4),
    "patches": problem_2d(x=(8, 3, 64, 64), w=(48, 3, 8, 8), stride=(8, 8)),
    "depthwise": problem_2d(x=(16, 32, 17, 17), w=(32, 1, 3, 3), padding=((1, 1), (1, 1)), groups=32),
    "depthwise with multiplier": problem_2d(x=(8, 16, 17, 17), w=(48, 1, 3, 3), stride=(2, 1), groups=16),
    "four groups": problem_2d(x=(8, 32, 17, 17), w=(64, 8, 3, 3), padding=((1, 0), (0, 1)), groups=4),
    "dilated": problem_2d(x=(8, 8, 29, 31), w=(8, 8, 3, 3), padding=((4, 4), (4, 4)), dilation=(4, 4)),
    "stride beyond the kernel": problem_2d(x=(8, 8, 40, 40), w=(8, 8, 2, 2), stride=(5, 3)),
    "one row": problem_2d(x=(8, 8, 1, 3000), w=(8, 8, 1, 9), padding=((0, 0), (4, 4))),
    "one column": problem_2d(x=(8, 8, 3000, 1), w=(8, 8, 9, 1), padding=((4, 4), (0, 0))),
    "one output": problem_2d(x=(64, 16, 7, 7), w=(32, 16, 7, 7)),
    "padding beyond the kernel": problem_2d(x=(4, 2, 5, 5), w=(3, 2, 2, 2), padding=((4, 4), (3, 5))),
    "one element": problem_2d(x=(1, 1, 1, 1), w=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", REAL)
def test_shapes_as_in_networks(device, name):
    problem = REAL[name]
    arrays = problem.values()
    for result, expected in zip(on_device(problem, *arrays, device), passes_by_torch(problem, *arrays), strict=True):
        assert_allclose(result, expected, rtol=1e-10, atol=1e-10 * (1 + abs(expected).max()))


@examples(30)
@given(problems(batches=(0, 0)))
def test_an_empty_batch(device, problem):
    y, x, w = on_device(problem, *problem.values(), device)
    assert (y.shape, x.shape) == (problem.y_shape, problem.x_shape)
    assert_array_equal(w, np.zeros(problem.w_shape))


@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)])
@pytest.mark.parametrize(("channels", "out_channels"), [(0, 4), (4, 0), (0, 0)])
def test_a_sum_over_no_channels_is_zero(device, kernel, channels, out_channels):
    output = (6 - kernel[0], 6 - kernel[1])
    problem = Problem(Window((1, 1), ((0, 0), (0, 0)), (1, 1), 2), 3, channels, out_channels, (5, 5), kernel, output)
    for _ in range(3):  # memory that was used before is not zero
        device.xp.full((4096,), np.nan, "float64")
    y, x, w = on_device(problem, *problem.values(), device)
    assert_array_equal(y, np.zeros(problem.y_shape))
    assert_array_equal(x, np.zeros(problem.x_shape))
    assert_array_equal(w, np.zeros(problem.w_shape))


@examples(25)
@given(problems(), st.integers(0, 8))
def test_an_infinity_reaches_only_the_results_that_read_it(device, problem, place):
    """Nothing multiplies padding, or elements beyond the last window."""
    x, w, _ = problem.values()
    x, w = abs(x) + 1, abs(w) + 1
    x.flat[place % x.size] = np.inf
    y = kernels.correlate(device.asarray(x), device.asarray(w), problem.window)
    ones = np.ones(problem.w_shape)
    read, _, _ = passes_by_loops(problem, np.isinf(x).astype(float), ones, np.zeros(problem.y_shape))
    assert_array_equal(np.isinf(device.to_host(y)), read > 0)
    assert not np.isnan(device.to_host(y)).any()


# ---- laws that need no oracle ----------------------------------------------------------------------------------------


def inner(a, b):
    return float((a * b).sum())


@examples(30)
@given(problems())
def test_the_passes_are_one_trilinear_form(device, problem):
    x, w, y = problem.values()
    found_y, found_x, found_w = on_device(problem, x, w, y, device)
    close(inner(y, found_y), inner(found_x, x))
    close(inner(y, found_y), inner(found_w, w))


@examples(30)
@given(problems(), st.floats(-4, 4), st.integers(0, 2**32 - 1))
def test_each_is_linear_in_both_arguments(device, problem, factor, seed):
    first, second = problem.values(), replace(problem, seed=seed).values()
    for moved in range(3):  # x, w or y becomes a sum
        mixed = [a + factor * b if i == moved else a for i, (a, b) in enumerate(zip(first, second, strict=True))]
        other = [b if i == moved else a for i, (a, b) in enumerate(zip(first, second, strict=True))]
        both, one, two = (on_device(problem, *arrays, device) for arrays in (mixed, first, other))
        for result in {0: (0, 2), 1: (0, 1), 2: (1, 2)}[moved]:  # the passes that read it
            close(both[result], one[result] + factor * two[result])


@examples(30)
@given(problems(), st.integers(1, 3), st.data())
def test_a_shifted_input_gives_a_shifted_output(device, problem, steps, data):
    axis = data.draw(st.integers(0, problem.rank - 1))
    x, w, _ = problem.values()
    zeros = [(0, 0)] * x.ndim
    zeros[2 + axis] = (steps * problem.window.stride[axis], 0)
    y = kernels.correlate(device.asarray(x), device.asarray(w), problem.window)
    shifted = kernels.correlate(device.asarray(np.pad(x, zeros)), device.asarray(w), problem.window)
    close(device.to_host(shifted)[kernels.at(2 + axis, slice(steps, None))], device.to_host(y))


@examples(30)
@given(problems())
def test_padding_is_zeros_around_the_input(device, problem):
    x, w, y = problem.values()
    window = problem.window
    padded = np.pad(x, [(0, 0), (0, 0), *window.padding])
    bare = replace(problem, window=replace(window, padding=((0, 0),) * problem.rank), size=padded.shape[2:])
    actual, expected = on_device(problem, x, w, y, device), on_device(bare, padded, w, y, device)
    close(actual[0], expected[0])
    parts = (slice(before, before + n) for n, (before, _) in zip(problem.size, window.padding, strict=True))
    close(actual[1], expected[1][(slice(None), slice(None), *parts)])
    close(actual[2], expected[2])


@examples(30)
@given(problems())
def test_a_dilated_kernel_is_one_with_zeros_between(device, problem):
    x, w, y = problem.values()
    window, elements = problem.window, (..., *(slice(None, None, d) for d in problem.window.dilation))
    extent = tuple((k - 1) * d + 1 for k, d in zip(problem.kernel, window.dilation, strict=True))
    spread = np.zeros((*w.shape[:2], *extent))
    spread[elements] = w
    dense = replace(problem, window=replace(window, dilation=(1,) * problem.rank), kernel=extent)
    actual, expected = on_device(problem, x, w, y, device), on_device(dense, x, spread, y, device)
    close(actual[0], expected[0])
    close(actual[1], expected[1])
    close(actual[2], expected[2][elements])


@examples(30)
@given(problems())
def test_a_stride_keeps_every_nth_output(device, problem):
    x, w, _ = problem.values()
    window = problem.window
    y = kernels.correlate(device.asarray(x), device.asarray(w), window)
    dense = kernels.correlate(device.asarray(x), device.asarray(w), replace(window, stride=(1,) * problem.rank))
    close(device.to_host(dense)[(..., *(slice(None, None, s) for s in window.stride))], device.to_host(y))


@examples(30)
@given(problems())
def test_groups_are_separate_convolutions(device, problem):
    x, w, y = problem.values()
    groups = problem.window.groups
    one = replace(
        problem,
        window=replace(problem.window, groups=1),
        channels=problem.channels // groups,
        out_channels=problem.out_channels // groups,
    )
    parts = zip(np.split(x, groups, 1), np.split(w, groups, 0), np.split(y, groups, 1), strict=True)
    separate = [on_device(one, *part, device) for part in parts]
    actual = on_device(problem, x, w, y, device)
    for result, each, axis in zip(actual, zip(*separate, strict=True), (1, 1, 0), strict=True):
        close(result, np.concatenate(each, axis))


@examples(30)
@given(problems(batches=(2, 4)))
def test_images_are_separate_convolutions(device, problem):
    x, w, y = problem.values()
    one = replace(problem, batch=1)
    separate = [on_device(one, x[n : n + 1], w, y[n : n + 1], device) for n in range(problem.batch)]
    actual = on_device(problem, x, w, y, device)
    close(actual[0], np.concatenate([each[0] for each in separate]))
    close(actual[1], np.concatenate([each[1] for each in separate]))
    close(actual[2], sum(each[2] for each in separate))


@examples(30)
@given(problems())
def test_exchanged_axes_give_exchanged_results(device, problem):
    """No axis is special: reversing the axes of the window and of the arrays reverses the axes of the results."""
    window = problem.window
    reversed_axes = replace(
        problem,
        window=Window(window.stride[::-1], window.padding[::-1], window.dilation[::-1], window.groups),
        size=problem.size[::-1],
        kernel=problem.kernel[::-1],
        output=problem.output[::-1],
    )
    axes = (0, 1, *range(problem.rank + 1, 1, -1))
    arrays = problem.values()
    actual = on_device(problem, *arrays, device)
    for result, expected in zip(
        on_device(reversed_axes, *(array.transpose(axes) for array in arrays), device), actual, strict=True
    ):
        close(result.transpose(axes), expected)


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@examples(30)
@given(problems(), orders)
def test_single_precision_stays_single(device, problem, order):
    arrays = [arrange(values, order, device) for values in problem.values(dtype="float32")]
    exact = passes_by_torch(problem, *(np.array(device.to_host(array), "float64") for array in arrays))
    for result, expected in zip(passes_by_needle(problem, *arrays), exact, strict=True):
        assert result.dtype == "float32"
        assert_allclose(device.to_host(result), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["3x3", "1x1", "3x3 with stride 2", "four groups", "dilated", "one output"])
def test_single_precision_is_as_exact_as_its_sums_allow(device, name):
    problem = REAL[name]
    arrays = problem.values(dtype="float32")
    exact = passes_by_torch(problem, *(array.astype("float64") for array in arrays))
    for result, expected in zip(on_device(problem, *arrays, device), exact, strict=True):
        assert result.dtype == "float32"
        assert_allclose(result, expected, rtol=0, atol=3e-6 * abs(expected).max())


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_half_precision_accumulates_in_single(device, kernel):
    """Each result is a sum of hundreds of terms; in half precision its error would be tens of units in the last place.

    A sum in single precision, rounded once, is off by at most one.
    """
    problem = problem_2d(x=(8, 256, 12, 12), w=(256, 256, *kernel))
    arrays = [(abs(array) / 32).astype("float16") for array in problem.values()]
    exact = passes_by_torch(problem, *(array.astype("float64") for array in arrays))
    for result, expected in zip(on_device(problem, *arrays, device), exact, strict=True):
        assert result.dtype == "float16"
        assert_allclose(result, expected.astype("float16"), rtol=2**-10)


def test_half_precision_keeps_small_terms_next_to_a_large_sum(device):
    """2048 + 0.5 is 2048 in half precision: 64 terms of 0.5 would be lost, one after the other."""
    window = Window((1,), ((0, 0),), (1,))
    line = np.full((1, 1, 65), 0.5, "float16")
    line[..., 0] = 2048
    ones = np.ones((1, 1, 65), "float16")
    y = kernels.correlate(device.asarray(line), device.asarray(ones), window)
    w = kernels.correlate_weight(device.asarray(line), device.asarray(ones), window, (1,))
    assert (y.dtype, w.dtype) == ("float16", "float16")
    assert device.to_host(y).item() == device.to_host(w).item() == 2048 + 32
    x = kernels.correlate_transpose(device.asarray(line), device.asarray(ones), window, (129,))
    assert x.dtype == "float16"
    assert device.to_host(x)[0, 0, 64] == 2048 + 32


def test_half_precision_passes_through_sums_beyond_its_range(device):
    window = Window((1,), ((0, 0),), (1,))
    line = np.repeat(np.array([30000, -30000], "float16"), 4)[None, None]
    channels, ones = line.transpose(0, 2, 1), np.ones((1, 1, 8), "float16")
    y = kernels.correlate(device.asarray(line), device.asarray(ones), window)
    x = kernels.correlate_transpose(device.asarray(channels), device.asarray(ones.transpose(2, 0, 1)), window, (1,))
    w = kernels.correlate_weight(device.asarray(line), device.asarray(ones), window, (1,))
    for result in (y, x, w):
        assert result.dtype == "float16"
        assert device.to_host(result).item() == 0


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first layer", "3x3", "3x3 with stride 2", "1x1", "depthwise", "four groups"])
@pytest.mark.parametrize("order", ["row-major", "batch-last"])
def test_results_are_batch_last(device, name, order):
    problem = REAL[name]
    y, x, _ = passes_by_needle(problem, *(arrange(array, order, device) for array in problem.values(dtype="float32")))
    assert y.transpose((*range(1, y.ndim), 0)).flags.c_contiguous
    assert is_batch_last(x)


@examples(30)
@given(problems(batches=(0, 3)), st.sampled_from([1, 100, 300, 1000, 3000]))
def test_blocks_of_any_size_give_the_same(device, problem, size):
    arrays = problem.values()
    with thresholds(BLOCK_BYTES=1 << 40):
        undivided = on_device(problem, *arrays, device)
    with thresholds(BLOCK_BYTES=size):
        for result, expected in zip(on_device(problem, *arrays, device), undivided, strict=True):
            close(result, expected)


@pytest.mark.parametrize("name", ["3x3", "dilated", "5x5 of one large image"])
def test_concurrent_convolutions_do_not_interfere(device, name):
    """Convolutions of one shape run at the same time in two threads."""
    tasks = [(problem, *problem.values()) for problem in (replace(REAL[name], seed=seed) for seed in range(8))]
    alone = [on_device(*task, device) for task in tasks]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda task: on_device(*task, device), tasks))
    for actual, expected in zip(together, alone, strict=True):
        for result, values in zip(actual, expected, strict=True):
            close(result, values)


@pytest.mark.parametrize("paired", [0, 1 << 40], ids=["one after another", "side by side"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["first layer", "3x3", "7x7 with stride 2", "depthwise"])
def test_both_gradients_at_once_equal_each_alone(device, name, workers, paired):
    problem = REAL[name]
    x, w, y = map(device.asarray, problem.values(dtype="float32"))
    limits = ThreadpoolController().limit(limits=workers, user_api="blas")
    with thresholds(PARALLEL_GRADIENTS_MAX_MACS=paired), limits:
        gradients = kernels.correlate_gradients(x, w, y, problem.window)
    _, *expected = passes_by_needle(problem, x, w, y)
    for result, reference in zip(gradients, expected, strict=True):
        close(device.to_host(result), device.to_host(reference), rtol=1e-4, atol=1e-3)


def test_a_named_algorithm_holds_in_the_threads_that_help(monkeypatch):
    problem, ran, both = REAL["3x3"], [], Barrier(2)  # neither gradient begins before the other is in a thread

    def recorded(direction, function):
        def run(*arguments):
            ran.append(direction)
            both.wait(timeout=10)
            return function(*arguments)

        return run

    monkeypatch.setattr(tuning, "PARALLEL_GRADIENTS_MIN_MACS", 0)
    entry = dispatch.ALGORITHMS["convolution"]
    backward = {name: recorded(name, getattr(entry, name)) for name in ("backward_data", "backward_weight")}
    monkeypatch.setitem(dispatch.ALGORITHMS, "convolution", entry._replace(**backward))
    x, w, y = problem.values(dtype="float32")
    with ThreadpoolController().limit(limits=2, user_api="blas"), kernels.conv_algorithm("convolution"):
        kernels.correlate_gradients(x, w, y, problem.window)
    assert sorted(ran) == ["backward_data", "backward_weight"]
