"""Graphs that are ready to run: a list of steps, each an operator's function and the names of what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

from needle.autograd import Tensor
from needle.onnx.memory import Announced, current_memory
from needle.onnx.registry import Node

__all__ = ["Graph", "Step", "Type", "make_graph"]

Type: TypeAlias = "tuple[tuple[int | None, ...] | None, Any]"  # sizes and dtype, None where a model does not tell them


class Step(NamedTuple):
    """A node, and the names of the values that it reads and makes."""

    node: Node
    announced: Announced
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    last: tuple[str, ...] = ()  # values that nobody reads later


class Graph(NamedTuple):
    """The steps of a model, or of a body of If, Loop or Scan.

    `outer` are the names of the values that it reads from around it; `types` those that the model tells of its
    outputs.
    """

    inputs: Sequence[str]
    steps: Sequence[Step]
    outputs: Sequence[str]
    outer: Sequence[str]
    types: Sequence[Type]

    def run(self, inputs: Sequence[Tensor], outer: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The outputs, for inputs and the values around the graph. Each value is let go after its last use."""
        memory = current_memory.get()
        values = {name: outer[name] for name in self.outer} | dict(zip(self.inputs, inputs, strict=True))
        made = set()
        for node, announced, reads, makes, last in self.steps:
            arguments = [values[name] if name else None for name in reads]
            try:
                memory.require(node, announced.bytes(arguments))
                results = node.function(node, *arguments)
            except (ZeroDivisionError, OverflowError) as error:
                raise ValueError(f"{node}: sizes and numbers must allow its computation, but {error}") from error
            except Exception as error:
                error.add_note(f"in {node}")
                raise
            results = results if isinstance(results, tuple) else (results,)
            result = None
            for name, result in zip_longest(makes, results[: len(makes)]):
                if name:
                    if result is None:
                        raise ValueError(f"{node}: inputs and attributes must allow all outputs, but not {name!r}")
                    values[name] = result
                    memory.add(result)
                    made.add(name)
            del arguments, results, result
            for name in last:
                value = values.pop(name)
                if name in made:
                    memory.drop(value)
                    made.remove(name)
                del value
        outputs = tuple(values[name] for name in self.outputs)
        for name in made:
            memory.drop(values[name])
        return outputs


def make_graph(
    inputs: Sequence[str],
    steps: Sequence[Step],
    outputs: Sequence[str],
    types: Sequence[Type],
) -> Graph:
    """A graph of steps, each of which learns the values that it is the last one to read."""
    known, outer = {*inputs}, dict[str, None]()
    for reads, makes in (*((step.reads, step.makes) for step in steps), (outputs, ())):
        outer |= dict.fromkeys(name for name in reads if name and name not in known)
        known.update(filter(None, makes))
    last: dict[str, int] = dict.fromkeys(inputs, -1)
    for i, step in enumerate(steps):
        last |= dict.fromkeys((*(name for name in step.reads if name in known), *filter(None, step.makes)), i)
    dying: dict[int, list[str]] = {}
    for name, i in last.items():
        if name not in outputs:
            dying.setdefault(i, []).append(name)
    steps = [step._replace(last=tuple(dying.get(i, ()))) for i, step in enumerate(steps)]
    return Graph(inputs, steps, outputs, [*outer], types)
