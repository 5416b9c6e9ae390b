"""Convolutions by raw kernels equal torch's: all three passes, bias, relu and its mask, in every window and order."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import kernels, nn
from needle.ops.conv import RectifiedCorrelate
from needle.ops.pool import MaxPool
from tests.gpu.faults import Fault
from tests.gpu.kernels import missing, running
from tests.gpu.shim_device import SHIM
from tests.kernels.windows import arrange, problem_of
from tests.test_docs import ROOT, calls

TORCH_CONV = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
# x, w, options
PROBLEMS = {
    "one element": ((1, 1, 1), (1, 1, 1), {}),
    "1-d": ((4, 3, 9), (20, 3, 3), {"padding": 2, "dilation": 2}),
    "2-d": ((4, 3, 6, 5), (18, 3, 3, 3), {"padding": 1}),
    "3-d": ((3, 2, 4, 3, 5), (5, 2, 2, 3, 2), {"padding": (1, 0, 1), "stride": (2, 1, 2), "dilation": (1, 1, 2)}),
    "1x1": ((8, 20, 3, 3), (36, 20, 1, 1), {}),
    "stride 2": ((4, 5, 7, 6), (6, 5, 3, 3), {"stride": 2, "padding": 1}),
    "stride over kernel": ((5, 4, 8), (4, 4, 2), {"stride": 3}),
    "stride and dilation share a factor": ((2, 4, 11), (4, 4, 3), {"stride": 4, "dilation": 2, "padding": 2}),
    "dead taps": ((8, 5, 1, 1), (6, 5, 3, 3), {"padding": 1}),
    "many rows": ((4, 9, 4, 4), (70, 9, 3, 3), {"padding": 1}),
    "many channels": ((4, 70, 3, 2), (5, 70, 2, 2), {}),
    "groups": ((4, 12, 5, 4), (15, 4, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((4, 6, 5, 5), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "channel multiplier": ((3, 3, 5, 4), (6, 1, 3, 2), {"groups": 3, "stride": 2}),
    "one image": ((1, 5, 7, 9), (17, 5, 3, 3), {"padding": 1}),
    "to one channel": ((4, 16, 5, 5), (1, 16, 4, 4), {"padding": 1, "stride": 2}),
}
STREAMING = {  # by four images, with parts of the sums: the kernels are those of large layers
    "product": ((32, 8, 5, 4), (64, 8, 3, 3), {"padding": 1}),
    "32 rows": ((32, 8, 5, 4), (32, 8, 3, 3), {"padding": 1}),
    "16 rows": ((32, 8, 5, 4), (16, 8, 3, 3), {"padding": 1}),
    "depthwise": ((32, 8, 5, 4), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
}
ASYMMETRIC = kernels.Window((2, 1), ((0, 2), (3, 0)), (1, 2), 1)


def problem_named(name):
    x, w, options = PROBLEMS[name]
    return problem_of(x, w, **options)


def by_torch(x, w, y, bias, window, rectified=False):
    """The result, and the gradients of x, w and bias for the gradient y."""
    x, w, y, bias = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (x, w, y, bias))
    pads = [n for pair in reversed(window.padding) for n in pair]
    padded = torch.nn.functional.pad(x, pads)
    result = TORCH_CONV[x.ndim - 3](padded, w, bias, window.stride, 0, window.dilation, window.groups)
    result = torch.relu(result) if rectified else result
    grads = torch.autograd.grad(result, (x, w, bias), y)
    return [each.detach().numpy() for each in (result, *grads)]


def close(actual, expected, tolerance=2e-5):
    actual = np.asarray(SHIM.to_host(actual), "float64")
    assert actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance, rtol=0)


def values_of(problem):
    """x, w, y and a bias; small enough for sums of about 1."""
    x, w, y = problem.values(dtype="float32")
    return x, w, y, np.random.default_rng(1).standard_normal(len(w)).astype("float32")


def assert_like_torch(problem, order="batch-last", tolerance=2e-5, rectified=True):
    """Forward with bias and relu, all gradients masked by the result, and the passes by themselves."""
    x, w, y, bias = values_of(problem)
    window, size, kernel = problem.window, problem.size, problem.kernel
    on = lambda values: arrange(values, order, SHIM)  # noqa: E731
    if order == "broadcast":  # its values are others
        x, y = (SHIM.to_host(on(each)) for each in (x, y))
    result, x_grad, w_grad, bias_grad = by_torch(x, w, y, bias, window, rectified)
    x, w, y, bias = on(x), SHIM.array(w), on(y), SHIM.array(bias)
    output = (kernels.correlate_rectified if rectified else kernels.correlate)(x, w, window, bias)
    close(output, result, tolerance)
    assert kernels.batch_last(output).flags.c_contiguous
    mask = (output,) if rectified else ()
    grads = kernels.correlate_backward(y, x, w, window, (True, True, True), *mask)
    for grad, expected in zip(grads, (x_grad, w_grad, bias_grad), strict=True):
        close(grad, expected, tolerance)
    x_only = kernels.correlate_backward(y, x, w, window, (True, False, False), *mask)
    w_only = kernels.correlate_backward(y, x, w, window, (False, True), *mask)
    assert x_only[1:] == (None, None)
    assert w_only[0] is None
    close(x_only[0], x_grad, tolerance)
    close(w_only[1], w_grad, tolerance)
    if not rectified:
        close(kernels.correlate_transpose(y, w, window, size), x_grad, tolerance)
        close(kernels.correlate_weight(x, y, window, kernel), w_grad, tolerance)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_passes_are_like_torch(name, run):
    assert_like_torch(problem_named(name))


def test_unequal_padding_without_relu(run):
    x, w = (4, 3, 5, 6), (4, 3, 2, 3)
    output = ASYMMETRIC.output(x[2:], w[2:])
    problem = problem_of(x, w)
    problem = type(problem)(ASYMMETRIC, 4, 3, 4, x[2:], w[2:], output)
    assert_like_torch(problem, rectified=False)


@pytest.mark.parametrize("order", ["row-major", "column-major", "flipped", "sliced", "broadcast"])
def test_arrays_are_read_in_any_memory_order(order, run):
    assert_like_torch(problem_named("2-d"), order)


def test_images_that_do_not_lie_side_by_side_are_read_one_by_one(run):
    """Though there are four of them, and all other steps are multiples of 16 bytes."""
    x, w, y, bias = values_of(problem_of((4, 3, 5, 4), (18, 3, 3, 3), padding=1))
    window = problem_named("2-d").window
    apart = [SHIM.array(np.repeat(each, 4, axis=-1))[..., ::4] for each in (x, y)]
    close(kernels.correlate(apart[0], SHIM.array(w), window, SHIM.array(bias)), kernels.correlate(x, w, window, bias))
    close(kernels.correlate_weight(*apart, window, (3, 3)), kernels.correlate_weight(x, y, window, (3, 3)))


@pytest.mark.parametrize("name", STREAMING)
def test_large_layers_in_parts(name, run):
    x, w, options = STREAMING[name]
    assert_like_torch(problem_of(x, w, **options))


@pytest.mark.parametrize("name", ["many rows", "stride 2", "groups"])
def test_the_matrix_units_round_to_ten_bits(name, run):
    x, w, options = PROBLEMS[name]
    problem = problem_of(x, (70 * options.get("groups", 1), *w[1:]), **options)
    with ndl.allow_tf32():
        assert_like_torch(problem, tolerance=3e-3, rectified=False)  # else a result near 0 is masked or not
        x, w, *_ = values_of(problem)
        rounded = SHIM.to_host(kernels.correlate(SHIM.array(x), SHIM.array(w), problem.window))
    exact = SHIM.to_host(kernels.correlate(SHIM.array(x), SHIM.array(w), problem.window))
    assert 1e-5 < np.abs(rounded - exact).max() / np.abs(exact).max() < 3e-3


@pytest.mark.parametrize("name", ["2-d", "stride 2", "to one channel", "groups", "1-d", "3-d", "16 rows"])
def test_a_transposed_convolution_is_like_torchs(name, run):
    """With a bias; its gradients come from two launches, too."""
    x, w, options = (PROBLEMS | STREAMING)[name]
    problem = problem_of(x, w, **options)
    x, w, y, _ = values_of(problem)
    window = problem.window
    bias = np.random.default_rng(1).standard_normal(x.shape[1]).astype("float32")
    tensors = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (y, w, bias)]
    function = getattr(torch.nn.functional, f"conv_transpose{problem.rank}d")
    before = tuple(pair[0] for pair in window.padding)
    extra = [n - m for n, m in zip(problem.size, window.input(problem.output, problem.kernel), strict=True)]
    expected = function(*tensors, window.stride, before, extra, window.groups, window.dilation)
    grads = torch.autograd.grad(expected, tensors, torch.tensor(x, dtype=torch.float64))
    y, w, bias, x = (SHIM.array(each) for each in (y, w, bias, x))
    close(kernels.correlate_transpose_biased(y, w, window, problem.size, bias), expected.detach().numpy())
    results = kernels.correlate_transpose_backward(x, y, w, window, (True, True, True))
    for result, grad in zip(results, grads, strict=True):
        close(result, grad.numpy())
    y_grad, w_grad, nothing = kernels.correlate_transpose_backward(x, y, w, window, (False, True, False))
    assert y_grad is nothing is None
    close(w_grad, grads[1].numpy())


# ---- launches, bits, memory traffic ----------------------------------------------------------------------------------


@pytest.fixture
def plain():
    if problem := missing():
        pytest.skip(problem)
    with running() as run:
        yield run


def test_a_layer_is_one_launch_forward_and_two_backward(plain, launches):
    layer = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1, device=SHIM), nn.ReLU())
    x = ndl.Tensor(np.ones((32, 8, 5, 4), "float32"), device=SHIM, requires_grad=True)
    y = layer(x)
    y.backward(y.detach(), create_graph=False)
    assert launches == ["convolve_64", "weigh_64", "convolve_16"]
    y = layer(ndl.Tensor(x.cached_data, device=SHIM, requires_grad=False))
    y.backward(y.detach(), create_graph=False)
    assert launches[3:] == ["convolve_64", "weigh_64", "add_weights"]


def test_the_life_of_a_call_is_as_documented(plain):
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    (steps,) = re.findall(r"^## The same call on a GPU\n(.*?)^## ", text, re.M | re.S)
    x, w, bias = (ndl.init.randn(*shape, device=SHIM) for shape in ((8, 3, 12, 12), (4, 3, 3, 3), (4,)))
    made = iter(calls(lambda: nn.functional.conv2d(x, w, bias, padding=1)))
    told = re.findall(r"`(\w+)` \(`([\w/]+\.py)`\)", steps)
    assert len(told) > 4
    assert not [step for step in told if step not in made]


def test_a_relu_stays_with_its_convolution(plain, launches):
    """On a CPU the max-pooling runs before it."""
    layers = nn.Sequential(nn.Conv2d(1, 2, 3, device=SHIM), nn.ReLU(), nn.MaxPool2d(2))
    y = layers(ndl.Tensor(np.ones((4, 1, 6, 6), "float32"), device=SHIM))
    assert (type(y.op), type(y.inputs[0].op)) == (MaxPool, RectifiedCorrelate)
    assert launches[0] == "convolve_direct"


@pytest.mark.parametrize("name", STREAMING)
def test_sums_are_the_same_bits_in_every_order(name, plain):
    x, w, options = STREAMING[name]
    problem = problem_of(x, w, **options)
    x, w, y, _ = (SHIM.array(each) for each in values_of(problem))
    results = []
    for order in (0, 1, 7):
        with running(order=order):
            results.append(kernels.correlate_backward(y, x, w, problem.window, (True, True, True)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", STREAMING)
def test_sectors_and_banks_are_used_well(name, plain):
    """Streams go by 16 bytes a thread. Weights are few and stay in the cache; they are read one by one."""
    x, w, options = STREAMING[name]
    problem = problem_of(x, w, **options)
    x, w, y, bias = (arrange(each, "batch-last", SHIM) for each in values_of(problem))
    with running(checked=True, measure=True) as run:
        output = kernels.correlate_rectified(x, SHIM.array(w), problem.window, SHIM.array(bias))
        kernels.correlate_backward(y, x, SHIM.array(w), problem.window, (True, True, True), output)
    assert len(run.sites) == 3 - (name in ("16 rows", "depthwise"))  # two passes by one kernel
    for kernel, sites in run.sites.items():
        streams = [site for site in sites if not site.shared and site.bytes == 16 * site.lanes]
        assert streams
        assert sum(site.bytes for site in streams) >= 0.95 * 32 * sum(site.sectors for site in streams), kernel
        if kernel not in ("convolve_direct", "weigh_direct"):
            assert run.passes(kernel) <= 1.05, kernel


# ---- what the kernels do not serve -----------------------------------------------------------------------------------


def test_other_dtypes_and_named_algorithms_take_the_generic_path(plain, launches):
    problem = problem_named("2-d")
    x, w, y = problem.values()
    expected = kernels.correlate(x, w, problem.window)
    on_device = [SHIM.array(each) for each in (x, w, y)]
    np.testing.assert_allclose(SHIM.to_host(kernels.correlate(*on_device[:2], problem.window)), expected, rtol=1e-12)
    x, w = (each.astype("float32") for each in on_device[:2])
    with ndl.conv_algorithm("im2col"):
        close(kernels.correlate(x, w, problem.window), expected)
        kernels.correlate_backward(SHIM.array(y).astype("float32"), x, w, problem.window, (True, True))
    assert not [name for name in launches if name.startswith(("convolve", "weigh"))]


def test_shapes_and_dtypes_that_do_not_fit_are_refused(plain):
    problem = problem_named("2-d")
    x, w, y = (SHIM.array(each) for each in values_of(problem)[:3])
    window, message = problem.window, r"^correlate: shapes must fit together, but got "
    with pytest.raises(ValueError, match=message):
        kernels.correlate(x[:, :2], w, window)
    with pytest.raises(ValueError, match=message):
        kernels.correlate_transpose(y, w, window, (3, 3))
    with pytest.raises(ValueError, match=message):
        kernels.correlate_weight(x, y, window, (2, 3))
    with pytest.raises(ValueError, match=message):
        kernels.correlate_backward(y[..., 1:], x, w, window, (True, True))
    with pytest.raises(TypeError, match="one dtype"):
        kernels.correlate(x, w.astype("float64"), window)


# ---- derivatives of derivatives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_second_derivatives_are_like_torchs(function, plain):
    draws = np.random.default_rng(0)
    arrays = [draws.standard_normal(shape).astype("float32") for shape in ((4, 3, 5, 5), (3, 3, 3, 3), (3,))]

    def penalty(library, grad, x, w, b):
        y = getattr(library, function)(x, w, b, stride=2, padding=1)
        return sum((each * each).sum() for each in grad((y * y).sum(), (x, w, b)))

    ours = [ndl.Tensor(each, device=SHIM, requires_grad=True) for each in arrays]
    penalty(nn.functional, partial(ndl.grad, create_graph=True), *ours).backward()
    theirs = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in arrays]
    penalty(torch.nn.functional, partial(torch.autograd.grad, create_graph=True), *theirs).backward()
    for mine, other in zip(ours, theirs, strict=True):
        close(mine.grad.cached_data, other.grad.numpy(), 1e-4)


# ---- faults that these tests find ------------------------------------------------------------------------------------

ONE_BY_ONE, BY_FOUR, STRIDED, DEPTHWISE = (
    partial(test_the_passes_are_like_torch, name) for name in ("one image", "2-d", "stride 2", "depthwise")
)
IN_PARTS = partial(test_large_layers_in_parts, "16 rows")
BARRIER = "if (more) store(stage ^ 1);\n      __syncthreads();"
LAST_TERM = "bool valid = k + 4 * quad + t < end;"
FAULTS = [
    Fault("conv.cu", "no barrier between tiles", BARRIER, "if (more) store(stage ^ 1);", BY_FOUR),
    Fault("conv.cu", "channels past the last", "column.valid && b_at.first < channels", "column.valid", STRIDED),
    Fault("conv.cu", "rows past the last are written", "if (row0 + row >= rows) return;", "", BY_FOUR),
    Fault("conv.cu", "padding behind is read", "(unsigned)s[i] < (uns", "(unsigned)s[i] <= (uns", BY_FOUR),
    Fault("conv.cu", "the mask is forgotten", "value = masked(value, mask[offset(s)])", "value += 0", ONE_BY_ONE),
    Fault("conv.cu", "taps of other phases", "a.first + start, step};", "a.first + start, 1};", STRIDED),
    Fault(
        "conv.cu", "matrix rows exchanged", "turned<64>(k, low)", "turned<64>(k, high)",
        partial(test_the_matrix_units_round_to_ten_bits, "many rows"),
    ),
    Fault("conv_weight.cu", "terms past the last are read", LAST_TERM, "bool valid = true;", ONE_BY_ONE),
    Fault("conv.cu", "the last part is left out", "part < parts.count", "part + 1 < parts.count", IN_PARTS),
    Fault("conv_weight.cu", "two blocks write a bias", "!= OF_Y || column0) return;", "!= OF_Y) return;", IN_PARTS),
    Fault("conv_direct.cu", "threads past the end", "if (!column.valid) return;", "", DEPTHWISE),
]  # fmt: skip
