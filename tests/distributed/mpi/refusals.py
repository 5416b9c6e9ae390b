"""What ranks get whose calls differ, or of which one fails: the text of the error, by case."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from needle.distributed.mpi import MpiCommunicator

LARGE = 300_000


def main(_):
    results = {}
    for name, call in CASES.items():
        communicator = MpiCommunicator(MPI.COMM_WORLD)
        try:
            call(communicator)
            communicator.leave()
            results[name] = "no error"
        except RuntimeError as error:
            results[name] = f"{type(error).__name__}: {error}"
            communicator.fail()
    return results


def _sum(shape=(2,), dtype="float32", wire=None):
    return lambda communicator: communicator.all_reduce(np.zeros(shape, dtype), wire)


def _start(count, length):
    def call(communicator):
        arrays = [np.zeros(length) for _ in range(count)]
        requests = [communicator.start_all_reduce(array) for array in arrays]
        for request in requests:
            request.wait()

    return call


def _send(root, length=2):
    return lambda communicator: communicator.broadcast(np.zeros(length), root)


def _gather(shape=(2,)):
    return lambda communicator: communicator.all_gather(np.zeros(shape))


def _fail(communicator):
    communicator.fail()
    communicator.barrier()


def _differ(first, others):
    """Rank 0 makes the first call, the others make the other one."""
    return lambda communicator: others(communicator) if communicator.rank else first(communicator)


def _barrier(communicator):
    communicator.barrier()


def _nothing(communicator):
    pass


CASES = {
    "lengths": _differ(_sum((2,)), _sum((3,))),
    "lengths, large": _differ(_sum(LARGE), _sum(LARGE + 1)),
    "lengths, small and large": _differ(_sum((2,)), _sum(LARGE)),
    "lengths, large and small": _differ(_sum(LARGE), _sum((2,))),
    "shapes": _differ(_sum((2, 3)), _sum((3, 2))),
    "dtypes": _differ(_sum(dtype="float32"), _sum(dtype="int32")),
    "axes": _differ(_sum(()), _sum((1,))),
    "wires": _differ(_sum(wire="float16"), _sum(wire="bfloat16")),
    "wire and none": _differ(_sum(), _sum(wire="bfloat16")),
    "roots": _differ(_send(0), _send(1)),
    "roots, large": _differ(_send(0, LARGE), _send(1, LARGE)),
    "sum and broadcast": _differ(_sum((2,), "float64"), _send(0)),
    "sum and broadcast, large": _differ(_sum(LARGE, "float64"), _send(0, LARGE)),
    "sum and gather": _differ(_sum((2,), "float64"), _gather()),
    "sum and barrier": _differ(_sum(), _barrier),
    "gathered shapes": _differ(_gather((2, 3)), _gather((2, 4))),
    "one sum more than those who have returned": _differ(_start(3, 2), _start(2, 2)),
    "one large sum more than those who have returned": _differ(_start(5, LARGE), _start(4, LARGE)),
    "rank 0 have returned": _differ(_nothing, _sum()),
    "others have returned": _differ(_sum(LARGE), _nothing),
    "rank 0 fails": _differ(_fail, _sum()),
    "rank 0 fails, large": _differ(_fail, _start(3, LARGE)),
    "others fail": _differ(_barrier, _fail),
}
