"""Attention without a softmax, as a recurrence over a state of keys times values.

Shapes: B batch, T steps, H heads of keys and values, G heads of queries for each, K and V features of a head.

Katharopoulos et al., "Transformers are RNNs" (2020); with decay, Yang et al., "Gated Linear Attention Transformers"
(2024); with the delta rule, Yang et al., "Gated Delta Networks" (2025).
"""

from __future__ import annotations

import math

from needle import init, ops
from needle.autograd import Tensor
from needle.backend import compute_dtype
from needle.onnx.registry import Node, operator

__all__: list[str] = []

# Whether a rule reads decay and beta.
RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}


@operator("LinearAttention")
def linear_attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, past: Tensor | None = None, decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The outputs (B, T, H · G · V) and the last state (B, H, K, V) for q (B, T, H · G · K), k and v.

    A step multiplies the state by e ** decay, adds key times value, and reads the state with the query. The delta rule
    writes not the value, but `beta` times its difference from what the key reads.
    """
    given = decay is not None, beta is not None
    if RULES.get(node["update_rule"]) != given:
        raise ValueError(
            f"{node}: decay and beta must be there as update_rule {node['update_rule']!r} needs, but got {given}"
        )
    dtype, wide, heads = q.dtype, compute_dtype(q.dtype), node["kv_num_heads"]
    scale = node["scale"] or 1 / math.sqrt(q.shape[2] // node["q_num_heads"])
    queries = _steps(q.astype(wide) * scale, heads, node["q_num_heads"] // heads, -1)
    keys, values = _steps(k.astype(wide), heads, -1, 1), _steps(v.astype(wide), heads, 1, -1)
    decays = None if decay is None else _steps(ops.exp(decay.astype(wide)), heads, -1, 1)
    betas = None if beta is None else _steps(beta.astype(wide), beta.shape[2], 1, 1)
    if past is None:
        size = q.shape[0], heads, keys[0].shape[2], values[0].shape[3]
        state = init.zeros(*size, device=q.device, dtype=wide)
    else:
        state = past.astype(wide)
    outputs = []
    for i, (query, key, value) in enumerate(zip(queries, keys, values, strict=True)):
        if decays is not None:
            state = state * decays[i]
        if betas is not None:
            value = betas[i] * (value - ops.permute(key, (0, 1, 3, 2)) @ state)
        state = state + key * value
        outputs.append(query @ state)
    y = ops.reshape(ops.stack(outputs, 1), (*q.shape[:2], -1))
    return y.astype(dtype), state.astype(dtype if past is None else past.dtype)


def _steps(x: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """x (B, T, …) as T tensors (B, *sizes)."""
    return ops.split(ops.reshape(x, (*x.shape[:2], *sizes)), 1).tuple()
