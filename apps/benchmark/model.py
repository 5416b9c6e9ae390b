"""The time of a training step on several machines, from the latency and the bandwidth between them: an α-β model.

A message of s bytes takes α + β s seconds (Hockney, "The communication challenge for MPP", 1994), so a sum of an array
of s bytes over n ranks takes, with the messages of needle/distributed/mpi.py, where every rank sends to each other one,

    small arrays, which go whole to all       α + β (n - 1) (s + header)
    large ones, by shares                    3α + β (2 (n - 1) / n · s + (n - 1) header)

In a step a rank computes, waits for some sums, as those of batch norm, and only starts others, those of gradients. They
go one after the other while backward computes; what is left when the step needs them takes time, and so does a sum that
comes behind them. Of sums that follow each other without a pause the last alone shows its latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Call", "Link", "Step", "exchange_seconds", "sent_bytes", "step_seconds"]

OPENING = 264  # bytes of the message with which a sum begins, without the array
WHOLE, PAIR = 1 << 16, 1 << 18  # bytes of arrays in them that a rank, or one of two, sends at most; tests hold all


@dataclass(frozen=True)
class Link:
    """What lies between ranks: α, the seconds of an exchange of next to nothing; β, those of a byte that leaves one."""

    latency: float
    per_byte: float


@dataclass(frozen=True)
class Call:
    """A sum over the ranks in a step: the bytes of the array, whether the rank waits, what it has computed before."""

    size: int
    waits: bool
    at: float  # share of what the rank computes in a step


@dataclass(frozen=True)
class Step:
    """The sums of a step in their order, and the share of computing after which it needs those that are started."""

    calls: Sequence[Call]
    needed: float


def sent_bytes(size: int, ranks: int) -> float:
    """The bytes that a rank sends to sum arrays of `size` bytes."""
    return (ranks - 1) * (OPENING + (size if goes_whole(size, ranks) else 2 / ranks * size))


def goes_whole(size: int, ranks: int) -> bool:
    """Whether an array of `size` bytes goes whole from each rank to each."""
    return (ranks - 1) * size <= (PAIR if ranks == 2 else WHOLE)


def exchange_seconds(link: Link, size: int, ranks: int) -> float:
    """The time to sum arrays of `size` bytes if all ranks come at once."""
    rounds = 1 if goes_whole(size, ranks) else 3
    return rounds * link.latency + link.per_byte * sent_bytes(size, ranks)


def step_seconds(link: Link, step: Step, ranks: int, compute: float) -> float:
    """The time of a step in which a rank computes for `compute` seconds."""
    waited = free = 0.0  # seconds that the rank has waited; the time at which the link is free
    last: Call | None = None  # that is started
    for call in step.calls if ranks > 1 else ():
        now = call.at * compute + waited
        begin = max(now, free)
        if call.waits:
            free = begin + exchange_seconds(link, call.size, ranks)
            waited += free - now
        else:
            free = begin + link.per_byte * sent_bytes(call.size, ranks)
            last = call
    if last is not None:
        end = free - link.per_byte * sent_bytes(last.size, ranks) + exchange_seconds(link, last.size, ranks)
        waited += max(0.0, end - step.needed * compute - waited)
    return compute + waited
