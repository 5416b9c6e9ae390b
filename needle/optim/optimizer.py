"""Optimizers: each step updates parameters and its own buffers in place, by stretches with a scratch buffer each.

Steps compute on raw arrays, so they leave no graph on parameters or state, and they never write into a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import device_of, xp
from needle.backend_ndarray import Buffer
from needle.graph import check_one_device

SMALL = 1 << 14  # elements of a parameter below which calls take longer than arithmetic: such are updated together
FEW = 4  # parameters that are better updated one by one
STRETCH = 1 << 18  # elements of an array that are updated at a time: all that the rule reads stays in cache
SHARED_STEP = 1 << 17  # elements of all parameters from which on threads share a step; handing over less takes longer

Arrays = tuple[Any, ...]  # of one parameter: its array, its gradient, its buffers


class _Pool:
    """The state of small parameters of one dtype on one device in flat arrays, so that their rule runs once for all.

    A step of Adam takes 2.5 µs for each of 40 parameters then, and 9 where each is updated by itself.
    """

    def __init__(self, arrays: dict[int, Any], buffer_count: int) -> None:
        first, sizes = next(iter(arrays.values())), [array.size for array in arrays.values()]
        self.flat = tuple(xp(first).zeros(sum(sizes), first.dtype) for _ in range(2 + buffer_count))
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.parts = {
            i: [flat[start : start + array.size].reshape(array.shape) for flat in self.flat]
            for start, (i, array) in zip(starts, arrays.items(), strict=True)
        }

    def gather(self, ready: dict[int, Arrays]) -> Arrays:
        """The flat arrays, with what the parameters and their gradients are now."""
        for flat, each in zip(self.flat, zip(*(ready[i] for i in self.parts), strict=True), strict=False):
            xp(flat).concatenate([array.reshape(-1) for array in each], out=flat)
        return self.flat

    def scatter(self, ready: dict[int, Arrays]) -> None:
        """Write the flat array of parameters into each of them."""
        for i, (part, *_) in self.parts.items():
            ready[i][0][...] = part


class Optimizer:
    """The base of all: `params`, `step()`, `reset_grad()`; parameters whose `.grad` is None are skipped."""

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
        self._buffers: list[Arrays | None] = [None] * len(self.params)
        self._pools: list[_Pool] | None = None

    buffer_count = 0  # of the arrays that the rule keeps for each parameter

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        ready: dict[int, Arrays] = {}
        for i, parameter in enumerate(self.params):
            if parameter.grad is not None:
                array, grad = parameter.array, parameter.grad.array
                if type(array) is not type(grad):
                    check_one_device("step", (parameter, parameter.grad))
                if grad.shape != array.shape:
                    raise ValueError(
                        f"step: a gradient must have its tensor's shape {array.shape}, but got {grad.shape}"
                    )
                parameter.bump_version()
                ready[i] = array, grad
        if _share_memory([array for array, _ in ready.values()]):  # each in its turn
            self._pools = self._pools or []
            for i, arrays in ready.items():
                self._run([(*arrays, *self._state(i, arrays[0]))])
            return
        pools = self._pools_of(ready)
        pooled = {i for pool in pools for i in pool.parts}
        updates = [pool.gather(ready) for pool in pools]
        updates += [(*arrays, *self._state(i, arrays[0])) for i, arrays in ready.items() if i not in pooled]
        self._run(updates)
        for pool in pools:
            pool.scatter(ready)

    def _pools_of(self, ready: dict[int, Arrays]) -> list[_Pool]:
        """The pools, made in the first step, of which all parameters are ready where they were then."""
        if self._pools is None:
            kinds: dict[Any, dict[int, Any]] = {}
            for i, (array, _) in ready.items():
                if array.size < SMALL:
                    kinds.setdefault((type(array), array.dtype), {})[i] = array
            self._pools = [_Pool(arrays, self.buffer_count) for arrays in kinds.values() if len(arrays) > FEW]
            for pool in self._pools:
                for i, parts in pool.parts.items():
                    self._buffers[i] = tuple(parts[2:])
        return [
            pool
            for pool in self._pools
            if pool.parts.keys() <= ready.keys() and all(type(ready[i][0]) is type(pool.flat[0]) for i in pool.parts)
        ]

    def _state(self, i: int, array: Any) -> Arrays:
        """The buffers of a parameter, on its device."""
        buffers = self._buffers[i]
        if buffers is None:
            buffers = self._buffers[i] = tuple(xp(array).zeros_like(array) for _ in range(self.buffer_count))
        elif buffers and type(buffers[0]) is not type(array):  # the parameter has moved to another device
            buffers = self._buffers[i] = tuple(map(device_of(array).array, buffers))
            self._pools = [pool for pool in self._pools or [] if i not in pool.parts]
        return buffers

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pools": []}  # in a copy the buffers would be no parts of flat arrays any more

    def _run(self, updates: list[Arrays]) -> None:
        """Update the arrays of several parameters, by stretches that threads share where there is much to do."""
        if sum(arrays[0].size for arrays in updates) < SHARED_STEP:
            for arrays in updates:
                self._update_with_scratch(arrays)
            return
        stretches: dict[Any, list[Arrays]] = {}
        for arrays in updates:
            device = device_of(arrays[0])
            stretches.setdefault(device, []).extend(_cut(arrays, STRETCH * device.chunk_scale))
        for device, found in stretches.items():
            device.parallel_for(self._update_with_scratch, found)

    def _update_with_scratch(self, arrays: Arrays) -> None:
        self._update(*arrays, xp(arrays[0]).empty_like(arrays[0]))

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        """Change `array` in place by the rule; the last of `buffers` is scratch."""
        raise NotImplementedError(f"{type(self).__name__}: the rule is not defined")

    def reset_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.params:
            parameter.grad = None

    def clip_grad_norm(self, max_norm: float = 0.25) -> Tensor:
        """Scale all gradients by min(1, max_norm / (norm + 1e-6)), where norm is the L2 norm of all together: ()."""
        max_norm = check.number("clip_grad_norm", "max_norm", max_norm, least=0)
        grads = [parameter.grad for parameter in self.params if parameter.grad is not None]
        if not grads:
            raise ValueError("clip_grad_norm: at least one parameter must have a gradient, but got none")
        check_one_device("clip_grad_norm", grads)
        namespace = xp(grads[0].array)
        squares = [namespace.square(_widened(grad.array)).sum() for grad in grads]
        norm = namespace.sqrt(sum(squares[1:], squares[0]))
        scale = namespace.minimum(max_norm / (norm + 1e-6), 1)
        for parameter in self.params:
            if parameter.grad is not None:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const((grad * scale).astype(grad.dtype, copy=False))
        return Tensor(norm, requires_grad=False)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    g = grad + weight_decay·θ;  u = momentum·u + (1 - dampening)·g, u = 0 at first;  θ -= lr·u, and with `nesterov`
    θ -= lr·(g + momentum·u). By default `dampening` is `momentum`, so that u is a running mean of gradients;
    `dampening=0` is torch's default rule.
    """

    buffer_count = 1

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        dampening: float | None = None,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = check.number("SGD", "momentum", momentum, least=0)
        self.dampening = check.number("SGD", "dampening", momentum if dampening is None else dampening, least=0)
        self.nesterov = nesterov
        if nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening=0, but got {momentum} and {self.dampening}"
            )

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        velocity, scratch = buffers
        multiply, add = xp(array).multiply, xp(array).add
        if self.weight_decay:
            multiply(array, self.weight_decay, scratch)
            grad = add(scratch, grad, scratch)
        if self.momentum:
            velocity *= self.momentum
            velocity += multiply(grad, 1 - self.dampening, scratch) if self.dampening else grad
        else:
            multiply(grad, 1 - self.dampening, velocity)
        if self.nesterov:
            array -= multiply(grad, self.lr, scratch)
            array -= multiply(velocity, self.lr * self.momentum, scratch)
        else:
            array -= multiply(velocity, self.lr, scratch)


