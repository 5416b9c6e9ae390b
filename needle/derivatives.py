"""Gradients as results of a function, without `.grad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.graph import walk

__all__ = ["grad"]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The derivatives of the sum of `outputs`, weighted by `grad_outputs`, in each of `inputs`: `torch.autograd.grad`.

    `inputs` may be any tensors that `outputs` were computed from, not leaves alone. `grad_outputs` are ones by default.
    No `.grad` changes. Graphs are created and retained as in `backward`, but by default none is created.

    Raises what `backward` raises, and `RuntimeError` if an output does not depend on one of `inputs`, unless
    `allow_unused`: the result then holds None.

    >>> x = Tensor([1.0, 2.0])
    >>> y = x * x
    >>> grad((y * y).sum(), [x, y])
    (Tensor([ 4. 32.]), Tensor([2. 8.]))
    """
    outputs = _tensors("outputs", outputs)
    wanted = _tensors("inputs", inputs)
    weights = [None] * len(outputs) if grad_outputs is None else grad_outputs
    weights = [weights] if isinstance(weights, Tensor) else list(weights)
    check.same("grad", "number", len(outputs), len(weights), ("outputs", "grad_outputs"))
    seeds = [output.initial_grad(weight) for output, weight in zip(outputs, weights, strict=True)]
    total: dict[Tensor, Tensor | None] = dict.fromkeys(wanted)
    for i, (output, seed) in enumerate(zip(outputs, seeds, strict=True), 1):
        found: dict[Any, Any] = dict.fromkeys(wanted)
        walk(
            output,
            seed if create_graph else seed.detach(),
            create_graph=create_graph,
            retain_graph=i < len(outputs) or (create_graph if retain_graph is None else retain_graph),
            found=found,
        )
        for x, part in found.items():
            if part is not None:
                before = total[x]
                total[x] = part if before is None else before + part
    unused = [x.shape for x in wanted if total[x] is None]
    if unused and not allow_unused:
        raise RuntimeError(
            f"grad: outputs must depend on each of inputs, but they do not on one of shape {unused[0]}; "
            "allow_unused=True makes its gradient None"
        )
    return tuple(total[x] for x in wanted)


def _tensors(name: str, value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One tensor or several as a list."""
    tensors = [value] if isinstance(value, Tensor) else list(value)
    for x in tensors:
        check.instance("grad", f"each of {name}", x, Tensor)
    return tensors
