"""What `mpiexec` and `srun` tell the processes that they start, in variables of the environment."""

from __future__ import annotations

import os
import stat
import warnings
from contextlib import suppress
from typing import NamedTuple

from needle.backend.communicator import DEFAULT, current_communicator

__all__ = ["Launched", "launched", "mark_as_rank", "warn_of_others"]

# The number of processes, and which one this is. The first pair counts whose number is set. SLURM_NTASKS is not among
# them: Slurm sets it in a batch script, too, where no srun has started anything.
VARIABLES = {
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "FLUX_JOB_SIZE": "FLUX_TASK_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}
RANK = "PMIX_RANK"  # all that some launchers tell
MARK = "NEEDLE_RANK"  # of the programs that a rank starts: its process, and the name of its job
_warned: list[str] = []  # the op that has warned


class Launched(NamedTuple):
    """One of the processes that a launcher has started."""

    rank: int
    size: int  # at least, where the launcher tells only the rank
    variable: str  # by which it tells

    def __str__(self) -> str:
        if self.variable == RANK:
            return f"{self.size} processes or more ({RANK}={self.rank})"
        return f"{self.size} processes ({self.variable}={self.size})"


def launched() -> Launched | None:
    """Which one of the processes that `mpiexec` or `srun` has started this is; None if no launcher has started it.

    The result has `rank` and `size`. Whether it has joined the others, `current_communicator()` tells. A program that a
    rank has started is none of them, though it has the variables.

    >>> launched() is None
    True
    """
    if _is_of_a_rank():
        return None
    for variable, rank in VARIABLES.items():
        size = _number(variable)
        if size is not None:
            return Launched(_number(rank) or 0, size, variable)
    only = _number(RANK)
    return None if only is None else Launched(only, only + 1, RANK)


def mark_as_rank() -> None:
    """Let programs that this process starts know that they are no ranks: to MPI they would be this one once more."""
    os.environ[MARK] = f"{os.getpid()} {os.environ.get('PMIX_NAMESPACE')}"
    connection = _number("PMI_FD")
    if connection is not None:
        with suppress(OSError):
            os.set_inheritable(connection, False)


def _is_of_a_rank() -> bool:
    """Whether a rank has started this program: a launcher in between gives another connection, or name of the job."""
    process, _, job = os.environ.get(MARK, "").partition(" ")
    if process in ("", str(os.getpid())):
        return False
    connection = _number("PMI_FD")
    if connection is None:
        return job == str(os.environ.get("PMIX_NAMESPACE"))
    try:
        return not stat.S_ISSOCK(os.fstat(connection).st_mode)
    except OSError:
        return True


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None


def warn_of_others(op: str) -> None:
    """Warn once, on the first of several processes of a launcher, that each trains alone: `join` may be forgotten.

    It is meant where somebody has said `using(Alone())`.
    """
    me = launched() if current_communicator() is DEFAULT and not _warned else None
    if me is not None and me.size > 1:
        _warned.append(op)
        if me.rank == 0:
            warnings.warn(
                f"{op}: a launcher has started {me}, of which each trains a network of its own: put the program into "
                "`with needle.distributed.join():`, or, if that is meant, into `with using(Alone()):`",
                RuntimeWarning,
                stacklevel=3,
            )
