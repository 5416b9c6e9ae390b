"""Shared by adapters: networks of modules, networks of functions, and the name of NumPy's BLAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..cases import Layer, Shape, steps
from .ranks import Single

__all__ = ["Functions", "Modules", "blas"]

Tensor = Any  # of the adapter's library


def blas() -> str:
    """NumPy, the BLAS behind its matrix products, and the kernels that this BLAS chose."""
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return f"NumPy {np.__version__} with an unknown BLAS (threadpoolctl, which would name it, is not installed)"
    for pool in threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            chosen = f"kernels: {pool.get('architecture')}, threads: {pool['num_threads']}"
            return f"NumPy {np.__version__} with {pool['internal_api']} {pool['version']} ({chosen})"
    return f"NumPy {np.__version__} with a BLAS that threadpoolctl does not know"


class Modules(Single):
    """An adapter of a library with torch's modules: needle and torch. `nn` is its namespace of modules."""

    nn: Any
    residual: Callable[[Any], Any]
    assign: Callable[[Tensor, np.ndarray], None]

    def modules(self, layers: Iterable[Layer], shape: Shape) -> list[Any]:
        """The modules of the layers for examples (C, *S)."""
        nn, modules = self.nn, []
        for layer in layers:
            channels, rank = shape[0], len(shape) - 1
            geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
            match layer.kind:
                case "conv" | "conv_transpose":
                    kind = getattr(nn, f"{'Conv' if layer.kind == 'conv' else 'ConvTranspose'}{rank}d")
                    modules.append(kind(channels, layer.out, layer.kernel, groups=layer.groups, **geometry))
                case "max_pool":
                    modules.append(getattr(nn, f"MaxPool{rank}d")(layer.kernel, layer.stride))
                case "average":
                    modules += [getattr(nn, f"AdaptiveAvgPool{rank}d")(1), nn.Flatten()]
                case "batch_norm":
                    modules.append(getattr(nn, f"BatchNorm{rank}d")(channels))
                case "linear":
                    modules.append(nn.Linear(channels, layer.out))
                case "residual":
                    modules.append(self.residual(nn.Sequential(*self.modules(layer.body, shape))))
                case "relu":
                    modules.append(nn.ReLU())
                case "flatten":
                    modules.append(nn.Flatten())
            shape = layer.output(shape)
        return modules

    def network(
        self, layers: Iterable[Layer], shape: Shape, arrays: Iterable[np.ndarray]
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """The layers as one function, and its parameters, which start as `arrays`."""
        model = self.nn.Sequential(*self.modules(layers, shape))
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            self.assign(parameter, array)
        return model, list(model.parameters())

    def loss(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        return {"cross_entropy": self.nn.CrossEntropyLoss, "mean_squared": self.nn.MSELoss}[name]()

    def leaf(self, x: Tensor) -> Tensor:
        """The same values as a leaf that requires a gradient."""
        x = x.detach()
        x.requires_grad = True
        return x

    def array(self, tensor: Tensor) -> np.ndarray:
        return tensor.detach().numpy()

    def number(self, loss: Tensor) -> float:
        return loss.item()

    def relu(self, x: Tensor) -> Tensor:
        return x.relu()


class Functions(Single):
    """An adapter of a library without such modules: a method for each kind of layer."""

    parameter: Callable[[np.ndarray], Tensor]

    def network(
        self, layers: Sequence[Layer], shape: Shape, arrays: Iterable[np.ndarray]
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """The layers as one function, and its parameters, which start as `arrays`."""
        remaining = iter(arrays)
        functions, parameters = [], []
        for layer, before in steps(tuple(layers), shape):
            own = [self.parameter(next(remaining)) for _ in layer.parameters(before)]
            functions.append(partial(getattr(self, layer.kind), layer, *own))
            parameters += own

        def forward(x: Tensor) -> Tensor:
            for function in functions:
                x = function(x)
            return x

        return forward, parameters

    def array(self, tensor: Tensor) -> np.ndarray:
        return tensor.data

    def number(self, loss: Tensor) -> float:
        return float(loss.data)
