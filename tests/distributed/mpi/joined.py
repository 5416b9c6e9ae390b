"""A program of ranks that `join`: `python -m tests.distributed.mpi.joined DEED RANKS`, such as `raise 1,2`.

The ranks named do the deed, after a few exchanges; the others go on with them.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np

from needle import distributed
from needle.backend.blas import worker_count
from needle.distributed import endings, join, joining

SECONDS = 30  # for which the others go on
TIMEOUT = 2.0  # seconds of patience with a rank that is stopped; the others share its cores, and must come by then


def main(deed, doers):
    joining.PATIENCE = 3.0 if deed == "die before" else 20.0  # Intel's launcher waits for a rank killed before MPI_Init
    if deed == "die before" and RANK in doers:
        os._exit(3)
    if deed in ("raise", "exit 3"):
        endings.HEARING = 20.0  # all of these hear of it, however busy the machine is
    if deed == "exit 0" and RANK == 1:  # as a program may have no output of its own
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        sys.stdout.close()
    np.random.seed(os.getpid() % 1000)
    random.seed(os.getpid())
    with join(TIMEOUT if deed.startswith("stop") else 1800) as communicator:
        rank = communicator.rank
        begun = [rank, os.getpid(), worker_count(), np.random.randint(1 << 30), random.getrandbits(30)]
        gathered = communicator.all_gather(np.array([begun]))
        if rank == 0:
            say(np.concatenate(gathered).tolist())
        exchange(communicator, 0.2)
        if rank in doers and deed in DEEDS:
            DEEDS[deed]()
        elif deed in ("compute", "raise beside work"):
            time.sleep(SECONDS)
        elif deed not in ("return all", "stop in the end"):
            exchange(communicator, 0.1 if deed == "fail between" else SECONDS)
    if deed == "fail between":
        if rank in doers:
            fail()
        with join():
            pass
    say(f"rank {rank} goes on")


def say(text):
    sys.stdout.write(f"{text}\n")  # `join` has it written at once


def exchange(communicator, seconds):
    """Sum for that long by rank 0's clock."""
    end = time.monotonic() + seconds
    is_over = np.zeros(())
    while not is_over:
        is_over[...] = communicator.rank == 0 and time.monotonic() > end
        communicator.all_reduce(is_over)
        communicator.all_reduce(np.ones(50_000))


def fail():
    raise LookupError("mine")


def fail_before_a_late_reader():
    """Fail where somebody reads the message a second later, if this process still lives then."""
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    program = f"sleep 1; if [ -e /proc/{os.getpid()}/fd/2 ]; then cat > '{os.environ['NEEDLE_READ']}'; fi"
    subprocess.run(["setsid", "sh", "-c", f"({program}) > /dev/null 2>&1 < /dev/fd/{reading} &"], pass_fds=[reading])
    os.close(reading)
    endings.READING = 30.0  # the reader is late, and the machine may be
    fail()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)


def fork_and_exit():
    """A process that a rank forks is none: it cannot exchange, and may leave the block at any time."""
    if distributed.current_communicator().rank:
        os.kill(os.getpid(), signal.SIGINT)  # which is rank 0's
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # MPI has threads
        child = os.fork()
    if child == 0:
        try:
            distributed.current_communicator().all_reduce(np.ones(3))
        except RuntimeError as error:
            sys.exit(5 if "this process is not" in str(error) else 6)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    program = "from needle import distributed\nwith distributed.join() as ranks: raise SystemExit(4 + ranks.size)"
    status = status if subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 5 else 8
    sys.exit(0 if status == 5 else status or 7)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(SECONDS)  # the launcher of Open MPI 4 wakes it before it kills it


DEEDS = {
    "raise": fail,
    "raise beside work": fail,
    "raise before a late reader": fail_before_a_late_reader,
    "exit 3": lambda: sys.exit(3),
    "exit 0": fork_and_exit,
    "exit text": lambda: sys.exit("why"),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupt": interrupt,
    "return": lambda: None,
    "stop": stop,
    "stop in the end": stop,
}
RANK = int(os.environ.get("PMI_RANK", os.environ.get("PMIX_RANK", "0")))

if __name__ == "__main__":
    main(sys.argv[1], [int(rank) for rank in sys.argv[2].split(",") if rank])
