"""Scaled dot-product attention.

Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
"""

from __future__ import annotations

import math

from needle import check, init, ops
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.nn.functional.dropout import dropout
from needle.ops.arithmetic import as_dtype
from needle.ops.operand import broadcast_shape, check_broadcast, tensor

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · query @ keyᵀ + mask) @ value: (…, L, E), (…, S, E), (…, S, V) -> (…, L, V).

    - `attn_mask` broadcasts to (…, L, S): bools, true where a query may attend, or numbers to add to the scores.
    - `is_causal` lets query i attend to keys 0 to i. It excludes `attn_mask`.
    - `scale` is 1 / sqrt(E) by default.
    - `dropout_p` drops attention weights, in evaluation too: pass 0 there.

    The axes … broadcast. A query that may attend to no key yields zeros. All operands share one floating dtype; float16
    is computed in float32.

    Raises `ValueError` if shapes or options do not fit together, `TypeError` if dtypes or devices do not.

    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    """
    op = "scaled_dot_product_attention"
    query, key, value = tensor(op, query), tensor(op, key), tensor(op, value)
    shapes = f"query {query.shape}, key {key.shape} and value {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ValueError(f"{op}: query, key and value must have at least 2 axes, but got {shapes}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(f"{op}: query (…, L, E), key (…, S, E) and value (…, S, V) are needed, but got {shapes}")
    operands = {"query": query, "key": key, "value": value}
    mask = None if attn_mask is None else tensor(op, attn_mask)
    if mask is not None and mask.dtype.kind != "b":
        operands["attn_mask"] = mask
    check.floats(op, **operands)
    batch = broadcast_shape(op, query.shape[:-2], key.shape[:-2], value.shape[:-2])
    dropout_p = check.number(op, "dropout_p", dropout_p, least=0, most=1)
    scale = scale if scale is None else check.number(op, "scale", scale)
    queries, keys = query.shape[-2], key.shape[-2]
    if mask is not None:
        if is_causal:
            raise ValueError(f"{op}: attn_mask and is_causal exclude each other, but got both")
        check_broadcast(op, "attn_mask", mask, "scores", (*batch, queries, keys))
    elif is_causal:
        mask = init.tril(queries, keys, device=query.device, dtype="bool")
    dtype, wide = query.dtype, compute_dtype(query.dtype)
    query, key, value = (as_dtype(x, wide) for x in (query, key, value))
    weights = attention_weights(query, key, mask, scale, may_mask_all_keys=attn_mask is not None and keys > 0)
    return as_dtype((dropout(weights, dropout_p) if dropout_p else weights) @ value, dtype)


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    *,
    may_mask_all_keys: bool = False,
) -> Tensor:
    """softmax(query @ keyᵀ · scale + mask) over the keys: (…, L, E), (…, S, E) -> (…, L, S).

    `mask` and `scale` as in `scaled_dot_product_attention`. With `may_mask_all_keys`, rows with all keys masked are
    zeros; without it, the mask must leave each query at least one key.
    """
    dtype, wide = query.dtype, compute_dtype(query.dtype)
    scores = as_dtype(query, wide) @ ops.transpose(as_dtype(key, wide))
    scores = scores / math.sqrt(max(query.shape[-1], 1)) if scale is None else scores * scale
    if mask is not None:
        scores = ops.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    return as_dtype(masked_softmax(scores) if may_mask_all_keys else ops.softmax(scores), dtype)


def masked_softmax(scores: Tensor) -> Tensor:
    """softmax over the last axis of scores (…, S), but zeros where all of them are -infinity."""
    is_masked = ops.equal(ops.max(scores.detach(), -1, keepdims=True), -math.inf)
    return ops.where(is_masked, 0, ops.softmax(ops.where(is_masked, 0, scores)))
