"""`load`: models of ONNX as modules that run, train, and are saved."""

import copy
import gc
import pickle
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

import needle as ndl
from needle import nn, optim
from needle.onnx import find_operator, load, operator
from tests.onnx.models import function, parse
from tests.standin.device import STANDIN


def ones(*shape):
    return np.ones(shape, "float32")


def test_from_a_path_bytes_and_a_model(tmp_path):
    model = parse("y = Mul (x, w)", initializers="float[2] w = {3, 4}")
    onnx.save(model, tmp_path / "model.onnx")
    before = model.SerializeToString()
    for source in (tmp_path / "model.onnx", str(tmp_path / "model.onnx"), before, model):
        assert load(source)(ones(2)).numpy().tolist() == [3, 4]
    assert model.SerializeToString() == before


def test_inputs_by_position_and_name():
    module = load(parse("y = Sub (x, other)", "float[2] x, float[2] other"))
    assert (module.inputs, module.outputs) == (("x", "other"), ("y",))
    for result in (module(ones(2), 2 * ones(2)), module(other=2 * ones(2), x=ones(2)), module([1, 1], other=[2, 2])):
        assert result.numpy().tolist() == [-1, -1]


def test_sizes_whose_number_is_free():
    """ONNX's strict inference refuses them, and onnxruntime does."""
    module = load(parse("y = Resize (x, , , s)", "float[1, 1, 2, 2] x, int64[n] s", "float[a, b, c, d] y", opset=19))
    assert module(ones(1, 1, 2, 2), np.array([1, 1, 3, 5])).shape == (1, 1, 3, 5)


def test_inputs_of_free_rank():
    model = parse("y = Relu (x)")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    assert [load(model)(ones(*shape)).shape for shape in ((2,), (1, 3))] == [(2,), (1, 3)]


def test_tensors_that_are_as_large_as_they_may_be():
    model = parse("y = Mul (x, w)", initializers="float[2] w = {3, 4}")
    assert load(model, max_bytes=8).max_bytes == 8
    with pytest.raises(ValueError, match=r"at most 7 bytes \(max_bytes\), but take 8"):
        load(model, max_bytes=7)


def test_several_outputs_are_a_tuple():
    model = parse("y = Neg (x) z = Relu (y)", outputs="float[2] y, float[2] z, float[2] x, float[2] y")
    results = load(model)(ones(2))
    assert [result.numpy().tolist() for result in results] == [[-1, -1], [0, 0], [1, 1], [-1, -1]]


def test_initializers_are_parameters_and_buffers_under_their_names():
    names = ["conv.weight", "/a b/ü:0", "9", "a..b", "w.", "\\", "'"]
    values = [onnx.numpy_helper.from_array(ones(2) * i, name) for i, name in enumerate(names)]
    values.append(onnx.numpy_helper.from_array(np.array([2]), "shape"))
    nodes = [helper.make_node("Sum", ["x", *names], ["s"]), helper.make_node("Reshape", ["s", "shape"], ["y"])]
    info = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], values), ir_version=8)
    module = load(model)
    assert [name for name, _ in module.named_parameters()] == names
    assert [name for name, _ in module.named_buffers()] == ["shape"]
    assert [*module.state_dict()] == [*names, "shape"]
    module.load_state_dict({**module.state_dict(), "9": ones(2) * 100})
    assert module(ones(2)).numpy().tolist() == [1 + 0 + 1 + 100 + 3 + 4 + 5 + 6] * 2


@pytest.mark.parametrize("end", ["npz", "safetensors"])
def test_a_state_goes_through_a_file(tmp_path, end):
    model = parse("y = Mul (x, w)", initializers="float[2] w = {3, 4}")
    module, other = load(model), load(model)
    module.parameters()[0].data = ndl.Tensor([5.0, 6.0], dtype="float32")
    ndl.save(tmp_path / f"state.{end}", module.state_dict())
    other.load_state_dict(ndl.load(tmp_path / f"state.{end}"))
    assert other(ones(2)).numpy().tolist() == [5, 6]


