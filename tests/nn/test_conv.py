"""Convolution layers: against torch with the same parameters; draws, printing, and errors."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import nn
from needle.kernels.conv import dispatch
from tests.nn.functional.alike import raises
from tests.ops.derivatives import assert_like_torch

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other

CONVS = ("Conv1d", "Conv2d", "Conv3d")
TRANSPOSES = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
MODES = ("zeros", "reflect", "replicate", "circular")


def rank_of(name):
    return int(name[-2])


def pair(name, *arguments, device=None, **options):
    """needle's layer and torch's, both in float64 and with needle's parameters."""
    layer = getattr(nn, name)(*arguments, device=device, dtype="float64", **options)
    twin = getattr(torch.nn, name)(*arguments, dtype=torch.float64, **options)
    twin.load_state_dict({key: torch.tensor(value.numpy()) for key, value in layer.state_dict().items()})
    return layer, twin


def assert_as_in_torch(layer, twin, x, device):
    """Result, first and second derivatives by x and all parameters."""
    names = [name for name, _ in layer.named_parameters()]
    assert names == [name for name, _ in twin.named_parameters()]

    def function(x, *parameters):
        for name, value in zip(names, parameters, strict=True):
            setattr(layer, name, value)
        return layer(x)

    def torch_function(x, *parameters):
        return torch.func.functional_call(twin, dict(zip(names, parameters, strict=True)), x)

    parameters = [parameter.numpy() for parameter in layer.parameters()]
    assert_like_torch(function, torch_function, [x, *parameters], device)


# ---- convolution -----------------------------------------------------------------------------------------------------

OPTIONS = {
    "default": {},
    "padding": {"padding": 1},
    "stride": {"stride": 2, "padding": 2},
    "dilation": {"padding": 2, "dilation": 2},
    "groups": {"padding": 1, "groups": 2},
    "everything": {"stride": 3, "padding": 3, "dilation": 2, "groups": 2, "bias": False},
    "valid": {"padding": "valid", "stride": 2},
    "same": {"padding": "same", "dilation": 2},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, key) for name in CONVS for key in OPTIONS if name == "Conv2d" or key in ("everything", "same")],
)
def test_each_padding_mode_agrees_with_torch(device, name, mode, options):
    """Conv2d in all windows, the other ranks in two. tests/test_conv_conformance.py has more, padded with zeros."""
    layer, twin = pair(name, 4, 6, 3, padding_mode=mode, device=device, **OPTIONS[options])
    assert_as_in_torch(layer, twin, np.random.randn(2, 4, *(7, 6, 5)[-rank_of(name) :]), device)


