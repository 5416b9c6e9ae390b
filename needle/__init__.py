"""needle: a small automatic-differentiation framework on NumPy and CuPy, made for training small CNNs."""

from needle import autograd, backend_ndarray, backend_numpy, backend_selection, data, init, nn, ops, optim
from needle.autograd import Tensor, TensorTuple
from needle.backend import seed, set_default_device
from needle.backend_ndarray import BackendDevice, NDArray, all_devices, cpu, cpu_numpy, cuda, default_device
from needle.backend_selection import Device, array_api
from needle.grad_mode import is_grad_enabled, no_grad
from needle.gradcheck import gradcheck
from needle.init import from_dlpack, ones, ones_like, zeros, zeros_like
from needle.kernels import conv_algorithm
from needle.nn.functional import conv1d, conv2d, conv3d
from needle.ops import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    "BackendDevice",
    "Device",
    "NDArray",
    "Tensor",
    "TensorTuple",
    "all_devices",
    "array_api",
    "autograd",
    "backend_ndarray",
    "backend_numpy",
    "backend_selection",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_algorithm",
    "cpu",
    "cpu_numpy",
    "cuda",
    "data",
    "default_device",
    "from_dlpack",
    "gradcheck",
    "init",
    "is_grad_enabled",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "seed",
    "set_default_device",
    "zeros",
    "zeros_like",
]
__all__ += ops.__all__
