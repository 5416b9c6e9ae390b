"""Attention and the Transformer made of it, in the pre-norm form.

Vaswani et al., "Attention Is All You Need" (2017); the norms before instead of after each block: Xiong et al., "On
Layer Normalization in the Transformer Architecture" (2020), figure 1b.
"""

from __future__ import annotations

from needle import check, init
from needle.nn.functional.attention import attention_weights
from needle.nn.linear import Dropout, Embedding, Linear
from needle.nn.module import Module
from needle.nn.norm import LayerNorm1d
from needle.ops import permute, relu, reshape
from needle.ops.conv import check_floats
from needle.ops.operand import tensor

LEAST = -(2 - 2**-23) * 2.0**127  # of float32
LEAST_OF_HALVES = -(2.0**15)  # half of the range of float16, so that adding a score does not overflow


class MultiHeadAttention(Module):
    """softmax(q @ kᵀ / sqrt(D) + mask) @ v: q (N, H, T, D), k (N, H, S, D), v (N, H, S, E).

    -> the result (N, H, T, E) and the weights (N, H, T, S), both after dropout, which training applies to the weights.
    With `causal` the mask adds -3.4e38, the least number of float32 (for float16 -32768), where a query would look
    ahead: query t at the keys after t + S - T. There are no parameters; `device` and `dtype` are taken as other layers
    take them, and the arrays are made where q is, in its dtype. Raises ValueError where shapes do not fit, TypeError
    where dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    """

    def __init__(self, *, dropout=0.0, causal=False, device=None, dtype="float32"):
        super().__init__()
        check.number("MultiHeadAttention", "dropout", dropout, least=0, most=1)
        self.causal = bool(causal)
        self.dropout = Dropout(dropout)

    def forward(self, q, k, v):
        op = "MultiHeadAttention"
        q, k, v = tensor(op, q), tensor(op, k), tensor(op, v)
        fits = q.ndim == k.ndim == v.ndim == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
        if not fits or q.shape[3] != k.shape[3] or k.shape[2] != v.shape[2] or not k.shape[2]:
            raise ValueError(
                f"{op}: q (N, H, T, D), k (N, H, S, D) and v (N, H, S, E) are needed, but got {q.shape}, {k.shape} "
                f"and {v.shape}"
            )
        check_floats(op, q=q, k=k, v=v)
        weights = self.dropout(attention_weights(q, k, self.ahead(q, k) if self.causal else None))
        return weights @ v, weights

    def ahead(self, q, k):
        """What is added to the scores: LEAST strictly above the diagonal that ends with the last key."""
        queries, keys = q.shape[2], k.shape[2]
        namespace, least = q.device.xp, LEAST if q.dtype.itemsize > 2 else LEAST_OF_HALVES
        return q.make_const(namespace.triu(namespace.full((queries, keys), least, q.dtype), keys - queries + 1))

    def extra_repr(self):
        return f"causal={self.causal}"


class AttentionLayer(Module):
    """Attention with several heads: q (N, T, q_features), k (N, S, k_features), v (N, S, v_features) -> (N, T, out).

    Each of q, k and v is normalised (`prenorm_q`, `prenorm_k`, `prenorm_v`), projected to num_head · dim_head features
    and split into heads for `MultiHeadAttention`; the heads are joined and projected to out_features. k and v are q
    where they are None, and k_features, v_features and out_features are q_features.

    Parameters, in their order: weight and bias of the three norms, then `q_projection`, `k_projection`, `v_projection`
    and `out_projection`, Linear layers without bias, drawn in this order. Raises ValueError where shapes do not fit,
    TypeError where dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2.
    """

    def __init__(
        self, q_features, num_head, dim_head, *, k_features=None, v_features=None, out_features=None, dropout=0.0,
        causal=True, device=None, dtype="float32",
    ):  # fmt: skip
        super().__init__()
        name, options = "AttentionLayer", {"device": device, "dtype": dtype}
        self.q_features = check.integer(name, "q_features", q_features, least=1)
        self.num_head = check.integer(name, "num_head", num_head, least=1)
        self.dim_head = check.integer(name, "dim_head", dim_head, least=1)
        self.k_features, self.v_features, self.out_features = (
            self.q_features if features is None else check.integer(name, features_name, features, least=1)
            for features_name, features in (
                ("k_features", k_features), ("v_features", v_features), ("out_features", out_features)
            )
        )  # fmt: skip
        check.number(name, "dropout", dropout, least=0, most=1)
        inner = self.num_head * self.dim_head
        self.prenorm_q = LayerNorm1d(self.q_features, **options)
        self.prenorm_k = LayerNorm1d(self.k_features, **options)
        self.prenorm_v = LayerNorm1d(self.v_features, **options)
        self.q_projection = Linear(self.q_features, inner, bias=False, **options)
        self.k_projection = Linear(self.k_features, inner, bias=False, **options)
        self.v_projection = Linear(self.v_features, inner, bias=False, **options)
        self.attention = MultiHeadAttention(dropout=dropout, causal=causal, **options)
        self.out_projection = Linear(inner, self.out_features, bias=False, **options)

    def forward(self, q, k=None, v=None):
        op = "AttentionLayer"
        q = tensor(op, q)
        k, v = (q if x is None else tensor(op, x) for x in (k, v))
        ends = (self.q_features, self.k_features, self.v_features)
        fits = q.ndim == k.ndim == v.ndim == 3 and q.shape[0] == k.shape[0] and k.shape[:2] == v.shape[:2]
        if not fits or (q.shape[2], k.shape[2], v.shape[2]) != ends or not k.shape[1]:
            raise ValueError(
                f"{op}: q (N, T, {ends[0]}), k (N, S, {ends[1]}) and v (N, S, {ends[2]}) are needed, but got "
                f"{q.shape}, {k.shape} and {v.shape}"
            )
        check_floats(op, q=q, k=k, v=v)
        q = self.split(self.q_projection(self.prenorm_q(q)))
        k = self.split(self.k_projection(self.prenorm_k(k)))
        v = self.split(self.v_projection(self.prenorm_v(v)))
        result, _ = self.attention(q, k, v)
        n, heads, steps, features = result.shape
        return self.out_projection(reshape(permute(result, (0, 2, 1, 3)), (n, steps, heads * features)))

    def split(self, x):
        """The features as heads: (N, T, H·D) -> (N, H, T, D)."""
        return permute(reshape(x, (*x.shape[:2], self.num_head, self.dim_head)), (0, 2, 1, 3))


