"""Tensors filled with a constant, or with draws from NumPy's legacy global stream."""

from __future__ import annotations

from needle import backend, check, ops
from needle.autograd import Tensor
from needle.backend import cpu, default_device
from needle.backend_ndarray import BackendDevice
from needle.ops.operand import number


def rand(*shape, low=0.0, high=1.0, device=None, dtype="float32", requires_grad=False):
    """Uniform in [low, high): one `np.random.rand(*shape)`, scaled."""
    low, high = number("rand", low), number("rand", high)
    array = _device(device).rand(*_shape("rand", shape), dtype=dtype).array
    array *= high - low
    array += low
    return Tensor.make_const(array, requires_grad)


def randn(*shape, mean=0.0, std=1.0, device=None, dtype="float32", requires_grad=False):
    """Normal with `mean` and `std`: one `np.random.randn(*shape)`, scaled."""
    mean, std = number("randn", mean), number("randn", std)
    array = _device(device).randn(*_shape("randn", shape), dtype=dtype).array
    array *= std
    array += mean
    return Tensor.make_const(array, requires_grad)


def randb(*shape, p=0.5, device=None, dtype="bool", requires_grad=False):
    """True with probability p: where one `np.random.rand(*shape)` is at most p."""
    p = check.number("randb", "p", p, least=0, most=1)
    device = _device(device)
    array = cpu().rand(*_shape("randb", shape), dtype="float64").array <= p  # of which bools are sent, not floats
    return Tensor.make_const(device.asarray(device.asarray(array), dtype), requires_grad)


def constant(*shape, c=1.0, device=None, dtype="float32", requires_grad=False):
    """Every element c."""
    shape, c = _shape("constant", shape), number("constant", c)
    return Tensor.make_const(_device(device).full(shape, c, dtype), requires_grad)


def ones(*shape, device=None, dtype="float32", requires_grad=False):
    """Every element 1."""
    return constant(*_shape("ones", shape), c=1, device=device, dtype=dtype, requires_grad=requires_grad)


def zeros(*shape, device=None, dtype="float32", requires_grad=False):
    """Every element 0."""
    return constant(*_shape("zeros", shape), c=0, device=device, dtype=dtype, requires_grad=requires_grad)


def ones_like(x, *, device=None, dtype=None, requires_grad=False):
    """Ones of the shape of x, of its dtype and on its device unless others are named."""
    return ones(*x.shape, device=device or x.device, dtype=dtype or x.dtype, requires_grad=requires_grad)


def zeros_like(x, *, device=None, dtype=None, requires_grad=False):
    """Zeros of the shape of x, of its dtype and on its device unless others are named."""
    return zeros(*x.shape, device=device or x.device, dtype=dtype or x.dtype, requires_grad=requires_grad)


def from_dlpack(source):
    """A constant on the memory of another library's array, which speaks DLPack: nothing is copied.

    What the other library writes later is seen here, but not known to backward.
    """
    return Tensor.make_const(backend.from_dlpack(source))


def one_hot(n, i, *, device=None, dtype="float32", requires_grad=False):
    """(*I) integers in [0, n), of any dtype -> (*I, n): ones at the indices, zeros elsewhere."""
    encoded = ops.one_hot(n, i if isinstance(i, Tensor) else Tensor(i, device=device), dtype)
    return Tensor.make_const((device or encoded.device).asarray(encoded.array), requires_grad)


def _device(device):
    return default_device() if device is None else check.instance("init", "device", device, BackendDevice)


def _shape(op, shape):
    return tuple(check.integer(op, "shape", n, least=0) for n in shape)
