"""`summary`: counts held to hand-computed ones, to torch's, and to measured memory; models stay as they were."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import needle as ndl
from apps.models import LanguageModel, LeNet, ResNet9, TinyCNN
from needle import nn
from tests.nn.functional.alike import raises

pytestmark = pytest.mark.usefixtures("on_device")


class Calling(nn.Module):
    """A module that calls a function of itself and its arguments."""

    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        vars(self).update(children)

    def forward(self, *args):
        return self.function(self, *args)


# ---- counts ----------------------------------------------------------------------------------------------------------


def test_a_cnn_by_hand():
    found = ndl.summary(TinyCNN(8), (5, 1, 8, 8))
    layers = {layer.name: layer for layer in found.layers}
    assert [layer.name for layer in found.layers] == [name for name, _ in TinyCNN(8).named_modules()]
    assert layers[""] == ("", "TinyCNN", (5, 10), 0, 0, 1)
    assert layers["features.0"] == ("features.0", "Conv2d", (5, 16, 8, 8), 16 * 9 + 16, 5 * 16 * 64 * 9, 1)
    assert layers["features.3"].macs == 5 * 32 * 64 * 16 * 9
    assert layers["features.7"].macs == 5 * 64 * 16 * 32 * 9
    assert layers["features.4"] == ("features.4", "BatchNorm2d", (5, 32, 8, 8), 64, 0, 1)
    assert layers["classify"] == ("classify", "Linear", (5, 10), 256 * 10 + 10, 5 * 256 * 10, 1)
    assert (found.parameters, found.trainable) == (160 + 32 + 4640 + 64 + 18496 + 128 + 2570,) * 2
    assert found.buffers == 2 * (16 + 32 + 64) + 3
    assert found.memory.parameters == found.memory.gradients == 4 * found.parameters
    assert found.memory.buffers == 4 * (found.buffers - 3) + 8 * 3
    assert found.memory.total == sum(found.memory)


def theirs(module, shape):
    with FlopCounterMode(display=False) as counter:
        module(torch.ones(shape))
    return counter.get_total_flops() / 2


# How to make a layer of needle or torch, the shape of x, and the multiply-adds
SAME = {
    "linear": (lambda nn: nn.Linear(5, 7), (3, 2, 5), 210),
    "conv1d": (lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=1, bias=False), (2, 4, 9), 720),
    "conv2d": (lambda nn: nn.Conv2d(4, 6, (3, 5), (2, 1), padding=2, dilation=2, groups=2), (3, 4, 12, 13), 29160),
    "conv3d": (lambda nn: nn.Conv3d(2, 3, 2), (2, 2, 4, 5, 6), 5760),
    "conv without batch": (lambda nn: nn.Conv2d(2, 3, 2), (2, 4, 5), 288),
    "transposed": (lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 5, 6), 9720),
    "cell": (lambda nn: nn.LSTMCell(3, 4), (5, 3), 560),
    "network": (
        lambda nn: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
        (6, 1, 8, 8),
        8856,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_multiply_adds(name):
    make, shape, macs = SAME[name]
    found = ndl.summary(make(nn), shape)
    assert found.macs == macs
    assert found.parameters == sum(p.numel() for p in make(torch.nn).parameters())


@pytest.mark.slow  # torch's counter loads for seconds
@pytest.mark.parametrize("name", SAME)
def test_these_multiply_adds_are_half_of_torchs_operations(name):
    make, shape, macs = SAME[name]
    assert macs == theirs(make(torch.nn), shape)


def test_products_of_matrices():
    shapes = (2, 3, 4, 5), (3, 5, 6)
    assert ndl.summary(Calling(lambda self, a, b: a @ b), *shapes).macs == 2 * 3 * 4 * 5 * 6
    einsum = Calling(lambda self, a, b: ndl.ops.einsum("bij,bjk->ik", a, b))
    assert ndl.summary(einsum, (2, 3, 4), (2, 4, 5)).macs == 2 * 3 * 4 * 5
    attention = Calling(lambda self, q, k, v: nn.functional.scaled_dot_product_attention(q, k, v))
    assert ndl.summary(attention, *[(2, 4, 6, 8)] * 3).macs == 2 * (2 * 4 * 6 * 6 * 8)


def test_a_gradient_in_the_forward_pass_counts():
    def penalty(self, x):
        x.requires_grad = True
        return ndl.grad(self.conv(x).sum(), x, create_graph=True)

    found = ndl.summary(Calling(penalty, conv=nn.Conv2d(1, 2, 3, bias=False)), (1, 1, 5, 5))
    assert [layer.macs for layer in found.layers] == [2 * 162, 162]  # of x and of the weight


@pytest.mark.parametrize(
    ("make", "inputs", "options"),
    [
        (ResNet9, lambda: [(2, 3, 32, 32)], {}),
        (lambda: LanguageModel(6, 20, 8, 2, "lstm"), lambda: [(5, 3)], {"dtype": "int64"}),
        (lambda: LanguageModel(6, 20, 8, 2, "rnn"), lambda: [ndl.zeros(5, 3), ndl.zeros(2, 3, 8)], {}),
        (lambda: LanguageModel(6, 20, 8, 2, "lstm"), lambda: [ndl.zeros(5, 3), (ndl.zeros(2, 3, 8),) * 2], {}),
        (lambda: LanguageModel(8, 20, 8, 1, "transformer"), lambda: [(5, 3), None], {"dtype": "int64"}),
    ],
    ids=["resnet9", "lstm", "rnn with state", "lstm with state", "transformer"],
)
def test_the_networks_of_the_apps(make, inputs, options):
    model = make()
    found = ndl.summary(model, *inputs(), **options)
    assert found.parameters == sum(parameter.size for parameter in model.parameters())
    assert found.parameters == sum(layer.parameters for layer in found.layers)
    assert found.macs == sum(layer.macs for layer in found.layers) > 0
    assert len(str(found).splitlines()) == len(found.layers) + 6
    if isinstance(model, LanguageModel):
        assert found.layers[0].output[0] == (15, 20)


def test_what_is_shared_counts_once_and_calls_add_up():
    shared = nn.Linear(3, 3)
    tied = nn.Linear(3, 3, bias=False)
    tied.weight = shared.weight
    found = ndl.summary(nn.Sequential(shared, nn.ReLU(), shared, tied), (2, 3))
    assert [(layer.name, layer.parameters, layer.macs, layer.calls) for layer in found.layers] == [
        ("", 0, 0, 1), ("0", 12, 36, 2), ("1", 0, 0, 1), ("3", 0, 18, 1),
    ]  # fmt: skip
    assert found.parameters == 12
    assert "Linear x 2" in str(found)


def test_results_of_any_form_and_modules_that_are_not_called():
    model = Calling(lambda self, x: (x, {"y": [x * 2, "text"]}, ndl.ops.split(x, 0)), unused=nn.Linear(2, 2))
    found = ndl.summary(model, (2, 3))
    assert found.layers[0].output == ((2, 3), {"y": ((2, 3), None)}, ((3,), (3,)))
    assert found.layers[1] == ("unused", "Linear", None, 6, 0, 0)
    assert "not called" in str(found)


def test_what_is_frozen_and_other_dtypes():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).half()
    model[0].requires_grad_(False)
    found = ndl.summary(model, (1, 3))
    assert (found.parameters, found.trainable) == (20, 8)
    assert found.memory[:3] == (40, 0, 16)
    assert "trainable 8, frozen 12, buffers 0" in str(found)


def test_a_model_without_parameters():
    found = ndl.summary(nn.ReLU(), (2, 3))
    assert found.memory == (0, 0, 0, 2 * 3 * 4)
    assert ndl.summary(nn.ReLU(), [np.int64(2), 3]).layers[0].output == (2, 3)
    assert ndl.summary(nn.ReLU(), ()).layers[0].output == ()


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape", "most"),
    [
        (lambda: TinyCNN(28), (32, 1, 28, 28), 1.4),
        (lambda: LeNet((1, 28, 28)), (64, 1, 28, 28), 2.6),
        (ResNet9, (32, 3, 32, 32), 1.4),
        (lambda: nn.Sequential(nn.Linear(512, 512), nn.Tanh(), nn.Dropout(), nn.Linear(512, 512)), (256, 512), 1.4),
    ],
    ids=["tinycnn", "lenet", "resnet9", "mlp"],
)
def test_memory_is_that_of_a_step(make, shape, most, device):
    """Activations are those that Python's allocator reports, and the peak of a step is near the total."""
    if device != ndl.cpu():
        pytest.skip("tracemalloc sees the memory of the CPU")
    tracemalloc.start()
    try:
        model = make()
        found = ndl.summary(model, shape)
        gc.collect()
        start = tracemalloc.get_traced_memory()[0]
        y = model(ndl.ones(*shape))
        kept = tracemalloc.get_traced_memory()[0] - start
        assert kept == pytest.approx(found.memory.activations, rel=0.05)
        tracemalloc.reset_peak()
        y.sum().backward(create_graph=False)
        peak = tracemalloc.get_traced_memory()[1] - start + found.memory.parameters + found.memory.buffers
        assert 0.8 * found.memory.total < peak < most * found.memory.total
    finally:
        tracemalloc.stop()


