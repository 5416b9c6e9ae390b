"""The discrete Fourier transform of complex numbers, which are pairs (real, imaginary) along the last axis."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor
from needle.backend import compute_dtype, xp
from needle.ops.arithmetic import MulScalar
from needle.ops.base import Array, Elementwise

__all__: list[str] = []


class Fourier(Elementwise):
    """The sums over n of x[n] · e ** (-2πi · k · n / N) along one axis of x (…, 2), or with `inverse` the way back.

    That has the exponent +2πi · k · n / N and divides by N. float16 is computed in float32.
    """

    saved_inputs, is_elementwise = (), False

    def __init__(self, axis: int, inverse: bool = False) -> None:
        self.axis, self.inverse = axis, inverse

    def compute(self, x: Array) -> Array:
        namespace, dtype = xp(x), compute_dtype(x.dtype)
        complex_dtype = namespace.result_type(dtype, "complex64")
        values = namespace.ascontiguousarray(x.astype(dtype, copy=False)).view(complex_dtype)[..., 0]
        y = (namespace.fft.ifft if self.inverse else namespace.fft.fft)(values, axis=self.axis)
        pairs = namespace.ascontiguousarray(y.astype(complex_dtype, copy=False)).view(dtype)
        return pairs.reshape(x.shape).astype(x.dtype, copy=False)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        n = out_grad.shape[self.axis]
        return MulScalar(1 / n if self.inverse else n)(Fourier(self.axis, not self.inverse)(out_grad))
