"""The adapters of needle on a GPU: eager, and with its training step captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import needle as ndl

from .needle import Needle

__all__ = ["CapturedNeedle", "CudaNeedle"]


class CudaNeedle(Needle):
    """needle on GPU 0. Losses stay there, so that steps follow each other without waiting."""

    burst = 10
    mode = "eager"

    def __init__(self) -> None:
        if problem := ndl.cuda().problem():
            raise SystemExit(f"benchmark: {problem}")
        ndl.set_default_device(ndl.cuda())

    def about(self) -> str:
        cupy = ndl.cuda().xp
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return f"needle {ndl.__version__} on {name} by CuPy {cupy.__version__}, {self.mode}"

    def wait(self) -> None:
        ndl.cuda().xp.cuda.Device().synchronize()

    def number(self, loss: ndl.Tensor) -> Any:
        return loss


class CapturedNeedle(CudaNeedle):
    """needle on GPU 0, each training step one graph."""

    mode = "captured"

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return ndl.capture(step)