def test_integers_and_what_operators_update_are_no_parameters():
    model = parse(
        "b = BatchNormalization (x, s, t, mean, var) y = Gather (b, i)", "float[n, 2] x", "float[m, 2] y",
        initializers="float[2] s = {1, 1}, float[2] t = {0, 0}, float[2] mean = {1, 2}, float[2] var = {1, 4}, "
        "int64[1] i = {0}",
    )  # fmt: skip
    module = load(model)
    assert [name for name, _ in module.named_parameters()] == ["s", "t"]
    assert [name for name, _ in module.named_buffers()] == ["mean", "var", "i"]


def test_floats_that_no_gradient_should_reach():
    """By the names in the schemas: statistics, bounds, sizes, scales of rounded results, weights of classes."""
    buffers = {
        "Attention": "nonpad_kv_seqlen", "BatchNormalization": "input_mean input_var", "Clip": "min max",
        "Dropout": "ratio", "MaxRoiPool": "rois", "MelWeightMatrix": "lower_edge_hertz upper_edge_hertz",
        "NegativeLogLikelihoodLoss": "weight",
        "NonMaxSuppression": "max_output_boxes_per_class iou_threshold score_threshold", "OneHot": "depth values",
        "Pad": "constant_value", "Pow": "Y", "QLinearConv": "x_scale w_scale y_scale",
        "QLinearMatMul": "a_scale b_scale y_scale", "QuantizeLinear": "y_scale", "Range": "start limit delta",
        "Resize": "roi scales", "RotaryEmbedding": "cos_cache sin_cache", "STFT": "window",
        "SoftmaxCrossEntropyLoss": "weights", "Upsample": "scales",
    }  # fmt: skip
    for schema in onnx.defs.get_all_schemas():
        entry = find_operator(schema.name, schema.domain, schema.since_version)
        if entry is not None:
            names = " ".join(schema.inputs[i].name for i in entry.buffers)
            assert names == buffers.get(schema.name, ""), schema.name


def test_a_batch_norm_trains_in_training_mode_only():
    model = parse(
        "y = BatchNormalization <momentum = 0.75> (x, s, t, mean, var)", "float[n, 1] x", "float[n, 1] y",
        initializers="float[1] s = {1}, float[1] t = {0}, float[1] mean = {0}, float[1] var = {1}",
    )  # fmt: skip
    module, x = load(model), np.array([[0], [4]], "float32")
    assert not module.training
    np.testing.assert_allclose(module(x).numpy(), x, rtol=1e-4)
    assert module.state_dict()["mean"].numpy().tolist() == [0]
    np.testing.assert_allclose(module.train()(x).numpy(), [[-1], [1]], rtol=1e-4)
    state = module.state_dict()
    assert state["mean"].numpy().tolist() == [0.5]  # 0.75 · 0 + 0.25 · 2
    assert state["var"].numpy().tolist() == [1.75]  # 0.75 · 1 + 0.25 · 4
    module.eval()(x)
    assert module.state_dict()["mean"].numpy().tolist() == [0.5]


def test_dropout_drops_in_training_mode_only():
    module = load(parse("y = Dropout (x, r)", "float[1000] x", "float[1000] y", initializers="float r = {0.5}"))
    assert (module(ones(1000)).numpy() == 1).all()
    assert {*module.train()(ones(1000)).numpy().tolist()} == {0, 2}
    assert not module.parameters()


def test_a_model_that_says_so_trains_in_both_modes():
    model = parse("t = Constant <value = bool {1}> () y = Dropout (x, r, t)", "float[1000] x", "float[1000] y",
                  initializers="float r = {0.5}")  # fmt: skip
    assert {*load(model)(ones(1000)).numpy().tolist()} == {0, 2}


def network():
    """x W + b, relu, times v: a model whose weights are those of a needle model."""
    rng = np.random.default_rng(0)
    own = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    for parameter in own.parameters():
        parameter.data = ndl.Tensor(rng.standard_normal(parameter.shape), dtype="float32")
    weights = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in own.state_dict().items()]
    body = "h = Gemm (x, a, b) r = Relu (h) y = Gemm (r, c, d)"
    for letter, _name in zip("abcd", own.state_dict(), strict=True):
        body = body.replace(f" {letter}", f" {letter}_")
    model = parse(body, "float[n, 3] x", "float[n, 1] y")
    for node in model.graph.node:
        names = dict(zip(("a_", "b_", "c_", "d_"), own.state_dict(), strict=True))
        node.input[:] = [names.get(name, name) for name in node.input]
    model.graph.initializer.extend(weights)
    return own, load(model)


