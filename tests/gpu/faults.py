"""Faults that are planted into CUDA sources, to see that the tests find them.

Each test module of a kernel lists its own in FAULTS; `test_faults.py` plants them one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A change of a source, and a test that must fail with it: `test(run=run)`, in a checked run."""

    source: str  # "pool.cu"
    what: str
    text: str  # occurs once in the source, or in common.cu before it
    replacement: str
    test: Callable[..., Any]
