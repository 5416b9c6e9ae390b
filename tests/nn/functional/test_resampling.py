"""Resampling against torch: results, derivatives to second order, layers and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from tests.kernels.windows import arrange, orders
from tests.nn.compare import assert_refused
from tests.nn.functional.alike import check_signature, normal
from tests.ops.derivatives import assert_like_torch

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
METHODS = [
    *((mode, None) for mode in ("nearest", "nearest-exact", "linear", "area")),
    ("linear", False),
    ("linear", True),
]


def assert_alike(name, x, device, *arguments, **options):
    assert_like_torch(
        lambda x: getattr(F, name)(x, *arguments, **options),
        lambda x: getattr(torch.nn.functional, name)(x, *arguments, **options),
        [x],
        device,
    )


def numbered(shape):
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape) / 8


@st.composite
def problems(draw, scaled):
    """The shape of an input, and keyword arguments of `interpolate` with a size or with scales."""
    rank = draw(st.integers(1, 3))
    mode, align_corners = draw(st.sampled_from(METHODS))
    sizes = st.lists(st.integers(1, {1: 7, 2: 5, 3: 4}[rank]), min_size=rank, max_size=rank)
    size, output = draw(sizes), draw(sizes)
    options = {"mode": LINEAR[rank] if mode == "linear" else mode, "align_corners": align_corners}
    if scaled:  # floor(n · scale) = p; torch's nearest is inconsistent if p is n or 2·n but scale is not 1 or 2
        exact = [mode == "nearest" and p in (n, 2 * n) for n, p in zip(size, output, strict=True)]
        fractions = [0 if e else draw(st.sampled_from([0.01, 0.25, 0.5, 0.9])) for e in exact]
        options["scale_factor"] = tuple(
            (p + fraction) / n for n, p, fraction in zip(size, output, fractions, strict=True)
        )
    else:
        options["size"] = output
    return (draw(st.integers(1, 2)), 2, *size), options


# ---- interpolate, against torch, to second order ---------------------------------------------------------------------

TABLE = {
    "defaults": ((2, 3, 4, 5), (3, 7)),
    "one size for all": ((2, 3, 4, 5), 6),
    "twice": ((2, 3, 4, 5), None, 2),
    "twice and three times": ((2, 3, 4, 5), None, (2.0, 3)),
    "half": ((2, 3, 4, 5), None, 0.5),
    "the scale, not the ratio": ((2, 3, 10), None, 0.37),
    "a little more than three times": ((2, 3, 5), None, 3.1),
    "the same size": ((2, 3, 4, 5), (4, 5)),
    "from one element": ((2, 3, 1, 1), (3, 4)),
    "to one element": ((2, 3, 4, 5), 1),
    "an empty batch": ((0, 3, 4, 5), (3, 7)),
    "one image of one channel": ((1, 1, 4, 5), (3, 7)),
    "1d": ((2, 3, 7), 10),
    "3d": ((2, 2, 3, 4, 5), (5, 4, 2)),
}


@pytest.mark.parametrize("title", TABLE)
@pytest.mark.parametrize(("mode", "align_corners"), METHODS)
def test_like_torch(device, title, mode, align_corners):
    shape, *arguments = TABLE[title]
    scale = arguments[1] if len(arguments) > 1 else None
    mode = LINEAR[len(shape) - 2] if mode == "linear" else mode
    assert_alike("interpolate", numbered(shape), device, arguments[0], scale, mode, align_corners)


@given(problem=problems(scaled=False))
def test_like_torch_to_any_size(device, problem):
    shape, options = problem
    assert_alike("interpolate", numbered(shape), device, **options)


@given(problem=problems(scaled=True))
def test_like_torch_by_any_scale(device, problem):
    shape, options = problem
    assert_alike("interpolate", numbered(shape), device, **options)


SMOOTH = [("bicubic", False), ("bicubic", True), ("bilinear", True)]  # mode, antialias: over two axes only


@pytest.mark.parametrize("title", [title for title, (shape, *_) in TABLE.items() if len(shape) == 4])
@pytest.mark.parametrize(("mode", "antialias"), SMOOTH)
@pytest.mark.parametrize("align_corners", [False, True])
def test_smooth_modes_like_torch(device, title, mode, antialias, align_corners):
    shape, size, *scale = TABLE[title]
    options = {"mode": mode, "antialias": antialias, "align_corners": align_corners}
    assert_alike("interpolate", numbered(shape), device, size, *scale, **options)


@given(
    smooth=st.sampled_from(SMOOTH),
    align_corners=st.booleans(),
    recompute=st.sampled_from([None, False, True]),
    size=st.lists(st.integers(1, 6), min_size=2, max_size=2),
    scale=st.lists(st.sampled_from([0.3, 0.5, 0.97, 1.0, 1.01, 1.5, 2.0, 3.3]), min_size=2, max_size=2),
)
def test_smooth_modes_like_torch_by_any_scale(device, smooth, align_corners, recompute, size, scale):
    scale = tuple(max(s, 1 / n) for n, s in zip(size, scale, strict=True))
    options = {"mode": smooth[0], "antialias": smooth[1], "align_corners": align_corners}
    options |= {"scale_factor": scale, "recompute_scale_factor": recompute}
    assume(not smooth[1] or size[1] * min(scale[1], 1) >= 2)  # torch repeats the first row of an image of width 1
    # Of a size to itself, torch copies the elements and interpolates the gradient, or the other way round.
    kept = [int(n * s) == n for n, s in zip(size, scale, strict=True)]
    assume(recompute or not (any(kept) if smooth[1] else all(kept)))
    assert_alike("interpolate", numbered((1, 2, *size)), device, **options)


@pytest.mark.parametrize(("mode", "align_corners"), METHODS)
def test_recomputed_scales_like_torch(device, mode, align_corners):
    mode = LINEAR[2] if mode == "linear" else mode
    options = {"scale_factor": (1.7, 0.6), "mode": mode, "align_corners": align_corners}
    x = numbered((2, 3, 4, 5))
    assert_alike("interpolate", x, device, **options, recompute_scale_factor=True)
    assert_alike("interpolate", x, device, **options, recompute_scale_factor=False)


def test_signature_matches_torch():
    check_signature(F.interpolate, torch.nn.functional.interpolate)
    check_signature(ndl.nn.Upsample, torch.nn.Upsample)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_element_is_the_one_that_integers_give(device, mode):
    """Also in float32, where rounding makes torch read a neighbor, for example from 2 to 82."""
    for n in range(1, 20):
        x = ndl.Tensor(np.arange(n, dtype="float32").reshape(1, 1, n), device=device)
        for p in (*range(1, 40), 82, 94, 110, 122):
            places = np.arange(p)
            expected = places * n // p if mode == "nearest" else (2 * places + 1) * n // (2 * p)
            assert_array_equal(F.interpolate(x, p, mode=mode).numpy()[0, 0], expected)


@pytest.mark.parametrize(("mode", "align_corners"), METHODS)
@pytest.mark.parametrize("size", [(3, 7), (8, 10)])
def test_precision_is_kept(device, mode, align_corners, size):
    mode = LINEAR[2] if mode == "linear" else mode
    x = numbered((2, 3, 4, 5)).astype("float32")
    options = {"size": size, "mode": mode, "align_corners": align_corners}
    assert_like_torch(
        lambda x: F.interpolate(x, **options),
        lambda x: torch.nn.functional.interpolate(x, **options),
        [x],
        device,
        rtol=1e-5,
        atol=1e-5,
    )
    half = ndl.Tensor(x.astype("float16"), device=device)
    y = F.interpolate(half, **options)
    y.backward()
    assert y.dtype == half.grad.dtype == "float16"
    expected = torch.nn.functional.interpolate(torch.tensor(half.numpy()).float(), **options)
    assert_allclose(y.numpy(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("size", [(3, 7), (8, 10)])
def test_the_nearest_element_does_not_spread_infinities(device, size):
    x = numbered((2, 3, 4, 5))
    x[0, 0, 1, 2], x[1, 2, 3, 4] = -np.inf, np.nan
    y = F.interpolate(ndl.Tensor(x, device=device), size)
    assert_array_equal(y.numpy(), torch.nn.functional.interpolate(torch.tensor(x), size).numpy())


def test_interpolate_matches_worked_examples(device):
    x = ndl.Tensor([[[0.0, 10.0]]], device=device)
    assert F.interpolate(x, 4).numpy().tolist() == [[[0, 0, 10, 10]]]
    assert F.interpolate(x, 4, mode="linear").numpy().tolist() == [[[0, 2.5, 7.5, 10]]]
    assert F.interpolate(x, 5, mode="linear", align_corners=True).numpy().tolist() == [[[0, 2.5, 5, 7.5, 10]]]


@pytest.mark.parametrize(("mode", "align_corners"), METHODS)
@given(order=orders, v_order=orders, batch=st.integers(1, 3), size=st.sampled_from([(4, 7), (10, 14)]))
def test_any_memory_order_gives_the_same(device, mode, align_corners, order, v_order, batch, size):
    mode = LINEAR[2] if mode == "linear" else mode

    def run(rearrange):
        x = ndl.Tensor.make_const(rearrange(numbered((batch, 2, 5, 7)), order), requires_grad=True)
        y = F.interpolate(x, size, None, mode, align_corners)
        y.backward(ndl.Tensor.make_const(rearrange(numbered(y.shape), v_order)))
        return y.numpy(), x.grad.numpy()

    actual = run(lambda values, order: arrange(values, order, device))
    expected = run(lambda values, order: device.array(device.to_host(arrange(values, order, device))))
    for result, reference in zip(actual, expected, strict=True):
        assert_allclose(result, reference, rtol=1e-12)


# ---- pixel_shuffle ---------------------------------------------------------------------------------------------------


@given(
    lead=st.lists(st.integers(1, 2), max_size=3),
    channels=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    r=st.integers(1, 3),
)
def test_pixel_shuffle_like_torch_and_back(device, lead, channels, size, r):
    x = numbered((*lead, channels * r * r, *size))
    assert_alike("pixel_shuffle", x, device, r)
    y = numbered((*lead, channels, size[0] * r, size[1] * r))
    assert_alike("pixel_unshuffle", y, device, r)
    back = F.pixel_unshuffle(F.pixel_shuffle(ndl.Tensor(x, device=device), r), r)
    assert_array_equal(back.numpy(), x)


@pytest.mark.parametrize("shape", [(0, 4, 2, 6), (2, 0, 2, 6), (2, 4, 0, 6)])
def test_pixel_shuffle_of_an_empty_tensor_and_back(device, shape):
    y = F.pixel_shuffle(ndl.Tensor(np.zeros(shape), device=device), 2)
    assert y.shape == torch.nn.functional.pixel_shuffle(torch.zeros(shape), 2).shape
    assert F.pixel_unshuffle(y, 2).shape == shape  # torch keeps the shape of empty tensors


# ---- layers ----------------------------------------------------------------------------------------------------------

LAYERS = [
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": (2, 1.5)}, (2, 3, 4, 5)),
    ("Upsample", ((3, 7),), {}, (2, 3, 4, 5)),
    ("Upsample", ((3, 7), None, "bilinear", True), {}, (2, 3, 4, 5)),
    ("Upsample", (9,), {"mode": "linear"}, (2, 3, 4)),
    ("Upsample", (None, 1.7, "bicubic", True), {"recompute_scale_factor": True}, (2, 3, 4, 5)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 5)),
    ("PixelUnshuffle", (3,), {}, (2, 6, 9)),
]


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_layers_like_torch(device, name, arguments, options, shape):
    layer, torch_layer = (getattr(nn, name)(*arguments, **options) for nn in (ndl.nn, torch.nn))
    assert repr(layer) == repr(torch_layer)
    x = numbered(shape)
    assert_allclose(layer(ndl.Tensor(x, device=device)).numpy(), torch_layer(torch.tensor(x)).numpy(), rtol=1e-12)


# ---- refusals --------------------------------------------------------------------------------------------------------

LINE, IMAGE = (1, 1, 3), (1, 1, 3, 4)
AXES = r"interpolate: x must have 3 to 5 axes, \(N, C, \*S\), of which only N may be 0, but got shape"
REFUSED = [
    ("interpolate", (3,), (5,), {}, ValueError, rf"{AXES} \(3,\)"),
    ("interpolate", (1, 3), (5,), {}, ValueError, rf"{AXES} \(1, 3\)"),
    ("interpolate", (1, 1, 1, 1, 1, 3), (5,), {}, ValueError, AXES),
    ("interpolate", (1, 0, 3), (5,), {}, ValueError, rf"{AXES} \(1, 0, 3\)"),
    ("interpolate", (1, 1, 0), (5,), {}, ValueError, rf"{AXES} \(1, 1, 0\)"),
    ("interpolate", LINE, (), {}, ValueError, "either size or scale_factor must be given, but got None and None"),
    ("interpolate", LINE, (5, 2), {}, ValueError, "either size or scale_factor must be given, but got 5 and 2"),
    ("interpolate", LINE, ((5, 5),), {}, ValueError, r"size must be one integer or 1, but got 2: \(5, 5\)"),
    ("interpolate", LINE, (0,), {}, ValueError, "interpolate: size must be at least 1, but got 0"),
    ("interpolate", LINE, (-1,), {}, ValueError, "interpolate: size must be at least 1, but got -1"),
    ("interpolate", LINE, (2.5,), {}, TypeError, r"interpolate: size must be an integer, but got 2\.5"),
    ("interpolate", LINE, (True,), {}, TypeError, "interpolate: size must be an integer, but got True"),
    ("interpolate", IMAGE, ((None, 5),), {}, TypeError, "interpolate: size must be an integer, but got None"),
    ("interpolate", LINE, (None, (2.0, 2.0)), {}, ValueError, r"scale_factor must be one number or 1, but got 2: \(2"),
    ("interpolate", LINE, (None, "a"), {}, TypeError, "interpolate: scale_factor must be a number, but got 'a'"),
    ("interpolate", LINE, (None, -1), {}, ValueError, r"interpolate: scale_factor must lie in \[0, inf\], but got -1"),
    ("interpolate", LINE, (None, float("nan")), {}, ValueError, "scale_factor must lie in .*, but got nan"),
    ("interpolate", LINE, (None, float("inf")), {}, ValueError, "scale_factor must .* be finite, but got inf"),
    ("interpolate", LINE, (None, 0.0), {}, ValueError, r"scale_factor must leave at least one element, .* got 0\.0"),
    ("interpolate", LINE, (None, 0.1), {}, ValueError, r"at least one element, and be finite, but got 0\.1 for \(3,\)"),
    ("interpolate", LINE, (5,), {"mode": "cubist"}, ValueError, "mode must be one of 'nearest', .*, but got 'cubist'"),
    ("interpolate", IMAGE, (5,), {"mode": "linear"}, ValueError, r"mode 'linear' needs an x with 3 axes, but got"),
    ("interpolate", LINE, (5,), {"mode": "bilinear"}, ValueError, r"'bilinear' needs an x with 4 axes, .* \(1, 1, 3\)"),
    ("interpolate", LINE, (5,), {"align_corners": True}, ValueError, "align_corners must be None in mode 'nearest'"),
    ("interpolate", LINE, (5,), {"align_corners": False}, ValueError, "must be None in mode 'nearest', but got False"),
    ("interpolate", LINE, (5,), {"mode": "linear", "align_corners": 1}, TypeError, "align_corners must be a bool, but"),
    ("interpolate", LINE, (5,), {"mode": "bicubic"}, ValueError, r"'bicubic' needs an x with 4 axes, .* \(1, 1, 3\)"),
    ("interpolate", IMAGE, (5,), {"recompute_scale_factor": True}, ValueError, "needs a scale_factor, but got size 5"),
    ("interpolate", IMAGE, (5,), {"antialias": True}, ValueError, "antialias needs the mode .*, but got 'nearest'"),
    ("pixel_shuffle", (2, 2), (2,), {}, ValueError, r"x must have at least 3 axes, \(…, C, H, W\), but got shape"),
    ("pixel_shuffle", (8, 2, 2), (3,), {}, ValueError, r"channels must be a multiple of 3 \* 3, but got x \(8, 2, 2\)"),
    ("pixel_shuffle", (8, 2, 2), (0,), {}, ValueError, "pixel_shuffle: upscale_factor must be at least 1, but got 0"),
    ("pixel_shuffle", (8, 2, 2), (2.0,), {}, TypeError, r"upscale_factor must be an integer, but got 2\.0"),
    ("pixel_unshuffle", (4, 4), (2,), {}, ValueError, r"pixel_unshuffle: x must have at least 3 axes"),
    ("pixel_unshuffle", (1, 4, 3), (2,), {}, ValueError, r"both sizes must be multiples of 2, but got x \(1, 4, 3\)"),
    ("pixel_unshuffle", (1, 3, 4), (2,), {}, ValueError, r"both sizes must be multiples of 2, but got x \(1, 3, 4\)"),
    ("pixel_unshuffle", (1, 4, 4), (-2,), {}, ValueError, "downscale_factor must be at least 1, but got -2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "arguments", "options", "error", "message"), REFUSED)
def test_what_torch_refuses_is_refused(device, name, shape, arguments, options, error, message):
    assert_refused(name, ndl.Tensor(np.zeros(shape), device=device), arguments, options, error, message)


@pytest.mark.parametrize("option", ["recompute_scale_factor", "antialias"])
def test_switches_are_bools(option):
    with pytest.raises(TypeError, match=f"^interpolate: {option} must be a bool, but got int$"):
        F.interpolate(ndl.ones(*IMAGE), None, 2, "bicubic", **{option: 1})


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [(1.3, 1.1), (2.1, 1.5), (1.0, 2.3), (1.2, 2.2)])
def test_images_of_their_own_size_or_twice_that_by_another_scale(device, mode, scale):
    x = normal(2, 3, 4, 3)
    leaf, torch_leaf = ndl.Tensor(x, device=device), torch.from_numpy(x).requires_grad_()
    y = F.interpolate(leaf, scale_factor=scale, mode=mode)
    torch_y = torch.nn.functional.interpolate(torch_leaf, scale_factor=scale, mode=mode)
    assert_allclose(y.numpy(), torch_y.detach().numpy(), atol=1e-12)
    (y * y).sum().backward()
    (torch_y * torch_y).sum().backward()
    assert_allclose(leaf.grad.numpy(), torch_leaf.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("options", [{"size": (6, 5)}, {"scale_factor": 1.6}, {"scale_factor": 2}, {"size": (2, 1)}])
def test_nearest_elements_of_images_of_bytes_as_in_torch(device, mode, options):
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 3), "uint8")
    y = F.interpolate(ndl.Tensor(x, device=device, requires_grad=False), mode=mode, **options)
    assert y.dtype == "uint8"
    assert_array_equal(y.numpy(), torch.nn.functional.interpolate(torch.tensor(x), mode=mode, **options).numpy())


def test_only_floats_are_resampled(device):
    x = np.arange(3).reshape(1, 1, 3)
    with pytest.raises(TypeError, match="interpolate: x must have a floating dtype, but got int64"):
        F.interpolate(ndl.Tensor(x, device=device, requires_grad=False), 5)
    with pytest.raises(NotImplementedError):
        torch.nn.functional.interpolate(torch.tensor(x), 5)