# layer, shape of x, arguments, options
BY_AXIS = {
    "1d with options": ("Conv1d", (2, 4, 11), (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "2d with options": (
        *("Conv2d", (2, 4, 9, 8), (4, 6, (3, 2))),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "bias": False},
    ),
    "2d by position": ("Conv2d", (2, 4, 9, 8), (4, 6, 3, 2, 1, 2, 2, False), {}),
    "3d with options": (
        *("Conv3d", (1, 2, 5, 5, 6), (2, 4, (2, 3, 1))),
        {"stride": (1, 2, 3), "padding": 1, "groups": 2},
    ),
}


@pytest.mark.parametrize(("name", "shape", "sizes", "options"), BY_AXIS.values(), ids=BY_AXIS.keys())
def test_options_by_axis_and_by_position(name, shape, sizes, options, device):
    layer, twin = pair(name, *sizes, **options, device=device)
    assert_as_in_torch(layer, twin, np.random.randn(*shape), device)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", ["same", (0, 3)])
def test_padding_by_axes_and_odd_padding(device, mode, padding):
    """Each axis has its own padding; if the total of "same" is odd, the extra element goes after."""
    layer, twin = pair("Conv2d", 2, 3, (4, 2), padding=padding, padding_mode=mode, device=device)
    assert_as_in_torch(layer, twin, np.random.randn(2, 2, 5, 6), device)


@pytest.mark.parametrize("mode", MODES)
def test_padding_by_sides(device, mode):
    """Unlike torch, different padding before and after: equal to padding by hand and then convolving."""
    layer = nn.Conv2d(2, 3, 3, padding=((2, 0), (1, 3)), padding_mode=mode, device=device, dtype="float64")
    x = np.random.randn(2, 2, 5, 6)
    padded = np.pad(
        x,
        ((0, 0), (0, 0), (2, 0), (1, 3)),
        {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(mode, mode),
    )
    expected = ndl.conv2d(ndl.Tensor(padded, device=device), layer.weight, layer.bias)
    assert_allclose(layer(ndl.Tensor(x, device=device)).numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONVS)
def test_conv_without_a_batch_axis(device, name, mode):
    layer, twin = pair(name, 2, 3, 3, padding=1, padding_mode=mode, device=device)
    assert_as_in_torch(layer, twin, np.random.randn(2, *(5, 4, 3)[-rank_of(name) :]), device)


# ---- transposed convolution ------------------------------------------------------------------------------------------

TRANSPOSED_OPTIONS = {
    "default": {},
    "padding": {"padding": 1},
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "dilation": {"padding": 2, "dilation": 3, "output_padding": 2},
    "groups": {"groups": 2},
    "everything": {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2, "bias": False, "dilation": 2},
}


@pytest.mark.parametrize("options", TRANSPOSED_OPTIONS)
@pytest.mark.parametrize("name", TRANSPOSES)
def test_the_transpose_equals_torch(device, name, options):
    layer, twin = pair(name, 4, 6, 3, device=device, **TRANSPOSED_OPTIONS[options])
    assert_as_in_torch(layer, twin, np.random.randn(2, 4, *(4, 3, 2)[-rank_of(name) :]), device)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["unbatched", "batch"])
@pytest.mark.parametrize("name", TRANSPOSES)
def test_every_output_size_equals_torch(device, name, batch):
    """Sizes in the range, as sizes or as a full shape with any leading axes; both libraries refuse others."""
    rank = rank_of(name)
    options = {"stride": (3, 2, 1)[-rank:], "padding": (0, 1, 2)[-rank:], "dilation": (1, 2, 3)[-rank:]}
    layer, twin = pair(name, 2, 3, 3, device=device, **options)
    x = np.random.randn(*batch, 2, *(2, 3, 4)[-rank:])
    shape = twin(torch.tensor(x)).shape
    leads = {
        "sizes": (),
        "shape": tuple(shape[: len(batch) + 1]),
        "a shape whose leading axes are ignored": (7,) * (len(batch) + 1),
    }
    for more in itertools.product(range(-1, 4), repeat=rank):
        size = tuple(n + m for n, m in zip(shape[-rank:], more, strict=True))
        for lead in leads.values():
            try:
                expected = twin(torch.tensor(x), output_size=[*lead, *size]).detach().numpy()
            except ValueError:
                with pytest.raises(ValueError, match="output_size must lie between"):
                    layer(ndl.Tensor(x, device=device), output_size=(*lead, *size))
            else:
                assert expected.shape[-rank:] == size
                y = layer(ndl.Tensor(x, device=device), output_size=(*lead, *size))
                assert_allclose(y.numpy(), expected, rtol=1e-11, atol=1e-12)


def test_output_size_takes_other_forms(device):
    """A list, another tensor's shape, one number for all axes; it overrides the layer's own output padding."""
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1, device=device)
    x = ndl.ones(1, 2, 4, 4, device=device)
    assert layer(x).shape == (1, 3, 10, 10)
    for size in ([9, 10], torch.Size((9, 10)), (5, 5, 9, 10), ndl.ones(1, 1, 9, 10).shape):
        assert layer(x, output_size=size).shape == (1, 3, 9, 10)
        assert layer(x, size).shape == (1, 3, 9, 10)
    assert layer(x, output_size=9).shape == (1, 3, 9, 9)


def test_the_transpose_undoes_the_shape_of_a_convolution(device):
    """For every remainder of the stride: `output_size` restores the shape."""
    down = nn.Conv2d(2, 4, 3, stride=3, padding=1, device=device)
    up = nn.ConvTranspose2d(4, 2, 3, stride=3, padding=1, device=device)
    for size in itertools.product(range(7, 11), repeat=2):
        x = ndl.ones(2, 2, *size, device=device)
        assert up(down(x), output_size=x.shape).shape == x.shape


