"""Resize and Upsample: along one axis after another, a gather of elements or a product with a matrix of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from needle import check, ops
from needle.autograd import Tensor
from needle.backend import HostArray, compute_dtype
from needle.nn.functional.linear import matmul_along
from needle.onnx.memory import current_memory
from needle.onnx.operators.arguments import integers
from needle.onnx.operators.selection import select
from needle.onnx.registry import Node, operator

__all__: list[str] = []


class Axis(NamedTuple):
    """How an axis of n elements becomes one of p.

    `length` is what align_corners takes for p: by scales it is not rounded. `region` is the part of the axis that is
    read, 0 to 1 for all of it.
    """

    axis: int
    n: int
    p: int
    scale: float
    length: float
    region: tuple[float, float] = (0.0, 1.0)


class Sampling(NamedTuple):
    """What the attributes say: by which rule positions are found, and how the elements around them are weighted."""

    mode: str
    transformation: str
    nearest: str = "floor"
    slope: float = -0.75  # of the cubic at 1
    excludes_outside: bool = False
    antialias: bool = False
    beyond: float = 0.0  # the value of what tf_crop_and_resize reads outside


@operator("Resize", since=11, buffers=(1, 2))
def resize(
    node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    chosen = check.axes(str(node), node.get("axes") or None, x.ndim, "axes")
    transformation = node["coordinate_transformation_mode"]
    region = roi.numpy().tolist() if roi is not None and transformation == "tf_crop_and_resize" else []
    regions = list(zip(region[: len(chosen)], region[len(chosen) :], strict=True)) or [(0.0, 1.0)] * len(chosen)
    shape = [x.shape[axis] for axis in chosen]
    if sizes is None or not sizes.size:
        targets = _by_scales(shape, check.instance(str(node), "scales", scales, Tensor))
    else:
        targets = _by_sizes(shape, integers(sizes), node.get("keep_aspect_ratio_policy") or "stretch")
    axes = [Axis(axis, n, *target, part) for axis, n, target, part in zip(chosen, shape, targets, regions, strict=True)]
    sampling = Sampling(
        node["mode"], transformation, node["nearest_mode"], node["cubic_coeff_a"], bool(node["exclude_outside"]),
        bool(node.get("antialias")), node["extrapolation_value"],
    )  # fmt: skip
    return _resample(node, x, axes, sampling)


@operator("Resize", since=10, buffers=(1,))
@operator("Upsample", since=9, buffers=(1,))
def resize_by_scales(node: Node, x: Tensor, scales: Tensor) -> Tensor:
    """Output i reads at i / scale; the nearest element is the one before, or, where an axis shrinks, the one after.

    The schemas do not say so; it is what the first implementations did.
    """
    targets = zip(x.shape, _by_scales(x.shape, scales), strict=True)
    axes = [Axis(axis, n, *target) for axis, (n, target) in enumerate(targets)]
    mode = check.one_of(str(node), "mode", node["mode"], ("nearest", "linear", "bilinear"))
    return _resample(node, x, axes, Sampling(mode, "asymmetric", "SIMPLE"))


@operator("Upsample", since=7)
def upsample(node: Node, x: Tensor) -> Tensor:
    return resize_by_scales(node, x, Tensor(node["scales"], dtype="float32", requires_grad=False))


@operator("Upsample", since=1)
def upsample_images(node: Node, x: Tensor) -> Tensor:
    scales = [1.0, 1.0, node["height_scale"], node["width_scale"]]
    return resize_by_scales(node, x, Tensor(scales, dtype="float32", requires_grad=False))


Target = tuple[int, float, float]  # p, scale and length of an axis


def _by_scales(shape: Sequence[int], scales: Tensor) -> list[Target]:
    """Sizes are products in float32, rounded down, as in ONNX's inference of shapes."""
    factors = scales.numpy().astype(np.float32)
    products = np.asarray(shape, np.float32) * factors
    return [
        (int(np.floor(product)), float(scale), n * float(scale))
        for n, scale, product in zip(shape, factors, products, strict=True)
    ]


def _by_sizes(shape: Sequence[int], sizes: Sequence[int], policy: str) -> list[Target]:
    scales = [p / n if n else 1.0 for n, p in zip(shape, sizes, strict=True)]
    if policy == "stretch":
        return [(p, scale, p) for p, scale in zip(sizes, scales, strict=True)]
    scale = (min if policy == "not_larger" else max)(scales)
    return [(int(scale * n + 0.5), scale, int(scale * n + 0.5)) for n in shape]


