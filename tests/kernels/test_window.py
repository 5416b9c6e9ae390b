"""The window: output sizes, held against torch and against counting."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from needle.kernels import Window
from needle.kernels.window import tap_slices
from tests.kernels.oracles import TORCH_CONV
from tests.kernels.windows import problems

STRIDED = Window((2,), ((1, 1),), (3,))


@st.composite
def one_axis(draw):
    """(size, kernel, stride, padding before and after, dilation) of one axis, fitting or not."""
    sizes = [draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(st.integers(1, 4))]
    return *sizes, draw(st.integers(0, 4)), draw(st.integers(0, 4)), draw(st.integers(1, 4))


@given(one_axis())
def test_the_output_counts_the_places_where_the_kernel_fits(axis):
    size, kernel, stride, before, after, dilation = axis
    window = Window((stride,), ((before, after),), (dilation,))
    elements = range(-before, size + after)
    fitting = [all(start + k * dilation in elements for k in range(kernel)) for start in elements[::stride]]
    (output,) = window.output((size,), (kernel,))
    assert max(output, 0) == sum(fitting)


@given(problems(symmetric=True))
def test_the_output_size_matches_the_drawn_one_and_torch(problem):
    sizes = problem.window.output(problem.size, problem.kernel)
    x, w = torch.zeros(problem.x_shape), torch.zeros(problem.w_shape)
    assert sizes == problem.output == tuple(TORCH_CONV[problem.rank - 1](x, w, **problem.options).shape[2:])


@given(problems())
def test_the_output_with_different_padding_before_and_after(problem):
    window = problem.window
    assert window.output(problem.size, problem.kernel) == problem.output
    padded = tuple(n + before + after for n, (before, after) in zip(problem.size, window.padding, strict=True))
    assert window.padded(problem.size) == padded
    unpadded = dataclasses.replace(window, padding=((0, 0),) * problem.rank)
    assert unpadded.output(padded, problem.kernel) == problem.output


@given(problems())
def test_input_is_the_smallest_that_gives_the_output(problem):
    window = problem.window
    smallest = window.input(problem.output, problem.kernel)
    assert window.output(smallest, problem.kernel) == problem.output
    assert all(0 <= n - m < s for n, m, s in zip(problem.size, smallest, window.stride, strict=True))
    less = window.output(tuple(n - 1 for n in smallest), problem.kernel)
    assert less == tuple(p - 1 for p in problem.output)


def test_hand_computed_sizes():
    assert STRIDED.extent((3,)) == (7,)  # elements 0, 3 and 6
    assert STRIDED.padded((8,)) == (10,)
    assert STRIDED.output((8,), (3,)) == (2,)  # at -1 and at 1; at 3 it would need element 9
    assert STRIDED.input((2,), (3,)) == (7,)
    dense = Window((1, 2), ((0, 0), (0, 3)), (1, 1))
    assert dense.output((5, 5), (5, 2)) == (1, 4)
    assert dense.output((5, 5), (6, 9)) == (0, 0)
    assert max(dense.output((1, 1), (9, 9))) < 1


# ---- places ----------------------------------------------------------------------------------------------------------


@given(problems())
def test_taps_read_what_the_formula_says(problem):
    """Tap k of output p reads the padded element stride·p + dilation·k, for all outputs and for a block of rows."""
    window = problem.window
    size = window.padded(problem.size)
    places = np.arange(np.prod(size)).reshape(1, *size, 1)
    for start in range(problem.output[0]):
        block = (problem.output[0] - start, *problem.output[1:])
        taps = tap_slices(window, problem.kernel, block, start)
        assert [position for position, _ in taps] == [*np.ndindex(problem.kernel)]
        for position, index in taps:
            expected = np.ix_(
                *(
                    s * (np.arange(p) + (start if axis == 0 else 0)) + d * k
                    for axis, (s, p, d, k) in enumerate(
                        zip(window.stride, block, window.dilation, position, strict=True)
                    )
                )
            )
            np.testing.assert_array_equal(places[index][0, ..., 0], places[0, ..., 0][expected])


@given(problems())
def test_interior_and_borders_cover_the_padded_input(problem):
    layout = problem.window.padded_layout(problem.size)
    counts = np.zeros((1, *layout.size, 1), int)
    counts[layout.interior] += 1
    assert counts[layout.interior].shape == (1, *problem.size, 1)
    border = np.zeros_like(counts)
    for index in layout.borders:
        border[index] = 1
    np.testing.assert_array_equal(counts + border, 1)


@given(problems())
def test_dead_taps_read_padding_only(problem):
    live, window = problem.window.without_dead_taps(problem.size, problem.kernel)
    kernel = tuple(len(range(k)[part]) for k, part in zip(problem.kernel, live, strict=True))
    assert window.output(problem.size, kernel) == problem.output
    padded = np.zeros((1, *problem.window.padded(problem.size), 1))
    padded[problem.window.interior(problem.size)] = 1
    dropped = np.ones(problem.kernel, bool)
    dropped[live] = False
    for position, index in tap_slices(problem.window, problem.kernel, problem.output):
        assert not (dropped[position] and padded[index].any())
