"""Fourier transforms, windows, mel bands and the steps of optimizers of ONNX."""

from functools import partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import optim
from tests.onnx.one_node import in_onnxruntime, operate

rng = np.random.default_rng(0)


def as_complex(x):
    return x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)


def as_pairs(x):
    return np.stack([x.real, x.imag], -1)


# ---- transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [None, 3, 4, 5, 9])
@pytest.mark.parametrize("axis", [0, 1, -2, -3])
def test_transforms(length, axis):
    at = axis if axis >= 0 else axis + 1
    n, options = length if length is None else np.int64(length), {"axis": at, "n": length}
    for parts in 1, 2:
        x = rng.standard_normal((4, 5, parts))
        inputs = x, n, np.int64(axis)
        np.testing.assert_allclose(operate("DFT", *inputs).numpy(), as_pairs(np.fft.fft(as_complex(x), **options)))
        np.testing.assert_allclose(
            operate("DFT", *inputs, inverse=1).numpy(), as_pairs(np.fft.ifft(as_complex(x), **options)), atol=1e-12
        )
    np.testing.assert_allclose(
        operate("DFT", *inputs, inverse=1, onesided=1).numpy()[..., 0], np.fft.irfft(as_complex(x), **options)
    )
    x = rng.standard_normal((4, 5, 1))
    y = operate("DFT", x, n, opset=19, axis=at % 2, onesided=1)
    np.testing.assert_allclose(y.numpy(), as_pairs(np.fft.rfft(x[..., 0], n=length, axis=at % 2)), atol=1e-12)


def test_derivatives_of_transforms():
    window = ndl.Tensor(rng.random(4))
    for inverse, onesided in (0, 0), (1, 0), (0, 1), (1, 1):
        x = ndl.Tensor(rng.standard_normal((2, 4, 1 if onesided and not inverse else 2)))
        for length in None, np.int64(3), np.int64(6):
            f = partial(operate, "DFT", inverse=inverse, onesided=onesided)
            assert ndl.gradcheck(lambda x, f=f, length=length: f(x, length), x, order=1)
    signal = ndl.Tensor(rng.standard_normal((2, 7, 1)))
    assert ndl.gradcheck(lambda *given: operate("STFT", given[0], np.int64(2), given[1]), signal, window, order=1)


@pytest.mark.parametrize("onesided", [0, 1])
def test_frames(onesided):
    x, window = rng.standard_normal((2, 20, 1)), rng.random(8)
    y = operate("STFT", x, np.int64(3), window, np.int64(8), onesided=onesided)
    expected = torch.stft(
        torch.tensor(x[..., 0]), 8, 3, window=torch.tensor(window), center=False, onesided=bool(onesided),
        return_complex=True,
    )  # fmt: skip
    np.testing.assert_allclose(y.numpy(), as_pairs(expected.numpy().swapaxes(1, 2)), atol=1e-12)
    whole = operate("STFT", x, np.int64(3), onesided=onesided)
    np.testing.assert_allclose(whole.numpy()[:, 0], operate("DFT", x, onesided=onesided).numpy(), atol=1e-12)


def test_a_step_of_frames_must_be_positive():
    with pytest.raises(ValueError, match="STFT: frame_step must be at least 1, but got 0"):
        operate("STFT", np.ones((1, 4, 1)), np.int64(0))


# ---- windows and bands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hann", "hamming", "blackman"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(name, periodic):
    for size in 2, 7, 8:
        y = operate(f"{name.title()}Window", np.int64(size), periodic=periodic, output_datatype=11)
        options = {"alpha": 25 / 46, "beta": 21 / 46} if name == "hamming" else {}
        expected = getattr(torch, f"{name}_window")(size, bool(periodic), dtype=torch.float64, **options)
        np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=1e-15)
    assert operate(f"{name.title()}Window", np.int64(3)).dtype == "float32"


@pytest.mark.parametrize(("bands", "size", "rate", "low", "high"), [(8, 64, 8000, 0, 4000), (5, 33, 16000, 125, 3000)])
def test_mel_bands(bands, size, rate, low, high):
    inputs = np.int64(bands), np.int64(size), np.int64(rate), np.float32(low), np.float32(high)
    (expected,) = in_onnxruntime("MelWeightMatrix", *inputs, opset=17)
    np.testing.assert_allclose(operate("MelWeightMatrix", *inputs).numpy(), expected, atol=1e-6)


# ---- optimizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_type", "attributes", "states", "make"),
    [
        ("Momentum", {"alpha": 0.9, "beta": 1.0, "mode": "standard"}, 1, lambda w: optim.SGD(w, 0.1, 0.9, dampening=0)),
        ("Momentum", {"alpha": 0.9, "beta": 1.0, "mode": "nesterov"}, 1,
         lambda w: optim.SGD(w, 0.1, 0.9, dampening=0, nesterov=True)),
        ("Adagrad", {"epsilon": 1e-6}, 1, lambda w: optim.Adagrad(w, 0.1, eps=1e-6)),
    ],
)  # fmt: skip
def test_steps_of_optimizers(op_type, attributes, states, make):
    """Those of needle, on two tensors at once."""
    options = {"domain": "ai.onnx.preview.training", "opset": 1, "norm_coefficient": 0.0, **attributes}
    x = [rng.standard_normal((2, 2)), rng.standard_normal(3)]
    weights = [ndl.nn.Parameter(ndl.Tensor(value)) for value in x]
    optimizer, kept = make(weights), [np.zeros_like(value) for value in x * states]
    for step in range(3):
        grads = [rng.standard_normal(value.shape) for value in x]
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = ndl.Tensor(grad)
        optimizer.step()
        outputs = operate(op_type, np.float64(0.1), np.int64(step), *x, *grads, *kept, outputs=4, **options)
        x, kept = [y.numpy() for y in outputs[:2]], [y.numpy() for y in outputs[2:]]
        for weight, value in zip(weights, x, strict=True):
            np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-7)
