"""Dropout."""

from __future__ import annotations

from needle import check, init


def dropout(x, p=0.5, training=True):
    """Each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself.

    Draws one `np.random.rand(*x.shape)` and keeps where it is at most 1 - p.
    """
    p = check.number("dropout", "p", p, least=0, most=1)
    if not training or p == 0:
        return x
    keep = init.randb(*x.shape, p=1 - p, device=x.device, dtype=x.dtype)
    return x * keep / (1 - p) if p < 1 else x * 0