def _resample(node: Node, x: Tensor, axes: Sequence[Axis], sampling: Sampling) -> Tensor:
    """Resize x along `axes`, and put the value for what lies beyond where any axis reads outside."""
    if any(axis.p and not axis.n for axis in axes):
        raise ValueError(f"{node}: an axis without elements must stay so, but got {x.shape} and {[a.p for a in axes]}")
    is_nearest = sampling.mode == "nearest"
    wide = x.dtype if is_nearest else compute_dtype(x.dtype) if x.dtype.kind == "f" else np.dtype("float64")
    y = x.astype(wide)
    outside = np.zeros((1,) * x.ndim, bool)
    for axis in axes:
        if axis.n == axis.p and axis.scale == 1 and axis.region == (0, 1):
            continue
        place = _positions(axis, sampling.transformation)
        if sampling.transformation == "tf_crop_and_resize":
            is_outside = (place < 0) | (place > axis.n - 1)
            outside = outside | is_outside.reshape((-1,) + (1,) * (x.ndim - 1 - axis.axis))
        if is_nearest:
            y = select(y, axis.axis, _nearest(place, axis, sampling.nearest).clip(0, axis.n - 1))
        else:
            matrix = Tensor(_weights(place, axis, sampling), device=x.device, dtype=wide, requires_grad=False)
            y = _blend(y, axis.axis, matrix)
    if outside.any():
        beyond = sampling.beyond if wide.kind == "f" else round(sampling.beyond)
        y = ops.where(Tensor(outside, device=x.device, requires_grad=False), beyond, y)
    if x.dtype.kind in "iu" and not is_nearest:
        limits = np.iinfo(x.dtype)
        y = ops.clip(ops.round(y), limits.min, limits.max)
    return y.astype(x.dtype)


def _blend(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """x with an axis of n multiplied by a matrix (n, p)."""
    if axis:
        return matmul_along(x, matrix, axis)
    y = matmul_along(ops.reshape(x, (1, *x.shape)), matrix, 1)
    return ops.reshape(y, y.shape[1:])


def _positions(axis: Axis, transformation: str) -> HostArray:
    """Where the outputs of an axis read, in units of its elements: (P,) of float64."""
    output, (start, end) = np.arange(axis.p, dtype=np.float64), axis.region
    last, scale = axis.n - 1, axis.scale
    if transformation == "asymmetric":
        return output / scale
    if transformation == "tf_half_pixel_for_nn":
        return (output + 0.5) / scale
    if transformation == "align_corners":
        return output * (last / (axis.length - 1)) if axis.p > 1 else output
    if transformation == "tf_crop_and_resize":
        if axis.p == 1:
            return output + 0.5 * (start + end) * last
        return start * last + output * ((end - start) * last / (axis.p - 1))
    if transformation == "pytorch_half_pixel" and axis.p == 1:
        return output
    shift = axis.n / 2 * (1 - axis.p / (axis.n * scale)) if transformation == "half_pixel_symmetric" else 0.0
    return shift + (output + 0.5) / scale - 0.5


def _nearest(place: HostArray, axis: Axis, rule: str) -> HostArray:
    """The elements nearest to places, as int64 (P,); places are rounded to float32 first, as scales are."""
    place = place.astype(np.float32)
    if rule == "SIMPLE":
        rule = "ceil" if axis.scale < 1 else "floor"
    rounded = {
        "round_prefer_floor": lambda: np.ceil(place - np.float32(0.5)),
        "round_prefer_ceil": lambda: np.floor(place + np.float32(0.5)),
        "floor": lambda: np.floor(place),
        "ceil": lambda: np.ceil(place),
    }[rule]()
    return rounded.astype(np.int64)


def _weights(place: HostArray, axis: Axis, sampling: Sampling) -> HostArray:
    """The matrix (n, p) whose columns weight the elements around each place; those beyond the border repeat it."""
    stretch = min(axis.scale, 1.0) if sampling.antialias else 1.0
    radius = math.ceil((2 if sampling.mode == "cubic" else 1) / stretch)
    taps = np.floor(place).astype(np.int64)[:, None] + np.arange(1 - radius, radius + 1)  # (P, taps)
    distance = np.abs(taps - place[:, None]) * stretch
    weights = _cubic(distance, sampling.slope) if sampling.mode == "cubic" else np.maximum(1 - distance, 0)
    if sampling.excludes_outside:
        weights = np.where((taps >= 0) & (taps < axis.n), weights, 0)
    total = weights.sum(1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    current_memory.get().require(f"Resize of {axis.n} elements to {axis.p}", 8 * axis.n * axis.p)
    matrix = np.zeros((axis.n, axis.p))
    np.add.at(matrix, (taps.clip(0, axis.n - 1), np.arange(axis.p)[:, None]), weights)
    return matrix


def _cubic(distance: HostArray, a: float) -> Any:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), equation 15."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
