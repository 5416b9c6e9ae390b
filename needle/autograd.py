"""The reverse-mode graph: ops, tensors, and the walk that differentiates them.

A tensor remembers the op and the inputs it came from. `backward` sorts that graph topologically without recursion and
asks each op, from the last to the first, for the gradients of its inputs. Gradients are built from ops themselves, so
they can be differentiated again.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, Self, TypeAlias

from needle.backend import (
    HostArray,
    cpu,
    default_device,
    deserialize,
    device_for,
    device_of,
    serialize,
    to_dlpack,
    to_host,
)
from needle.backend_ndarray import BackendDevice, NDArray
from needle.backward import Memory, compute_gradient_of_variables
from needle.backward import find_topo_sort as find_topo_sort  # part of this module's interface
from needle.grad_mode import mode
from needle.lazy import Deferred, Source, check_one_device, run, whole
from needle.operators import TensorOperators, TensorTupleOperators

TensorLike: TypeAlias = "Tensor | NDArray | HostArray | float | Sequence[Any]"  # what functions take for a tensor

LAZY_MODE = False  # True: what ops give is computed when it is asked for


def __getattr__(name: str) -> Any:
    """TENSOR_COUNTER: how many values there are, those included that only wait for Python's cycle collector."""
    if name == "TENSOR_COUNTER":  # counted when it is asked for, so that no tensor pays for it
        return sum(issubclass(type(entry), Value) for entry in gc.get_objects())
    raise AttributeError(f"autograd: the name must be one of this module, but got {name!r}")


class Op:
    """A function of arrays together with its derivative; an op is its parameters and nothing else.

    `compute(*arrays)` sees raw arrays and keeps nothing on `self`. `gradient(out_grad, node)` sees tensors, uses ops
    only, and returns one entry per input: a tensor of the input's shape, or None where no gradient flows (for a tuple:
    a dict from position to gradient will do). Inputs whose `requires_grad` is false need no work: return None for them.
    """

    differentiable = True  # False: results are constants
    reads_inputs: bool | slice = True  # which inputs' values `gradient` reads (of the others at most their shapes)
    reads_output = False  # whether `gradient` reads the values of the result
    is_view = False  # whether the result may share the memory of the first input
    device: BackendDevice | None = None  # where the result lies, if not where the inputs do

    def compute(self, *arrays: Any) -> Any:
        """The result's raw array (for a TensorTupleOp: a tuple of them)."""
        raise NotImplementedError(f"{type(self).__name__}: compute is not defined")

    def infer(self, *specs: Any) -> Any:
        """The spec (shape, dtype) of the result, given those of the inputs; None where only computing it tells."""
        return None

    def gradient(self, out_grad: Any, node: Any) -> Any:
        """One gradient per input of `node`, given that of its result; a single one need not be a tuple."""
        raise NotImplementedError(f"{type(self).__name__}: gradient is not defined")

    def gradient_as_tuple(self, out_grad: Any, node: Any) -> tuple[Any, ...]:
        """`gradient`, always as a tuple with one entry per input."""
        grads = self.gradient(out_grad, node)
        return grads if isinstance(grads, tuple) else (grads,)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)  # 1 == 1.0, but not as parameters

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class TensorOp(Op):
    """An op whose result is one tensor."""

    def __call__(self, *inputs: Value) -> Tensor:
        return make_tensor(self, inputs)


class TensorTupleOp(Op):
    """An op whose result is a tuple of tensors."""

    def __call__(self, *inputs: Value) -> TensorTuple:
        return make_tensor_tuple(self, inputs)


