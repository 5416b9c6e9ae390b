"""Operands: windows from the options of users."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from needle.kernels import Window
from needle.ops.operand import make_window, pool_window


def test_make_repeats_one_integer_for_every_axis():
    assert make_window("f", 3, 2, 1, 4, 5) == Window((2, 2, 2), ((1, 1),) * 3, (4, 4, 4), 5)
    assert make_window("f", 1, 1, 0) == Window((1,), ((0, 0),), (1,), 1)


def test_make_takes_one_integer_for_each_axis():
    expected = Window((1, 2), ((3, 3), (0, 0)), (5, 6), 2)
    assert make_window("f", 2, (1, 2), (3, 0), (5, 6), 2) == expected
    assert make_window("f", 2, [1, 2], [3, 0], [5, 6], np.int64(2)) == expected
    made = make_window("f", 2, np.int32(2), (np.uint8(1), 0))
    assert made == Window((2, 2), ((1, 1), (0, 0)), (1, 1))
    assert all(type(n) is int for n in (*made.stride, *made.padding[0], *made.dilation, made.groups))


def test_a_window_is_a_value():
    assert make_window("f", 2, 1, 0) == make_window("g", 2, (1, 1), (0, 0), (1, 1), 1)
    assert len({make_window("f", 2, 1, 0), make_window("f", 2, 1, 0), make_window("f", 2, 1, 1)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_window("f", 2, 1, 0).groups = 2


@pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
@pytest.mark.parametrize(
    ("value", "error", "rule"),
    [
        (-1, ValueError, "must be at least {least}, but got -1"),
        ((1, -2), ValueError, "must be at least {least}, but got -2"),
        ((1, 1, 1), ValueError, "must be one integer or 2, but got 3: (1, 1, 1)"),
        ((), ValueError, "must be one integer or 2, but got 0: ()"),
        (True, TypeError, "must be an integer, but got True"),
        ((1, False), TypeError, "must be an integer, but got False"),
        (1.0, TypeError, "must be an integer, but got 1.0"),
        ((1, 1.5), TypeError, "must be an integer, but got 1.5"),
        ("1", TypeError, "must be an integer, but got '1'"),
        ("same", TypeError, "must be an integer, but got 'same'"),
        (None, TypeError, "must be an integer, but got None"),
    ],
)
def test_make_refuses(option, value, error, rule):
    options = {"stride": 1, "padding": 0, "dilation": 1} | {option: value}
    message = f"f: {option} " + rule.format(least=0 if option == "padding" else 1)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make_window("f", 2, **options)


@pytest.mark.parametrize("option", ["stride", "dilation"])
def test_make_refuses_zero(option):
    options = {"stride": 1, "padding": 0, "dilation": 1} | {option: (1, 0)}
    with pytest.raises(ValueError, match=f"^f: {option} must be at least 1, but got 0$"):
        make_window("f", 2, **options)


@pytest.mark.parametrize(
    ("groups", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError), ((1, 1), TypeError)],
)
def test_make_refuses_groups(groups, error):
    with pytest.raises(error, match=r"^f: groups must be .*, but got "):
        make_window("f", 2, 1, 0, 1, groups)


def test_make_tells_booleans_from_the_integers_that_it_has_seen():
    """Windows are cached, and True == 1."""
    make_window("f", 2, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    make_window("f", 2, 1, 1, 1, 1)
    make_window("f", 2, 1, (1, 1), 1, 1)
    for options in (
        (1, (True, 1), 1, 1),
        (1, ((True, 1), (1, 1)), 1, 1),
        (True, (1, 1), 1, 1),
        ((True, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ((1, 1), ((1, 1), (True, 1)), (1, 1), 1),
        (1, 1, 1, True),
    ):
        with pytest.raises(TypeError, match="must be an integer, but got True"):
            make_window("f", 2, *options)


@pytest.mark.parametrize("padding", [1, (1, 1), ((1, 1), (1, 1))])
def test_equal_options_make_one_object(padding):
    """Caches of geometry find it without comparing; so do options that are themselves found in a cache."""
    window = make_window("f", 2, 1, padding)
    assert window is make_window("f", 2, (1, 1), padding, (1, 1), 1)
    assert window is make_window("g", 2, 1, [[1, 1], [1, 1]])


# ---- pool_window -----------------------------------------------------------------------------------------------------


def test_the_stride_of_a_pool_window_is_the_kernel_size_by_default():
    assert pool_window("f", 2, 3) == ((3, 3), Window((3, 3), ((0, 0),) * 2, (1, 1)))
    assert pool_window("f", 2, (3, 2), padding=1, dilation=2) == ((3, 2), Window((3, 2), ((1, 1),) * 2, (2, 2)))
    assert pool_window("f", 1, [2], [1]) == ((2,), Window((1,), ((0, 0),), (1,)))


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ((0,), ValueError, "kernel_size must be at least 1, but got 0"),
        ((True,), TypeError, "kernel_size must be an integer, but got True"),
        ((1, True), TypeError, "stride must be an integer, but got True"),
        ((1, 1, False), TypeError, "padding must be an integer, but got False"),
        ((2, 1, ((0, 1), 1)), TypeError, "padding must be an integer, but got (0, 1)"),
        ((2, 1, 2), ValueError, "padding must be at most half of the kernel (2, 2), but got (2, 2)"),
        ((1, 1, 0, (1, True)), TypeError, "dilation must be an integer, but got True"),
    ],
)
def test_pool_window_refuses(options, error, rule):
    for _ in range(2):  # refusals are not cached either
        pool_window("f", 2, 1, 1, 0, 1)
        with pytest.raises(error, match=f"^f: {re.escape(rule)}$"):
            pool_window("f", 2, *options)
