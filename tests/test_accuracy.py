"""Sums, means, norms, losses and their gradients are at least as exact as torch's, measured against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn, ops, optim
from tests.kernels.memory_orders import ORDERS

DRAWS = {
    "equal": lambda draws, shape: np.full(shape, 0.1),
    "positive": lambda draws, shape: draws.random(shape),
    "around 1": lambda draws, shape: draws.normal(1, 1, shape),
}


def values(draw, *shape):
    return DRAWS[draw](np.random.default_rng(len(shape)), shape)


def in_needle(function, arrays, dtype, order="row-major", create_graph=False):
    """The result and the gradients of needle's function at arrays of a dtype; only the first has that memory order."""
    first, *others = (array.astype(dtype) for array in arrays)
    leaves = [ndl.Tensor.make_const(array, requires_grad=True) for array in (ORDERS[order](first), *others)]
    y = function(*leaves)
    y.backward(ndl.Tensor(direction(y.shape, dtype)), create_graph=create_graph)
    return [y.numpy(), *(x.grad.numpy() for x in leaves)]


def in_torch(function, arrays, dtype, rounded_to):
    """The same in torch, at arrays that are rounded to another dtype first."""
    leaves = [torch.tensor(array.astype(rounded_to).astype(dtype), requires_grad=True) for array in arrays]
    y = function(*leaves)
    y.backward(torch.tensor(direction(tuple(y.shape), rounded_to).astype(dtype)))
    return [y.detach().numpy(), *(x.grad.numpy() for x in leaves)]


def direction(shape, dtype):
    return np.random.default_rng(7).normal(1, 1, shape).astype(dtype)


def check_as_exact(actual, theirs, exact, dtype, units=5):
    """The largest error is at most torch's, or a few units of the last place of the largest element.

    How many depends on the vectors of the processor: with those of AVX2, rows of 70,000 equal elements have 4.0.
    """
    for i, (a, b, e) in enumerate(zip(actual, theirs, exact, strict=True)):
        assert a.dtype == dtype
        error, allowed = (np.abs(x.astype("float64") - e).max() for x in (a, b))
        unit = np.spacing(np.abs(e).max().astype(dtype)).astype("float64")
        assert error <= max(allowed, units * unit), f"array {i}: {error / unit:.1f} units, torch {allowed / unit:.1f}"


def check(function, torch_function, arrays, dtype="float32", **options):
    exact = in_torch(torch_function, arrays, "float64", dtype)
    theirs = in_torch(torch_function, arrays, dtype, dtype)
    check_as_exact(in_needle(function, arrays, dtype, **options), theirs, exact, dtype)


# ---- sums ------------------------------------------------------------------------------------------------------------

