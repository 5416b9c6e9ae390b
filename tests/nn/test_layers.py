"""Every layer: made in a dtype and on a device, and trained in float32 without a float64 anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from needle import nn, optim
from tests.nn.compare import arrays_in, assert_floats_are, normal, tensor


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_are_made_in_a_dtype_and_on_a_device(dtype, device):
    options = {"device": device, "dtype": dtype}
    for layer in (nn.Linear(2, 3, **options), nn.Conv2d(2, 3, 1, **options), nn.BatchNorm1d(2, **options)):
        for parameter in [*layer.parameters(), *layer.buffers()]:
            assert parameter.dtype == (dtype if parameter.shape else "int64")
            assert parameter.device == device


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
    "CELU": (lambda **options: nn.CELU(), (4, 3)),
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
    "GELU": (lambda **options: nn.GELU(), (4, 3)),
    "GLU": (lambda **options: nn.GLU(), (4, 6)),
    "GRUCell": (lambda **options: nn.GRUCell(3, 2, **options), (4, 3)),
    "GroupNorm": (lambda **options: nn.GroupNorm(3, 3, **options), (4, 3, 6)),
    "Hardshrink": (lambda **options: nn.Hardshrink(), (4, 3)),
    "Hardsigmoid": (lambda **options: nn.Hardsigmoid(), (4, 3)),
    "Hardswish": (lambda **options: nn.Hardswish(), (4, 3)),
    "Hardtanh": (lambda **options: nn.Hardtanh(), (4, 3)),
    "Identity": (lambda **options: nn.Identity(), (4, 3)),
    "InstanceNorm1d": (lambda **options: nn.InstanceNorm1d(3, affine=True, **options), (4, 3, 6)),
    "InstanceNorm2d": (lambda **options: nn.InstanceNorm2d(3, affine=True, **options), (4, 3, 6, 6)),
    "InstanceNorm3d": (lambda **options: nn.InstanceNorm3d(3, affine=True, **options), (4, 3, 4, 4, 4)),
    "LPPool1d": (lambda **options: nn.LPPool1d(2, 2), (4, 3, 6)),
    "LPPool2d": (lambda **options: nn.LPPool2d(2, 2), (4, 3, 6, 6)),
    "LPPool3d": (lambda **options: nn.LPPool3d(2, 2), (4, 3, 4, 4, 4)),
    "LayerNorm": (lambda **options: nn.LayerNorm(6, **options), (4, 3, 6)),
    "LayerNorm1d": (lambda **options: nn.LayerNorm1d(6, **options), (4, 3, 6)),
    "LeakyReLU": (lambda **options: nn.LeakyReLU(), (4, 3)),
    "Linear": (lambda **options: nn.Linear(3, 2, **options), (4, 3)),
    "LocalResponseNorm": (lambda **options: nn.LocalResponseNorm(2), (4, 3, 6)),
    "LogSigmoid": (lambda **options: nn.LogSigmoid(), (4, 3)),
    "LogSoftmax": (lambda **options: nn.LogSoftmax(dim=1), (4, 3)),
    "MaxPool1d": (lambda **options: nn.MaxPool1d(2), (4, 3, 6)),
    "MaxPool2d": (lambda **options: nn.MaxPool2d(2), (4, 3, 6, 6)),
    "MaxPool3d": (lambda **options: nn.MaxPool3d(2), (4, 3, 4, 4, 4)),
    "Mish": (lambda **options: nn.Mish(), (4, 3)),
    "PReLU": (lambda **options: nn.PReLU(3, **options), (4, 3)),
    "PixelShuffle": (lambda **options: nn.PixelShuffle(2), (4, 8, 3, 3)),
    "PixelUnshuffle": (lambda **options: nn.PixelUnshuffle(2), (4, 3, 6, 6)),
    "RMSNorm": (lambda **options: nn.RMSNorm(6, **options), (4, 3, 6)),
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
    "SELU": (lambda **options: nn.SELU(), (4, 3)),
    "Sequential": (lambda **options: nn.Sequential(nn.Linear(3, 2, **options), nn.Dropout(0.1)), (4, 3)),
    "SiLU": (lambda **options: nn.SiLU(), (4, 3)),
    "Sigmoid": (lambda **options: nn.Sigmoid(), (4, 3)),
    "Softmax": (lambda **options: nn.Softmax(dim=1), (4, 3)),
    "Softmin": (lambda **options: nn.Softmin(dim=1), (4, 3)),
    "Softplus": (lambda **options: nn.Softplus(), (4, 3)),
    "Softshrink": (lambda **options: nn.Softshrink(), (4, 3)),
    "Softsign": (lambda **options: nn.Softsign(), (4, 3)),
    "Tanh": (lambda **options: nn.Tanh(), (4, 3)),
    "Tanhshrink": (lambda **options: nn.Tanhshrink(), (4, 3)),
    "Threshold": (lambda **options: nn.Threshold(0.1, 0.5), (4, 3)),
    "TransformerLayer": (lambda **options: nn.TransformerLayer(6, 2, 3, 4, dropout=0.3, **options), (4, 3, 6)),
    "Unfold": (lambda **options: nn.Unfold(2), (4, 3, 6, 6)),
    "Upsample": (lambda **options: nn.Upsample(scale_factor=2, mode="bilinear"), (4, 3, 6, 6)),
    "ZeroPad1d": (lambda **options: nn.ZeroPad1d(1), (4, 3, 6)),
    "ZeroPad2d": (lambda **options: nn.ZeroPad2d(1), (4, 3, 6, 6)),
    "ZeroPad3d": (lambda **options: nn.ZeroPad3d(1), (4, 3, 4, 4, 4)),
}
# Classes that do not map one tensor to one tensor; tests of functions, recurrent layers and attention cover float32.
APART = {"Buffer", "CosineSimilarity", "Embedding", "Module", "ModuleDict", "ModuleList", "Parameter"} | {
    name for name in nn.__all__ if name.endswith("Loss")
}
APART |= {f"MaxUnpool{rank}d" for rank in (1, 2, 3)}
APART |= {"GRU", "LSTM", "LSTMCell", "MultiHeadAttention", "ParameterList", "RNN", "Transformer"}
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.1),
    "SGD with all": lambda params: optim.SGD(params, 0.1, 0.9, 0.01, dampening=0, nesterov=True),
    "Adam": lambda params: optim.Adam(params, lr=0.1, weight_decay=0.01),
    "AdamW": lambda params: optim.AdamW(params, lr=0.1, weight_decay=0.01),
}


def test_every_layer_is_in_the_table():
    exported = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    assert set(LAYERS) == exported - APART


@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_stays_in_float32(name, device):
    """With every optimizer: each takes its step on the same gradients."""
    make, shape = LAYERS[name]
    options = {"device": device}
    layers = [make(**options)]
    x = tensor(normal(*shape, dtype="float32"), device)
    width = math.prod((nn.Sequential(*layers)(x)).shape[1:])
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3, **options))
    optimizers = [optimizer([x, *model.parameters()]) for optimizer in OPTIMIZERS.values()]
    labels = tensor(np.array([0, 1, 2, 0], np.uint8), device, requires_grad=False)
    for create_graph in (True, False):
        loss = nn.CrossEntropyLoss()(model(x), labels)
        assert_floats_are("float32", [loss])
        for leaf in [x, *model.parameters()]:
            leaf.grad = None
        loss.backward(create_graph=create_graph)
        assert_floats_are("float32", [leaf.grad for leaf in [x, *model.parameters()]])
        for optimizer in optimizers:
            optimizer.clip_grad_norm(0.1)
            assert_floats_are("float32", [leaf.grad for leaf in optimizer.params])
            optimizer.step()
            assert_floats_are("float32", [*optimizer.params, *model.buffers()])
            kept = list(arrays_in(vars(optimizer)))
            assert len(kept) > len(optimizer.params)
            assert {str(array.dtype) for array in kept} == {"float32"}
    assert_floats_are("float32", [model.eval()(x)])
