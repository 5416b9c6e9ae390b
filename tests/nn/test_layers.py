"""Layers: their draws, their values and derivatives against torch, their errors, and their dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn, optim

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other


def normal(*shape, dtype="float64"):
    return np.asarray(np.random.standard_normal(shape), dtype)


def tensor(array, device, requires_grad=True):
    return ndl.Tensor(array, device=device, requires_grad=requires_grad)


def same_layout(name, array):
    return array


def linear_layout(name, array):
    """An array of needle's Linear as torch's has it."""
    return array.T if name == "weight" else array.reshape(-1)


def with_random_parameters(layer):
    """The layer, its parameters far from special values such as one and zero."""
    layer.load_state_dict({name: normal(*p.shape) for name, p in layer.named_parameters()}, strict=False)
    return layer


def copy_parameters(layer, twin, layout=same_layout):
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            value = dict(layer.named_parameters())[name].numpy()
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(layout(name, value))))


def assert_as_in_torch(layer, twin, x, device, layout=same_layout):
    """Values, first and second derivatives by x and all parameters, in float64.

    The result is projected on weights that are leaves themselves, and so are the first derivatives; thus a layer that
    is linear in x has second derivatives too.
    """
    copy_parameters(layer, twin, layout)
    x, torch_x = tensor(x, device), torch.from_numpy(x).requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True) if layer.parameters() else ((), ())
    torch_parameters = [dict(twin.named_parameters())[name] for name in names]
    assert len(torch_parameters) == len(list(twin.parameters()))

    y, torch_y = layer(x), twin(torch_x)
    np.testing.assert_allclose(y.numpy(), torch_y.detach().numpy(), rtol=1e-11, atol=1e-12, strict=True)

    weights = normal(*y.shape)
    leaves = [x, tensor(weights, device), *parameters]
    torch_leaves = [torch_x, torch.from_numpy(weights).requires_grad_(), *torch_parameters]
    names = ["x", "weights of the result", *names]
    (y * leaves[1]).sum().backward()
    first = [leaf.grad for leaf in leaves]
    torch_first = torch.autograd.grad((torch_y * torch_leaves[1]).sum(), torch_leaves, create_graph=True)
    for name, grad, torch_grad in zip(names, first, torch_first, strict=True):
        expected = layout(name, grad.numpy()) if name in dict(layer.named_parameters()) else grad.numpy()
        np.testing.assert_allclose(expected, torch_grad.detach().numpy(), rtol=1e-10, atol=1e-11, err_msg=name)

    for leaf in leaves:
        leaf.grad = None
    directions = [normal(*leaf.shape) for leaf in leaves]
    layouts = [layout if i > 1 else same_layout for i in range(len(leaves))]
    terms = [(g * tensor(u, device, requires_grad=False)).sum() for g, u in zip(first, directions, strict=True)]
    sum(terms[1:], terms[0]).backward()
    torch_directions = [
        torch.from_numpy(np.ascontiguousarray(layout(name, u)))
        for name, layout, u in zip(names, layouts, directions, strict=True)
    ]
    torch_sum = sum((g * u).sum() for g, u in zip(torch_first, torch_directions, strict=True))
    torch_second = torch.autograd.grad(torch_sum, torch_leaves, allow_unused=True)
    for name, layout, leaf, torch_grad in zip(names, layouts, leaves, torch_second, strict=True):
        grad = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
        expected = np.zeros(()) if torch_grad is None else torch_grad.numpy()
        np.testing.assert_allclose(layout(name, grad), expected, rtol=1e-9, atol=1e-10, err_msg=f"second, {name}")


def assert_draws(make, arrays):
    """`make()` gives parameters with the values of `arrays()`, and moves the random stream as that does."""
    np.random.seed(5)
    expected, next_draw = arrays(), np.random.rand()
    np.random.seed(5)
    layer = make()
    assert np.random.rand() == next_draw
    named = {name: parameter.numpy() for name, parameter in layer.named_parameters()}
    assert list(named) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(named[name], value.astype(np.float32), rtol=1e-6, atol=1e-7, strict=True)


def uniform(bound, *shape):
    return np.random.rand(*shape) * 2 * bound - bound


# ---- Linear ----------------------------------------------------------------------------------------------------------


def test_linear_draws_the_weight_by_fan_in_and_then_the_bias_by_fan_out(device):
    def arrays():
        weight = uniform(math.sqrt(2) * math.sqrt(3 / 5), 5, 3)
        return {"weight": weight, "bias": uniform(math.sqrt(2) * math.sqrt(3 / 3), 3, 1).reshape(1, 3)}

    assert_draws(lambda: nn.Linear(5, 3, device=device), arrays)


def test_linear_without_bias_draws_the_weight_only(device):
    assert_draws(lambda: nn.Linear(6, 2, bias=False, device=device), lambda: {"weight": uniform(1.0, 6, 2)})


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (2, 3, 4, 5), (1, 5), (5,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias, device):
    layer = nn.Linear(5, 3, bias=bias, device=device, dtype="float64")
    twin = torch.nn.Linear(5, 3, bias=bias, dtype=torch.float64)
    assert_as_in_torch(layer, twin, normal(*shape), device, linear_layout)


def test_linear_of_an_empty_batch(device):
    assert nn.Linear(5, 3, device=device)(ndl.zeros(0, 5, device=device)).shape == (0, 3)


def test_linear_takes_a_bias_of_one_axis(device):
    layer = nn.Linear(2, 3, device=device)
    layer.bias = tensor(np.array([1, 2, 3], np.float32), device)
    y = layer(ndl.zeros(4, 2, device=device))
    assert y.numpy().tolist() == [[1, 2, 3]] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_are_made_in_a_dtype_and_on_a_device(dtype, device):
    options = {"device": device, "dtype": dtype}
    for layer in (nn.Linear(2, 3, **options), nn.Conv2d(2, 3, 1, **options), nn.BatchNorm1d(2, **options)):
        for parameter in [*layer.parameters(), *layer.buffers()]:
            assert parameter.dtype == dtype
            assert parameter.device == device


# ---- convolution -----------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "1d": (nn.Conv1d, torch.nn.Conv1d, (2, 3, 9), (3, 4, 3), {}),
    "1d with options": (nn.Conv1d, torch.nn.Conv1d, (2, 4, 11), (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}),
    "2d": (nn.Conv2d, torch.nn.Conv2d, (2, 3, 6, 5), (3, 4, 3), {"padding": 1}),
    "2d with options": (
        nn.Conv2d,
        torch.nn.Conv2d,
        (2, 4, 9, 8),
        (4, 6, (3, 2)),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "bias": False},
    ),
    "2d by position": (nn.Conv2d, torch.nn.Conv2d, (2, 4, 9, 8), (4, 6, 3, 2, 1, 2, 2, False), {}),
    "3d": (nn.Conv3d, torch.nn.Conv3d, (2, 2, 4, 5, 4), (2, 3, 2), {}),
    "3d with options": (
        nn.Conv3d,
        torch.nn.Conv3d,
        (1, 2, 5, 5, 6),
        (2, 4, (2, 3, 1)),
        {"stride": (1, 2, 3), "padding": 1, "groups": 2},
    ),
}


@pytest.mark.parametrize(
    ("kind", "torch_kind", "shape", "sizes", "options"), CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys()
)
def test_convolution(kind, torch_kind, shape, sizes, options, device):
    layer = kind(*sizes, **options, device=device, dtype="float64")
    assert_as_in_torch(layer, torch_kind(*sizes, **options, dtype=torch.float64), normal(*shape), device)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.Conv1d, (6, 2, 3)), (nn.Conv2d, (6, 2, 3, 3)), (nn.Conv3d, (6, 2, 3, 3, 3))],
    ids=["1d", "2d", "3d"],
)
def test_convolution_draws_the_weight_and_then_the_bias_within_one_by_root_fan_in(kind, shape, device):
    bound = 1 / math.sqrt(math.prod(shape[1:]))

    def arrays():
        return {"weight": uniform(bound, *shape), "bias": uniform(bound, 6)}

    assert_draws(lambda: kind(4, 6, 3, groups=2, device=device), arrays)


def test_convolution_fills_the_bounds_of_its_initialisation(device):
    weight = nn.Conv2d(16, 64, 3, device=device).weight.numpy()
    bound = 1 / math.sqrt(16 * 9)
    assert np.abs(weight).max() <= bound * (1 + 1e-6)
    assert weight.max() > 0.99 * bound
    assert weight.min() < -0.99 * bound
    assert abs(weight.mean()) < 0.02 * bound


def test_convolution_without_bias_has_none(device):
    layer = nn.Conv2d(1, 2, 3, bias=False, device=device)
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


# ---- without parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda nn: nn.Flatten(), (2, 3, 4, 5)),
        (lambda nn: nn.Flatten(), (3, 4)),
        (lambda nn: nn.ReLU(), (3, 4)),
        (lambda nn: nn.Identity(), (3, 4)),
        (lambda nn: nn.MaxPool2d(2), (2, 3, 4, 6)),
        (lambda nn: nn.MaxPool2d(2), (2, 3, 5, 7)),
        (lambda nn: nn.MaxPool2d((3, 2), (1, 2), 1), (2, 2, 6, 5)),
        (lambda nn: nn.MaxPool2d(3, stride=2, padding=1), (1, 2, 7, 7)),
        (lambda nn: nn.AvgPool2d(2), (2, 3, 5, 6)),
        (lambda nn: nn.AvgPool2d((3, 2), (1, 2), 1), (2, 2, 6, 5)),
        (lambda nn: nn.AvgPool2d(3, stride=2, padding=1), (1, 2, 7, 7)),
    ],
)
def test_layers_without_parameters(make, shape, device):
    layer = make(nn)
    assert_as_in_torch(layer, make(torch.nn), normal(*shape), device)
    assert layer.parameters() == layer.buffers() == []


def test_flatten_of_vectors_and_of_an_empty_batch(device):
    assert nn.Flatten()(ndl.zeros(3, device=device)).shape == (3, 1)
    assert nn.Flatten()(ndl.zeros(0, 2, 3, device=device)).shape == (0, 6)


def test_identity_is_its_input(device):
    x = ndl.ones(2, device=device)
    assert nn.Identity()(x) is x


# ---- batch norm ------------------------------------------------------------------------------------------------------

BATCH_NORMS = {
    "N,C": (nn.BatchNorm1d, torch.nn.BatchNorm1d, (6, 3)),
    "N,C,L": (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4, 3, 5)),
    "N,C,H,W": (nn.BatchNorm2d, torch.nn.BatchNorm2d, (4, 3, 5, 2)),
}
batch_norms = pytest.mark.parametrize(("kind", "torch_kind", "shape"), BATCH_NORMS.values(), ids=BATCH_NORMS.keys())


def over_batch(x):
    """The mean and the biased variance of each channel."""
    axes = (0, *range(2, x.ndim))
    return x.mean(axes), x.var(axes)


@batch_norms
@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.3}], ids=["default", "options"])
def test_batch_norm_in_training(kind, torch_kind, shape, options, device):
    layer = with_random_parameters(kind(3, **options, device=device, dtype="float64"))
    twin = torch_kind(3, **options, dtype=torch.float64)
    assert_as_in_torch(layer, twin, 3 * normal(*shape) + 5, device)


@batch_norms
def test_batch_norm_tracks_mean_and_biased_variance(kind, torch_kind, shape, device):
    layer = kind(3, momentum=0.3, device=device, dtype="float64")
    twin = torch_kind(3, momentum=0.3, dtype=torch.float64)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = 3 * normal(*shape) + 5
        layer(tensor(x, device))
        twin(torch.from_numpy(x))
        batch_mean, batch_variance = over_batch(x)
        mean, variance = 0.7 * mean + 0.3 * batch_mean, 0.7 * variance + 0.3 * batch_variance
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_mean.numpy(), twin.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-12)
    count = math.prod(shape) / 3  # torch's is unbiased
    unbiased = layer.running_var.numpy() + (layer.running_var.numpy() - 0.7**3) / (count - 1)
    np.testing.assert_allclose(unbiased, twin.running_var.numpy(), rtol=1e-12)


@batch_norms
def test_batch_norm_in_evaluation(kind, torch_kind, shape, device):
    layer = with_random_parameters(kind(3, device=device, dtype="float64"))
    twin = torch_kind(3, dtype=torch.float64).eval()
    mean, variance = normal(3), 0.5 + normal(3) ** 2
    layer.load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)
    twin.load_state_dict(
        {"running_mean": torch.from_numpy(mean), "running_var": torch.from_numpy(variance)}, strict=False
    )
    assert_as_in_torch(layer.eval(), twin, normal(*shape), device)
    np.testing.assert_array_equal(layer.running_mean.numpy(), mean)
    np.testing.assert_array_equal(layer.running_var.numpy(), variance)


@batch_norms
def test_batch_norm_begins_as_in_torch_without_draws(kind, torch_kind, shape, device):
    state = np.random.get_state()
    layer = kind(3, device=device)
    np.testing.assert_equal(np.random.get_state(), state)
    expected = torch_kind(3).state_dict()
    expected.pop("num_batches_tracked")
    assert list(layer.state_dict()) == list(expected)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy(), strict=True)
    assert [name for name, _ in layer.named_buffers()] == ["running_mean", "running_var"]
    assert (layer.eps, layer.momentum) == (1e-5, 0.1)


@batch_norms
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_takes_float64_in_a_float32_layer(kind, torch_kind, shape, training, device):
    layer = kind(3, device=device).train(training)
    x = normal(*shape)
    y = layer(tensor(x, device))
    reference = torch_kind(3, dtype=torch.float64).train(training)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y.numpy(), reference, rtol=1e-5, atol=1e-6)
    (y * y * y).sum().backward()
    assert all(parameter.grad.dtype == np.float32 for parameter in layer.parameters())
    for buffer, batch, start in zip(layer.buffers(), over_batch(x), (0, 1), strict=True):
        assert buffer.dtype == np.float32
        expected = 0.9 * start + 0.1 * batch if training else np.full(3, start)
        np.testing.assert_allclose(buffer.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_batch_norm_keeps_no_graph_and_no_gradient_in_its_buffers(device):
    layer = nn.BatchNorm2d(3, device=device)
    buffers = layer.buffers()
    layer(tensor(normal(4, 3, 5, 2, dtype="float32"), device)).sum().backward()
    assert layer.buffers() == buffers
    for buffer in buffers:
        assert buffer.is_leaf()
        assert not buffer.requires_grad
        assert buffer.grad is None


def test_batch_norm_tracks_under_no_grad_too(device):
    layer = nn.BatchNorm1d(2, momentum=1.0, device=device)
    with ndl.no_grad():
        layer(tensor(np.array([[1, 2], [3, 6]], np.float32), device))
    np.testing.assert_allclose(layer.running_mean.numpy(), [2, 4])
    np.testing.assert_allclose(layer.running_var.numpy(), [1, 4])


def test_batch_norm_is_exact_far_from_zero(device):
    x = normal(64, 2, dtype="float32") * np.float32(0.1) + np.float32(1000)
    y = nn.BatchNorm1d(2, device=device)(tensor(x, device)).numpy()
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=5e-3)


def test_batch_norm_of_a_single_value_is_the_bias(device):
    layer = with_random_parameters(nn.BatchNorm1d(3, device=device))
    y = layer(tensor(normal(1, 3, dtype="float32"), device))
    np.testing.assert_allclose(y.numpy(), layer.bias.numpy()[None], rtol=1e-6)


# ---- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_where_a_draw_is_at_most_1_minus_p_and_scales(p, device):
    x = normal(40, 30, dtype="float32")
    np.random.seed(5)
    keep = np.random.rand(40, 30) <= 1 - p
    next_draw = np.random.rand()
    np.random.seed(5)
    leaf = tensor(x, device)
    y = nn.Dropout(p)(leaf)
    assert np.random.rand() == next_draw
    np.testing.assert_allclose(y.numpy(), np.where(keep, x / np.float32(1 - p), 0), rtol=1e-6, strict=True)
    y.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), keep / np.float32(1 - p), rtol=1e-6)


def test_dropout_keeps_a_draw_that_is_exactly_1_minus_p(monkeypatch, device):
    draws = np.array([0.5, np.nextafter(0.5, 1), 0.0])
    monkeypatch.setattr(np.random, "rand", lambda *shape: draws.reshape(shape))
    assert nn.Dropout(0.5)(ndl.ones(3, device=device)).numpy().tolist() == [2, 0, 2]


def test_dropout_draws_anew_for_each_batch(device):
    layer, x = nn.Dropout(0.5), ndl.ones(100, device=device)
    assert layer(x).numpy().tolist() != layer(x).numpy().tolist()


def test_dropout_in_evaluation_is_the_identity_and_draws_nothing(device):
    layer, x = nn.Dropout(0.9).eval(), ndl.ones(3, device=device)
    state = np.random.get_state()
    assert layer(x) is x
    np.testing.assert_equal(np.random.get_state(), state)


@pytest.mark.parametrize(("p", "scale"), [(0, 1), (1, 0)])
def test_dropout_of_nothing_and_of_everything(p, scale, device):
    x = tensor(normal(5, 4), device)
    y = nn.Dropout(p)(x)
    np.testing.assert_array_equal(y.numpy(), x.numpy() * scale)
    (y * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy() * scale)


# ---- cross entropy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 4), (1, 3), (3, 1), (5, 256)], ids=str)
def test_cross_entropy(dtype, shape, device):
    labels = np.random.randint(0, shape[1], shape[0])
    labels[0] = shape[1] - 1
    target = tensor(labels.astype(dtype), device, requires_grad=False)
    torch_loss = torch.nn.CrossEntropyLoss()

    class Needle(nn.Module):
        def forward(self, x):
            return nn.CrossEntropyLoss()(x, target)

    class Torch(torch.nn.Module):
        def forward(self, x):
            return torch_loss(x, torch.from_numpy(labels))

    assert_as_in_torch(Needle(), Torch(), 2 * normal(*shape), device)


def test_cross_entropy_of_targets_in_a_list(device):
    x = normal(3, 4)
    loss = nn.CrossEntropyLoss()(tensor(x, device), tensor(np.array([3, 0, 1]), device))
    if device == ndl.cpu():
        assert nn.CrossEntropyLoss()(tensor(x, device), [3, 0, 1]).item() == loss.item()
    np.testing.assert_allclose(
        loss.item(), torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.tensor([3, 0, 1]))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [100.0, 1e4, 1e30])
def test_cross_entropy_of_large_logits(dtype, size, device):
    logits = np.array([[size, -size, 0], [-size, -size, -size], [0, size, size]], dtype)
    labels = np.array([0, 1, 2])
    x, torch_x = tensor(logits, device), torch.from_numpy(logits).requires_grad_()
    loss, torch_loss = (
        nn.CrossEntropyLoss()(x, tensor(labels, device)),
        torch.nn.CrossEntropyLoss()(torch_x, torch.from_numpy(labels)),
    )
    loss.backward()
    torch_loss.backward()
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss.item(), torch_loss.item(), rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), torch_x.grad.numpy(), rtol=1e-6, atol=1e-12)


def test_cross_entropy_of_a_hopeless_logit_is_finite(device):
    x = tensor(np.array([[0, 1e4]], np.float32), device)
    loss = nn.CrossEntropyLoss()(x, tensor(np.array([0]), device))
    assert loss.item() == 1e4
    loss.backward()
    assert x.grad.numpy().tolist() == [[-1, 1]]


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape):
    return ndl.zeros(*shape)


ERRORS = [
    (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features must be at least 1, but got 0"),
    (lambda: nn.Linear(3, -1), ValueError, "Linear: out_features must be at least 1, but got -1"),
    (lambda: nn.Linear(3, 2.0), TypeError, "Linear: out_features must be an integer, but got 2.0"),
    (
        lambda: nn.Linear(3, 2)(zeros(4, 2)),
        ValueError,
        "Linear: x must have 3 features in its last axis, but got (4, 2)",
    ),
    (lambda: nn.Linear(3, 2)(zeros()), ValueError, "Linear: x must have 3 features in its last axis, but got ()"),
    (lambda: nn.Conv2d(0, 3, 1), ValueError, "Conv2d: in_channels must be at least 1, but got 0"),
    (lambda: nn.Conv1d(1, 0, 1), ValueError, "Conv1d: out_channels must be at least 1, but got 0"),
    (lambda: nn.Conv2d(1, 1, 0), ValueError, "Conv2d: kernel_size must be at least 1, but got 0"),
    (
        lambda: nn.Conv3d(1, 1, (1, 2)),
        ValueError,
        "Conv3d: kernel_size must be one integer or 3, but got 2: (1, 2)",
    ),
    (lambda: nn.Conv2d(1, 1, 3, stride=0), ValueError, "Conv2d: stride must be at least 1, but got 0"),
    (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "Conv2d: padding must be at least 0, but got -1"),
    (
        lambda: nn.Conv2d(1, 1, 3, padding="sane"),
        ValueError,
        "Conv2d: padding must be one of 'valid', 'same', but got 'sane'",
    ),
    (lambda: nn.Conv2d(1, 1, 3, dilation=0), ValueError, "Conv2d: dilation must be at least 1, but got 0"),
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
        lambda: nn.Conv2d(1, 1, 3)(zeros(5, 5)),
        ValueError,
        "conv2d: x must have 4 axes, or 3 without a batch, but got shape (5, 5)",
    ),
    (
        lambda: nn.MaxPool2d(2)(zeros(5, 5)),
        ValueError,
        "max_pool2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), of which only N may be 0, but got shape (5, 5)",
    ),
    (
        lambda: nn.AvgPool2d(2)(zeros(5, 5)),
        ValueError,
        "avg_pool2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), of which only N may be 0, but got shape (5, 5)",
    ),
    (lambda: nn.Conv(0, 3, 1), ValueError, "Conv: in_channels must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 0, 1), ValueError, "Conv: out_channels must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 1, (0, 3)), ValueError, "Conv: kernel_size must be at least 1, but got 0"),
    (lambda: nn.Conv(1, 1, ()), TypeError, "Conv: kernel_size must be an integer, but got ()"),
    (lambda: nn.Conv(1, 1, 3, 1.5), TypeError, "Conv: stride must be an integer, but got 1.5"),
    (
        lambda: nn.Conv(1, 1, 3)(zeros(5, 5)),
        ValueError,
        "conv2d: x must have 4 axes, or 3 without a batch, but got shape (5, 5)",
    ),
    (lambda: nn.LayerNorm1d(0), ValueError, "LayerNorm1d: dim must be at least 1, but got 0"),
    (lambda: nn.LayerNorm1d((2, 3)), TypeError, "LayerNorm1d: dim must be an integer, but got (2, 3)"),
    (lambda: nn.LayerNorm1d(3, -1), ValueError, "LayerNorm1d: eps must lie in [0, inf], but got -1"),
    (
        lambda: nn.LayerNorm1d(3)(zeros(3, 2)),
        ValueError,
        "layer_norm: x must end in the axes (3,), but got shape (3, 2)",
    ),
    (
        lambda: nn.LayerNorm1d(3)(zeros(2, 3).astype("int64")),
        TypeError,
        "LayerNorm1d: x must have a floating dtype, but got int64",
    ),
    (
        lambda: nn.SoftmaxLoss()(zeros(2, 3), zeros(2, 3)),
        ValueError,
        "SoftmaxLoss: x (N, C) and target (N,) are needed, but got (2, 3) and (2, 3)",
    ),
    (
        lambda: nn.SoftmaxLoss()(zeros(3), zeros()),
        ValueError,
        "SoftmaxLoss: x (N, C) and target (N,) are needed, but got (3,) and ()",
    ),
    (
        lambda: nn.SoftmaxLoss()(zeros(2, 3), ndl.Tensor([0, 3])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 0 to 3",
    ),
    (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must lie in [0, 1], but got 1.5"),
    (lambda: nn.Dropout(float("nan")), ValueError, "Dropout: p must lie in [0, 1], but got nan"),
    (lambda: nn.Dropout("half"), TypeError, "Dropout: p must be a number, but got 'half'"),
    (lambda: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: dim must be at least 1, but got 0"),
    (lambda: nn.BatchNorm1d(3, momentum=2), ValueError, "BatchNorm1d: momentum must lie in [0, 1], but got 2"),
    (lambda: nn.BatchNorm1d(3, eps=-1), ValueError, "BatchNorm1d: eps must lie in [0, inf], but got -1"),
    (
        lambda: nn.BatchNorm1d(3)(zeros(2, 3, 4, 4)),
        ValueError,
        "BatchNorm1d: x must have 2 or 3 axes and 3 channels, but got shape (2, 3, 4, 4)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(zeros(2, 3)),
        ValueError,
        "BatchNorm2d: x must have 4 axes and 3 channels, but got shape (2, 3)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(zeros(2, 1, 4, 4)),
        ValueError,
        "BatchNorm2d: x must have 4 axes and 3 channels, but got shape (2, 1, 4, 4)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(zeros(0, 3, 4, 4)),
        ValueError,
        "BatchNorm2d: the batch must not be empty, but got shape (0, 3, 4, 4)",
    ),
    (
        lambda: nn.CrossEntropyLoss()(zeros(2, 3), zeros(3)),
        ValueError,
        "cross_entropy: target must hold class indices (2,) or probabilities (2, 3) for x (2, 3), but got (3,)",
    ),
    (
        lambda: nn.CrossEntropyLoss()(zeros(0, 3), zeros(0)),
        ValueError,
        "cross_entropy: the batch must not be empty, but got x of shape (0, 3)",
    ),
    (
        lambda: nn.CrossEntropyLoss()(zeros(2, 3), ndl.Tensor([0, 3])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got 0 to 3",
    ),
    (
        lambda: nn.CrossEntropyLoss()(zeros(2, 3), ndl.Tensor([-1, 2])),
        ValueError,
        "cross_entropy: targets must lie in [0, 2], but got -1 to 2",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


# ---- no float64 creeps in --------------------------------------------------------------------------------------------

LAYERS = {
    "AdaptiveAvgPool1d": (lambda **options: nn.AdaptiveAvgPool1d(3), (4, 3, 6)),
    "AdaptiveAvgPool2d": (lambda **options: nn.AdaptiveAvgPool2d(3), (4, 3, 6, 6)),
    "AdaptiveAvgPool3d": (lambda **options: nn.AdaptiveAvgPool3d(3), (4, 3, 4, 4, 4)),
    "AdaptiveMaxPool1d": (lambda **options: nn.AdaptiveMaxPool1d(3), (4, 3, 6)),
    "AdaptiveMaxPool2d": (lambda **options: nn.AdaptiveMaxPool2d(3), (4, 3, 6, 6)),
    "AdaptiveMaxPool3d": (lambda **options: nn.AdaptiveMaxPool3d(3), (4, 3, 4, 4, 4)),
    "AttentionLayer": (lambda **options: nn.AttentionLayer(6, 2, 3, dropout=0.3, **options), (4, 3, 6)),
    "AvgPool1d": (lambda **options: nn.AvgPool1d(2), (4, 3, 6)),
    "AvgPool2d": (lambda **options: nn.AvgPool2d(2), (4, 3, 6, 6)),
    "AvgPool3d": (lambda **options: nn.AvgPool3d(2), (4, 3, 4, 4, 4)),
    "BatchNorm1d": (lambda **options: nn.BatchNorm1d(3, **options), (4, 3)),
    "BatchNorm2d": (lambda **options: nn.BatchNorm2d(3, **options), (4, 3, 6, 6)),
    "BatchNorm3d": (lambda **options: nn.BatchNorm3d(3, **options), (4, 3, 4, 4, 4)),
    "CircularPad1d": (lambda **options: nn.CircularPad1d(1), (4, 3, 6)),
    "CircularPad2d": (lambda **options: nn.CircularPad2d(1), (4, 3, 6, 6)),
    "CircularPad3d": (lambda **options: nn.CircularPad3d(1), (4, 3, 4, 4, 4)),
    "ConstantPad1d": (lambda **options: nn.ConstantPad1d(1, 2.5), (4, 3, 6)),
    "ConstantPad2d": (lambda **options: nn.ConstantPad2d(1, 2.5), (4, 3, 6, 6)),
    "ConstantPad3d": (lambda **options: nn.ConstantPad3d(1, 2.5), (4, 3, 4, 4, 4)),
    "Conv": (lambda **options: nn.Conv(3, 2, 3, 2, **options), (4, 3, 6, 6)),
    "Conv1d": (lambda **options: nn.Conv1d(3, 2, 3, padding=1, **options), (4, 3, 6)),
    "Conv2d": (lambda **options: nn.Conv2d(3, 2, 3, padding=1, **options), (4, 3, 6, 6)),
    "Conv3d": (lambda **options: nn.Conv3d(3, 2, 3, padding=1, **options), (4, 3, 4, 4, 4)),
    "ConvTranspose1d": (lambda **options: nn.ConvTranspose1d(3, 2, 3, padding=1, **options), (4, 3, 6)),
    "ConvTranspose2d": (lambda **options: nn.ConvTranspose2d(3, 2, 3, padding=1, **options), (4, 3, 6, 6)),
    "ConvTranspose3d": (lambda **options: nn.ConvTranspose3d(3, 2, 3, padding=1, **options), (4, 3, 4, 4, 4)),
    "Dropout": (lambda **options: nn.Dropout(0.3), (4, 3)),
    "Dropout1d": (lambda **options: nn.Dropout1d(0.3), (4, 3, 6)),
    "Dropout2d": (lambda **options: nn.Dropout2d(0.3), (4, 3, 6, 6)),
    "Dropout3d": (lambda **options: nn.Dropout3d(0.3), (4, 3, 4, 4, 4)),
    "ELU": (lambda **options: nn.ELU(), (4, 3)),
    "Flatten": (lambda **options: nn.Flatten(), (4, 3, 2)),
    "Fold": (lambda **options: nn.Fold((4, 5), 2), (4, 12, 12)),
    "GroupNorm": (lambda **options: nn.GroupNorm(3, 3, **options), (4, 3, 6)),
    "Hardtanh": (lambda **options: nn.Hardtanh(), (4, 3)),
    "Identity": (lambda **options: nn.Identity(), (4, 3)),
    "InstanceNorm1d": (lambda **options: nn.InstanceNorm1d(3, affine=True, **options), (4, 3, 6)),
    "InstanceNorm2d": (lambda **options: nn.InstanceNorm2d(3, affine=True, **options), (4, 3, 6, 6)),
    "InstanceNorm3d": (lambda **options: nn.InstanceNorm3d(3, affine=True, **options), (4, 3, 4, 4, 4)),
    "LayerNorm": (lambda **options: nn.LayerNorm(6, **options), (4, 3, 6)),
    "LayerNorm1d": (lambda **options: nn.LayerNorm1d(6, **options), (4, 3, 6)),
    "LeakyReLU": (lambda **options: nn.LeakyReLU(), (4, 3)),
    "Linear": (lambda **options: nn.Linear(3, 2, **options), (4, 3)),
    "LogSoftmax": (lambda **options: nn.LogSoftmax(dim=1), (4, 3)),
    "MaxPool1d": (lambda **options: nn.MaxPool1d(2), (4, 3, 6)),
    "MaxPool2d": (lambda **options: nn.MaxPool2d(2), (4, 3, 6, 6)),
    "MaxPool3d": (lambda **options: nn.MaxPool3d(2), (4, 3, 4, 4, 4)),
    "PixelShuffle": (lambda **options: nn.PixelShuffle(2), (4, 8, 3, 3)),
    "PixelUnshuffle": (lambda **options: nn.PixelUnshuffle(2), (4, 3, 6, 6)),
    "RNNCell": (lambda **options: nn.RNNCell(3, 2, **options), (4, 3)),
    "ReLU": (lambda **options: nn.ReLU(), (4, 3)),
    "ReLU6": (lambda **options: nn.ReLU6(), (4, 3)),
    "ReflectionPad1d": (lambda **options: nn.ReflectionPad1d(1), (4, 3, 6)),
    "ReflectionPad2d": (lambda **options: nn.ReflectionPad2d(1), (4, 3, 6, 6)),
    "ReflectionPad3d": (lambda **options: nn.ReflectionPad3d(1), (4, 3, 4, 4, 4)),
    "ReplicationPad1d": (lambda **options: nn.ReplicationPad1d(1), (4, 3, 6)),
    "ReplicationPad2d": (lambda **options: nn.ReplicationPad2d(1), (4, 3, 6, 6)),
    "ReplicationPad3d": (lambda **options: nn.ReplicationPad3d(1), (4, 3, 4, 4, 4)),
    "Residual": (lambda **options: nn.Residual(nn.Linear(3, 3, **options)), (4, 3)),
    "Sequential": (lambda **options: nn.Sequential(nn.Linear(3, 2, **options), nn.Dropout(0.1)), (4, 3)),
    "SiLU": (lambda **options: nn.SiLU(), (4, 3)),
    "Sigmoid": (lambda **options: nn.Sigmoid(), (4, 3)),
    "Softmax": (lambda **options: nn.Softmax(dim=1), (4, 3)),
    "Softplus": (lambda **options: nn.Softplus(), (4, 3)),
    "Tanh": (lambda **options: nn.Tanh(), (4, 3)),
    "TransformerLayer": (lambda **options: nn.TransformerLayer(6, 2, 3, 4, dropout=0.3, **options), (4, 3, 6)),
    "Unfold": (lambda **options: nn.Unfold(2), (4, 3, 6, 6)),
    "Upsample": (lambda **options: nn.Upsample(scale_factor=2, mode="bilinear"), (4, 3, 6, 6)),
    "ZeroPad1d": (lambda **options: nn.ZeroPad1d(1), (4, 3, 6)),
    "ZeroPad2d": (lambda **options: nn.ZeroPad2d(1), (4, 3, 6, 6)),
    "ZeroPad3d": (lambda **options: nn.ZeroPad3d(1), (4, 3, 4, 4, 4)),
}
# What does not stand between two layers; the tests of the functions, of recurrent layers and of attention run these in
# float32.
APART = {"CosineSimilarity", "Embedding", "Module", "Parameter"} | {
    name for name in nn.__all__ if name.endswith("Loss")
}
APART |= {"LSTM", "LSTMCell", "MultiHeadAttention", "RNN", "Transformer"}
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.1),
    "SGD with all": lambda params: optim.SGD(params, 0.1, 0.9, 0.01, dampening=0, nesterov=True),
    "Adam": lambda params: optim.Adam(params, lr=0.1, weight_decay=0.01),
    "AdamW": lambda params: optim.AdamW(params, lr=0.1, weight_decay=0.01),
}


def arrays_in(value):
    """Every array in an object's attributes, through containers and tensors."""
    if isinstance(value, ndl.Tensor):
        value = value.array
    if hasattr(value, "dtype"):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(entry)