SHAPES = [  # with the summed axes: leading, inner, last and several, of few elements and of many, in one row and in two
    ((70000, 2), (0,)),
    ((300000,), (0,)),
    ((64, 10), (0,)),
    ((3000, 3), (0,)),
    ((2, 9001, 3), (1,)),
    ((5, 70001), (1,)),
    ((300, 90), (1,)),
    ((16, 3, 40, 41), (0, 2, 3)),
    ((8, 40, 40, 5), (0, 1, 2)),
    ((40, 8, 50, 3), (0, 2)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("order", ORDERS)
def test_sums_and_means(order, draw, dtype, subtests):
    for shape, axes in SHAPES:
        for name in ("sum", "mean"):
            x = values(draw, *shape)
            if dtype == "float16" and name == "sum":
                x /= 8  # sums of 70,000 elements do not overflow
            with subtests.test(f"{name} of {shape} over {axes}"):
                check(
                    lambda x, name=name, axes=axes: getattr(x, name)(axes),
                    lambda x, name=name, axes=axes: getattr(x, name)(axes),
                    [x],
                    dtype,
                    order=order,
                )


def test_a_sum_of_more_ones_than_float32_can_count_one_by_one():
    ones = np.ones((2**24 + 2**21, 1), "float32")
    assert ndl.Tensor(ones).sum(0).item() == len(ones)
    assert ndl.Tensor(ones).mean(0).item() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_what_was_broadcast_and_of_views_with_gaps(dtype):
    row = np.random.default_rng(0).normal(size=(1, 7, 30)).astype(dtype)
    repeated, gaps = np.broadcast_to(row, (500, 7, 30)), np.pad(row, ((0, 0), (3, 3), (500, 500)))[:, 3:-3, 500:-500]
    for axes in (0, 1, (0, 2), None):
        for x in (repeated, gaps, repeated[::-1], np.broadcast_to(gaps, (40, 7, 30))):
            y = ops.summation(ndl.Tensor.make_const(x), axes)
            exact = x.astype("float64").sum(axes)
            np.testing.assert_allclose(y.numpy(), exact, rtol=1e-5, atol=1e-6 * len(x))
            assert y.array.flags.writeable


def test_the_mean_of_float16_is_rounded_once():
    for shape, axes in SHAPES:
        x = values("around 1", *shape).astype("float16")
        exact = x.astype("float64").mean(axes).astype("float16")
        np.testing.assert_allclose(ndl.Tensor(x).mean(axes).numpy(), exact, rtol=2**-10)
        assert np.mean(ndl.Tensor(x).mean(axes).numpy() == exact) > 0.9


def test_the_gradient_of_a_mean_of_many_float16_is_not_zero():
    zeros = ndl.zeros(70000, dtype="float16")
    for function in (lambda x: x.mean(), lambda x: F.l1_loss(x, zeros), lambda x: x.max(), lambda x: x.min()):
        x = ndl.Tensor(np.ones(70000, "float16"))
        function(x).backward()
        np.testing.assert_allclose(x.grad.numpy(), 1 / 70000, rtol=0.01)
    logits = ndl.Tensor(np.zeros((70000, 2), "float16"))
    for create_graph in (True, False):
        F.cross_entropy(logits, ndl.Tensor(np.zeros(70000, "int64"))).backward(create_graph=create_graph)
        np.testing.assert_allclose(logits.grad.numpy()[:, 1], 0.5 / 70000, rtol=0.01)


# ---- what sums -------------------------------------------------------------------------------------------------------

torch_F = torch.nn.functional
CLASSES = np.random.default_rng(1).integers(0, 5, 3000)
GRID = CLASSES.reshape(30, 10, 10)


def pairs(draw):
    """Functions that reduce, for needle and for torch, with their arrays."""
    column = values(draw, 70000, 2)
    image = values(draw, 20, 3, 30, 30)
    yield "broadcast", lambda x, b: x + b, None, [column, values(draw, 2)]
    yield "broadcast product", lambda x, w: x * w, None, [image, values(draw, 3, 1, 1)]
    yield "linear", F.linear, torch_F.linear, [values(draw, 8, 30, 30, 2), np.ones((4, 2)), np.zeros(4)]
    yield "conv2d", F.conv2d, torch_F.conv2d, [image, np.full((2, 3, 1, 1), 0.1), np.zeros(2)]
    kernel = np.full((3, 2, 1, 1), 0.1)
    yield "conv_transpose2d", F.conv_transpose2d, torch_F.conv_transpose2d, [image, kernel, np.zeros(2)]
    yield "linear, small", F.linear, torch_F.linear, [column[:9001], values(draw, 3, 2), np.zeros(3)]
    yield "matmul", lambda x, y: x @ y, None, [values(draw, 2, 1, 3, 3001), values(draw, 4, 3001, 3)]
    yield "logsumexp", lambda x: ops.logsumexp(x, 0), lambda x: torch.logsumexp(x, 0), [column]
    yield "softmax", lambda x: ops.softmax(x, 0), lambda x: torch.softmax(x, 0), [column[:5000]]
    yield "logsoftmax", lambda x: ops.logsoftmax(x, 0), lambda x: torch.log_softmax(x, 0), [column[:5000]]
    for reduction in ("mean", "sum"):
        for name in ("mse_loss", "l1_loss"):

            def loss(x, y, name=name, reduction=reduction, module=F):
                return getattr(module, name)(x, y, reduction=reduction)

            def torch_loss(x, y, name=name, reduction=reduction):
                return getattr(torch_F, name)(x, y, reduction=reduction)

            yield f"{name} {reduction}", loss, torch_loss, [column[:20000], values(draw, 20000, 2) + 1]
    for classes, shape in (CLASSES, (3000, 5)), (GRID, (30, 5, 10, 10)):
        mine, theirs = ndl.Tensor(classes), torch.tensor(classes)
        yield (
            "cross_entropy", lambda x, c=mine: F.cross_entropy(x, c), lambda x, c=theirs: torch_F.cross_entropy(x, c),
            [values(draw, *shape)],
        )  # fmt: skip


@pytest.mark.parametrize("draw", ["equal", "around 1"])
def test_functions_that_sum(draw, subtests):
    for name, function, torch_function, arrays in pairs(draw):
        for create_graph in (False, True):
            with subtests.test(name, create_graph=create_graph):
                check(function, torch_function or function, arrays, create_graph=create_graph)


@pytest.mark.parametrize("name", ["softmax", "logsoftmax", "logsumexp"])
def test_float16_is_summed_in_float32(name):
    x = values("around 1", 5000, 2)
    torch_function = {"softmax": torch.softmax, "logsoftmax": torch.log_softmax, "logsumexp": torch.logsumexp}[name]
    check(lambda x: getattr(ops, name)(x, 0), lambda x: torch_function(x, 0), [x], "float16")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_gradient_of_float16_is_computed_in_float32(name):
    """The sum of 70,000 gradients is no float16."""
    x = np.random.default_rng(0).normal(size=70000)
    mine, theirs = getattr(F, name), getattr(torch_F, name)
    for create_graph in (False, True):
        check(lambda x: mine(x, 0), lambda x: theirs(x, 0), [x], "float16", create_graph=create_graph)


@pytest.mark.parametrize("name", ["mse_loss", "smooth_l1_loss", "huber_loss"])
def test_gradients_of_mean_losses_of_float16(name):
    """1 / 70000 has eight bits in float16."""
    x, target = np.random.default_rng(0).normal(scale=30, size=(2, 70000))
    options = {"mse_loss": {}, "smooth_l1_loss": {"beta": 60.0}, "huber_loss": {"delta": 60.0}}[name]
    mine, theirs = getattr(F, name), getattr(torch_F, name)
    exact = in_torch(lambda *x: theirs(*x, **options), [x, target], "float64", "float16")
    check_as_exact(in_needle(lambda *x: mine(*x, **options), [x, target], "float16"), exact, exact, "float16", units=1)


def test_equal_indices_of_float16_add_up_in_float32(subtests):
    places = np.random.default_rng(0).integers(0, 2, 9000)
    forms = {
        "embedding": (F, torch_F, lambda f, i, x: f.embedding(i, x)),
        "getitem": (F, torch_F, lambda f, i, x: x[i]),
        "take": (ops, torch, lambda f, i, x: f.take(x, i)),
        "index_select": (ops, torch, lambda f, i, x: f.index_select(x, 0, i)),
        "gather": (ops, torch, lambda f, i, x: f.gather(x, 0, i[:, None])),
        "scatter_add": (ops, torch, lambda f, i, *x: f.scatter_add(x[0], 0, i[:, None], x[1])),
    }
    for name, (mine, theirs, form) in forms.items():
        arrays = [values("positive", 2, 1), values("positive", 9000, 1) / 4][: 1 + (name == "scatter_add")]
        with subtests.test(name):
            actual = in_needle(lambda *x, f=form, m=mine: f(m, ndl.Tensor(places), *x), arrays, "float16")
            exact = in_torch(lambda *x, f=form, m=theirs: f(m, torch.tensor(places), *x), arrays, "float64", "float16")
            check_as_exact(actual, exact, exact, "float16", units=1)


def test_attention_of_float16_is_rounded_once():
    arrays = [values("around 1", 2, n, 16) for n in (9, 700, 700)]
    attention = torch_F.scaled_dot_product_attention
    check(F.scaled_dot_product_attention, lambda *x: attention(*x), arrays, "float16")


def test_sums_of_the_courses_arrays():
    x = np.full((70000, 2), 0.1, "float32")
    for axis in (0, None):
        np.testing.assert_allclose(ndl.NDArray(x).sum(axis).numpy(), x.sum(axis, dtype="float64"), rtol=1e-7)


def test_the_norm_of_gradients():
    parameter = ndl.Tensor(np.zeros((2, 300000), "float32").T)
    parameter.grad = ndl.Tensor.make_const(np.full((2, 300000), 0.1, "float32").T)
    norm = optim.SGD([parameter]).clip_grad_norm(1e9).item()
    assert norm == pytest.approx(float(np.float32(0.1)) * 600000**0.5, rel=3e-7)


# ---- float16 in windows and resampling -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("interpolate", {"size": (7, 11), "mode": "bilinear"}),
        ("interpolate", {"size": (9, 10), "mode": "bilinear", "align_corners": True}),
        ("interpolate", {"size": (7, 6), "mode": "area"}),
        ("adaptive_avg_pool2d", {"output_size": (7, 6)}),
        ("adaptive_avg_pool2d", {"output_size": (4, 3)}),
        ("adaptive_avg_pool2d", {"output_size": 1}),
        ("avg_pool2d", {"kernel_size": (5, 7), "stride": 3}),
    ],
)
def test_float16_is_rounded_once(name, options):
    x = values("positive", 2, 3, 16, 15).astype("float16")
    y = getattr(F, name)(ndl.Tensor(x), **options).numpy()
    exact = getattr(torch_F, name)(torch.tensor(x.astype("float64")), **options).numpy()
    assert np.abs(y - exact).max() <= 1.01 * np.spacing(exact.max().astype("float16")) / 2


