"""The time of a training step on several machines, from the latency and the bandwidth between them: an α-β model.

A message of s bytes takes α + β s seconds (Hockney, "The communication challenge for MPP", 1994), so a sum of an array
of s bytes over n ranks takes, with the messages of needle/distributed/mpi.py, where every rank sends to each other one,

    small arrays, which go whole to all       α + β (n - 1) (s + header)
    large ones, by shares                    3α + β (2 (n - 1) / n · s + (n - 1) header)

A step takes what one rank computes for its part of the batch, the sums for which it waits, one after the other, and
those of the gradients. These follow each other without a pause: of them the last alone shows its latency, and where the
ranks also exchange while backward computes, only what is left at its end takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Call", "Link", "exchange_seconds", "sent_bytes", "step_seconds"]

OPENING = 264  # bytes of the message with which a sum begins, without the array
WHOLE = 1 << 16  # bytes of arrays in such messages that a rank sends at most; tests hold both to needle's


@dataclass(frozen=True)
class Link:
    """What lies between ranks: α, the seconds of an exchange of next to nothing; β, those of a byte that leaves one."""

    latency: float
    per_byte: float


@dataclass(frozen=True)
class Call:
    """A sum over the ranks in a step: the bytes of the array, and whether the rank waits for it at once."""

    size: int
    waits: bool


def sent_bytes(size: int, ranks: int) -> float:
    """The bytes that a rank sends to sum arrays of `size` bytes."""
    opening, whole = (ranks - 1) * OPENING, (ranks - 1) * size
    return opening + (whole if whole <= WHOLE else 2 * (ranks - 1) / ranks * size)


def exchange_seconds(link: Link, size: int, ranks: int) -> float:
    """The time to sum arrays of `size` bytes if all ranks come at once."""
    rounds = 1 if (ranks - 1) * size <= WHOLE else 3
    return rounds * link.latency + link.per_byte * sent_bytes(size, ranks)


def step_seconds(link: Link, calls: Sequence[Call], ranks: int, compute: float, hidden: float = 0.0) -> float:
    """The time of a step: `compute` seconds, and its calls, of which at most `hidden` seconds go on meanwhile."""
    if ranks == 1:
        return compute
    waited = [exchange_seconds(link, call.size, ranks) for call in calls if call.waits]
    started = [exchange_seconds(link, call.size, ranks) for call in calls if not call.waits]
    bytes_sent = sum(sent_bytes(call.size, ranks) for call in calls if not call.waits)
    if not started:
        return compute + sum(waited)
    last = started[-1]
    total = last + link.per_byte * (bytes_sent - sent_bytes(calls[-1].size, ranks))
    return compute + sum(waited) + max(last, total - hidden)
