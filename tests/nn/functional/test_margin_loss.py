"""Losses of margins, embeddings and distributions: against torch to second order, at kinks, as modules, errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from tests.nn.functional.alike import both, check_function, check_module, check_signature, normal, raises, unit

X = normal(4, 3, scale=2.0)
Y = normal(4, 3, seed=1)
Z = normal(4, 3, seed=2)
SHARES = unit(4, 3)
SIGNS = np.where(normal(4, 3, seed=3) > 0, 1, -1)
BOTH = np.round(unit(4, 3, seed=3))
SIDES = np.array([1, -1, -1, 1])
LABELS = np.array([2, 0, 1, 2])
SETS = np.array([[2, 0, -1], [1, -1, 0], [-1, 1, 2], [0, 1, 2]])
WEIGHT = np.array([0.5, 2.0, 1.25])
COUNTS = np.array([[0, 1, 2], [3, 0, 7], [1, 1, 1], [2, 5, 0]])


def by_hinges(x, target, p=1, margin=1.0, weight=None, reduction="mean"):
    """torch's multi_margin_loss, which has no second derivative."""
    x, target = x.reshape(-1, x.shape[-1]), target.reshape(-1)
    own = x.gather(1, target[:, None])
    others = torch.ones_like(x).scatter(1, target[:, None], 0)
    losses = ((margin - own + x).relu() ** p * others).sum(1) / x.shape[1]
    return reduced(losses if weight is None else losses * weight[target], reduction)


def by_sets(x, target, reduction="mean"):
    """torch's multilabel_margin_loss, which has no second derivative."""
    losses = []
    for row, labels in zip(x.reshape(-1, x.shape[-1]), target.reshape(-1, x.shape[-1]).tolist(), strict=True):
        own = labels[: labels.index(-1)] if -1 in labels else labels
        others = [i for i in range(len(row)) if i not in own]
        losses.append(sum(((1 - row[y] + row[i]).relu() for y in own for i in others), 0 * row.sum()) / len(row))
    return reduced(torch.stack(losses).reshape(x.shape[:-1]), reduction)


def reduced(losses, reduction):
    return losses if reduction == "none" else getattr(losses, reduction)()


ORACLES = {"multi_margin_loss": by_hinges, "multilabel_margin_loss": by_sets}