# ---- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"dilation": 2, "padding": 1, "stride": 2}, {"padding": (0, 1), "stride": (2, 1)}]
)
@pytest.mark.parametrize("kernel", [2, (3, 2), (1, 1)])
def test_unfold_and_fold_equal_torch(device, kernel, options):
    x = np.random.randn(2, 3, 6, 5)
    unfold, twin = nn.Unfold(kernel, **options), torch.nn.Unfold(kernel, **options)
    assert unfold.parameters() == []
    assert_like_torch(unfold, twin, [x], device)
    columns = np.random.randn(*twin(torch.tensor(x)).shape)
    fold, twin = nn.Fold((6, 5), kernel, **options), torch.nn.Fold((6, 5), kernel, **options)
    assert fold.parameters() == []
    assert_like_torch(fold, twin, [columns], device)


def test_unfold_and_fold_of_other_ranks(device):
    x = ndl.Tensor(np.arange(12.0).reshape(1, 2, 6), device=device)
    columns = nn.Unfold((2,), stride=2)(x)
    assert columns.shape == (1, 4, 3)
    assert_array_equal(nn.Fold((6,), (2,), stride=2)(columns).numpy(), x.numpy())
    assert nn.Unfold((1, 2, 3))(ndl.ones(2, 1, 2, 3, 4)).shape == (2, 6, 8)


# ---- initialization --------------------------------------------------------------------------------------------------


def shape_and_bound(name, options):
    """The shape of the weight, (O, C/G, *K), or (C, O/G, *K) of a transpose, and 1 / sqrt(second size · K)."""
    twin = getattr(torch.nn, name)(6, 8, (2, 3, 4)[-rank_of(name) :], **options)
    shape = tuple(twin.weight.shape)
    return shape, 1 / math.sqrt(math.prod(shape[1:]))


@pytest.mark.parametrize("options", [{}, {"groups": 2}])
@pytest.mark.parametrize("name", [*CONVS, *TRANSPOSES])
def test_parameters_are_drawn_in_order_within_the_bound(device, name, options):
    """First the weight and then the bias, each by one `np.random.rand` of its shape, within the bound."""
    shape, bound = shape_and_bound(name, options)
    layer = getattr(nn, name)(6, 8, (2, 3, 4)[-rank_of(name) :], device=device, **options)
    after = np.random.rand()
    np.random.seed(0)  # where every test starts
    weight, bias = np.random.rand(*shape), np.random.rand(8)
    assert after == np.random.rand(), "nothing else is drawn"
    for parameter, draws in ((layer.weight, weight), (layer.bias, bias)):
        assert isinstance(parameter, nn.Parameter)
        assert parameter.dtype == "float32"
        assert parameter.requires_grad
        assert_allclose(parameter.numpy(), (2 * draws - 1) * bound, rtol=0, atol=1e-6 * bound)
    assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("name", [*CONVS, *TRANSPOSES])
def test_the_bound_equals_torch(device, name):
    """In both libraries many draws reach close to the bound, and none exceeds it."""
    kernel = (3, 3, 3)[-rank_of(name) :]
    layer = getattr(nn, name)(8, 64, kernel, device=device)
    twin = getattr(torch.nn, name)(8, 64, kernel)
    _, bound = tuple(twin.weight.shape), 1 / math.sqrt(math.prod(twin.weight.shape[1:]))
    for parameters in (layer, twin):
        for values in (parameters.weight, parameters.bias):
            values = values.detach().numpy()
            assert 0.9 * bound < abs(values).max() <= bound
            assert abs(values.mean()) < bound / 3


def test_draws_fill_their_bounds_evenly(device):
    weight = nn.Conv2d(16, 64, 3, device=device).weight.numpy()
    bound = 1 / math.sqrt(16 * 9)
    assert np.abs(weight).max() <= bound * (1 + 1e-6)
    assert weight.max() > 0.99 * bound
    assert weight.min() < -0.99 * bound
    assert abs(weight.mean()) < 0.02 * bound


