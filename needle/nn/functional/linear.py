"""Linear maps, tables of vectors, similarity and attention, under torch's names."""

from __future__ import annotations

import math

from needle import check, ops
from needle.backend import cpu, to_host
from needle.nn.functional.dropout import dropout
from needle.nn.functional.norm import length
from needle.ops.conv import check_floats
from needle.ops.operand import broadcast_shape, tensor


def linear(x, weight, bias=None):
    """x @ weight transposed + bias: x (…, in), weight (out, in), bias (out,) -> (…, out).

    `weight` has torch's layout, which is that of `nn.Linear` transposed; one of shape (in,) gives (…). Raises
    ValueError where shapes do not fit together, TypeError where dtypes do not.
    """
    x, weight = tensor("linear", x), tensor("linear", weight)
    if weight.ndim not in (1, 2) or x.shape[-1:] != weight.shape[-1:]:
        raise ValueError(f"linear: x (…, in) and weight (out, in) are needed, but got {x.shape} and {weight.shape}")
    check_floats("linear", x=x, weight=weight)
    if bias is not None:
        bias = tensor("linear", bias)
        check_floats("linear", x=x, bias=bias)
        check_broadcast("linear", "bias", bias, "result", x.shape[:-1] + weight.shape[:-1])
    y = x @ (ops.transpose(weight) if weight.ndim == 2 else weight)
    return y if bias is None else y + bias


def embedding(x, weight, padding_idx=None):
    """Rows of a table: integers x (*I) in [0, n), of any dtype, and weight (n, d) -> (*I, d).

    No gradient flows into row `padding_idx`; a negative one counts from the end. Raises ValueError where an index is
    out of range (looked at on the CPU only) or `weight` is no matrix.

    >>> import needle as ndl
    >>> embedding(ndl.Tensor([2, 0]), ndl.Tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])).numpy().tolist()
    [[4.0, 5.0], [0.0, 1.0]]
    """
    x, weight = tensor("embedding", x), tensor("embedding", weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight must be a matrix (n, d), but got shape {weight.shape}")
    if padding_idx is not None:
        padding_idx = row_of("embedding", padding_idx, weight.shape[0])
    indices = integers("embedding", "indices", x)
    check_range("embedding", "indices", indices, weight.shape[0])
    rows = ops.getitem(weight, x.make_const(indices))
    if padding_idx is None:
        return rows
    kept = x.make_const((indices != padding_idx)[..., None])
    return ops.where(kept, rows, rows.detach())


def one_hot(x, num_classes=-1):
    """Integers (*I) in [0, num_classes), of any dtype -> int64 (*I, num_classes): ones at the integers, else zeros.

    By default there are as many classes as the largest integer needs. Raises ValueError where an integer is out of
    range (looked at on the CPU only), or where the default is asked of no integers.
    """
    x = tensor("one_hot", x)
    indices = integers("one_hot", "indices", x)
    n = check.integer("one_hot", "num_classes", num_classes, least=-1)
    if n == -1:
        if not x.size:
            raise ValueError(f"one_hot: num_classes must be given for no integers, but got x of shape {x.shape}")
        n = max(int(to_host(indices.max())) + 1, 1)
    check_range("one_hot", "indices", indices, n)
    return ops.one_hot(max(n, 1), x.make_const(indices), "int64") if n else x.make_const(indices[..., None][..., :0])


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """⟨x1, x2⟩ / (max(‖x1‖, eps) · max(‖x2‖, eps)) along the axis `dim`, for operands that broadcast.

    Raises ValueError where the broadcast operands have no such axis, TypeError where a dtype is not a floating one.
    """
    x1, x2 = tensor("cosine_similarity", x1), tensor("cosine_similarity", x2)
    check_floats("cosine_similarity", x1=x1)
    check_floats("cosine_similarity", x2=x2)
    shape = broadcast_shape("cosine_similarity", x1.shape, x2.shape)
    axis = check.axis("cosine_similarity", dim, len(shape), "dim")
    eps = check.number("cosine_similarity", "eps", eps, least=0)
    x1, x2 = ops.broadcast_to(x1, shape), ops.broadcast_to(x2, shape)
    unit1, unit2 = (x / ops.clip(length(x, 2, (axis,)), eps) for x in (x1, x2))
    return ops.summation(unit1 * unit2, axis)


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """softmax(scale · query @ keyᵀ + mask) @ value: (…, L, E), (…, S, E), (…, S, V) -> (…, L, V).

    `attn_mask` broadcasts to (…, L, S): bools that are true where a query may look, or numbers that are added.
    `is_causal` lets query i look at keys 0 to i. A query that may look nowhere gets zeros. `scale` is 1 / sqrt(E) by
    default. `dropout_p` drops weights whether one trains or not. The axes … broadcast. Raises ValueError where shapes
    or options do not fit together, TypeError where dtypes do not.

    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    """
    op = "scaled_dot_product_attention"
    query, key, value = tensor(op, query), tensor(op, key), tensor(op, value)
    shapes = f"query {query.shape}, key {key.shape} and value {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ValueError(f"{op}: query, key and value must have at least 2 axes, but got {shapes}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2] or not key.shape[-2]:
        raise ValueError(f"{op}: query (…, L, E), key (…, S, E) and value (…, S, V) are needed, but got {shapes}")
    check_floats(op, query=query, key=key, value=value)
    batch = broadcast_shape(op, query.shape[:-2], key.shape[:-2], value.shape[:-2])
    dropout_p = check.number(op, "dropout_p", dropout_p, least=0, most=1)
    scale = scale if scale is None else check.number(op, "scale", scale)
    if attn_mask is not None:
        if is_causal:
            raise ValueError(f"{op}: attn_mask and is_causal exclude each other, but got both")
        attn_mask = tensor(op, attn_mask)
        if attn_mask.dtype.kind != "b":
            check_floats(op, query=query, attn_mask=attn_mask)
        check_broadcast(op, "attn_mask", attn_mask, "scores", (*batch, query.shape[-2], key.shape[-2]))
    mask = attn_mask
    if is_causal:
        namespace = query.device.xp
        mask = query.make_const(namespace.tril(namespace.ones((query.shape[-2], key.shape[-2]), dtype=bool)))
    weights = attention_weights(query, key, mask, scale, may_be_blind=attn_mask is not None)
    return (dropout(weights, dropout_p) if dropout_p else weights) @ value


