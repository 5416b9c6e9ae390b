"""needle: a small automatic-differentiation framework on NumPy and CuPy, made for training small CNNs."""

from typing import TYPE_CHECKING

from numpy import float16 as float16
from numpy import float32 as float32
from numpy import float64 as float64
from numpy import int8 as int8
from numpy import int16 as int16
from numpy import int32 as int32
from numpy import int64 as int64
from numpy import uint8 as uint8

from needle import autograd as autograd
from needle import backend_ndarray as backend_ndarray
from needle import backend_numpy as backend_numpy
from needle import backend_selection as backend_selection
from needle import checkpoint as checkpoint
from needle import data as data
from needle import init as init
from needle import metrics as metrics
from needle import nn as nn
from needle import ops as ops
from needle import optim as optim
from needle import outline as _outline  # registers the classes of values without arrays
from needle.anomaly import detect_anomaly as detect_anomaly
from needle.autograd import Tensor as Tensor
from needle.autograd import TensorTuple as TensorTuple
from needle.backend import allow_tf32 as allow_tf32
from needle.backend import get_rng_state as get_rng_state
from needle.backend import seed as manual_seed
from needle.backend import seed as seed
from needle.backend import set_default_device as set_default_device
from needle.backend import set_rng_state as set_rng_state
from needle.backend_ndarray import BackendDevice as BackendDevice
from needle.backend_ndarray import NDArray as NDArray
from needle.backend_ndarray import all_devices as all_devices
from needle.backend_ndarray import cpu as cpu
from needle.backend_ndarray import cpu_numpy as cpu_numpy
from needle.backend_ndarray import cuda as cuda
from needle.backend_ndarray import default_device as default_device
from needle.backend_selection import Device as Device
from needle.backend_selection import array_api as array_api
from needle.capture import capture as capture
from needle.checkpoint import load as load
from needle.checkpoint import save as save
from needle.derivatives import grad as grad
from needle.exports import public_names as _public_names
from needle.grad_mode import enable_grad as enable_grad
from needle.grad_mode import is_grad_enabled as is_grad_enabled
from needle.grad_mode import no_grad as no_grad
from needle.gradcheck import gradcheck as gradcheck
from needle.init import arange as arange
from needle.init import eye as eye
from needle.init import from_dlpack as from_dlpack
from needle.init import from_dlpack as from_numpy
from needle.init import full as full
from needle.init import full_like as full_like
from needle.init import linspace as linspace
from needle.init import ones as ones
from needle.init import ones_like as ones_like
from needle.init import rand as rand
from needle.init import rand_like as rand_like
from needle.init import randint as randint
from needle.init import randn as randn
from needle.init import randn_like as randn_like
from needle.init import randperm as randperm
from needle.init import tensor as as_tensor
from needle.init import tensor as tensor
from needle.init import zeros as zeros
from needle.init import zeros_like as zeros_like
from needle.kernels import conv_algorithm as conv_algorithm
from needle.nn.functional import conv1d as conv1d
from needle.nn.functional import conv2d as conv2d
from needle.nn.functional import conv3d as conv3d
from needle.ops import *
from needle.ops import clip as clamp
from needle.ops import concatenate as cat
from needle.ops import concatenate as concat
from needle.ops import divide as div
from needle.ops import equal as eq
from needle.ops import greater as gt
from needle.ops import greater_equal as ge
from needle.ops import less as lt
from needle.ops import less_equal as le
from needle.ops import logsoftmax as log_softmax
from needle.ops import matmul as bmm
from needle.ops import matmul as mm
from needle.ops import max as amax
from needle.ops import min as amin
from needle.ops import multiply as mul
from needle.ops import negate as neg
from needle.ops import not_equal as ne
from needle.ops import power as pow
from needle.ops import split as unbind
from needle.ops import subtract as sub
from needle.ops import summation as sum
from needle.ops import transpose as swapaxes
from needle.summary import summary as summary

__version__ = "0.1.0"

_LATE = ("distributed", "interop", "training")  # imported once they are asked for: a tenth of the time that all take
_EXTRA = ("onnx",)  # likewise, but a star import leaves out what needs a package that may not be there

if TYPE_CHECKING:
    from needle import distributed as distributed
    from needle import interop as interop
    from needle import onnx as onnx
    from needle import training as training
else:

    def __getattr__(name: str) -> object:
        if name in _LATE + _EXTRA:
            from importlib import import_module

            return import_module(f"needle.{name}")
        raise AttributeError(f"needle: the name must be one of this package, but got {name!r}")

    _MODULES = "array_api autograd backend_ndarray backend_numpy backend_selection"
    _MODULES += " checkpoint data init metrics nn ops optim"
    __all__ = sorted({*_MODULES.split(), *_LATE, *_public_names(globals())})

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE, *_EXTRA})
