"""Operators with windows, grids and regions, and normalisations: what the official cases do not reach."""

import re

import numpy as np
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import needle as ndl
from needle.onnx import load
from tests.onnx.nodes import feeds, model_of, run
from tests.onnx.window_cases import DRAWN, departs, floats

RNG = np.random.default_rng(0)
X, W = floats(RNG, 1, 2, 5, 5), floats(RNG, 3, 2, 2, 2)
FIXED = {"Resize": range(1, 4), "Upsample": range(1, 2)}  # onnxruntime wants these as initialisers

# fmt: off
ERRORS = [
    (lambda: run("Conv", [X, W], kernel_shape=[3, 3]), ValueError,
     r"Conv .*: kernel_shape must be that of the weight \(3, 2, 2, 2\), but got \[3, 3\]"),
    (lambda: run("Pad", [X[:0], np.array([1] + [0] * 7)], mode="wrap"), ValueError,
     r"Pad .*: mode 'wrap' must have elements to copy, but got shape \(0, 2, 5, 5\)"),
    (lambda: run("Resize", [X[:0], None, None, np.array([1, 2, 5, 5])]), ValueError,
     r"Resize .*: an axis without elements must stay so, but got \(0, 2, 5, 5\) and \[1, 2, 5, 5\]"),
    (lambda: run("Col2Im", [floats(RNG, 1, 4, 5), np.array([3, 3]), np.array([2, 2])]), ValueError,
     r"Col2Im .*: input must be \(N, C·4, 4\), but got \(1, 4, 5\)"),
    (lambda: run("Resize", [X, np.float32([1, 1, 2, 2])], opset=10, mode="cubic"), ValueError,
     r"Resize .*: mode must be one of 'nearest', 'linear', 'bilinear', but got 'cubic'"),
]
AXES = [
    ("LayerNormalization", [X, X[0, 0, 0]], {"axis": 7}), ("RMSNormalization", [X, X[0, 0, 0]], {"axis": 7}),
    ("LpNormalization", [X], {"axis": 7}), ("MeanVarianceNormalization", [X], {"axes": [7]}),
    ("Resize", [X, None, np.float32([2])], {"axes": [7]}), ("CenterCropPad", [X, np.array([2])], {"axes": [7]}),
    ("Pad", [X, np.array([1, 1]), None, np.array([7])], {}), ("Hardmax", [X], {"axis": 7}),
    *((name, [X], {"axis": 7, "opset": 12}) for name in ("Softmax", "LogSoftmax", "Hardmax")),
    ("Add", [X, X[0, 0]], {"axis": 7, "broadcast": 1, "opset": 6}),
]
ERRORS += [
    (lambda case=case: run(case[0], case[1], **{"opset": 23} | case[2]), ValueError,
     rf"{case[0]} .*: ax[ei]s must lie in \[-4, 3\], but got 7")
    for case in AXES
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)


def compared(draw, seed):
    """Whether onnxruntime computes a random node, and by the standard; then needle's results are the same."""
    name, inputs, opset, outputs, attributes = draw(np.random.default_rng(seed))
    fixed = [i for i in FIXED.get(name, ()) if i < len(inputs)]
    model = model_of(name, inputs, opset, outputs, fixed, **attributes)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = session.run(None, feeds(inputs, fixed))
    except Exception:  # it lacks the opset, or refuses a combination
        return False
    if departs(name, inputs, opset, attributes):
        return False
    results = run(name, inputs, opset, outputs, fixed, **attributes)
    case = f"{draw.__name__} {seed}: {name} {opset} {attributes} {[x is not None and x.shape for x in inputs]}"
    for result, right in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (right.dtype, right.shape), case
        np.testing.assert_allclose(result.numpy(), right, rtol=1e-4, atol=1e-4, err_msg=case)
    return True


@pytest.mark.parametrize("draw", DRAWN)
def test_random_nodes_are_those_of_onnxruntime(draw):
    onnxruntime.set_default_logger_severity(4)
    assert sum(compared(draw, seed) for seed in range(7)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWN)
def test_many_random_nodes_are_those_of_onnxruntime(draw):
    onnxruntime.set_default_logger_severity(4)
    assert sum(compared(draw, seed) for seed in range(7, 300)) >= 100


