"""`needle.onnx.backend`: what `onnx.backend.base.Backend` promises, beside the official suite."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.base import Backend, BackendRep

from needle import is_grad_enabled
from needle.onnx import backend, operator
from tests.onnx.models import parse

ONES = np.ones(2, "float32")
TWO_INPUTS = parse("y = Sub (x, other) z = Neg (y)", "float[2] x, float[2] other", "float[2] y, float[2] z")


def test_it_has_the_form_of_a_backend():
    assert issubclass(backend.NeedleBackend, Backend)
    assert isinstance(backend.prepare(TWO_INPUTS), BackendRep)
    for name in ("is_compatible", "prepare", "run_model", "run_node", "supports_device"):
        assert getattr(backend, name) == getattr(backend.NeedleBackend, name)


@pytest.mark.parametrize("inputs", [[ONES, 2 * ONES], (ONES, 2 * ONES), {"other": 2 * ONES, "x": ONES}], ids=type)
def test_a_model_runs(inputs):
    outputs = backend.run_model(TWO_INPUTS, inputs)
    assert [type(output) for output in outputs] == [np.ndarray] * 2
    assert outputs.y.tolist() == outputs["y"].tolist() == outputs[0].tolist() == [-1, -1]
    assert outputs.z.tolist() == [1, 1]


def test_a_single_array_is_the_only_input():
    assert backend.run_model(parse("y = Neg (x)"), ONES)[0].tolist() == [-1, -1]


def test_no_graph_is_recorded():
    @operator("Grad", domain="test.backend")
    def grad(node, x):
        return x * float(is_grad_enabled())

    model = parse("y = Neg (x)")
    model.opset_import.add(domain="test.backend", version=1)
    model.graph.node[0].CopyFrom(helper.make_node("Grad", ["x"], ["y"], domain="test.backend"))
    assert backend.run_model(model, [ONES])[0].tolist() == [0, 0]


def test_a_node_runs():
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], largest=0)
    outputs = backend.run_node(node, [np.array([3, 1, 2], "float32"), np.array([2])])
    assert outputs.values.tolist() == [1, 2]
    assert outputs.indices.tolist() == [1, 2]


def test_a_node_without_some_inputs_and_outputs_runs():
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    assert backend.run_node(node, [np.array([-3, 5], "float32"), np.array(2, "float32")]).y.tolist() == [-3, 2]


def test_a_node_runs_in_an_older_opset():
    node, x = helper.make_node("Softmax", ["x"], ["y"]), np.zeros((1, 2, 2), "float32")
    assert backend.run_node(node, [x]).y.tolist() == [[[0.5] * 2] * 2]
    assert backend.run_node(node, [x], opset_version=12).y.tolist() == [[[0.25] * 2] * 2]


def test_compatible_models_are_those_that_load():
    assert backend.is_compatible(TWO_INPUTS)
    assert not backend.is_compatible(parse("y = StringNormalizer (x)", "string[2] x", "string[2] y"))
    assert not backend.is_compatible(onnx.ModelProto())


def test_devices():
    assert backend.supports_device("CPU")
    for name in ("TPU", "", "CUDA:x", "CUDA:-1", "CUDA:99"):
        assert not backend.supports_device(name)
