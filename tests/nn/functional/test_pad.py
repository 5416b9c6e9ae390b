"""Padding in every mode against torch: results, derivatives to second order, layers and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import needle as ndl
import needle.nn.functional as F
from tests.kernels.windows import arrange, orders
from tests.ops.derivatives import assert_like_torch

MODES = ("constant", "reflect", "replicate", "circular")
REPEATING = MODES[1:]


def assert_alike(x, device, *arguments, **options):
    assert_like_torch(
        lambda x: F.pad(x, *arguments, **options),
        lambda x: torch.nn.functional.pad(x, *arguments, **options),
        [x],
        device,
    )


def numbered(shape):
    return np.arange(1.0, 1 + int(np.prod(shape))).reshape(shape)


def pairs(draw, n, mode):
    """(before, after) allowed for an axis of n elements in a mode, where torch defines the result."""
    if mode == "circular":
        before = draw(st.integers(-n, n))
        left = n + before if before < 0 else n
        return before, draw(st.integers(-(left - max(before, 0)), left))
    if mode == "constant":
        before = draw(st.integers(-n, 3))
        return before, draw(st.integers(-(n + min(before, 0)), 3))
    most = n - 1 if mode == "reflect" else 4
    before = draw(st.integers(1 - n - most, most))
    return before, draw(st.integers(1 - n - before, most))


@st.composite
def problems(draw):
    """The shape of an input, `pad` and a mode."""
    mode = draw(st.sampled_from(MODES))
    rank = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    lead = draw(st.sampled_from([(), (2,), (1, 2)] if mode == "constant" else [(2,), (1, 2)]))
    pad = [number for n in reversed(size) for number in pairs(draw, n, mode)]
    return (*lead, *size), pad, mode


# ---- against torch, to second order ----------------------------------------------------------------------------------

TABLE = {
    "zeros": ((2, 3, 4), (1, 2)),
    "a value": ((2, 3, 4), (1, 2, 0, 1), "constant", 2.5),
    "a value in every axis": ((2, 3), [1, 2, 3, 0], "constant", -1),
    "no axis": ((2, 3), ()),
    "no number": ((2, 3), (0, 0)),
    "cropped": ((2, 3, 4), (-1, -2, 1, -1)),
    "cropped to nothing": ((2, 3, 4), (-1, -3)),
    "not a number": ((2, 3), (1, 1), "constant", float("nan")),
    "value 0 in another mode": ((2, 3, 4), (1, 1), "reflect", 0),
    "an empty batch": ((0, 2, 4), (1, 1), "replicate"),
    "one element": ((2, 3, 1), (2, 3), "replicate"),
    "one element in a circle": ((2, 3, 1), (1, 1), "circular"),
    "mirrored as far as it goes": ((2, 3, 4), (3, 3), "reflect"),
    "around the circle as far as it goes": ((2, 3, 4), (4, 4), "circular"),
    "cropped before it goes around": ((2, 3, 4), (-1, 2), "circular"),
    "cropped after it is mirrored": ((2, 3, 4), (-2, 2), "reflect"),
}


@pytest.mark.parametrize("title", TABLE)
def test_like_torch(device, title):
    shape, *arguments = TABLE[title]
    assert_alike(numbered(shape), device, *arguments)


@given(problem=problems())
def test_like_torch_by_any_amount(device, problem):
    shape, pad, mode = problem
    assert_alike(numbered(shape), device, pad, mode)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_matches_a_worked_example(device, mode):
    expected = {
        "constant": [0, 0, 1, 2, 3, 0],
        "reflect": [3, 2, 1, 2, 3, 2],
        "replicate": [1, 1, 1, 2, 3, 3],
        "circular": [2, 3, 1, 2, 3, 1],
    }[mode]
    assert F.pad(ndl.Tensor([[1.0, 2.0, 3.0]], device=device), (2, 1), mode).numpy().tolist() == [expected]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool"])
def test_dtypes_are_kept(device, mode, dtype):
    x = numbered((2, 3, 4)).astype(dtype)
    y = F.pad(ndl.Tensor(x, device=device, requires_grad=False), (2, 1), mode)
    expected = torch.nn.functional.pad(torch.tensor(x).double(), (2, 1), mode)  # torch cannot mirror bools
    assert y.dtype == dtype
    assert_array_equal(y.numpy(), expected.numpy())


@given(problem=problems(), order=orders)
def test_any_memory_order_gives_the_same(device, problem, order):
    shape, pad, mode = problem
    x = arrange(numbered(shape), order, device)
    y = F.pad(ndl.Tensor.make_const(x), pad, mode)
    assert_array_equal(y.numpy(), F.pad(ndl.Tensor(x, device=device), pad, mode).numpy())


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = [
    *((f"{kind}Pad{rank}d", (1,)) for kind in ("Zero", "Reflection", "Replication", "Circular") for rank in (1, 2, 3)),
    *((f"ConstantPad{rank}d", (1, 3.5)) for rank in (1, 2, 3)),
    ("ConstantPad2d", ((1, 2, 0, -1), 0)),
    ("ZeroPad2d", ((1, 2, 0, -1),)),
    ("ReflectionPad1d", ((2, 1),)),
    ("CircularPad3d", ((2, 1, 0, 0, 1, 2),)),
]


@pytest.mark.parametrize(("name", "arguments"), LAYERS)
def test_layers_like_torch(device, name, arguments):
    layer, torch_layer = (getattr(nn, name)(*arguments) for nn in (ndl.nn, torch.nn))
    assert repr(layer) == repr(torch_layer)
    assert type(layer).__qualname__ == type(layer).__name__ == name
    x = numbered((2, 3, 4, 3, 5)[: 2 + int(name[-2])])
    for values in (x, x[0]):
        y = layer(ndl.Tensor(values, device=device))
        assert_array_equal(y.numpy(), torch_layer(torch.tensor(values)).numpy())


# ---- refusals --------------------------------------------------------------------------------------------------------

ALL_OF_S = r"must pad all of \*S, 1 to 3 axes of x \(C, \*S\) or \(N, C, \*S\), but got {} pairs for x {}"
REFUSED = [
    ((2, 3), ((1, 1), "mirror"), ValueError, "mode must be one of 'constant', 'reflect', .*, but got 'mirror'"),
    ((2, 3), (2,), TypeError, "pad: pad must be a tuple of integers, but got 2"),
    ((2, 3), ("ab",), TypeError, "pad: pad must be a tuple of integers, but got 'ab'"),
    ((2, 3), ((1.5, 1),), TypeError, r"pad: pad must be an integer, but got 1\.5"),
    ((2, 3), ((1,),), ValueError, r"pad must hold a pair for each of at most 2 axes, but got \(1,\) for \(2, 3\)"),
    ((3,), ((1, 1, 1, 1),), ValueError, r"pad must hold a pair for each of at most 1 axes, but got \(1, 1, 1, 1\) for"),
    ((2, 3), ((-2, -2),), ValueError, r"pad: negative pairs must not crop an axis of \(2, 3\) below 0, but got"),
    ((2, 3), ((-4, 5),), ValueError, "pad: negative pairs must not crop an axis"),
    ((2, 3), ((1, 1), "constant", "0"), TypeError, "pad: scalar must be a number, but got str"),
    ((3,), ((1, 1), "reflect"), ValueError, "mode 'reflect' " + ALL_OF_S.format(1, r"\(3,\)")),
    ((3, 3), ((1, 1, 1, 1), "replicate"), ValueError, ALL_OF_S.format(2, r"\(3, 3\)")),
    ((2, 2, 3, 3), ((1, 1), "circular"), ValueError, ALL_OF_S.format(1, r"\(2, 2, 3, 3\)")),
    ((2, 2, 3), ((), "circular"), ValueError, ALL_OF_S.format(0, r"\(2, 2, 3\)")),
    ((1, 1, 1, 1, 1, 2), ((1, 1) * 4, "reflect"), ValueError, ALL_OF_S.format(4, r"\(1, 1, 1, 1, 1, 2\)")),
    ((2, 2, 3), ((1, 1), "reflect", 1), ValueError, "value must be left out in mode 'reflect', but got 1"),
    ((2, 0, 3), ((1, 1), "replicate"), ValueError, r"no axis but N may be 0 in mode 'replicate', .* x \(2, 0, 3\)"),
    ((0, 3), ((1, 1), "reflect"), ValueError, r"no axis but N may be 0 in mode 'reflect', but got x \(0, 3\)"),
    ((2, 2, 3), ((3, 0), "reflect"), ValueError, r"no more than there is to copy, .* pad \(3, 0\) for an axis of 3"),
    ((2, 2, 3), ((0, 3), "reflect"), ValueError, r"but got pad \(0, 3\) for an axis of 3"),
    ((2, 2, 3), ((-1, -2), "reflect"), ValueError, r"must leave an element .* got pad \(-1, -2\) for an axis of 3"),
    ((2, 2, 3), ((-2, -1), "replicate"), ValueError, r"must leave an element .* got pad \(-2, -1\)"),
    ((2, 2, 3), ((4, 0), "circular"), ValueError, r"add no more .* but got pad \(4, 0\) for an axis of 3"),
    ((2, 2, 3), ((0, 4), "circular"), ValueError, r"add no more .* but got pad \(0, 4\) for an axis of 3"),
    ((2, 2, 0), ((1, 1), "circular"), ValueError, r"add no more .* but got pad \(1, 1\) for an axis of 0"),
    ((2, 2, 3), ((-2, -2), "circular"), ValueError, r"got pad \(-2, -2\) for an axis of 3"),
    ((2, 3, 2, 3), ((0, 0, 2, 0), "reflect"), ValueError, r"got pad \(2, 0\) for an axis of 2"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "arguments", "error", "message"), REFUSED)
def test_what_torch_refuses_is_refused(device, shape, arguments, error, message):
    with pytest.raises(error, match=message):
        F.pad(ndl.Tensor(np.zeros(shape), device=device), *arguments)
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        torch.nn.functional.pad(torch.zeros(shape), *arguments)


def test_integers_are_not_filled_with_nan(device):
    x = ndl.Tensor([1, 2], device=device, requires_grad=False)
    with pytest.raises(ValueError, match=r"pad: value must lie in .*, the range of int64, but got nan"):
        F.pad(x, (1, 1), value=float("nan"))


def test_a_circle_is_not_read_beyond_its_cropped_end(device):
    """torch reads uninitialized memory here."""
    with pytest.raises(ValueError, match=r"add no more than there is to copy, but got pad \(3, -2\) for an axis of 3"):
        F.pad(ndl.Tensor(np.zeros((2, 2, 3)), device=device), (3, -2), "circular")


def test_layers_pad_all_their_axes():
    with pytest.raises(ValueError, match=r"ReflectionPad2d: padding must be one integer or 4, but got 2: \(1, 2\)"):
        ndl.nn.ReflectionPad2d((1, 2))
    with pytest.raises(TypeError, match=r"ConstantPad2d: padding must be an integer, but got 1\.5"):
        ndl.nn.ConstantPad2d(1.5, 0)
