"""Rows of the table of ops: order, running sums and products, gather and scatter, copies, statistics, einsum.

`tests/ops/table.py` imports this file.
"""

from __future__ import annotations

import numpy as np
import torch

from needle import ops
from tests.ops.table import every_axis, few, row

# ---- order -----------------------------------------------------------------------------------------------------------

for axis, descending, draw in ((-1, False, None), (0, True, None), (1, True, few), (0, False, few)):
    options = {} if draw is None else {"draw": draw}
    setting = f"{axis} {descending} {bool(draw)}"
    row("sort", setting, lambda x, a=axis, d=descending: ops.sort(x, a, d)[0],
        lambda x, a=axis, d=descending: torch.sort(x, dim=a, descending=d, stable=True)[0], (3, 4, 2),
        **options)  # fmt: skip
    row("argsort", setting, lambda x, a=axis, d=descending: ops.argsort(x, a, d),
        lambda x, a=axis, d=descending: torch.sort(x, dim=a, descending=d, stable=True)[1], (3, 4, 2), constant=True,
        **options)  # fmt: skip
row("sort", "indices", lambda x: ops.sort(x)[1], lambda x: x.sort()[1], (3, 4), constant=True)
row("sort", "()", lambda x: ops.sort(x, 0)[0], lambda x: x.sort(0)[0], ())
row("sort", "without elements", lambda x: ops.sort(x, 1)[0], lambda x: x.sort(1)[0], (2, 0))
row("argsort", "()", lambda x: ops.argsort(x), lambda x: x.argsort(), (), constant=True)
for k, axis, largest in ((2, -1, True), (3, 0, False), (0, 1, True)):
    row("topk", (k, axis, largest), lambda x, k=k, a=axis, b=largest: ops.topk(x, k, a, b)[0],
        lambda x, k=k, a=axis, b=largest: x.topk(k, a, b)[0], (3, 4, 2))  # fmt: skip
row("topk", "indices", lambda x: ops.topk(x, 2)[1], lambda x: x.topk(2)[1], (3, 4), constant=True)
row("topk", "()", lambda x: ops.topk(x, 1)[0], lambda x: x.topk(1)[0], ())
for axis in (0, -1, None):
    for keepdims in (False, True):
        row("argmin", f"{axis} {keepdims}", lambda x, a=axis, k=keepdims: ops.argmin(x, a, k),
            lambda x, a=axis, k=keepdims: x.argmin(a, k), (3, 4, 2), draw=few, constant=True)  # fmt: skip

# ---- running sums, products ------------------------------------------------------------------------------------------

for axis, shape in ((0, (2, 3)), (-1, (2, 3, 4)), (0, ()), (1, (2, 0))):
    row("cumsum", (axis, shape), lambda x, a=axis: ops.cumsum(x, a), lambda x, a=axis: x.cumsum(a), shape)
    row("cumprod", (axis, shape), lambda x, a=axis: ops.cumprod(x, a), lambda x, a=axis: x.cumprod(a), shape)
row("cumprod", "zeros", lambda x: ops.cumprod(x, 1), lambda x: x.cumprod(1), (3, 7), draw=few)


def torch_prod(x, axes, keepdims=False):
    """torch's `prod` over several axes, one after another."""
    for axis in sorted(every_axis(axes, x.ndim), reverse=True):
        x = x.prod(axis, keepdims)
    return x


for axes, keepdims, shape in (
    (0, False, (3, 4)), (-1, True, (2, 3, 4)), ((0, 2), False, (2, 3, 4)), (None, False, (2, 3)), ((), False, (2, 3)),
    (None, True, ()), (1, False, (2, 0)),
):  # fmt: skip
    row("prod", (axes, keepdims, shape), lambda x, a=axes, k=keepdims: ops.prod(x, a, k),
        lambda x, a=axes, k=keepdims: torch_prod(x, a, k) * 1, shape)  # fmt: skip
row("prod", "zeros", lambda x: ops.prod(x + 0.5, 1), lambda x: torch.prod(x + 0.5, 1), (8, 4),
    draw=lambda draws, shape: draws.choice([-0.5, 0.5, 1.0], shape))  # fmt: skip

