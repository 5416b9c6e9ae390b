"""The current device of a thread, as in CuPy."""

from __future__ import annotations

import threading
from typing import Any


class DeviceContext:
    """CuPy's `cuda.Device`: within `with`, or after `use()`, the current device of the thread."""

    _of_thread = threading.local()

    def __init__(self, device: int) -> None:
        self.id = device

    @classmethod
    def current(cls) -> DeviceContext:
        return getattr(cls._of_thread, "device", DEVICES[0])

    def use(self) -> None:
        DeviceContext._of_thread.device = self

    def __enter__(self) -> DeviceContext:
        self._before = (*getattr(self, "_before", ()), DeviceContext.current())
        self.use()
        return self

    def __exit__(self, *_: Any) -> None:
        *self._before, before = self._before
        before.use()


DEVICES = [DeviceContext(0), DeviceContext(1)]
