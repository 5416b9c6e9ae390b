"""needle: a small automatic-differentiation framework on NumPy and CuPy, made for training small CNNs."""

from typing import TYPE_CHECKING

from needle import autograd as autograd
from needle import backend_ndarray as backend_ndarray
from needle import backend_numpy as backend_numpy
from needle import backend_selection as backend_selection
from needle import data as data
from needle import init as init
from needle import lazy as _lazy  # registers the classes of deferred values
from needle import nn as nn
from needle import ops as ops
from needle import optim as optim
from needle.autograd import Tensor as Tensor
from needle.autograd import TensorTuple as TensorTuple
from needle.backend import seed as seed
from needle.backend import set_default_device as set_default_device
from needle.backend_ndarray import BackendDevice as BackendDevice
from needle.backend_ndarray import NDArray as NDArray
from needle.backend_ndarray import all_devices as all_devices
from needle.backend_ndarray import cpu as cpu
from needle.backend_ndarray import cpu_numpy as cpu_numpy
from needle.backend_ndarray import cuda as cuda
from needle.backend_ndarray import default_device as default_device
from needle.backend_selection import Device as Device
from needle.backend_selection import array_api as array_api
from needle.exports import public_names as _public_names
from needle.grad_mode import is_grad_enabled as is_grad_enabled
from needle.grad_mode import no_grad as no_grad
from needle.gradcheck import gradcheck as gradcheck
from needle.init import from_dlpack as from_dlpack
from needle.init import ones as ones
from needle.init import ones_like as ones_like
from needle.init import zeros as zeros
from needle.init import zeros_like as zeros_like
from needle.kernels import conv_algorithm as conv_algorithm
from needle.nn.functional import conv1d as conv1d
from needle.nn.functional import conv2d as conv2d
from needle.nn.functional import conv3d as conv3d
from needle.ops import *

__version__ = "0.1.0"

if not TYPE_CHECKING:
    _MODULES = "array_api autograd backend_ndarray backend_numpy backend_selection data init nn ops optim"
    __all__ = sorted({*_MODULES.split(), *_public_names(globals())})