# ---- no trace --------------------------------------------------------------------------------------------------------


class Busy(nn.Module):
    """Changes all that a forward pass may change; raises after that if `fails`."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout()
        self.seen = nn.Buffer([1.0, 2.0, 3.0])
        self.fails = False

    def forward(self, x):
        y = self.drop(self.norm(x))
        self.last, self.steps = y, 3
        self.eval()
        with ndl.no_grad():
            self.seen[0] = 9.0
        if self.fails:
            raise ValueError("Busy: it fails")
        return y


def everything(model):
    """All that can be asked of a model, as plain data and identities."""
    tensors = [(id(x), x.array is not None and id(x.array), x.numpy().tobytes(), x.grad) for x in model.parameters()]
    tensors += [(id(x), id(x.array), x.numpy().tobytes(), x.version_counter().version) for x in model.buffers()]
    modules = [list(vars(module).items()) for _, module in model.named_modules()]
    stream = ndl.get_rng_state()["state"]
    return tensors, modules, stream["key"].tolist(), stream["pos"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(fails):
    model, calls = nn.Sequential(nn.Linear(3, 3), Busy()), []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    model[1].norm.train(False)
    model[1].fails = fails
    loss = (model[0](ndl.ones(4, 3)) * model[1].seen).sum()
    before = everything(model)
    with ndl.no_grad():
        if fails:
            with pytest.raises(ValueError, match="it fails") as caught:
                ndl.summary(model, (4, 3))
            assert caught.value.__notes__ == ["summary: raised in 1, a Busy"]
        else:
            assert ndl.summary(model, (4, 3)).layers[1].calls == 1
    assert everything(model) == before
    assert len(calls) == (2 if fails else 3)  # hooks of the user run, as in every call
    loss.backward()  # what was computed before is not stale


def test_examples_stay_as_they_are():
    x = ndl.init.randn(4, 3, requires_grad=True)
    ndl.summary(nn.Linear(3, 2), x)
    assert (x.grad, x.is_leaf()) == (None, True)


def test_an_error_in_the_model_itself_is_placed():
    def fail(self, x):
        raise ValueError("fail: it must not be called")

    with pytest.raises(ValueError, match="not be called") as caught:
        ndl.summary(Calling(fail), (1,))
    assert caught.value.__notes__ == ["summary: raised in the model, a Calling"]


# ---- errors ----------------------------------------------------------------------------------------------------------

FORM = "summary: each of inputs must be a shape with a batch axis, or an example, but got"
ERRORS = [
    (lambda: ndl.summary(print, (1, 3)), TypeError,
     "summary: model must be a Module, but got builtin_function_or_method"),
    (lambda: ndl.summary(nn.ReLU()), ValueError, "summary: inputs must be at least one shape or example, but got none"),
    (lambda: ndl.summary(nn.ReLU(), 3, 32, 32), TypeError,
     f"{FORM} 3; several shapes are several arguments"),
    (lambda: ndl.summary(nn.ReLU(), [(1, 3), (2, 3)]), TypeError,
     f"{FORM} [(1, 3), (2, 3)]; several shapes are several arguments"),
    (lambda: ndl.summary(nn.ReLU(), (1, -3)), ValueError, "summary: a size must be at least 0, but got -3"),
    (lambda: ndl.summary(nn.ReLU(), (1, 3), dtype="complex64"), TypeError,
     "summary: dtype must be one of real numbers or bools, but got 'complex64'"),
]  # fmt: skip


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[2])
def test_errors(row):
    raises(*row)


def test_numbers_are_those_of_the_table():
    """Three arrays of activations: x, the product, and the sum with the bias."""
    lines = str(ndl.summary(nn.Linear(1000, 1000), (100, 1000))).splitlines()
    assert lines[2].split() == ["(model)", "Linear", "(100,", "1000)", "1,001,000", "100,000,000"]
    assert lines[-1] == (
        "memory of a training step 8.40 MiB: parameters 3.82 MiB, buffers 0.00 MiB, gradients 3.82 MiB, "
        "activations 0.76 MiB"
    )


def test_devices(device):
    found = ndl.summary(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), (2, 1, 5, 5))
    assert found.macs == 2 * 2 * 9 * 9
    assert np.all(np.array(found.memory) > 0)