def assert_floats_are(dtype, tensors):
    """Every value in the graph below `tensors` has that dtype, or holds integers or bools."""
    for node in ndl.autograd.find_topo_sort(tensors):
        for array in arrays_in(node.array):
            assert array.dtype == dtype or array.dtype.kind in "iub", (node.op, array.dtype, array.shape)


def test_every_layer_is_in_the_table():
    exported = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    assert set(LAYERS) == exported - APART


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_stays_in_float32(name, optimizer, device):
    make, shape = LAYERS[name]
    options = {"device": device}
    layers = [make(**options)]
    x = tensor(normal(*shape, dtype="float32"), device)
    width = math.prod((nn.Sequential(*layers)(x)).shape[1:])
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3, **options))
    optimizer = OPTIMIZERS[optimizer]([x, *model.parameters()])
    labels = tensor(np.array([0, 1, 2, 0], np.uint8), device, requires_grad=False)
    for create_graph in (True, False):
        loss = nn.CrossEntropyLoss()(model(x), labels)
        assert_floats_are("float32", [loss])
        optimizer.reset_grad()
        loss.backward(create_graph=create_graph)
        assert_floats_are("float32", [leaf.grad for leaf in optimizer.params])
        optimizer.clip_grad_norm(0.1)
        assert_floats_are("float32", [leaf.grad for leaf in optimizer.params])
        optimizer.step()
        assert_floats_are("float32", [*optimizer.params, *model.buffers()])
        kept = list(arrays_in(vars(optimizer)))
        assert len(kept) > len(optimizer.params)
        assert {str(array.dtype) for array in kept} == {"float32"}
    assert_floats_are("float32", [model.eval()(x)])


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1), (-2, -1), (2, 2)], ids=str)
def test_flatten_is_that_of_torch(axes, device):
    x = normal(2, 3, 4, 5)
    layer, twin = nn.Flatten(*axes), torch.nn.Flatten(*axes)
    np.testing.assert_array_equal(layer(tensor(x, device)).numpy(), twin(torch.from_numpy(x)).numpy(), strict=True)
    assert repr(layer) == repr(twin)
