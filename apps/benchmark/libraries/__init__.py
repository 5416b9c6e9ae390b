"""Adapters: how each library of the benchmark runs the cases, through its public names.

An adapter supports the cases that `cases.RIVALS` lists for it. Loading one imports its library.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ADAPTERS", "adapter_of"]

ADAPTERS = {  # name: module, class
    "needle": ("needle", "Needle"),
    "needle-plan": ("needle", "PlannedNeedle"),
    "needle-workers": ("needle_ranks", "NeedleWorkers"),
    "needle-mpi": ("needle_ranks", "NeedleOnMpi"),
    "needle-mpi-plan": ("needle_ranks", "PlannedNeedleOnMpi"),
    "needle-apart": ("needle_ranks", "NeedleApart"),
    "needle-cuda": ("needle_cuda", "CudaNeedle"),
    "needle-captured": ("needle_cuda", "CapturedNeedle"),
    "torch": ("torch", "Torch"),
    "torch-cuda": ("torch_cuda", "CudaTorch"),
    "torch-graph": ("torch_cuda", "GraphedTorch"),
    "torch-batched": ("torch", "BatchedTorch"),
    "torch-ddp": ("torch", "DistributedTorch"),
    "torch-compile": ("torch", "CompiledTorch"),
    "mygrad": ("mygrad", "MyGrad"),
    "dezero": ("dezero", "DeZero"),
    "loops": ("loops", "Loops"),
}


def adapter_of(name: str) -> Any:
    """The class that adapts a library; raises ModuleNotFoundError if the library is not installed."""
    module, adapter = ADAPTERS[name]
    return getattr(import_module(f".{module}", __package__), adapter)
