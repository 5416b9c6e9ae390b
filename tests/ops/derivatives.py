"""Compare a function of needle with one of torch: its result, its first derivatives, and their derivatives."""

from __future__ import annotations

import numpy as np
import torch
from numpy.testing import assert_allclose

import needle as ndl


def assert_like_torch(function, torch_function, arrays, device, *, rtol=1e-10, atol=1e-10):
    """Compare f(*arrays) and its derivatives up to second order with torch's, in the dtype of `arrays`.

    For random directions v and u, the first derivatives are the gradients of ⟨v, f⟩ in every argument, the second ones
    the gradients of Σ ⟨u, first⟩ in every argument and in v.
    """
    expected = torch_function(*map(torch.tensor, arrays))
    draws = np.random.default_rng(0)
    v, *us = (draws.standard_normal(a.shape).astype(arrays[0].dtype) for a in (expected.numpy(), *arrays))
    results = by_needle(function, arrays, v, us, device)
    torch_results = by_torch(torch_function, arrays, v, us)
    for order, first, second in zip(("result", "first", "second"), results, torch_results, strict=True):
        for i, (result, reference) in enumerate(zip(first, second, strict=True)):
            assert result.shape == reference.shape, f"{order} {i}"
            assert result.dtype == reference.dtype, f"{order} {i}"
            assert_allclose(result, reference, rtol=rtol, atol=atol, err_msg=f"{order} {i}")


def by_needle(function, arrays, v, us, device):
    """(result), (first derivatives), (second derivatives), each a list of host arrays."""
    leaves = [ndl.Tensor(array, device=device) for array in arrays]
    v = ndl.Tensor(v, device=device)
    y = function(*leaves)
    y.backward(v)
    first = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    sum((grad * ndl.Tensor(u, device=device)).sum() for grad, u in zip(first, us, strict=True)).backward()
    second = [np.zeros_like(x.numpy()) if x.grad is None else x.grad.numpy() for x in (*leaves, v)]
    return [y.numpy()], [grad.numpy() for grad in first], second


def by_torch(function, arrays, v, us):
    """The same, computed by torch."""
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    v = torch.tensor(v, requires_grad=True)
    y = function(*leaves)
    first = torch.autograd.grad(y, leaves, v, create_graph=True)
    total = sum((grad * torch.tensor(u)).sum() for grad, u in zip(first, us, strict=True))
    second = torch.autograd.grad(total, (*leaves, v), materialize_grads=True)
    return [y.detach().numpy()], [grad.detach().numpy() for grad in first], [grad.numpy(force=True) for grad in second]
