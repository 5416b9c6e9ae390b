"""Small models, written in the text form of ONNX."""

import onnx


def parse(body, inputs="float[2] x", outputs="float[n] y", *, initializers="", opset=17, functions=""):
    """The model of a graph `inputs => outputs { body }`; further functions follow it."""
    values = f"<{initializers}>" if initializers else ""
    header = f'<ir_version: 10, opset_import: ["": {opset}, "own": 1, "ai.onnx.preview": 1]>'
    return onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {values} {{ {body} }} {functions}")


def function(name, body, opset=17):
    """A function `own.name` of x that gives y."""
    return f'<domain: "own", opset_import: ["": {opset}, "own": 1]> {name} (x) => (y) {{ {body} }}'
