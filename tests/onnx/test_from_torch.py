"""Models that torch exports, loaded: outputs and gradients equal torch's, and they are exported again."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import needle as ndl
import needle.onnx
from tests.onnx.exported import assert_equal, by_onnxruntime


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(11, 6), nn.LSTM(6, 5, 2, bidirectional=True)
        self.classify = nn.Linear(10, 3)

    def forward(self, words):
        return self.classify(self.lstm(self.embedding(words))[0])


def cnn():
    parts = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, stride=2)
    return nn.Sequential(*parts, nn.GroupNorm(2, 8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def decoder():
    up = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1)
    parts = nn.Upsample(scale_factor=2, mode="bilinear"), nn.LeakyReLU(), nn.InstanceNorm2d(3, affine=True)
    return nn.Sequential(up, *parts)


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


CASES = {
    "cnn": (cnn, torch.rand(2, 1, 12, 12)),
    "lstm": (Tagger, torch.arange(8).reshape(4, 2)),
    "decoder": (decoder, torch.rand(2, 2, 4, 5)),
    "transformer": (transformer, torch.rand(2, 5, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_from_torch_has_its_outputs_and_gradients(tmp_path, name):
    make, x = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():  # torch writes equal tensors as one, also a weight and a statistic
            if tensor.dtype.is_floating_point:
                tensor += torch.rand(tensor.shape) / 5
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, do_constant_folding=False)
    loaded = needle.onnx.load(onnx.load_from_string(file.getvalue()))
    expected, y = model(x), loaded(ndl.Tensor(x.numpy(), requires_grad=False))
    assert_equal([y.numpy()], [expected.detach().numpy()], 1e-4)
    (expected**2).mean().backward()
    (y**2).mean().backward(create_graph=False)
    parameters, own = dict(loaded.named_parameters()), dict(model.named_parameters())
    assert parameters.keys() == own.keys()
    for key, parameter in parameters.items():
        np.testing.assert_allclose(parameter.grad.numpy(), own[key].grad.numpy(), 1e-3, 1e-5, err_msg=key)
    again = str(tmp_path / "again.onnx")
    needle.onnx.export(loaded, x.numpy(), again)
    assert_equal(by_onnxruntime(again, x.numpy()), [expected.detach().numpy()], 1e-4)
