"""Every layer, and functions that forward passes use: onnxruntime and needle.onnx.load compute what the module does."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
import needle.onnx
from needle import nn
from needle.ops.cross_entropy import CROSS_ENTROPY
from needle.ops.fourier import Fourier
from tests.onnx.exported import Function, assert_equal, by_needle, by_onnxruntime, flat, stir, tensors

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.standard_normal(shape).astype("float32")


def positive(*shape):
    return (rng.random(shape) + 0.01).astype("float32")


def integers(n, *shape):
    return rng.integers(0, n, shape)


IMAGES = floats(2, 4, 7, 8)
ROWS, OTHERS, SIGNS = floats(4, 5), floats(4, 5), np.sign(floats(4, 5))
CLASSES = integers(5, 4)


def of_rank(rank, name, *args, **options):
    return getattr(nn, f"{name}{rank}d")(*args, **options)


def windows(rank):
    """Layers over `rank` spatial axes, with an input for each."""
    x = floats(1, 4, *(4, 8, 6)[-rank:])
    yield of_rank(rank, "Conv", 4, 6, 3, stride=2, padding=1, dilation=1, groups=2), x
    yield of_rank(rank, "Conv", 4, 6, 2, padding="same", dilation=2, bias=False), x
    yield of_rank(rank, "ConvTranspose", 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), x
    yield of_rank(rank, "ConvTranspose", 4, 6, 2, stride=3, dilation=2, padding=1, output_padding=2), x
    for ceil_mode in (False, True):
        yield of_rank(rank, "MaxPool", 3, 2, 1, ceil_mode=ceil_mode), x
        yield of_rank(rank, "AvgPool", 3, 2, 1, ceil_mode=ceil_mode), x
        yield of_rank(rank, "AvgPool", 3, 2, 1, ceil_mode=ceil_mode, count_include_pad=False), x
        yield of_rank(rank, "LPPool", 2, 3, 2, ceil_mode=ceil_mode), x
    yield of_rank(rank, "MaxPool", 2, 3, 1, ceil_mode=True), x
    yield of_rank(rank, "MaxPool", 2, dilation=2, return_indices=True), x
    for size in (1, 2, 3):
        yield of_rank(rank, "AdaptiveAvgPool", size), x
        yield of_rank(rank, "AdaptiveMaxPool", size), x
    yield of_rank(rank, "BatchNorm", 4), x
    yield of_rank(rank, "BatchNorm", 4, affine=False), x
    yield of_rank(rank, "BatchNorm", 4, bias=False), x
    yield of_rank(rank, "BatchNorm", 4, track_running_stats=False), x
    yield of_rank(rank, "InstanceNorm", 4, affine=True), x
    yield of_rank(rank, "InstanceNorm", 4, track_running_stats=True), x
    for kind in ("Zero", "Reflection", "Replication", "Circular"):
        yield of_rank(rank, f"{kind}Pad", 2), x
    yield of_rank(rank, "ConstantPad", -1, 1.5), x
    yield of_rank(rank, "Dropout", 0.5), x
    pool, unpool = (getattr(F, f"max_{name}{rank}d") for name in ("pool", "unpool"))
    yield Function(lambda x: unpool(*pool(x, 2, return_indices=True), 2)), x
    yield nn.Upsample(scale_factor=2), x


def layers():
    yield nn.Conv(4, 6, 3, stride=2), IMAGES
    for mode in ("bilinear", "bicubic", "nearest-exact"):
        yield nn.Upsample(size=(5, 11), mode=mode), IMAGES
    yield nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True), floats(1, 2, 3, 4, 2)
    yield from ((nn.GroupNorm(2, 4), IMAGES), (nn.GroupNorm(2, 4, affine=False), IMAGES))
    yield from ((nn.LayerNorm((7, 8)), IMAGES), (nn.LayerNorm(8, elementwise_affine=False), IMAGES))
    yield from ((nn.LayerNorm(8), floats(3, 8)), (nn.LayerNorm1d(8), floats(3, 8)), (nn.RMSNorm(8), IMAGES))
    yield from ((nn.LocalResponseNorm(3), IMAGES), (nn.BatchNorm1d(5), ROWS))
    names = "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU ReLU ReLU6 SELU"
    for name in f"{names} SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink Identity Flatten".split():
        yield getattr(nn, name)(), IMAGES
    yield from ((nn.GELU("tanh"), IMAGES), (nn.GLU(1), IMAGES), (nn.Threshold(0.1, 2.0), IMAGES))
    yield from ((nn.Softmax(1), IMAGES), (nn.LogSoftmax(1), IMAGES), (nn.Softmin(1), IMAGES))
    yield from ((nn.Linear(8, 3), floats(8)), (nn.Linear(8, 3, bias=False), IMAGES))
    yield nn.Embedding(10, 3), integers(10, 4, 2)
    yield nn.Embedding(10, 3, padding_idx=2), integers(10, 4, 2).astype("int32")
    yield from ((nn.PixelShuffle(2), IMAGES), (nn.PixelUnshuffle(2), floats(2, 3, 4, 6)))
    yield nn.Unfold((2, 3), dilation=(1, 2), padding=1, stride=2), IMAGES
    yield nn.Fold((7, 8), (2, 3), padding=1, stride=2), floats(2, 4 * 6, 16)
    yield nn.CosineSimilarity(), ROWS, OTHERS


def sequences():
    x, h = floats(4, 2, 3), floats(1, 2, 5)
    for options in ({"bidirectional": True}, {"batch_first": True, "num_layers": 2}):
        for kind in (nn.RNN, nn.LSTM, nn.GRU):
            yield kind(3, 5, **options), x
    yield nn.RNN(3, 5, nonlinearity="relu", bias=False), x, h
    yield nn.LSTM(3, 5), x, (h, floats(1, 2, 5))
    yield nn.GRU(3, 5, bias=False), floats(4, 3)
    yield from ((nn.RNNCell(3, 5), x[0]), (nn.LSTMCell(3, 5), x[0]), (nn.GRUCell(3, 5), x[0], h[0]))
    yield nn.TransformerLayer(8, 2, 4, 16, causal=False), floats(2, 5, 8)
    yield nn.Transformer(8, 16, 2, sequence_len=9), floats(5, 2, 8)
    yield (nn.MultiHeadAttention(causal=True), *(floats(2, 2, 5, 4) for _ in "qkv"))
    yield nn.AttentionLayer(8, 2, 4), floats(2, 5, 8)
    mask = np.array([[True, False, True], [False, False, False]])
    attention = F.scaled_dot_product_attention
    yield Function(attention), floats(2, 2, 4), floats(2, 3, 4), floats(2, 3, 4), mask


def losses():
    for kind in (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss):
        yield kind(), ROWS, OTHERS
    probabilities = positive(4, 5) / 2
    yield from ((nn.BCELoss(), positive(4, 5) / 2, probabilities), (nn.BCEWithLogitsLoss(), ROWS, probabilities))
    yield nn.CrossEntropyLoss(), ROWS, CLASSES
    yield nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"), ROWS, CLASSES
    yield nn.CrossEntropyLoss(), ROWS, probabilities
    yield nn.CrossEntropyLoss(ignore_index=2), floats(2, 5, 3), integers(5, 2, 3)
    yield Function(lambda x, y: CROSS_ENTROPY(x, y)), floats(2, 5, 3), integers(5, 2, 3)
    yield from ((nn.NLLLoss(), ROWS, CLASSES), (nn.SoftmaxLoss(), ROWS, CLASSES), (nn.MultiMarginLoss(), ROWS, CLASSES))
    yield from ((nn.KLDivLoss("mean"), ROWS, probabilities), (nn.PoissonNLLLoss(), ROWS, probabilities))
    yield nn.GaussianNLLLoss(), ROWS, OTHERS, probabilities
    yield from ((nn.SoftMarginLoss(), ROWS, SIGNS), (nn.HingeEmbeddingLoss(), ROWS, SIGNS))
    yield nn.MarginRankingLoss(), ROWS, OTHERS, SIGNS
    yield nn.MultiLabelMarginLoss(), ROWS, integers(5, 4, 5) - 1
    yield nn.MultiLabelSoftMarginLoss(), ROWS, (SIGNS + 1) / 2
    yield nn.CosineEmbeddingLoss(), ROWS, OTHERS, SIGNS[:, 0]
    yield nn.TripletMarginLoss(), ROWS, OTHERS, floats(4, 5)


def functions():
    theta = ndl.Tensor(np.array([[[0.8, 0.2, 0.1], [-0.3, 1.1, 0.2]]] * 2, "float32"), requires_grad=False)
    yield Function(lambda x: F.grid_sample(x, F.affine_grid(theta, (2, 4, 5, 6)))), IMAGES
    yield Function(lambda x: ndl.einsum("nchw,ncd->nhwd", x, ndl.ones(2, 4, 3))), IMAGES
    yield Function(lambda x: (x[:, 1:3, ::-1, None, -2], x[[0, 1, 1], :, [2, 3, 4]], x[:, [0, 1], [2, 3]])), IMAGES
    yield Function(lambda x: (x[0, :, [1, 2]], x[:, 0, None, [[1, 2]]], x[..., None])), IMAGES
    yield Function(lambda x, i, j: (x[:, i], x[j, None, j])), IMAGES, integers(4, 2, 3), integers(2, 2, 3)
    yield Function(lambda x: ndl.flip(ndl.dilate(x, (2, 3), 1), (0, 2))), IMAGES
    yield Function(lambda x: (ndl.flip(x), ndl.pad(x, ((0, 1), (-1, 0), (2, -2), (0, 0))))), IMAGES
    yield Function(lambda x: (ndl.undilate(x, (2, 3), 1), ndl.sum_to(x, (4, 1, 8)))), IMAGES
    mask = np.array([True, False, True, True])
    yield Function(lambda x: (x[mask], x[None, 1][:, [True, False, True, True, False]], ndl.det(x @ x.T))), ROWS
    yield Function(lambda x: (ndl.any(x[:0]), ndl.all(x[:0]), ndl.flip(x.sum()), ndl.one_hot(3, x.sum() * 0))), ROWS
    yield Function(lambda x, i: ndl.gather(x, 1, i)), ROWS, integers(5, 4, 3)
    places = np.array([[0, 1], [2, 1], [3, 4], [0, 4]])
    yield Function(lambda x, i, y: ndl.scatter(x, 1, i, y)), ROWS, places, floats(4, 2)
    yield Function(lambda x, i, y: ndl.scatter_add(x, 1, i, y)), ROWS, integers(5, 4, 7), floats(4, 7)
    yield Function(lambda x: (*ndl.sort(x, 1, descending=True), *ndl.topk(x, 2, largest=False))), ROWS
    yield Function(lambda x: (ndl.argmax(x, 1), ndl.argmin(x), ndl.cumsum(x, 1), ndl.prod(x, 1))), ROWS
    yield Function(lambda x: Fourier(2, inverse=True)(Fourier(1)(x))), floats(3, 4, 5, 2)
    yield Function(lambda x: (ndl.var(x), ndl.std(x, 0), ndl.norm(x, 3, 1), ndl.logsumexp(x, 1))), ROWS
    yield Function(lambda x: (ndl.floor(x), ndl.trunc(x), ndl.round(x), x % 0.7, ndl.fmod(x, 0.7), x // 0.7)), ROWS
    yield Function(lambda x: (ndl.log1p(x * x), ndl.expm1(x), ndl.log2(x * x), x**2, 2.0**x)), ROWS
    yield Function(lambda x: (ndl.isnan(x), ndl.isfinite(x), ndl.logical_and(x > 0, x < 1), ~(x > 0), x != x)), ROWS
    yield Function(lambda x: ((x > 0) | (x < -1), (x > 0) < (x > 1), (x > 0) * (x < 1), (x > 0) + (x < -1))), ROWS
    yield Function(lambda x: (ndl.triu(x), ndl.tril(x, 1), ndl.any(x > 1, 1), ndl.all(x > -1), x - 1, 1 - x)), ROWS
    yield Function(lambda x: (ndl.tile(x, 2, 2), ndl.stack([x, x], 1), ndl.split(x, 1)[2], ndl.maximum(x, 0.1))), ROWS
    whole = integers(9, 4, 5) - 4
    yield Function(lambda x: (x + 1, x * 2, x // 2, x % 3, -x, x.sum(1), x.max(0), x & 3, ndl.clip(x, 0, 3))), whole
    yield Function(lambda x: (x + 0.5, x / 2, x.astype("float64"), x == 2, ndl.one_hot(9, abs(x)), x < 1.5)), whole


ndl.seed(0)  # the weights, before any test begins: a draw in a thousand lies beyond the tolerance
CASES = [
    *(pytest.param(model, args, id=type(model).__name__) for rank in (1, 2, 3) for model, *args in windows(rank)),
    *(pytest.param(m, a, id=type(m).__name__) for kind in (layers, sequences, losses, functions) for m, *a in kind()),
]


@pytest.mark.parametrize(("model", "args"), CASES)
def test_exported_model_computes_what_the_module_does(tmp_path, model, args):
    expected = flat(stir(model).eval()(*map(tensors, args)))
    path = str(tmp_path / "model.onnx")
    needle.onnx.export(model, tuple(args), path, opset=20)
    assert_equal(by_onnxruntime(path, *flat(args)), expected)
    assert_equal(by_needle(path, *flat(args)), expected)


def test_every_module_is_in_the_table():
    """Whoever adds a layer adds a row."""
    kinds = {kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
    containers = {nn.Module, nn.ModuleDict, nn.ModuleList, nn.ParameterList, nn.Residual, nn.Sequential}
    used = {type(module) for case in CASES for _, module in case.values[0].named_modules()}
    unpools = {nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d}  # by their functions
    assert kinds - containers - used - unpools == set()