def test_fine_tuning_is_that_of_the_model_in_needle():
    own, module = network()
    x = ndl.Tensor(np.random.default_rng(1).standard_normal((8, 3)), dtype="float32", requires_grad=False)
    losses = []
    for model in (own, module.train()):
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss = (model(x) ** 2).sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for one, other in zip(own.parameters(), module.parameters(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5)


def test_derivatives_to_second_order():
    module = load(parse("a = Sin (x) y = Mul (a, w)", initializers="float[2] w = {3, 4}")).double()
    assert ndl.gradcheck(module, ndl.Tensor([0.3, 0.7]))
    x = ndl.Tensor([0.3, 0.7])
    module(x).sum().backward()
    x.grad.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), -np.array([3, 4]) * np.sin([0.3, 0.7]), rtol=1e-6)


def test_copies_and_pickles_are_models_of_their_own():
    branches = (
        "then_branch = t () => (float[2] z) { z = Add (x, w) }, else_branch = e () => (float[2] z) { z = Neg (x) }"
    )
    model = parse(f"y = If <{branches}> (c)", "float[2] x, bool c", initializers="float[2] w = {3, 4}")
    module = load(model)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other.parameters()[0].data = ndl.Tensor([0.0, 0.0], dtype="float32")
        other.train()
        assert other(ones(2), np.array(True)).numpy().tolist() == [1, 1]
        assert other(ones(2), np.array(False)).numpy().tolist() == [-1, -1]
        assert module(ones(2), np.array(True)).numpy().tolist() == [4, 5]
        assert not module.training


def test_it_is_a_part_of_other_modules():
    outer = nn.Sequential(load(parse("y = Mul (x, w)", initializers="float[2] w = {3, 4}")), nn.Linear(2, 1))
    assert [*outer.state_dict()] == ["0.w", "1.weight", "1.bias"]
    assert outer.train()[0].training
    assert repr(outer[0]) == "GraphModule(x -> y; 1 nodes)"


def test_weights_in_constant_nodes_of_a_model_without_initializers():
    """PaddlePaddle writes them so, and -1 for sizes that are free."""
    constants = "w = Constant <value_floats = [1.0, 2.0]> () v = Constant <value_floats = [1.0, 1.0]> () "
    constants += "two = Constant <value_float = 2.0> () "
    nodes = "a = Mul (x, w) b = BatchNormalization (a, w, w, v, v) y = Mul (b, two)"
    model = parse(constants + nodes, "float[n, 2] x", "float[n, 2] y")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    module = load(model)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    assert [*module.state_dict()] == ["w"]
    assert module(ones(3, 2)).shape == (3, 2)
    model.producer_name = "needle"  # which writes no weights so
    assert load(model).parameters() == []


@pytest.mark.parametrize(
    ("producer", "names"),
    [("tf2onnx", ["w"]), ("pytorch", ["w", "scale"]), ("", ["w", "scale", "val_1", "onnx::Mul_2"])],
)
def test_scalars_that_an_exporter_makes_initializers_are_not_trained(producer, names):
    values = {"w": ones(2), "scale": np.float32(2), "val_1": np.float32(1e-6), "onnx::Mul_2": np.float32(3)}
    nodes = [helper.make_node("Sum", ["x", *values], ["y"])]
    info = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], tensors)
    module = load(helper.make_model(graph, ir_version=8, producer_name=producer))
    assert [name for name, _ in module.named_parameters()] == names
    assert [*module.state_dict()] == [*values]


