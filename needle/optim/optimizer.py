"""The base of all optimizers: which parameters a step updates, and in what order.

A step works on raw arrays, so it records no graph for parameters or state. It writes into the parameters and the state
in place and never into a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import compute_dtype, lone_types, xp
from needle.graph import check_one_device
from needle.optim.flat import Operands, State, for_each_chunk

__all__ = ["Optimizer"]


class Optimizer:
    """The base of all optimizers: `params`, `step()`, `reset_grad()`, `clip_grad_norm()`.

    `params` are tensors of floating dtype, of any shapes, on any devices. A subclass defines `_update`, the rule, and
    `state_count`, or overrides `step`. `lr` may be assigned between steps.

    A parameter with `.grad` None is skipped. A parameter that is listed twice is updated twice.

    Raises TypeError if `params` is not an iterable of tensors of floating dtype, and ValueError if it is empty or if
    `lr` or `weight_decay` is negative.
    """

    state_count = 0  # number of state arrays that the rule keeps per parameter

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, weight_decay: float = 0.0) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(f"{name}: params must be a sequence of tensors, but got {type(params).__name__}")
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{name}: params must hold at least one tensor, but got none")
        for parameter in self.params:
            check.instance(name, "each of params", parameter, Tensor)
            if parameter.dtype.kind != "f":
                raise TypeError(f"{name}: params must have floating dtypes, but got {parameter.dtype}")
        self.lr = check.number(name, "lr", lr, least=0)
        self.weight_decay = check.number(name, "weight_decay", weight_decay, least=0)
        self._state = State(self.state_count)

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises ValueError if a gradient does not have its parameter's shape, TypeError if it is on another device.
        """
        operands = self._operands()
        groups = [{i: operands[i]} for i in operands] if self._state.is_aliased(operands) else [operands]
        for group in groups:  # parameters that share memory are updated one after the other
            pools = self._state.pools_of(group)
            for_each_chunk(self._update, [pool.gather(group) for pool in pools] + self._state.unpooled(group, pools))
            for pool in pools:
                pool.scatter(group)

    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any) -> None:
        """The rule: change `theta` and `state` in place. All arrays have one shape; `scratch` may be overwritten."""
        raise NotImplementedError(f"{type(self).__name__}: the rule is not defined")

    def _operands(self) -> Operands:
        """The arrays of each parameter that has a gradient, and of its gradient; bumps the parameter's version."""
        operands: Operands = {}
        for i, parameter in enumerate(self.params):
            if parameter.grad is not None:
                array, grad = parameter.array, parameter.grad.array
                if type(array) is not type(grad) or type(array) not in lone_types:
                    check_one_device("step", (parameter, parameter.grad))
                if grad.shape != array.shape:
                    raise ValueError(
                        f"step: a gradient must have its tensor's shape {array.shape}, but got {grad.shape}"
                    )
                parameter.bump_version()
                operands[i] = array, grad
        return operands

    def reset_grad(self) -> None:
        """Set `.grad` of all parameters to None."""
        for parameter in self.params:
            parameter.grad = None

    def clip_grad_norm(self, max_norm: float = 0.25) -> Tensor:
        """Scale all gradients by min(1, max_norm / (norm + 1e-6)) and return norm, a constant tensor of shape ().

        norm is the L2 norm of all gradients taken as one vector, as in `torch.nn.utils.clip_grad_norm_`. Each `.grad`
        is replaced by a new constant of the same dtype. Squares of float16 are summed in float32.

        Raises ValueError if `max_norm` is negative or no parameter has a gradient, and TypeError if the gradients are
        on different devices.
        """
        max_norm = check.number("clip_grad_norm", "max_norm", max_norm, least=0)
        grads = [parameter.grad for parameter in self.params if parameter.grad is not None]
        if not grads:
            raise ValueError("clip_grad_norm: at least one parameter must have a gradient, but got none")
        check_one_device("clip_grad_norm", grads)
        namespace = xp(grads[0].array)
        squares = [namespace.square(grad.array.astype(compute_dtype(grad.dtype), copy=False)).sum() for grad in grads]
        norm = namespace.sqrt(sum(squares[1:], squares[0]))
        scale = namespace.minimum(max_norm / (norm + 1e-6), 1)
        for parameter in self.params:
            if parameter.grad is not None:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const((grad * scale).astype(grad.dtype, copy=False))
        return Tensor(norm, requires_grad=False)
