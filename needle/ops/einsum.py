"""Einstein summation: sums of products of elements whose axes share letters."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.kernels import Size
from needle.ops.arithmetic import MULTIPLY
from needle.ops.dtypes import promoted
from needle.ops.index import GetItem
from needle.ops.linalg import MatMul
from needle.ops.operand import tensor
from needle.ops.reduce import Summation
from needle.ops.shape import Permute, Reshape

__all__ = ["einsum"]

Labels = tuple[str, ...]  # a letter for each axis; the axes of an ellipsis are numbered from the last, "1", "2", …


class Term(NamedTuple):
    """A tensor with a label for each of its axes, all different."""

    x: Tensor
    labels: Labels

    def arranged(self, *groups: Labels, sizes: Sequence[int]) -> Tensor:
        """The axes in the order of `groups`, in the shape `sizes`."""
        order = tuple(self.labels.index(label) for group in groups for label in group)
        x = self.x if order == tuple(range(self.x.ndim)) else Permute(order)(self.x)
        return x if x.shape == tuple(sizes) else Reshape(sizes)(x)

    def summed(self, kept: Collection[str]) -> Term:
        """The sum over all axes that are not in `kept`."""
        axes = tuple(i for i, label in enumerate(self.labels) if label not in kept)
        return Term(Summation(axes)(self.x), tuple(filter(kept.__contains__, self.labels))) if axes else self

    def size(self, labels: Labels) -> Size:
        """The sizes of some of the axes."""
        return tuple(self.x.shape[self.labels.index(label)] for label in labels)


def einsum(equation: str, *operands: TensorLike) -> Tensor:
    """The sum of products that an equation tells, as torch's: `einsum("bij,bjk->bik", a, b)` multiplies matrices.

    Left of the arrow, each operand has a letter for each axis; axes of one letter run together. A letter twice in one
    operand takes the diagonal. Axes whose letter is missing at the right are summed. "..." stands for all axes that are
    not named; they broadcast, and so do axes of size 1. Without an arrow the result has the axes of the ellipsis, then
    the letters that occur once, in alphabetical order.

    Operands are contracted from left to right by `matmul`. Dtypes as in `add`.

    >>> einsum("ij,j->i", [[1, 2], [3, 4]], [1, 1])
    Tensor([3 7])

    Raises `ValueError` for an equation that is malformed or does not fit the operands, `TypeError` as `add`.
    """
    check.instance("einsum", "equation", equation, str)
    tensors = tuple(tensor("einsum", x) for x in operands)
    inputs, output = _parsed(equation, tensors)
    tensors = promoted("einsum", *tensors)
    sizes = _sizes(equation, tensors, inputs)
    terms = [_unique(x, labels, sizes) for x, labels in zip(tensors, inputs, strict=True)]
    result, *others = terms
    while others:
        other, *others = others
        result = _contracted(result, other, {*output, *(label for term in others for label in term.labels)})
    result = result.summed(output)
    return result.arranged(output, sizes=result.size(output))


def _contracted(a: Term, b: Term, needed: Collection[str]) -> Term:
    """The product of two terms, summed over the labels that are not needed later."""
    a, b = a.summed({*needed, *b.labels}), b.summed({*needed, *a.labels})
    both = tuple(label for label in a.labels if label in b.labels)
    batch = tuple(label for label in both if label in needed)
    inner = tuple(label for label in both if label not in needed)
    left = tuple(label for label in a.labels if label not in both)
    right = tuple(label for label in b.labels if label not in both)
    sizes = (*a.size(batch), *a.size(left), *b.size(right))
    if inner:
        rows = a.arranged(batch, left, inner, sizes=(*a.size(batch), _count(a, left), _count(a, inner)))
        columns = b.arranged(batch, inner, right, sizes=(*a.size(batch), _count(b, inner), _count(b, right)))
        product = MatMul()(rows, columns)
    else:
        lone = (1,) * len(right), (1,) * len(left)
        product = MULTIPLY(
            a.arranged(batch, left, sizes=(*a.size(batch), *a.size(left), *lone[0])),
            b.arranged(batch, right, sizes=(*b.size(batch), *lone[1], *b.size(right))),
        )
    return Term(product if product.shape == sizes else Reshape(sizes)(product), batch + left + right)


def _count(term: Term, labels: Labels) -> int:
    return math.prod(term.size(labels))


def _unique(x: Tensor, labels: Labels, sizes: dict[str, int]) -> Term:
    """x without the axes of size 1 that broadcast, and with the diagonal of those that share a label."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            others = tuple(i for i in range(x.ndim) if i not in (first, second))
            n = x.shape[first]
            x = Permute((*others, first, second))(x)
            x = GetItem((..., slice(None, None, n + 1)))(Reshape((*x.shape[:-2], n * n))(x))
            labels = (*(labels[i] for i in others), label)
    stays = [n == sizes[label] for n, label in zip(x.shape, labels, strict=True)]
    if all(stays):
        return Term(x, labels)
    kept = [(n, label) for n, label, stay in zip(x.shape, labels, stays, strict=True) if stay]
    return Term(Reshape([n for n, _ in kept])(x), tuple(label for _, label in kept))


