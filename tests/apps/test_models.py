"""The networks that train.py knows by name: shapes, sizes, errors, and that every parameter learns."""

import re

import numpy as np
import pytest

import needle as ndl
from models import MODELS, LeNet


def outputs(name, shape, count=2, classes=5):
    model = MODELS[name](shape, classes)
    x = np.random.default_rng(0).random((count, *shape), "float32")
    return model, model(ndl.Tensor(x, requires_grad=False))


@pytest.mark.parametrize("shape", [(1, 12, 16), (3, 33, 20)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_images_of_any_shape_and_all_its_parameters_learn(name, shape):
    if name == "unet":
        shape = (*shape[:2], 20) if shape[1] % 4 == 0 else (shape[0], 32, 20)
    model, y = outputs(name, shape)
    expected = {"autoencoder": (2, *shape), "unet": (2, 5, *shape[1:])}
    assert y.shape == expected.get(name, (2, 5))
    (y**2).sum().backward(create_graph=False)
    assert all(np.abs(parameter.grad.numpy()).max() > 0 for parameter in model.parameters())


def test_lenet_has_the_size_of_the_paper_s_for_its_images():
    # 6·26 + 16·151 + 401·120 + 121·84 + 85·10: the paper joins its second convolution to fewer maps
    assert sum(parameter.size for parameter in LeNet((1, 28, 28)).parameters()) == 61_706


def test_an_autoencoder_returns_pixels_between_0_and_1():
    _, y = outputs("autoencoder", (1, 8, 8))
    assert 0 < y.numpy().min() <= y.numpy().max() < 1


def test_conv1d_sees_rows_one_after_the_other():
    model = MODELS["conv1d"]((1, 4, 16), 5)
    model.eval()
    x = np.random.default_rng(0).random((2, 1, 4, 16), "float32")
    y, other = (model(ndl.Tensor(images)).numpy() for images in (x, x.reshape(2, 1, 16, 4)))
    np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("tinycnn", (1, 3, 9), "TinyCNN: images must have at least 4x4 pixels, but got 3x9"),
        ("lenet", (1, 12, 11), "LeNet: images must have at least 12x12 pixels, but got 12x11"),
        ("autoencoder", (1, 3, 3), "Autoencoder: images must have at least 4x4 pixels, but got 3x3"),
        ("unet", (1, 8, 10), "UNet: height and width must be multiples of 4, but got images of 8x10"),
    ],
)
def test_images_that_do_not_fit(name, shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MODELS[name](shape, 10)
