"""Descriptions of a model, a loss and loaders, by which ranks compare what each of them has made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import length_hint
from types import FunctionType
from typing import Any

import numpy as np

from needle.autograd import Tensor
from needle.data import DataLoader
from needle.nn import Module

__all__ = ["described", "of_loader", "of_parts"]

FEW = 16  # elements of an array whose values are told


def of_parts(model: Module, loss_fn: Any, metrics: Mapping[str, Any] | None, forward: Any) -> dict[str, str]:
    """The model, module by module, the loss and the metrics."""
    modules = {f"model.{name}" if name else "model": described(module) for name, module in model.named_modules()}
    named = {f"metrics[{name!r}]": described(metric) for name, metric in (metrics or {}).items()}
    return {**modules, "loss_fn": described(loss_fn), "forward": described(forward), **named}


def of_loader(prefix: str, loader: Iterable[Any] | None) -> dict[str, Any]:
    """How many batches there are, and how a loader makes them: else a rank would compute items of other batches."""
    compared = {f"{prefix}batches": length_hint(loader)}
    if not isinstance(loader, DataLoader):  # what others call so may be anything, a method, say
        return compared
    options = {name: getattr(loader, name) for name in ("batch_size", "shuffle", "drop_last")}
    options["items"] = loader._items
    options["transforms"] = [*map(described, loader.transforms)]
    return compared | {prefix + name: value for name, value in options.items()}


def described(part: Any) -> str:
    """The name of a function or of a part's class; of needle's own classes also the options.

    Those of a class of the user may differ by rank, such as who prints; so may attributes that no option is named like.
    """
    kind = part if isinstance(part, (type, FunctionType)) else type(part)
    if kind is part or not kind.__module__.startswith("needle."):
        return kind.__qualname__
    names = _options(type(part))
    options = {name: _value(value) for name, value in vars(part).items() if name in names}
    return f"{kind.__qualname__}({', '.join(f'{name}={text}' for name, text in options.items() if text)})"


def _options(kind: type) -> set[str]:
    """The names of what a class and its bases are made from."""
    inits = [vars(base).get("__init__") for base in kind.__mro__]
    codes = [init.__code__ for init in inits if isinstance(init, FunctionType)]
    return {name for code in codes for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}


def _value(value: Any) -> str:
    """An option as text, nothing if it is no plain one."""
    if isinstance(value, Tensor):
        return f"{value.dtype}{[*value.shape]}"
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= FEW else f"{value.dtype}{[*value.shape]}"
    if isinstance(value, (tuple, list)):
        texts = [*map(_value, value)]
        return f"({', '.join(texts)})" if all(texts) else ""
    return repr(value) if value is None or isinstance(value, (bool, int, float, str)) else ""
