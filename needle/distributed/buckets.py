"""Sums over the ranks of many arrays, in few exchanges that begin as early as they can."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from needle import tuning
from needle.autograd import Tensor
from needle.backend import to_host
from needle.backend.communicator import Array, Communicator, Request
from needle.backend.polling import between_chunks
from needle.grad_mode import watch
from needle.graph import Value

__all__ = ["Sums"]


class Sums:
    """The sums over the ranks of arrays in the shapes, dtypes and on the devices of `values`, in buckets.

    Of what is `irregular`, nobody knows whether it comes on all ranks: it has buckets of its own, the last ones. What
    is not `exact` may travel in the 16 bits of `wire`.
    """

    def __init__(
        self,
        communicator: Communicator,
        exact: Iterable[Tensor],
        values: Iterable[Tensor] = (),
        irregular: frozenset[Tensor] = frozenset(),
        wire: str | None = None,
    ) -> None:
        self.communicator = communicator
        self.buckets: list[_Bucket] = []
        self.bucket_of: dict[Tensor, _Bucket] = {}
        self.sent = 0  # buckets
        self._fillable: dict[Any, _Bucket] = {}
        for value in exact:
            self._make_room(value, True, None)
        for value in sorted(values, key=irregular.__contains__) if irregular else values:
            self._make_room(value, value not in irregular, wire if value.dtype.itemsize > 2 else None)

    def _make_room(self, value: Tensor, is_regular: bool, wire: str | None) -> None:
        kind = (value.device, value.dtype, is_regular, wire)
        bucket = self._fillable.get(kind)
        if bucket is None or bucket.size * value.dtype.itemsize >= tuning.GRADIENT_BUCKET_BYTES:
            bucket = self._fillable[kind] = _Bucket(is_regular, wire)
            self.buckets.append(bucket)
        bucket.append(value)
        self.bucket_of[value] = bucket

    def add(self, value: Tensor, array: Array) -> None:
        """Copy this rank's term into its bucket; send those that are full, in their order."""
        self.bucket_of[value].put(value, array)
        while self.sent < len(self.buckets) and self.buckets[self.sent].is_full:
            self._send_next()

    def _send_next(self) -> None:
        self.buckets[self.sent].send(self.communicator)
        self.sent += 1

    @contextmanager
    def collecting(self, parameters: Iterable[Tensor], waiting: dict[Tensor, Array]) -> Iterator[dict[Tensor, Any]]:
        """Add the gradient of each parameter as soon as backward has completed it, instead of calling its hooks.

        What is `waiting` is added to it. Meanwhile the sums go on. Until the block ends, the hooks are in the dict that
        it gets.
        """
        hooks = {parameter: parameter.hooks for parameter in parameters if hasattr(parameter, "hooks")}
        added: list[Tensor] = []

        def collect(parameter: Tensor, grad: Tensor) -> Tensor:
            earlier = waiting.pop(parameter, None)
            self.add(parameter, grad.array if earlier is None else earlier + grad.array)
            for other in added:  # frees what has been copied
                other.grad = None
            added[:] = [parameter]
            return grad

        def restore() -> None:
            for parameter in parameters:
                if parameter in hooks:
                    parameter.hooks = hooks[parameter]
                elif hasattr(parameter, "hooks"):
                    del parameter.hooks

        try:
            try:
                for parameter in parameters:
                    parameter.hooks = collect
                Value.hooks_exist = True
                progress = _Progress(self.communicator)
                with watch(progress), between_chunks(progress.look):
                    yield hooks
            finally:
                restore()
        finally:  # once more: an interrupt may come before the line above, or in it
            restore()

    def finish(self) -> tuple[dict[Tensor, Array], frozenset[Tensor]]:
        """The sums of what came on any rank, and what did not come on all."""
        while self.sent < len(self.buckets):
            self._send_next()
        totals: dict[Tensor, Array] = {}
        irregular = set()
        for bucket in self.buckets:
            for value, has_come, is_missing, total in bucket.wait():
                if has_come:
                    totals[value] = total
                if is_missing:
                    irregular.add(value)
        return totals, frozenset(irregular)


class _Progress:
    """A watcher that lets sums go on between the nodes of backward, and between the chunks of a node."""

    def __init__(self, communicator: Communicator) -> None:
        self.communicator, self.next_time = communicator, 0.0

    def made(self, value: Any, op: Any, inputs: Any) -> None:
        pass

    def passed(self, node: Any, grad: Any, x_grads: Any) -> None:
        self.look()

    def look(self) -> None:
        if time.perf_counter() >= self.next_time:
            self.next_time = math.inf  # a step may compute in chunks itself
            self.communicator.progress()
            self.next_time = time.perf_counter() + tuning.PROGRESS_SECONDS


class _Bucket:
    """Terms of one dtype on one device, one after the other in a flat array.

    Behind them are two numbers for each, 1 and 0 if it has come, or 0 and 1: in their sums, rounded or not, a 0 says
    that it has come on no rank, or is missing on none.
    """

    def __init__(self, is_regular: bool, wire: str | None) -> None:
        self.is_regular, self.wire = is_regular, wire
        self.starts: dict[Tensor, int] = {}
        self.size = 0  # of all terms
        self.views: dict[Tensor, Array] = {}  # the places of terms that have been put
        self.flat: Array = None
        self.request: Request

    def append(self, value: Tensor) -> None:
        """Make room for a term like `value`."""
        self.starts[value] = self.size
        self.size += value.size

    @property
    def is_full(self) -> bool:
        return self.is_regular and len(self.views) == len(self.starts)

    def put(self, value: Tensor, term: Array) -> None:
        """Copy a term to its place."""
        if self.flat is None:
            count = len(self.starts)
            with value.device.current():
                self.flat = value.device.xp.empty(self.size + 2 * count, value.dtype)
            self.flat[self.size : -count] = 1
            self.flat[-count:] = 0
        start = self.starts[value]
        view = self.views[value] = self.flat[start : start + value.size].reshape(value.shape)
        view[...] = term

    def send(self, communicator: Communicator) -> None:
        """Begin to sum the terms of all ranks."""
        count = len(self.starts)
        for i, value in enumerate(self.starts):
            if value not in self.views:
                self.put(value, 0)
                self.flat[self.size + i] = 0
                self.flat[self.size + count + i] = 1
        self.request = communicator.start_all_reduce(self.flat, self.wire)

    def wait(self) -> Iterator[tuple[Tensor, bool, bool, Array]]:
        """Each value, whether its term has come on any rank and is missing on any, and the sum."""
        self.request.wait()
        came, missing = to_host(self.flat[self.size :]).reshape(2, -1).astype(bool).tolist()
        for value, has_come, is_missing in zip(self.starts, came, missing, strict=True):
            yield value, has_come, is_missing, self.views[value]
