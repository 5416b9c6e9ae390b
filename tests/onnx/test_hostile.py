"""Hostile models: refused by a clear message, in bounded memory, before anything runs or is read elsewhere."""

import contextlib
import os
import re
import resource
import sys
import tempfile
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from needle.grad_mode import watch
from needle.onnx import load
from tests.onnx.models import function, parse

ROOM = 2**28  # bytes that a refusal may take; what the models announce is far more
HUGE = 2**40
LAUGHS = "".join(function(f"f{i}", f"a = own.f{i + 1} (x) y = own.f{i + 1} (a)") for i in range(40))


@contextlib.contextmanager
def little_memory():
    """Let the process have `ROOM` more bytes than it has: who asks for more gets a MemoryError."""
    if not sys.platform.startswith("linux"):  # the limit does nothing elsewhere
        yield
        return
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def changed(change, body="y = Add (x, w)", **options):
    """A model with an initializer w (2,) that `change` has made hostile."""
    model = parse(body, **{"initializers": "float[2] w = {1, 2}", **options})
    change(model)
    return model


def set_dims(*dims):
    def change(model):
        model.graph.initializer[0].dims[:] = dims

    return change


def set_type(data_type):
    def change(model):
        model.graph.initializer[0].data_type = data_type

    return change


def set_input_type(element):
    def change(model):
        model.graph.input[0].type.tensor_type.elem_type = element

    return change


def import_twice(model):
    model.opset_import.add(domain="ai.onnx", version=13)


def set_location(location, length):
    def change(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(length))

    return change


def make_sparse(model):
    dense = model.graph.initializer.pop()
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, HUGE - 1])
    dense.name = "w"
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(dense, indices, [HUGE]))


def sparse_attribute():
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [HUGE])
    model = parse("c = Identity (x) y = Add (x, c)")
    model.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    return model


