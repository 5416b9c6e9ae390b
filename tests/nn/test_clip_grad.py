"""Clipping of gradients by norm and by value against torch, with infinities and NaN, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle.nn.utils import clip_grad_norm_, clip_grad_value_

INF, NAN = float("inf"), float("nan")


def twins(grads, device):
    """Parameters of needle and of torch with these gradients."""
    params = [ndl.Tensor(np.zeros_like(grad), device=device) for grad in grads if grad is not None]
    others = [torch.zeros(grad.shape, dtype=getattr(torch, str(grad.dtype))) for grad in grads if grad is not None]
    for parameter, other, grad in zip(params, others, filter(lambda grad: grad is not None, grads), strict=True):
        parameter.grad, other.grad = ndl.Tensor(grad, device=device), torch.from_numpy(grad.copy())
    return params, others


def assert_as_torch(clip, torch_clip, grads, device, *arguments, rtol=1e-13):
    params, others = twins([np.asarray(grad) for grad in grads], device)
    result, expected = clip(params, *arguments), torch_clip(others, *arguments)
    if expected is not None:
        assert result.shape == ()
        assert not result.requires_grad
        np.testing.assert_allclose(result.item(), expected.item(), rtol=rtol)
    for parameter, other in zip(params, others, strict=True):
        assert parameter.grad.is_leaf()
        np.testing.assert_allclose(parameter.grad.numpy(), other.grad.numpy(), rtol=rtol, strict=True)


@pytest.mark.parametrize("norm_type", [1, 2, 2.0, 3.5, 0.5, INF])
@pytest.mark.parametrize("max_norm", [0, 0.25, 3, 1e3])
def test_clip_grad_norm_is_torch_s(norm_type, max_norm, device):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape) for shape in ((3, 4), (), (2, 1, 3), (0, 2))]
    if norm_type == INF:
        grads.pop()  # torch has no maximum of nothing
    assert_as_torch(clip_grad_norm_, torch.nn.utils.clip_grad_norm_, grads, device, max_norm, norm_type)


HOSTILE = [[INF, 1.0], [1e30, 1e30], [NAN, 1.0, INF], [-INF, INF], [1e-45, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("norm_type", [1, 2, INF])
@pytest.mark.parametrize("grad", HOSTILE, ids=str)
def test_infinities_and_nan_go_where_torch_sends_them(grad, norm_type, device):
    """Without a warning, since those are errors in tests."""
    grads = [np.array(grad, "float32"), np.array([2.0], "float32")]
    assert_as_torch(clip_grad_norm_, torch.nn.utils.clip_grad_norm_, grads, device, 1.0, norm_type, rtol=1e-6)
    assert_as_torch(clip_grad_value_, torch.nn.utils.clip_grad_value_, grads, device, 1.0)


def test_a_norm_that_is_not_finite_is_an_error_if_asked_for(device):
    (parameter,), _ = twins([np.array([INF, 1.0])], device)
    grad = parameter.grad
    with pytest.raises(ValueError, match=r"^clip_grad_norm_: the norm must be finite to clip by it, but got inf$"):
        clip_grad_norm_([parameter], 1.0, error_if_nonfinite=True)
    assert parameter.grad is grad
    assert grad.numpy().tolist() == [INF, 1.0]
    parameter.grad = ndl.Tensor([3.0, 4.0], dtype="float64", device=device)
    assert clip_grad_norm_([parameter], 1.0, error_if_nonfinite=True).item() == 5.0


@pytest.mark.parametrize("clip_value", [0, 0.3, 1e4, INF])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_clip_grad_value_is_torch_s(clip_value, dtype, device):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 4), (2, 0))]
    assert_as_torch(clip_grad_value_, torch.nn.utils.clip_grad_value_, grads, device, clip_value)


def test_parameters_may_be_one_tensor_or_a_generator_and_lack_gradients(device):
    (parameter, other), _ = twins([np.array([3.0, 4.0]), np.array([1.0])], device)
    other.grad, grad = None, parameter.grad
    assert clip_grad_norm_(parameter, 2.5).item() == 5
    np.testing.assert_allclose(parameter.grad.numpy(), [1.5, 2.0], rtol=1e-6)
    clip_grad_value_((x for x in (parameter, other)), 1.75)
    np.testing.assert_allclose(parameter.grad.numpy(), [1.5, 1.75], rtol=1e-6)
    assert other.grad is None
    assert grad.numpy().tolist() == [3, 4]  # the old gradient is not written to
    assert clip_grad_norm_([other], 1.0).item() == 0
    assert clip_grad_norm_([], 1.0).item() == 0


def test_of_half_precision_and_of_several_dtypes(device):
    grads = [np.full(1000, 300, "float16"), np.array([3e3], "float64")]
    params, _ = twins(grads, device)
    norm = clip_grad_norm_(params, 100)
    np.testing.assert_allclose(norm.item(), np.sqrt(1000 * 300.0**2 + 9e6), rtol=1e-6)
    assert [str(parameter.grad.dtype) for parameter in params] == ["float16", "float64"]
    np.testing.assert_allclose(params[1].grad.item(), 3e3 * 100 / norm.item(), rtol=1e-6)
    before = params[0].grad.numpy()
    clip_grad_value_(params, 1e6)  # more than float16 holds
    np.testing.assert_array_equal(params[0].grad.numpy(), before, strict=True)


ERRORS = [
    (lambda: clip_grad_norm_([], -1), ValueError, "clip_grad_norm_: max_norm must lie in [0, inf], but got -1"),
    (lambda: clip_grad_norm_([], 1, 0), ValueError, "clip_grad_norm_: norm_type must lie in (0, inf], but got 0"),
    (
        lambda: clip_grad_norm_([], 1, 2, 1),
        TypeError,
        "clip_grad_norm_: error_if_nonfinite must be a bool, but got int",
    ),
    (lambda: clip_grad_norm_([1], 1), TypeError, "clip_grad_norm_: each of parameters must be a Tensor, but got int"),
    (lambda: clip_grad_value_([], -1), ValueError, "clip_grad_value_: clip_value must lie in [0, inf], but got -1"),
    (lambda: clip_grad_value_(3, 1), TypeError, "clip_grad_value_: parameters must be tensors, but got int"),
    (
        lambda: _clip_infinity(),
        ValueError,
        "clip_grad_norm_: the norm must be finite to clip by it, but got inf",
    ),
]


def _clip_infinity():
    (parameter,), _ = twins([np.array([INF])], None)
    clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True)


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
