"""Derivatives held against differences of the function itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from needle.autograd import Tensor, TensorTuple


def gradcheck(
    f: Callable[..., Any], *inputs: Tensor, order: int = 2, eps: float = 1e-5, rtol: float = 1e-5, atol: float = 1e-7
) -> bool:
    """Check the derivatives of `f` at float64 `inputs`, up to second order, against central differences.

    `f` maps tensors to a tensor or a TensorTuple. Its outputs are projected on random directions (drawn by a generator
    of its own), so that one number holds the whole Jacobian: s(x) = ⟨v, f(x)⟩. The directional derivative ⟨u, ∂s/∂x⟩
    of each input must equal (s(x + eps·u) - s(x - eps·u)) / (2·eps) to `rtol`, `atol`; for the second order the same is
    asked of the gradients themselves. Inputs that do not require grad stay constant.

    Returns True. Raises AssertionError that names op, order, input, index and both values where they disagree, and
    TypeError where an input is not a float64 tensor.

    >>> import needle as ndl
    >>> gradcheck(lambda x, y: x * ndl.exp(y), ndl.Tensor([0.5, 2.0]), ndl.Tensor([1.0, -1.0]))
    True
    """
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"gradcheck: inputs must be tensors, but input {i} is {type(x).__name__}")
        if x.requires_grad and x.dtype != "float64":
            raise TypeError(f"gradcheck: inputs must be of float64, but input {i} is of {x.dtype}")
    if not any(x.requires_grad for x in inputs):
        raise ValueError("gradcheck: at least one input must require grad, but none does")
    leaves = [Tensor(x, requires_grad=x.requires_grad) for x in inputs]
    draws = np.random.default_rng(0)
    project = _Projection(f, draws)
    _check_order(1, project, leaves, draws, (eps, rtol, atol))
    if order > 1:
        directions = [_random_like(x, draws) for x in leaves]

        def slope(*points: Tensor) -> Tensor:
            grads = _gradients(project, points)
            terms = [
                (grad * u).sum()
                for grad, u, x in zip(grads, directions, points, strict=True)
                if x.requires_grad and grad is not None
            ]
            total: Tensor = sum(terms, Tensor(0.0, device=points[0].device, requires_grad=False))
            return total

        slope.op = project.op  # type: ignore[attr-defined]
        _check_order(2, slope, leaves, draws, (eps, rtol, atol))
    return True


class _Projection:
    """The function ⟨v, f(x)⟩ for directions v that are drawn once; `op` is the last op of f."""

    def __init__(self, f: Callable[..., Any], draws: np.random.Generator) -> None:
        self.f, self.draws = f, draws
        self.directions: list[Tensor] = []
        self.op: Any = None

    def __call__(self, *points: Tensor) -> Tensor:
        out = self.f(*points)
        parts = out.tuple() if isinstance(out, TensorTuple) else (out,)
        self.op = out.op or self.op
        if not self.directions:
            self.directions = [_random_like(part, self.draws) for part in parts]
        terms: list[Tensor] = [(part * v).sum() for part, v in zip(parts, self.directions, strict=True)]
        return sum(terms[1:], terms[0])


def _random_like(x: Tensor, draws: np.random.Generator) -> Tensor:
    """Draws of the shape of x, between 0.5 and 1.5 in size and of either sign."""
    values = draws.uniform(0.5, 1.5, x.shape) * draws.choice([-1.0, 1.0], x.shape)
    return Tensor(values, device=x.device, requires_grad=False)


def _gradients(function: Callable[..., Tensor], points: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor | None]:
    """The gradient of a scalar function in each point that requires one, with a graph."""
    for x in points:
        x.grad = None
    value = function(*points)
    if value.requires_grad:
        value.backward()
    grads = [x.grad for x in points]
    for x in points:
        x.grad = None
    return grads


def _check_order(
    order: int, function: Any, leaves: list[Tensor], draws: np.random.Generator, settings: tuple[float, float, float]
) -> None:
    """Compare the gradient of a scalar function with its differences, input by input."""
    eps, rtol, atol = settings
    grads = _gradients(function, leaves)
    for i, x in enumerate(leaves):
        if not x.requires_grad:
            continue
        grad = np.zeros(x.shape) if grads[i] is None else grads[i].numpy()  # type: ignore[union-attr]
        u = _random_like(x, draws).numpy()
        expected = _difference(function, leaves, i, u, eps)
        if not np.isclose((grad * u).sum(), expected, rtol=rtol, atol=atol * max(1, x.size) ** 0.5):
            index, found, wanted = _worst(function, leaves, i, grad, eps)
            raise AssertionError(
                f"gradcheck: {function.op!r} has a wrong derivative of order {order} in input {i} of shape {x.shape}: "
                f"at index {index} backward gives {found!r}, but differences give {wanted!r}"
            )


def _difference(function: Any, leaves: list[Tensor], i: int, u: Any, eps: float) -> float:
    """The central difference of a scalar function along u in input i."""
    values = []
    for step in (eps, -eps):
        moved = Tensor(leaves[i].numpy() + step * u, device=leaves[i].device)
        values.append(float(function(*leaves[:i], moved, *leaves[i + 1 :]).item()))
    return (values[0] - values[1]) / (2 * eps)


def _worst(function: Any, leaves: list[Tensor], i: int, grad: Any, eps: float) -> tuple[tuple[int, ...], float, float]:
    """The index at which a gradient is furthest from the difference, with both values."""

    def rows() -> Iterator[tuple[float, tuple[int, ...], float, float]]:
        for index in np.ndindex(grad.shape):
            unit = np.zeros(grad.shape)
            unit[index] = 1
            wanted = _difference(function, leaves, i, unit, eps)
            distance = np.nan_to_num(abs(grad[index] - wanted), nan=np.inf)
            yield float(distance), index, float(grad[index]), wanted

    _, index, found, wanted = max(rows())
    return index, found, wanted