def nested(depth):
    """The bytes of a model whose graph lies within a graph, `depth` times."""

    def field(number, content):
        size = len(content)
        length = b""
        while size > 127:
            length, size = length + bytes([size % 128 + 128]), size // 128
        return bytes([number * 8 + 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


def deep(depth):
    """A model of a graph within a graph, which only a program can make: files are not as deep."""
    model = parse("y = Relu (x)")
    graph = model.graph
    for _ in range(depth):
        graph = graph.node.add(op_type="If").attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    return model


def no_text(text):
    """The bytes of a model, one of whose names is no text."""
    model = parse("[node] y = Softmax <axis = 0> (x)")
    return model.SerializeToString().replace(text, b"\xff" * len(text))


def refer(model):
    model.graph.node[0].attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="outer")


def no_text_attribute(model):
    model.graph.node[0].attribute.add(name="approximate", type=onnx.AttributeProto.STRING, s=b"\xff")


def many_nodes(model):
    model.graph.node.extend([model.graph.node[0]] * 100_000)


BODY = "(int64 i, bool c, float[2] s) => (bool c, float[2] t) { t = Relu (s) }"
SCANNED = "(float s) => (float t) { t = Relu (s) }"
INVALID = [
    ("a cycle", parse("y = Add (x, z) z = Relu (y)"), r"'z'.* is not output of any previous nodes"),
    ("a name that is missing", parse("y = Add (x, z)"), r"'z'.* is not output of any previous nodes"),
    ("a name made twice", parse("y = Relu (x) y = Relu (x)"), r"'y' has been used as output names multiple"),
    ("an input twice", parse("y = Relu (x)", "float[2] x, float[2] x"), r"'x' has been used as graph input"),
    ("an output that nobody makes", parse("z = Relu (x)"), r"'y' is not an output of any node"),
    ("an initializer twice", parse("y = Add (x, w)", initializers="float w = {1}, float w = {2}"), r"not unique"),
    ("an initializer that a node makes", parse("y = Relu (x)", initializers="float y = {1}"), r"'y' has been used"),
    ("an attribute of another operator", parse("y = Relu <mode = 1> (x)"), r"Unrecognized attribute: mode"),
    ("a type that does not fit", parse("y = Add (x, n)", "float[2] x, int64[2] n"), r"inconsistent type"),
    ("a function that calls itself", parse("y = own.f (x)", functions=function("f", "y = own.f (x)")), r"recursive"),
    (
        "functions that call each other",
        parse("y = own.f (x)", functions=function("f", "y = own.g (x)") + function("g", "y = own.f (x)")),
        r"recursive",
    ),
    ("nothing", onnx.ModelProto(), r"ir_version"),
    ("a version to come", changed(lambda model: setattr(model, "ir_version", 99)), r"ir_version 99 is higher"),
]

REFUSED = [
    (parse("y = own.f0 (x)", functions=LAUGHS + function("f40", "y = Relu (x)")), ValueError,
     r"load: a model must have at most 100000 nodes, functions inlined, but has 1099511627776"),
    (nested(200), ValueError, r"load: the model must be one of ONNX, but got: .*"),
    (b"", ValueError, r"load: the model must be valid, but got: .*ir_version.*"),
    (b"\xff" * 100, ValueError, r"load: the model must be one of ONNX, but got: .*"),
    (parse("y = Relu (x)").SerializeToString()[:-20], ValueError, r"load: .*"),
    (parse("a = Fancy (x) b = own.Mine (a) y = Relu (b)"), ValueError,
     (r"load: operators must be known, but these are not: Fancy \(domain 'ai\.onnx', opset 17\), "
     r"Mine \(domain 'own', opset 1\)")),
    (parse(" ".join(f"a{i} = Fancy{i} (x)" for i in range(22)) + " y = Relu (x)"), ValueError,
     r"load: operators must be known, but these are not: (Fancy\d+ \(domain 'ai\.onnx', opset 17\), ){20}2 more"),
    (parse("y = If (c) <then_branch = t () => (float z) { z = Inner (x) }, "
           "else_branch = e () => (float z) { z = own.f (x) }>", "float[2] x, bool c",
           functions=function("f", "y = Deep (x)")), ValueError,
     (r"load: operators must be known, but these are not: Inner \(domain 'ai\.onnx', opset 17\), "
     r"Deep \(domain 'ai\.onnx', opset 17\)")),
    (parse("y = own.f (x)", functions=function("f", "y = Relu (x)", opset=13)), ValueError,
     r"load: the model must be valid, but got: .*imports version 13 whereas model imports version 17"),
    (parse("y = Relu (x)", opset=999), ValueError, r"load: opsets must lie in \[1, \d+\], but 'ai\.onnx' has 999"),
    (changed(import_twice), ValueError, r"load: a domain must have one opset, but 'ai\.onnx' has 17 and 13"),
    (changed(set_dims(HUGE)), ValueError, r"load: tensors must take at most 4294967296 bytes \(max_bytes\), but .*"),
    (changed(set_dims(2**62, 2**62)), ValueError, r"load: tensors must take at most .*, but take 8507\d+"),
    (changed(set_dims(2**28), body="y = Mul (w, w)"), ValueError,
     r"load: 'w' must have data of shape \(268435456,\), but got: .*"),
    (changed(set_dims(-2)), ValueError, r"load: sizes must not be negative, but 'w' has shape \(-2,\)"),
    (changed(set_type(99)), TypeError, r"load: tensors must have a dtype of needle, but 'w' has type 99"),
    (changed(set_type(TensorProto.BFLOAT16)), TypeError, r"load: tensors must .*, but 'w' has type BFLOAT16"),
    (changed(set_input_type(99), body="y = Relu (x)"), (TypeError, ValueError), r"load: .*99.*"),
    (parse("y = Identity (x)", "bfloat16[2] x", "bfloat16[2] y"), TypeError,
     r"load: values must be tensors with a dtype of needle, but 'x' is BFLOAT16"),
    (parse("y = Identity (x)", "seq(float[2]) x", "seq(float[2]) y"), TypeError,
     r"load: values must be tensors with a dtype of needle, but 'x' is sequence_type"),
    (changed(set_location("data", 8)), ValueError,
     r"load: 'w' must have its data in a file beside the model, but got: no path of the model that tells where .*"),
    (changed(set_location("data", 4)), ValueError,
     r"load: 'w' must have its data in a file beside the model, but got: 4 bytes, not 8"),
    (deep(2000), ValueError, r"load: graphs must lie within each other at most 100 deep, but they lie deeper"),
    *((no_text(name), ValueError, r"load: names must be text in UTF-8, but got b'\\xff.*'")
      for name in (b"Softmax", b"node", b"axis")),
    (changed(refer, "y = Softmax (x)"), ValueError,
     r"load: attribute 'axis' must have a value, but got: .*reference attribute.*"),
    (changed(no_text_attribute, "y = Gelu (x)", opset=20), ValueError,
     r"load: attribute 'approximate' must have a value, but got: 'utf-8' codec.*"),
    (changed(many_nodes), ValueError,
     r"load: a model must have at most 100000 nodes, functions inlined, but has 100001"),
    (changed(set_dims(*[2**62] * 100_000)), ValueError, r"load: tensors must have at most 64 axes, but 'w' has 100000"),
    (parse("y = Relu (x)", f"float[{', '.join(['4000000000'] * 100_000)}] x"), ValueError,
     r"load: values must take at most .*"),
    (parse("y = Split <num_outputs = 4611686018427387904> (x)", opset=18), ValueError,
     r"load: num_outputs and the outputs of Split must agree in number, but got 4611686018427387904 and 1"),
    (parse("y = own.f (x)", functions=function("f", "z = Relu (x)")), ValueError,
     r"load: the model must be valid, but no node makes 'y' before it is read"),
    (parse(f"y, z = Loop <body = b {BODY}> (n, , x)", initializers="int64 n = {3}"), ValueError,
     r"load: Loop .*: body must have 3 inputs and 3 outputs, but has 3 and 2"),
    (parse('y = Einsum <equation = "i$"> (x)'), ValueError,
     r"load: equation of Einsum must have letters, commas, '\.\.\.' and '->', but got b'i\$'"),
    (parse("y = LayerNormalization <axis = 2147483648> (x, x)"), ValueError,
     r"load: axis of LayerNormalization must lie in \[-64, 63\], but got 2147483648"),
    (parse("y = GatherND <batch_dims = -5> (x, i)", "float[2, 2] x, int64[2, 1] i"), ValueError,
     r"load: batch_dims of GatherND must be at least 0, but got -5"),
    (parse("y, z = Split <num_outputs = 1> (x)", opset=18), ValueError,
     r"load: num_outputs and the outputs of Split must agree in number, but got 1 and 2"),
    (changed(make_sparse), ValueError, r"load: initializers must be dense, but graph 'g' has a sparse one"),
    (sparse_attribute(), ValueError, r"load: attributes must be dense, but 'sparse_value' of Constant is sparse"),
    (parse("y = Relu (x)", f"float[{HUGE}] x"), ValueError,
     r"load: values must take at most 4294967296 bytes \(max_bytes\), but '[xy]' takes 4398046511104"),
]  # fmt: skip
REFUSED += [
    (model, ValueError, rf"load: the model must be valid, but got: .*{reason}.*") for _, model, reason in INVALID
]

# What a few bytes can announce, from sizes s in the model or in an input.
ANNOUNCING = [
    ("y = ConstantOfShape (s)", [2**20, 2**20], 2),
    ("y = Expand (x, s)", [2**40, 2], 2),
    ("y = Tile (x, s)", [2**40], 1),
    (("z = Constant <value_int = 0> () o = Constant <value_int = 1> () q = Squeeze (s) r = Range (z, q, o) "
     "y = Cast <to = 1> (r)"), [2**40], 1),
    ("y = Pad (x, s)", [2**40, 0], 1),
    ('y = Resize <mode = "nearest"> (x, , , s)', [2**40], 1),
    ("q = Squeeze (s) i = Cast <to = 7> (x) y = OneHot (i, q, x)", [2**40], 2),
    ("y = CenterCropPad (x, s)", [2**40], 1),
    ("q = Squeeze (s) y = HannWindow (q)", [2**40], 1),
    ("q = Squeeze (s) r = Constant <value_ints = [1, 2, 1]> () a = Reshape (x, r) y = DFT (a, q)", [2**40], 3),
    ("e = Expand (x, s) t = Transpose <perm = [1, 0, 2]> (e) y = Add (e, t)", [10**6, 1, 2], 3),
    ("e = Expand (x, s) t = Transpose <perm = [1, 0]> (e) y = MatMul (e, t)", [10**6, 2], 2),
    ("e = Expand (x, s) i = Cast <to = 7> (e) y = Gather <axis = 1> (e, i)", [10**6, 2], 3),
]  # fmt: skip
WITHIN = [  # small results of options that take much to compute
    (("s = Constant <value_ints = [1, 1, 100000, 8]> () e = Expand (x, s) "
      "y = ai.onnx.preview.FlexAttention (e, e, e)"), "float[1, 1, 1, 8] x", (1, 1, 1, 8)),
    ("y = EyeLike <k = 1099511627776> (x)", "float[2, 2] x", (2, 2)),
    ("y = LRN <size = 1099511627777> (x)", "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    (("r = Constant <value = float[1, 4] {0, 0, 1, 1}> () i = Constant <value_ints = [0]> () "
     "y = RoiAlign <sampling_ratio = 1073741824> (x, r, i)"), "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    ("s = Constant <value_ints = [1, 1, 100000, 8]> () e = Expand (x, s) y = Attention (e, e, e)",
     "float[1, 1, 1, 8] x", (1, 1, 1, 8)),
    (("s = Constant <value_ints = [1, 100000, 8]> () e = Expand (x, s) "
     "y = Attention <q_num_heads = 2, kv_num_heads = 2> (e, e, e)"), "float[1, 1, 8] x", (1, 1, 8)),
    (("r = Constant <value = float[1, 4] {0, 0, 1000000, 1e30}> () i = Constant <value_ints = [0]> () "
      "y = RoiAlign (x, r, i)"), "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    (("s = Constant <value_ints = [10, 5]> () r = Constant <value_floats = [0.0, 0.0, 0.0, 30000.0, 30000.0]> () "
      "e = Expand (r, s) a = Constant <value_ints = [1, 1, 20000, 20000]> () "
      "b = Expand (x, a) y = MaxRoiPool <pooled_shape = [1, 1]> (b, e)"), "float[1, 1, 1, 1] x", (1, 1, 1, 1)),
    ("y = MaxPool <kernel_shape = [3, 3], pads = [50000, 50000, 50000, 50000], strides = [90000, 90000]> (x)",
     "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    ('y = AveragePool <kernel_shape = [9, 9], auto_pad = "SAME_LOWER", dilations = [9999, 9999]> (x)',
     "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    ('y = LpPool <kernel_shape = [2, 9223372036854775807], auto_pad = "SAME_UPPER"> (x)',
     "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    ("y = Conv <pads = [50000, 50000, 50000, 50000], strides = [90000, 90000]> (x, x)",
     "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    ("y = ConvTranspose <pads = [50000, 50000, 50000, 50000], strides = [99999, 99999]> (x, x)",
     "float[1, 1, 2, 2] x", (1, 1, 2, 2)),
    (('s = Constant <value_ints = [2000]> () e = Expand (x, s) '
      'y = Einsum <equation = "a,b,c,c,b,a->"> (e, e, e, e, e, e)'), "float[1] x", (1,)),
    (('s = Constant <value_floats = [0.5]> () n = Constant <value_ints = [100000]> () e = Expand (x, n) '
      'y = Resize <mode = "linear"> (e, , s)'), "float[1] x", (1,)),
]  # fmt: skip
STATIC = [
    ("y = RandomNormal <shape = [1099511627776]> ()", "n"),
    ("r = Constant <value_ints = [1, 1, 2]> () a = Reshape (x, r) y = ConvTranspose <strides = [1099511627776]> (a, a)",
     "a, b, c"),
    (("r = Constant <value_ints = [1, 1, 2]> () a = Reshape (x, r) "
     "y = AveragePool <kernel_shape = [2], pads = [1099511627776, 1099511627776]> (a)"), "a, b, c"),
]  # fmt: skip


