"""The CPU while a recording goes on: new arrays are traced, and loops are noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from needle.backend.plan.namespace import NAMESPACE
from needle.backend.plan.traced import Traced, bare, current_tracer

__all__ = ["traced"]


class Tracing:
    """What the CPU, the other base of its class, does differently in the thread that records, and there alone."""

    def array_type(self) -> type:
        return np.ndarray if current_tracer() is None else Traced

    def to_host(self, array: Any) -> Any:
        tracer = current_tracer()
        if tracer is not None and isinstance(array, Traced):
            tracer.refuse("numpy", "values read on the host")
        return np.asarray(bare(array))

    def strided(self, array: Any, shape: Sequence[int], strides: Sequence[int]) -> Any:
        return NAMESPACE.lib.stride_tricks.as_strided(array, shape, strides)

    def parallel_for(
        self, body: Callable[[Any], None], chunks: Iterable[Any], uses_blas: bool = True, shared: bool = True
    ) -> None:
        tracer = current_tracer()
        if tracer is None:
            super().parallel_for(body, chunks, uses_blas, shared)  # type: ignore[misc]
        else:
            tracer.loop(body, list(chunks), uses_blas, shared)


@contextmanager
def traced(device: Any) -> Iterator[None]:
    """Let the CPU device trace the arrays of the threads that record, until the block ends.

    It is the device itself that changes, since others may have kept it: plans of convolutions, tensors, users.
    """
    plain = type(device)
    tracing = _classes.setdefault(plain, type(plain.__name__, (Tracing, plain), {}))
    try:
        device.__class__, device.xp = tracing, NAMESPACE
        yield
    finally:
        device.__class__, device.xp = plain, np


_classes: dict[type, type] = {}  # the class of a CPU device -> the one it has meanwhile
