"""The embedding layer: a table of vectors, looked up by index."""

from __future__ import annotations

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn import functional
from needle.nn.module import Module
from needle.nn.parameter import Parameter

__all__ = ["Embedding"]


class Embedding(Module):
    """Look up rows of a table: indices x (*I) in [0, num_embeddings) -> (*I, embedding_dim).

    x may have any dtype but bool, floats included, as long as its values are integers. `weight` (num_embeddings,
    embedding_dim) is drawn from the standard normal distribution. Row `padding_idx` (a negative one counts from the
    end) starts as zeros and receives no gradient; an integer in the place of `device` is torch's `padding_idx`.

    Raises ValueError if an index is out of range or not an integer (checked on the CPU only) or `padding_idx` is not a
    row; TypeError if x is bool.

    >>> import needle as ndl
    >>> Embedding(10, 4)(ndl.Tensor([[1, 2, 3], [7, 8, 9]])).shape
    (2, 3, 4)
    """

    fixed = ("num_embeddings", "embedding_dim")

    def __init__(
        self, num_embeddings: int, embedding_dim: int, device: Device | int | None = None, dtype: DTypeLike = "float32",
        *, padding_idx: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(device, int):
            padding_idx, device = device, None
        self.num_embeddings = check.integer("Embedding", "num_embeddings", num_embeddings, least=1)
        self.embedding_dim = check.integer("Embedding", "embedding_dim", embedding_dim, least=1)
        self.padding_idx: int | None = None
        if padding_idx is not None:
            self.padding_idx = check.axis("Embedding", padding_idx, num_embeddings, "padding_idx")
        self.weight: Tensor = Parameter(init.randn(num_embeddings, embedding_dim, device=device, dtype=dtype))
        if self.padding_idx is not None:
            self.weight.cached_data[self.padding_idx] = 0

    def forward(self, x: TensorLike) -> Tensor:
        return functional.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
