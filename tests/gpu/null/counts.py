"""What a piece of code asks of the null device, in all and by op.

with counting() as counts:
    loss.backward()
counts.launches, counts.uploads, counts.by_op["Conv"]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from needle import graph
from tests.gpu.null import device

LAUNCHES = ("kernel", "gemm", "memset", "d2d", "random")
KINDS = (*LAUNCHES, "nccl", "h2d", "d2h", "wait", "graph", "malloc", "hostalloc", "event", "refused", "escaped")
OUTSIDE = "outside of ops"


class Counts:
    """The requests of one `with counting()`; each property is valid within it and after it."""

    def __init__(self) -> None:
        self.before, self.after = now(), None
        self.by_op: dict[str, Counter[str]] = {}
        self.calls: Counter[str] = Counter()
        self.journal: list[str] = []  # of kernels, products and copies, in order; filled at the end

    def __getitem__(self, kind: str) -> int:
        return (self.after or now())[kind] - self.before[kind]

    @property
    def launches(self) -> int:
        """Kernels, products, fills and copies within the device."""
        return sum(self[kind] for kind in LAUNCHES)

    @property
    def uploads(self) -> int:
        return self["h2d"]

    @property
    def downloads(self) -> int:
        return self["d2h"]

    @property
    def waits(self) -> int:
        """How often the host waited for the device, downloads included."""
        return self["wait"]

    @property
    def graph_launches(self) -> int:
        return self["graph"]

    def __repr__(self) -> str:
        return ", ".join(f"{kind} {self[kind]}" for kind in KINDS if self[kind])


def now() -> Counter[str]:
    """The requests so far."""
    return Counter({kind: device.running().null_count(kind.encode()) for kind in KINDS})


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens within."""
    library = device.running()
    library.null_reset()
    library.null_journal(1)
    counts = Counts()
    with _watched(counts):
        yield counts
    counts.after = now()
    library.null_journal(0)
    counts.journal = library.null_entries().decode().splitlines()


@contextmanager
def _watched(counts: Counts) -> Iterator[None]:
    """Account requests to the op that runs, innermost first."""
    stack = [(OUTSIDE, counts.before)]

    def account() -> None:
        name, since = stack[-1]
        counts.by_op.setdefault(name, Counter()).update(now() - since)

    def watched(function: Callable[..., Any], suffix: str) -> Callable[..., Any]:
        @wraps(function)
        def run(op: Any, *arguments: Any) -> Any:
            account()
            name = type(op).__name__ + suffix
            counts.calls[name] += 1
            stack.append((name, now()))
            try:
                return function(op, *arguments)
            finally:
                account()
                stack.pop()
                stack[-1] = stack[-1][0], now()

        return run

    places = []  # every module of needle has names of its own for the two functions
    for original, suffix in ((graph.run, ""), (graph.run_gradient, " gradient")):
        replacement = watched(original, suffix)
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "needle"]:
            for name, value in list(vars(module).items()):
                if value is original:
                    places.append((module, name, original))
                    setattr(module, name, replacement)
    try:
        yield
    finally:
        account()
        for module, name, original in places:
            setattr(module, name, original)
