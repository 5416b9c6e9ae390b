"""One operator of ONNX on arrays, by needle's function for it."""

import numpy as np
import onnx

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