class Value:
    """A node of the graph: raw data (`array`), and the op and inputs it came from (None and () for a leaf)."""

    __slots__ = "__weakref__", "array", "grad", "inputs", "memory", "op", "requires_grad", "source", "spec", "stamp"
    array: Any
    spec: Any  # has shape and dtype: `array`, or an Spec while there is none; faster to ask than the properties
    op: Op | None
    inputs: tuple[Value, ...]
    requires_grad: bool
    grad: Tensor | None
    stamp: int  # the time of creation, as Memory counts it
    memory: Memory  # unset: shared with no other value, and never changed
    source: Source  # unset: computed
    deferred: type[Any]  # the class of such values before they are computed

    @classmethod
    def make_leaf(cls, array: Any, requires_grad: bool = False) -> Self:
        """A leaf on the memory of a raw array (a NumPy scalar becomes a 0-d one)."""
        self = cls.__new__(cls)
        self.array = self.spec = whole(array)
        self.op, self.inputs, self.grad = None, (), None
        self.requires_grad, self.stamp = requires_grad, Memory.now
        return self

    @classmethod
    def make_from_op(cls, op: Op, inputs: Sequence[Value]) -> Self:
        """Run `op`; the result remembers op and inputs if the graph is recorded and an input requires a gradient."""
        self: Self
        if LAZY_MODE and inputs:
            check_one_device(type(op).__name__, inputs)
            self = object.__new__(cls.deferred)
            self.source = Source(op, inputs)
            for x in inputs:
                x.version_counter().add_pending(self)
        else:
            self = object.__new__(cls)
            self.array = self.spec = run(op, inputs)
        self.grad, self.stamp = None, Memory.now
        if op.is_view:
            self.memory = inputs[0].version_counter()
        if mode.recording and op.differentiable:
            for x in inputs:
                if x.requires_grad:
                    self.op, self.inputs, self.requires_grad = op, tuple(inputs), True
                    return self
        self.op, self.inputs, self.requires_grad = None, (), False
        return self

    def accumulate_grad(self, parts: Any, grad: Any, op: Op) -> Any:
        """What backward has gathered for this value (`parts`, None at first), with one more gradient that `op` gave."""
        raise NotImplementedError(f"{type(self).__name__}: accumulate_grad is not defined")

    def finish_grad(self, parts: Any) -> Any:
        """The gradient that was gathered."""
        return parts

    @property
    def device(self) -> BackendDevice:
        return device_of(self.array)

    def is_leaf(self) -> bool:
        """Whether this value was made by the user, not by an op."""
        return self.op is None

    def detach(self) -> Self:
        """The same data, cut from the graph; the memory is shared."""
        leaf: Self = self.make_leaf(self.array)
        leaf.memory = self.version_counter()
        return leaf

    def __reduce__(self) -> Any:  # what is pickled or copied is a leaf: the graph and the gradient stay behind
        return self._restored, (serialize(self.array), self.requires_grad)

    @classmethod
    def _restored(cls, form: Any, requires_grad: bool) -> Self:
        return cls.make_leaf(deserialize(form), requires_grad)

    def __deepcopy__(self, memo: Any) -> Self:
        return self.make_leaf(deepcopy(self.array, memo), self.requires_grad)

    def version_counter(self) -> Memory:
        """The record of changes that all values on this memory share."""
        if not hasattr(self, "memory"):
            self.memory = Memory()
        return self.memory

    def bump_version(self) -> None:
        """Say that the memory behind `array` is about to be written to, so that backward can tell stale values."""
        self.version_counter().bump_version()


