"""The CPU device: NumPy, with threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from needle.backend import blas, parallel
from needle.backend.device import Device, DTypeLike
from needle.backend.recording import Recording, drawn

__all__ = ["CpuDevice"]


class CpuDevice(Device):
    """The CPU: NumPy's arrays and scalars, and as many threads as BLAS may use."""

    def __init__(self) -> None:
        super().__init__("cpu", np)

    def recognizes(self, array: Any) -> bool:
        return isinstance(array, (np.ndarray, np.generic))

    matmul: Any = staticmethod(np.matmul)  # without a call in between

    def draw_key(self) -> None:
        return None

    def draws(self, shape: tuple[int, ...]) -> Any:
        return drawn(lambda: np.random.random_sample(shape))

    def uniform(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Any:
        return drawn(partial(super().uniform, shape, dtype))

    def normal(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Any:
        return drawn(partial(super().normal, shape, dtype))

    def record(self, function: Callable[[], object]) -> Recording:
        from needle.backend.plan.recording import record  # a program that records nothing does without

        return record(self, function)

    def strided(self, array: Any, shape: Sequence[int], strides: Sequence[int]) -> Any:
        return np.ndarray(shape, array.dtype, array, 0, strides)  # `as_strided` takes 4 µs, this 0.7

    def parallel_for(
        self, body: Callable[[Any], None], chunks: Iterable[Any], uses_blas: bool = True, shared: bool = True
    ) -> None:
        parallel.parallel_for(body, chunks, uses_blas, shared)

    def worker_count(self) -> int:
        return blas.worker_count()
