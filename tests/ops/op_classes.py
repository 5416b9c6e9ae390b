"""Every op class that exists."""

from __future__ import annotations

from collections.abc import Iterator

from needle.graph import Op


def all_op_classes(op_class: type[Op] = Op) -> Iterator[type[Op]]:
    """The subclasses of an op class, at any depth."""
    for subclass in op_class.__subclasses__():
        yield subclass
        yield from all_op_classes(subclass)
