"""Attention and the Transformer, in the pre-norm form.

Shapes: N batch, T steps, H heads, D features per head; x (N, T, features) unless a class says otherwise. Inputs must
have the floating dtype of the parameters (TypeError).

Vaswani et al., "Attention Is All You Need" (2017); with norms before each block instead of after it: Xiong et al., "On
Layer Normalization in the Transformer Architecture" (2020), figure 1b.
"""

from __future__ import annotations

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike, compute_dtype
from needle.nn.dropout import Dropout
from needle.nn.embedding import Embedding
from needle.nn.functional.attention import attention_weights
from needle.nn.linear import Linear
from needle.nn.module import Module
from needle.nn.norm import LayerNorm1d
from needle.ops import permute, relu, reshape
from needle.ops.operand import tensor

__all__ = ["AttentionLayer", "MultiHeadAttention", "Transformer", "TransformerLayer"]

LOWEST = -(2 - 2**-23) * 2.0**127  # the most negative float32


class MultiHeadAttention(Module):
    """softmax(q @ kᵀ / sqrt(D) + mask) @ v: q (N, H, T, D), k (N, H, S, D), v (N, H, S, E).

    Returns a pair: the result (N, H, T, E), and the weights (N, H, T, S) after dropout, which training applies to them.
    With `causal`, query t may not look ahead to keys after t + S - T: the mask adds -3.4e38, the most negative float32,
    to their scores. The result has the dtype of q; float16 scores are computed in float32. There are no parameters:
    `device` and `dtype` are accepted, as in other layers, but have no effect. Raises ValueError if shapes do not fit,
    TypeError if dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    """

    flags = ("causal",)

    def __init__(
        self, *, dropout: float = 0.0, causal: bool = False, device: Device | None = None, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        super().__init__()
        check.number("MultiHeadAttention", "dropout", dropout, least=0, most=1)
        self.causal = causal
        self.dropout = Dropout(dropout)

    def forward(self, q: TensorLike, k: TensorLike, v: TensorLike) -> tuple[Tensor, Tensor]:
        op = "MultiHeadAttention"
        q, k, v = tensor(op, q), tensor(op, k), tensor(op, v)
        fits = q.ndim == k.ndim == v.ndim == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
        if not fits or q.shape[3] != k.shape[3] or k.shape[2] != v.shape[2] or not k.shape[2]:
            raise ValueError(
                f"{op}: q (N, H, T, D), k (N, H, S, D) and v (N, H, S, E) are needed, but got {q.shape}, {k.shape} "
                f"and {v.shape}"
            )
        check.floats(op, q=q, k=k, v=v)
        mask = self._causal_mask(q, k) if self.causal else None
        weights = self.dropout(attention_weights(q, k, mask))
        return weights @ v, weights

    def _causal_mask(self, q: Tensor, k: Tensor) -> Tensor:
        """(T, S), to be added to the scores: LOWEST where a query would look ahead, 0 elsewhere."""
        queries, keys = q.shape[2], k.shape[2]
        visible = init.tril(queries, keys, keys - queries, device=q.device, dtype=compute_dtype(q.dtype))
        return (1 - visible) * LOWEST

    def extra_repr(self) -> str:
        return f"causal={self.causal}"


class AttentionLayer(Module):
    """Attention with several heads: q (N, T, q_features), k (N, S, k_features), v (N, S, v_features) -> (N, T, out).

    Each of q, k and v is normalized (`prenorm_q`, `prenorm_k`, `prenorm_v`), projected to num_head · dim_head features
    and split into heads for `MultiHeadAttention`; the heads are joined and projected to out_features. k and v default
    to q; k_features, v_features and out_features default to q_features.

    Parameters, in order: weight and bias of the three norms, then `q_projection`, `k_projection`, `v_projection`
    and `out_projection`, Linear layers without bias, drawn in this order. Raises ValueError if shapes do not fit,
    TypeError if dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2.
    """

    fixed = ("q_features", "num_head", "dim_head", "k_features", "v_features", "out_features")

    def __init__(
        self, q_features: int, num_head: int, dim_head: int, *, k_features: int | None = None,
        v_features: int | None = None, out_features: int | None = None, dropout: float = 0.0, causal: bool = True,
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        name = "AttentionLayer"
        self.q_features = check.integer(name, "q_features", q_features, least=1)
        self.num_head = check.integer(name, "num_head", num_head, least=1)
        self.dim_head = check.integer(name, "dim_head", dim_head, least=1)

        def features(argument: str, value: int | None) -> int:
            return self.q_features if value is None else check.integer(name, argument, value, least=1)

        self.k_features = features("k_features", k_features)
        self.v_features = features("v_features", v_features)
        self.out_features = features("out_features", out_features)
        check.number(name, "dropout", dropout, least=0, most=1)
        inner = self.num_head * self.dim_head
        self.prenorm_q = LayerNorm1d(self.q_features, device=device, dtype=dtype)
        self.prenorm_k = LayerNorm1d(self.k_features, device=device, dtype=dtype)
        self.prenorm_v = LayerNorm1d(self.v_features, device=device, dtype=dtype)
        self.q_projection = Linear(self.q_features, inner, bias=False, device=device, dtype=dtype)
        self.k_projection = Linear(self.k_features, inner, bias=False, device=device, dtype=dtype)
        self.v_projection = Linear(self.v_features, inner, bias=False, device=device, dtype=dtype)
        self.attention = MultiHeadAttention(dropout=dropout, causal=causal)
        self.out_projection = Linear(inner, self.out_features, bias=False, device=device, dtype=dtype)

    def forward(self, q: TensorLike, k: TensorLike | None = None, v: TensorLike | None = None) -> Tensor:
        op = "AttentionLayer"
        q = tensor(op, q)
        k, v = (q if x is None else tensor(op, x) for x in (k, v))
        features = (self.q_features, self.k_features, self.v_features)
        fits = q.ndim == k.ndim == v.ndim == 3 and q.shape[0] == k.shape[0] and k.shape[:2] == v.shape[:2]
        if not fits or (q.shape[2], k.shape[2], v.shape[2]) != features or not k.shape[1]:
            raise ValueError(
                f"{op}: q (N, T, {features[0]}), k (N, S, {features[1]}) and v (N, S, {features[2]}) are needed, but "
                f"got {q.shape}, {k.shape} and {v.shape}"
            )
        check.floats(op, q=q, k=k, v=v)
        check.floats(op, q=q, weight=self.q_projection.weight)
        q = self._split_heads(self.q_projection(self.prenorm_q(q)))
        k = self._split_heads(self.k_projection(self.prenorm_k(k)))
        v = self._split_heads(self.v_projection(self.prenorm_v(v)))
        heads, _ = self.attention(q, k, v)
        n, h, t, d = heads.shape
        return self.out_projection(reshape(permute(heads, (0, 2, 1, 3)), (n, t, h * d)))

    @property
    def causal(self) -> bool:
        return self.attention.causal

    @property
    def dropout(self) -> float:
        return self.attention.dropout.p

    def _split_heads(self, x: Tensor) -> Tensor:
        """(N, T, H·D) -> (N, H, T, D)."""
        return permute(reshape(x, (*x.shape[:2], self.num_head, self.dim_head)), (0, 2, 1, 3))


class TransformerLayer(Module):
    """x + drop(attention(x)), then x + drop(linear2(drop(relu(linear1(norm(x)))))): (N, T, q_features) -> the same.

    Parameters, in order: an `AttentionLayer` (which has its own norms), a LayerNorm1d, then
    Linear(q_features, hidden_size) and Linear(hidden_size, q_features), both with bias. Raises ValueError if shapes do
    not fit, TypeError if dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), section 3; Xiong et al., "On Layer Normalization in the
    Transformer Architecture" (2020), for the place of the norms.
    """

    fixed = ("q_features", "num_head", "dim_head", "hidden_size")

    def __init__(
        self, q_features: int, num_head: int, dim_head: int, hidden_size: int, *, dropout: float = 0.0,
        causal: bool = True, device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.q_features = check.integer("TransformerLayer", "q_features", q_features, least=1)
        self.hidden_size = check.integer("TransformerLayer", "hidden_size", hidden_size, least=1)
        self.num_head, self.dim_head = num_head, dim_head
        self.attention = AttentionLayer(
            q_features, num_head, dim_head, dropout=dropout, causal=causal, device=device, dtype=dtype
        )
        self.norm = LayerNorm1d(q_features, device=device, dtype=dtype)
        self.linear1 = Linear(q_features, hidden_size, device=device, dtype=dtype)
        self.linear2 = Linear(hidden_size, q_features, device=device, dtype=dtype)
        self.dropout = Dropout(dropout)

    @property
    def causal(self) -> bool:
        return self.attention.causal

    def forward(self, x: TensorLike) -> Tensor:
        x = tensor("TransformerLayer", x)
        x = x + self.dropout(self.attention(x))
        hidden = self.dropout(relu(self.linear1(self.norm(x))))
        return x + self.dropout(self.linear2(hidden))


class Transformer(Module):
    """Layers of `TransformerLayer` over embedded steps: x (T, N, D) -> (T, N, D); with `batch_first` (N, T, D) both.

    First adds to x a learned vector for each position 0 to T - 1. Returns a pair, as recurrent layers do; its second
    part stands in for their hidden state and holds zeros of the shape of x. The argument h is ignored.

    Parameters, in order: `embedding` of the positions, (sequence_len, embedding_size), then the `layers`. Raises
    ValueError if shapes do not fit or x has more than sequence_len steps, TypeError if dtypes do not fit.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.
    """

    fixed = ("embedding_size", "hidden_size", "num_layers", "num_head", "dim_head", "sequence_len")
    flags = ("batch_first",)

    def __init__(
        self, embedding_size: int, hidden_size: int, num_layers: int, *, num_head: int = 8, dim_head: int = 32,
        dropout: float = 0.0, causal: bool = True, device: Device | None = None, dtype: DTypeLike = "float32",
        batch_first: bool = False, sequence_len: int = 2048,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding_size = check.integer("Transformer", "embedding_size", embedding_size, least=1)
        self.sequence_len = check.integer("Transformer", "sequence_len", sequence_len, least=1)
        self.batch_first = batch_first
        self.num_layers = check.integer("Transformer", "num_layers", num_layers, least=1)
        self.hidden_size, self.num_head, self.dim_head = hidden_size, num_head, dim_head
        self.embedding = Embedding(self.sequence_len, self.embedding_size, device=device, dtype=dtype)
        self.layers = [
            TransformerLayer(
                self.embedding_size, num_head, dim_head, hidden_size, dropout=dropout, causal=causal, device=device,
                dtype=dtype,
            )
            for _ in range(self.num_layers)
        ]  # fmt: skip

    @property
    def causal(self) -> bool:
        return self.layers[0].causal

    @property
    def dropout(self) -> float:
        return self.layers[0].dropout.p

    def forward(self, x: TensorLike, h: object = None) -> tuple[Tensor, Tensor]:
        x, axes = tensor("Transformer", x), "N, T" if self.batch_first else "T, N"
        if x.ndim != 3 or x.shape[2] != self.embedding_size:
            raise ValueError(f"Transformer: x must have shape ({axes}, {self.embedding_size}), but got {x.shape}")
        check.floats("Transformer", x=x)
        check.floats("Transformer", x=x, weight=self.embedding.weight)
        x = x if self.batch_first else permute(x, (1, 0, 2))
        steps = x.shape[1]
        if not 1 <= steps <= self.sequence_len:
            raise ValueError(f"Transformer: x must have 1 to {self.sequence_len} steps, but got {steps}")
        x = x + self.embedding.weight[:steps]  # positions are consecutive rows: a slice, not a look-up
        for layer in self.layers:
            x = layer(x)
        x = x if self.batch_first else permute(x, (1, 0, 2))
        return x, init.zeros_like(x)
