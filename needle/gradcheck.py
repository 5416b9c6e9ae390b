"""Check derivatives against central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from needle import check
from needle.autograd import Tensor, TensorTuple, Value
from needle.backend import HostArray

__all__ = ["gradcheck"]


def gradcheck(
    f: Callable[..., Any], *inputs: Tensor, order: int = 2, eps: float = 1e-5, rtol: float = 1e-5, atol: float = 1e-7
) -> bool:
    """Check the derivatives of `f` at float64 `inputs`, up to second order, against central differences.

    `f` maps tensors to a tensor, or to several in a tuple or list, of which integers and bools are left out. Its
    outputs are projected on a random direction v, so that one number tests the whole Jacobian: s(x) = ⟨v, f(x)⟩. For a
    random direction u, the directional derivative ⟨u, ∂s/∂x⟩ of each input must equal (s(x + eps·u) - s(x - eps·u)) /
    (2·eps) within `rtol` and `atol`, with and without a graph of the gradients, since an op may have a fused gradient
    (`Op.compute_gradient`) for the latter. With `order=2` the gradients themselves are checked in the same way. Inputs
    may have any shape; those that do not require grad stay constant. Directions come from a fixed seed and leave
    NumPy's global generator untouched.

    Returns True. Raises AssertionError with op, order, input, index and both values if they disagree, TypeError if an
    input or a result is not a tensor or a differentiable input is not float64, ValueError if no input requires grad.

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
    rng = np.random.default_rng(0)
    tolerances = eps, rtol, atol
    project = _Projection(f, rng)
    _check_order(1, project, leaves, rng, tolerances)
    _check_order(1, project, leaves, rng, tolerances, create_graph=False)
    if order > 1:
        _check_order(2, _Slope(project, leaves, rng), leaves, rng, tolerances)
    return True


class _ScalarFunction(Protocol):
    """A function from tensors to one element; `op` is what to blame for a wrong derivative."""

    op: Any

    def __call__(self, *points: Tensor) -> Tensor: ...


class _Projection:
    """x -> ⟨v, f(x)⟩, a scalar, for directions v drawn at the first call; `op` is the last op of each result of f."""

    def __init__(self, f: Callable[..., Any], rng: np.random.Generator) -> None:
        self.f, self.rng = f, rng
        self.directions: list[Tensor] = []
        self.op: Any = None

    def __call__(self, *points: Tensor) -> Tensor:
        out = self.f(*points)
        parts = [*out] if isinstance(out, (tuple, list, TensorTuple)) else [out]
        for part in parts:
            check.instance("gradcheck", "each result of f", part, Tensor)
        parts = [part for part in parts if part.dtype.kind == "f"]
        self.op = (out.op if isinstance(out, Value) else tuple(part.op for part in parts)) or self.op
        if not self.directions:
            self.directions = [_random_like(part, self.rng) for part in parts]
        terms: list[Tensor] = [(part * v).sum() for part, v in zip(parts, self.directions, strict=True)]
        return sum(terms[1:], terms[0])


class _Slope:
    """x -> ⟨u, ∂s/∂x⟩, a scalar, for a projection s and one direction u per input."""

    def __init__(self, project: _Projection, leaves: list[Tensor], rng: np.random.Generator) -> None:
        self.project, self.op = project, project.op
        self.directions = [_random_like(x, rng) for x in leaves]

    def __call__(self, *points: Tensor) -> Tensor:
        grads = _gradients(self.project, points)
        terms = [
            (grad * u).sum()
            for grad, u, x in zip(grads, self.directions, points, strict=True)
            if x.requires_grad and grad is not None
        ]
        total: Tensor = sum(terms, Tensor(0.0, device=points[0].device, requires_grad=False))
        return total


def _random_like(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A constant of the shape of x: values between 0.5 and 1.5 with random signs."""
    values = rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1.0, 1.0], x.shape)
    return Tensor(values, device=x.device, requires_grad=False)


def _gradients(
    function: _ScalarFunction, points: Sequence[Tensor], create_graph: bool = True
) -> list[Tensor | None]:
    """The gradients of a scalar function at the points that require one."""
    for x in points:
        x.grad = None
    value = function(*points)
    if value.requires_grad:
        value.backward(create_graph=create_graph)
    grads = [x.grad for x in points]
    for x in points:
        x.grad = None
    return grads


def _check_order(
    order: int,
    function: _ScalarFunction,
    leaves: list[Tensor],
    rng: np.random.Generator,
    tolerances: tuple[float, float, float],
    create_graph: bool = True,
) -> None:
    """Compare the gradient of a scalar function with differences, input by input."""
    eps, rtol, atol = tolerances
    for i, (x, gradient) in enumerate(zip(leaves, _gradients(function, leaves, create_graph), strict=True)):
        if not x.requires_grad:
            continue
        grad = np.zeros(x.shape) if gradient is None else gradient.numpy()
        u = _random_like(x, rng).numpy()
        expected = _difference(function, leaves, i, u, eps)
        if not np.isclose((grad * u).sum(), expected, rtol=rtol, atol=atol * max(1, x.size) ** 0.5):
            index, computed, expected = _worst(function, leaves, i, grad, eps)
            raise AssertionError(
                f"gradcheck: {function.op!r} has a wrong derivative of order {order} in input {i} of shape {x.shape}: "
                f"at index {index} backward gives {computed!r}, but differences give {expected!r}"
            )


def _difference(function: _ScalarFunction, leaves: list[Tensor], i: int, u: HostArray, eps: float) -> float:
    """The central difference of a scalar function along direction u in input i."""
    values = []
    for step in (eps, -eps):
        moved = Tensor(leaves[i].numpy() + step * u, device=leaves[i].device)
        values.append(float(function(*leaves[:i], moved, *leaves[i + 1 :]).item()))
    return (values[0] - values[1]) / (2 * eps)


def _worst(
    function: _ScalarFunction, leaves: list[Tensor], i: int, grad: HostArray, eps: float
) -> tuple[tuple[int, ...], float, float]:
    """The index at which a gradient is furthest from the difference, the gradient there, and the difference."""

    def rows() -> Iterator[tuple[float, tuple[int, ...], float, float]]:
        for index in np.ndindex(grad.shape):
            unit = np.zeros(grad.shape)
            unit[index] = 1
            expected = _difference(function, leaves, i, unit, eps)
            distance = np.nan_to_num(abs(grad[index] - expected), nan=np.inf)
            yield float(distance), index, float(grad[index]), expected

    _, index, computed, expected = max(rows())
    return index, computed, expected
