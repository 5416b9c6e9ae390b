"""Where torch keeps the tensors of a needle model: under which names, in which axes, in which order.

Most layers keep theirs as torch does. The others:

- layers with `layouts` (`Linear`, `Conv`, `RNNCell`, `LSTMCell`) have other axes, and a `Linear` has a bias (1, out);
- the cells of `RNN` and `LSTM` are layers there: `rnn_cells_reverse.1.W_hh` is `weight_hh_l1_reverse`;
- the projections of an `AttentionLayer` are one array in a `MultiheadAttention`, one below another, or three.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from needle.autograd import Tensor
from needle.backend import HostArray
from needle.checkpoint.arrays import host_array
from needle.nn import LSTM, RNN, AttentionLayer, Linear, LSTMCell, Module, RNNCell

__all__ = ["Part", "Slot", "slots_of", "unwrapped"]

_CELL_NAMES = {"W_ih": "weight_ih", "W_hh": "weight_hh"}
_PROJECTIONS = ("q_projection", "k_projection", "v_projection", "out_projection")


class Part(NamedTuple):
    """A tensor of a needle model, which is an array of torch's or a part of one."""

    name: str  # needle's
    tensor: Tensor
    axes: tuple[int, ...]  # the order in which the tensor has torch's axes
    shape: tuple[int, ...]  # torch's

    def to_torch(self, array: HostArray) -> HostArray:
        """An array of the shape of the tensor in torch's layout."""
        return array.transpose(np.argsort(self.axes)) if len(self.axes) == array.ndim else array.reshape(self.shape)

    def from_torch(self, array: HostArray) -> HostArray:
        """An array in torch's layout in that of the tensor."""
        return array.transpose(self.axes).reshape(self.tensor.shape)


class Slot(NamedTuple):
    """An array of torch's state dict: its name, and the tensors that lie in it, one below another."""

    name: str
    parts: tuple[Part, ...]
    is_optional: bool = False  # older states lack it

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (sum(part.shape[0] for part in self.parts), *first[1:]) if len(self.parts) > 1 else first

    def join(self, arrays: list[HostArray]) -> HostArray:
        """torch's array of those of the parts, in memory of its own."""
        ready = [part.to_torch(array) for part, array in zip(self.parts, arrays, strict=True)]
        return np.array(ready[0] if len(ready) == 1 else np.concatenate(ready), order="C")

    def value(self) -> HostArray:
        """torch's array of the values of the model."""
        return self.join([host_array(part.tensor) for part in self.parts])

    def split(self, array: HostArray) -> list[HostArray]:
        """The arrays of the parts of torch's."""
        if len(self.parts) == 1:
            return [self.parts[0].from_torch(array)]
        ends = np.cumsum([part.shape[0] for part in self.parts])
        return [part.from_torch(array[end - part.shape[0] : end]) for part, end in zip(self.parts, ends, strict=True)]


def unwrapped(names: Iterable[str], model: Module) -> list[str]:
    """torch's names without the prefixes of modules that wrap others, which are not the model's."""
    names = [".".join(part for part in str(name).split(".") if part != "_orig_mod") for name in names]
    own = any(name.startswith("module.") for name in model.state_dict(copy=False))
    while names and not own and all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    return names


def slots_of(model: Module, names: Collection[str] | None = None) -> list[Slot]:
    """The arrays that torch's state dict of the same model holds, in its order.

    An `AttentionLayer` has a `MultiheadAttention`'s if it fits one, unless `names`, those of a state, has its own.
    """
    saved = model.state_dict(copy=False)
    return list(_slots(model, "", {*saved}, {*(names or ())}))


def _slots(module: Module, path: str, saved: set[str], names: set[str]) -> Iterator[Slot]:
    """The arrays of a module, then of its children, whose names begin with `path`."""
    for name, member in module.named_members():
        if isinstance(member, Tensor) and path + name in saved:
            theirs = _CELL_NAMES.get(name, name) if isinstance(module, (RNNCell, LSTMCell)) else name
            yield Slot(path + theirs, (_part(module, path, name, member),), name in module.optional)
    done: tuple[type, ...] = ()
    if isinstance(module, (RNN, LSTM)):
        done = (RNNCell, LSTMCell)
        yield from _layers(module, path, saved)
    elif isinstance(module, AttentionLayer) and f"{path}q_projection.weight" not in names and _fits_one(module):
        done = (Linear,)
        yield from _attention(module, path)
    for name, child in module.named_children():
        if not isinstance(child, done):
            yield from _slots(child, f"{path}{name}.", saved, names)


def _part(module: Module, path: str, name: str, tensor: Tensor) -> Part:
    if isinstance(module, Linear) and name == "bias":
        return Part(path + name, tensor, (0,), tensor.shape[-1:])
    axes = module.layouts.get(name, tuple(range(tensor.ndim)))
    return Part(path + name, tensor, axes, tuple(tensor.shape[axes.index(i)] for i in range(tensor.ndim)))


def _layers(module: RNN | LSTM, path: str, saved: set[str]) -> Iterator[Slot]:
    """The cells, whose names become suffixes: layer by layer, the one that runs forwards first."""
    for i in range(module.num_layers):
        for end in ("", "_reverse")[: 1 + module.bidirectional]:
            name = module.cells + end
            for slot in _slots(getattr(module, name)[i], f"{path}{name}.{i}.", saved, set()):
                yield slot._replace(name=f"{path}{slot.name.rpartition('.')[2]}_l{i}{end}")


def _fits_one(module: AttentionLayer) -> bool:
    """Whether a `MultiheadAttention` with the same projections exists."""
    return module.num_head * module.dim_head == module.q_features == module.out_features


def _attention(module: AttentionLayer, path: str) -> Iterator[Slot]:
    """The projections under the names of a `MultiheadAttention` without bias."""
    q, k, v, out = (
        _part(getattr(module, name), f"{path}{name}.", "weight", getattr(module, name).weight) for name in _PROJECTIONS
    )
    if module.q_features == module.k_features == module.v_features:
        yield Slot(f"{path}in_proj_weight", (q, k, v))
    else:
        yield from (Slot(f"{path}{name}_proj_weight", (part,)) for name, part in zip("qkv", (q, k, v), strict=True))
    yield Slot(f"{path}out_proj.weight", (out,))
