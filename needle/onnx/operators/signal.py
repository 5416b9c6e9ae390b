"""Fourier transforms, of frames too, and the windows and mel bands that go with them.

Signals are real, (…, 1), or complex, (…, 2).
"""

from __future__ import annotations

import math

from needle import check, init, ops
from needle.autograd import Tensor
from needle.kernels import at
from needle.onnx.operators.arguments import dtype_of
from needle.onnx.registry import Node, operator
from needle.ops.fourier import Fourier

__all__: list[str] = []

# ---- transforms ------------------------------------------------------------------------------------------------------


@operator("DFT", since=20)
def dft(node: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    return _transform(node, x, length, -2 if axis is None else int(axis.item()))


@operator("DFT")
def dft_along_attribute(node: Node, x: Tensor, length: Tensor | None = None) -> Tensor:
    return _transform(node, x, length, node["axis"])


@operator("STFT", buffers=(2,))
def stft(node: Node, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
    """The transforms of windowed frames, `step` apart, of x (N, L, 1 or 2): (N, frames, frequencies, 2)."""
    hop = check.integer("STFT", "frame_step", int(step.item()), least=1)
    size = int(length.item()) if length is not None else x.shape[1] if window is None else window.size
    frames = max(1 + (x.shape[1] - size) // hop, 0)
    start = ops.reshape(init.arange(frames, device=x.device) * hop, (-1, 1))
    x = ops.getitem(x, (slice(None), start + init.arange(size, device=x.device)))
    if window is not None:
        x = x * ops.reshape(window, (-1, 1))
    y = Fourier(2)(_fitted(x, 3, 2))
    return _fitted(y, 2, size // 2 + 1) if node["onesided"] else y


def _transform(node: Node, x: Tensor, length: Tensor | None, axis: int) -> Tensor:
    """The transform along an axis, of which `onesided` uses or makes the first half only."""
    axis = check.axis("DFT", axis, x.ndim)
    inverse, onesided, size = node["inverse"], node["onesided"], x.shape[axis]
    n = int(length.item()) if length is not None else 2 * (size - 1) if inverse and onesided else size
    half = n // 2 + 1
    x = _fitted(x, x.ndim - 1, 2)
    if not inverse:
        y = Fourier(axis)(_fitted(x, axis, n))
        return _fitted(y, axis, half) if onesided else y
    if onesided:
        x = _fitted(x, axis, half)
        others = ops.getitem(x, at(axis, slice(1, n - half + 1)))
        conjugate = ops.flip(others, axis) * Tensor([1, -1], dtype=x.dtype, device=x.device, requires_grad=False)
        x = ops.concatenate((x, conjugate), axis)
    y = Fourier(axis, inverse=True)(_fitted(x, axis, n))
    return _fitted(y, x.ndim - 1, 1) if onesided else y


def _fitted(x: Tensor, axis: int, n: int) -> Tensor:
    """x with n elements along an axis: the first ones, or with zeros behind."""
    missing = n - x.shape[axis]
    if missing > 0:
        return ops.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])
    return ops.getitem(x, at(axis, slice(n))) if missing else x


# ---- windows and bands -----------------------------------------------------------------------------------------------


@operator("HannWindow")
def hann(node: Node, size: Tensor) -> Tensor:
    return _window(node, size, 0.5, -0.5)


@operator("HammingWindow")
def hamming(node: Node, size: Tensor) -> Tensor:
    return _window(node, size, 25 / 46, -21 / 46)


@operator("BlackmanWindow")
def blackman(node: Node, size: Tensor) -> Tensor:
    return _window(node, size, 0.42, -0.5, 0.08)


def _window(node: Node, size: Tensor, *weights: float) -> Tensor:
    """The sum of weight[k] · cos(2π · k · n / N), where N is the size, or one less if the window is not periodic."""
    n = int(size.item())
    period = max(n if node["periodic"] else n - 1, 1)
    angle = init.arange(n, device=size.device, dtype="float64") * (2 * math.pi / period)
    y = ops.summation(ops.stack([ops.cos(angle * k) * weight for k, weight in enumerate(weights)]), 0)
    return y.astype(dtype_of(node, "output_datatype"))


@operator("MelWeightMatrix", buffers=(3, 4))
def mel_weights(
    node: Node, bands: Tensor, dft_length: Tensor, sample_rate: Tensor, lowest: Tensor, highest: Tensor
) -> Tensor:
    """Triangles (frequencies, bands) of height 1, with the corners of the next ones below their peaks.

    Their peaks are spaced evenly in mel, 2595 · log10(1 + hertz / 700).
    """
    count, n, rate = (int(x.item()) for x in (bands, dft_length, sample_rate))
    low, high = (2595 * math.log10(1 + x.item() / 700) for x in (lowest, highest))
    mels = (low + i * (high - low) / (count + 2) for i in range(count + 2))
    hertz = (700 * (10 ** (mel / 2595) - 1) for mel in mels)
    corners = Tensor([(n + 1) * f // rate for f in hertz], dtype="float64", device=bands.device, requires_grad=False)
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    frequency = ops.reshape(init.arange(n // 2 + 1, device=bands.device, dtype="float64"), (-1, 1))
    rising = (frequency - left) / ops.maximum(peak - left, 1)
    falling = (right - frequency) / ops.maximum(right - peak, 1)
    y = ops.where(ops.equal(frequency, peak), 1, ops.maximum(ops.minimum(rising, falling), 0))
    return y.astype(dtype_of(node, "output_datatype"))
