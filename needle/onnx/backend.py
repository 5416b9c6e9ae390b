"""needle as a backend in the form of `onnx.backend.base.Backend`, which test suites and tools of ONNX run on.

>>> import numpy as np, onnx
>>> outputs = run_node(onnx.helper.make_node("Relu", ["x"], ["y"]), [np.array([-1, 2], "float32")])
>>> outputs.y
array([0., 2.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict
from onnx.shape_inference import infer_node_outputs

from needle.autograd import Tensor
from needle.backend import Device, cpu, cuda
from needle.grad_mode import no_grad
from needle.onnx.model import GraphModule, load

__all__ = ["NeedleBackend", "NeedleBackendRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class NeedleBackendRep(BackendRep):  # type: ignore[misc]
    """A model that is ready to run; `module` is the module that `load` made of it."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """The outputs as NumPy arrays, in a tuple with their names: `outputs[0]`, `outputs.y` or `outputs["y"]`.

        `inputs` is a list or tuple in the order of the model, a mapping from names, or a single array.
        """
        with no_grad():
            if isinstance(inputs, Mapping):
                results = self.module(**inputs)
            else:
                results = self.module(*(inputs if isinstance(inputs, (list, tuple)) else [inputs]))
        arrays = [result.numpy() for result in ([results] if isinstance(results, Tensor) else results)]
        return namedtupledict("Outputs", self.module.outputs)(*arrays)


class NeedleBackend(Backend):  # type: ignore[misc]
    """Models and nodes of ONNX on needle. Devices have the names "CPU", "CUDA" and "CUDA:1"."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` accepts a model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (ValueError, TypeError):
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> NeedleBackendRep:
        """A model that is ready to run on a device; errors as in `load`."""
        return NeedleBackendRep(load(model).to(_device(device)))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """The outputs of a model, as `prepare` and `run` give them."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The outputs of a single node for a list of arrays, in the newest opset or that of `opset_version`.

        `outputs_info` is not needed: ONNX infers the types of the outputs.
        """
        newest = onnx.defs.get_schema(node.op_type, node.domain).since_version
        opset = kwargs.get("opset_version", newest if node.domain else onnx.defs.onnx_opset_version())
        names = [name for name in node.input if name]
        types = {
            name: onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in zip(names, inputs, strict=True)
        }
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        imports = [onnx.helper.make_opsetid(node.domain, opset)]
        results = infer_node_outputs(schema, node, types, opset_imports=imports)
        outputs = [onnx.helper.make_value_info(name, results[name]) for name in node.output if name]
        graph = onnx.helper.make_graph(
            [node], "node", list(map(onnx.helper.make_value_info, types, types.values())), outputs
        )
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=imports), list(inputs), device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether a device can be used here."""
        try:
            return _device(device).enabled()
        except (ValueError, KeyError):
            return False


def _device(name: str) -> Device:
    kind, _, index = name.partition(":")
    if kind not in ("CPU", "CUDA") or not (index or "0").isdigit():
        raise ValueError(f"prepare: device must be 'CPU', 'CUDA' or 'CUDA:1', but got {name!r}")
    return cpu() if kind == "CPU" else cuda(int(index or 0))


is_compatible = NeedleBackend.is_compatible
prepare = NeedleBackend.prepare
run_model = NeedleBackend.run_model
run_node = NeedleBackend.run_node
supports_device = NeedleBackend.supports_device
