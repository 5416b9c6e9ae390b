"""Similarity of vectors."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.module import Module

__all__ = ["CosineSimilarity"]


class CosineSimilarity(Module):
    """⟨x1, x2⟩ / (max(‖x1‖, eps) · max(‖x2‖, eps)) along the axis `dim`, for operands that broadcast.

    (*S) and (*S) -> *S without the axis `dim`, 1 by default. Raises ValueError if the shapes do not broadcast or have
    no such axis, TypeError if an operand is not floating-point.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = check.integer("CosineSimilarity", "dim", dim)
        self.eps = check.number("CosineSimilarity", "eps", eps, least=0)

    def forward(self, x1: TensorLike, x2: TensorLike) -> Tensor:
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)
