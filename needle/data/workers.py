"""The batches of a loader for several workers: each gets its own items of every batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from needle.autograd import Tensor
from needle.backend import HostArray
from needle.backend.communicator import Part, current_communicator
from needle.data.loader import DataLoader

__all__ = ["worker_batches"]


def worker_batches(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of `loader`, of each the items that this worker computes: `current_communicator().part` names them.

    All workers must read the same batches: loaders made alike, random streams in the same state. A batch is cut as
    `np.array_split` does; one with fewer items than workers goes to all of them as a whole, with the part None. So does
    every batch where there is one worker. After the last batch the part is None.

    A `DataLoader` fetches only the items of the part, unless the dataset may draw random numbers (a transform, a
    dataset of your own): then every worker prepares the whole batch, so that all draw alike. Of any other iterable,
    batches must be arrays, or tuples, lists or dicts of them, with the items along the first axis.

    Raises ValueError if the arrays of a batch differ in their number of items, TypeError if it holds anything else.

    >>> from needle.data import NDArrayDataset
    >>> loader = DataLoader(NDArrayDataset([1, 2, 3]), 2)
    >>> [labels.numpy().tolist() for (labels,) in worker_batches(loader)]
    [[1, 2], [3]]
    """
    communicator = current_communicator()
    if communicator.size == 1:
        yield from loader
        return
    try:
        if isinstance(loader, DataLoader):
            yield from loader.parts(communicator)
        else:
            for batch in loader:
                communicator.part = part = communicator.part_of(items_of(batch))
                yield batch if part is None else cut(batch, part)
    finally:
        communicator.part = None


def items_of(batch: Any) -> int:
    """The number of items of a batch."""
    lengths = {*_lengths(batch)}
    if len(lengths) != 1:
        raise ValueError(
            f"worker_batches: arrays of a batch must agree in their number of items, but got {sorted(lengths)}"
        )
    return lengths.pop()


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, (tuple, list, Mapping)):
        for field in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _lengths(field)
    elif getattr(batch, "shape", None):
        yield batch.shape[0]
    else:
        got = type(batch).__name__
        raise TypeError(f"worker_batches: a batch must hold arrays with an axis of items, but got {got}")


def cut(batch: Any, part: Part) -> Any:
    """The items of a part."""
    if isinstance(batch, Mapping):
        return {name: cut(field, part) for name, field in batch.items()}
    if isinstance(batch, (tuple, list)):
        fields = [cut(field, part) for field in batch]
        return fields if isinstance(batch, list) else tuple(fields)
    items: Tensor | HostArray = batch[part.start : part.stop]
    return items
