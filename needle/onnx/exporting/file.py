"""A model on disk: checked before, then written whole, with its state in a second file where one holds too little."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import onnx
from onnx import helper, numpy_helper

from needle.autograd import Tensor
from needle.backend import to_host
from needle.checkpoint.atomic import whole_path
from needle.onnx.exporting.graph import onnx_dtype

__all__ = ["write_model"]

LIMIT = 2**31 - 2**20  # of bytes in one file: protobuf writes less than 2 GiB
PAGE = 4096  # arrays of the second file start at multiples, so that readers can map them into memory


def write_model(path: str, model: onnx.ModelProto, state: Mapping[str, Tensor]) -> None:
    """Check the model, add the state as its initialisers, and write it."""
    _infer(model, state)
    if model.ByteSize() + sum(tensor.array.nbytes for tensor in state.values()) <= LIMIT:
        model.graph.initializer.extend(numpy_helper.from_array(x.numpy(), name) for name, x in state.items())
        onnx.checker.check_model(model)
        _write(path, model)
        return
    with whole_path("export", f"{path}.data") as data:
        with open(data, "wb") as file:
            for name, tensor in state.items():
                model.graph.initializer.append(_stored(name, tensor, file, f"{os.path.basename(path)}.data"))
        _write(path, model)  # if it fails, the second file does not appear either


def _write(path: str, model: onnx.ModelProto) -> None:
    with whole_path("export", path) as temporary, open(temporary, "wb") as file:
        file.write(model.SerializeToString())


def _infer(model: onnx.ModelProto, state: Mapping[str, Tensor]) -> None:
    """Check a model, whose state stands for more inputs here, and add the shapes and dtypes of all its values."""
    outline = onnx.ModelProto()
    outline.CopyFrom(model)
    outline.graph.input.extend(
        helper.make_tensor_value_info(name, onnx_dtype(x.dtype), x.shape) for name, x in state.items()
    )
    try:
        onnx.checker.check_model(outline)
        inferred = onnx.shape_inference.infer_shapes(outline, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"export: the model must be valid in ONNX, but its checker says: {error}") from error
    model.graph.value_info.extend(inferred.graph.value_info)


def _stored(name: str, tensor: Tensor, file: BinaryIO, location: str) -> onnx.TensorProto:
    """An initialiser whose values are written to `file`, which will be called `location`."""
    array = np.ascontiguousarray(to_host(tensor.array))
    file.seek(-(-file.tell() // PAGE) * PAGE)
    place = {"location": location, "offset": str(file.tell()), "length": str(array.nbytes)}
    file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view("uint8").data)
    proto = onnx.TensorProto(name=name, data_type=onnx_dtype(array.dtype), dims=tensor.shape)
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, value in place.items():
        proto.external_data.add(key=key, value=value)
    return proto