# ---- the equation ----------------------------------------------------------------------------------------------------


def _parsed(equation: str, tensors: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """The labels of each operand, and of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ValueError(
            f"einsum: equation must have a term for each of the {len(tensors)} operands, but got {equation!r}"
        )
    inputs = [_labels(equation, term, x.ndim) for term, x in zip(terms, tensors, strict=True)]
    rank = max(len(term) - len(_letters(equation, text)) for term, text in zip(inputs, terms, strict=True))
    hidden = tuple(str(i) for i in range(rank, 0, -1))
    if arrow:
        output = _labels(equation, right, rank * ("..." in right) + len(_letters(equation, right)))
    else:
        letters = [label for term in inputs for label in term if label not in hidden]
        output = hidden + tuple(sorted(letter for letter in letters if letters.count(letter) == 1))
    unknown = {*output} - {label for term in inputs for label in term}
    if unknown or len({*output}) < len(output):
        raise ValueError(f"einsum: the result must have letters of the operands, each once, but got {equation!r}")
    return inputs, output


def _letters(equation: str, term: str) -> str:
    """The letters of a term."""
    letters = term.replace("...", "", 1)
    if not all(letter.isascii() and letter.isalpha() for letter in letters):
        raise ValueError(f"einsum: terms must be of letters and at most one ellipsis, but got {equation!r}")
    return letters


def _labels(equation: str, term: str, ndim: int) -> Labels:
    """The labels of a term for an operand of `ndim` axes; the ellipsis stands for those without a letter."""
    letters = _letters(equation, term)
    hidden = ndim - len(letters)
    if hidden < 0 or (hidden and "..." not in term):
        raise ValueError(f"einsum: a term must have a letter for each axis, but got {term!r} for {ndim} axes")
    before, _, after = term.partition("...")
    return (*before, *(str(i) for i in range(hidden, 0, -1)), *after)


def _sizes(equation: str, tensors: Sequence[Tensor], inputs: Sequence[Labels]) -> dict[str, int]:
    """The size of each label; axes of size 1 broadcast, but not within one operand."""
    sizes: dict[str, int] = {}
    for x, labels in zip(tensors, inputs, strict=True):
        own: dict[str, int] = {}
        for label, n in zip(labels, x.shape, strict=True):
            others = {own.setdefault(label, n), sizes.setdefault(label, n)} - {n}
            if others and (own[label] != n or 1 not in (n, sizes[label])):
                values = f"got {others.pop()} and {n} in {equation!r}"
                raise ValueError(f"einsum: axes of one letter must agree in size, but {values}")
            sizes[label] = max(n, sizes[label]) if 0 not in (n, sizes[label]) else 0
    return sizes
