"""Sums over the ranks of many arrays, in few exchanges that begin as early as they can."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any

import numpy as np

from needle import tuning
from needle.autograd import Tensor
from needle.backend import Device, asked, device_of, to_host, within
from needle.backend.communicator import Array, Communicator, Request
from needle.backend.polling import between_chunks
from needle.grad_mode import watch
from needle.graph import walk
from needle.kernels import join

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
            self._make_room(value, value not in irregular, wire)

    def _make_room(self, value: Tensor, is_regular: bool, wire: str | None) -> None:
        array = value.array
        dtype = array.dtype
        wire = wire if dtype.itemsize > 2 else None
        kind = (device_of(array), dtype, is_regular, wire)
        bucket = self._fillable.get(kind)
        if bucket is None or bucket.size * dtype.itemsize >= tuning.GRADIENT_BUCKET_BYTES:
            bucket = self._fillable[kind] = _Bucket(is_regular, wire)
            self.buckets.append(bucket)
        bucket.values.append(value)
        bucket.size += array.size
        self.bucket_of[value] = bucket

    def add(self, value: Tensor, array: Array) -> None:
        """Take this rank's term, which must stay as it is; send the buckets that are full, in their order."""
        self.bucket_of[value].terms[value] = array
        while self.sent < len(self.buckets) and self.buckets[self.sent].is_full:
            self._send_next()

    def _send_next(self) -> None:
        self.buckets[self.sent].send(self.communicator)
        self.sent += 1

    def collect(
        self, loss: Tensor, scale: Tensor | None, parameters: Iterable[Tensor], waiting: dict[Tensor, Array]
    ) -> None:
        """Backward of `scale` times a loss: adds the gradient of each parameter as soon as it is complete.

        It goes neither to the hooks of the parameter nor to its `.grad`. What is `waiting` is added to it, and taken
        out. Sums that have begun go on meanwhile.
        """

        def take(parameter: Tensor, grad: Tensor) -> None:
            earlier = waiting.pop(parameter, None) if waiting else None
            self.add(parameter, grad.array if earlier is None else earlier + grad.array)

        takers: Any = dict.fromkeys(parameters, take)
        backward = partial(walk, loss, loss.initial_grad(scale), create_graph=False, retain_graph=False, takers=takers)
        within(self._going_on if len(self.buckets) > 1 else nullcontext, backward)  # a single one is sent at the end
        for parameter, term in waiting.items():
            self.add(parameter, term)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        progress = _Progress(self.communicator)
        with watch(progress), between_chunks(progress.look):
            yield

    def finish(self) -> tuple[dict[Tensor, Array], frozenset[Tensor]]:
        """The sums of what came on any rank, and what did not come on all."""
        while self.sent < len(self.buckets):
            self._send_next()
        totals: dict[Tensor, Array] = {}
        irregular = set()
        for bucket in self.buckets:
            bucket.request.wait()
            flat, start = bucket.flat, 0
            flags = flat[bucket.size :]
            if not device_of(flags).is_async:  # there nothing is recorded, and it would be a launch
                flags = flags.astype(bool)
            came, missing = to_host(asked(flags)).reshape(2, -1).astype(bool).tolist()
            for value, has_come, is_missing in zip(bucket.values, came, missing, strict=True):
                array = value.array
                stop = start + array.size
                if has_come:
                    totals[value] = flat[start:stop].reshape(array.shape)
                if is_missing:
                    irregular.add(value)
                start = stop
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
        self.values: list[Tensor] = []
        self.size = 0  # of all values together
        self.terms: dict[Tensor, Array] = {}  # that have come
        self.flat: Array = None
        self.request: Request

    @property
    def is_full(self) -> bool:
        return self.is_regular and len(self.terms) == len(self.values)

    def send(self, communicator: Communicator) -> None:
        """Begin to sum the terms of all ranks."""
        values, terms, size = self.values, self.terms, self.size
        device, count = values[0].device, len(values)
        with device.current():
            namespace = device.xp
            self.flat = flat = namespace.empty(size + 2 * count, values[0].dtype)
            rows = [terms[x] if x in terms else namespace.zeros(x.size, x.dtype) for x in values]
            rows.append(_all_have_come(device, values[0].dtype, count))
            join(rows[0], rows, flat)
            if len(terms) < count:
                for i, value in enumerate(values):
                    if value not in terms:
                        flat[size + i], flat[size + count + i] = 0, 1
        self.terms = {}
        self.request = communicator.start_all_reduce(flat, self.wire)


@lru_cache(maxsize=64)
def _all_have_come(device: Device, dtype: Any, count: int) -> Array:
    """What stands behind the terms of `count` values if all have come."""
    return device.asarray(np.repeat([1, 0], count), dtype)
