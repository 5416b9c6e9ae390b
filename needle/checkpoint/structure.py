"""Nested states as flat arrays and one JSON text, and back.

An array goes by the dotted path of its keys: `{"model": {"weight": w}, "steps": [3, x]}` has the arrays `model.weight`
and `steps.1`. The text says how they are nested, and holds all else:
`{"needle": 1, "state": {"model": {"weight": {"$array": "model.weight"}}, "steps": [3, {"$array": "steps.1"}]}}`.
An object whose only key begins with `$` stands for a value that JSON has not:

- `{"$array": name}`: an array of the file
- `{"$float": "nan"}`, `"inf"`, `"-inf"`
- `{"$int": "0x1f…"}`: an integer beyond 64 bits
- `{"$dict": [[key, value], …]}`: a dict with integers among its keys, or with a key that begins with `$`

Without a text, a file is a dict of the arrays in it.
"""

from __future__ import annotations

import math
import re
from itertools import count
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.checkpoint.arrays import Stored, is_array, is_stored
from needle.files import Broken
from needle.npz import TEXT_NAME

__all__ = ["flatten", "nested"]

_VERSION = 1
_DEEPEST = 100  # levels of nesting
_LONGEST_NAME = 60_000  # bytes; ZIP archives hold up to 65,535
_LONGEST_TEXT = 2**24  # bytes
_HEX = re.compile("-?0x[0-9a-f]+")


