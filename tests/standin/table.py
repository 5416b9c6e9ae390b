"""What CuPy lets its users call, read from `signatures.txt`, and the binding of calls to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

VERSION, *_LINES = Path(__file__).with_name("signatures.txt").read_text("utf-8").splitlines()


def _table() -> dict[str, dict[str, str]]:
    """Kind -> name -> what its line says after the name."""
    table: dict[str, dict[str, str]] = {}
    for line in _LINES:
        kind, _, rest = line.partition(" ")
        name = rest.partition("(")[0].partition(" ")[0]
        table.setdefault(kind, {})[name] = rest[len(name) :]
    return table


TABLE = _table()


@cache
def binder(kind: str, name: str) -> Callable[..., None]:
    """A function with CuPy's own parameters that does nothing: calling it raises what a wrong call would raise."""
    scope: dict[str, Any] = {"__name__": __name__}
    plain = name.rpartition(".")[2]
    exec(f"def {plain}{TABLE[kind][name]}: pass", scope)
    bind: Callable[..., None] = scope[plain]
    return bind
