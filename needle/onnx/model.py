"""ONNX models as modules: `load`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import onnx

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, HostArray
from needle.nn import Buffer, Module, Parameter
from needle.onnx.checking import checked, opsets_of, require_known
from needle.onnx.memory import Announced, Memory, current_memory
from needle.onnx.reading import (
    Source,
    graphs_of,
    nodes_of,
    read_array,
    read_files,
    read_model,
    require_few_nodes,
    require_text,
    take_large,
    tensor_bytes,
    tensors_of,
)
from needle.onnx.registry import Node, Operator, find_operator
from needle.onnx.runner import Graph, Step, Type, make_graph

__all__ = ["GraphModule", "load"]

# What exporters call constants that they make initializers; tf2onnx keeps no other names.
GENERATED_NAMES = {"pytorch": r"val_\d+|scalar_tensor_default\w*|onnx::\w+", "tf2onnx": ".*"}


class GraphModule(Module):
    """The graph of an ONNX model as a module, which `load` makes.

    Called with the inputs of the model, in their order or by name, it returns its output, a tensor, or a tuple of
    several. Inputs are tensors or arrays of the dtypes and sizes that the model tells, on the device of the module;
    floating ones may have another floating dtype, which suits a model that `to` has cast.

    Floating initializers are its Parameters under their own names, the others its Buffers. The running statistics of
    BatchNormalization are Buffers, too, and so are other floats that no gradient reaches. Initializers in a body of If,
    Loop or Scan have the names of node and attribute in front, as in `loop.body.weight`. In a model without floating
    initializers, as PaddlePaddle writes them, the weights are the Constant nodes of more than one element.

    In evaluation mode, in which it is loaded, it computes what the model says. In training mode Dropout drops elements,
    and BatchNormalization uses the statistics of the batch and updates the running ones, although the model says that
    they do not train.

    >>> import onnx
    >>> text = '<ir_version: 8, opset_import: ["": 17]> f (float[n] x) => (float[n] y) <float w = {3}> {y = Mul(x, w)}'
    >>> model = load(onnx.parser.parse_model(text))
    >>> model([1.0, 2.0])
    Tensor([3. 6.], requires_grad=True)
    >>> [name for name, _ in model.named_parameters()]
    ['w']
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: onnx.ModelProto, arrays: Mapping[str, HostArray], max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self._opsets = opsets_of(model)
        self._state: dict[str, Tensor] = {}
        self._repeated = Counter[str]()
        self._names = {name for node in nodes_of(model.graph) for name in (*node.input, *node.output)}
        self._producer = model.producer_name
        self._constants_learn = model.producer_name != "needle" and not _has_floats(model, arrays)
        self._fixed = {
            node.input[i] for node in nodes_of(model.graph) for i in self._operator(node).buffers if i < len(node.input)
        }
        keys = {name: self._keep("", name, array) for name, array in arrays.items()}
        given = [value for value in model.graph.input if value.name not in arrays]
        self._types = [_type(value) for value in given]
        self._graph = self._graph_of(model.graph, "", [value.name for value in given], keys)
        missing = [name for name in self._graph.outer if name not in self._state]
        if missing:
            raise ValueError(f"load: the model must be valid, but no node makes {missing[0]!r} before it is read")
        self.inputs, self.outputs = tuple(self._graph.inputs), tuple(value.name for value in model.graph.output)
        self._loaded_dtypes = self._dtypes()
        self.cast_dtype: Any = None  # known from a call on
        self.eval()

    def _dtypes(self) -> set[Any]:
        """The floating dtypes of the state."""
        return {tensor.dtype for tensor in self._state.values() if tensor.dtype.kind == "f"}

    def _operator(self, node: onnx.NodeProto) -> Operator:
        entry = find_operator(node.op_type, node.domain, self._opsets[node.domain])
        assert entry is not None
        return entry

    def _keep(self, path: str, name: str, value: HostArray | Tensor, constant: bool = False) -> str:
        """Make an array a part of the state; returns its name there, which no value of the model has."""
        key = path + name
        number = self._repeated[key]
        while key in self._state or (path and key in self._names):
            number += 1
            key = f"{path}{name}'{number}"
        self._repeated[path + name] = number
        learned = self._is_learned(name, value, constant)
        self._state[key] = Parameter(value) if learned else Buffer(value, persistent=not constant)
        return key

    def _is_learned(self, name: str, value: HostArray | Tensor, constant: bool) -> bool:
        if value.dtype.kind != "f" or name in self._fixed:
            return False
        if constant:
            return self._constants_learn and value.size > 1
        generated = GENERATED_NAMES.get(self._producer)  # by which scalars are numbers of formulas (epsilons)
        return value.ndim > 0 or generated is None or re.fullmatch(generated, name) is None

    def _graph_of(self, proto: onnx.GraphProto, path: str, inputs: list[str], keys: dict[str, str]) -> Graph:
        """A graph or body whose state has names that begin with `path`; `keys` are those of its initializers."""
        steps = []
        for entry in proto.node:
            node = Node(entry, self._opsets[entry.domain])
            if entry.op_type == "Constant" and not entry.domain:
                value = node.function(node)
                assert isinstance(value, Tensor)
                keys[entry.output[0]] = self._keep(path, entry.output[0], value, constant=True)
                continue
            node.owner = self
            inner = f"{path}{entry.name or entry.output[0]}"
            node.compile_bodies(partial(self._body, inner))
            reads = tuple(keys.get(name, name) for name in (*node.inputs, *node.outer))
            steps.append(Step(node, Announced(entry, self._opsets), reads, node.outputs))
        outputs = [keys.get(value.name, value.name) for value in proto.output]
        return make_graph(inputs, steps, outputs, [_type(value) for value in proto.output])

    def _body(self, node: str, attribute: str, proto: onnx.GraphProto) -> Graph:
        path = f"{node}.{attribute}."
        keys = {tensor.name: self._keep(path, tensor.name, read_array(tensor, None)) for tensor in proto.initializer}
        return self._graph_of(proto, path, [value.name for value in proto.input], keys)

    def named_members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """Pairs (name, tensor): initializers under their names, then constants, which are not saved."""
        yield from self._state.items()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Compute the outputs for inputs by position or name: a Tensor, or a tuple of several.

        Raises TypeError or ValueError unless they are the inputs of the model in number, name, dtype and sizes, and
        ValueError if values would take more bytes than `max_bytes`. Errors of an operator have a note that names its
        node.
        """
        given = dict(zip(self.inputs, inputs, strict=False)) | named
        if len(inputs) + len(named) != len(self.inputs) or given.keys() != set(self.inputs):
            got = [f"{len(inputs)} by position"] * bool(inputs) + [*map(repr, named)]
            raise TypeError(f"GraphModule: inputs must be {', '.join(self.inputs)}, but got {', '.join(got) or 'none'}")
        device = next((tensor.device for tensor in self._state.values()), None)
        values = [_input(name, given[name], kind, device) for name, kind in zip(self.inputs, self._types, strict=True)]
        dtypes = self._dtypes()
        self.cast_dtype = dtypes.pop() if len(dtypes) == 1 and dtypes != self._loaded_dtypes else None
        token = current_memory.set(Memory(self.max_bytes))
        try:
            results = self._graph.run(values, self._state)
        finally:
            current_memory.reset(token)
        return results[0] if len(results) == 1 else results

    def extra_repr(self) -> str:
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}; {len(self._graph.steps)} nodes"


def load(model: Source, *, max_bytes: int = 2**32) -> GraphModule:
    """An ONNX model as a module, in evaluation mode; see `GraphModule`.

    `model` is a path, the bytes of a file, or an `onnx.ModelProto`; tensors in files of their own are read from the
    folder of a path. `max_bytes` limits the bytes of its tensors, and those of the values that a call holds at a time
    (with a graph: of all values that it makes). Functions of the model and operators that needle knows by their
    definition only are inlined.

    Raises, before anything runs: ValueError if the file is no valid model of ONNX, if it has operators that needle does
    not know (all of them are named, with domain and opset), if it announces more than `max_bytes`, or if a file is
    outside its folder; TypeError if a value has a type other than tensors of needle's dtypes.
    """
    check.integer("load", "max_bytes", max_bytes, least=0)
    proto, folder = read_model(model)
    require_few_nodes(sum(1 for graph in (proto.graph, *proto.functions) for _ in nodes_of(graph)))
    require_text(proto)
    size = sum(map(tensor_bytes, tensors_of(proto)))
    if size > max_bytes:
        raise ValueError(f"load: tensors must take at most {max_bytes} bytes (max_bytes), but take {size}")
    require_known(proto)
    read_files(proto, folder)
    tensors = take_large(proto)
    types = checked(proto, max_bytes)
    return GraphModule(types, {tensor.name: read_array(tensor, folder) for tensor in tensors}, max_bytes)


def _has_floats(model: onnx.ModelProto, arrays: Mapping[str, HostArray]) -> bool:
    """Whether a model has floating initializers; `arrays` are those of the graph itself."""
    bodies = [tensor.data_type for graph in graphs_of(model.graph) for tensor in graph.initializer]
    dtypes = [array.dtype for array in arrays.values()] + list(map(onnx.helper.tensor_dtype_to_np_dtype, bodies))
    return any(dtype.kind == "f" for dtype in dtypes)


def _type(value: onnx.ValueInfoProto) -> Type:
    """The sizes and the dtype of a value, None where the model does not tell them; some write -1 there."""
    proto = value.type.tensor_type
    sizes = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in proto.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.elem_type) if proto.elem_type else None
    return sizes if proto.HasField("shape") else None, dtype


def _input(name: str, value: Any, kind: Type, device: Device | None) -> Tensor:
    """An input as a tensor of the type that the model tells, on a device if one is given."""
    sizes, dtype = kind
    if isinstance(value, Tensor):
        tensor = value
    else:
        typed = hasattr(value, "dtype")
        tensor = Tensor(value, device=device, dtype=None if typed else dtype, requires_grad=False)
    if device is not None and tensor.device != device:
        raise TypeError(
            f"GraphModule: inputs must be on the device of the module, {device}, but {name!r} is on {tensor.device}"
        )
    if dtype is not None and tensor.dtype != dtype and {tensor.dtype.kind, dtype.kind} != {"f"}:
        raise TypeError(f"GraphModule: input {name!r} must have dtype {dtype}, but got {tensor.dtype}")
    if sizes is not None and (
        len(sizes) != tensor.ndim
        or any(size not in (None, given) for size, given in zip(sizes, tensor.shape, strict=True))
    ):
        shape = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(f"GraphModule: input {name!r} must have shape ({shape}), but got {tensor.shape}")
    return tensor
