"""The adapters of PyTorch on a GPU: eager, and with its training step as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .torch import Torch

__all__ = ["CudaTorch", "GraphedTorch"]

if not torch.cuda.is_available():
    raise ModuleNotFoundError("torch finds no GPU")  # it is then missing, as a library that is not installed

EAGER_STEPS = 3  # on a stream of their own, before a graph is captured: torch asks for some


class CudaTorch(Torch):
    """PyTorch on GPU 0, in float32 throughout, as needle; losses stay there."""

    burst = 10
    mode = "eager, fused optimizers"
    options: dict[str, Any] = {"fused": True}  # noqa: RUF012 (nobody writes to it)

    def __init__(self) -> None:
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True

    def about(self) -> str:
        name = torch.cuda.get_device_name()
        return f"torch {torch.__version__} on {name} by CUDA {torch.version.cuda}, {self.mode}"

    def optimizer(self, name: str, parameters: list[torch.Tensor], options: dict[str, float]) -> torch.optim.Optimizer:
        return super().optimizer(name, parameters, options | self.options)

    def array(self, tensor: torch.Tensor) -> np.ndarray:
        return super().array(tensor.cpu())

    def number(self, loss: torch.Tensor) -> Any:
        return loss.detach()

    def wait(self) -> None:
        torch.cuda.synchronize()


class GraphedTorch(CudaTorch):
    """PyTorch on GPU 0, each training step one CUDA graph, after some eager steps."""

    mode = "a CUDA graph of the step, fused optimizers"

    def optimizer(self, name: str, parameters: list[torch.Tensor], options: dict[str, float]) -> torch.optim.Optimizer:
        return super().optimizer(name, parameters, options | ({"capturable": True} if name == "Adam" else {}))

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        graph, side, calls = torch.cuda.CUDAGraph(), torch.cuda.Stream(), 0
        inputs: list[torch.Tensor] = []
        loss: Any = None

        def run(*batch: torch.Tensor) -> torch.Tensor:
            nonlocal calls, loss
            calls += 1
            if not inputs:
                inputs.extend(tensor.detach().clone() for tensor in batch)
            for kept, tensor in zip(inputs, batch, strict=True):
                kept.copy_(tensor)
            if calls <= EAGER_STEPS:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    result = step(*inputs)
                torch.cuda.current_stream().wait_stream(side)
                return result
            if loss is None:
                with torch.cuda.graph(graph):
                    loss = step(*inputs)
            graph.replay()
            return loss

        return run