def test_casts_follow_a_module_that_has_been_cast():
    """Models in float16 with inputs in float32 are trained so."""
    nodes = "a = Cast <to = 10> (x) b = MatMul (a, w) y = Cast <to = 1> (b)"
    bits = np.array([1, 2, 3, 4], "float16").view("uint16").tolist()
    initializers = f"float16[2, 2] w = {{{', '.join(map(str, bits))}}}"
    module = load(parse(nodes, "float[1, 2] x", "float[1, 2] y", initializers=initializers))
    x = np.array([[1 + 2**-12, 0]], "float32")
    assert module(x).numpy().tolist() == [[1, 2]]
    for cast in (module.float, module.double):
        y = cast()(x)
        assert y.dtype == module.parameters()[0].dtype
        assert y.numpy().tolist() == [[1 + 2**-12, 2 + 2**-11]]


def test_an_opset_may_be_imported_twice():
    """As skl2onnx does."""
    model = parse("y = Neg (x)")
    model.opset_import.add().CopyFrom(model.opset_import[0])
    assert load(model)(ones(2)).numpy().tolist() == [-1, -1]


def test_it_moves_to_a_device_with_its_constants():
    model = parse(
        "k = Constant <value_floats = [1.0, 2.0]> () a = Mul (x, w) b = Add (a, k) n = Shape (b) "
        "z = ConstantOfShape (n) y = Add (b, z)",
        initializers="float[2] w = {3, 4}",
    )
    module = load(model).to(STANDIN)
    y = module(ones(2))  # host arrays go to the device of the module
    assert y.device == STANDIN
    assert y.numpy().tolist() == [4, 6]
    assert [*module.state_dict()] == ["w"]


def test_an_output_and_an_input_may_both_be_left_out():
    model = parse("a, b = Dropout (x) y = Clip (a, , n)", initializers="float n = {0.5}")
    model.graph.node[0].output[1] = ""
    assert load(model)(ones(2)).numpy().tolist() == [0.5, 0.5]


def test_values_are_freed_after_their_last_use():
    sizes = []

    @operator("Count", domain="test.freed")
    def count(node, x):
        sizes.append(sum(type(entry) is ndl.Tensor and entry.shape == (7, 11) for entry in gc.get_objects()))
        return x + 1

    model = parse("y = Relu (x)", "float[7, 11] x", "float[7, 11] y")
    model.opset_import.add(domain="test.freed", version=1)
    del model.graph.node[:]
    names = ["x", *(f"v{i}" for i in range(4)), "y"]
    model.graph.node.extend(helper.make_node("Count", [a], [b], domain="test.freed") for a, b in pairwise(names))
    with ndl.no_grad():
        load(model)(ones(7, 11))
    assert max(sizes) <= sizes[0] + 1, sizes


def test_operators_of_the_users_own():
    @operator("Twice", domain="test.own")
    def twice(node, x):
        return x * node["factor"]

    model = parse("y = Relu (x)")
    model.opset_import.add(domain="test.own", version=1)
    model.graph.node[0].CopyFrom(helper.make_node("Twice", ["x"], ["y"], domain="test.own", factor=2.0))
    assert load(model)(ones(2)).numpy().tolist() == [2, 2]


def test_rules_of_onnx_do_not_bind_the_users_own_operators():
    """One with the name of an operator of ONNX, and attributes that ONNX refuses there."""

    @operator("Split", domain="test.own")
    def split(node, x):
        return x * node["num_outputs"] + node["axis"]

    model = parse("y = Relu (x)")
    model.opset_import.add(domain="test.own", version=1)
    node = helper.make_node("Split", ["x"], ["y"], domain="test.own", num_outputs=3, axis=99)
    model.graph.node[0].CopyFrom(node)
    assert load(model)(ones(2)).numpy().tolist() == [102, 102]


def test_functions_of_the_model_are_inlined():
    functions = function("f", "a = Neg (x) y = own.g (a)") + function(
        "g", "c = Constant <value_float = 3.0> () y = Mul (x, c)"
    )
    assert load(parse("a = own.f (x) y = own.f (a)", functions=functions))(ones(2)).numpy().tolist() == [9, 9]