def announced(body, sizes, rank, *, known):
    kind, outputs = f"int64[{len(sizes)}] s", f"float[{', '.join('abc'[:rank])}] y"
    if known:
        return parse(body, outputs=outputs, initializers=f"{kind} = {{{', '.join(map(str, sizes))}}}", opset=20)
    return parse(body, f"float[2] x, {kind}", outputs, opset=20)


def announce(body, sizes, rank):
    load(announced(body, sizes, rank, known=True))(np.ones(2, "float32"))


def ask_within(body, inputs, shape):
    load(parse(body, inputs, f"float[{', '.join('abcd'[: len(shape)])}] y", opset=23))(np.ones(shape, "float32"))


def announce_in_a_call(body, sizes, rank):
    load(announced(body, sizes, rank, known=False))(np.ones(2, "float32"), np.array(sizes))


GROWING = {  # bodies of a loop of 10**9 iterations
    "the state": "(int64 i, bool c, float[n] s) => (bool c, float[m] t) { t = Concat <axis = 0> (s, s) }",
    "scan outputs": "(int64 i, bool c, float[n] s) => (bool c, float[n] s, float[k, n] e) "
    "{ k = Constant <value_ints = [1000, 1]> () e = Expand (s, k) }",
}


def looping(body):
    names = ["y", "z"][: body.count(", float") - 1]
    model = f"n = Constant <value_int = 1000000000> () {', '.join(names)} = Loop <body = b {body}> (n, , x)"
    return parse(model, outputs=", ".join(["float[n] y", "float[a, b, c] z"][: len(names)]))


