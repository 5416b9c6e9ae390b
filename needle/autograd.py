"""Tensors: values of the graph that users hold, and the ops that produce them.

`Tensor` and `TensorTuple` know no op. `needle/ops/methods.py` attaches their operators and methods; for type checkers
and readers those of tensors are declared in `needle/tensor_methods.py`.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from needle.backend import (
    Device,
    DTypeLike,
    HostArray,
    HostScalar,
    cpu,
    default_device,
    deserialize,
    device_for,
    device_of,
    is_writable,
    refuse,
    root_of,
    serialize,
    to_dlpack,
    to_host,
)
from needle.backend_ndarray import BackendDevice, NDArray
from needle.grad_mode import mode, watching
from needle.graph import Op, Unknown, Value, find_topo_sort, run, walk
from needle.tensor_methods import TensorMethods
from needle.version_counter import VersionCounter

__all__ = [
    "LAZY_MODE",
    "Op",
    "Tensor",
    "TensorLike",
    "TensorOp",
    "TensorTuple",
    "TensorTupleOp",
    "Value",
    "find_topo_sort",
]

TensorLike: TypeAlias = "Tensor | NDArray | HostArray | HostScalar | float | Sequence[Any]"  # accepted for a tensor

LAZY_MODE = False  # a name of the course's; nothing reads it, since ops compute at once: see docs/course.md


def __getattr__(name: str) -> Any:
    """TENSOR_COUNTER: the number of values that exist, including garbage that awaits Python's cycle collector."""
    if name == "TENSOR_COUNTER":  # counted on demand: tensors pay nothing for it
        return sum(issubclass(type(entry), Value) for entry in gc.get_objects())
    raise AttributeError(f"autograd: the name must be one of this module, but got {name!r}")


class TensorOp(Op):
    """An op whose result is one tensor."""

    def __call__(self, *inputs: Value) -> Tensor:
        return make_tensor(self, inputs)


class TensorTupleOp(Op):
    """An op whose result is a tuple of tensors."""

    def __call__(self, *inputs: Value) -> TensorTuple:
        return make_tensor_tuple(self, inputs)


class Result(Value):
    """A value that an op can produce."""

    __slots__ = ()
    outlined: ClassVar[Any]  # the class of such values without an array; needle.outline sets it

    @classmethod
    def make_from_op(cls, op: Op, inputs: Sequence[Value]) -> Self:
        """Run `op`. The result records op and inputs if a gradient can flow through it."""
        self: Self = object.__new__(cls)
        try:
            self.array = self.spec = run(op, inputs)
        except Unknown:
            self = cls.outlined.infer(op, inputs)
        self.grad, self.version = None, VersionCounter.clock
        if op.is_view:
            self.counter = inputs[0].version_counter()
        if watching:
            for watcher in mode.watchers:
                watcher.made(self, op, inputs)
        if mode.recording and op.differentiable:
            for x in inputs:
                if x.requires_grad:
                    self.op, self.inputs, self.requires_grad = op, tuple(inputs), True
                    return self
        self.op, self.inputs, self.requires_grad = None, (), False
        return self

    def __reduce__(self) -> Any:  # copies and pickles are leaves: graph and gradient stay behind
        return self._deserialize, (serialize(self.array), self.requires_grad)

    @classmethod
    def _deserialize(cls, form: Any, requires_grad: bool) -> Self:
        return cls.make_leaf(deserialize(form), requires_grad)

    def __deepcopy__(self, memo: Any) -> Self:
        return self.make_leaf(deepcopy(self.array, memo), self.requires_grad)


