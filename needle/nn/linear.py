"""Layers without windows: linear maps, tables of vectors, similarity, shapes, dropout."""

from __future__ import annotations

import math

from needle import check, init
from needle.nn import functional
from needle.nn.functional.dropout import host_dropout
from needle.nn.module import Module, Parameter
from needle.ops import reshape


class Linear(Module):
    """x @ weight + bias: (…, in) -> (…, out).

    `weight` (in, out) is drawn by kaiming_uniform of fan in, then `bias` (1, out) by kaiming_uniform of fan out.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype="float32"):
        super().__init__()
        self.in_features = check.integer("Linear", "in_features", in_features, least=1)
        self.out_features = check.integer("Linear", "out_features", out_features, least=1)
        options = {"device": device, "dtype": dtype}
        self.weight = Parameter(init.kaiming_uniform(in_features, out_features, **options))
        self.bias = Parameter(reshape(init.kaiming_uniform(out_features, 1, **options), (1, -1))) if bias else None

    def forward(self, x):
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"Linear: x must have {self.in_features} features in its last axis, but got {x.shape}")
        y = x @ self.weight
        if self.bias is None:
            return y
        return y + (self.bias if x.ndim > 1 else reshape(self.bias, (-1,)))

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """Rows of a table: integers (*I) in [0, num_embeddings), of any dtype -> (*I, embedding_dim).

    `weight` (num_embeddings, embedding_dim) is drawn by randn. Row `padding_idx` begins as zeros and gets no gradient.
    """

    def __init__(self, num_embeddings, embedding_dim, device=None, dtype="float32", *, padding_idx=None):
        super().__init__()
        self.num_embeddings = check.integer("Embedding", "num_embeddings", num_embeddings, least=1)
        self.embedding_dim = check.integer("Embedding", "embedding_dim", embedding_dim, least=1)
        self.padding_idx = (
            None if padding_idx is None else check.axis("Embedding", padding_idx, num_embeddings, "padding_idx")
        )
        self.weight = Parameter(init.randn(num_embeddings, embedding_dim, device=device, dtype=dtype))
        if padding_idx is not None:
            self.weight.cached_data[self.padding_idx] = 0

    def forward(self, x):
        return functional.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class CosineSimilarity(Module):
    """⟨x1, x2⟩ / (‖x1‖ · ‖x2‖) along the axis `dim`; see `functional.cosine_similarity`."""

    def __init__(self, dim=1, eps=1e-8):
        super().__init__()
        self.dim = check.integer("CosineSimilarity", "dim", dim)
        self.eps = check.number("CosineSimilarity", "eps", eps, least=0)

    def forward(self, x1, x2):
        return functional.cosine_similarity(x1, x2, self.dim, self.eps)


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` as one: (N, …) -> (N, product of the rest) by default."""

    def __init__(self, start_dim=1, end_dim=-1):
        super().__init__()
        self.start_dim = check.integer("Flatten", "start_dim", start_dim)
        self.end_dim = check.integer("Flatten", "end_dim", end_dim)

    def forward(self, x):
        if x.ndim == self.start_dim:
            x = reshape(x, (*x.shape, 1))  # no axes to flatten: their product is 1
        first = check.axis("Flatten", self.start_dim, x.ndim, "start_dim")
        last = check.axis("Flatten", self.end_dim, x.ndim, "end_dim")
        if first > last:
            raise ValueError(
                f"Flatten: start_dim must not come after end_dim, but got {self.start_dim} and {self.end_dim} for "
                f"shape {x.shape}"
            )
        return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))

    def extra_repr(self):
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """x itself."""

    def forward(self, x):
        return x


class _Dropout(Module):
    """A dropout of `functional` in training; in evaluation x itself."""

    drop = None

    def __init__(self, p=0.5):
        super().__init__()
        self.p = check.number(type(self).__name__, "p", p, least=0, most=1)

    def forward(self, x):
        return type(self).drop(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself.

    The draws are one `np.random.rand(*x.shape)` on every device, whatever p is; what is at most 1 - p is kept.
    """

    drop = staticmethod(host_dropout)


class Dropout1d(_Dropout):
    """In training each channel of (N, C, L) or (C, L) zeroed with probability p, the others divided by 1 - p."""

    drop = staticmethod(functional.dropout1d)


class Dropout2d(_Dropout):
    """In training each channel of (N, C, H, W) zeroed with probability p, the others divided by 1 - p."""

    drop = staticmethod(functional.dropout2d)


class Dropout3d(_Dropout):
    """In training each channel of ([N,] C, D, H, W) zeroed with probability p, the others divided by 1 - p."""

    drop = staticmethod(functional.dropout3d)
