"""Quantised tensors of ONNX and their products, against onnxruntime."""

import numpy as np
import pytest

import needle as ndl
from tests.onnx.one_node import in_onnxruntime, operate

TYPES = {"uint8": 2, "int8": 3, "uint16": 4, "int16": 5}  # numbers of ONNX


class Draws:
    """Random choices and arrays from a seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def one_of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def integers(self, dtype, *shape):
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(dtype)

    def weights(self, dtype, *shape):
        """Of int8 numbers of 7 bits: processors without VNNI let onnxruntime add pairs of products in 16 bits."""
        return self.integers(dtype, *shape) // (2 if dtype == "int8" else 1)

    def scale(self, *shape):
        return (0.01 + 0.1 * self.rng.random(shape)).astype("float32")


def same_in_onnxruntime(op_type, *inputs, **options):
    expected = in_onnxruntime(op_type, *inputs, **options)
    results = operate(op_type, *inputs, **options)
    for result, y in zip(results if isinstance(results, tuple) else (results,), expected, strict=True):
        assert result.dtype == y.dtype
        np.testing.assert_allclose(result.numpy(), y, rtol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_tensors(seed):
    draws = Draws(seed)
    rng, dtype = draws.rng, draws.one_of(*TYPES)
    shape = rng.integers(1, 5, rng.integers(1, 4))
    axis, options = int(rng.integers(-len(shape), len(shape))), {"opset": 21}
    kind = draws.one_of("tensor", "axis", "blocks")
    scales = {"tensor": (), "axis": (shape[axis],), "blocks": list(shape)}[kind]
    if kind == "blocks":
        options["block_size"] = int(rng.integers(1, 4))
        scales[axis] = -(-shape[axis] // options["block_size"])
    if kind != "tensor":
        options["axis"] = axis
    x = (draws.one_of(1, 30, 3e4) * rng.standard_normal(shape)).astype("float32")
    scale = draws.scale(*scales)
    zero_point = draws.one_of(None, draws.integers(dtype, *scales))
    same_in_onnxruntime("DequantizeLinear", draws.integers(dtype, *shape), scale, zero_point, **options)
    if zero_point is None:
        options["output_dtype"] = TYPES[dtype]
    same_in_onnxruntime("QuantizeLinear", x, scale, zero_point, **options)
    same_in_onnxruntime("DynamicQuantizeLinear", x, opset=11, outputs=3)


def test_quantized_without_a_zero_point_are_uint8():
    x = np.float32([-3, 2.5, 900])
    same_in_onnxruntime("QuantizeLinear", x, np.float32(2), opset=21)
    same_in_onnxruntime("QuantizeLinear", x, np.float32([2, 3]), opset=21, axis=0, block_size=2)


@pytest.mark.parametrize("seed", range(10))
def test_products(seed):
    draws = Draws(seed)
    rng, kinds = draws.rng, draws.one_of(("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"))
    (n, k, m), batch = rng.integers(1, 5, 3), draws.one_of((), (2,))
    a, b = draws.integers(kinds[0], *batch, n, k), draws.weights(kinds[1], *batch, k, m)
    a_zero, b_zero, columns = draws.integers(kinds[0]), draws.integers(kinds[1]), draws.integers(kinds[1], m)
    same_in_onnxruntime("MatMulInteger", a, b, a_zero, b_zero if batch else columns, opset=10)
    same_in_onnxruntime(
        "QLinearMatMul", a, draws.scale(), a_zero, b, draws.scale(), b_zero, 10 * draws.scale(), a_zero, opset=10
    )
    if not batch:
        same_in_onnxruntime(
            "QLinearMatMul", a, draws.scale(), a_zero, b, draws.scale(m), columns, 10 * draws.scale(), a_zero, opset=10
        )


@pytest.mark.parametrize("seed", range(10))
def test_convolutions(seed):
    draws = Draws(seed)
    kinds, groups = draws.one_of(("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8")), draws.one_of(1, 2)
    x, w = draws.integers(kinds[0], 2, 2 * groups, 5, 6), draws.weights(kinds[1], 2 * groups, 2, 3, 2)
    window = draws.one_of({"pads": [1, 0, 0, 1], "dilations": [1, 2]}, {"auto_pad": "SAME_LOWER"})
    window |= {"group": groups, "strides": [draws.one_of(1, 2), 1]}
    x_zero, w_zero = draws.integers(kinds[0]), draws.integers(kinds[1])
    same_in_onnxruntime("ConvInteger", x, w, x_zero, w_zero, opset=10, **window)
    scale, w_zero = draws.one_of((draws.scale(), w_zero), (draws.scale(2 * groups), np.zeros(2 * groups, kinds[1])))
    bias = draws.one_of(None, draws.rng.integers(-1000, 1000, 2 * groups).astype("int32"))
    inputs = x, draws.scale(), x_zero, w, scale, w_zero, 10 * draws.scale(), draws.integers(kinds[0]), bias
    same_in_onnxruntime("QLinearConv", *inputs, opset=10, **window)


def test_rows_of_a_product_have_zero_points_of_their_own():
    a, b = np.uint8([[1, 2], [3, 4]]), np.uint8([[5, 6], [7, 8]])
    y = operate("MatMulInteger", a, b, np.uint8([1, 2]), np.uint8(5), opset=10)
    assert y.numpy().tolist() == [[2, 3], [4, 7]]
    one = np.float32(1), np.uint8(0)
    y = operate("QLinearMatMul", a, np.float32([1, 2]), np.uint8([1, 2]), b, *one, *one, opset=10)
    assert y.numpy().tolist() == [[7, 8], [38, 44]]


def test_sums_of_the_largest_products_are_exact():
    a, w = np.full((1, 4), 255, "uint8"), np.full((4, 2), [-128, 127], "int8")
    assert operate("MatMulInteger", a, w, opset=10).numpy().tolist() == [[4 * 255 * -128, 4 * 255 * 127]]
    y = operate("ConvInteger", a[None], w.T[:, None], opset=10)
    assert y.numpy().tolist() == [[[4 * 255 * -128], [4 * 255 * 127]]]


def test_sums_of_integers_wrap():
    a = np.full((1, 40000), 255, "uint8")
    assert operate("MatMulInteger", a, a.T, opset=10).numpy().tolist() == [[40000 * 255**2 - 2**32]]


def test_wide_integers_keep_their_digits():
    x = np.int32([2**31 - 1, -(2**31)])
    assert operate("DequantizeLinear", x, np.float32(1), np.int32(2**31 - 3)).numpy().tolist() == [2, -(2.0**32)]


def test_halves_round_to_even_and_results_saturate():
    x = np.float32([0.5, 1.5, 2.5, -0.5, 300, -300, np.inf])
    assert operate("QuantizeLinear", x, np.float32(1), np.int8(0)).numpy().tolist() == [0, 2, 2, 0, 127, -128, 127]
    y = operate("QuantizeLinear", np.float16([2.5]), np.float16(0.001), np.uint16(3), opset=21)
    assert y.numpy().tolist() == [2501]  # onnxruntime, in float32: 2502


def test_nothing_but_zeros():
    y, scale, zero_point = operate("DynamicQuantizeLinear", np.zeros(3, "float32"), outputs=3)
    assert (y.numpy().tolist(), zero_point.item()) == ([0, 0, 0], 0)
    assert scale.item() == np.float32(1 / 255)  # onnxruntime: 1


def test_the_scale_of_dequantised_weights_has_a_gradient():
    x, scale = np.int8([[1, -2], [3, 4]]), ndl.Tensor([0.5, 2.0])
    assert ndl.gradcheck(lambda scale: operate("DequantizeLinear", x, scale, np.int8([1, 0])), scale)
