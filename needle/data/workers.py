"""The batches of a loader for several ranks: each gets its own items of every batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import numpy as np

from needle.backend import to_host
from needle.backend.communicator import Communicator, Part, current_communicator, gathered, require_alike
from needle.data.loader import DataLoader
from needle.data.nested import leaves, mapped

__all__ = ["worker_batches"]

APART = 1e-3  # by what share of its norm a parameter differs between ranks that train apart; rounding adds less


def worker_batches(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of `loader`, of each the items that this rank computes: `current_communicator().part` names them.

    All ranks must read the same batches: loaders made alike, random streams in the same state. A batch is cut as
    `np.array_split` does; one with fewer items than ranks goes to all of them as a whole, with the part None. So does
    every batch where there is one rank. After the last batch the part is None. Of a `Shard` the items of a part are
    this rank's own.

    A `DataLoader` fetches only the items of the part, unless the dataset may draw random numbers (a transform, a
    dataset of your own): then every rank prepares the whole batch, so that all draw alike. Of any other iterable,
    batches must be arrays, or tuples, lists or dicts of them, with the items along the first axis.

    Gradients of a part must be exchanged, by `SharedGradients` of `needle.distributed` or by hand. Where optimizers
    have stepped without, so that the next pass finds other weights on other ranks, rank 0 warns.

    Raises ValueError if the arrays of a batch differ in their number of items, and, on all ranks, if their loaders do
    in batches, items or order: of a `DataLoader` before the first batch, of others in the number of items, after the
    last one. TypeError if a batch holds anything but arrays.

    >>> from needle.data import NDArrayDataset
    >>> loader = DataLoader(NDArrayDataset([1, 2, 3]), 2)
    >>> [labels.numpy().tolist() for (labels,) in worker_batches(loader)]
    [[1, 2], [3]]
    """
    communicator = current_communicator()
    if communicator.size == 1:
        yield from loader
        return
    if not communicator.shares_gradients:
        _warn_of_ranks_apart(communicator)
    part = None
    try:
        if is_plain(loader):
            for batch in loader.parts(communicator):
                part = communicator.part
                yield batch
        else:
            items = 0
            for batch in loader:
                count = items_of(batch)
                items += count
                communicator.part = part = communicator.part_of(count)
                yield batch if part is None else cut(batch, part)
            require_alike("worker_batches", communicator, {"number of items in its batches": items})
    finally:
        if communicator.part is part:  # else these batches were left long ago, and others are being read
            communicator.part = None


def _warn_of_ranks_apart(communicator: Communicator) -> None:
    """Warn if optimizers have left a parameter with other values on other ranks."""
    parameter, communicator.stepped = communicator.stepped, None
    values = None if parameter is None else np.asarray(to_host(parameter.array), "float64")
    first, *others = gathered("worker_batches", communicator, values)
    if communicator.rank or first is None:
        return
    for rank, other in enumerate(others, 1):
        if np.shape(other) == first.shape and np.linalg.norm(other - first) > APART * np.linalg.norm(first):
            warnings.warn(
                f"worker_batches: each of {communicator.size} ranks trains a network of its own on its items: a "
                f"parameter of shape {first.shape} has other values on rank {rank} than on rank 0. Instead of "
                "`loss.backward()` call `backward(loss)` of a `needle.distributed.SharedGradients(parameters)`",
                RuntimeWarning,
                stacklevel=3,
            )
            return


def is_plain(loader: Any) -> TypeGuard[DataLoader]:
    """Whether a loader yields just what a DataLoader does: no subclass with an `__iter__` of its own."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


def items_of(batch: Any) -> int:
    """The number of items of a batch."""
    lengths = {_length(field) for field in leaves(batch)}
    if len(lengths) != 1:
        raise ValueError(
            f"worker_batches: arrays of a batch must agree in their number of items, but got {sorted(lengths)}"
        )
    return lengths.pop()


def _length(field: Any) -> int:
    shape: tuple[int, ...] | None = getattr(field, "shape", None)
    if not shape:
        got = type(field).__name__
        raise TypeError(f"worker_batches: a batch must hold arrays with an axis of items, but got {got}")
    return shape[0]


def cut(batch: Any, part: Part) -> Any:
    """The items of a part."""
    return mapped(lambda field: field[part.start : part.stop], batch)
