"""Branches and loops: If, Loop and Scan.

The values that the bodies of a node read from the graphs around it follow its own inputs; `node.outer` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from needle.autograd import Tensor
from needle.backend import default_device
from needle.init import zeros
from needle.onnx.registry import Node, operator
from needle.ops import stack

__all__: list[str] = []


@operator("If")
def if_(node: Node, condition: Tensor, *outer: Tensor) -> tuple[Tensor, ...]:
    branch = node["then_branch"] if condition.item() else node["else_branch"]
    outputs: tuple[Tensor, ...] = branch.run((), dict(zip(node.outer, outer, strict=True)))
    return outputs


@operator("Loop")
def loop(node: Node, *inputs: Tensor | None) -> tuple[Tensor, ...]:
    """Run the body while its condition holds, `count` times at most; outputs the state and, stacked, each scan output.

    Where the loop does not run at all, scan outputs have no first axis entries; their other axes are those that the
    body declares.
    """
    count, condition, *rest = inputs
    state, outer = _split(node, rest)
    body, limit = node["body"], None if count is None else int(count.item())
    rows: list[Sequence[Tensor]] = []
    goes_on = condition is None or bool(condition.item())
    device = state[0].device if state else default_device()
    i = 0
    while goes_on and (limit is None or i < limit):
        index = Tensor(i, dtype="int64", device=device, requires_grad=False)
        flag = Tensor(True, dtype="bool", device=device, requires_grad=False)
        going, *results = body.run((index, flag, *state), outer)
        state, row = results[: len(state)], results[len(state) :]
        rows.append(row)
        goes_on, i = bool(going.item()), i + 1
    return (*state, *_stacked(body, len(state) + 1, rows, [0] * (len(body.outputs) - 1 - len(state)), device))


@operator("Scan", since=9)
def scan(node: Node, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the body over slices of the scan inputs; outputs the last state and, stacked, each scan output."""
    values, outer = _split(node, inputs)
    body, scanned = node["body"], node["num_scan_inputs"]
    state, sequences = values[: len(values) - scanned], values[len(values) - scanned :]
    outputs = len(body.outputs) - len(state)
    axes = [axis % x.ndim for axis, x in zip(node["scan_input_axes"] or [0] * scanned, sequences, strict=True)]
    backward = node["scan_input_directions"] or [0] * scanned
    lengths = {x.shape[axis] for x, axis in zip(sequences, axes, strict=True)}
    if len(lengths) != 1:
        raise ValueError(f"{node}: scan inputs must have one length, but got {sorted(lengths)}")
    (length,) = lengths
    rows: list[Sequence[Tensor]] = []
    for i in range(length):
        slices = [
            x[(*[slice(None)] * axis, length - 1 - i if reverse else i)]
            for x, axis, reverse in zip(sequences, axes, backward, strict=True)
        ]
        results = body.run((*state, *slices), outer)
        state, row = results[: len(state)], results[len(state) :]
        rows.append(row)
    for index, reverse in enumerate(node["scan_output_directions"] or [0] * outputs):
        if reverse:
            column = [row[index] for row in rows][::-1]
            rows = [(*row[:index], entry, *row[index + 1 :]) for row, entry in zip(rows, column, strict=True)]
    out_axes = node["scan_output_axes"] or [0] * outputs
    return (*state, *_stacked(body, len(state), rows, out_axes, sequences[0].device))


def _split(node: Node, inputs: Sequence[Any]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """A node's own inputs, and those that its bodies read from outside by name."""
    own = len(inputs) - len(node.outer)
    return list(inputs[:own]), dict(zip(node.outer, inputs[own:], strict=True))


def _stacked(body: Any, first: int, rows: list[Sequence[Tensor]], axes: Sequence[int], device: Any) -> list[Tensor]:
    """The scan outputs of a body, from its output `first` on: their rows along a new axis."""
    if rows:
        columns = zip(*rows, strict=True)
        return [stack(rows, axis % (rows[0].ndim + 1)) for rows, axis in zip(columns, axes, strict=True)]
    return [
        zeros(*shape[: axis % (len(shape) + 1)], 0, *shape[axis % (len(shape) + 1) :], dtype=dtype, device=device)
        for (shape, dtype), axis in zip(body.output_types[first:], axes, strict=True)
    ]