@pytest.mark.parametrize("name", [*CONVS, *TRANSPOSES])
def test_without_a_bias(device, name):
    layer = getattr(nn, name)(6, 8, 3, bias=False, device=device)
    after = np.random.rand()
    np.random.seed(0)
    np.random.rand(*layer.weight.shape)
    assert after == np.random.rand(), "no bias is drawn"
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert len(layer.parameters()) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*CONVS, *TRANSPOSES])
def test_parameters_results_and_gradients_have_the_dtype(device, name, dtype):
    layer = getattr(nn, name)(2, 4, 3, padding=1, device=device, dtype=dtype)
    assert [p.dtype for p in layer.parameters()] == [dtype, dtype]
    assert [p.device for p in layer.parameters()] == [device, device]
    x = ndl.ones(1, 2, *(4,) * rank_of(name), device=device, dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    y.sum().backward()
    assert [p.grad.dtype for p in layer.parameters()] == [dtype, dtype]


def test_no_gradient_is_computed_for_the_input_of_the_first_layer(device, monkeypatch):
    options = {"device": device, "dtype": "float64"}  # of which GPUs have no kernels that fuse
    layer = nn.Sequential(nn.Conv2d(1, 2, 3, **options), nn.ConvTranspose2d(2, 1, 3, **options))
    ran = []
    for name in ("correlate", "correlate_transpose"):
        kernel = getattr(ndl.kernels, name)
        for module in (ndl.kernels, dispatch):
            monkeypatch.setattr(module, name, lambda *arguments, n=name, k=kernel: ran.append(n) or k(*arguments))
    layer(ndl.ones(2, 1, 5, 5, **options)).sum().backward(create_graph=False)
    assert ran == ["correlate", "correlate_transpose", "correlate"]


# ---- printing --------------------------------------------------------------------------------------------------------

VALUES = {
    "kernel_size": [3, (2, 3)],
    "stride": [1, (2, 1)],
    "padding": [0, 2, (0, 1)],
    "dilation": [1, 2],
    "groups": [1, 2],
    "bias": [True, False],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 1, (1, 0), "same", "valid"])
def test_conv2d_prints_as_in_torch(mode, padding):
    values = VALUES | {"padding": [padding]} | ({"stride": [1]} if padding == "same" else {})
    for options in itertools.product(*values.values()):
        options = dict(zip(values, options, strict=True)) | {"padding_mode": mode}
        assert repr(nn.Conv2d(2, 4, **options)) == repr(torch.nn.Conv2d(2, 4, **options))


@pytest.mark.parametrize("output_padding", [0, 1, (1, 0)])
def test_conv_transpose2d_prints_as_in_torch(output_padding):
    for options in itertools.product(*VALUES.values()):
        options = dict(zip(VALUES, options, strict=True)) | {"output_padding": output_padding}
        assert repr(nn.ConvTranspose2d(2, 4, **options)) == repr(torch.nn.ConvTranspose2d(2, 4, **options))


@pytest.mark.parametrize("name", [*CONVS, *TRANSPOSES])
def test_other_ranks_print_as_in_torch(name):
    rank = rank_of(name)
    for options in (
        {"kernel_size": 3},
        {"kernel_size": (5, 3, 1)[:rank], "stride": 2, "padding": (1, 0, 2)[:rank], "bias": False},
        {"kernel_size": 3, "padding": 1, "dilation": 2, "groups": 2},
    ):
        assert repr(getattr(nn, name)(4, 6, **options)) == repr(getattr(torch.nn, name)(4, 6, **options))


@pytest.mark.parametrize("arguments", [(3,), ((3, 2), 2), ((3, 2), 1, (1, 2), 3), (2, (1, 2), 0, (2, 3))])
def test_columns_print_as_in_torch(arguments):
    assert repr(nn.Unfold(*arguments)) == repr(torch.nn.Unfold(*arguments))
    for size in (7, (6, 5)):
        assert repr(nn.Fold(size, *arguments)) == repr(torch.nn.Fold(size, *arguments))


def test_options_that_do_not_fit_print_as_they_are():
    layer = nn.Conv2d(3, 4, 3)
    layer.padding, layer.stride, layer.dilation = "same", 2, [1, "a"]
    assert repr(layer) == "Conv2d(3, 4, kernel_size=(3, 3), stride=2, padding=same, dilation=[1, 'a'])"


def test_padding_by_sides_prints_its_pairs():
    assert repr(nn.Conv2d(1, 2, 3, padding=((1, 0), (0, 2)))) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=((1, 0), (0, 2)))"
    )


# ---- errors ----------------------------------------------------------------------------------------------------------

