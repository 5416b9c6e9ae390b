"""Sampling by grids against torch: results, derivatives to second order, edges, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import needle as ndl
import needle.nn.functional as F
from tests.nn.functional.alike import check_function, check_signature, normal, raises

HINT = '; .astype("float32") converts'  # where float32 meets float64

MODES = ["bilinear", "nearest", "bicubic"]
PADDINGS = ["zeros", "border", "reflection"]


def results(x, grid, device, **options):
    """The value and the gradients of both libraries, for one direction."""
    leaves = [ndl.Tensor(a, device=device) for a in (x, grid)]
    twins = [torch.tensor(a, requires_grad=True) for a in (x, grid)]
    y, expected = F.grid_sample(*leaves, **options), torch.nn.functional.grid_sample(*twins, **options)
    v = normal(*y.shape, seed=5).astype(x.dtype)
    y.backward(ndl.Tensor(v, device=device))
    expected.backward(torch.tensor(v))
    grads = [np.zeros_like(leaf.numpy()) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]
    return [y.numpy(), *grads], [expected.detach().numpy(), *(twin.grad.numpy() for twin in twins)]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_images_like_torch(mode, padding_mode, align_corners, device):
    """Also far beyond the image, and to second order where torch has one."""
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    x, grid = normal(2, 3, 4, 5), normal(2, 3, 2, 2, scale=1.2)
    for actual, expected in zip(*results(x, 2 * grid, device, **options), strict=True):
        assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    if mode == "nearest":
        check_function("grid_sample", [x], device, [grid], options)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("mode", MODES[:2])
def test_volumes_like_torch(mode, padding_mode, align_corners, device):
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    x, grid = normal(2, 2, 3, 4, 2), normal(2, 2, 3, 2, 3)
    for actual, expected in zip(*results(x, grid, device, **options), strict=True):
        assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_second_derivatives_by_differences(mode, padding_mode, device):
    leaves = [ndl.Tensor(a, device=device) for a in (normal(1, 2, 3, 4), normal(1, 2, 2, 2, seed=2))]
    assert ndl.gradcheck(lambda x, grid: F.grid_sample(x, grid, mode, padding_mode), *leaves)


@given(
    mode=st.sampled_from(MODES),
    padding_mode=st.sampled_from(PADDINGS),
    align_corners=st.booleans(),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_like_torch(device, mode, padding_mode, align_corners, size, seed):
    x, grid = normal(1, 2, *size), np.random.default_rng(seed).normal(scale=1.5, size=(1, 2, 3, 2))
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    for actual, expected in zip(*results(x, grid, device, **options), strict=True):
        assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_on_centers_and_edges_like_torch(mode, padding_mode, device):
    """Coordinates that are exact in binary: the centers, the edges, and half an element beyond."""
    line = np.arange(-6, 7) / 4
    grid = np.stack(np.meshgrid(line, line), -1)[None]
    for align_corners in (False, True):
        options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
        actual, expected = results(normal(1, 1, 4, 5), grid, device, **options)
        for mine, theirs in zip(actual, expected, strict=True):
            assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("mode", MODES)
def test_precision_is_kept(mode, dtype, device):
    x, grid = (a.astype(dtype) for a in (normal(1, 2, 4, 5), normal(1, 3, 3, 2)))
    (y, *grads), _ = results(x.astype("float32"), grid.astype("float32"), device, mode=mode, align_corners=False)
    leaves = [ndl.Tensor(a, device=device) for a in (x, grid)]
    z = F.grid_sample(*leaves, mode=mode)
    z.sum().backward()
    assert {str(a.dtype) for a in (z, leaves[0].grad)} == {dtype}
    assert_allclose(z.numpy(), y, rtol=2e-3, atol=2e-3)
    assert {str(a.dtype) for a in grads} == {"float32"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_points_at_infinity_do_no_harm(mode, padding_mode, device):
    """Nothing warns, and other points and other elements keep their values and gradients."""
    x = normal(1, 1, 3, 4)
    grid = np.zeros((1, 1, 4, 2))
    grid[0, 0, 1:, 0] = np.inf, -1e30, np.nan
    leaves = [ndl.Tensor(a, device=device) for a in (x, grid)]
    y = F.grid_sample(*leaves, mode, padding_mode)
    y[..., :3].sum().backward()
    assert np.isfinite(y.numpy()[..., :3]).all()
    assert np.isfinite(leaves[0].grad.numpy()).all() or mode != "nearest"
    if padding_mode == "border":
        assert_allclose(y.numpy()[0, 0, 0, 1:3], [x[0, 0, 1, -1], x[0, 0, 1, 0]])


def test_an_infinity_beyond_the_points_is_not_read(device):
    x = np.zeros((1, 1, 2, 2))
    x[0, 0, 0, 0] = np.inf
    y = F.grid_sample(ndl.Tensor(x, device=device), ndl.Tensor([[[[1.5, 1.5]]]], device=device))
    assert y.numpy().tolist() == [[[[0]]]]


@pytest.mark.parametrize(("shape", "points"), [((0, 2, 3, 4), (0, 2, 2, 2)), ((2, 0, 3, 4), (2, 2, 2, 2)),
                                               ((2, 2, 3, 4), (2, 0, 2, 2))])  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_no_elements(shape, points, mode, device):
    y = F.grid_sample(ndl.ones(*shape, device=device), ndl.zeros(*points, device=device), mode)
    expected = torch.nn.functional.grid_sample(torch.ones(shape), torch.zeros(points), mode, align_corners=False)
    assert y.shape == expected.shape


# ---- affine_grid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 1, 3), (2, 1, 2, 3, 4), (3, 2, 1, 1, 1)])
@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
def test_affine_grid_matches_torch(size, align_corners, device):
    theta = normal(size[0], len(size) - 2, len(size) - 1)
    check_function("affine_grid", [theta], device, options={"size": size, "align_corners": align_corners})


def test_the_identity_samples_the_image_itself(device):
    x = ndl.Tensor(normal(1, 2, 3, 4), device=device)
    theta = ndl.Tensor(np.eye(2, 3)[None], device=device)
    for align_corners in (False, True):
        grid = F.affine_grid(theta, x.shape, align_corners)
        assert_allclose(F.grid_sample(x, grid, align_corners=align_corners).numpy(), x.numpy(), atol=1e-12)


@pytest.mark.parametrize("name", ["affine_grid", "grid_sample"])
def test_signature_matches_torch(name):
    check_signature(getattr(F, name), getattr(torch.nn.functional, name))


# ---- errors ----------------------------------------------------------------------------------------------------------

IMAGE = ndl.ones(1, 2, 3, 4)
GRID = ndl.zeros(1, 5, 6, 2)
THETA = ndl.zeros(1, 2, 3)

ERRORS = [
    *(
        (
            lambda x=x, grid=grid: F.grid_sample(ndl.ones(*x), ndl.ones(*grid)), ValueError,
            f"grid_sample: x (N, C, *S) and grid (N, *P, r), with r = 2 or 3 axes, are needed, but got {x} and {grid}",
        )
        for x, grid in (
            ((2, 3, 4), (2, 3, 1)), ((1, 2, 3, 4), (2, 5, 6, 2)), ((1, 2, 3, 4), (1, 5, 6, 3)),
            ((1, 2, 3, 4), (1, 5, 2)), ((1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 4)),
        )
    ),
    (
        lambda: F.grid_sample(ndl.ones(1, 1, 0, 2), GRID), ValueError,
        "grid_sample: the sizes of x must be at least 1, but got (1, 1, 0, 2)",
    ),
    (
        lambda: F.grid_sample(IMAGE, GRID, "cubic"), ValueError,
        "grid_sample: mode must be one of 'bilinear', 'nearest', 'bicubic', but got 'cubic'",
    ),
    (
        lambda: F.grid_sample(IMAGE, GRID, padding_mode="wrap"), ValueError,
        "grid_sample: padding_mode must be one of 'zeros', 'border', 'reflection', but got 'wrap'",
    ),
    (
        lambda: F.grid_sample(ndl.ones(1, 1, 2, 2, 2), ndl.ones(1, 1, 1, 1, 3), "bicubic"), ValueError,
        "grid_sample: mode 'bicubic' needs an x with 4 axes, but got shape (1, 1, 2, 2, 2)",
    ),
    (
        lambda: F.grid_sample(IMAGE, GRID, align_corners=1), TypeError,
        "grid_sample: align_corners must be a bool, but got int",
    ),
    (
        lambda: F.grid_sample(IMAGE, GRID.astype("float64")), TypeError,
        "grid_sample: x and grid must have one floating dtype, but got float32 and float64" + HINT,
    ),
    (
        lambda: F.grid_sample(IMAGE.astype("int64"), GRID.astype("int64")), TypeError,
        "grid_sample: x and grid must have one floating dtype, but got int64 and int64",
    ),
    *(
        (
            lambda theta=theta, size=size: F.affine_grid(ndl.ones(*theta), size), ValueError,
            (
                "affine_grid: theta (N, r, r + 1) and a size of N, C and r = 2 or 3 axes are needed, but got "
                f"{theta} and {size}"
            ),
        )
        for theta, size in (
            ((1, 2, 3), (2, 1, 2, 3)), ((1, 2, 3), (1, 2, 3)), ((2, 3), (1, 1, 2, 3)), ((1, 2, 3), (1, 1, 2, 3, 4)),
            ((1, 3, 4), (1, 1, 2, 3)), ((1, 2, 3), ()),
        )
    ),
    *(
        (lambda size=size: F.affine_grid(THETA, size), ValueError, "affine_grid: size must be at least 1, but got 0")
        for size in ((1, 0, 2, 3), (1, 1, 0, 3), (0, 1, 2, 3))
    ),
    (
        lambda: F.affine_grid(THETA, (1, 1, 2.5, 3)), TypeError,
        "affine_grid: size must be an integer, but got 2.5",
    ),
    (lambda: F.affine_grid(THETA, 4), TypeError, "affine_grid: size must be a Sequence, but got int"),
    (
        lambda: F.affine_grid(THETA, (1, 1, 2, 3), 1), TypeError,
        "affine_grid: align_corners must be a bool, but got int",
    ),
    (
        lambda: F.affine_grid(THETA.astype("int64"), (1, 1, 2, 3)), TypeError,
        "affine_grid: theta must have a floating dtype, but got int64",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