# ---- norms -----------------------------------------------------------------------------------------------------------

NORMS = {
    "batch": ((24, 6, 7, 7), 6, lambda f, *x: f.batch_norm(x[0], None, None, *x[1:], training=True)),
    "batch, flat": ((96, 10), 10, lambda f, *x: f.batch_norm(x[0], None, None, *x[1:], training=True)),
    "batch, long": ((20, 2, 50, 50), 2, lambda f, *x: f.batch_norm(x[0], None, None, *x[1:], training=True)),
    "instance": ((5, 6, 9, 9), 6, lambda f, *x: f.instance_norm(x[0], None, None, *x[1:])),
    "group": ((5, 6, 9, 9), 6, lambda f, *x: f.group_norm(x[0], 2, *x[1:])),
    "layer": ((50, 64), 64, lambda f, *x: f.layer_norm(x[0], (64,), *x[1:])),
    "layer, long": ((6, 2000), 2000, lambda f, *x: f.layer_norm(x[0], (2000,), *x[1:])),
    "layer, few": ((3, 20000), 20000, lambda f, *x: f.layer_norm(x[0], (20000,), *x[1:])),
}


@pytest.mark.parametrize("offset", [0, 1, 100, 1000, 10000])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_far_from_zero(norm, offset, subtests):
    shape, channels, function = NORMS[norm]
    draws = np.random.default_rng(offset)
    arrays = [draws.normal(offset, 1, shape), draws.normal(1, 1, channels), draws.normal(size=channels)]
    for order in ("row-major", "batch-last"):
        for create_graph in (False, True):
            with subtests.test(order, create_graph=create_graph):
                check(
                    lambda *x: function(F, *x), lambda *x: function(torch_F, *x), arrays,
                    order=order, create_graph=create_graph,
                )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("norm", NORMS)