T4 = (1, 2, 4, 4)  # an input of the layers below
# layer, arguments, options, arguments of the call (None: construction fails), error
MISUSES = {
    "no in-channels": ("Conv2d", (0, 2, 3), {}, None, "Conv2d: in_channels must be at least 1, but got 0"),
    "no out-channels": ("Conv1d", (2, 0, 3), {}, None, "Conv1d: out_channels must be at least 1, but got 0"),
    "half a channel": ("Conv2d", (1.5, 2, 3), {}, None, "Conv2d: in_channels must be an integer, but got 1.5"),
    "an empty kernel": ("Conv3d", (2, 2, 0), {}, None, "Conv3d: kernel_size must be at least 1, but got 0"),
    "a kernel of too many axes": (
        *("Conv2d", (2, 2, (3, 3, 3)), {}, None),
        "Conv2d: kernel_size must be one integer or 2, but got 3: (3, 3, 3)",
    ),
    "no stride": ("Conv2d", (2, 2, 3), {"stride": 0}, None, "Conv2d: stride must be at least 1, but got 0"),
    "negative padding": ("Conv2d", (2, 2, 3), {"padding": -1}, None, "Conv2d: padding must be at least 0, but got -1"),
    "no dilation": ("Conv2d", (2, 2, 3), {"dilation": 0}, None, "Conv2d: dilation must be at least 1, but got 0"),
    "no groups": ("Conv2d", (2, 2, 3), {"groups": 0}, None, "Conv2d: groups must be at least 1, but got 0"),
    "groups that do not divide in-channels": (
        *("Conv2d", (3, 2, 3), {"groups": 2}, None),
        "Conv2d: groups must divide in_channels and out_channels, but got groups=2 for 3 and 2",
    ),
    "groups that do not divide out-channels": (
        *("ConvTranspose2d", (2, 3, 3), {"groups": 2}, None),
        "ConvTranspose2d: groups must divide in_channels and out_channels, but got groups=2 for 2 and 3",
    ),
    "another padding by name": (
        *("Conv2d", (2, 2, 3), {"padding": "full"}, None),
        "Conv2d: padding must be one of 'valid', 'same', but got 'full'",
    ),
    "same padding with a stride": (
        *("Conv2d", (2, 2, 3), {"padding": "same", "stride": 2}, None),
        (
            'Conv2d: padding="same" needs stride 1, but got stride=2; functional.same_padding computes the padding for '
            "ceil(size / stride) outputs"
        ),
    ),
    "padding by name of a transpose": (
        *("ConvTranspose2d", (2, 2, 3), {"padding": "same"}, None),
        "ConvTranspose2d: padding must be an integer, but got 'same'",
    ),
    "another padding mode": (
        *("Conv2d", (2, 2, 3), {"padding_mode": "mirror"}, None),
        "Conv2d: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', but got 'mirror'",
    ),
    "negative output padding": (
        *("ConvTranspose2d", (2, 2, 3), {"output_padding": -1}, None),
        "ConvTranspose2d: output_padding must be at least 0, but got -1",
    ),
    "output padding beyond the stride": (
        *("ConvTranspose2d", (2, 2, 3), {"output_padding": 1}, {"x": T4}),
        (
            "conv_transpose2d: output_padding must be less than the larger of stride and dilation, but got (1, 1) for "
            "stride (1, 1) and dilation (1, 1)"
        ),
    ),
    "other channels": (
        *("Conv2d", (3, 2, 3), {}, {"x": T4}),
        "conv2d: weight (2, 3, 3, 3) reads 3 channels per group x groups=1, but x (1, 2, 4, 4) has 2 channels",
    ),
    "an output size below the range": (
        *("ConvTranspose2d", (2, 2, 3), {"stride": 2}, {"x": T4, "output_size": (8, 9)}),
        "ConvTranspose2d: output_size must lie between (9, 9) and (10, 10), but got (8, 9)",
    ),
    "an output size beyond the range": (
        *("ConvTranspose2d", (2, 2, 3), {"stride": 2, "dilation": 3}, {"x": T4, "output_size": (13, 15)}),
        "ConvTranspose2d: output_size must lie between (13, 13) and (14, 14), but got (13, 15)",
    ),
    "an output size of one axis": (
        *("ConvTranspose2d", (2, 2, 3), {}, {"x": T4, "output_size": (6,)}),
        "ConvTranspose2d: output_size must be one integer or 2, but got 1: (6,)",
    ),
    "an output size without the batch": (
        *("ConvTranspose2d", (2, 2, 3), {}, {"x": T4, "output_size": (2, 6, 6)}),
        "ConvTranspose2d: output_size must be one integer or 2, but got 3: (2, 6, 6)",
    ),
    "an output size of fractions": (
        *("ConvTranspose2d", (2, 2, 3), {}, {"x": T4, "output_size": (6.0, 6.0)}),
        "ConvTranspose2d: output_size must be an integer, but got 6.0",
    ),
    "an input of too few axes with an output size": (
        *("ConvTranspose2d", (2, 2, 3), {}, {"x": (4, 4), "output_size": (6, 6)}),
        "ConvTranspose2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), but got shape (4, 4)",
    ),
    "an unfolding kernel that is empty": (
        *("Unfold", (0,), {}, None),
        "Unfold: kernel_size must be at least 1, but got 0",
    ),
    "another number of columns": (
        *("Fold", ((4, 4), 2), {}, {"x": (1, 8, 8)}),
        "fold: x must be (N, C·4, 3 x 3) for output_size (4, 4), but got (1, 8, 8)",
    ),
}