def attention_weights(query, key, mask=None, scale=None, *, may_be_blind=False):
    """softmax(query @ keyᵀ · scale + mask) over the keys: (…, L, E), (…, S, E) -> (…, L, S).

    The mask and the default of `scale` are those of `scaled_dot_product_attention`. Rows in which the mask allows
    nothing are zeros where `may_be_blind`; otherwise there must be none.
    """
    scores = query @ ops.transpose(key)
    scores = scores / math.sqrt(max(query.shape[-1], 1)) if scale is None else scores * scale
    if mask is not None:
        scores = ops.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    if not may_be_blind:
        return ops.softmax(scores)
    blind = ops.equal(ops.max(scores.detach(), -1, keepdims=True), -math.inf)
    return ops.where(blind, 0, ops.softmax(ops.where(blind, 0, scores)))


# ---- integers as arguments -------------------------------------------------------------------------------------------


def integers(op, name, x):
    """The integers in a tensor of any dtype as a raw int64 array; on the CPU what is no integer is refused."""
    if x.dtype.kind == "b":
        raise TypeError(f"{op}: {name} must be integers, but got dtype bool")
    if x.dtype.kind == "f" and x.device == cpu():
        whole = x.device.xp.isfinite(x.array) & (x.device.xp.floor(x.array) == x.array)
        if not whole.all():
            raise ValueError(f"{op}: {name} must be integers, but got {x.array[~whole].flat[0]}")
    return x.array.astype("int64")


def check_range(op, name, array, size):
    """Refuse integers out of [0, size), on the CPU only: elsewhere asking would wait for the device."""
    if type(array) is cpu().array_type() and array.size and not (array.min() >= 0 and array.max() < size):
        raise ValueError(f"{op}: {name} must lie in [0, {size - 1}], but got {array.min()} to {array.max()}")


def row_of(op, padding_idx, rows):
    """`padding_idx`, counted from the end where negative, as one of `rows`."""
    index = check.integer(op, "padding_idx", padding_idx)
    if not -rows <= index < rows:
        raise ValueError(f"{op}: padding_idx must lie in [{-rows}, {rows - 1}], but got {index}")
    return index % rows


def check_broadcast(op, name, x, other, shape):
    """Refuse a tensor that does not broadcast to the shape of what is called `other`."""
    if len(x.shape) > len(shape) or broadcast_shape(op, x.shape, shape) != shape:
        raise ValueError(f"{op}: {name} must broadcast to the {other} {shape}, but got shape {x.shape}")