def test_equal_elements_become_exact_zeros(norm, dtype):
    shape, channels, function = NORMS[norm]
    for value in (1000.1, -0.001, 3.3e-5, 1e4, 0):
        for order in ("row-major", "batch-last"):
            arrays = np.full(shape, value), np.ones(channels), np.zeros(channels)
            for create_graph in (False, True):
                y, x_grad, weight_grad, _ = in_needle(
                    lambda *x: function(F, *x), arrays, dtype, order, create_graph=create_graph
                )
                assert not y.any()
                assert not weight_grad.any()
                assert np.isfinite(x_grad).all()


def test_no_row_depends_on_others():
    """One row far from zero is centered twice; the others stay the same to the bit."""
    x = np.random.default_rng(0).normal(size=(8, 64)).astype("float32")
    y = x.copy()
    y[3] += 1000
    first, second = (F.layer_norm(ndl.Tensor(a), 64).numpy() for a in (x, y))
    assert_array_equal(np.delete(first, 3, 0), np.delete(second, 3, 0))


LAYERS = [
    lambda **o: nn.BatchNorm1d(3, **o),
    lambda **o: nn.BatchNorm2d(3, **o),
    lambda **o: nn.BatchNorm3d(3, **o),
    lambda **o: nn.InstanceNorm2d(3, track_running_stats=True, affine=True, **o),
    lambda **o: nn.GroupNorm(1, 3, **o),
    lambda **o: nn.LayerNorm((3, *(6,) * 2), **o),
    lambda **o: nn.LayerNorm1d(6, **o),
]


