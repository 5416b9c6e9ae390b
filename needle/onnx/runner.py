"""Graphs that are ready to run: a list of steps, each an operator's function and the names of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import onnx

from needle.autograd import Tensor
from needle.backend import Device
from needle.onnx.registry import Function, Node

__all__ = ["Graph"]


class Step(NamedTuple):
    """A node, its function, the names of the values that it reads and makes, and of those that nobody reads later."""

    node: Node
    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last: tuple[str, ...]


class Graph:
    """The steps of a graph or of a body of If, Loop or Scan.

    `outer` are the names that it reads from the graphs around it.
    """

    def __init__(self, proto: onnx.GraphProto, make_node: Callable[[onnx.NodeProto], tuple[Node, Function]]) -> None:
        self.inputs = [value.name for value in proto.input]
        self.outputs = [value.name for value in proto.output]
        self.output_types = [_type(value.type.tensor_type) for value in proto.output]
        made = [make_node(node) for node in proto.node]
        reads = [(*node.inputs, *node.outer) for node, _ in made]
        known = {*self.inputs, *(name for node, _ in made for name in node.outputs)}
        every = dict.fromkeys(name for names in (*reads, self.outputs) for name in names if name)
        self.outer = tuple(name for name in every if name not in known)
        last = {name: i for i, names in enumerate((*reads, self.outputs)) for name in names}
        dying: list[list[str]] = [[] for _ in range(len(made) + 1)]
        for i, (node, _) in enumerate(made):
            for name in node.outputs:
                if name:
                    dying[last.get(name, i)].append(name)
        for name in self.inputs:
            dying[last.get(name, len(made))].append(name)
        self.steps = [
            Step(node, function, names, node.outputs, tuple(dead))
            for (node, function), names, dead in zip(made, reads, dying[:-1], strict=True)
        ]

    def run(self, inputs: Sequence[Tensor], outer: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The outputs for inputs and for the values around the graph, by name."""
        values = {name: outer[name] for name in self.outer}
        values |= dict(zip(self.inputs, inputs, strict=True))
        for node, function, reads, makes, last in self.steps:
            try:
                results = function(node, *(values[name] if name else None for name in reads))
            except Exception as error:
                error.add_note(f"in {node}")
                raise
            results = results if isinstance(results, tuple) else (results,)
            for name, result in zip(makes, results, strict=False):
                if name:
                    assert result is not None, f"{node} must make output {name}"
                    values[name] = result
            for name in last:
                del values[name]
        return tuple(values[name] for name in self.outputs)


def _type(proto: onnx.TypeProto.Tensor) -> tuple[tuple[int, ...], Any]:
    shape = tuple(dim.dim_value for dim in proto.shape.dim)
    return shape, onnx.helper.tensor_dtype_to_np_dtype(proto.elem_type) if proto.elem_type else None


def device_of_inputs(tensors: Sequence[Tensor], otherwise: Device) -> Device:
    return tensors[0].device if tensors else otherwise
