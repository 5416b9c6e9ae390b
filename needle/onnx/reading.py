"""Models as they are read: the protobuf, and the values of its tensors, which may lie in files beside it.

Nothing is believed that a model announces: sizes are compared with the data that there are before an array is made, and
files are opened only within the model's own folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from needle.backend import HostArray
from needle.files import path_name

__all__ = ["DTYPES", "Source", "graphs_of", "nodes_of", "read_array", "read_files", "read_model"]
__all__ += ["require_few_nodes", "require_text", "take_large", "tensor_bytes", "tensors_of"]

Source: TypeAlias = "str | PathLike[str] | bytes | onnx.ModelProto"

# The dtypes of needle by their numbers in ONNX.
DTYPES = {
    onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)): name
    for name in (
        "bool", "float16", "float32", "float64",
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    )
}  # fmt: skip
SMALL = 1024  # bytes of an initializer that the checks of ONNX read, since it may give sizes
LARGEST_MESSAGE = 2**31 - 1  # protobuf reads no larger one
MOST_NODES = 100_000  # after functions are inlined, which can grow exponentially
DEEPEST = 100  # protobuf reads no messages within each other that are deeper


def read_model(source: Source) -> tuple[onnx.ModelProto, str | None]:
    """The model of a path, of the bytes of a file, or of a copied ModelProto, and its folder, None without a path."""
    folder = None
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return model, None
    if not isinstance(source, bytes):
        path = path_name("load", "model", source)
        if os.path.exists(path) and not os.path.isfile(path):  # a device may have no end, and a pipe may have no writer
            raise ValueError(f"load: a model must be a file, but {path} is none")
        if os.path.getsize(path) > LARGEST_MESSAGE:
            raise ValueError(f"load: a model must have at most {LARGEST_MESSAGE} bytes, but {path} is larger")
        folder = os.path.dirname(os.path.abspath(path))
        with open(path, "rb") as file:
            source = file.read()
    try:
        return onnx.ModelProto.FromString(source), folder
    except DecodeError as error:
        raise ValueError(f"load: the model must be one of ONNX, but got: {error}") from None


def graphs_of(graph: onnx.GraphProto | onnx.FunctionProto, depth: int = 0) -> Iterator[Any]:
    """A graph, or the body of a function, and the graphs within its nodes."""
    if depth > DEEPEST:
        raise ValueError(f"load: graphs must lie within each other at most {DEEPEST} deep, but they lie deeper")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from graphs_of(body, depth + 1)


def nodes_of(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs within its nodes."""
    for part in graphs_of(graph):
        yield from part.node


def require_few_nodes(number: int) -> None:
    """Refuse a model of too many nodes."""
    if number > MOST_NODES:
        raise ValueError(f"load: a model must have at most {MOST_NODES} nodes, functions inlined, but has {number}")


def require_text(model: onnx.ModelProto) -> None:
    """Require that all names are text, which protobuf does not check."""
    for outer in (model.graph, *model.functions):
        names = [entry.domain for entry in (*model.opset_import, *getattr(outer, "opset_import", ()))]
        for graph in graphs_of(outer):
            names.append(graph.name)
            if isinstance(graph, onnx.GraphProto):
                names += [entry.name for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
            else:
                names += [graph.domain, graph.overload, *graph.input, *graph.output]
            for node in graph.node:
                names += [node.name, node.op_type, node.domain, node.overload, *node.input, *node.output]
                names += [attribute.name for attribute in node.attribute]
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f"load: names must be text in UTF-8, but got {name!r}")


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, at any depth. Raises ValueError if one is sparse."""
    for outer in (model.graph, *model.functions):
        for graph in graphs_of(outer):
            if isinstance(graph, onnx.GraphProto):
                if graph.sparse_initializer:
                    raise ValueError(f"load: initializers must be dense, but graph {graph.name!r} has a sparse one")
                yield from graph.initializer
            for node in graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                        raise ValueError(
                            f"load: attributes must be dense, but {attribute.name!r} of {node.op_type} is sparse"
                        )
                    if attribute.HasField("t"):
                        yield attribute.t
                    yield from attribute.tensors


def tensor_bytes(tensor: TensorProto) -> int:
    """The bytes of a tensor's array, by its dtype and shape, which must be those of needle."""
    if tensor.data_type not in DTYPES:
        name = (
            TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else None
        )
        raise TypeError(
            f"load: tensors must have a dtype of needle, but {tensor.name!r} has type {name or tensor.data_type}"
        )
    if len(tensor.dims) > 64:
        raise ValueError(f"load: tensors must have at most 64 axes, but {tensor.name!r} has {len(tensor.dims)}")
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"load: sizes must not be negative, but {tensor.name!r} has shape {tuple(tensor.dims)}")
    return int(math.prod(tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def read_array(tensor: TensorProto, folder: str | None) -> HostArray:
    """The values of a tensor, which may share its memory; ValueError unless there are as many as it announces."""
    if tensor.data_location == TensorProto.EXTERNAL:
        copy = TensorProto()  # it dies with its data, while those of a part of a model live as long as the model
        copy.CopyFrom(tensor)
        read_file(copy, folder)
        tensor = copy
    try:
        array: HostArray = onnx.numpy_helper.to_array(tensor)
        return array
    except ValueError as error:
        raise ValueError(
            f"load: {tensor.name!r} must have data of shape {tuple(tensor.dims)}, but got: {error}"
        ) from None


def read_file(tensor: TensorProto, folder: str | None) -> None:
    """Read the data of a tensor from a file beside the model. ONNX opens no file outside the folder, and no link."""
    try:
        size, length = tensor_bytes(tensor), ExternalDataInfo(tensor).length
        if length is None:  # all to the end of the file, which others may share
            tensor.external_data.add(key="length", value=str(size))
        elif length != size:
            raise ValueError(f"{length} bytes, not {size}")
        if folder is None:
            raise ValueError("no path of the model that tells where they are")
        load_external_data_for_tensor(tensor, folder)
    except (ValueError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ValueError(
            f"load: {tensor.name!r} must have its data in a file beside the model, but got: {error}"
        ) from None


def read_files(model: onnx.ModelProto, folder: str | None) -> None:
    """Read the data that lie in files into the model, except those of its large initializers."""
    large = [tensor for tensor in model.graph.initializer if tensor_bytes(tensor) > SMALL]
    places = {id(tensor) for tensor in large}  # which stay as they are while the list does
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL and id(tensor) not in places:
            read_file(tensor, folder)


def take_large(model: onnx.ModelProto) -> list[TensorProto]:
    """The initializers of a model, of which large ones become inputs: ONNX checks a model that has no heavy data."""
    graph, tensors = model.graph, list(model.graph.initializer)
    known = {value.name for value in graph.input}
    del graph.initializer[:]
    for tensor in tensors:
        if tensor_bytes(tensor) <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return tensors