@pytest.mark.parametrize("draw", DRAWN)
def test_nodes_are_the_same_on_a_device(draw, device):
    for seed in range(2):
        name, inputs, opset, outputs, attributes = draw(np.random.default_rng(seed))
        fixed = [i for i in FIXED.get(name, ()) if i < len(inputs)]
        right = run(name, inputs, opset, outputs, fixed, **attributes)
        for result, value in zip(run(name, inputs, opset, outputs, fixed, device, **attributes), right, strict=True):
            assert result.device == device
            np.testing.assert_allclose(result.numpy(), value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


def node(name, *inputs, trained=(0,), opset=22, fixed=(), **attributes):
    """A node as a function of its inputs `trained`, in float64, and these inputs; the others are constants."""
    is_float = [array is not None and array.dtype.kind == "f" and i not in fixed for i, array in enumerate(inputs)]
    single, arrays = (
        [array.astype(dtype) if floating else array for array, floating in zip(inputs, is_float, strict=True)]
        for dtype in (np.float32, np.float64)
    )
    module = load(model_of(name, single, opset, fixed=fixed, **attributes))  # not all operators know float64
    given, names = [*feeds(arrays, fixed).values()], [*feeds(arrays, fixed)]
    places = [names.index(f"x{i}") for i in trained]

    def function(*tensors):
        values = [ndl.Tensor(array, requires_grad=False) for array in given]
        for place, tensor in zip(places, tensors, strict=True):
            values[place] = tensor
        return module(*values)

    return function, [ndl.Tensor(given[place]) for place in places]


def image(*shape, seed=0):
    return floats(np.random.default_rng(seed), *shape)


IMAGE = image(1, 2, 5, 4)
SCALES, SIZES = np.array([1, 1, 1.6, 0.6], np.float32), np.array([1, 2, 3, 7])
NO_ROI = np.zeros(0, np.float32)
ROI = np.array([0, 0, 0.1, 0.2, 1, 1, 0.7, 0.9], np.float32)
ROIS, IMAGES = np.array([[0.31, 0.67, 3.13, 4.29], [1.22, 0.16, 2.37, 2.61]]), np.array([0, 0])
GRID = np.random.default_rng(1).uniform(-1.2, 1.2, (1, 3, 2, 2))
PLACES = np.random.default_rng(2).uniform(-1.2, 1.2, (1, 2, 2))

# fmt: off
DIFFERENTIATED = {
    "conv": node("Conv", image(1, 2, 3, 3, 2, 3), image(2, 1, 2, 2, 1, 2), group=2, trained=(0, 1)),
    "conv_transpose": node("ConvTranspose", image(1, 2, 3), image(2, 2, 3), image(2), strides=[2], output_shape=[9],
                           trained=(0, 1, 2)),
    "causal": node("CausalConvWithState", image(1, 2, 4), image(2, 1, 3), image(2), image(1, 2, 2), opset=27,
                   outputs=2, activation="silu", trained=(0, 1, 2, 3)),
    "deform_conv": node("DeformConv", IMAGE, image(2, 2, 2, 2), image(1, 8, 4, 3) * 0.7, image(2), image(1, 4, 4, 3),
                        trained=(0, 1, 2, 3, 4)),
    "deform_conv 1-d": node("DeformConv", image(2, 2, 6), image(2, 1, 2), image(2, 2, 5) * 0.7, group=2,
                            trained=(0, 1, 2)),
    "col2im": node("Col2Im", image(1, 8, 6), np.array([4, 3]), np.array([2, 2])),
    "max_pool": node("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1, outputs=2),
    "average_pool": node("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[1, 0, 1, 1], dilations=[1, 2], strides=[2, 1],
                         ceil_mode=1, count_include_pad=1),
    "lp_pool 3": node("LpPool", IMAGE, kernel_shape=[2, 2], p=3, pads=[1, 1, 0, 0]),
    "lp_pool 1": node("LpPool", IMAGE, kernel_shape=[2, 2], p=1, strides=[2, 1]),
    "global_lp_pool": node("GlobalLpPool", IMAGE, p=3),
    "max_unpool": node("MaxUnpool", image(1, 1, 2, 2), np.array([[[[1, 3], [9, 15]]]]), kernel_shape=[2, 2],
                       strides=[2, 2]),
    "max_roi_pool": node("MaxRoiPool", IMAGE, np.array([[0, 0, 1, 3, 4], [0, 1, 0, 2, 2]], np.float32),
                         pooled_shape=[2, 2]),
    "roi_align": node("RoiAlign", IMAGE, ROIS, IMAGES, output_height=2, output_width=3, trained=(0, 1)),
    "roi_align max": node("RoiAlign", IMAGE, ROIS, IMAGES, output_height=2, output_width=1, sampling_ratio=2,
                          mode="max", trained=(0, 1)),
    "nearest": node("Resize", IMAGE, None, SCALES, opset=19, fixed=(2,)),
    "linear": node("Resize", IMAGE, None, None, SIZES, opset=19, mode="linear"),
    "cubic": node("Resize", IMAGE, None, None, SIZES, opset=19, mode="cubic", exclude_outside=1),
    "antialias": node("Resize", IMAGE, None, None, SIZES, opset=19, mode="cubic", antialias=1),
    "crop": node("Resize", IMAGE, ROI, None, SIZES, opset=19, mode="linear", fixed=(1,),
                 coordinate_transformation_mode="tf_crop_and_resize"),
    "reflect": node("Pad", IMAGE, np.array([0, 1, 6, -1, 1, 0, 9, 2]), mode="reflect"),
    "wrap": node("Pad", IMAGE, np.array([0, 1, 6, -1, 1, 0, 9, 2]), mode="wrap", opset=19),
    "edge": node("Pad", IMAGE, np.array([0, 1, 6, -1, 1, 0, 9, 2]), mode="edge"),
    "grid linear": node("GridSample", IMAGE, GRID, padding_mode="reflection", trained=(0, 1)),
    "grid cubic": node("GridSample", IMAGE, GRID, mode="cubic", trained=(0, 1)),
    "grid 1-d": node("GridSample", image(1, 2, 5), PLACES[:, :, :1], trained=(0, 1)),
    "affine_grid": node("AffineGrid", image(1, 2, 3), np.array([1, 1, 2, 3])),
    "batch_norm": node("BatchNormalization", IMAGE, image(2), image(2), image(2), image(2) ** 2 + 1, opset=15,
                       trained=(0, 1, 2, 3, 4)),
    "batch_norm training": node("BatchNormalization", IMAGE, image(2), image(2), image(2), image(2) ** 2, opset=15,
                                training_mode=1, outputs=3, trained=(0, 1, 2, 3, 4)),
    "instance_norm": node("InstanceNormalization", IMAGE, image(2), image(2), trained=(0, 1, 2)),
    "group_norm": node("GroupNormalization", image(2, 4, 3), image(4), image(4), num_groups=2, trained=(0, 1, 2)),
    "layer_norm": node("LayerNormalization", IMAGE, image(5, 1), image(4), axis=2, trained=(0, 1, 2)),
    "rms_norm": node("RMSNormalization", IMAGE, image(4), axis=1, opset=23, trained=(0, 1)),
    "lrn": node("LRN", image(1, 5, 2), size=4, alpha=0.5),
    "l1": node("LpNormalization", IMAGE, p=1, axis=1),
    "l2": node("LpNormalization", IMAGE, axis=2),
    "mvn": node("MeanVarianceNormalization", IMAGE),
}
# fmt: on


@pytest.mark.parametrize("case", DIFFERENTIATED)
def test_derivatives(case):
    function, inputs = DIFFERENTIATED[case]
    assert ndl.gradcheck(function, *inputs)


def reference(name, inputs, opset=22, outputs=1, **attributes):
    """The outputs of a node by ONNX's own evaluator."""
    return ReferenceEvaluator(model_of(name, inputs, opset, outputs, **attributes)).run(None, feeds(inputs))


def test_deformable_convolution_without_offsets_is_convolution():
    """ONNX's evaluator and onnxruntime know two axes only."""
    x, w = image(2, 4, 4, 5, 3), image(4, 2, 2, 3, 1)
    attributes = {"group": 2, "strides": [1, 2, 1], "pads": [1, 0, 0, 0, 1, 0], "dilations": [1, 2, 1]}
    (right,) = run("Conv", [x, w], **attributes)
    offsets = np.zeros((2, 6 * 3, *right.shape[2:]), np.float32)
    (result,) = run("DeformConv", [x, w, offsets], **attributes)
    np.testing.assert_allclose(result.numpy(), right.numpy(), rtol=1e-5, atol=1e-6)


SAMPLINGS = [
    (mode, padding)
    for mode in ("nearest", "linear", "cubic")
    for padding in ("zeros", "border", "reflection")
    if (mode, padding) != ("cubic", "border")  # ONNX's evaluator moves points to the border, torch and others elements
]


@pytest.mark.parametrize(("mode", "padding_mode"), SAMPLINGS)
@pytest.mark.parametrize("rank", [1, 3])
def test_grids_of_other_ranks(mode, padding_mode, rank):
    x = image(2, 2, *(4, 3, 2)[:rank])
    points = np.random.default_rng(3).uniform(-1.3, 1.3, (2, *(3, 2, 2)[:rank], rank)).astype(np.float32)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": 1}
    (result,), (right,) = run("GridSample", [x, points], **options), reference("GridSample", [x, points], **options)
    np.testing.assert_allclose(result.numpy(), right, rtol=1e-4, atol=1e-5)


def test_the_window_of_an_even_response_normalization():
    """It reaches one channel further on; onnxruntime takes odd sizes only."""
    x = image(2, 5, 2, 2)
    (result,) = run("LRN", [x], size=4, alpha=0.5, beta=0.6, bias=1.5)
    squares = [(x[:, max(0, c - 1) : c + 3] ** 2).sum(1) for c in range(5)]
    right = x / (1.5 + 0.5 / 4 * np.stack(squares, 1)) ** 0.6
    np.testing.assert_allclose(result.numpy(), right, rtol=1e-5)


INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
COPIES = {
    "Resize": ([None, np.array([1, 1, 1.6, 0.6], np.float32)], {"opset": 19}),
    "Upsample": ([np.array([1, 1, 2, 1.5], np.float32)], {"opset": 9}),
    "Pad": ([np.array([0, 1, 1, 1, 1, 0, 2, 2])], {"mode": "wrap"}),
    "CenterCropPad": ([np.array([3, 5])], {"axes": [2, 3]}),
    "SpaceToDepth": ([], {"blocksize": 2}),
    "GridSample": ([np.random.default_rng(0).uniform(-1, 1, (1, 2, 3, 2)).astype(np.float32)], {"mode": "nearest"}),
}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_copies_keep_integers(dtype):
    """Also those that no float holds."""
    x = (np.arange(32).reshape(1, 2, 4, 4) * 37 + 2**62 + 1).astype(dtype)
    for name, (inputs, options) in COPIES.items():
        (result,) = run(name, [x, *inputs], **options)
        assert result.dtype == dtype
        source = np.arange(32, dtype=np.float64).reshape(x.shape) + 1
        (order,) = run(name, [source, *inputs], **options)
        index = order.numpy().astype(int)
        right = np.where(index == 0, np.zeros((), dtype), x.ravel()[index - 1])
        np.testing.assert_array_equal(result.numpy(), right, err_msg=name)


def test_blends_of_integers_are_rounded():
    x = np.array([[0, 1, 200, 255]], np.uint8)
    sizes = np.array([1, 7])
    (result,), (right,) = (f("Resize", [x, None, None, sizes], 19, mode="cubic") for f in (run, reference))
    np.testing.assert_array_equal(result.numpy(), right)


def test_max_pooling_of_nan_and_its_inverse():
    x = np.array([[[1, np.nan, 2, 3, 0, 5]]], np.float32)
    best, index = run("MaxPool", [x], outputs=2, kernel_shape=[2], strides=[2])
    np.testing.assert_array_equal(best.numpy(), [[[np.nan, 3, 5]]])
    assert index.numpy().tolist() == [[[1, 3, 5]]]
    (back,) = run("MaxUnpool", [best.numpy(), index.numpy()], kernel_shape=[2], strides=[2])
    np.testing.assert_array_equal(back.numpy(), [[[0, np.nan, 0, 3, 0, 5]]])


@pytest.mark.parametrize(
    ("opset", "outputs", "options"),
    [
        (6, 1, {"is_test": 1}),
        (6, 5, {}),
        (7, 1, {"spatial": 0}),
        (7, 5, {"spatial": 0}),
        (9, 5, {}),
        (15, 3, {"training_mode": 1}),
    ],
)
def test_batch_normalization_of_all_opsets(opset, outputs, options):
    x, spatial = image(4, 2, 3, 2), options.get("spatial", 1)
    shape, axes = ((2,), (0, 2, 3)) if spatial else ((2, 3, 2), 0)
    scale, bias, mean, var = (image(*shape, seed=i) for i in range(1, 5))
    var = var**2 + 1
    results = run(
        "BatchNormalization", [x, scale, bias, mean, var], opset, outputs, momentum=0.7, epsilon=1e-3, **options
    )
    batch = (x.mean(axes), x.var(axes))
    used = batch if outputs > 1 else (mean, var)
    wide = (1, 2, 1, 1) if spatial else (1, *shape)
    factor, shift = (scale / np.sqrt(used[1] + 1e-3)).reshape(wide), bias.reshape(wide)
    right = [
        (x - used[0].reshape(wide)) * factor + shift,
        0.7 * mean + 0.3 * batch[0],
        0.7 * var + 0.3 * batch[1],
        *batch,
    ]
    for result, value in zip(results, right[:outputs], strict=True):
        np.testing.assert_allclose(result.numpy().reshape(value.shape), value, rtol=1e-4, atol=1e-5)


def test_a_module_in_training_tracks_the_statistics():
    x, ones, zeros = image(4, 2, 3), np.ones(2, np.float32), np.zeros(2, np.float32)
    module = load(model_of("BatchNormalization", [x, ones, zeros, zeros, ones], 15, fixed=(1, 2, 3, 4)))
    module.train()(ndl.Tensor(x)).sum().backward()
    state = module.state_dict()
    np.testing.assert_allclose(state["x3"].numpy(), 0.1 * x.mean((0, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(state["x4"].numpy(), 0.9 + 0.1 * x.var((0, 2)), rtol=1e-5)
    assert [name for name, _ in module.named_parameters()] == ["x1", "x2"]


def test_empty_batches():
    x, pair = image(0, 2, 4, 4), np.ones(2, np.float32)
    sizes = np.array([0, 2, 3, 7])
    for name, inputs, options in [
        ("Conv", [x, W], {}), ("ConvTranspose", [x, W.transpose(1, 0, 2, 3)], {}),
        ("DeformConv", [x, W, image(0, 8, 3, 3)], {}), ("MaxPool", [x], {"kernel_shape": [2, 2]}),
        ("AveragePool", [x], {"kernel_shape": [2, 2]}), ("LpPool", [x], {"kernel_shape": [2, 2]}),
        ("Resize", [x, None, None, sizes], {"mode": "linear"}), ("GridSample", [x, image(0, 2, 2, 2)], {}),
        ("Resize", [x, None, np.array([3, 1, 2, 0.2], np.float32)], {}),
        ("RoiAlign", [image(1, 2, 4, 4), image(0, 4), np.zeros(0, np.int64)], {"mode": "max"}),
        ("MaxRoiPool", [image(1, 2, 4, 4), image(0, 5)], {"pooled_shape": [1, 1]}),
        ("InstanceNormalization", [x, pair, pair], {}), ("LayerNormalization", [x, image(4)], {}),
        ("GroupNormalization", [x, pair, pair], {"num_groups": 1}), ("LRN", [x], {"size": 3}),
        ("BatchNormalization", [x, pair, pair, pair, pair], {}), ("SpaceToDepth", [x], {"blocksize": 2}),
    ]:  # fmt: skip
        (result,) = run(name, inputs, **options)
        assert result.shape[0] == 0, name


def test_grid_sample_of_integers_keeps_to_their_range():
    x = np.uint8([[[[0, 255, 255, 0], [0, 255, 255, 0]]]])
    grid = RNG.uniform(-1, 1, (1, 5, 8, 2)).astype("float32")
    (y,), (exact,) = (run("GridSample", [values, grid], mode="cubic") for values in (x, x.astype("float64")))
    assert exact.numpy().max() > 255
    assert exact.numpy().min() < 0
    np.testing.assert_array_equal(y.numpy(), exact.numpy().clip(0, 255).astype("uint8"))


def test_statistics_of_layer_normalization_are_float32():
    x = RNG.standard_normal((2, 3))
    y, mean, inverse = run("LayerNormalization", [x, np.ones(3)], outputs=3)
    assert [value.dtype for value in (y, mean, inverse)] == ["float64", "float32", "float32"]
    np.testing.assert_allclose(mean.numpy(), x.mean(1, keepdims=True), rtol=1e-6)


def test_roi_align_reads_the_border_up_to_one_element_beyond():
    x, regions = np.float32([[[[1, 2], [3, 4]]]]), np.float32([[1, 1, 3, 3], [1.5, 1.5, 3, 3]])  # read at 2 and 2.25
    options = {"coordinate_transformation_mode": "output_half_pixel", "sampling_ratio": 1}
    (y,) = run("RoiAlign", [x, regions, np.int64([0, 0])], **options)
    assert y.numpy().ravel().tolist() == [4, 0]


def test_resize_along_the_first_axis():
    x = floats(RNG, 3, 4)
    (y,), (turned,) = (
        run("Resize", [values, None, np.float32(scales)], mode="linear")
        for values, scales in ((x, [1.5, 1]), (x.T, [1, 1.5]))
    )
    assert y.shape == (4, 4)
    np.testing.assert_allclose(y.numpy(), turned.numpy().T, rtol=1e-6)


def test_output_shape_goes_before_auto_pad():
    x, w = floats(RNG, 1, 1, 3), floats(RNG, 1, 1, 3)
    options = {"strides": [2], "output_shape": [5]}
    results = [run("ConvTranspose", [x, w], auto_pad=way, **options)[0] for way in ("NOTSET", "SAME_LOWER")]
    assert results[0].shape == (1, 1, 5)
    np.testing.assert_array_equal(results[0].numpy(), results[1].numpy())
