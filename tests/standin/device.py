"""The stand-in device: needle's device of CuPy's arrays where there is neither CuPy nor a GPU."""

from __future__ import annotations

from typing import Any

from needle.backend_ndarray import BackendDevice, cuda
from tests.standin.namespace import xp


class StandIn(BackendDevice):
    """A device whose namespace behaves as CuPy's does; `tests.standin.array.counts` counts its transfers."""

    waits, block_factor = cuda().waits, cuda().block_factor

    def __init__(self) -> None:
        super().__init__("standin", xp)

    def to_host(self, array: Any) -> Any:
        return self.xp.asnumpy(array)


STANDIN = StandIn()
