"""Whole networks, trained and exported: their outputs in onnxruntime, and their training after `needle.onnx.load`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import needle as ndl
import needle.onnx
from apps.models import MODELS, LanguageModel
from needle import nn
from needle.ops.conv import Correlate, RectifiedCorrelate
from needle.ops.linalg import MatMul
from tests.onnx.exported import Function, assert_equal, by_needle, by_onnxruntime, flat, stir, tensors
from tests.standin.device import STANDIN

rng = np.random.default_rng(0)
SHAPE = (1, 16, 16)


def images(count, shape=SHAPE):
    return rng.random((count, *shape), "float32")


def trained(model, x, target, steps=3):
    """The model after some steps of SGD on one batch."""
    optimizer = ndl.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(ndl.Tensor(x, requires_grad=False)) - target).pow(2).mean()
        loss.backward(create_graph=False)
        optimizer.step()
        losses.append(loss.item())
    return losses


def target_of(model, x):
    with ndl.no_grad():
        shape = model.eval()(ndl.Tensor(x, requires_grad=False)).shape
    model.train()
    return ndl.Tensor(rng.random(shape, "float32"), requires_grad=False)


@pytest.mark.parametrize("name", MODELS)
def test_trained_networks_compute_the_same_in_onnxruntime(tmp_path, name):
    model = MODELS[name](SHAPE, 5)
    x, path = images(6), str(tmp_path / "model.onnx")
    trained(model, x, target_of(model, x))
    needle.onnx.export(model, x, path, batch_axis=0)
    assert model.training
    model.eval()
    for count in (1, 5):
        more = images(count)
        expected = flat(model(ndl.Tensor(more, requires_grad=False)))
        assert_equal(by_onnxruntime(path, more), expected)
        assert_equal(by_needle(path, more), expected)
    state = {key: value.numpy() for key, value in model.state_dict().items() if not key.endswith("tracked")}
    loaded = needle.onnx.load(path)
    assert {key: value.shape for key, value in loaded.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert [key for key, _ in loaded.named_parameters()] == [key for key, _ in model.named_parameters()]
    for key, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key])


@pytest.mark.parametrize("name", ["tinycnn", "unet"])
def test_a_loaded_model_trains_as_its_origin_does_and_is_exported_again(tmp_path, name):
    """The same gradients and steps in evaluation mode, where batch normalization uses its running statistics."""
    model, x, path = MODELS[name](SHAPE, 5), images(4), str(tmp_path / "model.onnx")
    target = target_of(model, x)
    trained(model, x, target)
    model.eval()
    needle.onnx.export(model, x, path, batch_axis=0)
    loaded = needle.onnx.load(path).eval()
    assert trained(loaded, x, target) == pytest.approx(trained(model, x, target), rel=1e-4)
    assert_equal([p.numpy() for p in loaded.parameters()], [p.numpy() for p in model.parameters()], 1e-4)
    again = str(tmp_path / "again.onnx")
    needle.onnx.export(loaded, x, again, batch_axis=0)
    more = images(3)
    assert_equal(by_onnxruntime(again, more), flat(model(ndl.Tensor(more, requires_grad=False))), 1e-4, 1e-4)
    assert needle.onnx.load(again).state_dict().keys() == loaded.state_dict().keys()
    assert kinds(again) == kinds(path)
    for name in ("input", "output"):
        assert [entry.name for entry in getattr(graph_of(again), name)] == [{"input": "x"}.get(name, name)]


@pytest.mark.parametrize("kind", ["rnn", "lstm", "transformer"])
def test_language_models_with_states_for_any_number_of_texts(tmp_path, kind):
    model, path = stir(LanguageModel(6, 11, 8, 2, kind, seq_len=5)).eval(), str(tmp_path / "model.onnx")
    needle.onnx.export(model, np.zeros((5, 2), "int64"), path, batch_axis=1, input_names=["words"])
    words = rng.integers(0, 11, (5, 3))
    expected = flat(model(ndl.Tensor(words, requires_grad=False)))
    assert_equal(by_onnxruntime(path, words), expected)
    assert_equal(by_needle(path, words), expected)
    graph = onnx.load(path).graph
    assert [entry.name for entry in graph.input] == ["words"]
    if kind == "lstm":
        states = tuple(rng.random((2, 3, 8), "float32") for _ in range(2))
        needle.onnx.export(model, (words, states), path, batch_axis=1)
        assert [entry.name for entry in onnx.load(path).graph.input] == ["x", "h_0", "h_1"]
        assert_equal(by_onnxruntime(path, words, *states), flat(model(*tensors((words, states)))))


# ---- what a file holds -----------------------------------------------------------------------------------------------


def graph_of(path):
    return onnx.load(path).graph


def kinds(path):
    return [node.op_type for node in graph_of(path).node if node.op_type != "Constant"]


class Tied(nn.Module):
    """A module with one weight under two names, a buffer, and an input that nothing reads."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.shift = nn.Buffer(np.ones(3, "float32"))
        self.unused = nn.Linear(2, 2)

    def forward(self, x, spare):
        y = self.second(self.first(x) + self.shift)
        return {"y": y, "x": x, "both": (y, self.shift.detach())}