def call(model, **options):
    load(model, **options)(np.ones(2, "float32"))


def hold_many():
    """Many values at a time, of which each would fit."""
    body = " ".join(f"v{i} = Expand (x, s)" for i in range(100))
    names = ", ".join(f"v{i}" for i in range(100))
    call(
        parse(f"{body} y = Sum ({names})", outputs="float[a, b] y", initializers="int64[2] s = {500000, 2}"),
        max_bytes=2**24,
    )


def load_gigabytes():
    """A file that needs no place on the disk."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(2**33)
        load(file.name)


AT_ONCE = r"load: values must take at most \d+ bytes \(max_bytes\), but '.*' takes \d+"
AT_RUN = r"GraphModule: values must take at most \d+ bytes \(max_bytes of load\), but .* makes them \d+"
ERRORS = [(partial(load, model), kind, text) for model, kind, text in REFUSED]
ERRORS += [(partial(announce, *model), ValueError, AT_ONCE + "|" + AT_RUN) for model in ANNOUNCING]
ERRORS += [(partial(ask_within, *model), ValueError, AT_RUN) for model in WITHIN]
ERRORS += [(partial(announce_in_a_call, *model), ValueError, AT_RUN) for model in ANNOUNCING]
ERRORS += [(partial(load, parse(body, outputs=f"float[{sizes}] y")), ValueError, AT_ONCE) for body, sizes in STATIC]
ERRORS += [(partial(call, looping(body), max_bytes=2**24), ValueError, AT_RUN) for body in GROWING.values()]
ERRORS += [
    (partial(call, parse(body)), ValueError, ".*")
    for body in (
        f"y = Transpose <perm = {[0] * 100_000}> (x)",
        f"w = Constant <value_ints = {[0] * 100_000}> () y = Squeeze (x, w)",
    )
]
NOT_TRAINING = parse(
    "r = Constant <value_ints = [1, 2]> () a = Reshape (x, r) y, m, v = BatchNormalization (a, x, x, x, x)",
    outputs="float[a, b] y, float[c] m, float[c] v",
)
ERRORS += [(partial(call, NOT_TRAINING), ValueError,
            r"BatchNormalization .*: inputs and attributes must allow all outputs, but not 'm'")]  # fmt: skip
SCANS = [  # options of Scan that no input fits
    ("num_scan_inputs = 1099511627776", r"Scan .*: num_scan_inputs must lie in \[1, 1\], but got 1099511627776"),
    ("num_scan_inputs = 1, scan_input_axes = [9]", r"Scan .*: axis must lie in \[-1, 0\], but got 9"),
]
ERRORS += [
    (partial(call, parse(f"y = Scan <{options}, body = b {SCANNED}> (x)")), ValueError, text) for options, text in SCANS
]
ERRORS += [
    (partial(call, parse("r = Constant <value_ints = [1, 2, 1, 1]> () a = Reshape (x, r) "
                         "y = DepthToSpace <blocksize = 0> (a)", outputs="float[a, b, c, d] y")), ValueError,
     r"DepthToSpace .*: blocksize must be at least 1, but got 0"),
    (partial(call, parse("r = Constant <value_ints = [1, 2]> () a = Reshape (x, r) "
                         "y = GroupNormalization <num_groups = 0> (a, x, x)", outputs="float[a, b] y", opset=21)),
     ValueError,
     r"GroupNormalization .*: sizes and numbers must allow its computation, but integer division or modulo by zero"),
    (partial(load, "/dev/zero"), ValueError, r"load: a model must be a file, but /dev/zero is none"),
]  # fmt: skip
ERRORS += [(hold_many, ValueError, AT_RUN)]
ERRORS += [(load_gigabytes, ValueError, r"load: a model must have at most 2147483647 bytes, but .* is larger")]


@pytest.mark.parametrize(("misuse", "kind", "text"), ERRORS, ids=map(str, range(len(ERRORS))))
def test_it_is_refused_in_little_memory(misuse, kind, text):
    with little_memory(), pytest.raises(kind) as caught:
        misuse()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit does nothing elsewhere")
def test_the_limit_of_memory_can_fail():
    body, _sizes, rank = ANNOUNCING[0]
    model = load(announced(body, [2**14, 2**14], rank, known=True))  # allowed, though larger than the room
    with little_memory(), pytest.raises(MemoryError):
        model(np.ones(2, "float32"))


class _NoWork:
    def made(self, value, op, inputs):
        raise AssertionError(f"{op!r} ran")

    def passed(self, node, grad, x_grads):
        pass


def test_nothing_runs_before_a_model_is_refused():
    with watch(_NoWork()):
        for model, kind, _ in REFUSED:
            with pytest.raises(kind):
                load(model)
        with pytest.raises(AssertionError, match="ran"):
            load(parse("y = Relu (x)"))(np.ones(2, "float32"))


SIZE = 2048  # elements of the tensor that lies in a file, which is as large as the tensor


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of data, beside another file that no model may read."""
    for path in ("models", "models/inner"):
        (tmp_path / path).mkdir()
    for path in ("secret", "models/data", "models/inner/data", "models/hard"):
        np.arange(SIZE, dtype="float32").tofile(tmp_path / path)
    (tmp_path / "models/hard").unlink()
    os.link(tmp_path / "secret", tmp_path / "models/hard")
    for path, target in {"link": "../secret", "above": "..", "itself": "itself"}.items():
        (tmp_path / "models" / path).symlink_to(target)
    os.mkfifo(tmp_path / "models/pipe")
    return tmp_path / "models"


