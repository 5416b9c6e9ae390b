"""Operators that draw: no other implementation gives the same numbers, but they have the same distributions."""

import numpy as np
import pytest

from tests.onnx.one_node import operate

N = 20_000


def moments(x):
    return [x.mean(), x.std()]


def test_numbers_of_a_shape():
    normal = operate("RandomNormal", shape=[N], mean=3.0, scale=0.5, seed=1.0).numpy()
    uniform = operate("RandomUniform", shape=[N, 1], low=-1.0, high=3.0, dtype=11, seed=1.0).numpy()
    assert (normal.dtype, normal.shape) == ("float32", (N,))
    assert (uniform.dtype, uniform.shape) == ("float64", (N, 1))
    np.testing.assert_allclose(moments(normal), [3, 0.5], atol=0.02)
    np.testing.assert_allclose(moments(uniform), [1, 4 / 12**0.5], atol=0.04)
    assert -1 <= uniform.min() < -0.9
    assert 2.9 < uniform.max() < 3


@pytest.mark.parametrize(("op_type", "std"), [("RandomNormalLike", 1), ("RandomUniformLike", 12**-0.5)])
def test_numbers_like_a_tensor(op_type, std):
    x = np.zeros((2, N // 2))
    y = operate(op_type, x, seed=2.0).numpy()
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    np.testing.assert_allclose(y.std(), std, atol=0.02)
    assert operate(op_type, x, dtype=10).dtype == "float16"


def test_bernoulli():
    p = np.repeat(np.float32([0, 0.25, 1]), N).reshape(3, N)
    y = operate("Bernoulli", p, seed=3.0).numpy()
    assert y.dtype == "float32"
    np.testing.assert_allclose(y.mean(1), [0, 0.25, 1], atol=0.02)
    assert operate("Bernoulli", p, dtype=9).dtype == "bool"


def test_multinomial():
    p = np.array([[0.5, 0.25, 0.25], [0, 1, 0]])
    with np.errstate(divide="ignore"):
        y = operate("Multinomial", np.log(p) + 7, sample_size=N, seed=4.0).numpy()
        assert operate("Multinomial", np.log(p), dtype=7).dtype == "int64"
    assert (y.dtype, y.shape) == ("int32", (2, N))
    np.testing.assert_allclose([np.bincount(row, minlength=3) / N for row in y], p, atol=0.02)


def test_a_seed_repeats_and_without_one_needles_stream_goes_on():
    def draw(**seed):
        return operate("RandomNormal", shape=[3], **seed).numpy().tolist()

    assert draw(seed=1.0) == draw(seed=1.0) != draw(seed=1.5)
    np.random.seed(0)
    first, second = draw(), draw()
    np.random.seed(0)
    assert (draw(), draw()) == (first, second)
    assert first != second