@pytest.mark.parametrize("make", LAYERS)
def test_layers_square_float16_in_float32(make):
    """Squares of 256 overflow float16; so do variances of 1000, which the running ones keep."""
    layer, single = make(dtype="float16"), make()
    rank = {"BatchNorm1d": 1, "BatchNorm3d": 3}.get(type(layer).__name__, 2)
    x = np.random.default_rng(0).normal(500, 200, (8, 3, *(6,) * rank)).astype("float16")
    for _ in range(2):  # training, then evaluation
        leaf = ndl.Tensor(x)
        y, expected = layer(leaf), single(ndl.Tensor(x.astype("float32")))
        y.sum().backward()
        assert y.dtype == leaf.grad.dtype == layer.weight.grad.dtype == "float16"
        np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=2e-3, atol=2e-3)
        for name, buffer in layer.named_buffers():
            if name != "num_batches_tracked":
                assert buffer.dtype == "float16"
                np.testing.assert_allclose(buffer.numpy(), dict(single.named_buffers())[name].numpy(), rtol=2**-10)
        layer.eval(), single.eval()


def test_the_statistics_of_float16_are_float32():
    x = np.array([[1000, -1000, 3000], [1, 2, 4]], "float16")
    y, mean, variance = ops.standardize(ndl.Tensor(x), 1)
    assert (y.dtype, mean.dtype, variance.dtype) == ("float16", "float32", "float32")
    np.testing.assert_allclose(variance.numpy(), x.astype("float64").var(1, keepdims=True), rtol=1e-6)
    assert_array_equal(ops.standardize(ndl.Tensor(np.full((2, 3), 1000.1)), 1)[0].numpy(), 0)


def test_long_sums_on_any_device(device):
    for shape, axes in ((9001, 3), (0,)), ((2, 9001, 3), (1,)), ((3, 20011), (1,)), ((40, 8, 50, 3), (0, 2)):
        for dtype in ("float16", "float32"):
            x = values("around 1", *shape).astype(dtype)
            y = ndl.Tensor(x, device=device).mean(axes)
            tolerance = 2**-10 if dtype == "float16" else 2e-7
            np.testing.assert_allclose(y.numpy(), x.astype("float64").mean(axes), rtol=tolerance)
    x = ndl.Tensor(np.full((4, 3, 50, 50), 1000.1, "float32"), device=device)
    for create_graph in (False, True):
        y = F.batch_norm(x, None, None, training=True)
        y.sum().backward(create_graph=create_graph)
        assert not y.numpy().any()
        assert not x.grad.numpy().any()