class Adam(Optimizer):
    """Adam with L2 weight decay: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    g = grad + weight_decay·θ;  m = β1·m + (1 - β1)·g;  v = β2·v + (1 - β2)·g²;
    θ -= lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps), where t counts the steps from 1.
    """

    buffer_count = 2

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        name = type(self).__name__
        self.beta1 = check.number(name, "beta1", beta1, least=0, below=1)
        self.beta2 = check.number(name, "beta2", beta2, least=0, below=1)
        self.eps = check.number(name, "eps", eps, least=0)
        self.t = 0

    def step(self) -> None:
        """Update every parameter that has a gradient, and count the step."""
        self.t += 1
        super().step()

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        first, second, scratch = buffers
        multiply = xp(array).multiply
        grad = self._decay(array, grad, scratch)
        first *= self.beta1 / (1 - self.beta1)
        first += grad
        first *= 1 - self.beta1
        second *= self.beta2
        multiply(grad, grad, scratch)
        scratch *= 1 - self.beta2
        second += scratch
        xp(array).sqrt(second, scratch)
        correction = math.sqrt(1 - self.beta2**self.t)
        scratch += self.eps * correction
        xp(array).divide(first, scratch, scratch)
        scratch *= self.lr * correction / (1 - self.beta1**self.t)
        array -= scratch

    def _decay(self, array: Any, grad: Any, scratch: Any) -> Any:
        """The gradient with weight decay, in `scratch` where there is any."""
        if not self.weight_decay:
            return grad
        xp(array).multiply(array, self.weight_decay, scratch)
        return xp(array).add(scratch, grad, scratch)


class AdamW(Adam):
    """Adam with decoupled weight decay: θ -= lr·weight_decay·θ before Adam's own step, with g = grad.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, beta1, beta2, eps, weight_decay)

    def _decay(self, array: Any, grad: Any, scratch: Any) -> Any:
        array *= 1 - self.lr * self.weight_decay
        return grad


def _cut(arrays: Arrays, size: int) -> list[Arrays]:
    """Arrays of one shape cut into stretches of about `size` elements each."""
    if arrays[0].size <= size:
        return [arrays]
    if all(array.flags.c_contiguous for array in arrays):
        arrays = tuple(array.reshape(-1) for array in arrays)
    length = arrays[0].shape[0]
    rows = max(1, size * length // arrays[0].size)
    return [tuple(array[start : start + rows] for array in arrays) for start in range(0, length, rows)]


def _widened(array: Any) -> Any:
    """The array in a dtype that holds the squares of its values: float32 for float16."""
    return array.astype("float32") if array.dtype == "float16" else array


def _share_memory(arrays: list[Any]) -> bool:
    """Whether two arrays are one, or may be: views of one array."""
    views = any(getattr(array, "base", None) is not None for array in arrays)
    return len({Buffer(array).ptr() if views else id(array) for array in arrays}) < len(arrays)
