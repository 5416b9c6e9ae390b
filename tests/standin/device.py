"""The stand-in device: needle's CUDA device with the stand-in's namespace in the place of CuPy's."""

from __future__ import annotations

from needle.backend.device import CudaDevice
from tests.standin.array import DLPACK_TYPE
from tests.standin.namespace import xp as namespace


class StandIn(CudaDevice):
    """A device whose namespace behaves as CuPy's does; `tests.standin.array.counts` counts its transfers."""

    xp = namespace
    dlpack_type = DLPACK_TYPE

    def __init__(self) -> None:
        self.name = "standin"
        self.kernels = {}

    def seed(self, number: int) -> None:
        namespace.random.seed(number)

    def enabled(self) -> bool:
        return True


STANDIN = StandIn()
