"""What ranks get whose calls differ, or of which one fails: the text of the error, by case."""

from __future__ import annotations

import contextlib

import numpy as np
from mpi4py import MPI

from needle import tuning
from needle.distributed import mpi
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
    return results | {"facts": _facts(MpiCommunicator(MPI.COMM_WORLD))}


def _facts(communicator):
    """What holds of calls that are refused, of many small sums, of sums that nobody waits for, and at the end."""
    fixed, refused = np.zeros(2), []
    fixed.flags.writeable = False
    for call in (communicator.all_reduce, lambda array: communicator.broadcast(array, -1)):
        try:
            call(fixed)
        except ValueError as error:
            refused.append(str(error))
    for length in range(mpi.SMALL_KINDS + 2):
        communicator.all_reduce(np.zeros(length))
    large = communicator._whole_bytes // 8  # whose message is read by the other while this rank goes on
    in_a_row = [np.full(large, float(number)) for number in range(50)]
    for array in in_a_row:
        communicator.all_reduce(array)
    arrays = [np.full(LARGE, communicator.rank + 1) for _ in range(3)]
    for array in arrays:
        communicator.start_all_reduce(array)
    pieces = len(communicator._to_sum) + len(communicator._to_take)
    requests, comm = [*communicator._receiving], communicator._comm
    communicator.leave()
    return {
        "pieces are few": pieces <= tuning.MPI_PIECES,
        "kinds are few": len(communicator._small) <= mpi.SMALL_KINDS,
        "sums in a row": all((array == number * communicator.size).all() for number, array in enumerate(in_a_row)),
        "refused": refused,
        "sums": {array.mean() for array in arrays},
        "kept": [request for request in requests if request != MPI.REQUEST_NULL] + [comm] * (comm != MPI.COMM_NULL),
    }


def _sum(shape=(2,), dtype="float32", wire=None):
    return lambda communicator: communicator.all_reduce(np.zeros(shape, dtype), wire)


def _sum_of_pieces(more=0):
    """A sum of one piece, or of two that are half as long."""

    def call(communicator):
        communicator.all_reduce(np.zeros(communicator.size * tuning.MPI_SHARE_BYTES // 8 + more))

    return call


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


def _fail_and_go_on(communicator):
    communicator.start_all_reduce(np.zeros(LARGE))
    communicator.fail()
    communicator.progress()
    raise AssertionError("a rank that has failed takes no steps")


def _interrupted(shape):
    """Ctrl-C in the midst of a call, after which the program wants to go on."""

    def call(communicator):
        def interrupt(header):
            raise KeyboardInterrupt

        communicator._compare_calls = interrupt
        with contextlib.suppress(KeyboardInterrupt):
            communicator.all_reduce(np.zeros(shape))
        communicator.barrier()

    return call


def _slowly(call):
    """A call whose openings are here long after the pieces of its array."""

    def slow(communicator):
        own, looks = communicator._are_done, iter(range(100))
        communicator._are_done = lambda requests: (
            own(requests) and (requests is not communicator._receiving or next(looks, None) is None)
        )
        call(communicator)

    return slow


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
    "rank 0 fails and goes on": _differ(_fail_and_go_on, _start(3, LARGE)),
    "rank 0 fails by an interrupt": _differ(_interrupted(2), _start(2, 2)),
    "others fail by an interrupt, large": _differ(_start(2, LARGE), _interrupted(LARGE)),
    "lengths, large, and openings are late": _differ(_slowly(_sum_of_pieces()), _slowly(_sum_of_pieces(more=1))),
}
