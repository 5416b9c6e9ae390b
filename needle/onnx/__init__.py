"""ONNX: models made elsewhere as modules of needle, and modules of needle as ONNX models."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names

try:
    import onnx as _onnx
except ImportError as error:
    raise ImportError(
        f"needle.onnx: needs the package onnx, which `pip install 'needle-dl[onnx]'` installs, but got: {error}"
    ) from error

from needle.onnx.exporting import *
from needle.onnx.model import *
from needle.onnx.registry import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
