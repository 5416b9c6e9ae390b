"""Models of a single node."""

import onnx
from onnx import helper

import needle as ndl
from needle.onnx import load


def model_of(op_type, inputs, opset=22, outputs=1, domain="", **attributes):
    """A model whose only node takes arrays, None for those left out, as the inputs x0, x1 …; outputs are y0, y1 …"""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in zip(names, inputs, strict=True)
        if name
    ]
    results = [helper.make_value_info(f"y{i}", onnx.TypeProto()) for i in range(outputs)]
    graph = helper.make_graph([node], "g", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def given(inputs):
    """The arrays that are not left out."""
    return [array for array in inputs if array is not None]


def run(op_type, inputs, opset=22, outputs=1, **attributes):
    """The outputs of a node in needle, as a tuple of tensors."""
    module = load(model_of(op_type, inputs, opset, outputs, **attributes)).eval()
    result = module(*(ndl.Tensor(array, requires_grad=False) for array in given(inputs)))
    return result if isinstance(result, tuple) else (result,)
