"""Losses: against torch to second order, at extremes, as modules, their number of ops, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import both, check_function, check_module, check_signature, normal, raises, unit
from tests.ops.derivatives import by_needle

HINT = '; .astype("float32") converts'  # where float32 meets float64

X = normal(4, 3, scale=2.0)
IMAGE = normal(2, 3, 2, 4)
LABELS = np.array([2, 0, 1, 2])
PIXELS = np.array([[[0, 1, 2, 2], [1, 1, 0, 2]], [[2, 2, 2, 2], [0, -100, 0, 1]]])
SOME = np.array([2, -100, -100, 1])
WEIGHT = np.array([0.5, 2.0, 1.25])
SHARES = unit(4, 3) / unit(4, 3).sum(1, keepdims=True)
DIFFERENT = normal(4, 3, seed=1)
POSITIVE = unit(4, 3, seed=2)
BOTH_CLASSES = np.round(unit(4, 3, seed=3))

# (function, inputs that are differentiated, constants, options); each under every reduction
ROWS = {
    "classes": ("cross_entropy", [X], [LABELS], {}),
    "classes, weighted": ("cross_entropy", [X], [LABELS], {"weight": WEIGHT}),
    "classes, some ignored": ("cross_entropy", [X], [SOME], {}),
    "classes, some ignored, weighted": ("cross_entropy", [X], [SOME], {"weight": WEIGHT}),
    "classes, one of them ignored": ("cross_entropy", [X], [LABELS], {"ignore_index": 2}),
    "classes, smoothed": ("cross_entropy", [X], [LABELS], {"label_smoothing": 0.2}),
    "classes, all smooth": ("cross_entropy", [X], [LABELS], {"label_smoothing": 1.0}),
    "classes, everything": ("cross_entropy", [X], [SOME], {"label_smoothing": 0.2, "weight": WEIGHT}),
    "classes, other index ignored": (
        "cross_entropy", [X], [np.where(SOME < 0, 7, SOME)],
        {"label_smoothing": 0.2, "weight": WEIGHT, "ignore_index": 7},
    ),
    "classes of pixels": ("cross_entropy", [IMAGE], [PIXELS], {}),
    "classes of pixels, everything": ("cross_entropy", [IMAGE], [PIXELS], {"label_smoothing": 0.1, "weight": WEIGHT}),
    "class": ("cross_entropy", [X[0]], [np.array(2)], {}),
    "class, everything": ("cross_entropy", [X[0]], [np.array(2)], {"label_smoothing": 0.1, "weight": WEIGHT}),
    "shares": ("cross_entropy", [X, SHARES], [], {}),
    "shares, everything": ("cross_entropy", [X, SHARES], [], {"label_smoothing": 0.1, "weight": WEIGHT}),
    "shares and weights": ("cross_entropy", [X, SHARES, WEIGHT], [], {"label_smoothing": 0.1}),
    "shares of pixels": ("cross_entropy", [IMAGE, unit(2, 3, 2, 4)], [], {"weight": WEIGHT, "label_smoothing": 0.1}),
    "shares of one": ("cross_entropy", [X[0], SHARES[0]], [], {"label_smoothing": 0.1, "weight": WEIGHT}),
    "nll": ("nll_loss", [X], [LABELS], {}),
    "nll, some ignored": ("nll_loss", [X], [SOME], {"weight": WEIGHT}),
    "nll, one of them ignored": ("nll_loss", [X], [LABELS], {"ignore_index": 2}),
    "nll of pixels": ("nll_loss", [IMAGE], [PIXELS], {"weight": WEIGHT}),
    "nll of one": ("nll_loss", [X[0]], [np.array(1)], {"weight": WEIGHT}),
    "mse": ("mse_loss", [X, DIFFERENT], [], {}),
    "mse, weighted": ("mse_loss", [X, DIFFERENT], [], {"weight": POSITIVE}),
    "mse, integers": ("mse_loss", [X], [np.arange(12).reshape(4, 3)], {}),
    "l1": ("l1_loss", [X, DIFFERENT], [], {}),
    "l1, weighted": ("l1_loss", [X, DIFFERENT], [], {"weight": POSITIVE}),
    "l1 at its kink": ("l1_loss", [X, X + (DIFFERENT > 0)], [], {}),
    "smooth l1": ("smooth_l1_loss", [X, DIFFERENT], [], {}),
    "smooth l1, beta": ("smooth_l1_loss", [X, DIFFERENT], [], {"beta": 0.3}),
    "smooth l1, no beta": ("smooth_l1_loss", [X, DIFFERENT], [], {"beta": 0}),
    "huber": ("huber_loss", [X, DIFFERENT], [], {}),
    "huber, delta": ("huber_loss", [X, DIFFERENT], [], {"delta": 2.5}),
    "huber, weighted": ("huber_loss", [X, DIFFERENT], [], {"delta": 0.5, "weight": POSITIVE}),
    "bce": ("binary_cross_entropy", [unit(4, 3)], [BOTH_CLASSES], {}),
    "bce, shares": ("binary_cross_entropy", [unit(4, 3), POSITIVE], [], {}),
    "bce, weighted": ("binary_cross_entropy", [unit(4, 3), POSITIVE], [], {"weight": WEIGHT}),
    "bce logits": ("binary_cross_entropy_with_logits", [X], [BOTH_CLASSES], {}),
    "bce logits, shares": ("binary_cross_entropy_with_logits", [X, POSITIVE], [], {}),
    "bce logits, weighted": (
        "binary_cross_entropy_with_logits", [X, POSITIVE], [], {"weight": POSITIVE[:, :1], "pos_weight": WEIGHT},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, reduction, device):
    name, inputs, constants, options = ROWS[row]
    check_function(name, inputs, device, constants, {**options, "reduction": reduction}, rtol=1e-9)


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS.values()}))
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


# ---- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_class_indices_may_be_of_any_dtype(name, dtype, device):
    actual = getattr(F, name)(ndl.Tensor(X, device=device), ndl.Tensor(LABELS.astype(dtype), device=device))
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(X), torch.from_numpy(LABELS))
    assert_allclose(actual.item(), expected.item(), rtol=1e-12)


def test_cross_entropy_of_plain_class_indices_is_one_node():
    """One node on the CPU. Elsewhere there are six: checking for ignored indices would wait for the device."""
    loss = F.cross_entropy(ndl.Tensor(X), ndl.Tensor(LABELS, requires_grad=False))
    ops = [type(node.op).__name__ for node in ndl.autograd.find_topo_sort([loss]) if node.op is not None]
    assert ops == ["CrossEntropy"]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_the_mean_is_nan_if_everything_is_ignored_as_in_torch(name, device):
    x, target = (ndl.Tensor(array, device=device) for array in (X, np.full(4, -100)))
    assert np.isnan(getattr(F, name)(x, target).item())
    assert getattr(F, name)(x, target, reduction="sum").item() == 0
    assert_array_equal(getattr(F, name)(x, target, reduction="none").numpy(), np.zeros(4))


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_a_single_class_may_be_ignored_or_not(name, device):
    for target, expected in (-100, 0), (1, 1):
        tensors = [ndl.Tensor(X[0], device=device), ndl.Tensor(target, device=device)]
        twin = [torch.from_numpy(X[0]), torch.tensor(target)]
        for options in {"reduction": "sum"}, {"reduction": "none", "ignore_index": 2 if expected else -100}:
            actual = getattr(F, name)(*tensors, **options)
            assert_allclose(actual.numpy(), getattr(torch.nn.functional, name)(*twin, **options).numpy())
            assert actual.shape == ()


def test_ignored_elements_may_be_infinite(device):
    scores = np.array([[0.0, 1.0], [-np.inf, 0.0]])
    x = ndl.Tensor(scores, device=device)
    target = ndl.Tensor([1, -100], device=device)
    loss = F.cross_entropy(x, target)
    assert_allclose(loss.item(), np.log1p(np.exp(-1)))
    loss.backward()
    assert_array_equal(x.grad.numpy()[1], [0, 0])
    assert_allclose(F.nll_loss(x, target).item(), -1)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_an_empty_batch_has_a_sum(name, reduction, device):
    x, target = ndl.zeros(0, 3, device=device), ndl.zeros(0, device=device, dtype="int64")
    loss = getattr(F, name)(x, target, reduction=reduction)
    assert loss.numpy().tolist() == (0 if reduction == "sum" else [])


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_large_logits_of_classes(size, device):
    scores = np.array([[size, -size, 0], [-size, -size, -size], [0, size, size]], "float32")
    x, torch_x = ndl.Tensor(scores, device=device), torch.from_numpy(scores).requires_grad_()
    options = {"label_smoothing": 0.1}
    loss = F.cross_entropy(x, ndl.Tensor([0, 1, 2], device=device), **options)
    torch_loss = torch.nn.functional.cross_entropy(torch_x, torch.tensor([0, 1, 2]), **options)
    loss.backward()
    torch_loss.backward()
    assert_allclose(loss.item(), torch_loss.item(), rtol=1e-6)
    assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-7)


# ---- distances and two classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_shapes_that_differ_broadcast_with_a_warning(name, device):
    x, y = normal(3, 1), normal(4)
    with pytest.warns(UserWarning, match=rf"^{name}: x and target broadcast to \(3, 4\), but got \(3, 1\) and \(4,\)$"):
        actual = getattr(F, name)(ndl.Tensor(x, device=device), ndl.Tensor(y, device=device))
    with pytest.warns(UserWarning, match="target size"):
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x), torch.from_numpy(y))
    assert_allclose(actual.item(), expected.item(), rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), [("smooth_l1_loss", {"beta": 0.5}), ("huber_loss", {"delta": 0.5})])
def test_where_the_square_joins_the_line(name, options, device):
    x, zeros = np.array([-0.5, 0.5, 0.0, 1e30, -1e30]), np.zeros(5)
    leaf, torch_leaf = ndl.Tensor(x, device=device), torch.from_numpy(x).requires_grad_()
    y = getattr(F, name)(leaf, ndl.Tensor(zeros, device=device), "none", **options)
    torch_y = getattr(torch.nn.functional, name)(torch_leaf, torch.from_numpy(zeros), reduction="none", **options)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-12)
    y.sum().backward()
    torch_y.sum().backward()
    assert_allclose(leaf.grad.numpy(), torch_leaf.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("width", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("name", "option"), [("smooth_l1_loss", "beta"), ("huber_loss", "delta")])
def test_the_slope_stays_finite_for_outliers_up_to_infinity(name, option, width, dtype, device):
    x, zeros = np.array([0.05, 0.5, -1, 2e4, -2e4, np.inf, -np.inf], dtype), np.zeros(7, dtype)
    leaf, torch_leaf = ndl.Tensor(x, device=device), torch.from_numpy(x).requires_grad_()
    getattr(F, name)(leaf, ndl.Tensor(zeros, device=device), "none", **{option: width}).sum().backward()
    loss = getattr(torch.nn.functional, name)(torch_leaf, torch.from_numpy(zeros), reduction="none", **{option: width})
    loss.sum().backward()
    assert_allclose(leaf.grad.numpy(), torch_leaf.grad.numpy(), rtol=1e-3)


def test_an_infinite_delta_is_half_the_squared_error(device):
    x = ndl.Tensor([3.0, -1e4], device=device)
    y = F.huber_loss(x, ndl.Tensor([0.0, 0.0], device=device), "none", delta=np.inf)
    assert_allclose(y.numpy(), [4.5, 5e7])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bce_of_probabilities_0_and_1_matches_torch(dtype, device):
    x = np.array([0, 0, 1, 1, 1e-30, 1e-13, 1e-7, 0.5], dtype)
    target = np.array([0, 1, 0, 1, 1, 1, 1, 0.25], dtype)
    leaf, torch_leaf = ndl.Tensor(x, device=device), torch.from_numpy(x).requires_grad_()
    loss = F.binary_cross_entropy(leaf, both(target, device)[0], reduction="none")
    torch_loss = torch.nn.functional.binary_cross_entropy(torch_leaf, torch.from_numpy(target), reduction="none")
    assert loss.dtype == dtype
    assert_allclose(loss.numpy(), torch_loss.detach().numpy(), rtol=1e-6)
    assert loss.numpy()[1] == loss.numpy()[2] == 100
    loss.sum().backward()
    torch_loss.sum().backward()
    expected = torch_leaf.grad.numpy()
    expected[[0, 3]] = [1, -1]  # the limits; torch's formula (x - target) / (x · (1 - x)) is undefined at 0 and 1
    assert_allclose(leaf.grad.numpy(), expected, rtol=1e-5)


def test_bce_of_probabilities_0_and_1_in_float16(device):
    x = ndl.Tensor(np.array([0, 1, 0], "float16"), device=device)
    loss = F.binary_cross_entropy(x, ndl.Tensor(np.array([1, 1, 0], "float16"), device=device), reduction="none")
    assert loss.numpy().tolist() == [100, 0, 0]
    loss.sum().backward()
    assert x.grad.numpy().tolist() == [-(2**14), -1, 1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_large_logits_of_two_classes(dtype, device):
    x = np.array([1e4, -1e4, 1e4, -1e4, 0, 100], dtype)
    target = np.array([1, 1, 0, 0, 0.5, 0], dtype)
    leaf = ndl.Tensor(x, device=device)
    loss = F.binary_cross_entropy_with_logits(leaf, both(target, device)[0], reduction="none")
    assert loss.dtype == dtype
    assert_allclose(loss.numpy(), np.array([0, 1e4, 1e4, 0, np.log(2), 100], dtype), rtol=1e-3)
    loss.sum().backward()
    assert_allclose(leaf.grad.numpy(), [0, -1, 1, 0, 0, 1], atol=1e-3)


def test_derivatives_of_logits_at_zero(device):
    """log(1 + e ** -x) is smooth at 0, although max(x, 0) and |x|, often used to compute it, have kinks there."""
    _, (first,), (second, _) = by_needle(
        lambda x: F.binary_cross_entropy_with_logits(x, ndl.Tensor([0.25], device=device), reduction="none"),
        [np.zeros(1)], np.ones(1), [np.ones(1)], device,
    )  # fmt: skip
    assert_allclose((first, second), [[0.25], [0.25]])


# ---- modules ---------------------------------------------------------------------------------------------------------


def weights(nn, values=(0.5, 2.0, 1.25)):
    return torch.tensor(values, dtype=torch.float64) if nn is torch.nn else ndl.Tensor(values, dtype="float32")


F32 = BOTH_CLASSES.astype("float32")

MODULES = {
    "CrossEntropyLoss()": (lambda nn: nn.CrossEntropyLoss(), [X], [LABELS]),
    "CrossEntropyLoss(options)": (
        lambda nn: nn.CrossEntropyLoss(weights(nn), ignore_index=2, reduction="sum", label_smoothing=0.1),
        [X], [LABELS],
    ),
    "NLLLoss()": (lambda nn: nn.NLLLoss(), [X], [LABELS]),
    "NLLLoss(options)": (lambda nn: nn.NLLLoss(weights(nn), ignore_index=2, reduction="none"), [X], [LABELS]),
    "MSELoss": (lambda nn: nn.MSELoss(reduction="sum"), [X, DIFFERENT], []),
    "L1Loss": (lambda nn: nn.L1Loss(reduction="none"), [X, DIFFERENT], []),
    "SmoothL1Loss": (lambda nn: nn.SmoothL1Loss(beta=0.5), [X, DIFFERENT], []),
    "SmoothL1Loss(sum)": (lambda nn: nn.SmoothL1Loss(reduction="sum"), [X, DIFFERENT], []),
    "HuberLoss": (lambda nn: nn.HuberLoss("sum", 0.5), [X, DIFFERENT], []),
    "BCELoss": (lambda nn: nn.BCELoss(weights(nn), reduction="none"), [unit(4, 3), POSITIVE], []),
    "BCEWithLogitsLoss": (
        lambda nn: nn.BCEWithLogitsLoss(weights(nn), reduction="sum", pos_weight=weights(nn, (3.0, 1.0, 0.5))),
        [X, POSITIVE], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", MODULES)
def test_module_matches_torch(row, device):
    make, inputs, constants = MODULES[row]
    check_module(make, inputs, device, constants=constants)


@pytest.mark.parametrize("name", sorted({row.partition("(")[0] for row in MODULES}))
def test_signature_of_module_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


# ---- errors ----------------------------------------------------------------------------------------------------------


def floats(*shape):
    return ndl.zeros(*shape)


def integers(*values):
    return ndl.Tensor(list(values))


BCE, LOGITS = "binary_cross_entropy", "binary_cross_entropy_with_logits"

ERRORS = [
    (
        lambda: F.cross_entropy(floats(2, 3), floats(3)), ValueError,
        "cross_entropy: target must hold class indices (2,) or probabilities (2, 3) for x (2, 3), but got (3,)",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3, 4), floats(4)), ValueError,
        "cross_entropy: target must hold class indices (2, 4) or probabilities (2, 3, 4) for x (2, 3, 4), but got (4,)",
    ),
    (
        lambda: F.nll_loss(floats(2, 3), floats(2, 3)), ValueError,
        "nll_loss: target must hold class indices (2,) for x (2, 3), but got (2, 3)",
    ),
    (
        lambda: F.cross_entropy(floats(), integers(1)), ValueError,
        "cross_entropy: x must be (C,), (N, C) or (N, C, *S) with at least 1 class, but got shape ()",
    ),
    (
        lambda: F.nll_loss(floats(2, 0), integers(1, 1)), ValueError,
        "nll_loss: x must be (C,), (N, C) or (N, C, *S) with at least 1 class, but got shape (2, 0)",
    ),
    (
        lambda: F.cross_entropy(integers(1, 2), integers(1, 2)), TypeError,
        "cross_entropy: x must have a floating dtype, but got int64",
    ),
    (
        lambda: F.cross_entropy(floats(2), integers(1, 2)), TypeError,
        "cross_entropy: target of the shape of x must hold probabilities, but got dtype int64",
    ),
    (
        lambda: F.cross_entropy(floats(2), floats(2), ignore_index=1), ValueError,
        "cross_entropy: ignore_index must be negative with probabilities as target, but got 1",
    ),
    (
        lambda: F.cross_entropy(floats(0, 3), floats(0)), ValueError,
        "cross_entropy: the batch must not be empty, but got x of shape (0, 3)",
    ),
    (
        lambda: F.cross_entropy(floats(0, 3), floats(0, 3)), ValueError,
        "cross_entropy: the batch must not be empty, but got x of shape (0, 3)",
    ),
    (
        lambda: F.nll_loss(floats(0, 3), floats(0)), ValueError,
        "nll_loss: the batch must not be empty, but got x of shape (0, 3)",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), integers(0, 3)), ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: F.nll_loss(floats(2, 3), integers(-1, 2)), ValueError,
        "nll_loss: targets must lie in [0, 2], but got -1 to 2",
    ),
    (
        lambda: F.cross_entropy(floats(3, 3), integers(-100, 5, 1)), ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 1 to 5",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), ndl.Tensor([0.0, 0.5])), ValueError,
        "cross_entropy: targets must be integers, but got 0.5",
    ),
    (
        lambda: F.nll_loss(floats(2, 3), ndl.Tensor([0.0, float("nan")])), ValueError,
        "nll_loss: targets must be integers, but got nan",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), ndl.Tensor([True, False])), TypeError,
        "cross_entropy: targets must be integers, but got dtype bool",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), integers(0, 1), floats(2)), ValueError,
        "cross_entropy: weight must hold 1 number for each class of x (2, 3), but got (2,)",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), integers(0, 1), ndl.Tensor([1.0, 1.0, 1.0])), TypeError,
        "cross_entropy: x and weight must have one floating dtype, but got float32 and float64" + HINT,
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), integers(0, 1), label_smoothing=1.5), ValueError,
        "cross_entropy: label_smoothing must lie in [0, 1], but got 1.5",
    ),
    (
        lambda: F.cross_entropy(floats(2, 3), integers(0, 1), ignore_index=None), TypeError,
        "cross_entropy: ignore_index must be an integer, but got None",
    ),
    (
        lambda: F.nll_loss(floats(2, 3), integers(0, 1), ignore_index=0.5), TypeError,
        "nll_loss: ignore_index must be an integer, but got 0.5",
    ),
    *(
        (
            lambda name=name, target=target: getattr(F, name)(floats(2, 3), target, reduction="average"), ValueError,
            f"{name}: reduction must be one of 'none', 'mean', 'sum', but got 'average'",
        )
        for name, target in [
            ("cross_entropy", integers(0, 1)), ("cross_entropy", floats(2, 3)), ("nll_loss", integers(0, 1)),
            *((name, floats(2, 3)) for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", BCE, LOGITS)),
        ]
    ),
    *(
        (
            lambda name=name: getattr(F, name)(floats(0, 3), floats(0, 3)), ValueError,
            f"{name}: the batch must not be empty, but got x of shape (0, 3)",
        )
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", BCE, LOGITS)
    ),
    *(
        (
            lambda name=name: getattr(F, name)(floats(2, 3), floats(2)), ValueError,
            f"{name}: shapes must broadcast, but got (2, 3) and (2,)",
        )
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
    ),
    *(
        (
            lambda name=name: getattr(F, name)(integers(1, 2), floats(2)), TypeError,
            f"{name}: x must have a floating dtype, but got int64",
        )
        for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
    ),
    *(
        (
            lambda name=name: getattr(F, name)(floats(2, 3), floats(2, 3), weight=floats(3)), ValueError,
            f"{name}: x and weight must agree in shape, but got (2, 3) and (3,)",
        )
        for name in ("mse_loss", "l1_loss", "huber_loss")
    ),
    (
        lambda: F.smooth_l1_loss(floats(2), floats(2), beta=-1), ValueError,
        "smooth_l1_loss: beta must lie in [0, inf], but got -1",
    ),
    (
        lambda: F.huber_loss(floats(2), floats(2), delta=0), ValueError,
        "huber_loss: delta must lie in (0, inf], but got 0",
    ),
    *(
        row
        for name in (BCE, LOGITS)
        for row in [
            (
                lambda name=name: getattr(F, name)(floats(2, 1), floats(2)), ValueError,
                f"{name}: x and target must agree in shape, but got (2, 1) and (2,)",
            ),
            (
                lambda name=name: getattr(F, name)(floats(2), integers(0, 1)), TypeError,
                f"{name}: x and target must have one floating dtype, but got float32 and int64",
            ),
            (
                lambda name=name: getattr(F, name)(floats(2), floats(2), floats(3)), ValueError,
                f"{name}: shapes must broadcast, but got (3,) and (2,)",
            ),
            (
                lambda name=name: getattr(F, name)(floats(2), floats(2), floats(3, 2)), ValueError,
                f"{name}: weight must broadcast to the shape of x (2,), but got shape (3, 2)",
            ),
            (
                lambda name=name: getattr(F, name)(floats(2), floats(2), integers(1, 2)), TypeError,
                f"{name}: x and target and weight must have one floating dtype, but got float32 and float32 and int64",
            ),
        ]
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(floats(2), floats(2), pos_weight=floats(3, 2)), ValueError,
        f"{LOGITS}: pos_weight must broadcast to the shape of x (2,), but got shape (3, 2)",
    ),
    (
        lambda: F.binary_cross_entropy_with_logits(floats(2), floats(2), pos_weight=integers(1)), TypeError,
        f"{LOGITS}: x and target and pos_weight must have one floating dtype, but got float32 and float32 and int64",
    ),
    (
        lambda: F.binary_cross_entropy(ndl.Tensor([0.5, 1.5]), ndl.Tensor([0.0, 1.0])), ValueError,
        f"{BCE}: x must lie in [0, 1], but got 0.5 to 1.5",
    ),
    (
        lambda: F.binary_cross_entropy(ndl.Tensor([0.5, 1.0]), ndl.Tensor([-1.0, 1.0])), ValueError,
        f"{BCE}: target must lie in [0, 1], but got -1.0 to 1.0",
    ),
    (
        lambda: F.binary_cross_entropy(ndl.Tensor([float("nan")]), ndl.Tensor([1.0])), ValueError,
        f"{BCE}: x must lie in [0, 1], but got nan to nan",
    ),
    (
        lambda: nn.MSELoss("average"), ValueError,
        "MSELoss: reduction must be one of 'none', 'mean', 'sum', but got 'average'",
    ),
    (
        lambda: nn.CrossEntropyLoss(label_smoothing=-1), ValueError,
        "CrossEntropyLoss: label_smoothing must lie in [0, 1], but got -1",
    ),
    (
        lambda: nn.CrossEntropyLoss(ignore_index="a"), TypeError,
        "CrossEntropyLoss: ignore_index must be an integer, but got 'a'",
    ),
    (lambda: nn.NLLLoss(ignore_index=0.5), TypeError, "NLLLoss: ignore_index must be an integer, but got 0.5"),
    (lambda: nn.SmoothL1Loss(beta=-1), ValueError, "SmoothL1Loss: beta must lie in [0, inf], but got -1"),
    (lambda: nn.HuberLoss(delta=0), ValueError, "HuberLoss: delta must lie in (0, inf], but got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
