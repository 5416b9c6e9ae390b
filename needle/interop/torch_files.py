"""States as torch has them: its tensors as arrays, arrays as its tensors, and its files."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO, TypeAlias
from zipfile import ZipFile

import numpy as np

from needle import checkpoint
from needle.backend import HostArray
from needle.checkpoint.arrays import host_array, is_array
from needle.files import Broken, Path, open_file, path_name

__all__ = ["UNREADABLE", "as_tensors", "host_value", "is_torch", "read", "save"]

State: TypeAlias = dict[Any, Any]

UNREADABLE = (TypeError, ValueError, RuntimeError)
_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")  # of files that `torch.save` writes


def read(path: Path) -> State:
    """The content of a `.safetensors` file, or of one that `torch.save` wrote (`.pt`, `.pth`, `.bin`, `.ckpt`).

    Plain data with NumPy's arrays for tensors, in torch's layout; bfloat16 becomes float32. Tensors that share memory
    do so here. Files of `torch.save` are read by torch, with `weights_only=True`: nothing is unpickled but what
    `torch.serialization.safe_globals` allows.

    Raises ValueError if the path has another ending, or the file is broken or holds other objects; the system's OSError
    (FileNotFoundError …) if it cannot be read; ImportError without the package that reads it.
    """
    name, kind = _kind("read", path)
    if kind == ".safetensors":
        return checkpoint.load(path)
    torch = _torch("read", kind)
    with open_file("read", path) as file:
        try:
            _require_stored(file)
            state = _Plain()(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # torch has no class for a file that it refuses
            raise ValueError(
                f"read: path must be a file of arrays and plain data by torch.save, but {name}: {_reason(error)}"
            ) from error
    if not isinstance(state, dict):
        raise ValueError(f"read: path must be a file with a state dict, but {name} holds a {type(state).__name__}")
    return state


def save(path: Path, state: State) -> None:
    """Write a state to a `.safetensors` file, or as `torch.save` does (`.pt`, `.pth`, `.bin`, `.ckpt`).

    The file is written whole or not at all. A `.safetensors` file has a flat dict of arrays, such as a model's; the
    others hold any plain data, and arrays as tensors.

    Raises ValueError for another ending, TypeError for what is not plain data, ImportError without the package that
    writes it; the system's OSError if the file cannot be written.
    """
    _, kind = _kind("save", path)
    if kind == ".safetensors":
        checkpoint.save(path, state)
        return
    torch = _torch("save", kind)
    with checkpoint.write_atomically(path) as file:
        torch.save(as_tensors(state), file)


def as_tensors(state: Any) -> Any:
    """A state with torch's tensors for its arrays, for `load_state_dict` in torch; each has memory of its own.

    Raises ImportError without torch.

    >>> import needle as ndl
    >>> as_tensors({"weight": ndl.ones(2), "steps": 3})
    {'weight': tensor([1., 1.]), 'steps': 3}
    """
    torch = _torch("as_tensors", "tensors")
    if isinstance(state, dict):
        return {key: as_tensors(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return (list if isinstance(state, list) else tuple)(map(as_tensors, state))
    if not is_array(state):
        return state
    array = host_array(state)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def is_torch(value: Any) -> bool:
    """Whether a value is a tensor of torch."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def host_value(value: Any) -> HostArray | None:
    """An array of any library, or a tensor of torch, as NumPy's, bfloat16 as float32; None if it is none.

    Raises what the library does (UNREADABLE) if the values cannot be read: sparse, quantized, on the device "meta".
    """
    if is_torch(value):
        value = value.detach().float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy(force=True)  # type: ignore[no-any-return]
    if is_array(value):
        value = host_array(value)
    elif not hasattr(value, "shape"):
        return None
    array = np.asarray(value)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


class _Plain:
    """Makes plain data with arrays of what torch read. What is shared stays so, cycles too: a small file cannot unfold.

    Views stay views, also of bfloat16, of which each storage is widened once.
    """

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}  # by the id of the container
        self.widened: dict[int, Any] = {}  # by the address of the storage

    def __call__(self, value: Any) -> Any:
        if id(value) in self.made:
            return self.made[id(value)]
        made: Any
        if isinstance(value, dict):
            made = self.made[id(value)] = {}
            made.update((key, self(entry)) for key, entry in value.items())
        elif isinstance(value, (list, tuple)):
            made = self.made[id(value)] = []
            made.extend(map(self, value))
        else:
            return self.array(value.detach()) if is_torch(value) else value
        return made

    def array(self, tensor: Any) -> HostArray:
        if str(tensor.dtype) == "torch.bfloat16":
            storage, place = tensor.untyped_storage(), (tensor.size(), tensor.stride(), tensor.storage_offset())
            if storage.data_ptr() not in self.widened:
                self.widened[storage.data_ptr()] = tensor.as_strided((storage.nbytes() // 2,), (1,), 0).float()
            tensor = self.widened[storage.data_ptr()].as_strided(*place)
        return tensor.numpy()  # type: ignore[no-any-return]


def _require_stored(file: BinaryIO) -> None:
    """Require that a ZIP archive, as torch writes it, has no more in it than bytes. Older files are no archives."""
    if file.read(4) == b"PK\3\4":
        size = file.seek(0, os.SEEK_END)
        with ZipFile(file) as archive:
            members = archive.infolist()
        if any(info.compress_type for info in members):
            raise Broken("it is compressed, as TorchScript is, but a state dict is not")
        if (promised := sum(info.file_size for info in members)) > size:
            raise Broken(f"it promises {promised} bytes, more than the {size} that it has")
    file.seek(0)


def _kind(op: str, path: Path) -> tuple[str, str]:
    """The name of a path, and its ending."""
    name = path_name(op, "path", path)
    kind = os.path.splitext(name)[1].lower()
    if kind not in (".safetensors", *_ENDINGS):
        raise ValueError(f"{op}: path must end in .safetensors, {', '.join(_ENDINGS)}, but got {name!r}")
    return name, kind


def _torch(op: str, what: str) -> Any:
    """The package torch, which is imported when it is needed."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{op}: {what} needs the package torch (see https://pytorch.org), but got: {error}"
        ) from error
    return torch


def _reason(error: Exception) -> str:
    """What torch has against a file, without its advice to load it with less care."""
    text = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", text):
        return (
            f"it holds {found[1]} (save the state_dict() alone, or, if you trust the file, read it within "
            f"torch.serialization.safe_globals([{found[1]}]))"
        )
    if found := re.search(r"Unsupported [^.\n]*", text):
        return found[0]
    return text.strip().partition("\n")[0].partition(". In PyTorch")[0] or type(error).__name__
