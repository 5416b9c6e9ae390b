"""A program of `ranks.run`: the bytes that leave this machine while ranks sum large arrays."""

import time
from pathlib import Path

import numpy as np

COUNTER = Path("/sys/class/net/eth0/statistics/tx_bytes")


def main(communicator, size, count, wires):
    """The bytes that this rank's machine sends for `count` sums of float32 arrays of `size` bytes, by wires."""
    array, sent = np.ones(size // 4, "float32"), []
    communicator.all_reduce(array)  # connects all with all
    for wire in wires:
        communicator.barrier()
        time.sleep(0.1)  # what the barrier and TCP have left to say
        before = int(COUNTER.read_text())
        for _ in range(count):
            communicator.all_reduce(array, wire)
        communicator.barrier()
        sent.append(int(COUNTER.read_text()) - before)
    return sent
