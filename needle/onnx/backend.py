"""needle as a backend of ONNX, in the form of `onnx.backend.base.Backend`."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.backend.base import Backend, BackendRep

from needle.backend import cpu
from needle.grad_mode import no_grad
from needle.onnx.model import GraphModule, load

__all__ = ["NeedleBackend", "NeedleBackendRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class NeedleBackendRep(BackendRep):  # type: ignore[misc]
    """A model that is ready to run."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs as NumPy arrays."""
        with no_grad():
            outputs = self.module(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.numpy() for output in outputs)


class NeedleBackend(Backend):  # type: ignore[misc]
    """Models of ONNX on needle."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> NeedleBackendRep:
        """A model that is ready to run."""
        return NeedleBackendRep(load(model).to(cpu()))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device ("CPU", "CUDA") can be used."""
        return device == "CPU"


is_compatible = NeedleBackend.is_compatible
prepare = NeedleBackend.prepare
run_model = NeedleBackend.run_model
run_node = NeedleBackend.run_node
supports_device = NeedleBackend.supports_device