def is_safe(name: str) -> bool:
    """Whether an array can have this name in a file: NumPy and torch read it, and as a path it stays in its folder."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    parts = name.replace("\\", "/").split("/")
    return not (
        size > _LONGEST_NAME
        or "\0" in name
        or "\\" in name
        or name.startswith("/")
        or name.endswith(".npy")  # np.load would confuse it with the member of the name before the dot
        or name in (TEXT_NAME, "__metadata__")
        or {".", ".."} & {*parts}
    )


def flatten(op: str, state: Any) -> tuple[dict[str, Stored], str | None]:
    """The arrays of a state by the names that they have in a file, and the text; None if the names say all.

    Raises TypeError for what is not plain data, and ValueError if it is nested too deeply, is not Unicode, or is too
    long for a text.
    """
    import json  # imported when it is needed: the import takes a millisecond

    check.instance(op, "state", state, dict)
    found: list[tuple[str, Stored, dict[str, str]]] = []
    tree = _Encoder(op, found).encode(state, "", 0)
    own = {name for name, *_ in found if is_safe(name)}
    spare = (name for name in map("array.{}".format, count()) if name not in own)
    arrays: dict[str, Stored] = {}
    for name, array, node in found:
        node["$array"] = name if name in own and name not in arrays else next(spare)
        arrays[node["$array"]] = array
    if [*arrays] == [*state] and all(map(is_array, state.values())):
        return arrays, None
    text = json.dumps({"needle": _VERSION, "state": tree}, separators=(",", ":"), allow_nan=False)
    if len(text) > _LONGEST_TEXT:
        raise ValueError(
            f"{op}: state must take at most {_LONGEST_TEXT} bytes beside its arrays, but got {len(text)}; "
            "keep long lists of numbers as arrays"
        )
    return arrays, text


class _Encoder:
    """Makes JSON's values of a state, and lists its arrays: (dotted path, array, the node to put its name into)."""

    def __init__(self, op: str, found: list[tuple[str, Stored, dict[str, str]]]) -> None:
        self.op, self.found = op, found

    def encode(self, value: Any, path: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(
                f"{self.op}: state must be nested in at most {_DEEPEST} levels, but {path[:40]}… is deeper or endless"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.encode_text(value, path)
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**64 else {"$int": hex(value)}
        if isinstance(value, float) and not isinstance(value, np.generic):
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        if isinstance(value, dict):
            return self.encode_dict(value, path, depth)
        if isinstance(value, (list, tuple)):
            return [self.encode(entry, _joined(path, i), depth + 1) for i, entry in enumerate(value)]
        if is_array(value):
            return self.encode_array(value, path)
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")  # also torch has a Tensor
        raise TypeError(
            f"{self.op}: state must hold dicts, lists, numbers, text, None, and arrays that NumPy or needle made, "
            f"but {path} is a {kind}"
        )

    def encode_array(self, value: Stored, path: str) -> dict[str, str]:
        if not is_stored(value.dtype):
            raise TypeError(
                f"{self.op}: arrays must hold bools or numbers of at most 64 bits, but {path} is of {value.dtype}"
            )
        self.found.append((path, value, {}))
        return self.found[-1][2]

    def encode_text(self, value: str, path: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{self.op}: text must be Unicode, but {path} has {value!r}") from error
        return str.__str__(value)  # of an enumeration, whose own says something else

    def encode_dict(self, value: dict[Any, Any], path: str, depth: int) -> Any:
        pairs = []
        where = f"a key in {path}" if path else "a key"
        for key, entry in value.items():
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise TypeError(f"{self.op}: keys must be text or integers, but {where} is a {type(key).__name__}")
            name = self.encode(key, where, depth)
            inner = _joined(path, name["$int"] if isinstance(name, dict) else name)
            pairs.append([name, self.encode(entry, inner, depth + 1)])
        plain = all(isinstance(name, str) and not name.startswith("$") for name, _ in pairs)
        return dict(pairs) if plain else {"$dict": pairs}


def _joined(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def nested(arrays: dict[str, HostArray], text: bytes | bytearray | str | None) -> dict[Any, Any]:
    """The state that `flatten` made these arrays and this text of.

    Raises Broken if they do not fit.
    """
    if text is None:
        return arrays
    content = parse(text)
    version = content.get("needle") if isinstance(content, dict) else None
    if type(version) is not int or version < 1 or "state" not in content:
        raise Broken(f"has a text {TEXT_NAME} that is not needle's")
    if version > _VERSION:
        raise Broken(f"is of version {version} of the format: load it with a newer needle")
    decoder = _Decoder(arrays)
    state = decoder.decode(content["state"], 0)
    if not isinstance(state, dict) or decoder.unused:
        raise Broken(f"has a text {TEXT_NAME} of another state, which leaves out {sorted(decoder.unused)[:3]}")
    return state


class _Decoder:
    """Makes a state of JSON's values; `unused` are the arrays that it has not named yet."""

    def __init__(self, arrays: dict[str, HostArray]) -> None:
        self.arrays, self.unused = arrays, {*arrays}

    def decode(self, node: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise Broken(f"has a text {TEXT_NAME} that is nested in more than {_DEEPEST} levels")
        if isinstance(node, list):
            return [self.decode(entry, depth + 1) for entry in node]
        if not isinstance(node, dict):
            return node
        if not any(key.startswith("$") for key in node):
            return {key: self.decode(entry, depth + 1) for key, entry in node.items()}
        kind, content = next(iter(node.items()))
        if len(node) == 1:
            if kind == "$array" and isinstance(content, str) and content in self.arrays:
                self.unused.discard(content)
                return self.arrays[content]
            if kind == "$float" and content in ("nan", "inf", "-inf"):
                return float(content)
            if kind == "$int" and isinstance(content, str) and _HEX.fullmatch(content):
                return int(content, 16)
            if kind == "$dict" and isinstance(content, list):
                made = dict(self.decode_pair(pair, depth + 1) for pair in content)
                if len(made) == len(content):
                    return made
        raise Broken(f"has a text {TEXT_NAME} with an object of {kind[:40]!r} that has no meaning")

    def decode_pair(self, pair: Any, depth: int) -> tuple[Any, Any]:
        if isinstance(pair, list) and len(pair) == 2:
            key, entry = (self.decode(part, depth) for part in pair)
            if type(key) in (str, int):
                return key, entry
        raise Broken(f"has a text {TEXT_NAME} with a '$dict' that is not one of keys and values")


def parse(text: bytes | bytearray | str) -> Any:
    """Python's values of JSON; Broken if it is none, or a key comes twice."""
    import json

    try:
        text = text if isinstance(text, str) else text.decode()
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Broken(f"has a text {TEXT_NAME} that is not JSON: {error}") from error


def _distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict of these pairs; their keys must differ."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("two keys of a dict are the same")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
