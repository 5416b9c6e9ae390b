"""Branches and loops: If, Loop and Scan.

The values that the bodies of a node read from the graphs around it follow its own inputs; `node.outer` names them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, default_device
from needle.init import zeros
from needle.kernels import at
from needle.onnx.memory import current_memory
from needle.onnx.registry import Node, operator
from needle.ops import stack

__all__: list[str] = []


@operator("If")
def if_(node: Node, condition: Tensor, *outer: Tensor) -> tuple[Tensor, ...]:
    branch = node["then_branch"] if condition.item() else node["else_branch"]
    outputs: tuple[Tensor, ...] = branch.run((), dict(zip(node.outer, outer, strict=True)))
    return outputs


@operator("Loop")
def loop(node: Node, count: Tensor | None, condition: Tensor | None, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the body while its condition holds, at most `count` times; the state, then each scan output, stacked."""
    state, outer = _split(node, inputs)
    body, limit = node["body"], math.inf if count is None else count.item()
    scanned = _Scanned(body, len(state) + 1)
    goes_on, i = condition is None or bool(condition.item()), 0
    device = next((x.device for x in (*state, *outer.values(), count, condition) if x is not None), default_device())
    flag = Tensor(True, device=device, requires_grad=False)
    while goes_on and i < limit:
        going, *results = body.run((Tensor(i, dtype="int64", device=device, requires_grad=False), flag, *state), outer)
        state = scanned.add(results)
        goes_on, i = bool(going.item()), i + 1
    return (*state, *scanned.stacked(device))


@operator("Scan", since=9)
def scan(node: Node, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the body over slices of the scan inputs; the last state, then each scan output, stacked."""
    values, outer = _split(node, inputs)
    body, number = node["body"], node["num_scan_inputs"]
    if not 0 < number <= len(values):
        raise ValueError(f"{node}: num_scan_inputs must lie in [1, {len(values)}], but got {number}")
    state, sequences = values[:-number], values[-number:]
    axes = [
        check.axis(str(node), axis, x.ndim)
        for axis, x in zip(node["scan_input_axes"] or [0] * number, sequences, strict=True)
    ]
    backward = node["scan_input_directions"] or [0] * number
    lengths = sorted({x.shape[axis] for x, axis in zip(sequences, axes, strict=True)})
    if len(lengths) > 1:
        raise ValueError(f"{node}: scan inputs must have one length, but got {lengths}")
    scanned = _Scanned(body, len(state))
    for i in range(lengths[0]):
        places = [lengths[0] - 1 - i if reverse else i for reverse in backward]
        slices = [x[at(axis, place)] for x, axis, place in zip(sequences, axes, places, strict=True)]
        state = scanned.add(body.run((*state, *slices), outer))
    return (*state, *scanned.stacked(values[0].device, node["scan_output_axes"], node["scan_output_directions"]))


def _split(node: Node, inputs: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """A node's own inputs, and those that its bodies read from around it, by name."""
    own = len(inputs) - len(node.outer)
    return list(inputs[:own]), dict(zip(node.outer, inputs[own:], strict=True))


class _Scanned:
    """What a body gives in every iteration, from its output `first` on: a column for each scan output."""

    def __init__(self, body: Any, first: int) -> None:
        self.types = body.types[first:]
        self.columns: list[list[Tensor]] = [[] for _ in self.types]

    def add(self, results: Sequence[Tensor]) -> list[Tensor]:
        """Keep the scan outputs of an iteration; returns its state, which stands before them."""
        first = len(results) - len(self.columns)
        for column, value in zip(self.columns, results[first:], strict=True):
            current_memory.get().add(value)
            column.append(value)
        return list(results[:first])

    def stacked(
        self, device: Device, axes: Sequence[int] | None = None, backward: Sequence[int] | None = None
    ) -> list[Tensor]:
        """Each column along a new axis; without an iteration it has the sizes that the model tells, else 0."""
        outputs = []
        none = [0] * len(self.columns)
        for column, kind, axis, reverse in zip(self.columns, self.types, axes or none, backward or none, strict=True):
            if column:
                current_memory.get().require(
                    "the scan outputs of a loop", sum(x.size * x.dtype.itemsize for x in column)
                )
                outputs.append(stack(column[::-1] if reverse else column, axis))
                for value in column:
                    current_memory.get().drop(value)
            else:
                sizes = [size or 0 for size in kind[0] or ()]
                sizes.insert(axis % (len(sizes) + 1), 0)
                outputs.append(zeros(*sizes, dtype=kind[1], device=device))
        return outputs
