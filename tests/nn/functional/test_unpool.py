"""Unpooling and power-average pooling against torch: results, derivatives to second order, layers and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import both, check_function, check_signature, normal, raises
from tests.ops.derivatives import assert_like_torch

INFINITE = float("inf")


def positive(*shape):
    return np.abs(normal(*shape)) + 0.1


# ---- power-average pooling -------------------------------------------------------------------------------------------

# function, input, options
LP = [
    ("lp_pool1d", positive(2, 3, 9), {"norm_type": 2, "kernel_size": 3}),
    ("lp_pool1d", positive(2, 3, 9), {"norm_type": 1.5, "kernel_size": 4, "stride": 3, "ceil_mode": True}),
    ("lp_pool1d", normal(3, 9), {"norm_type": 1, "kernel_size": 2}),
    ("lp_pool2d", normal(2, 3, 6, 7), {"norm_type": 2, "kernel_size": 2}),
    ("lp_pool2d", positive(2, 3, 6, 7), {"norm_type": 3, "kernel_size": (2, 3), "stride": (1, 2)}),
    ("lp_pool2d", positive(3, 6, 7), {"norm_type": -1, "kernel_size": 2, "ceil_mode": True}),
    ("lp_pool2d", normal(2, 3, 6, 7), {"norm_type": INFINITE, "kernel_size": 2, "stride": 3}),
    ("lp_pool2d", normal(2, 3, 6, 7), {"norm_type": -INFINITE, "kernel_size": 3, "ceil_mode": True}),
    ("lp_pool3d", normal(2, 2, 4, 5, 6), {"norm_type": 2, "kernel_size": 2}),
    ("lp_pool3d", positive(2, 4, 5, 6), {"norm_type": 4.0, "kernel_size": (1, 2, 3), "ceil_mode": True}),
]


@pytest.mark.parametrize(("name", "x", "options"), LP)
def test_lp_pool_matches_torch(name, x, options, device):
    check_function(name, [x], device, options=options)


@pytest.mark.parametrize("p", [2, 3, 1, 1.5])
def test_the_derivative_of_an_empty_window_is_zero(p, device):
    values = np.array([[0.0, 0.0, 1.0, 2.0]])
    x, twin = ndl.Tensor(values, device=device), torch.tensor(values, requires_grad=True)
    F.lp_pool1d(x, p, 2).sum().backward()
    torch.nn.functional.lp_pool1d(twin, p, 2).sum().backward()
    assert_allclose(x.grad.numpy(), twin.grad.numpy(), rtol=1e-12)
    assert x.grad.numpy()[0, :2].tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_powers_keep_the_sign_of_x_as_in_torch(device):
    x = np.array([[-1.0, -2.0, -3.0, 4.0]])
    expected = torch.nn.functional.lp_pool1d(torch.tensor(x), 3, 2)
    assert_allclose(F.lp_pool1d(ndl.Tensor(x, device=device), 3, 2).numpy(), expected.numpy())
    assert np.isnan(expected.numpy()[0, 0])


def test_powers_of_float16_do_not_overflow(device):
    y = F.lp_pool1d(ndl.Tensor(np.full((1, 4), 300, "float16"), device=device), 2, 4)
    assert (y.dtype, y.item()) == ("float16", 600)


# ---- unpooling -------------------------------------------------------------------------------------------------------

# rank, input of the pooling, its options, whether to ask for that input's size
UNPOOL = [
    (1, (2, 3, 8), {"kernel_size": 2}, False),
    (1, (2, 3, 9), {"kernel_size": 3, "stride": 2, "padding": 1}, False),
    (1, (3, 9), {"kernel_size": 2}, True),
    (2, (2, 3, 6, 8), {"kernel_size": 2}, False),
    (2, (2, 3, 7, 9), {"kernel_size": (2, 3), "stride": (2, 2), "padding": (0, 1)}, True),
    (2, (2, 3, 7, 7), {"kernel_size": 3, "stride": 1}, False),  # windows overlap: one place several times
    (2, (3, 6, 8), {"kernel_size": 2}, False),
    (3, (2, 2, 4, 6, 4), {"kernel_size": 2}, False),
    (3, (2, 4, 5, 7), {"kernel_size": (1, 2, 3)}, True),
]


@pytest.mark.parametrize(("rank", "shape", "options", "sized"), UNPOOL)
def test_max_unpool_matches_torch(rank, shape, options, sized, device):
    source = torch.from_numpy(normal(*shape))
    best, place = getattr(torch.nn.functional, f"max_pool{rank}d")(source, **options, return_indices=True)
    indices = both(place.numpy(), device)
    options = options | ({"output_size": shape[-rank:]} if sized else {})
    values = best.numpy()
    name = f"max_unpool{rank}d"
    assert_like_torch(
        lambda x: getattr(F, name)(x, indices[0], **options),
        lambda x: getattr(torch.nn.functional, name)(x, indices[1], **options),
        [values], device,
    )  # fmt: skip
    if sized:
        assert getattr(F, name)(ndl.Tensor(values, device=device), indices[0], **options).shape == shape


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_unpooling_keeps_the_dtype(dtype, device):
    x, place = F.max_pool2d(ndl.Tensor(normal(1, 2, 4, 4).astype(dtype), device=device), 2, return_indices=True)
    y = F.max_unpool2d(x, place.astype("int32"), 2)
    y.sum().backward()
    assert y.dtype == dtype
    assert_array_equal(F.max_pool2d(abs(y), 2).numpy(), abs(x).numpy())


def test_unpooling_an_empty_batch(device):
    x, place = ndl.ones(0, 3, 4, 4, device=device), ndl.zeros(0, 3, 4, 4, device=device, dtype="int64")
    assert F.max_unpool2d(x, place, 2).shape == (0, 3, 8, 8)


def test_output_size_may_name_batch_and_channels(device):
    x, place = (ndl.Tensor([[[1.0]]], device=device), ndl.Tensor([[[2]]], device=device))
    assert F.max_unpool1d(x, place, 2, output_size=(1, 1, 3)).numpy().tolist() == [[[0, 0, 1]]]


@pytest.mark.parametrize("name", [f"{kind}{n}d" for kind in ("lp_pool", "max_unpool") for n in (1, 2, 3)])
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = [
    ("LPPool1d", (2, 3), {}, (2, 3, 9)),
    ("LPPool1d", (1.2, 3, 2, True), {}, (3, 9)),
    ("LPPool2d", (2, (3, 2)), {"stride": (2, 1)}, (2, 3, 6, 7)),
    ("LPPool3d", (INFINITE, 2), {"ceil_mode": True}, (2, 3, 5, 6, 7)),
]


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_layers_like_torch(device, name, arguments, options, shape):
    layer, torch_layer = (getattr(module, name)(*arguments, **options) for module in (nn, torch.nn))
    assert repr(layer) == repr(torch_layer)
    x = positive(*shape)
    assert_allclose(layer(ndl.Tensor(x, device=device)).numpy(), torch_layer(torch.tensor(x)).numpy(), rtol=1e-12)


@pytest.mark.parametrize(("rank", "arguments"), [(1, (2,)), (1, (3, 2, 1)), (2, ((2, 3), 2, (1, 0))), (3, (2,))])
def test_unpooling_layers_like_torch(rank, arguments, device):
    layer, torch_layer = (getattr(module, f"MaxUnpool{rank}d")(*arguments) for module in (nn, torch.nn))
    assert repr(layer) == repr(torch_layer)
    pool = getattr(torch.nn, f"MaxPool{rank}d")(*arguments, return_indices=True)
    source = torch.from_numpy(normal(2, 3, *(6, 7, 8)[:rank]))
    best, place = pool(source)
    mine = layer(ndl.Tensor(best.numpy(), device=device), both(place.numpy(), device)[0], source.shape[2:])
    assert_array_equal(mine.numpy(), torch_layer(best, place, source.shape[2:]).numpy())


@pytest.mark.parametrize("name", [f"{kind}{n}d" for kind in ("LPPool", "MaxUnpool") for n in (1, 2, 3)])
def test_signature_of_layer_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


# ---- errors ----------------------------------------------------------------------------------------------------------

IMAGE = ndl.ones(1, 2, 4, 4)
PLACES = ndl.zeros(1, 2, 4, 4, dtype="int64")
AXES = "x must have 4 axes, (N, C, *S), or 3, (C, *S), of which only N may be 0, but got shape"

ERRORS = [
    (lambda: F.lp_pool2d(IMAGE, 0, 2), ValueError, "lp_pool2d: norm_type must not be 0, but got 0"),
    (lambda: F.lp_pool2d(IMAGE, "a", 2), TypeError, "lp_pool2d: norm_type must be a number, but got 'a'"),
    (
        lambda: F.lp_pool2d(IMAGE, float("nan"), 2), ValueError,
        "lp_pool2d: norm_type must lie in [-inf, inf], but got nan",
    ),
    (lambda: F.lp_pool2d(IMAGE, 2, 0), ValueError, "lp_pool2d: kernel_size must be at least 1, but got 0"),
    (
        lambda: F.lp_pool2d(IMAGE, 2, 5), ValueError,
        (
            "lp_pool2d: the kernel must fit into the padded input, but its extent is (5, 5) and the padded size of x "
            "(1, 2, 4, 4) is (4, 4)"
        ),
    ),
    (lambda: F.lp_pool2d(IMAGE, 2, 2, ceil_mode=1), TypeError, "lp_pool2d: ceil_mode must be a bool, but got int"),
    (lambda: F.lp_pool2d(ndl.ones(4, 4), 2, 2), ValueError, f"lp_pool2d: {AXES} (4, 4)"),
    (lambda: F.lp_pool2d(PLACES, 2, 2), TypeError, "lp_pool2d: x must have a floating dtype, but got int64"),
    (lambda: F.max_unpool2d(ndl.ones(4, 4), ndl.ones(4, 4), 2), ValueError, f"max_unpool2d: {AXES} (4, 4)"),
    (
        lambda: F.max_unpool2d(ndl.ones(1, 0, 4, 4), ndl.ones(1, 0, 4, 4), 2), ValueError,
        f"max_unpool2d: {AXES} (1, 0, 4, 4)",
    ),
    (lambda: F.max_unpool2d(PLACES, PLACES, 2), TypeError, "max_unpool2d: x must have a floating dtype, but got int64"),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES[:, :1], 2), ValueError,
        "max_unpool2d: x and indices must agree in shape, but got (1, 2, 4, 4) and (1, 1, 4, 4)",
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES + 64, 2), ValueError,
        "max_unpool2d: indices must lie in [0, 63], but got 64 to 64",
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES - 1, 2), ValueError,
        "max_unpool2d: indices must lie in [0, 63], but got -1 to -1",
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES + 0.5, 2), ValueError,
        "max_unpool2d: indices must be integers, but got 0.5",
    ),
    (lambda: F.max_unpool2d(IMAGE, PLACES, 0), ValueError, "max_unpool2d: kernel_size must be at least 1, but got 0"),
    (lambda: F.max_unpool2d(IMAGE, PLACES, 2, 0), ValueError, "max_unpool2d: stride must be at least 1, but got 0"),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES, 2, 2, -1), ValueError,
        "max_unpool2d: padding must be at least 0, but got -1",
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES, 2, 2, 4), ValueError,
        "max_unpool2d: sizes of the output must be at least 1, but x and its window give (0, 0)",
    ),
    *(
        (
            lambda size=size: F.max_unpool2d(IMAGE, PLACES, 2, output_size=size), ValueError,
            f"max_unpool2d: output_size must differ by less than the stride from (8, 8), but got {size}",
        )
        for size in ((8, 6), (10, 8))
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES, 2, output_size=(8,)), ValueError,
        "max_unpool2d: output_size must be one integer or 2, but got 1: (8,)",
    ),
    (
        lambda: F.max_unpool2d(IMAGE, PLACES, 2, output_size=8), TypeError,
        "max_unpool2d: output_size must be a Sequence, but got int",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
