"""A plugin of pytest: the tests of raw kernels launch them on the GPU, or on the null device, in place of the CPU.

python -m pytest -p tests.gpu.on_gpu tests/gpu/test_pool.py …

Arrays of the shim device lie in pinned memory, which a GPU reads and writes at the host's addresses: the tests and the
launchers stay as they are. Runs that check each access belong to the CPU and are skipped.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import pytest

if os.environ.get("NEEDLE_NULL_DEVICE"):
    from tests.gpu.null import device

    device.start()

import cupy

from tests.gpu import kernels


def pinned(size: int) -> kernels.Memory:
    return np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size).view(kernels.Memory)


@cache
def function(text: str, name: str) -> Any:
    return cupy.RawModule(code=text, options=("--std=c++17",)).get_function(name)


class Module(kernels.Module):
    """The kernels of a source, compiled by NVRTC and launched on the GPU."""

    def launch(self, name: str, grid: Any, block: Any, arguments: Any) -> None:
        if kernels._run.checked:
            pytest.skip("each access is checked on the CPU alone")
        addresses = [np.uint64(each.ctypes.data) if isinstance(each, np.ndarray) else each for each in arguments]
        function(self.text, name)(tuple(grid), tuple(block), tuple(addresses))
        cupy.cuda.Device().synchronize()


kernels.reserve = pinned
kernels.Module = Module  # type: ignore[misc]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out what only the CPU does."""
    items[:] = [item for item in items if getattr(item, "callspec", None) is None or "checked" not in item.callspec.id]
