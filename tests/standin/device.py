"""The stand-in device: needle's CUDA device with the stand-in's namespace instead of CuPy's, and a peer of it."""

from __future__ import annotations

from needle.backend import CudaDevice, Device
from needle.backend_ndarray import BackendDevice
from tests.standin.array import DLPACK_TYPE
from tests.standin.namespace import xp as namespace


class StandIn(BackendDevice, CudaDevice):
    """A device whose namespace behaves as CuPy's does; `tests.standin.array.counts` counts its transfers."""

    kind = "standin"
    xp = namespace
    dlpack_type = DLPACK_TYPE
    recognizes = Device.recognizes
    matmul = Device.matmul  # it has no cuBLAS
    uploads, record = Device.uploads, Device.record  # and no streams

    def seed(self, number: int) -> None:
        with self.current():
            namespace.random.seed(number)

    def problem(self) -> None:
        return None


STANDIN = StandIn()  # `standin`, index 0
PEER = STANDIN.peer(1)  # `standin:1`: another device with the same class of arrays
