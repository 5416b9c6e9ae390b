"""ONNX models as modules: `load`."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any

import numpy as np
import onnx

import needle.onnx.operators as _operators  # noqa: F401 (registers them)
from needle.autograd import Tensor
from needle.backend import default_device
from needle.nn import Buffer, Module, Parameter
from needle.onnx.registry import Function, Node, find_operator
from needle.onnx.runner import Graph

__all__ = ["GraphModule", "load"]


class GraphModule(Module):
    """The graph of an ONNX model as a module; `load` makes it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
        self._state = {}
        graph = model.graph
        fixed = self._fixed(graph)
        for tensor in graph.initializer:
            array = np.array(onnx.numpy_helper.to_array(tensor))
            kind = Parameter if array.dtype.kind == "f" and tensor.name not in fixed else Buffer
            self._state[tensor.name] = kind(array)
        stripped = onnx.GraphProto()
        stripped.CopyFrom(graph)
        del stripped.input[:]
        stripped.input.extend(value for value in graph.input if value.name not in self._state)
        self._types = {
            value.name: (
                tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
                if value.type.tensor_type.HasField("shape")
                else None,
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
            )
            for value in stripped.input
        }
        self._graph = Graph(stripped, self._node)
        self.eval()

    def _fixed(self, graph: onnx.GraphProto) -> set[str]:
        names = set()
        for node in graph.node:
            entry = find_operator(node.op_type, node.domain, self._opsets.get(node.domain, 1))
            names |= {node.input[i] for i in (entry.buffers if entry else ()) if i < len(node.input)}
        return names

    def _node(self, proto: onnx.NodeProto) -> tuple[Node, Function]:
        opset = self._opsets.get(proto.domain, 1)
        entry = find_operator(proto.op_type, proto.domain, opset)
        if entry is None:
            raise ValueError(f"load: unsupported {proto.op_type} domain {proto.domain!r} opset {opset}")
        node = Node(proto, opset)
        node.owner = self
        outer: list[str] = []
        for key, value in node._attributes.items():
            if isinstance(value, onnx.GraphProto):
                body = node._attributes[key] = Graph(value, self._node)
                outer += body.outer
        node.outer = tuple(dict.fromkeys(outer))
        return node, entry.function

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        yield from self._state.items()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Compute the outputs for inputs by position or name: a Tensor, or a tuple of several."""
        given = dict(zip(self._graph.inputs, inputs, strict=False)) | named
        device = next((tensor.device for tensor in self._state.values()), default_device())
        values = []
        for name, (_shape, dtype) in self._types.items():
            value = given[name]
            if not isinstance(value, Tensor):
                value = Tensor(value, device=device, requires_grad=False)
            if value.dtype != dtype:
                raise TypeError(f"load: input {name!r} must have dtype {dtype}, but got {value.dtype}")
            values.append(value)
        results = self._graph.run(values, self._state)
        return results[0] if len(results) == 1 else results


def load(model: str | PathLike[str] | onnx.ModelProto) -> GraphModule:
    """An ONNX model as a module, whose floating initializers are parameters."""
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    return GraphModule(proto)
