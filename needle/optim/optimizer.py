"""The base of all optimizers: which parameters a step updates, and in what order.

A step works on raw arrays, so it records no graph for parameters or state. It writes into the parameters and the state
in place and never into a gradient.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from needle import check, kernels
from needle.autograd import Tensor
from needle.backend import compute_dtype, lone_types, xp
from needle.graph import check_one_device
from needle.optim.flat import Operands, State, for_each_chunk

__all__ = ["Optimizer"]


def finite(op: str, name: str, value: Any, **bounds: float) -> float:
    """A finite number of at least 0, within the bounds of `check.number`."""
    number = check.number(op, name, value, least=0, **bounds)
    if math.isinf(number):
        raise ValueError(f"{op}: {name} must be finite, but got {value}")
    return number


class Optimizer:
    """The base of all optimizers: `params`, `step()`, `zero_grad()`, `reset_grad()`, `clip_grad_norm()`.

    `params` are different tensors of floating dtype, of any shapes, on any devices. A subclass defines `_update`, the
    rule, and `state_count`, or overrides `step`. `params` and all options may be assigned between steps; each takes
    effect with the next step and is checked as in the constructor.

    A parameter with `.grad` None is skipped. State belongs to a parameter: one that is skipped, or added later, finds
    its own.

    Raises TypeError if `params` is not an iterable of tensors of floating dtype, and ValueError if it is empty, names a
    tensor twice or holds a result of ops, or if `lr` or `weight_decay` is negative or not finite.
    """

    state_count = 0  # number of state arrays that the rule keeps per parameter
    options: ClassVar[dict[str, Callable[..., Any]]] = {"lr": finite, "weight_decay": finite}  # name -> its check
    lr: float
    weight_decay: float

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, weight_decay: float = 0.0) -> None:
        self.params = params
        self.lr, self.weight_decay = lr, weight_decay
        self._state = State(self.state_count)
        self._steps = 0  # number of updates, with this one, of the parameters that `_update` is called for

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.options:
            value = self.options[name](type(self).__name__, name, value)
            self._check_together(vars(self) | {name: value})
        super().__setattr__(name, value)

    def _check_together(self, options: dict[str, Any]) -> None:
        """Refuse options that contradict each other; in the constructor some are not set yet."""

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in the order in which they were given."""
        return self._params

    @params.setter
    def params(self, params: Iterable[Tensor]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(f"{name}: params must be a sequence of tensors, but got {type(params).__name__}")
        params = list(params)
        if not params:
            raise ValueError(f"{name}: params must hold at least one tensor, but got none")
        for parameter in params:
            check.instance(name, "each of params", parameter, Tensor)
            if parameter.dtype.kind != "f":
                raise TypeError(f"{name}: params must have floating dtypes, but got {parameter.dtype}")
            if not parameter.is_leaf():  # it has no `.grad`: backward passes through it
                raise ValueError(f"{name}: params must be leaves, but got the result of {parameter.op!r}")
        twice = [parameter.shape for parameter, count in Counter(params).items() if count > 1]
        if twice:
            raise ValueError(f"{name}: params must differ, but got one of shape {twice[0]} twice")
        self._params = params

    def step(self) -> None:
        """Update every parameter that has a gradient.

        Raises, before anything is changed, ValueError if a gradient does not have its parameter's shape or a parameter
        is read-only, TypeError if a gradient is on another device.
        """
        operands = self._operands()
        is_aliased = self._state.is_aliased(operands)
        for parameter in operands:
            parameter.bump_version()
        for cohort in self._state.advance(operands):
            self._steps, part = cohort.steps, cohort.part(operands)
            if is_aliased:  # parameters that share memory are updated one after the other
                for parameter, pair in part.items():
                    for_each_chunk(self._update, self._state.unpooled({parameter: pair}, []))
                continue
            pools = self._state.pools_of(cohort, part)
            for_each_chunk(self._update, [pool.gather(part) for pool in pools] + self._state.unpooled(part, pools))
            for pool in pools:
                pool.scatter(part)

    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any) -> None:
        """The rule: change `theta` and `state` in place. All arrays have one shape; `scratch` may be overwritten."""
        raise NotImplementedError(f"{type(self).__name__}: the rule is not defined")

    def _operands(self) -> Operands:
        """The arrays of each parameter that has a gradient, and of its gradient."""
        operands: Operands = {}
        for parameter in self.params:
            if parameter.grad is not None:
                array, grad = parameter.array, parameter.grad.array
                if type(array) is not type(grad) or type(array) not in lone_types:
                    check_one_device("step", (parameter, parameter.grad))
                if grad.shape != array.shape:
                    raise ValueError(
                        f"step: a gradient must have its tensor's shape {array.shape}, but got {grad.shape}"
                    )
                operands[parameter] = array, grad
        return operands

    def reset_grad(self) -> None:
        """Set `.grad` of all parameters to None."""
        self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """`reset_grad` by torch's name; with `set_to_none=False`, gradients become zeros."""
        for parameter in self.params:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const(xp(grad).zeros_like(grad))

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
        arrays = (grad.array.astype(compute_dtype(grad.dtype), copy=False) for grad in grads)
        squares = [kernels.sums(a * a, tuple(range(a.ndim))).reshape(()) for a in arrays]
        norm = namespace.sqrt(sum(squares[1:], squares[0]))
        scale = namespace.minimum(max_norm / (norm + 1e-6), 1)
        for parameter in self.params:
            if parameter.grad is not None:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const((grad * scale).astype(grad.dtype, copy=False))
        return Tensor(norm, requires_grad=False)
