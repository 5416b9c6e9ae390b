"""Become one of the ranks that `mpiexec` or `srun` has started.

MPI is touched only where a launcher has started this process, so a program runs alone without it. What can only fail
in `MPI_Init`, which would end the process, is found before.
"""

from __future__ import annotations

import atexit
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from needle import check
from needle.backend import get_rng_state, set_rng_state
from needle.backend.blas import limited_to, worker_count
from needle.backend.communicator import Communicator, current_communicator, using
from needle.backend.cores import usable_cores
from needle.distributed.endings import Ending
from needle.distributed.interrupts import Interrupts
from needle.distributed.launchers import Launched, launched, mark_as_rank
from needle.distributed.meeting import meet
from needle.distributed.mpi import MpiCommunicator
from needle.distributed.waiting import TIMEOUT

__all__ = ["join"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "GOTO_NUM_THREADS")
GPUS = "CUDA_VISIBLE_DEVICES"
PATIENCE = 120.0  # seconds for all ranks to come: they may load Python from a slow disk


@contextmanager
def join(timeout: float | None = TIMEOUT) -> Iterator[Communicator]:
    """Be one of the ranks that `mpiexec` or `srun` has started, until the block ends; yields the communicator.

    Each rank runs the whole program. Within the block `current_communicator()` is that of the rank; all begin with
    rank 0's state of NumPy's and Python's random streams. BLAS gets this rank's share of the cores that the ranks of
    the machine share, or what OMP_NUM_THREADS says. `ndl.cuda()` is a GPU of this rank's own where there are enough;
    for that, `join` must come before the first use of a GPU. Started by no launcher, a program is the only rank.

    An error that leaves the block on any rank ends all of them, with one message and a status of `mpiexec` that is not
    zero; so does `sys.exit` of a status other than 0. The processes end there: nothing outside of the block runs. The
    ranks above 0 ignore Ctrl-C, which is rank 0's.

    A rank that has waited `timeout` seconds for others raises TimeoutError, for one may hang, and so may its machine.
    All must come to an exchange within that time, also from a long callback of rank 0. None: no limit.

    Raises ImportError without mpi4py; RuntimeError without an MPI library, if the launcher belongs to another one,
    within ranks, after MPI_Finalize, and if a rank ends its program where others `join` again; ValueError if `timeout`
    is not above 0.

    >>> with join() as communicator:
    ...     communicator.rank, communicator.size
    (0, 1)
    """
    if timeout is not None:
        timeout = check.number("join", "timeout", timeout, above=0)
    communicator: Communicator = current_communicator()
    if communicator.size > 1:
        raise RuntimeError(f"join: ranks cannot join others, but rank {communicator.rank} of {communicator.size} calls")
    process = launched()
    with Interrupts() as interrupts:
        world = None
        if process is not None:
            interrupts.end_all()  # until the others would learn how this rank ends
            world = _world(process)
        if world is None or world.Get_size() == 1:
            interrupts.restore()
            yield communicator
            return
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.closed:
            sys.stdout.reconfigure(line_buffering=True)  # no line is lost where this process is killed
        rank = world.Get_rank()
        with Ending(rank, world.Get_size()) as ending:
            interrupts.ignore() if rank else interrupts.restore()
            meet(world, timeout)
            with _time_limit(PATIENCE):
                communicator = ending.communicator = MpiCommunicator(world, timeout=timeout)
                threads = _begin_alike(communicator)
            with nullcontext() if threads is None else limited_to(threads), using(communicator):
                yield communicator


