"""Norms: against torch to second order, their running statistics, with large means, as modules, and their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import check_function, check_module, check_signature, normal, raises

HINT = '; .astype("float32") converts'  # where float32 meets float64

X = normal(3, 4, 2, 3) + 2
VIDEO = normal(2, 4, 2, 3, 2, scale=3.0)
FLAT = normal(5, 4)
W, B = normal(4, seed=1), normal(4, seed=2)
MEAN, VARIANCE = normal(4, seed=3), 0.5 + normal(4, seed=4) ** 2
RUNNING = {"running_mean": MEAN, "running_var": VARIANCE}
NONE = {"running_mean": None, "running_var": None}
BOTH = ("weight", "bias")

# (function, inputs that are differentiated, names of the last of them, options)
ROWS = {
    "batch, training": ("batch_norm", [X, W, B], BOTH, {**NONE, "training": True}),
    "batch, flat": ("batch_norm", [FLAT, W, B], BOTH, {**NONE, "training": True, "eps": 0.1}),
    "batch, bare": ("batch_norm", [X], (), {**NONE, "training": True}),
    "batch, weight": ("batch_norm", [X, W], ("weight",), {**NONE, "training": True}),
    "batch, evaluation": ("batch_norm", [X, W, B], BOTH, {**RUNNING, "eps": 1e-3}),
    "batch, evaluation, bare": ("batch_norm", [FLAT], (), RUNNING),
    "batch of one in evaluation": ("batch_norm", [FLAT[:1], W, B], BOTH, RUNNING),
    "instance": ("instance_norm", [X, W, B], BOTH, {}),
    "instance, bare": ("instance_norm", [VIDEO], (), {"eps": 0.1}),
    "instance, evaluation": ("instance_norm", [X, W, B], BOTH, {**RUNNING, "use_input_stats": False}),
    "instance of one value, evaluation": ("instance_norm", [X[..., :1, :1]], (), {**RUNNING, "use_input_stats": False}),
    "group": ("group_norm", [X, W, B], BOTH, {"num_groups": 2}),
    "group, one": ("group_norm", [VIDEO], (), {"num_groups": 1, "eps": 0.1}),
    "group, each channel": ("group_norm", [X, W], ("weight",), {"num_groups": 4}),
    "group, flat": ("group_norm", [FLAT, W, B], BOTH, {"num_groups": 2}),
    "layer": ("layer_norm", [FLAT, W, B], BOTH, {"normalized_shape": (4,)}),
    "layer, bare": ("layer_norm", [X], (), {"normalized_shape": (2, 3), "eps": 0.1}),
    "layer, image": ("layer_norm", [X, X[0], X[1]], BOTH, {"normalized_shape": [4, 2, 3]}),
    "layer, vector": ("layer_norm", [W, B], ("weight",), {"normalized_shape": (4,)}),
    "normalize": ("normalize", [X], (), {}),
    "normalize, last": ("normalize", [X], (), {"dim": -1}),
    "normalize, several axes": ("normalize", [X], (), {"dim": (1, 3)}),
    "normalize, 1": ("normalize", [X], (), {"p": 1}),
    "normalize, 3": ("normalize", [X], (), {"p": 3.0}),
    "normalize, 1.5": ("normalize", [X], (), {"p": 1.5, "dim": 0}),
    "normalize, inf": ("normalize", [X], (), {"p": math.inf, "dim": (2, 3)}),
    "normalize, large eps": ("normalize", [X], (), {"eps": 100.0}),
    "normalize, vector": ("normalize", [W], (), {"dim": 0}),
}


@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, device):
    name, inputs, names, options = ROWS[row]
    check_function(name, inputs, device, (), options, names=names, rtol=1e-8)


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS.values()}))
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


# ---- running statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
def test_running_statistics_move_as_in_torch(name, dtype, momentum, device):
    options = {"training": True} if name == "batch_norm" else {}
    mine = [ndl.Tensor(array.astype(dtype), device=device) for array in (MEAN, VARIANCE)]
    theirs = [torch.from_numpy(array.astype(dtype)) for array in (MEAN, VARIANCE)]
    for step in range(3):
        x = (X + step).astype(dtype)
        getattr(F, name)(ndl.Tensor(x, device=device), *mine, momentum=momentum, **options)
        getattr(torch.nn.functional, name)(torch.from_numpy(x), *theirs, momentum=momentum, **options)
    for actual, expected in zip(mine, theirs, strict=True):
        assert actual.dtype == dtype
        assert actual.is_leaf()
        assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.on_cpu
@pytest.mark.parametrize("momentum", [0.1, ndl.Tensor(0.1, dtype="float64")])
def test_running_statistics_in_read_only_memory_are_replaced(momentum):
    memory = [np.broadcast_to(value, 4) for value in (0.0, 1.0)]
    mine, theirs = ([ndl.Tensor.make_const(each) for each in arrays] for arrays in (memory, map(np.array, memory)))
    for statistics in (mine, theirs):
        F.batch_norm(X, *statistics, training=True, momentum=momentum)
    for actual, expected in zip(mine, theirs, strict=True):
        assert_array_equal(actual.numpy(), expected.numpy())
        assert_array_equal(np.isin(actual.numpy(), (0, 1)), False)


def test_evaluation_leaves_running_statistics_as_they_are_and_gives_them_no_gradient(device):
    mean, variance = ndl.Tensor(MEAN, device=device), ndl.Tensor(VARIANCE, device=device)
    F.batch_norm(ndl.Tensor(X, device=device), mean, variance).sum().backward()
    assert mean.grad is variance.grad is None
    assert_array_equal(mean.numpy(), MEAN)
    assert_array_equal(variance.numpy(), VARIANCE)


@pytest.mark.parametrize(
    ("name", "options"),
    [("batch_norm", {**NONE, "training": True}), ("instance_norm", {}), ("group_norm", {"num_groups": 2})],
)
def test_bias_without_weight(name, options, device):
    """First order only: torch has no second derivative here."""
    x, b, torch_x, torch_b = *(ndl.Tensor(a, device=device) for a in (X, B)), torch.tensor(X), torch.tensor(B)
    actual = getattr(F, name)(x, bias=b, **options)
    expected = getattr(torch.nn.functional, name)(torch_x, bias=torch_b, **options)
    assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-10)


# ---- extremes --------------------------------------------------------------------------------------------------------

NORMS = {
    "batch": lambda x: F.batch_norm(x, None, None, training=True),
    "instance": lambda x: F.instance_norm(x),
    "group": lambda x: F.group_norm(x, 2),
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
    "normalize": F.normalize,
}


@pytest.mark.parametrize("norm", NORMS)
def test_float16_values_whose_squares_overflow(norm, device):
    x = (1000 * normal(4, 6, 5)).astype("float16")
    y = NORMS[norm](ndl.Tensor(x, device=device))
    assert y.dtype == "float16"
    assert_allclose(y.numpy(), NORMS[norm](ndl.Tensor(x.astype("float64"), device=device)).numpy(), atol=5e-3)


def test_float16_input_with_float32_parameters(device):
    halves = ndl.Tensor(FLAT.astype("float16"), device=device)
    w, b, mean, variance = (ndl.Tensor(array.astype("float32"), device=device) for array in (W, B, MEAN, VARIANCE))
    for y in F.batch_norm(halves, mean, variance, w, b), F.layer_norm(halves, 4, w, b), F.group_norm(halves, 2, w, b):
        assert y.dtype == "float16"
        y.sum().backward()
        assert halves.grad.dtype == "float16"
        assert w.grad.dtype == b.grad.dtype == "float32"


def test_running_statistics_of_halves_stay_halves(device):
    x, mean, variance = (ndl.Tensor(array.astype("float16"), device=device) for array in (FLAT, MEAN, VARIANCE))
    F.batch_norm(x, mean, variance, training=True)
    assert mean.dtype == variance.dtype == "float16"
    assert_allclose(mean.numpy(), 0.9 * MEAN + 0.1 * FLAT.mean(0), atol=2e-3)


@pytest.mark.parametrize(
    ("dtype", "far", "deviation"), [("float32", 3e19, 1e18), ("float64", 1e12, 1e3), ("float64", 1e160, 1e150)]
)
def test_standardize_keeps_small_deviations_from_huge_means(dtype, far, deviation, device):
    x = (np.random.default_rng(0).standard_normal((64, 2)) * deviation + [far, 0]).astype(dtype)
    exact = x.astype("longdouble")
    exact -= exact.mean(0)
    exact /= np.sqrt((exact * exact).mean(0))
    with np.errstate(over="ignore", invalid="ignore"):
        y, *_ = ndl.ops.standardize(ndl.Tensor(x, device=device), 0, eps=0)
    assert_allclose(y.numpy(), exact.astype(dtype), atol=2e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("far", [0, 1000])
def test_standardize_keeps_nan_in_its_row(value, far, device):
    x = np.random.default_rng(0).standard_normal((3, 200)).astype("float32") + np.array([[0], [far], [0]], "float32")
    results = []
    for bad in (None, value):
        x[0, 7] = x[0, 7] if bad is None else bad
        leaf = ndl.Tensor(x, device=device)
        with np.errstate(invalid="ignore"):
            y, *_ = ndl.ops.standardize(leaf, 1)
            (y * y * y).sum().backward()
        results.append((y.numpy(), leaf.grad.numpy()))
    for one, other in zip(*results, strict=True):
        assert_array_equal(one[1:], other[1:])
        assert np.isnan(other[0]).all()



@pytest.mark.parametrize("norm", sorted(set(NORMS) - {"normalize"}))
def test_norms_are_exact_far_from_zero(norm, device):
    x = (1000 + 0.1 * normal(8, 4, 5)).astype("float32")
    y = NORMS[norm](ndl.Tensor(x, device=device))
    assert_allclose(y.numpy(), NORMS[norm](ndl.Tensor(x.astype("float64"), device=device)).numpy(), atol=5e-3)


@pytest.mark.parametrize("norm", sorted(set(NORMS) - {"batch", "instance"}))
def test_an_empty_input_stays_empty(norm, device):
    for shape in (0, 4, 3), (2, 4, 0):
        if not (norm == "layer" and 0 in shape[1:]):
            assert NORMS[norm](ndl.zeros(*shape, device=device)).shape == shape


def test_batch_norm_of_an_empty_batch_in_evaluation(device):
    statistics = ndl.zeros(4, device=device), ndl.ones(4, device=device)
    assert F.batch_norm(ndl.zeros(0, 4, device=device), *statistics).shape == (0, 4)
    assert F.instance_norm(ndl.zeros(0, 4, 5, device=device), *statistics).shape == (0, 4, 5)
    assert_array_equal(statistics[1].numpy(), np.ones(4))


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, math.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_normalize_at_zero_has_zeros_and_finite_derivatives(p, dtype, device):
    x = ndl.Tensor(np.array([[0, 0, 0], [0, 3, -4]], dtype), device=device)
    y = F.normalize(x, p, eps=1e-3)
    assert y.dtype == dtype
    assert_array_equal(y.numpy()[0], [0, 0, 0])
    assert y.numpy()[1, 0] == 0
    (y * y + y).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert_allclose(x.grad.numpy()[0], [1000, 1000, 1000], rtol=1e-3)
    if p != 0.5 and dtype != "float16":
        x.grad.sum().backward()
        assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_normalize_neither_overflows_nor_vanishes(p, size, device):
    x = np.array([[3.0, -4.0, 0.0]])
    y = F.normalize(ndl.Tensor((size * x).astype("float32"), device=device), p, eps=0)
    assert_allclose(y.numpy(), x / np.linalg.norm(x[0], p), rtol=1e-6)


# ---- modules ---------------------------------------------------------------------------------------------------------

MODULES = {
    "BatchNorm3d": (lambda nn: nn.BatchNorm3d(4), VIDEO),
    "BatchNorm3d(options)": (lambda nn: nn.BatchNorm3d(4, 1e-3, 0.3, affine=True, bias=False), VIDEO),
    "BatchNorm3d(average)": (lambda nn: nn.BatchNorm3d(4, momentum=None, affine=False), VIDEO),
    "BatchNorm3d(untracked)": (lambda nn: nn.BatchNorm3d(4, track_running_stats=False), VIDEO),
    "InstanceNorm1d": (lambda nn: nn.InstanceNorm1d(4), X[..., 0, :]),
    "InstanceNorm1d(one)": (lambda nn: nn.InstanceNorm1d(3, affine=True), X[0, :3, 0]),
    "InstanceNorm2d": (lambda nn: nn.InstanceNorm2d(4, 1e-3, 0.3, True, True), X),
    "InstanceNorm2d(one)": (lambda nn: nn.InstanceNorm2d(4, affine=True, bias=False), X[0]),
    "InstanceNorm3d": (lambda nn: nn.InstanceNorm3d(4, track_running_stats=True), VIDEO),
    "InstanceNorm3d(no momentum)": (lambda nn: nn.InstanceNorm3d(4, momentum=None, track_running_stats=True), VIDEO),
    "LayerNorm": (lambda nn: nn.LayerNorm(4), FLAT),
    "LayerNorm(options)": (lambda nn: nn.LayerNorm((2, 3), 1e-3, bias=False), X),
    "LayerNorm(list)": (lambda nn: nn.LayerNorm([2, 3], elementwise_affine=False), X),
    "GroupNorm": (lambda nn: nn.GroupNorm(2, 4), X),
    "GroupNorm(options)": (lambda nn: nn.GroupNorm(4, 4, 1e-3, bias=False), X),
    "GroupNorm(bare)": (lambda nn: nn.GroupNorm(1, 4, affine=False), FLAT),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("row", MODULES)
def test_module_matches_torch(row, training, device):
    make, x = MODULES[row]
    check_module(make, [x], device, training=training)


@pytest.mark.parametrize("name", sorted({row.partition("(")[0] for row in MODULES}))
def test_signature_of_module_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("make", [lambda nn: nn.BatchNorm3d(4, momentum=None), lambda nn: nn.BatchNorm3d(4)])
def test_batch_norm_in_3d_tracks_over_many_batches_as_torch_does(make, device):
    mine, theirs = make(nn), make(torch.nn)
    for step in range(4):
        x = (VIDEO + step).astype("float32")
        mine(ndl.Tensor(x, device=device))
        theirs(torch.from_numpy(x))
    assert mine.num_batches_tracked.item() == 4
    for name, value in theirs.state_dict().items():
        assert_allclose(mine.state_dict()[name].numpy(), value.numpy(), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("kind", "x"), [("BatchNorm1d", FLAT), ("BatchNorm1d", X[:, :, 0]), ("BatchNorm2d", X)])
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"bias": False}, {"track_running_stats": False}, {"eps": 0.1, "momentum": 0.3}],
    ids=str,
)
def test_the_course_batch_norm_matches_torch_except_for_its_biased_variance(kind, x, options, device):
    mine = getattr(nn, kind)(num_features=4, **options, device=device, dtype="float64")
    theirs = getattr(torch.nn, kind)(4, **options, dtype=torch.float64)
    assert repr(mine) == repr(theirs)
    assert mine.dim == mine.num_features == 4
    actual = mine(ndl.Tensor(x, device=device)).numpy()
    assert_allclose(actual, theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-10, atol=1e-12)
    assert [*mine.state_dict()] == [*theirs.state_dict()]
    if mine.track_running_stats:
        assert_allclose(mine.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-12)
        biased = x.var((0, *range(2, x.ndim)))
        assert_allclose(mine.running_var.numpy(), 1 + mine.momentum * (biased - 1), rtol=1e-12)
    mine.eval()
    theirs.eval()
    if mine.track_running_stats:
        theirs.running_var.copy_(torch.from_numpy(mine.running_var.numpy()))
    actual = mine(ndl.Tensor(x, device=device)).numpy()
    assert_allclose(actual, theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3, 3), (2, 4, 0, 3)], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_of_an_empty_batch_is_empty_and_leaves_the_statistics(shape, training, momentum, device):
    kind = "BatchNorm1d" if len(shape) == 2 else "BatchNorm2d"
    mine = getattr(nn, kind)(4, momentum=momentum, device=device).train(training)
    theirs = getattr(torch.nn, kind)(4, momentum=momentum).train(training)
    y, expected = mine(zeros(*shape).to(device)), theirs(torch.zeros(shape))
    assert y.shape == expected.shape
    y.sum().backward()
    expected.sum().backward()
    for parameter in *mine.parameters(), *theirs.parameters():
        assert parameter.grad.numpy().tolist() == [0] * 4
    for name, value in theirs.state_dict().items():
        assert_array_equal(mine.state_dict()[name].numpy(), value.numpy())


@pytest.mark.parametrize("kind", ["BatchNorm1d", "BatchNorm3d"])
def test_without_momentum_running_statistics_are_averages_over_all_batches(kind, device):
    mine = getattr(nn, kind)(4, momentum=None, device=device, dtype="float64")
    theirs = getattr(torch.nn, kind)(4, momentum=None, dtype=torch.float64)
    variances = []
    for seed in range(3):
        x = normal(5, 4, *(2, 1, 3) if kind == "BatchNorm3d" else (3,), seed=seed)
        mine(ndl.Tensor(x, device=device))
        theirs(torch.from_numpy(x))
        variances.append(x.var((0, *range(2, x.ndim))))
    assert_allclose(mine.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-12)
    expected = theirs.running_var.numpy() if mine.unbiased else np.mean(variances, axis=0)
    assert_allclose(mine.running_var.numpy(), expected, rtol=1e-12)
    assert mine.num_batches_tracked.item() == 3


@pytest.mark.parametrize("tracking", [True, False])
def test_statistics_follow_track_running_stats_when_it_is_set_later(tracking, device):
    """As in torch: without tracking, training leaves the statistics as they are, and evaluation uses them."""
    mine, theirs = nn.BatchNorm3d(4, device=device, dtype="float64"), torch.nn.BatchNorm3d(4, dtype=torch.float64)
    for layer in mine, theirs:
        layer.track_running_stats = tracking
    for training in True, False:
        mine.train(training)
        theirs.train(training)
        actual = mine(ndl.Tensor(VIDEO, device=device)).numpy()
        assert_allclose(actual, theirs(torch.from_numpy(VIDEO)).detach().numpy(), rtol=1e-10, atol=1e-12)
        assert_allclose(mine.running_mean.numpy(), theirs.running_mean.numpy(), rtol=1e-12)
        assert mine.num_batches_tracked.item() == theirs.num_batches_tracked.item()


def test_a_state_of_torch_loads_and_an_older_one_without_a_counter():
    theirs = torch.nn.BatchNorm2d(4)
    theirs(torch.randn(2, 4, 3, 3))
    layer = nn.BatchNorm2d(4)
    layer.load_state_dict(theirs.state_dict())
    assert layer.num_batches_tracked.item() == 1
    state = {name: value for name, value in layer.state_dict().items() if name != "num_batches_tracked"}
    nn.BatchNorm2d(4).load_state_dict(state)


def test_a_refused_batch_is_not_counted():
    layer = nn.BatchNorm2d(4)
    for x in zeros(1, 4, 1, 1), zeros(2, 4, 3, 3, dtype="int64"):
        with pytest.raises((TypeError, ValueError)):
            layer(x)
    assert layer.num_batches_tracked.item() == 0


def test_bools_in_the_places_of_device_and_dtype_are_those_of_torch():
    for affine in True, False:
        for tracking in True, False:
            mine, theirs = (kind(4, 1e-3, 0.2, affine, tracking) for kind in (nn.BatchNorm2d, torch.nn.BatchNorm2d))
            assert repr(mine) == repr(theirs)
            assert [*mine.state_dict()] == [*theirs.state_dict()]


def test_the_course_batch_norm_takes_its_arguments_by_position(device):
    layer = nn.BatchNorm1d(4, 0.1, 0.3, device, "float64")
    assert (layer.dim, layer.eps, layer.momentum, layer.weight.device, layer.weight.dtype) == (
        4, 0.1, 0.3, device, "float64",
    )  # fmt: skip
    assert nn.BatchNorm2d(dim=3).num_features == 3


def test_instance_norm_without_parameters_takes_other_channels_with_a_warning(device):
    with pytest.warns(UserWarning, match=r"^InstanceNorm2d: 5 channels were declared, but got x \(3, 4, 2, 3\)$"):
        actual = nn.InstanceNorm2d(5)(ndl.Tensor(X, device=device))
    assert_array_equal(actual.numpy(), F.instance_norm(ndl.Tensor(X, device=device)).numpy())


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


def norm(name, x, **options):
    """A norm of 3 features, or channels in 3 groups."""
    first = {"layer_norm": (3,), "group_norm": (3,), "batch_norm": (zeros(3), zeros(3))}.get(name, ())
    return lambda: getattr(F, name)(x, *first, **options)


ALL = ("batch_norm", "instance_norm", "group_norm", "layer_norm")
RULE = "running_mean and running_var must both be given, or with"

ERRORS = [
    *(
        row
        for name in ALL
        for x in [zeros(2, 3, 3)]
        for row in [
            (
                norm(name, zeros(2, 3, 3, dtype="int64")), TypeError,
                f"{name}: x must have a floating dtype, but got int64",
            ),
            (
                norm(name, x, weight=zeros(2)), ValueError,
                f"{name}: weight must have shape (3,) for x (2, 3, 3), but got (2,)",
            ),
            (
                norm(name, x, bias=zeros(1, 3)), ValueError,
                f"{name}: bias must have shape (3,) for x (2, 3, 3), but got (1, 3)",
            ),
            (
                norm(name, x, weight=zeros(3, dtype="float64")), TypeError,
                f"{name}: x and weight must have one floating dtype, but got float32 and float64" + HINT,
            ),
            (
                norm(name, zeros(2, 3, 3, dtype="float16"), bias=zeros(3, dtype="float64")), TypeError,
                f"{name}: x and bias must have one floating dtype, but got float16 and float64",
            ),
            (norm(name, x, eps=-1), ValueError, f"{name}: eps must lie in [0, inf], but got -1"),
            (norm(name, x, eps=None), TypeError, f"{name}: eps must be a number, but got None"),
        ]
    ),
    *(
        (norm(name, zeros(3)), ValueError, f"{name}: x must have at least 2 axes, (N, C, *S), but got shape (3,)")
        for name in ALL[:3]
    ),
    *(
        (norm(name, zeros(2, 3, 3), momentum=2), ValueError, f"{name}: momentum must lie in [0, 1], but got 2")
        for name in ALL[:2]
    ),
    (
        norm("batch_norm", zeros(2, 3), training=True, eps=0), ValueError,
        "batch_norm: eps must lie in (0, inf], but got 0",
    ),
    (
        norm("batch_norm", zeros(1, 3, 1), training=True), ValueError,
        "batch_norm: each channel must have more than 1 value in training, but got x (1, 3, 1)",
    ),
    (
        norm("batch_norm", zeros(2, 3), training=True, eps=0), ValueError,
        "batch_norm: eps must lie in (0, inf], but got 0",
    ),
    (
        lambda: F.batch_norm(zeros(2, 3), None, None), ValueError,
        f"batch_norm: {RULE} training=True neither, but running_mean and running_var is None",
    ),
    (
        lambda: F.batch_norm(zeros(2, 3), zeros(3), None, training=True), ValueError,
        f"batch_norm: {RULE} training=True neither, but running_var is None",
    ),
    (
        lambda: F.instance_norm(zeros(2, 3, 4), use_input_stats=False), ValueError,
        f"instance_norm: {RULE} use_input_stats=True neither, but running_mean and running_var is None",
    ),
    (
        lambda: F.instance_norm(zeros(2, 3, 4), None, zeros(3)), ValueError,
        f"instance_norm: {RULE} use_input_stats=True neither, but running_mean is None",
    ),
    (
        lambda: F.batch_norm(zeros(2, 3), zeros(2), zeros(3)), ValueError,
        "batch_norm: running_mean must have shape (3,) for x (2, 3), but got (2,)",
    ),
    (
        lambda: F.batch_norm(zeros(2, 3), zeros(3), zeros(3, dtype="float64")), TypeError,
        "batch_norm: x and running_var must have one floating dtype, but got float32 and float64" + HINT,
    ),
    (
        lambda: F.batch_norm(zeros(2, 3), [0, 0, 0], zeros(3)), TypeError,
        "batch_norm: running_mean must be a Tensor, but got list",
    ),
    (
        norm("instance_norm", zeros(2, 3, 1)), ValueError,
        "instance_norm: each channel must have more than 1 value, but got x (2, 3, 1)",
    ),
    (
        norm("instance_norm", zeros(2, 3)), ValueError,
        "instance_norm: each channel must have more than 1 value, but got x (2, 3)",
    ),
    (
        norm("group_norm", zeros(2, 4)), ValueError,
        "group_norm: num_groups must divide the 4 channels of x, but got 3",
    ),
    (
        lambda: F.group_norm(zeros(2, 4), 0), ValueError, "group_norm: num_groups must be at least 1, but got 0",
    ),
    (
        norm("group_norm", zeros(1, 3)), ValueError,
        "group_norm: x must have more than 1 value per group, but got (1, 3) in 3 groups",
    ),
    (
        norm("layer_norm", zeros(3, 2)), ValueError, "layer_norm: x must end in the axes (3,), but got shape (3, 2)",
    ),
    (
        lambda: F.layer_norm(zeros(2), (3, 2)), ValueError,
        "layer_norm: x must end in the axes (3, 2), but got shape (2,)",
    ),
    (
        lambda: F.layer_norm(zeros(2), ()), ValueError,
        "layer_norm: normalized_shape must have at least 1 axis, but got ()",
    ),
    (
        lambda: F.layer_norm(zeros(2), 2.0), TypeError, "layer_norm: normalized_shape must be an integer, but got 2.0",
    ),
    (
        lambda: F.normalize(zeros(2, 3, dtype="int64")), TypeError,
        "normalize: x must have a floating dtype, but got int64",
    ),
    (lambda: F.normalize(zeros(3)), ValueError, "normalize: dim must lie in [-1, 0], but got 1"),
    (
        lambda: F.normalize(zeros(3, 3), dim=(0, -2)), ValueError,
        "normalize: axes must differ, but got (0, -2) for 2 dimensions",
    ),
    (lambda: F.normalize(zeros(3, 3), p=0), ValueError, "normalize: p must lie in (0, inf], but got 0"),
    (lambda: F.normalize(zeros(3, 3), p="fro"), TypeError, "normalize: p must be a number, but got 'fro'"),
    (lambda: F.normalize(zeros(3, 3), eps=-1), ValueError, "normalize: eps must lie in [0, inf], but got -1"),
    (lambda: nn.BatchNorm2d(), TypeError, "BatchNorm2d: dim must be an integer, but got None"),
    (
        lambda: nn.BatchNorm1d(2, num_features=3), TypeError,
        "BatchNorm1d: dim and num_features are one argument, but got both: 2 and 3",
    ),
    (lambda: nn.BatchNorm1d(2, momentum="a"), TypeError, "BatchNorm1d: momentum must be a number, but got 'a'"),
    (lambda: nn.BatchNorm3d(0), ValueError, "BatchNorm3d: num_features must be at least 1, but got 0"),
    (lambda: nn.BatchNorm3d(2, eps=-1), ValueError, "BatchNorm3d: eps must lie in [0, inf], but got -1"),
    (lambda: nn.BatchNorm3d(2, momentum=-1), ValueError, "BatchNorm3d: momentum must lie in [0, 1], but got -1"),
    (
        lambda: nn.BatchNorm3d(2)(zeros(3, 2, 4, 4)), ValueError,
        "BatchNorm3d: x must have 5 axes and 2 channels, but got shape (3, 2, 4, 4)",
    ),
    (
        lambda: nn.InstanceNorm2d(2)(zeros(3, 2)), ValueError,
        "InstanceNorm2d: x must have 3 or 4 axes and 2 channels, but got shape (3, 2)",
    ),
    (
        lambda: nn.InstanceNorm2d(2, affine=True)(zeros(1, 3, 2, 2)), ValueError,
        "InstanceNorm2d: x must have 3 or 4 axes and 2 channels, but got shape (1, 3, 2, 2)",
    ),
    (
        lambda: nn.InstanceNorm1d(2, track_running_stats=True)(zeros(3, 2)), ValueError,
        "InstanceNorm1d: x must have 2 or 3 axes and 2 channels, but got shape (3, 2)",
    ),
    (
        lambda: nn.GroupNorm(2, 3), ValueError, "GroupNorm: num_groups must divide num_channels, but got 2 and 3",
    ),
    (lambda: nn.GroupNorm(0, 3), ValueError, "GroupNorm: num_groups must be at least 1, but got 0"),
    (lambda: nn.LayerNorm(0), ValueError, "LayerNorm: normalized_shape must be at least 1, but got 0"),
    (lambda: nn.LayerNorm([]), ValueError, "LayerNorm: normalized_shape must have at least 1 axis, but got []"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