class Tensor(Result, TensorMethods):
    """An n-dimensional array that records how it was computed.

    Tensor(array, *, device=None, dtype=None, requires_grad=True)

    `array` may be a Tensor, an NDArray, a NumPy or CuPy array, a nested list or a number; its values are copied.
    `dtype=None` keeps NumPy's dtype of `array`: a list of Python floats becomes float64. `device=None` keeps the device
    of `array`; lists, numbers and NumPy arrays go to the default device.

    >>> x = Tensor([1.0, 2.0])
    >>> (x**3).sum().backward()
    >>> x.grad
    Tensor([ 3. 12.], requires_grad=True)
    >>> x.grad.backward()  # gradients have a graph: this is the second derivative
    >>> x.grad
    Tensor([ 6. 12.], requires_grad=True)

    Raises `TypeError` for elements or a `dtype` other than real numbers or bools, or if `device` is not a Device, and
    `ValueError` for ragged lists.
    """

    __slots__ = ()
    _add: ClassVar[Any]  # the op ADD, which accumulates gradients; set by ops/methods.py
    _clone: ClassVar[Any]  # the op CLONE; set by ops/methods.py
    _cast: ClassVar[Any]  # `as_dtype`, which gives a gradient the dtype of its value; set by ops/methods.py
    __array_ufunc__ = None  # `ndarray + tensor` asks the tensor; `np.exp(tensor)` fails loudly
    grad: Tensor | None

    def __init__(
        self, array: TensorLike, *, device: Device | None = None, dtype: DTypeLike | None = None,
        requires_grad: bool = True,
    ) -> None:  # fmt: skip
        data: Any = array.array if isinstance(array, (Tensor, NDArray)) else array
        if device is None:
            device = array.device if isinstance(array, (Tensor, NDArray)) else device_for(data)
        elif not isinstance(device, Device):
            raise TypeError(f"Tensor: device must be a Device, but got {type(device).__name__}")
        self.array = self.spec = device.real_array("Tensor", data, dtype)
        self.op, self.inputs, self.grad = None, (), None
        self.requires_grad, self.version = requires_grad, VersionCounter.clock

    @staticmethod
    def make_const(data: Any, requires_grad: bool = False) -> Tensor:
        """A leaf that shares the memory of an NDArray or a raw array, of any shape and real dtype; unchecked."""
        if not isinstance(data, NDArray):
            return Tensor.make_leaf(data, requires_grad)
        leaf = Tensor.make_leaf(data.array, requires_grad)
        leaf.counter = data.version_counter(leaf)
        return leaf

    @property
    def cached_data(self) -> NDArray:
        """The data as an NDArray on the same memory; backward notices writes through it."""
        return NDArray.wrap(self.array, self.detach())

    def realize_cached_data(self) -> NDArray:
        """`cached_data`, by the course's name."""
        return self.cached_data

    @property
    def data(self) -> Tensor:
        """A detached view. Assigning copies a tensor of the same dtype and shape, and moves to its device.

        Axes of size 1 may be added or left out: a bias (1, n) takes a tensor (n,), and has that shape from then on.
        """
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: value must be a Tensor, but got {type(value).__name__}")
        if value.dtype != self.dtype:
            raise TypeError(f"data: value must have dtype {self.dtype}, but got {value.dtype}")
        if [n for n in value.shape if n != 1] != [n for n in self.shape if n != 1]:
            raise ValueError(f"data: value must have shape {self.shape}, up to axes of size 1, but got {value.shape}")
        self.replace_array(value.device.array(value.array))

    def replace_array(self, array: Any) -> None:
        """Put a raw array, of any device and dtype, in the place of this tensor's."""
        self.array  # noqa: B018 (a recording sees that this tensor is older than the array)
        self.array = self.spec = array
        self.counter = VersionCounter()
        self.counter.bump()

    if TYPE_CHECKING:

        @property
        def device(self) -> BackendDevice: ...
        @property
        def shape(self) -> tuple[int, ...]: ...
        @property
        def dtype(self) -> Any: ...

    else:  # in C: a third faster for every user
        shape = property(attrgetter("spec.shape"), doc="The sizes, a tuple of integers.")
        dtype = property(attrgetter("spec.dtype"), doc="The NumPy dtype of the elements.")

    @property
    def ndim(self) -> int:
        """The number of axes, 0 for a number."""
        return len(self.spec.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.spec.shape)

    def numpy(self) -> HostArray:
        """A row-major copy of the values as a NumPy array on the host, of the same shape and dtype."""
        refuse("numpy", "values read on the host")
        return self.cached_data.numpy()

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number. Raises `ValueError` for another size."""
        if self.size != 1:
            raise ValueError(f"item: the tensor must have one element, but got shape {self.shape}")
        refuse("item", "a value read on the host")
        return to_host(self.array).item()

    def backward(
        self, out_grad: Tensor | None = None, *, create_graph: bool = True, retain_graph: bool | None = None,
        accumulate: bool = False,
    ) -> None:  # fmt: skip
        """Set `.grad` of every leaf that requires one to the derivative of this tensor, weighted by `out_grad`.

        `out_grad` has this tensor's shape, ones by default; `.grad` has the shape and, if floating, the dtype of its
        leaf. It is overwritten, or added to with `accumulate=True`. With `create_graph=True` gradients have a graph of
        their own: `x.grad.backward()` is a second derivative. With `create_graph=False` they are constants, and each
        node is released as soon as backward has passed it unless `retain_graph=True`. By default `retain_graph` equals
        `create_graph`.

        Raises `RuntimeError` if nothing requires a gradient, if an earlier backward released the graph, or if a value
        that a gradient needs was changed in place; `TypeError` or `ValueError` if `out_grad` does not fit.
        """
        keeps = create_graph or out_grad is None  # ones have no graph
        walk(
            self,
            self.initial_grad(out_grad) if keeps else self.initial_grad(out_grad).detach(),
            create_graph=create_graph,
            retain_graph=create_graph if retain_graph is None else retain_graph,
            accumulate=accumulate,
        )

    def initial_grad(self, out_grad: Tensor | None) -> Tensor:
        """The gradient that backward starts from: `out_grad`, or ones."""
        if not self.requires_grad:
            raise RuntimeError(
                f"backward: the tensor must require grad, but this one of shape {self.shape} is a constant: "
                "none of its inputs requires grad, it was computed under no_grad, or a captured step returned it"
            )
        if out_grad is None:
            return self.make_const(self.device.xp.ones(self.shape, self.dtype))
        if not isinstance(out_grad, Tensor):
            raise TypeError(f"backward: out_grad must be a Tensor, but got {type(out_grad).__name__}")
        if out_grad.shape != self.shape:
            raise ValueError(f"backward: out_grad must have shape {self.shape}, but got {out_grad.shape}")
        return out_grad.astype(self.dtype) if self.dtype.kind == "f" else out_grad

    def accumulate_grad(self, partial: Tensor | None, grad: Tensor, op: Op) -> Tensor:
        mine, spec = self.spec, grad.spec
        if spec.shape != mine.shape:
            raise RuntimeError(
                f"backward: gradients must have the shape of their tensor, {self.shape}, "
                f"but {op!r} returned {grad.shape}"
            )
        if spec.dtype != mine.dtype and mine.dtype.kind == "f":
            grad = self._cast(grad, mine.dtype)
        return grad if partial is None else self._add(partial, grad)

    def own_grad(self, grad: Tensor, taken: dict[int, Any]) -> Tensor:
        root = root_of(grad.array)
        if id(root) not in taken and (root is grad.array or is_writable(grad.array)):
            taken[id(root)] = root
            return grad
        copied: Tensor = self._clone(grad)
        return copied

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        if self.requires_grad:
            raise TypeError("Tensor: a tensor that requires grad is not an array; call .detach() or .numpy() first")
        if self.device != cpu():
            raise TypeError(f"Tensor: a tensor on {self.device} is not a host array; call .numpy() to copy it")
        return self.cached_data.__array__(dtype, copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise TypeError("Tensor: DLPack does not export a tensor that requires grad; call .detach() first")
        return to_dlpack(self.array).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        place: tuple[int, int] = self.array.__dlpack_device__()
        return place

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        if self.shape or self.dtype.kind not in "iub":
            raise TypeError(f"index: the tensor must be one integer, but got dtype {self.dtype}, shape {self.shape}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len: the tensor must have at least one dimension, but got shape ()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        refuse("repr", "values read on the host")
        values = str(to_host(self.array)).replace("\n", "\n       ")
        return f"Tensor({values}{', requires_grad=True' if self.requires_grad else ''})"


class TensorTuple(Result):
    """A tuple of tensors as one node of the graph: `len`, `[i]`, iteration, `+`, `.tuple()`, `.detach()`."""

    __slots__ = ()

    @property
    def device(self) -> Device:
        return device_of(self.array[0]) if self.array else default_device()

    @property
    def cached_data(self) -> tuple[NDArray, ...]:
        """The data as NDArrays on the same memory."""
        return tuple(NDArray.wrap(array, self.detach()) for array in self.array)

    def accumulate_grad(self, partial: dict[int, Tensor] | None, grad: Any, op: Op) -> dict[int, Tensor]:
        partial = {} if partial is None else partial
        for i, part in grad.items() if isinstance(grad, dict) else enumerate(grad.tuple()):
            partial[i] = Tensor._add(partial[i], part) if i in partial else part
        return partial

    def finish_grad(self, partial: dict[int, Tensor]) -> TensorTuple:
        return self.with_zeros(partial)

    def __len__(self) -> int:
        return len(self.spec)

    def tuple(self) -> tuple[Tensor, ...]:
        """The tensors, each a node that picks one element of this one."""
        return tuple(self[i] for i in range(len(self)))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tuple())

    def __eq__(self, other: object) -> bool:
        """Equality of tuples: the same tensors, or tensors of one equal element; others have no single truth."""
        return self.tuple() == tuple(other) if isinstance(other, (tuple, TensorTuple)) else NotImplemented

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"TensorTuple{self.tuple()}"

    if TYPE_CHECKING:  # attached by needle/ops/methods.py

        def __getitem__(self, index: int) -> Tensor: ...
        def __add__(self, other: TensorTuple) -> TensorTuple: ...
        def with_zeros(self, parts: dict[int, Tensor]) -> TensorTuple: ...


Tensor.plain_class, TensorTuple.plain_class = Tensor, TensorTuple
make_tensor, make_tensor_tuple = Tensor.make_from_op, TensorTuple.make_from_op  # bound once, not for every node