def _world(process: Launched) -> Any:
    """MPI's communicator of all processes. Raises an error if MPI does not know those that the launcher has started."""
    MPI = _mpi()
    version = MPI.Get_library_version().strip("\0\n ").partition("\n")[0]
    advice = "run the mpiexec of that library (`python -m needle.doctor` shows both)"
    if process.variable.startswith("OMPI_") and "MPICH" in version.upper():  # it would end the process in MPI_Init
        raise RuntimeError(f"join: mpiexec must belong to mpi4py's MPI library, {version}, but is Open MPI's; {advice}")
    if MPI.Is_finalized():
        raise RuntimeError("join: MPI must not have ended, but the program has called MPI.Finalize()")
    if not MPI.Is_initialized():
        _wait_for_all_ranks(MPI)
        atexit.register(_finalize, MPI, os.getpid())
    world = MPI.COMM_WORLD
    if world.Get_size() == 1 and process.size > 1:
        raise RuntimeError(
            f"join: the launcher must belong to mpi4py's MPI library, {version}, which knows of one process; but the "
            f"launcher has started {process}; {advice}, or `srun --mpi=` with a type that it has"
        )
    mark_as_rank()
    return world


def _mpi() -> Any:
    """The module of mpi4py, with the library loaded."""
    try:
        import mpi4py
    except ImportError as error:
        raise ImportError(
            "join: needs the package mpi4py, which `pip install 'needle-dl[mpi]'` installs, and an MPI library, but "
            f"got: {error}"
        ) from error
    before = mpi4py.rc.initialize
    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            "join: an MPI library must be installed that mpi4py can load, for example by `pip install mpich`, but got: "
            f"{error}"
        ) from error
    finally:
        mpi4py.rc.initialize = before
    return MPI


def _wait_for_all_ranks(MPI: Any) -> None:
    """Initialize MPI. Some launchers let the others wait without end for a rank that has died before."""
    with _time_limit(PATIENCE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a launcher of another MPI, which is an error here
        MPI.Init_thread(MPI.THREAD_SERIALIZED)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End this process with a traceback if the block takes longer, even where MPI waits and keeps Python's lock."""
    import faulthandler

    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _finalize(MPI: Any, process: int) -> None:
    """End MPI, if the program has not, but not in a fork of that process."""
    if os.getpid() == process and not MPI.Is_finalized():
        MPI.Finalize()


class _Place(NamedTuple):
    """Where a rank runs: the machine, the cores it may use, and how many of them its control groups pay for."""

    machine: str
    cores: frozenset[int]
    quota: int | None
    gpus: str | None

    @classmethod
    def here(cls) -> _Place:
        import platform

        try:
            machine = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()  # one per kernel
        except OSError:
            machine = platform.node()
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        cores, quota = frozenset(affinity), usable_cores()
        return cls(machine, cores, quota if quota < len(cores) else None, os.environ.get(GPUS))


def _begin_alike(communicator: Communicator) -> int | None:
    """Take rank 0's random streams and this rank's GPU; returns its number of threads, None for what BLAS has."""
    import random

    streams = (get_rng_state(), random.getstate()) if communicator.rank == 0 else None
    told = communicator.all_gather_object((_Place.here(), streams))
    if communicator.rank:
        numpy_state, python_state = told[0][1]
        set_rng_state(numpy_state)
        random.setstate(python_state)
    places = [place for place, _ in told]
    here = places[communicator.rank]
    number = [place.machine for place in places[: communicator.rank]].count(here.machine)
    on_machine = [place for place in places if place.machine == here.machine]
    if len(on_machine) > 1 and (gpu := _own_gpu(number, here.gpus)) is not None:
        os.environ[GPUS] = gpu
    return None if any(name in os.environ for name in THREADS) else min(worker_count(), _share(here, on_machine))


def _share(here: _Place, places: Sequence[_Place]) -> int:
    """How many cores a rank has, where those in `places` run, itself among them: of cores that several share a part."""
    share = sum(1 / sum(core in place.cores for place in places) for core in here.cores)
    if here.quota is not None:
        share = min(share, here.quota / len(places))
    return max(1, int(share + 1e-6))


def _own_gpu(number: int, visible: str | None, root: Path = Path("/proc/driver/nvidia/gpus")) -> str | None:
    """The GPU for the rank that is `number` on its machine, as CUDA_VISIBLE_DEVICES names it; None if there is none."""
    if visible is not None:
        names = [name for name in visible.split(",") if name.strip()]
    else:
        names = [str(i) for i, _ in enumerate(root.iterdir())] if root.exists() else []
    return names[number % len(names)] if names else None