# (function, inputs that are differentiated, constants, options); each under every reduction
ROWS = {
    "kl": ("kl_div", [X, SHARES], [], {}),
    "kl of logarithms": ("kl_div", [X, Y], [], {"log_target": True}),
    "kl, broadcast": ("kl_div", [X, unit(3)], [], {}),
    "kl of one number": ("kl_div", [X[0, 0], SHARES[0, 0]], [], {}),
    "kl, certain": ("kl_div", [X], [BOTH], {}),
    "poisson": ("poisson_nll_loss", [Y, unit(4, 3)], [], {}),
    "poisson, counts": ("poisson_nll_loss", [Y], [1.0 * COUNTS], {"full": True}),
    "poisson, the mean": ("poisson_nll_loss", [unit(4, 3)], [COUNTS], {"log_input": False}),
    "poisson, everything": (
        "poisson_nll_loss", [unit(4, 3), 3 * unit(3, seed=1)], [], {"log_input": False, "full": True, "eps": 0.25},
    ),
    "gaussian": ("gaussian_nll_loss", [X, Y, unit(4, 3)], [], {}),
    "gaussian, one variance per row": ("gaussian_nll_loss", [X, Y, unit(4)], [], {"full": True}),
    "gaussian, one variance per column": ("gaussian_nll_loss", [X, normal(3), unit(1, 3)], [], {}),
    "gaussian, limited": ("gaussian_nll_loss", [X, Y, unit(4, 3)], [], {"eps": 0.5}),
    "gaussian, one number": ("gaussian_nll_loss", [X, Y], [], {"var": 2.0}),
    "gaussian, integers": ("gaussian_nll_loss", [X], [COUNTS], {"var": SHARES}),
    "hinge": ("hinge_embedding_loss", [X], [SIGNS], {}),
    "hinge, margin": ("hinge_embedding_loss", [X], [SIGNS[0]], {"margin": 0.3}),
    "hinge, other targets": ("hinge_embedding_loss", [X], [np.array([[0], [2], [1], [-1]])], {}),
    "cosine": ("cosine_embedding_loss", [X, Y], [SIDES], {}),
    "cosine, margin": ("cosine_embedding_loss", [X, Y], [SIDES], {"margin": -0.4}),
    "cosine, broadcast": ("cosine_embedding_loss", [X, Y[:1]], [SIDES], {}),
    "cosine of vectors": ("cosine_embedding_loss", [X[0], Y[0]], [np.array(1)], {}),
    "cosine, other targets": ("cosine_embedding_loss", [X, Y], [np.array([0, 1, 2, -1])], {}),
    "ranking": ("margin_ranking_loss", [X, Y], [SIGNS], {}),
    "ranking, margin": ("margin_ranking_loss", [X, Y[:1]], [SIGNS[:, :1]], {"margin": 0.5}),
    "ranking of numbers": ("margin_ranking_loss", [X[0, 0], Y[0, 0]], [np.array(-1)], {}),
    "multi": ("multi_margin_loss", [X], [LABELS], {}),
    "multi, squared": ("multi_margin_loss", [X], [LABELS], {"p": 2, "margin": 0.7}),
    "multi, weighted": ("multi_margin_loss", [X], [LABELS], {"weight": WEIGHT}),
    "multi, everything": ("multi_margin_loss", [X], [LABELS], {"p": 2, "margin": -0.5, "weight": WEIGHT}),
    "sets": ("multilabel_margin_loss", [X], [SETS], {}),
    "sets of one sample": ("multilabel_margin_loss", [X[0]], [SETS[0]], {}),
    "sets with one class twice": ("multilabel_margin_loss", [X], [np.array([[1, 1, -1]] * 4)], {}),
    "soft": ("soft_margin_loss", [X], [SIGNS], {}),
    "soft, shares": ("soft_margin_loss", [X], [Y], {}),
    "soft, broadcast": ("soft_margin_loss", [X], [SIGNS[0]], {}),
    "soft sets": ("multilabel_soft_margin_loss", [X], [BOTH], {}),
    "soft sets, shares": ("multilabel_soft_margin_loss", [X, SHARES], [], {"weight": WEIGHT}),
    "soft sets of pixels": ("multilabel_soft_margin_loss", [normal(2, 2, 3)], [BOTH[:2, None]], {}),
    "soft sets of one sample": ("multilabel_soft_margin_loss", [X[0]], [BOTH[0]], {"weight": WEIGHT}),
    "triplet": ("triplet_margin_loss", [X, Y, Z], [], {}),
    "triplet, swapped": ("triplet_margin_loss", [X, Y, Z], [], {"swap": True, "margin": 2.0}),
    "triplet, p": ("triplet_margin_loss", [X, Y, Z], [], {"p": 3, "eps": 0.25}),
    "triplet, p = 1": ("triplet_margin_loss", [X, Y, Z], [], {"p": 1}),
    "triplet, infinite p": ("triplet_margin_loss", [X, Y, Z], [], {"p": float("inf")}),
    "triplet, broadcast": ("triplet_margin_loss", [X[:1], Y, Z], [], {}),
    "triplet of vectors": ("triplet_margin_loss", [X[0], Y[0], Z[0]], [], {}),
    "triplets": ("triplet_margin_loss", [normal(2, 3, 4, seed=i) for i in range(3)], [], {"margin": 0.5}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, reduction, device):
    name, inputs, constants, options = ROWS[row]
    inputs, options = [np.asarray(x) for x in inputs], {**options, "reduction": reduction}
    check_function(name, inputs, device, constants, options, rtol=1e-9, oracle=ORACLES.get(name))


@pytest.mark.parametrize("shape", [(4, 3), (3,), ()])
def test_the_batch_mean_of_a_divergence_matches_torch(shape, device):
    x, target = (f(*shape) if shape else np.array(0.5) for f in (normal, unit))
    check_function("kl_div", [x, target], device, options={"reduction": "batchmean"})


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS.values()}))
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


