"""The names that a package re-exports: all that the star imports of its `__init__` bring in."""

from types import ModuleType
from typing import Any

__all__ = ["public_names"]


def public_names(namespace: dict[str, Any]) -> list[str]:
    """The names of a package's `globals()`, without modules, `TYPE_CHECKING`, and names with an underscore.

    A package sets `__all__` to them at run time. Type checkers re-export star imports, and read no computed list.
    """
    return sorted(
        name
        for name, value in namespace.items()
        if not (name.startswith("_") or name == "TYPE_CHECKING" or isinstance(value, ModuleType))
    )