class TransformerLayer(Module):
    """x + drop(attention(x)), then x + drop(linear2(drop(relu(linear1(norm(x)))))): (N, T, q_features) -> the same.

    Parameters, in their order: those of the `AttentionLayer` (which has a norm of its own), of a LayerNorm1d, and of
    Linear(q_features, hidden_size) and Linear(hidden_size, q_features), both with bias. Raises ValueError where shapes
    do not fit, TypeError where dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), section 3; Xiong et al., "On Layer Normalization in the
    Transformer Architecture" (2020), for the place of the norms.
    """

    def __init__(
        self, q_features, num_head, dim_head, hidden_size, *, dropout=0.0, causal=True, device=None, dtype="float32"
    ):  # fmt: skip
        super().__init__()
        name, options = "TransformerLayer", {"device": device, "dtype": dtype}
        check.integer(name, "q_features", q_features, least=1)
        check.integer(name, "hidden_size", hidden_size, least=1)
        self.attention = AttentionLayer(q_features, num_head, dim_head, dropout=dropout, causal=causal, **options)
        self.norm = LayerNorm1d(q_features, **options)
        self.linear1 = Linear(q_features, hidden_size, **options)
        self.linear2 = Linear(hidden_size, q_features, **options)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(x))
        hidden = self.dropout(relu(self.linear1(self.norm(x))))
        return x + self.dropout(self.linear2(hidden))


class Transformer(Module):
    """Layers of `TransformerLayer` over embedded steps: x (T, N, D) -> (T, N, D); with `batch_first` (N, T, D) both.

    A learned vector for each of the positions 0 to T - 1 is added to x first. The second result is zeros of the shape
    of x, and a second argument is not read: they stand where recurrent layers have their hidden state.

    Parameters, in their order: `embedding` of the positions, (sequence_len, embedding_size), then the `layers`. Raises
    ValueError where shapes do not fit or there are more than sequence_len steps, TypeError where dtypes do not fit.

    Vaswani et al., "Attention Is All You Need" (2017), section 3.
    """

    def __init__(
        self, embedding_size, hidden_size, num_layers, *, num_head=8, dim_head=32, dropout=0.0, causal=True,
        device=None, dtype="float32", batch_first=False, sequence_len=2048,
    ):  # fmt: skip
        super().__init__()
        name, options = "Transformer", {"device": device, "dtype": dtype}
        self.embedding_size = check.integer(name, "embedding_size", embedding_size, least=1)
        self.sequence_len = check.integer(name, "sequence_len", sequence_len, least=1)
        self.batch_first = bool(batch_first)
        num_layers = check.integer(name, "num_layers", num_layers, least=1)
        self.embedding = Embedding(self.sequence_len, self.embedding_size, **options)
        sizes = (self.embedding_size, num_head, dim_head, hidden_size)
        self.layers = [TransformerLayer(*sizes, dropout=dropout, causal=causal, **options) for _ in range(num_layers)]

    def forward(self, x, h=None):
        x, first = tensor("Transformer", x), "N, T" if self.batch_first else "T, N"
        if x.ndim != 3 or x.shape[2] != self.embedding_size:
            raise ValueError(f"Transformer: x must have shape ({first}, {self.embedding_size}), but got {x.shape}")
        check_floats("Transformer", x=x)
        x = x if self.batch_first else permute(x, (1, 0, 2))
        steps = x.shape[1]
        if not 1 <= steps <= self.sequence_len:
            raise ValueError(f"Transformer: x must have 1 to {self.sequence_len} steps, but got {steps}")
        x = x + self.embedding.weight[:steps]  # the rows of the positions, without a search for them
        for layer in self.layers:
            x = layer(x)
        x = x if self.batch_first else permute(x, (1, 0, 2))
        return x, init.zeros_like(x)