# ---- kinks and extremes ----------------------------------------------------------------------------------------------

KINKS = {
    "hinge_embedding_loss": ([np.array([1.0, 1.0, 0.0])], [np.array([-1, 1, -1])], {}),
    "margin_ranking_loss": ([np.array([1.0, 2.0]), np.array([1.0, 1.5])], [np.array([1, 1])], {"margin": 0.5}),
    "cosine_embedding_loss": ([np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])], [np.array([-1])], {}),
    "multi_margin_loss": ([np.array([[1.0, 0.0, 2.0]])], [np.array([0])], {}),
    "multilabel_margin_loss": ([np.array([[1.0, 0.0, 2.0]])], [np.array([[0, 2, -1]])], {}),
    "triplet_margin_loss": (
        [np.zeros((1, 2)), np.array([[0.0, 1.0]]), np.array([[2.0, 0.0]])], [], {"eps": 0.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_derivatives_at_kinks_match_torch(name, device):
    arrays, constants, options = KINKS[name]
    pairs = [both(constant, device) for constant in constants]
    mine = [ndl.Tensor(x, device=device) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    getattr(F, name)(*mine, *(c for c, _ in pairs), **options).backward()
    getattr(torch.nn.functional, name)(*theirs, *(c for _, c in pairs), **options).backward()
    for leaf, reference in zip(mine, theirs, strict=True):
        assert_allclose(leaf.grad.numpy(), reference.grad.numpy(), rtol=1e-9, atol=1e-9)


def test_equal_points_of_a_triplet_have_a_gradient(device):
    """The norm has no derivative at 0; torch takes 0."""
    leaves = [ndl.Tensor(np.zeros((1, 2)), device=device) for _ in range(3)]
    F.triplet_margin_loss(*leaves, eps=0.0).backward()
    assert all((x.grad.numpy() == 0).all() for x in leaves)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["soft_margin_loss", "multilabel_soft_margin_loss"])
def test_large_scores_neither_overflow_nor_warn(name, dtype, device):
    x = np.array([[1e4, -1e4, 1e30, -1e30, 0, 30, -30]], dtype)
    target = np.ones_like(x) if name == "soft_margin_loss" else np.array([[1, 1, 1, 1, 0, 0, 0]], dtype)
    leaf = ndl.Tensor(x, device=device)
    loss = getattr(F, name)(leaf, ndl.Tensor(target, device=device), reduction="sum")
    loss.backward()
    expected = np.logaddexp(0, np.where(target > 0, -x, x).astype("float64")).sum()
    scale = 1 if name == "soft_margin_loss" else x.size
    assert_allclose(loss.item(), expected / scale, rtol=1e-6)
    assert np.isfinite(leaf.grad.numpy()).all()


def test_float16_is_computed_in_float32(device):
    x = ndl.Tensor(np.full((2, 4), 300, "float16"), device=device)
    target = ndl.Tensor(np.zeros((2, 4), "float16"), device=device)
    loss = F.gaussian_nll_loss(x, target, 100.0)  # (x - target)² exceeds float16
    loss.backward()
    assert loss.dtype == x.grad.dtype == "float16"
    assert_allclose(loss.item(), (np.log(100) + 900) / 2, rtol=1e-3)
    pair = [ndl.Tensor(np.full((2, 4), value, "float16"), device=device) for value in (300, -300)]
    assert_allclose(F.cosine_embedding_loss(*pair, ndl.Tensor([1, 1], device=device)).item(), 2, rtol=1e-3)


def test_mixed_dtypes_give_the_widest_as_in_torch(device):
    x, y = X.astype("float32"), Y
    loss = F.margin_ranking_loss(*(ndl.Tensor(a, device=device) for a in (x, y)), ndl.Tensor(SIGNS, device=device))
    expected = torch.nn.functional.margin_ranking_loss(*map(torch.from_numpy, (x, y, SIGNS)))
    assert (str(loss.dtype), str(expected.dtype)) == ("float64", "torch.float64")
    assert_allclose(loss.item(), expected.item(), rtol=1e-12)


def test_tensors_without_axes_do_not_widen_as_in_torch(device):
    x, target = X.astype("float32"), np.array(0.5)
    loss = F.kl_div(ndl.Tensor(x, device=device), ndl.Tensor(target, device=device), "sum")
    expected = torch.nn.functional.kl_div(torch.tensor(x), torch.tensor(target), reduction="sum")
    assert (str(loss.dtype), str(expected.dtype)) == ("float32", "torch.float32")
    assert_allclose(loss.item(), expected.item(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_class_indices_may_be_of_any_dtype(dtype, device):
    loss = F.multi_margin_loss(ndl.Tensor(X, device=device), ndl.Tensor(LABELS.astype(dtype), device=device))
    assert_allclose(loss.item(), torch.nn.functional.multi_margin_loss(*map(torch.from_numpy, (X, LABELS))).item())


@pytest.mark.parametrize(("shape", "labels"), [((3,), (1,)), ((3,), ()), ((), ())])
def test_one_sample_of_multi_margin_has_torchs_shape(shape, labels, device):
    x, target = np.ones(shape), np.zeros(labels, "int64")
    loss = F.multi_margin_loss(ndl.Tensor(x, device=device), ndl.Tensor(target, device=device), reduction="none")
    expected = torch.nn.functional.multi_margin_loss(torch.tensor(x), torch.tensor(target), reduction="none")
    assert_allclose(loss.numpy(), expected.numpy())
    assert loss.shape == expected.shape


@pytest.mark.parametrize(("name", "operands"), [
    ("kl_div", "xx"), ("poisson_nll_loss", "xx"), ("gaussian_nll_loss", "xxx"), ("hinge_embedding_loss", "xx"),
    ("cosine_embedding_loss", "xxn"), ("margin_ranking_loss", "xxx"), ("soft_margin_loss", "xx"),
    ("multilabel_soft_margin_loss", "xx"), ("triplet_margin_loss", "xxx"),
])  # fmt: skip
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_an_empty_batch_matches_torch(name, operands, reduction, device):
    kinds = {"x": np.zeros((0, 3)), "n": np.zeros(0)}
    loss = getattr(F, name)(*(ndl.Tensor(kinds[k], device=device) for k in operands), reduction=reduction)
    expected = getattr(torch.nn.functional, name)(*(torch.from_numpy(kinds[k]) for k in operands), reduction=reduction)
    assert_array_equal(loss.numpy(), expected.numpy())


@pytest.mark.parametrize(("name", "shape"), [("multi_margin_loss", (0,)), ("multilabel_margin_loss", (0, 3))])
def test_an_empty_batch_of_classes_has_no_loss(name, shape, device):
    """torch returns memory that it has not written."""
    x, target = ndl.zeros(0, 3, device=device), ndl.zeros(*shape, device=device, dtype="int64")
    assert getattr(F, name)(x, target, reduction="sum").item() == 0
    assert getattr(F, name)(x, target, reduction="none").shape == (0,)


# ---- modules ---------------------------------------------------------------------------------------------------------


def weights(nn):
    return torch.tensor(WEIGHT) if nn is torch.nn else ndl.Tensor(WEIGHT, dtype="float32")


MODULES = {
    "KLDivLoss": (lambda nn: nn.KLDivLoss(reduction="batchmean"), [X, SHARES], []),
    "KLDivLoss(log)": (lambda nn: nn.KLDivLoss(reduction="sum", log_target=True), [X, Y], []),
    "PoissonNLLLoss": (lambda nn: nn.PoissonNLLLoss(), [Y], [COUNTS]),
    "PoissonNLLLoss(options)": (
        lambda nn: nn.PoissonNLLLoss(False, full=True, eps=0.5, reduction="sum"), [unit(4, 3)], [COUNTS],
    ),
    "GaussianNLLLoss": (lambda nn: nn.GaussianNLLLoss(), [X, Y, SHARES], []),
    "GaussianNLLLoss(options)": (
        lambda nn: nn.GaussianNLLLoss(full=True, eps=0.5, reduction="none"), [X, Y, SHARES], [],
    ),
    "HingeEmbeddingLoss": (lambda nn: nn.HingeEmbeddingLoss(), [X], [SIGNS]),
    "HingeEmbeddingLoss(options)": (lambda nn: nn.HingeEmbeddingLoss(0.5, reduction="sum"), [X], [SIGNS]),
    "CosineEmbeddingLoss": (lambda nn: nn.CosineEmbeddingLoss(), [X, Y], [SIDES]),
    "CosineEmbeddingLoss(options)": (lambda nn: nn.CosineEmbeddingLoss(0.5, reduction="none"), [X, Y], [SIDES]),
    "MarginRankingLoss": (lambda nn: nn.MarginRankingLoss(), [X, Y], [SIGNS]),
    "MarginRankingLoss(options)": (lambda nn: nn.MarginRankingLoss(0.5, reduction="sum"), [X, Y], [SIGNS]),
    "MultiMarginLoss": (lambda nn: nn.MultiMarginLoss(), [X], [LABELS]),
    "MultiMarginLoss(options)": (lambda nn: nn.MultiMarginLoss(2, 0.5, weights(nn), reduction="none"), [X], [LABELS]),
    "MultiLabelMarginLoss": (lambda nn: nn.MultiLabelMarginLoss(reduction="sum"), [X], [SETS]),
    "SoftMarginLoss": (lambda nn: nn.SoftMarginLoss(reduction="none"), [X], [SIGNS]),
    "MultiLabelSoftMarginLoss": (
        lambda nn: nn.MultiLabelSoftMarginLoss(weights(nn), reduction="none"), [X], [BOTH.astype("int64")],
    ),
    "TripletMarginLoss": (lambda nn: nn.TripletMarginLoss(), [X, Y, Z], []),
    "TripletMarginLoss(options)": (lambda nn: nn.TripletMarginLoss(2, 1, 0.5, True, reduction="sum"), [X, Y, Z], []),
}  # fmt: skip


@pytest.mark.parametrize("row", MODULES)
def test_module_matches_torch(row, device):
    make, inputs, constants = MODULES[row]
    check_module(make, inputs, device, constants=constants)


@pytest.mark.parametrize("name", sorted({row.partition("(")[0] for row in MODULES}))
def test_signature_of_module_matches_torch(name):
    check_signature(getattr(nn, name), getattr(torch.nn, name))


def test_the_variance_options_are_keywords_as_in_torch():
    kinds = {parameter.kind for parameter in inspect.signature(nn.GaussianNLLLoss).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


# ---- errors ----------------------------------------------------------------------------------------------------------

ONES = ndl.ones(2, 3)
ROW = ndl.ones(3)
DOUBLE = ndl.ones(2, 3, dtype="float64")
INTEGERS = ndl.Tensor([[1, 0, 1], [0, 1, 1]])
EMPTY = ndl.ones(0, 3)
NO_CLASS = ndl.ones(2, 0)
TWO = ndl.Tensor([0, 1])

ERRORS = [
    # dtypes
    *(
        (lambda f=f: getattr(F, f)(INTEGERS, ONES), TypeError, f"{f}: x must have a floating dtype, but got int64")
        for f in (
            "kl_div", "poisson_nll_loss", "hinge_embedding_loss", "soft_margin_loss", "multilabel_soft_margin_loss",
        )
    ),
    (
        lambda: F.gaussian_nll_loss(INTEGERS, ONES, ONES), TypeError,
        "gaussian_nll_loss: x must have a floating dtype, but got int64",
    ),
    (
        lambda: F.gaussian_nll_loss(ONES, ONES, INTEGERS), TypeError,
        "gaussian_nll_loss: var must have a floating dtype, but got int64",
    ),
    (lambda: F.kl_div(ONES, INTEGERS), TypeError, "kl_div: target must have a floating dtype, but got int64"),
    (
        lambda: F.margin_ranking_loss(ONES, INTEGERS, ONES), TypeError,
        "margin_ranking_loss: x2 must have a floating dtype, but got int64",
    ),
    (
        lambda: F.cosine_embedding_loss(INTEGERS, ONES, TWO), TypeError,
        "cosine_embedding_loss: x must have a floating dtype, but got int64",
    ),
    (
        lambda: F.triplet_margin_loss(ONES, ONES, INTEGERS), TypeError,
        "triplet_margin_loss: negative must have a floating dtype, but got int64",
    ),
    (
        lambda: F.multi_margin_loss(INTEGERS, TWO), TypeError,
        "multi_margin_loss: x must have a floating dtype, but got int64",
    ),
    (
        lambda: F.multilabel_margin_loss(INTEGERS, INTEGERS), TypeError,
        "multilabel_margin_loss: x must have a floating dtype, but got int64",
    ),
    # reductions
    *(
        (
            lambda f=f, operands=operands: getattr(F, f)(*operands, reduction="average"), ValueError,
            f"{f}: reduction must be one of {choices}, but got 'average'",
        )
        for f, operands, choices in (
            ("kl_div", (ONES, ONES), "'none', 'batchmean', 'mean', 'sum'"),
            *((f, operands, "'none', 'mean', 'sum'") for f, operands in (
                ("poisson_nll_loss", (ONES, ONES)), ("gaussian_nll_loss", (ONES, ONES, ONES)),
                ("hinge_embedding_loss", (ONES, ONES)), ("cosine_embedding_loss", (ONES, ONES, TWO)),
                ("margin_ranking_loss", (ONES, ONES, ONES)), ("multi_margin_loss", (ONES, TWO)),
                ("multilabel_margin_loss", (ONES, INTEGERS)), ("soft_margin_loss", (ONES, ONES)),
                ("multilabel_soft_margin_loss", (ONES, ONES)), ("triplet_margin_loss", (ONES, ONES, ONES)),
            )),
        )
    ),
    *(
        (
            lambda reduction=reduction: F.kl_div(EMPTY, EMPTY, reduction), ValueError,
            "kl_div: the batch must not be empty, but got x of shape (0, 3)",
        )
        for reduction in ("mean", "batchmean")
    ),
    (
        lambda: F.triplet_margin_loss(EMPTY, EMPTY, EMPTY), ValueError,
        "triplet_margin_loss: the batch must not be empty, but got x of shape (0, 3)",
    ),
    # shapes
    (lambda: F.kl_div(ONES, ndl.ones(2)), ValueError, "kl_div: shapes must broadcast, but got (2, 3) and (2,)"),
    (
        lambda: F.poisson_nll_loss(ONES, ndl.ones(2)), ValueError,
        "poisson_nll_loss: shapes must broadcast, but got (2, 3) and (2,)",
    ),
    *(
        (
            lambda shape=shape: F.gaussian_nll_loss(ONES, ONES, ndl.ones(*shape)), ValueError,
            (
                "gaussian_nll_loss: var must be one number, have the shape of x or size 1 in one axis, or lack the "
                f"last axis, but got {shape} for x (2, 3)"
            ),
        )
        for shape in ((3,), (1, 1), (), (4, 2, 3), (2, 2))
    ),
    (
        lambda: F.gaussian_nll_loss(ONES, ONES, -1.0), ValueError,
        "gaussian_nll_loss: var must lie in [0, inf], but got -1.0 to -1.0",
    ),
    (
        lambda: F.gaussian_nll_loss(ONES, ONES, ndl.Tensor([[0.5, -0.5, 1.0]])), ValueError,
        "gaussian_nll_loss: var must lie in [0, inf], but got -0.5 to 1.0",
    ),
    (
        lambda: F.hinge_embedding_loss(ONES, ndl.ones(2)), ValueError,
        "hinge_embedding_loss: shapes must broadcast, but got (2, 3) and (2,)",
    ),
    *(
        (
            lambda a=a, b=b, t=t: F.cosine_embedding_loss(ndl.ones(*a), ndl.ones(*b), ndl.ones(*t)), ValueError,
            (
                "cosine_embedding_loss: x1 and x2 (N, D) with target (N,), or (D,) with (), are needed, but got "
                f"{a}, {b} and {t}"
            ),
        )
        for a, b, t in (
            ((3,), (3,), (1,)), ((2, 3), (2, 3), ()), ((2, 3), (3,), (2,)), ((2, 3), (2, 3), (2, 1)),
            ((2, 3, 4), (2, 3, 4), (2,)),
        )
    ),
    (
        lambda: F.cosine_embedding_loss(ONES, ONES, ROW), ValueError,
        "cosine_embedding_loss: shapes must broadcast, but got (2,) and (3,)",
    ),
    (
        lambda: F.margin_ranking_loss(ROW, ROW, ndl.ones()), ValueError,
        "margin_ranking_loss: x1, x2, target must have the same number of axes, but got (3,), (3,), ()",
    ),
    (
        lambda: F.margin_ranking_loss(ROW, ROW, ndl.ones(2)), ValueError,
        "margin_ranking_loss: shapes must broadcast, but got (3,) and (3,) and (2,)",
    ),
    (
        lambda: F.triplet_margin_loss(ROW, ndl.ones(), ROW), ValueError,
        "triplet_margin_loss: anchor, positive, negative must have the same number of axes, but got (3,), (), (3,)",
    ),
    (
        lambda: F.soft_margin_loss(ROW, ONES), ValueError,
        "soft_margin_loss: target must broadcast to the shape of x (3,), but got shape (2, 3)",
    ),
    *(
        (
            lambda f=f, x=x: getattr(F, f)(x, INTEGERS if f == "multi_margin_loss" else x), ValueError,
            f"{f}: x must be (N, C) or (C,) with at least 1 class, but got shape {x.shape}",
        )
        for f in ("multi_margin_loss", "multilabel_margin_loss")
        for x in (ndl.ones(2, 3, 4), NO_CLASS, ndl.ones(0))
    ),
    (
        lambda: F.multi_margin_loss(ONES, ndl.Tensor([0])), ValueError,
        "multi_margin_loss: target must hold a class index for each of the 2 rows of x, but got (1,)",
    ),
    (
        lambda: F.multi_margin_loss(ONES, TWO, weight=ndl.ones(2)), ValueError,
        "multi_margin_loss: weight must hold 1 number for each of 3 classes, but got (2,)",
    ),
    (
        lambda: F.multi_margin_loss(ONES, ndl.Tensor([0, 3])), ValueError,
        "multi_margin_loss: targets must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: F.multi_margin_loss(ONES, ndl.Tensor([0.5, 1.0])), ValueError,
        "multi_margin_loss: targets must be integers, but got 0.5",
    ),
    (
        lambda: F.multilabel_margin_loss(ROW, ndl.Tensor([1, -1])), ValueError,
        "multilabel_margin_loss: x and target must agree in shape, but got (3,) and (2,)",
    ),
    *(
        (
            lambda label=label: F.multilabel_margin_loss(ROW, ndl.Tensor([-1, -1, label])), ValueError,
            f"multilabel_margin_loss: targets must lie in [-1, 2], but got {min(label, -1)} to {max(label, -1)}",
        )
        for label in (3, -2)
    ),
    (
        lambda: F.multilabel_soft_margin_loss(ndl.ones(), ndl.ones()), ValueError,
        "multilabel_soft_margin_loss: x must be (…, C) with at least 1 class, but got shape ()",
    ),
    (
        lambda: F.multilabel_soft_margin_loss(ONES, ONES, ndl.ones(2)), ValueError,
        "multilabel_soft_margin_loss: shapes must broadcast, but got (2, 3) and (2, 3) and (2,)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
