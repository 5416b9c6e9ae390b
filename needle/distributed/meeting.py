"""What ranks that `mpiexec` has started tell each other outside of the block of `join`: that they join, fail, or end.

These messages have a communicator of MPI of their own, made in the first `join` and kept until `MPI_Finalize`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from needle.distributed.interrupts import Interrupts
from needle.distributed.waiting import late, wait_until

__all__ = ["Words", "meet", "wait_at_end"]

JOINS, ENDS = range(2)

_common: list[Any] = []  # the communicator, once there is one


class Words:
    """Two numbers that this rank tells all others, and what those have told by now: `heard`, by rank."""

    def __init__(self, first: int, second: int = 0) -> None:
        (comm,) = _common
        rank, size = comm.Get_rank(), comm.Get_size()
        self.heard: dict[int, tuple[int, int]] = {}
        self._mine, self._theirs = np.array([first, second], "int64"), np.zeros((size, 2), "int64")
        others = [other for other in range(size) if other != rank]
        self._sending = [comm.Isend(self._mine, other) for other in others]
        self._receiving = {other: comm.Irecv(self._theirs[other], other) for other in others}

    def have_come(self) -> bool:
        """Whether all have said something."""
        for request in self._sending:
            request.Test()
        for rank in self.missing():
            if self._receiving[rank].Test():
                self.heard[rank] = int(self._theirs[rank, 0]), int(self._theirs[rank, 1])
        return len(self.heard) == len(self._receiving)

    def missing(self) -> list[int]:
        return [rank for rank in self._receiving if rank not in self.heard]


def meet(world: Any, timeout: float | None) -> None:
    """Wait until all ranks of MPI's communicator `world` join.

    Raises RuntimeError if one ends its program instead, TimeoutError if one does neither.
    """
    if not _common:
        comm, request = world.Idup()
        wait_until(request.Test, timeout=timeout, too_late=lambda seconds: late("join", "join", (), seconds))
        _common.append(comm)
        _wait_before_finalize()
    words = Words(JOINS)

    def ended() -> list[int]:
        return [rank for rank, (deed, _) in words.heard.items() if deed != JOINS]

    wait_until(
        lambda: words.have_come() or bool(ended()),
        timeout=timeout,
        too_late=lambda seconds: late("join", "join again", words.missing(), seconds),
    )
    if ended():
        raise RuntimeError(f"join: all ranks must join again, but rank {ended()[0]} has ended")


def _wait_before_finalize() -> None:
    """Begin MPI_Finalize with `wait_at_end`: a program may call it on some ranks only."""
    from mpi4py import MPI

    key = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, value: wait_at_end())
    MPI.COMM_SELF.Set_attr(key, None)  # MPI_Finalize begins with freeing this communicator


def wait_at_end() -> None:
    """Wait at the end of the program until the others come there; one that joins again raises an error instead.

    There is no limit: `mpiexec` waits for all programs as well.
    """
    if _common:
        with Interrupts() as interrupts:
            interrupts.end_all()
            words = Words(ENDS)
            _common.clear()
            wait_until(words.have_come)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_common.clear)  # MPI's messages belong to the parent
