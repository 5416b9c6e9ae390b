"""CuPy's public names with their signatures, read from `signatures.txt`, and a check of calls against them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

VERSION, *_LINES = Path(__file__).with_name("signatures.txt").read_text("utf-8").splitlines()


def _table() -> dict[str, dict[str, str]]:
    """Kind -> name -> the rest of its line."""
    table: dict[str, dict[str, str]] = {}
    for line in _LINES:
        kind, _, entry = line.partition(" ")
        name = entry.partition("(")[0].partition(" ")[0]
        table.setdefault(kind, {})[name] = entry[len(name) :]
    return table


TABLE = _table()


@cache
def binder(kind: str, name: str) -> Callable[..., None]:
    """A function with CuPy's parameters that only raises the errors of wrong calls."""
    scope: dict[str, Any] = {"__name__": __name__}
    plain = name.rpartition(".")[2]
    exec(f"def {plain}{TABLE[kind][name]}: pass", scope)
    bind: Callable[..., None] = scope[plain]
    return bind