def test_operators_run_by_the_body_of_their_schema(monkeypatch):
    """Without a function of its own, with its default attributes."""
    from needle.onnx import registry

    monkeypatch.delitem(registry._OPERATORS, ("", "Celu"))
    module = load(parse("y = Celu (x)", opset=20))
    assert len(module._graph.steps) > 1
    np.testing.assert_allclose(module(np.array([-1, 1], "float32")).numpy(), [np.exp(-1) - 1, 1], rtol=1e-6)


def test_bodies_read_the_values_around_them_and_their_own_initializers():
    inner = "then_branch = t () => (float[2] z) <float[2] w = {10, 10}> { z = Add (a, w) }"
    model = parse(
        f"a = Mul (x, w) y = If <{inner}, else_branch = e () => (float[2] z) {{ z = Sub (a, w) }}> (c)",
        "float[2] x, bool c", initializers="float[2] w = {3, 4}",
    )  # fmt: skip
    model.graph.node[1].name = "choice"
    module = load(model)
    assert [*module.state_dict()] == ["w", "choice.then_branch.w"]
    assert module(ones(2), np.array(True)).numpy().tolist() == [13, 14]
    assert module(ones(2), np.array(False)).numpy().tolist() == [0, 0]
    module(ones(2), np.array(True)).sum().backward()
    assert [parameter.grad.numpy().tolist() for parameter in module.parameters()] == [[1, 1], [1, 1]]


LOOP = """(int64 i, bool c, float[2] s) => (bool d, float[2] t, float[2] e)
{ d = Less (i, last) t = Mul (s, w) e = Add (t, x) }"""


def test_loops():
    model = parse(
        f"y, z = Loop <body = b {LOOP}> (n, go, x)", "float[2] x, int64 n, bool go, int64 last",
        "float[2] y, float[m, 2] z", initializers="float[2] w = {2, 3}",
    )  # fmt: skip
    module = load(model)
    x, go = ndl.Tensor(ones(2)), np.array(True)
    y, z = module(x, np.array(9), go, np.array(2))  # three iterations: the condition is that of the next one
    assert y.numpy().tolist() == [8, 27]
    assert z.numpy().tolist() == [[3, 4], [5, 10], [9, 28]]
    (y.sum() + z.sum()).backward()
    assert x.grad.numpy().tolist() == [8 + 2 + 4 + 8 + 3, 27 + 3 + 9 + 27 + 3]
    for n, runs, last in ((0, True, 2), (9, False, 2)):
        y, z = module(x, np.array(n), np.array(runs), np.array(last))
        assert y.numpy().tolist() == [1, 1]
        assert (z.shape, z.dtype) == ((0, 2), np.float32)
    assert module(x, np.array(2), go, np.array(5))[1].shape == (2, 2)


def test_scans_over_other_axes_and_backward():
    body = "(float[2] s, float[2] a) => (float[2] t, float[2] e) { t = Add (s, a) e = Identity (t) }"
    options = "num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [-1], "
    model = parse(f"y, z = Scan <{options} scan_output_directions = [1], body = b {body}> (k, x)", "float[2, m] x",
                  "float[2] y, float[2, m] z", initializers="float[2] k = {0, 0}")  # fmt: skip
    y, z = load(model)(np.array([[1, 2, 4], [1, 3, 5]], "float32"))
    assert y.numpy().tolist() == [7, 9]
    assert z.numpy().tolist() == [[7, 6, 4], [9, 8, 5]]


def test_an_error_of_an_operator_names_its_node():
    model = parse("y = Add (x, other)", "float[n] x, float[m] other")
    model.graph.node[0].name = "sum of both"
    with pytest.raises(ValueError, match="add: shapes must broadcast") as caught:
        load(model)(ones(2), ones(3))
    assert caught.value.__notes__ == ["in Add 'sum of both' (domain 'ai.onnx', opset 17)"]


def test_the_memory_of_a_call_is_counted_anew():
    module = load(parse("a = Neg (x) b = Neg (a) y = Neg (b)", "float[1000] x", "float[1000] y"), max_bytes=10_000)
    for _ in range(5):
        module(ones(1000))
    with pytest.raises(ValueError, match="max_bytes"):
        module(ndl.Tensor(ones(1000)))  # all values live on in the graph
