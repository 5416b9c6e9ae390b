"""The textbook's convolution: Python loops around one multiplication."""

from __future__ import annotations

from itertools import product

import numpy as np

from .ranks import Single

__all__ = ["Loops"]


class Loops(Single):
    """One 2-d convolution with stride 1 over NumPy arrays."""

    def about(self) -> str:
        return f"plain loops over arrays of NumPy {np.__version__}"

    def convolve(
        self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, padding: int, out_grad: np.ndarray, part: str
    ) -> np.ndarray:
        """The output (N, O, P, P) for x (N, C, H, W) and weight (O, C, K, K), or the gradient that `part` names."""
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        y, x_grad, weight_grad = np.zeros_like(out_grad), np.zeros_like(padded), np.zeros_like(weight)
        y += bias.reshape(-1, 1, 1)
        sizes = (*out_grad.shape, *weight.shape[1:])
        for n, o, p, q, c, i, j in product(*map(range, sizes)):
            if part == "forward":
                y[n, o, p, q] += padded[n, c, p + i, q + j] * weight[o, c, i, j]
            elif part == "input gradient":
                x_grad[n, c, p + i, q + j] += out_grad[n, o, p, q] * weight[o, c, i, j]
            else:
                weight_grad[o, c, i, j] += out_grad[n, o, p, q] * padded[n, c, p + i, q + j]
        inner = slice(padding, -padding or None)
        return {"forward": y, "input gradient": x_grad[:, :, inner, inner]}.get(part, weight_grad)
