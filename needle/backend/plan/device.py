"""The CPU as the device of traced arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from needle.backend.plan.namespace import NAMESPACE
from needle.backend.plan.traced import Traced, bare
from needle.backend.recording import CannotRecord, noting

__all__ = ["Tracing"]


class Tracing:
    """What a device of traced arrays does differently from the CPU, its other base. It equals the CPU.

    Where this thread records nothing, it is the CPU: traced arrays may outlive their recording.
    """

    xp = NAMESPACE

    def array_type(self) -> type:
        return Traced

    def to_host(self, array: Any) -> Any:
        if noting.recorder is not None and isinstance(array, Traced):
            raise CannotRecord("numpy", "a value read on the host")
        return np.asarray(bare(array))

    def strided(self, array: Any, shape: Sequence[int], strides: Sequence[int]) -> Any:
        return NAMESPACE.lib.stride_tricks.as_strided(array, shape, strides)

    def address(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])

    def parallel_for(
        self, body: Callable[[Any], None], chunks: Iterable[Any], uses_blas: bool = True, shared: bool = True
    ) -> None:
        tracer: Any = noting.recorder
        if tracer is None:
            super().parallel_for(body, chunks, uses_blas, shared)  # type: ignore[misc]
        else:
            tracer.loop(body, list(chunks), uses_blas, shared)