# ---- gather and scatter ----------------------------------------------------------------------------------------------

PLACES = np.array([[1, 0, 0], [2, 2, 3]])
SMALL = np.array([[1, 2]], "int32")
APART = np.array([[1, 0, 3], [2, 2, 0]])
LIST = np.array([1, 1, 0])
MASK = np.array([[True, False, True]])

for axis, index, shape in ((0, PLACES, (4, 3)), (-1, PLACES, (2, 4)), (1, SMALL, (3, 3)), (0, np.array(0), ())):
    row("gather", (axis, index.shape, shape), lambda x, i, a=axis: ops.gather(x, a, i),
        lambda x, i, a=axis: x.gather(a, i.long()), shape, index)  # fmt: skip
    row("scatter_add", (axis, index.shape, shape), lambda x, i, s, a=axis: ops.scatter_add(x, a, i, s),
        lambda x, i, s, a=axis: x.scatter_add(a, i.long(), s), shape, index, index.shape)  # fmt: skip
for axis, index, shape in ((0, APART, (4, 3)), (1, SMALL, (3, 3)), (0, np.array(0), ())):
    row("scatter", (axis, index.shape, shape), lambda x, i, s, a=axis: ops.scatter(x, a, i, s),
        lambda x, i, s, a=axis: x.scatter(a, i.long(), s), shape, index, index.shape)  # fmt: skip
row("scatter", "number", lambda x, i: ops.scatter(x, 0, i, 2), lambda x, i: x.scatter(0, i, 2.0), (4, 3), PLACES)
row("scatter", "larger source", lambda x, i, s: ops.scatter(x, 0, i, s),
    lambda x, i, s: x.scatter(0, i, s[:2, :3]), (4, 3), APART, (5, 4))  # fmt: skip
row("scatter_add", "number", lambda x, i: ops.scatter_add(x, 0, i, 2),
    lambda x, i: x.scatter_add(0, i, torch.full(i.shape, 2, dtype=x.dtype)), (4, 3), PLACES)  # fmt: skip
for axis, shape in ((0, (2, 3)), (-1, (4, 2))):
    row("index_select", (axis, shape), lambda x, i, a=axis: ops.index_select(x, a, i),
        lambda x, i, a=axis: x.index_select(a, i), shape, LIST)  # fmt: skip
row("index_select", "()", lambda x, i: ops.index_select(x, 0, i), lambda x, i: x.index_select(0, i), (), np.array([0]))
row("take", "", ops.take, torch.take, (2, 3), np.array([[5, 0], [-1, 5]]))
row("masked_fill", "number", lambda x, m: ops.masked_fill(x, m, 2), lambda x, m: x.masked_fill(m, 2), (2, 3), MASK)
row("masked_fill", "tensor", ops.masked_fill, lambda x, m, v: torch.where(m, v, x), (3,), MASK, ())

# ---- triangles and copies --------------------------------------------------------------------------------------------

