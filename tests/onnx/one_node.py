"""One operator of ONNX on arrays, by needle's function for it."""

import numpy as np
import onnx
import onnxruntime

import needle as ndl
import needle.onnx.operators  # registers them
from needle.onnx.registry import Node, find_operator

OPSET = 23


def operate(op_type, *inputs, opset=OPSET, domain="", outputs=1, requires_grad=False, **attributes):
    """The outputs of an operator as tensors, a tuple unless there is one; None among `inputs` is one left out."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    proto = onnx.helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    function = find_operator(op_type, domain, opset).function
    tensors = (x if x is None or isinstance(x, ndl.Tensor) else constant(x, requires_grad) for x in inputs)
    return function(Node(proto, opset), *tensors)


def constant(x, requires_grad=False):
    x = np.asarray(x)
    return ndl.Tensor(x, requires_grad=requires_grad and x.dtype.kind == "f")


def in_onnxruntime(op_type, *inputs, opset=22, outputs=1, domain="", **attributes):
    """The outputs of an operator in onnxruntime as arrays; None among `inputs` is one left out."""
    arrays = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if x is not None}
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(op_type, names, results, domain=domain, **attributes)
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in arrays.items()}
    graph = onnx.helper.make_graph(
        [node],
        "one_node",
        [onnx.helper.make_tensor_value_info(name, types[name], x.shape) for name, x in arrays.items()],
        [onnx.ValueInfoProto(name=name) for name in results],
    )
    opsets = [onnx.helper.make_opsetid("", opset), *([onnx.helper.make_opsetid(domain, 1)] if domain else [])]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, arrays)
