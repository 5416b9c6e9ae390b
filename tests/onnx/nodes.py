"""Models of a single node."""

import onnx
from onnx import helper

import needle as ndl
from needle.onnx import load


def model_of(op_type, inputs, opset=22, outputs=1, fixed=(), **attributes):
    """A model whose only node takes arrays, None for those left out, as the inputs x0, x1 …; outputs are y0, y1 …

    Those that `fixed` numbers become initialisers.
    """
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **attributes)
    values = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for i, array in enumerate(inputs)
        if array is not None and i not in fixed
    ]
    constants = [onnx.numpy_helper.from_array(inputs[i], f"x{i}") for i in fixed if inputs[i] is not None]
    results = [helper.make_value_info(f"y{i}", onnx.TypeProto()) for i in range(outputs)]
    graph = helper.make_graph([node], "g", values, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def feeds(inputs, fixed=()):
    """The arrays by name that a model of these inputs must be given."""
    return {f"x{i}": array for i, array in enumerate(inputs) if array is not None and i not in fixed}


def run(op_type, inputs, opset=22, outputs=1, fixed=(), device=None, **attributes):
    """The outputs of a node in needle, as a tuple of tensors."""
    device = device or ndl.cpu()
    module = load(model_of(op_type, inputs, opset, outputs, fixed, **attributes)).to(device)
    given = feeds(inputs, fixed).values()
    result = module(*(ndl.Tensor(array, device=device, requires_grad=False) for array in given))
    return result if isinstance(result, tuple) else (result,)
