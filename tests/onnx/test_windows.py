"""Operators with windows, grids and regions, and normalisations: what the official cases do not reach."""

import re

import numpy as np
import onnxruntime
import pytest

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
    (lambda: run("Col2Im", [floats(RNG, 1, 4, 5), np.array([3, 3]), np.array([2, 2])]), ValueError,
     r"Col2Im .*: input must be \(N, C·4, 4\), but got \(1, 4, 5\)"),
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
    assert sum(compared(draw, seed) for seed in range(10)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("draw", DRAWN)
def test_many_random_nodes_are_those_of_onnxruntime(draw):
    onnxruntime.set_default_logger_severity(4)
    assert sum(compared(draw, seed) for seed in range(10, 300)) >= 100


def node(name, *inputs, trained=(0,), opset=22, fixed=(), **attributes):
    """A node as a function of its inputs `trained`, in float64, and these inputs; the others are constants."""
    is_float = [array is not None and array.dtype.kind == "f" and i not in fixed for i, array in enumerate(inputs)]
    arrays = [array.astype(np.float64) if wide else array for array, wide in zip(inputs, is_float, strict=True)]
    module = load(model_of(name, arrays, opset, fixed=fixed, **attributes))
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