def test_names_of_inputs_outputs_state_and_nodes(tmp_path):
    path, model = str(tmp_path / "model.onnx"), Tied()
    x, spare = rng.random((2, 3), "float32"), np.zeros(4, "int32")
    needle.onnx.export(model, (x, spare), path)
    graph = graph_of(path)
    assert [entry.name for entry in graph.input] == ["x", "spare"]
    assert [entry.name for entry in graph.output] == ["output_y", "output_x", "output_both_0", "output_both_1"]
    assert sorted(entry.name for entry in graph.initializer) == [
        "first.bias", "first.weight", "second.bias", "shift"
    ]  # fmt: skip
    assert "first/MatMul" in [node.name for node in graph.node]
    result = model(*tensors((x, spare)))
    assert_equal(by_onnxruntime(path, x, spare), flat((result["y"], result["x"], *result["both"])))
    needle.onnx.export(model, (x, spare), path, input_names=["a", "b"], output_names=["p", "q", "r", "s"])
    graph = graph_of(path)
    assert [entry.name for entry in (*graph.input, *graph.output)] == [*"abpqrs"]


def test_fused_pairs_of_a_sequential_and_the_operators_of_layers(tmp_path):
    """ReLU behind a convolution or a norm, and max-pooling behind ReLU, are written as they are listed."""
    path = str(tmp_path / "model.onnx")
    parts = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten()
    model = stir(nn.Sequential(*parts, nn.Linear(8, 2))).eval()
    x = images(3, (1, 10, 10))
    expected = flat(model(ndl.Tensor(x, requires_grad=False)))
    for conv_opset in (17, 20, 28):
        needle.onnx.export(model, x, path, opset=conv_opset)
        listed = ["Conv", "Relu", "BatchNormalization", "Relu", "MaxPool", "AveragePool", "Reshape", "MatMul", "Add"]
        assert kinds(path) == listed
        assert_equal(by_onnxruntime(path, x), expected)


@pytest.mark.parametrize("opset", range(17, 29))
def test_every_opset(tmp_path, opset):
    """Reductions, whose axes became inputs in 18, and what changed since 17."""
    x, path = rng.random((2, 3, 4), "float32"), str(tmp_path / "model.onnx")

    def several(x):
        return x.mean(1), x.max((0, 2)), ndl.logsumexp(x, 1), x.sum(), ndl.split(x, 1)[1], x * 2

    model = nn.Sequential(nn.LayerNorm(4), nn.GELU(), Function(several))
    needle.onnx.export(model, x, path, opset=opset)
    proto = onnx.load(path)
    assert (proto.opset_import[0].version, proto.producer_name) == (opset, "needle")
    assert proto.ir_version == onnx.helper.find_min_ir_version_for(proto.opset_import)
    assert_equal(by_onnxruntime(path, x), flat(model(ndl.Tensor(x, requires_grad=False))))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes(tmp_path, dtype):
    """float64 by needle.onnx.load, since onnxruntime has no such convolution."""
    path = str(tmp_path / "model.onnx")
    model = stir(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)))
    model.to(dtype=dtype).eval()
    x = images(2, (1, 6, 6)).astype(dtype)
    expected = flat(model(ndl.Tensor(x, requires_grad=False)))
    needle.onnx.export(model, x, path)
    tolerance = 1e-2 if dtype == "float16" else 1e-12
    assert_equal(by_needle(path, x), expected, tolerance, tolerance)
    if dtype == "float16":
        assert_equal(by_onnxruntime(path, x), expected, tolerance, tolerance)


def test_a_state_too_large_for_one_file_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("needle.onnx.exporting.file.LIMIT", 1000)
    model, path = stir(nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 2))), tmp_path / "m.onnx"
    x = rng.random((2, 20), "float32")
    needle.onnx.export(model, x, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 2000
    onnx.checker.check_model(str(path), full_check=True)
    expected = flat(model(ndl.Tensor(x, requires_grad=False)))
    assert_equal(by_onnxruntime(str(path), x), expected)
    assert_equal(by_needle(path, x), expected)


def test_nothing_that_depends_on_an_input_is_computed(tmp_path, monkeypatch):
    model = stir(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)))
    for op_class in (Correlate, RectifiedCorrelate, MatMul):
        monkeypatch.setattr(op_class, "compute", None)
    needle.onnx.export(model, images(2, (1, 6, 6)), tmp_path / "model.onnx")
    assert model.training


def test_the_device_of_a_model_does_not_show_in_its_file(tmp_path):
    model = stir(nn.Sequential(nn.Embedding(5, 4), nn.LSTM(4, 3, bidirectional=True), Function(lambda y: y[0].max(1))))
    files = [tmp_path / "cpu.onnx", tmp_path / "standin.onnx"]
    for file, device in zip(files, (ndl.cpu(), STANDIN), strict=True):
        words = ndl.Tensor(np.array([[1, 2], [3, 4]]), device=device, requires_grad=False)
        needle.onnx.export(model.to(device), words, file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_free_sizes_in_shapes_numbers_and_constants(tmp_path):
    path = str(tmp_path / "model.onnx")

    def forward(x):
        n = len(x)
        zeros = ndl.zeros(n, 3) + ndl.Tensor(np.arange(3, dtype="float32"), requires_grad=False)
        rows = ndl.broadcast_to(x.sum(0), (n, 3)) / n
        return ndl.concatenate([x + zeros, rows]), x.reshape((n, 1, 3, 1)), x.reshape(3 * n), x[: n - 1] * (2 * n + 1)

    model, x = Function(forward), rng.random((4, 3), "float32")
    needle.onnx.export(model, x, path, batch_axis=0)
    for count in (1, 2, 7):
        x = rng.random((count, 3), "float32")
        expected = flat(model(ndl.Tensor(x, requires_grad=False)))
        assert_equal(by_onnxruntime(path, x), expected)
        assert_equal(by_needle(path, x), expected)
