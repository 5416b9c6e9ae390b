"""Attention of queries to keys, with caches, masks and windows, and the rotary embedding of positions.

Shapes: B batch, H_q heads of queries, H heads of keys and values, L queries, S keys, E and V features of a head. Each
head of keys serves the H_q / H heads of queries that follow each other.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from needle import init, ops
from needle.autograd import Tensor
from needle.backend import compute_dtype
from needle.nn.functional.attention import masked_softmax
from needle.onnx.registry import Node, operator

__all__: list[str] = []

PRECISIONS = {1: "float32", 10: "float16", 11: "float64"}


@operator("Attention", buffers=(6,))
def attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_key: Tensor | None = None,
    past_value: Tensor | None = None, lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The attended values, the keys and values with those of the past before them, and what `qk_matmul_output` shows.

    q, k and v are (B, H_q, L, E), (B, H, S, E) and (B, H, S, V), or packed, (B, L, H_q · E) and so on.
    """
    packed, dtype, wide = q.ndim == 3, q.dtype, compute_dtype(q.dtype)
    if packed:
        q = _unpacked(node, q, "q_num_heads")
        k, v = _unpacked(node, k, "kv_num_heads"), _unpacked(node, v, "kv_num_heads")
    if past_key is not None:
        k = ops.concatenate((past_key, k), 2)
    if past_value is not None:
        v = ops.concatenate((past_value, v), 2)
    shown = [_scores(q.astype(wide), k.astype(wide), node["scale"])]
    shown.append(ops.tanh(shown[0] / node["softcap"]) * node["softcap"] if node["softcap"] > 0 else shown[0])
    shown.append(_masked(node, shown[1], mask, 0 if past_key is None else past_key.shape[2], lengths))
    is_restricted = mask is not None or lengths is not None or _window(node) != (None, None)
    softmax = masked_softmax if is_restricted and k.shape[2] else ops.softmax  # no key may be left
    weights = softmax(shown[2].astype(_precision(node, wide))).astype(wide)
    shown.append(weights)
    y = _grouped(weights, v.astype(wide)).astype(dtype)
    if packed:
        y = ops.permute(y, (0, 2, 1, 3))
        y = ops.reshape(y, (*y.shape[:2], -1))
    return y, k, v, shown[node["qk_matmul_output_mode"]].astype(dtype)


@operator("FlexAttention", domain="ai.onnx.preview")
def flex_attention(node: Node, q: Tensor, k: Tensor, v: Tensor, *outer: Tensor) -> Tensor:
    """Attention whose scores and weights pass through the bodies `score_mod` and `prob_mod`."""
    values = dict(zip(node.outer, outer, strict=True))
    wide = compute_dtype(q.dtype)
    precision = _precision(node, wide)
    weights = _scores(q.astype(wide), k.astype(wide), node["scale"]).astype(precision)
    if node["score_mod"] is not None:
        (weights,) = node["score_mod"].run((weights,), values)
    weights = ops.softmax(weights)
    if node["prob_mod"] is not None:
        (weights,) = node["prob_mod"].run((weights,), values)
    return _grouped(weights.astype(wide), v.astype(wide)).astype(q.dtype)


def _unpacked(node: Node, x: Tensor, heads: str) -> Tensor:
    """(B, L, heads · E) -> (B, heads, L, E)."""
    if not node[heads]:
        raise ValueError(f"{node}: {heads} must be given with inputs of 3 axes, but got {node[heads]}")
    return ops.permute(ops.reshape(x, (*x.shape[:2], node[heads], x.shape[2] // node[heads])), (0, 2, 1, 3))


def _grouped(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, where each head of b serves a group of heads of a: (B, H_q, L, M), (B, H, M, N) -> (B, H_q, L, N)."""
    return ops.reshape(ops.reshape(a, (*b.shape[:2], -1, a.shape[3])) @ b, (*a.shape[:3], b.shape[3]))


def _scores(q: Tensor, k: Tensor, scale: float | None) -> Tensor:
    return _grouped(q * (1 / math.sqrt(q.shape[3]) if scale is None else scale), ops.permute(k, (0, 1, 3, 2)))


def _precision(node: Node, default: Any) -> Any:
    """The dtype of the softmax."""
    precision = node["softmax_precision"]
    if precision is not None and precision not in PRECISIONS:
        raise TypeError(f"{node}: softmax_precision must be one of {list(PRECISIONS)}, but got {precision}")
    return PRECISIONS.get(precision, default)


def _masked(node: Node, scores: Tensor, mask: Tensor | None, past: int, lengths: Tensor | None) -> Tensor:
    """Scores (B, H_q, L, S) plus a mask of numbers, and -infinity where a query does not attend to a key.

    Query i is at position `past` + i, or, in a cache of which `lengths` (B,) keys are valid, at the end of those.
    """
    queries, keys = scores.shape[2:]
    key = init.arange(keys, device=scores.device)
    position = ops.reshape(init.arange(queries, device=scores.device), (-1, 1)) + past
    allowed = []
    if lengths is not None:
        lengths = ops.reshape(lengths, (-1, 1, 1, 1))
        position = position + (lengths - queries)
        allowed.append(ops.less(key, lengths))
    left, right = _window(node)
    if node["is_causal"]:
        right = 0
    if left is not None:
        allowed.append(ops.greater_equal(key, position - left))
    if right is not None:
        allowed.append(ops.less_equal(key, position + right))
    if mask is not None:
        missing = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
        if mask.dtype.kind == "b":
            allowed.append(ops.pad(mask, missing))
        else:
            scores = scores + ops.pad(mask.astype(scores.dtype), missing, -math.inf)
    return ops.where(reduce(ops.logical_and, allowed), scores, -math.inf) if allowed else scores


def _window(node: Node) -> tuple[int | None, int | None]:
    """How many keys before its position and after it a query attends to; None: all of them."""
    left, right = (node.get(f"{side}_window_size") for side in ("left", "right"))
    return None if left == -1 else left, None if right == -1 else right


@operator("RotaryEmbedding", buffers=(1, 2))
def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """Pairs of features of x (B, H, L, E), or (B, L, H · E), rotated by angles whose cosines and sines are given.

    The first `rotary_embedding_dim` features of a head are rotated: those of the first half with those of the second,
    or each with its neighbour if `interleaved`. cos and sin are (B, L, pairs), or (all positions, pairs) with
    `positions` (B, L).
    """
    shape, heads = x.shape, node["num_heads"]
    x = ops.reshape(x, (*shape[:2], heads, -1)) if x.ndim == 3 else ops.permute(x, (0, 2, 1, 3))
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = (ops.reshape(value, (*value.shape[:2], 1, value.shape[2])) for value in (cos, sin))
    size = node["rotary_embedding_dim"] or x.shape[3]
    pairs = (-1, 2) if node["interleaved"] else (2, -1)
    axis = x.ndim if node["interleaved"] else x.ndim - 1
    a, b = ops.split(ops.reshape(x[..., :size], (*x.shape[:3], *pairs)), axis)
    rotated = ops.reshape(ops.stack((cos * a - sin * b, sin * a + cos * b), axis), (*x.shape[:3], size))
    y = rotated if size == x.shape[3] else ops.concatenate((rotated, x[..., size:]), 3)
    return ops.reshape(y, shape) if len(shape) == 3 else ops.permute(y, (0, 2, 1, 3))