# torch's layers accept these at construction; most fail when called.
ACCEPTED_BY_TORCH = {
    "no in-channels",
    "no out-channels",
    "an empty kernel",
    "a kernel of too many axes",
    "an unfolding kernel that is empty",
    "no stride",
    "negative padding",
    "no dilation",
    "negative output padding",
    "padding by name of a transpose",
}


def build(library, misuse):
    """Construct the layer of a misuse from needle's or torch's `nn`, and call it if construction succeeds."""
    name, arguments, options, call, _ = MISUSES[misuse]
    layer = getattr(library, name)(*arguments, **options)
    assert call is not None, "construction succeeds"
    ones = torch.ones if library is torch.nn else ndl.ones
    return layer(ones(*call["x"]), **{name: value for name, value in call.items() if name != "x"})


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse(misuse):
    message = MISUSES[misuse][-1]
    kind = TypeError if "integer, but" in message else ValueError
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        build(nn, misuse)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("misuse", MISUSES)
def test_torch_refuses_it_too(misuse):
    if misuse in ACCEPTED_BY_TORCH:
        with pytest.raises(AssertionError, match="construction succeeds"):
            build(torch.nn, misuse)
    else:
        with pytest.raises((ValueError, TypeError, RuntimeError, IndexError)):
            build(torch.nn, misuse)


@pytest.mark.parametrize("misuse", [misuse for misuse, row in MISUSES.items() if row[3] is None])
def test_a_refused_layer_draws_nothing(misuse):
    with pytest.raises((ValueError, TypeError)):
        build(nn, misuse)
    after = np.random.rand()
    np.random.seed(0)
    assert after == np.random.rand()


ERRORS = [
    (lambda: nn.Conv2d(1, 1, 0), ValueError, "Conv2d: kernel_size must be at least 1, but got 0"),
    (
        lambda: nn.Conv3d(1, 1, (1, 2)),
        ValueError,
        "Conv3d: kernel_size must be one integer or 3, but got 2: (1, 2)",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, padding="sane"),
        ValueError,
        "Conv2d: padding must be one of 'valid', 'same', but got 'sane'",
    ),
    (
        lambda: nn.Conv2d(4, 6, 3, groups=3),
        ValueError,
        "Conv2d: groups must divide in_channels and out_channels, but got groups=3 for 4 and 6",
    ),
    (
        lambda: nn.Conv2d(6, 4, 3, groups=3),
        ValueError,
        "Conv2d: groups must divide in_channels and out_channels, but got groups=3 for 6 and 4",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3)(ndl.zeros(5, 5)),
        ValueError,
        "conv2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), but got shape (5, 5)",
    ),
    (lambda: nn.Conv(0, 3, 1), ValueError, "Conv: in_channels must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 0, 1), ValueError, "Conv: out_channels must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 1, (0, 3)), ValueError, "Conv: kernel_size must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 1, ()), TypeError, "Conv: kernel_size must be an integer, but got ()"),
    (lambda: nn.Conv(1, 1, 3, 1.5), TypeError, "Conv: stride must be an integer, but got 1.5"),
    (
        lambda: nn.Conv(1, 1, 3)(ndl.zeros(5, 5)),
        ValueError,
        "conv2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), but got shape (5, 5)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
