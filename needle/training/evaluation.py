"""The figures of a model on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from needle import check
from needle.autograd import Tensor
from needle.backend.communicator import current_communicator, require_alike
from needle.data import worker_batches
from needle.grad_mode import no_grad
from needle.metrics import Metric
from needle.nn import Module
from needle.ops.across_ranks import batch_mean
from needle.training.exchanges import check_divisible, share_place, share_stream, share_weights, whole_batch
from needle.training.figures import Figures
from needle.training.likeness import of_loader, of_parts

__all__ = ["evaluate"]

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]  # (outputs, targets) -> the mean loss of a batch, ()
Forward: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]  # (model, batch) -> (outputs, targets)


def apply_model(model: Module, batch: Any) -> tuple[Any, Any]:
    """The default `forward`: a batch is a pair (inputs, targets), and the model takes the inputs."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"fit: a batch must be a pair (inputs, targets), or forward must take it apart, but got {got}")
    inputs, targets = batch
    return model(inputs), targets


def evaluate(
    model: Module,
    loss_fn: LossFunction,
    loader: Iterable[Any],
    metrics: Mapping[str, Metric] | None = None,
    *,
    forward: Forward = apply_model,
) -> dict[str, Any]:
    """The mean loss and the metrics of a model over the batches of `loader`: `{"loss": …, name: …}`.

    The model is put into evaluation mode and every module back into its own afterwards; no graph is recorded.
    `forward(model, batch)` returns outputs and targets; a `reset()` that it or `loader` has is called first.

    Where several ranks call it (`needle.distributed.join`, `launch`), each computes its part of every batch, with the
    weights of rank 0, and all get the same figures. Callbacks of `fit` evaluate alone, as does a rank within
    `using(Alone())` of `needle.distributed`.

    Raises ValueError if `loader` yields no batch, or where ranks cannot divide them: `loss_fn` is no mean, `forward`
    has a state, or model, loss, metrics or loader are not made alike.
    """
    check.instance("evaluate", "model", model, Module)
    communicator = current_communicator()
    if communicator.size > 1:
        check_divisible("evaluate", loss_fn, forward)
        require_alike("evaluate", communicator, of_parts(model, loss_fn, metrics, forward) | of_loader("", loader))
        share_weights(model)
        if isinstance(loss_fn, Module):
            share_weights(loss_fn)
    return evaluate_by_workers(model, loss_fn, loader, metrics, forward)


def evaluate_by_workers(
    model: Module, loss_fn: LossFunction, loader: Iterable[Any], metrics: Mapping[str, Metric] | None, forward: Forward
) -> dict[str, Any]:
    """`evaluate` by all ranks, each on its items of every batch; all of them get the figures."""
    figures = Figures(metrics)
    modes = [(module, module.training) for _, module in model.named_modules()]
    try:
        model.eval()
        start_pass(forward, loader)
        share_stream()
        share_place(loader)
        with no_grad():
            for batch in worker_batches(loader):
                outputs, targets = forward(model, batch)
                loss = batch_mean(check.instance("Figures", "loss", loss_fn(outputs, targets), Tensor))
                figures.update(loss, *whole_batch(outputs, targets, bool(figures.metrics)))
    finally:
        for module, mode in modes:
            module.training = mode
    if not figures.items:
        raise ValueError("evaluate: loader must yield at least one batch, but yielded none")
    return figures.compute()


def start_pass(*parts: Any) -> None:
    """Let a `forward` that carries something from batch to batch begin anew, and a loader that was left in an epoch."""
    for part in parts:
        reset = getattr(part, "reset", None)
        if reset is not None:
            reset()
