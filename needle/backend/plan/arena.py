"""The memory of a plan: blocks that are given out while it is recorded, and never given back to the system.

A block that nobody uses any more serves the next array, as freed memory does. The order of giving out is recorded with
the calls, so it is the same in each replay. Parts of a loop may run side by side: what one of them frees serves the
others only after the loop.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["Arena", "Block"]

Block: TypeAlias = Any  # an array of bytes, of which arrays are views

ALIGNMENT = 64  # bytes of a cache line
SPARE = 2  # a block serves arrays of at least this part of its size


class Arena:
    """Blocks of memory, of which some are free."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}  # by id
        self.owners: set[int] = set()  # the ids of the arrays that own the memory of the blocks
        self.free: list[Block] = []
        self.own: list[Block] | None = None  # within a part of a loop: the blocks that it has taken and freed
        self.taken: set[int] = set()  # the ids of those that it has taken
        self.late: list[Block] = []  # freed within parts of a loop that still goes on

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes: the smallest of those free, if it is not much too large."""
        for free in (self.own or [], self.free):
            fitting = [block for block in free if size <= block.size <= SPARE * size + ALIGNMENT]
            if fitting:
                block = min(reversed(fitting), key=len)  # of several the one freed last, which may be in the cache
                free[:] = [other for other in free if other is not block]
                self.taken.add(id(block))
                return block
        size = -(-max(1, size) // ALIGNMENT) * ALIGNMENT
        memory = np.zeros(size + ALIGNMENT, "uint8")
        start = -memory.ctypes.data % ALIGNMENT
        block = memory[start : start + size]
        self.blocks[id(block)] = block
        self.owners.add(id(memory))
        self.taken.add(id(block))
        return block

    def give(self, block: Block) -> None:
        """Take back a block; within a part of a loop, one of another part may still be in use there in a replay."""
        if self.own is None:
            self.free.append(block)
        else:
            (self.own if id(block) in self.taken else self.late).append(block)

    def begin_part(self) -> None:
        """From now on, blocks that are freed serve only this part of a loop."""
        self.own, self.taken = [], set()

    def end_part(self) -> None:
        """The end of `begin_part`."""
        self.late += self.own or []
        self.own = None

    def end_loop(self) -> None:
        """Let the blocks that the parts have freed serve all that follows."""
        self.free += self.late
        self.late = []