class Tensor(Value, TensorOperators):
    """An n-dimensional array that remembers how it was computed.

    Tensor(array, *, device=None, dtype=None, requires_grad=True)

    `array` may be a Tensor, an NDArray, a NumPy or CuPy array, a nested list or a number; its values are copied.
    `dtype=None` keeps NumPy's dtype of `array`: a list of Python floats is float64. `device=None` keeps the device of
    `array`, or takes the default one where it has none.

    >>> x = Tensor([1.0, 2.0])
    >>> (x**3).sum().backward()
    >>> x.grad
    Tensor([ 3. 12.], requires_grad=True)
    >>> x.grad.backward()  # gradients have a graph: this is the second derivative
    >>> x.grad
    Tensor([ 6. 12.], requires_grad=True)
    """

    __slots__ = ()
    __array_ufunc__ = None  # `ndarray + tensor` asks the tensor, and `np.exp(tensor)` fails loudly

    def __init__(
        self, array: Any, *, device: BackendDevice | None = None, dtype: Any = None, requires_grad: bool = True
    ) -> None:
        data = array.array if isinstance(array, (Tensor, NDArray)) else array
        if device is None:
            device = array.device if isinstance(array, (Tensor, NDArray)) else device_for(data)
        data = device.real_array("Tensor", data, dtype)
        self.array = self.spec = data
        self.op, self.inputs, self.grad = None, (), None
        self.requires_grad, self.stamp = requires_grad, Memory.now

    @staticmethod
    def make_const(data: Any, requires_grad: bool = False) -> Tensor:
        """A leaf that shares the memory of an NDArray or a raw array."""
        if not isinstance(data, NDArray):
            return Tensor.make_leaf(data, requires_grad)
        leaf = Tensor.make_leaf(data.array, requires_grad)
        leaf.memory = data.version_counter(leaf)
        return leaf

    @property
    def cached_data(self) -> NDArray:
        """The data as an NDArray on the same memory; writes through it are known to backward."""
        return NDArray.wrap(self.array, self.detach())

    def realize_cached_data(self) -> NDArray:
        """`cached_data`, computed if it is not yet."""
        return self.cached_data

    @property
    def data(self) -> Tensor:
        """The same data, cut from the graph; assigning gives a copy of other values of this dtype, where those lie."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: value must be a Tensor, but got {type(value).__name__}")
        if value.dtype != self.dtype:
            raise TypeError(f"data: value must have dtype {self.dtype}, but got {value.dtype}")
        self.version_counter().compute_pending()
        self.array  # noqa: B018 (what is deferred would be computed later, and so come back)
        self.array = self.spec = value.device.array(value.array)
        self.memory = Memory()
        self.bump_version()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def size(self) -> int:
        return math.prod(self.spec.shape)

    @property
    def dtype(self) -> Any:
        return self.spec.dtype

    def numpy(self) -> Any:
        """A copy of the values on the host, a row-major NumPy array."""
        return self.cached_data.numpy()

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: a tensor of one element is needed, but got shape {self.shape}")
        return to_host(self.array).item()

    def backward(
        self, out_grad: Tensor | None = None, *, create_graph: bool = True, retain_graph: bool | None = None
    ) -> None:
        """Set `.grad` of every leaf that requires one to the derivative of this tensor, weighted by `out_grad`.

        `out_grad` has this tensor's shape, ones by default. `.grad` is overwritten, not added to. With
        `create_graph=True` gradients have a graph of their own: `x.grad.backward()` gives second derivatives. With
        `create_graph=False` they are constants, and each node is released as soon as backward has passed it unless
        `retain_graph=True` (its default is the value of `create_graph`).

        Raises `RuntimeError` where nothing requires a gradient, where an earlier backward released the graph, and where
        a value that a gradient needs was changed in place.
        """
        compute_gradient_of_variables(self, out_grad, create_graph=create_graph, retain_graph=retain_graph)

    def accumulate_grad(self, parts: Tensor | None, grad: Tensor, op: Op) -> Tensor:
        mine, given = self.spec, grad.spec
        if given.shape != mine.shape:
            raise RuntimeError(
                f"backward: gradients must have the shape of their tensor, {self.shape}, but {op!r} gave {grad.shape}"
            )
        if given.dtype != mine.dtype and mine.dtype.kind == "f":
            grad = grad.astype(self.dtype)
        return grad if parts is None else parts + grad

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.requires_grad:
            raise TypeError("Tensor: a tensor that requires grad is not an array; call .detach() or .numpy() first")
        if self.device != cpu():
            raise TypeError(f"Tensor: data on {self.device} is no host array; call .numpy() to copy it")
        return self.cached_data.__array__(dtype, copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise TypeError("Tensor: a tensor that requires grad is not exported by DLPack; call .detach() first")
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

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len: a tensor of at least one dimension is needed, but got shape ()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = str(to_host(self.array)).replace("\n", "\n       ")
        return f"Tensor({values}{', requires_grad=True' if self.requires_grad else ''})"


class TensorTuple(Value, TensorTupleOperators):
    """A tuple of tensors as one node of the graph: `len`, `[i]`, iteration, `+`, `.tuple()`, `.detach()`."""

    __slots__ = ()

    @property
    def device(self) -> BackendDevice:
        return device_of(self.array[0]) if self.array else default_device()

    @property
    def cached_data(self) -> tuple[NDArray, ...]:
        """The data as NDArrays on the same memory."""
        return tuple(NDArray.wrap(array, self.detach()) for array in self.array)

    def accumulate_grad(self, parts: dict[int, Tensor] | None, grad: Any, op: Op) -> dict[int, Tensor]:
        parts = {} if parts is None else parts
        for i, part in grad.items() if isinstance(grad, dict) else enumerate(grad.tuple()):
            parts[i] = parts[i] + part if i in parts else part
        return parts

    def finish_grad(self, parts: dict[int, Tensor]) -> TensorTuple:
        return self.with_zeros(parts)

    def __len__(self) -> int:
        return len(self.spec)

    def tuple(self) -> tuple[Tensor, ...]:
        """The tensors, each a node that picks one element of this one."""
        return tuple(self[i] for i in range(len(self)))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tuple())

    def __repr__(self) -> str:
        return f"TensorTuple{self.tuple()}"


class DeferredTensor(Deferred, Tensor):
    """A tensor that is not computed yet."""

    __slots__ = ()
    plain = Tensor


class DeferredTensorTuple(Deferred, TensorTuple):
    """A tuple of tensors that is not computed yet."""

    __slots__ = ()
    plain = TensorTuple


Tensor.deferred, TensorTuple.deferred = DeferredTensor, DeferredTensorTuple
make_tensor, make_tensor_tuple = Tensor.make_from_op, TensorTuple.make_from_op  # bound once, not for every node