def save_beside(folder, location, offset=None, length=None, *, attribute=False):
    """A file of a model whose tensor is said to lie in another file; returns its path."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIZE], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    model = parse("c = Identity (x) y = Mul (c, w)", f"float[{SIZE}] x", initializers="float[1] w = {1}")
    if attribute:
        del model.graph.initializer[:]
        model.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["w"], value=tensor))
        model.graph.node[1].input[0] = "x"
    else:
        model.graph.initializer[0].CopyFrom(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def loads(path):
    """Whether a model multiplies by the data beside it."""
    return load(path)(np.ones(SIZE, "float32")).numpy().tolist() == list(range(SIZE))


@pytest.mark.parametrize("attribute", [False, True])
@pytest.mark.parametrize(
    "place", [("data",), ("data", 0, 4 * SIZE), ("inner/data", 0), ("./data",), ("inner/../data",)], ids=str
)
def test_data_beside_a_model_are_read(folder, place, attribute):
    assert loads(save_beside(folder, *place, attribute=attribute))


OUTSIDE = ["../secret", "link", "hard", "above/secret", "inner/../../secret", "/proc/self/mem", "/dev/zero", "itself"]
OUTSIDE += ["pipe", "absent", "", ".", "inner", "..", "data/", "data/data", "a" * 5000, "\\data", "file:data"]
OUTSIDE += [
    ("data", 4),
    ("data", -1),
    ("data", 2**62),
    ("data", 0, 2**62),
    ("data", 0, 4),
    ("data", "x"),
    ("data", 0, -1),
]
OUTSIDE += [("data", 10**25), ("data", 0, "9" * 5000)]


@pytest.mark.parametrize("attribute", [False, True])
@pytest.mark.parametrize("place", OUTSIDE, ids=lambda place: str(place)[:30])
def test_data_elsewhere_are_not(folder, place, attribute):
    path = save_beside(folder, *(place if isinstance(place, tuple) else (place,)), attribute=attribute)
    with little_memory(), pytest.raises(ValueError, match="'w' must have its data in a file beside the model, but got"):
        load(path)


def test_the_absolute_path_of_data_beside_a_model_is_refused(folder):
    with pytest.raises(ValueError, match="absolute path"):
        load(save_beside(folder, str(folder / "data")))


def test_a_model_without_a_path_reads_no_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = save_beside(folder, "data")
    for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        with pytest.raises(ValueError, match="no path of the model that tells where they are"):
            load(source)


def test_many_tensors_of_one_file_are_counted(folder):
    """A file of a few kilobytes would become gigabytes."""
    model = onnx.load(save_beside(folder, "data"), load_external_data=False)
    for i in range(1000):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{i}"
    path = folder / "many.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="tensors must take at most 1000000 bytes"):
        load(path, max_bytes=10**6)