for op in ("tril", "triu"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    for diagonal, shape in ((0, (3, 4)), (1, (2, 4, 3)), (-1, (3, 0))):
        row(op, (diagonal, shape), lambda x, f=function, k=diagonal: f(x, k), lambda x, f=oracle, k=diagonal: f(x, k),
            shape)  # fmt: skip
for reps, shape in (((2,), (2, 3)), ((2, 1, 3), (2, 3)), ((0, 2), (2, 3)), ((), (2,)), ((2, 2), ())):
    row("tile", (reps, shape), lambda x, r=reps: ops.tile(x, r), lambda x, r=reps: x.tile(r) * 1, shape)
row("tile", "arguments", lambda x: x.tile(2, 3), lambda x: x.tile(2, 3), (2,))
row("repeat", "arguments", lambda x: x.repeat(2, 3), lambda x: x.repeat(2, 3), (2,))
row("repeat", "a tuple", lambda x: x.repeat((3, 1)), lambda x: x.repeat((3, 1)), (2, 2))
for repeats, axis in ((2, None), (3, 0), (0, 1), ([2, 0, 1], 1), (np.array([1, 2]), 0)):
    row("repeat_interleave", (repeats, axis), lambda x, r=repeats, a=axis: ops.repeat_interleave(x, r, a),
        lambda x, r=repeats, a=axis: x.repeat_interleave(torch.tensor(r), a), (2, 3))  # fmt: skip

# ---- statistics ------------------------------------------------------------------------------------------------------

for op in ("var", "std"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    for axes, keepdims, correction in ((None, False, 1), (1, True, 0), ((0, -1), False, 2), (2, False, 0.5)):
        row(op, (axes, keepdims, correction),
            lambda x, f=function, a=axes, k=keepdims, c=correction: f(x, a, keepdims=k, correction=c),
            lambda x, f=oracle, a=axes, k=keepdims, c=correction: f(x, every_axis(a, x.ndim), correction=c, keepdim=k),
            (3, 4, 2))  # fmt: skip
    row(op, "biased", lambda x, f=function: f(x, unbiased=False), lambda x, f=oracle: f(x, correction=0), (2, 5))
    row(op, "result without elements", lambda x, f=function: f(x, 1), lambda x: x.sum(1), (0, 3))
row("var", "constant", lambda x: ops.var(x * 0 + 3), lambda x: torch.var(x * 0 + 3), (4,))
row("std", "constant", lambda x: ops.std(x * 0 + 3), lambda x: torch.std(x * 0 + 3), (4,), order=1)
for p in (2, 1, 3, -1, np.inf, -np.inf):
    row("norm", p, lambda x, p=p: ops.norm(x, p), lambda x, p=p: x.norm(p), (2, 3))
for axes, keepdims in ((0, True), ((0, 2), False)):
    row("norm", (axes, keepdims), lambda x, a=axes, k=keepdims: ops.norm(x, 3, a, k),
        lambda x, a=axes, k=keepdims: torch.linalg.vector_norm(x, 3, a, k), (2, 3, 2))  # fmt: skip
for p in (1, 1.5, 2, np.inf):
    row("norm", f"{p}, zeros", lambda x, p=p: ops.norm(x, p, 1), lambda x, p=p: x.norm(p, 1), (8, 2), draw=few, order=1)
row("norm", "2, zeros to order 2", lambda x: ops.norm(x, 2, 1), lambda x: x.norm(2, 1), (5, 3),
    draw=lambda draws, shape: few(draws, shape) + np.array([0.0, 0, 5]))  # fmt: skip
row("norm", "0", lambda x: ops.norm(x, 0, 1), lambda x: x.norm(0, 1), (5, 3), draw=few, constant=True)
row("norm", "()", ops.norm, torch.norm, ())
row("norm", "without elements", lambda x: ops.norm(x, 2, 1), lambda x: torch.linalg.vector_norm(x, 2, 1), (2, 0))

# ---- einsum ----------------------------------------------------------------------------------------------------------

for equation, *shapes in (
    ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("ii", (3, 3)),
    ("iji->j", (3, 2, 3)), ("...ij->...ji", (4, 2, 3)), ("i...->...", (2, 3)), ("...", (2, 3)),
    ("ij,jk->ik", (2, 3), (3, 4)), ("bij,bjk->bik", (2, 2, 3), (2, 3, 4)),
    ("i,i->", (3,), (3,)), ("ij,kj->ikj", (2, 3), (4, 3)),
    ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)),
    ("ij,jk,kl->il", (2, 3), (3, 2), (2, 4)), ("i,ij,j", (2,), (2, 3), (3,)), ("ij,ij->ij", (2, 1), (2, 3)),
    ("ij,j->i", (2, 3), (1,)), ("ij,->ij", (2, 3), ()), ("ii,ij->j", (3, 3), (3, 2)), ("Ab,bA", (2, 3), (3, 2)),
    ("ij,jk->ik", (2, 0), (0, 3)), ("ijk,ilm,njm,nlk,abc->", *[(2, 2, 2)] * 5),
):  # fmt: skip
    row("einsum", (equation, *shapes), lambda *x, e=equation: ops.einsum(e, *x),
        lambda *x, e=equation: torch.einsum(e, *x) * 1, *shapes)  # fmt: skip
