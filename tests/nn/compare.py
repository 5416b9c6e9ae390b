"""Compare layers of needle with torch's, and with the draws and dtypes that they must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
import needle.nn.functional as F
from needle.optim.flat import Pool, State

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other


def normal(*shape, dtype="float64"):
    return np.asarray(np.random.standard_normal(shape), dtype)


def tensor(array, device, requires_grad=True):
    return ndl.Tensor(array, device=device, requires_grad=requires_grad)


def same_layout(name, array):
    return array


def linear_layout(name, array):
    """A parameter of needle's Linear, or its gradient, in the layout of torch's Linear."""
    return array.T if name == "weight" else array.reshape(-1)


def with_random_parameters(layer):
    """Redraw the parameters, so that none has a special value such as 0 or 1; returns the layer."""
    layer.load_state_dict({name: normal(*p.shape) for name, p in layer.named_parameters()}, strict=False)
    return layer


def copy_parameters(layer, twin, layout=same_layout):
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            value = dict(layer.named_parameters())[name].numpy()
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(layout(name, value))))


def assert_as_in_torch(layer, twin, x, device, layout=same_layout):
    """Compare values, first and second derivatives by x and all parameters, in float64.

    The differentiated scalar is a weighted sum of the result. The weights are leaves too, so even a layer that is
    linear in x has second derivatives.
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
    """`make()` returns a layer whose parameters equal `arrays()`; both advance the random stream equally."""
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


def arrays_in(value):
    """All arrays in a value, through containers, tensors and the state of optimizers."""
    if isinstance(value, ndl.Tensor):
        value = value.array
    if hasattr(value, "dtype"):
        yield value
    elif isinstance(value, (State, Pool)):
        yield from arrays_in(vars(value))
    elif isinstance(value, (dict, list, tuple)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(entry)
    elif type(value).__module__.startswith("needle.optim."):
        yield from arrays_in(vars(value))


def assert_floats_are(dtype, tensors):
    """All values in the graph of `tensors` have that dtype, or hold integers or bools.

    Of a tuple, that is the first: a normalization's statistics are in float64.
    """
    for node in ndl.autograd.find_topo_sort(tensors):
        for array in arrays_in(node.array[0] if isinstance(node, ndl.TensorTuple) else node.array):
            assert array.dtype == dtype or array.dtype.kind in "iub", (node.op, array.dtype, array.shape)


def assert_refused(name, x, arguments, options, error, message):
    """`functional.name` raises `error` with `message` for x and these arguments, and torch raises an error too."""
    with pytest.raises(error, match=message):
        getattr(F, name)(x, *arguments, **options)
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        getattr(torch.nn.functional, name)(torch.zeros(x.shape), *arguments, **options)
