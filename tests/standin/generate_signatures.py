"""Write `signatures.txt`: the public names of an installed CuPy, one per line.

    python tests/standin/generate_signatures.py

needs CuPy 14 or newer, but no GPU: it reads signatures and calls nothing. Each line is a kind and its entry: `function`
and `method` (of arrays) with their parameters, `ufunc` with the numbers of its inputs and outputs and its keywords,
`ufunc_method` and `generator` (a method of a random generator) with their parameters, and the bare names of `attribute`
(of arrays), `scalar` (a type or a constant of NumPy) and `scatter` (a ufunc with `at`). A default that is not a literal
is written `...`.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("signatures.txt")
MODULES = ("", "fft.", "lib.stride_tricks.", "linalg.", "random.")
NOT_OF_NUMPY = {"clear_memo", "disable_experimental_feature_warning", "annotations", "fuse", "memoize", "show_config"}


def literal(default: str) -> str:
    """A default value as a literal, or `...`."""
    try:
        ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return "..."
    return default


def parameters(function: Any) -> str | None:
    """The parameters in parentheses, without annotations; None if CuPy does not state them."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return documented(function)
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    known = [
        p if p.default is p.empty or literal(repr(p.default)) != "..." else p.replace(default=Ellipsis) for p in plain
    ]
    known = known[1:] if known and known[0].name == "self" else known
    return str(inspect.Signature(known)).replace("Ellipsis", "...")


def documented(function: Any) -> str | None:
    """The parameters as compiled functions state them: in the first line of the docstring."""
    match = re.match(r"(?:[\w.]+\.)?\w+\((.*)\)", (function.__doc__ or "").strip().partition("\n")[0])
    if not match:
        return None
    parts = [part.strip() for part in match[1].split(",") if part.strip() and part.strip() != "self"]
    parts = [re.sub(r"^\w+ (?=\w)", "", part) for part in parts]  # "Py_ssize_t axis1"
    pairs = (part.partition("=") for part in parts)
    return f"({', '.join(f'{name}={literal(default)}' if equals else name for name, equals, default in pairs)})"


def ufunc_line(name: str, ufunc: Any) -> str:
    """The line of a ufunc: its numbers of inputs and outputs, and the keywords that its docstring names."""
    keywords = re.findall(r"(\w+)=", ufunc.__doc__.strip().partition("\n")[0])
    return f"ufunc {name} {ufunc.nin} {ufunc.nout} {' '.join(sorted(set(keywords)))}"


def lines(cupy: Any) -> Iterator[str]:
    """Every line of the table, unsorted."""
    for prefix in MODULES:
        module = cupy
        for part in prefix.split(".")[:-1]:
            module = getattr(module, part)
        for name in dir(module):
            member = getattr(module, name)
            if name.startswith("_") or name in NOT_OF_NUMPY or isinstance(member, types.ModuleType):
                continue
            if isinstance(member, cupy.ufunc):
                yield ufunc_line(prefix + name, member)
                if member._scatter_op is not None:
                    yield f"scatter {name}"
            elif isinstance(member, type):
                if member.__module__.partition(".")[0] == "numpy" and not prefix:
                    yield f"scalar {name}"
            elif callable(member):
                if hasattr(member, "_signature"):  # a generalized ufunc: matmul
                    yield f"function {prefix}{name}{operands(member)}"
                elif (signature := parameters(member)) is not None:
                    yield f"function {prefix}{name}{signature}"
            elif isinstance(member, (float, type(None))) and not prefix:
                yield f"scalar {name}"
    for kind, owner in (("method", cupy.ndarray), ("ufunc_method", cupy.ufunc), ("generator", cupy.random.Generator)):
        for name in dir(owner):
            member = getattr(owner, name)
            if name.startswith("_"):
                continue
            if not callable(member):
                if kind == "method":
                    yield f"attribute {name}"
            elif (signature := parameters(member)) is not None:
                yield f"{kind} {name}{signature}"


def operands(member: Any) -> str:
    """The parameters of a generalized ufunc: its `*args` are operands only, `out` is a keyword."""
    names = ", ".join(f"x{i + 1}" for i in range(member._signature.partition("->")[0].count("(")))
    return str(parameters(member.__call__)).replace("(*args, ", f"({names}, /, *, ")


def main() -> None:
    """Write the table."""
    import cupy

    TABLE.write_text("\n".join([f"cupy {cupy.__version__}", *sorted(lines(cupy)), ""]), "utf-8")


if __name__ == "__main__":
    main()
