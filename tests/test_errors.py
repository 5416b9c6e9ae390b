"""The error table: each message that needle can raise, with values that cause it.

The data package has its own tests. A `raise` that no row reaches fails `test_every_raise_has_a_row`.
"""

import ast
import operator
import re
import runpy
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle import autograd, backend_ndarray, init, nn, ops, optim
from needle.autograd import Op, Tensor, TensorOp, Value
from needle.backend import cuda_probe
from needle.backend import device as device_module
from needle.backend_ndarray import NDArray
from needle.data import DataLoader, NDArrayDataset
from needle.kernels import Window
from needle.kernels.gpu.batch import turn
from needle.nn import functional
from needle.ops.conv import Correlate
from tests import test_anomaly, test_capture, test_metrics, test_recording, test_summary
from tests.backend import test_cublas, test_cuda_graph, test_cuda_nccl
from tests.checkpoint import test_refusals as test_files
from tests.distributed import test_captured, test_gradients, test_joining, test_whole_batch
from tests.distributed import test_refusals as distributed_refusals
from tests.interop import test_foreign as interop_foreign
from tests.interop import test_torch as interop_torch
from tests.nn import test_attention, test_clip_grad, test_conv, test_hooks, test_recurrent
from tests.nn.functional import (
    test_activation,
    test_conv_errors,
    test_dropout,
    test_embedding,
    test_grid,
    test_linear,
    test_loss,
    test_margin_loss,
    test_norm,
    test_pad,
    test_pool,
    test_resampling,
    test_scale_norm,
    test_similarity,
    test_unpool,
)
from tests.nn.functional import test_attention as test_attention_function
from tests.onnx import (
    test_array_operators,
    test_hostile,
    test_layer_operators,
    test_linear_models,
    test_recurrent_operators,
)
from tests.onnx import test_export_refusals as export_refusals
from tests.onnx import test_refusals as onnx_refusals
from tests.onnx import test_windows as onnx_windows
from tests.ops import test_refusals
from tests.optim import test_average, test_groups, test_schedule_errors, test_state_dict
from tests.training import test_ranks
from tests.training import test_refusals as training_refusals

HINT = '; .astype("float32") converts'  # where float32 meets float64

SOURCES = Path(ndl.__file__).resolve().parent

X = ndl.ones(2, 3)
IMAGE = ndl.ones(1, 3, 5, 5)
WEIGHT = ndl.ones(2, 3, 3, 3)
DOUBLE = ndl.ones(2, 3, dtype="float64")
BYTES = ndl.ones(2, dtype="uint8")
ARRAY = NDArray(np.zeros((2, 3)))


def leaf(*shape, dtype="float32"):
    return ndl.ones(*shape, dtype=dtype, requires_grad=True)


def stepped(optimizer, grad):
    (parameter,) = optimizer.params
    parameter.grad = grad
    optimizer.step()


class _Unfinished(TensorOp):
    pass


class _Half(TensorOp):
    def compute(self, x):
        return x + x

    def gradient(self, out_grad, node):
        return out_grad[:1]


class _Twice(TensorOp):
    def compute(self, x):
        return x + x

    def gradient(self, out_grad, node):
        return out_grad, out_grad


class _Slope(TensorOp):
    def compute(self, x):
        return x * x

    def gradient(self, out_grad, node):
        return out_grad * node.inputs[0]


class _Elsewhere(np.ndarray):
    """The arrays of a device that has nothing but a name."""

    @classmethod
    def of_type(cls, kind):
        """An array that reports this device type to DLPack."""
        return types.SimpleNamespace(__dlpack__=None, __dlpack_device__=lambda: (kind, 0))


ELSEWHERE = backend_ndarray.BackendDevice("elsewhere", np)


@pytest.fixture(autouse=True)
def known_elsewhere(monkeypatch):
    """Make that device known by its class of arrays; a test before this one may have emptied the cache of classes."""
    monkeypatch.setitem(device_module._device_of_type, _Elsewhere, ELSEWHERE)


def elsewhere(*shape):
    """One tensor on that device."""
    yield ndl.Tensor.make_const(np.zeros(shape).view(_Elsewhere))


DENSE = Window((1,), ((0, 0),), (1,))
TILE, READ_ONLY_TILE = NDArray.make((8, 8))._handle, NDArray.wrap(np.frombuffer(bytes(256), "float32"))._handle


def tiled(a, b, out, m, n, p):
    """The product of tiled matrices in the memory of arrays of those shapes."""
    ndl.cpu().matmul_tiled(*(NDArray.make(shape)._handle for shape in (a, b, out)), m, n, p)


def with_backend(name):
    """Import the course's module with that value of NEEDLE_BACKEND."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEEDLE_BACKEND", name)
        return runpy.run_path(ndl.backend_selection.__file__)


def on_two_devices(function):
    for there in elsewhere(2, 3):
        function(X, there)


def with_cupy(cupy, function):
    """Call `function` on a machine with a GPU where `import cupy` returns that module (None: it is missing)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setattr(cuda_probe, "_cupy_problem", cuda_probe._cupy_problem.__wrapped__)
        patch.setattr(cuda_probe, "_probe", lambda: types.SimpleNamespace(problem=lambda index, patience: None))
        function()


def mixed_step(use):
    """Call `use` on an optimizer of two tensors, where the first has a gradient on another device."""
    for there in elsewhere(2):
        first, second = leaf(2), leaf(2)
        first.grad, second.grad = there, ndl.ones(2)
        use(optim.SGD([first, second], 0.1))


class _Broken:
    """A module whose version cannot be read."""

    @property
    def __version__(self):
        raise ImportError("it is broken")


def backward_twice():
    y = ops.exp(leaf(2))
    y.backward(retain_graph=False)
    y.backward()


def changed_input():
    x = leaf(2)
    y = (x * x).sum()
    x.cached_data.fill(2)
    y.backward()


def changed_result():
    y = ops.exp(leaf(2))
    y.cached_data.fill(2)
    y.sum().backward()


def without_gradient():
    with ndl.no_grad():
        y = leaf(2) * 2
    y.backward()


def without_weight():
    layer = nn.Linear(2, 1)
    layer.weight = None
    layer(ndl.ones(1, 2))


ROWS = [
    # ---- kernels of GPUs
    (lambda: turn(np.ones((2, 1, 3), "int64")), TypeError, "turn: x must be of uint8 or float32, but got int64"),
    (
        lambda: turn(np.ones((3, 1, 2), "uint8").T),
        ValueError,
        "turn: x must be row-major, but got strides (1, 2, 2) for shape (2, 1, 3)",
    ),
    # ---- argument rules, by some op that uses them
    (lambda: nn.Linear(2.5, 1), TypeError, "Linear: in_features must be an integer, but got 2.5"),
    (lambda: nn.Linear(True, 1), TypeError, "Linear: in_features must be an integer, but got True"),
    (lambda: nn.Linear(2, "3"), TypeError, "Linear: out_features must be an integer, but got '3'"),
    (lambda: nn.Linear(0, 1), ValueError, "Linear: in_features must be at least 1, but got 0"),
    (lambda: nn.Conv2d(3, 0, 3), ValueError, "Conv2d: out_channels must be at least 1, but got 0"),
    (lambda: init.zeros(2, -1), ValueError, "zeros: shape must be at least 0, but got -1"),
    (lambda: init.randn((2, 3), 4), TypeError, "randn: shape must be an integer, but got (2, 3)"),
    (lambda: init.one_hot(0, X), ValueError, "one_hot: n must be at least 1, but got 0"),
    (lambda: init.constant(1, c=float("inf"), dtype="int64"), ValueError,
     "constant: the value must lie in [-9223372036854775808, 9223372036854775807], the range of int64, but got inf"),
    (lambda: init.arange(-2, 300, dtype="int8"), ValueError,
     "arange: numbers must lie in [-128, 127], the range of int8, but got -2 to 299"),
    (lambda: init.randint(0, 300, 2, dtype="uint8"), ValueError,
     "randint: numbers must lie in [0, 255], the range of uint8, but got 0 to 299"),
    (lambda: init.randperm(200, dtype="int8"), ValueError,
     "randperm: numbers must lie in [-128, 127], the range of int8, but got 199"),
    (lambda: init.linspace(-1, 3, 5, dtype="uint8"), ValueError,
     "linspace: numbers must lie in [0, 255], the range of uint8, but got -1 to 3"),
    (lambda: init.full((2,), 1e6, dtype="float16"), ValueError,
     "full: the value must lie in [-65504.0, 65504.0], the range of float16, but got 1000000.0"),
    (lambda: ndl.cpu().full((2,), 300, "uint8"), ValueError,
     "full: fill_value must lie in [0, 255], the range of uint8, but got 300"),
    (lambda: ndl.cpu().rand(2, dtype="int32"), TypeError, "rand: dtype must be a floating one, but got int32"),
    (lambda: ndl.cpu().randn(2, dtype="bool"), TypeError, "randn: dtype must be a floating one, but got bool"),
    (lambda: init.rand(2, low=2, high=1), ValueError, "rand: low must not exceed high, but got 2 and 1"),
    (lambda: init.rand(2, high=float("inf")), ValueError, "rand: high must be finite, but got inf"),
    (lambda: init.randn(2, mean=float("nan")), ValueError, "randn: mean must be finite, but got nan"),
    (lambda: init.randn(2, std=-1), ValueError, "randn: std must be at least 0, but got -1"),
    (lambda: init.rand(2, dtype="int64"), TypeError, "rand: dtype must be a floating one, but got int64"),
    (lambda: init.xavier_normal(2, 2, gain="a"), TypeError, "xavier_normal: scalar must be a number, but got str"),
    (lambda: init.arange(1, 2, 0), ValueError, "arange: step must not be 0, but got 0"),
    (lambda: init.arange("a"), TypeError, "arange: stop must be a number, but got 'a'"),
    (lambda: init.arange(float("inf")), ValueError, "arange: stop must be finite, but got inf"),
    (lambda: init.tril(-1, 2), ValueError, "tril: rows must be at least 0, but got -1"),
    (lambda: init.tril(1, 2, 0.5), TypeError, "tril: diagonal must be an integer, but got 0.5"),
    (lambda: init.xavier_uniform(0, 0), ValueError, "xavier_uniform: fan must be at least 1, but got 0"),
    (lambda: init.xavier_normal(0.5, 2), TypeError, "xavier_normal: fan must be an integer, but got 2.5"),
    (lambda: init.kaiming_normal(0, 2), ValueError, "kaiming_normal: fan must be at least 1, but got 0"),
    (lambda: nn.Dropout("a"), TypeError, "Dropout: p must be a number, but got 'a'"),
    (lambda: nn.Dropout(True), TypeError, "Dropout: p must be a number, but got True"),
    (lambda: nn.Dropout(1.5), ValueError, "Dropout: p must lie in [0, 1], but got 1.5"),
    (lambda: functional.dropout(X, -0.5), ValueError, "dropout: p must lie in [0, 1], but got -0.5"),
    (lambda: init.randb(2, p=2), ValueError, "randb: p must lie in [0, 1], but got 2"),
    (lambda: optim.SGD([X], lr=-1), ValueError, "SGD: lr must lie in [0, inf], but got -1"),
    (lambda: optim.SGD([X], float("nan")), ValueError, "SGD: lr must lie in [0, inf], but got nan"),
    (lambda: optim.Adam([X], beta1=1), ValueError, "Adam: beta1 must lie in [0, 1), but got 1"),
    (lambda: optim.AdamW([X], beta2=-0.5), ValueError, "AdamW: beta2 must lie in [0, 1), but got -0.5"),
    (lambda: nn.Conv2d(3, 2, (3, 3, 3)), ValueError,
     "Conv2d: kernel_size must be one integer or 2, but got 3: (3, 3, 3)"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, stride=[1, 1, 1]), ValueError,
     "conv2d: stride must be one integer or 2, but got 3: (1, 1, 1)"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, padding=-1), ValueError, "conv2d: padding must be at least 0, but got -1"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, dilation=0), ValueError, "conv2d: dilation must be at least 1, but got 0"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, padding="sane"), ValueError,
     "conv2d: padding must be one of 'valid', 'same', but got 'sane'"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, stride=b"12"), TypeError,
     "conv2d: stride must be an integer, but got b'12'"),
    (lambda: X.sum(b"0"), TypeError, "summation: axis must be an integer, but got b'0'"),
    (lambda: X.sum((0, -2)), ValueError, "summation: axes must differ, but got (0, -2) for 2 dimensions"),
    (lambda: ops.flip(X, [1, 1]), ValueError, "flip: axes must differ, but got (1, 1) for 2 dimensions"),
    (lambda: X.mean(2), ValueError, "mean: axis must lie in [-2, 1], but got 2"),
    (lambda: X.max(-3), ValueError, "max: axis must lie in [-2, 1], but got -3"),
    (lambda: X.min("a"), TypeError, "min: axis must be an integer, but got 'a'"),
    (lambda: ops.logsumexp(X, 1.0), TypeError, "logsumexp: axis must be an integer, but got 1.0"),
    (lambda: ops.softmax(X, 2), ValueError, "softmax: axis must lie in [-2, 1], but got 2"),
    (lambda: ops.softmax(ndl.ones(), 1), ValueError, "softmax: axis must lie in [-1, 0], but got 1"),
    (lambda: ndl.ones().sum(1), ValueError, "summation: axis must lie in [-1, 0], but got 1"),
    (lambda: ops.logsoftmax(X, 2), ValueError, "logsoftmax: axis must lie in [-2, 1], but got 2"),
    (lambda: X.argmax(2), ValueError, "argmax: axis must lie in [-2, 1], but got 2"),
    (lambda: ops.split(ndl.ones()), ValueError, "split: axis must lie in [0, -1], but got 0"),
    (lambda: ops.stack([X, X], 3), ValueError, "stack: axis must lie in [-3, 2], but got 3"),
    (lambda: init.kaiming_uniform(2, 3, nonlinearity="swish"), ValueError,
     "kaiming_uniform: nonlinearity must be one of 'linear', 'sigmoid', 'tanh', 'relu', but got 'swish'"),
    (lambda: ops.tuple_get_item(X, 0), TypeError, "tuple_get_item: x must be a TensorTuple, but got Tensor"),
    (lambda: nn.Sequential(X), TypeError, "Sequential: module must be a Module, but got Tensor"),
    (lambda: nn.Residual(abs), TypeError, "Residual: fn must be a Module, but got builtin_function_or_method"),
    (lambda: optim.SGD([1.0]), TypeError, "SGD: each of params must be a Tensor, but got float"),
    (lambda: nn.Identity().load_state_dict([]), TypeError, "load_state_dict: state must be a Mapping, but got list"),
    (lambda: ops.stack([X, ndl.ones(3)]), ValueError,
     "stack: the first tensor and another must agree in shape, but got (2, 3) and (3,)"),
    (lambda: ops.make_tuple(X) + ops.make_tuple(X, X), ValueError,
     "tuple_add: a and b must agree in length, but got 1 and 2"),
    # ---- graph
    (lambda: _Unfinished()(X), NotImplementedError, "_Unfinished: compute is not defined"),
    (lambda: Op().gradient(X, X), NotImplementedError, "Op: gradient is not defined"),
    (lambda: Value().accumulate_grad(None, X, Op()), NotImplementedError, "Value: accumulate_grad is not defined"),
    (lambda: Tensor([1.0], device="cpu"), TypeError, "Tensor: device must be a Device, but got str"),
    (lambda: ndl.init.one_hot(3, [1], device="cpu"), TypeError, "init: device must be a Device, but got str"),
    (lambda: Tensor("abc"), TypeError, "Tensor: elements must be real numbers or bools, but got dtype <U3"),
    (lambda: Tensor([1j]), TypeError, "Tensor: elements must be real numbers or bools, but got dtype complex128"),
    (lambda: Tensor([None]), TypeError, "Tensor: elements must be real numbers or bools, but got dtype object"),
    (lambda: Tensor([1.0], dtype="complex64"), TypeError,
     "Tensor: dtype must be one of real numbers or bools, but got 'complex64'"),
    (lambda: Tensor([300], dtype="uint8"), ValueError,
     "Tensor: elements must lie in [0, 255], the range of uint8, but got 300"),
    (lambda: Tensor([[1, 2], [3]]), ValueError,
     re.compile(r"Tensor: elements must form an array, but NumPy says: .*inhomogeneous.*")),
    (lambda: setattr(leaf(2), "data", np.ones(2)), TypeError, "data: value must be a Tensor, but got ndarray"),
    (lambda: setattr(leaf(2), "data", ndl.ones(2, dtype="float64")), TypeError,
     "data: value must have dtype float32, but got float64"),
    (lambda: setattr(leaf(2), "data", leaf(3)), ValueError,
     "data: value must have shape (2,), up to axes of size 1, but got (3,)"),
    (lambda: type("Old", (TensorOp,), {"reads_inputs": False}), TypeError,
     "Old: an op must define saved_inputs, saves_output, but got their former names"),
    (lambda: X.item(), ValueError, "item: the tensor must have one element, but got shape (2, 3)"),
    (lambda: bool(X), ValueError, "item: the tensor must have one element, but got shape (2, 3)"),
    (lambda: float(ndl.ones(0)), ValueError, "item: the tensor must have one element, but got shape (0,)"),
    (lambda: np.asarray(leaf(2)), TypeError,
     "Tensor: a tensor that requires grad is not an array; call .detach() or .numpy() first"),
    (lambda: [there.__array__() for there in elsewhere(2)], TypeError,
     "Tensor: a tensor on elsewhere() is not a host array; call .numpy() to copy it"),
    (lambda: len(ndl.ones()), TypeError, "len: the tensor must have at least one dimension, but got shape ()"),
    (lambda: list(ndl.ones()), TypeError, "len: the tensor must have at least one dimension, but got shape ()"),
    (lambda: on_two_devices(ops.add), TypeError,
     "EWiseAdd: inputs must be on one device, but got cpu() and elsewhere()"),
    (lambda: on_two_devices(lambda x, there: there @ x.transpose()), TypeError,
     "MatMul: inputs must be on one device, but got elsewhere() and cpu()"),
    (lambda: X.backward(), RuntimeError,
     ("backward: the tensor must require grad, but this one of shape (2, 3) is a constant: none of its inputs requires "
      "grad, it was computed under no_grad, or a captured step returned it")),
    (without_gradient, RuntimeError,
     ("backward: the tensor must require grad, but this one of shape (2,) is a constant: none of its inputs requires "
      "grad, it was computed under no_grad, or a captured step returned it")),
    (lambda: leaf(2).backward(1.0), TypeError, "backward: out_grad must be a Tensor, but got float"),
    (lambda: leaf(2).backward(ndl.ones(3)), ValueError, "backward: out_grad must have shape (2,), but got (3,)"),
    (lambda: _Half()(leaf(2)).backward(), RuntimeError,
     "backward: gradients must have the shape of their tensor, (2,), but _Half() returned (1,)"),
    (lambda: _Twice()(leaf(2)).backward(), ValueError,
     "backward: an op must return one gradient for each of its 1 inputs, but _Twice() returned 2"),
    (backward_twice, RuntimeError,
     ("backward: the graph must exist, but an earlier backward released the result of Exp(); pass "
      "retain_graph=True to that one")),
    (changed_input, RuntimeError,
     ("backward: values that a gradient needs must not change in place, but input 0 of EWiseMul() with shape (2,) did "
      "after the op ran")),
    (changed_result, RuntimeError,
     ("backward: values that a gradient needs must not change in place, but the result of Exp() with shape (2,) did "
      "after the op ran")),
    # ---- devices and arrays
    (lambda: device_module.device_of([1]), TypeError, "device: arrays of a known device are needed, but got list"),
    (lambda: device_module.device_named("tpu"), ValueError,
     re.compile(r"device: the name must be one of cpu, cuda.*, but got tpu")),
    (lambda: ndl.cuda(-1), ValueError, "cuda: index must be at least 0, but got -1"),
    (lambda: ndl.set_default_device("cpu"), TypeError,
     "set_default_device: device must be a Device, but got str"),
    (lambda: ndl.set_rng_state({**ndl.get_rng_state(), "has_gauss": 2}), ValueError,
     "set_rng_state: state must be what get_rng_state returned, but got has_gauss 2"),
    (lambda: with_cupy(None, lambda: ndl.zeros(2, device=ndl.cuda())), RuntimeError,
     ("cuda: CuPy must be installed, by `pip install 'cupy-cuda12x[ctk]>=14'` (CUDA 12) or `pip install "
      "'cupy-cuda13x[ctk]>=14'` (CUDA 13), but got no module cupy")),
    (lambda: with_cupy(types.SimpleNamespace(__version__="13.6.0"), lambda: ndl.set_default_device(ndl.cuda())),
     RuntimeError,
     ("cuda: CuPy must be 14 or newer; install it by `pip install 'cupy-cuda12x[ctk]>=14'` (CUDA 12) or `pip install "
      "'cupy-cuda13x[ctk]>=14'` (CUDA 13), but got 13.6.0")),
    (lambda: with_cupy(_Broken(), lambda: Tensor([1.0], device=ndl.cuda())), RuntimeError,
     ("cuda: CuPy must be intact; reinstall it by `pip install 'cupy-cuda12x[ctk]>=14'` (CUDA 12) or `pip install "
      "'cupy-cuda13x[ctk]>=14'` (CUDA 13), but got ImportError: it is broken")),
    (lambda: ndl.from_dlpack(_Elsewhere.of_type(10)), TypeError,
     "from_dlpack: source must lie on a device of needle, but got DLPack's type 10"),
    (lambda: mixed_step(lambda optimizer: optimizer.step()), TypeError,
     "step: inputs must be on one device, but got cpu() and elsewhere()"),
    (lambda: mixed_step(lambda optimizer: optimizer.clip_grad_norm()), TypeError,
     "clip_grad_norm_: inputs must be on one device, but got elsewhere() and cpu()"),
    (lambda: [ARRAY.__setitem__(0, there.cached_data) for there in elsewhere(1, 3)], TypeError,
     "NDArray: operands must be on one device, but got cpu() and elsewhere()"),
    (lambda: [there.cached_data.__array__(copy=False) for there in elsewhere(2)], ValueError,
     "NDArray: an array on elsewhere() must be copied to become NumPy's, but got copy=False"),
    (lambda: ndl.seed(2**32), ValueError, "seed: number must be below 2 ** 32, but got 4294967296"),
    (lambda: ndl.from_dlpack([1.0]), TypeError, "from_dlpack: source must implement DLPack, but got list"),
    (lambda: leaf(2).__dlpack__(), TypeError,
     "Tensor: DLPack does not export a tensor that requires grad; call .detach() first"),
    (lambda: ndl.broadcast_to(X, (2, 2, 3)).__dlpack__(), BufferError,
     ("DLPack: memory must be writable, but got a read-only or repeated array of shape (2, 2, 3), as broadcasting "
      "makes it; copy it first")),
    (lambda: ndl.from_dlpack(np.zeros(2, np.dtype("f4").newbyteorder("S"))), BufferError,
     re.compile("from_dlpack: source must export its memory, but it says: .*byte order.*")),
    (lambda: ndl.from_dlpack(np.zeros(2, "complex64")), TypeError,
     "from_dlpack: elements must be real numbers or bools, but got dtype complex64"),
    (lambda: NDArray.wrap(np.ones((2, 3), order="F")).flat, ValueError,
     "flat: memory must be row-major, but got shape (2, 3) with strides (1, 2)"),
    (lambda: ARRAY[2], IndexError, "NDArray: an index must lie in [-2, 1], but got 2 for (2, 3)"),
    (lambda: ARRAY[0, -4], IndexError, "NDArray: an index must lie in [-3, 2], but got -4 for (2, 3)"),
    (lambda: ARRAY[0, 0, 0], IndexError, "NDArray: indices must be at most 2 for (2, 3), but got 3"),
    (lambda: ARRAY[..., 0, 0, 0], IndexError, "NDArray: indices must be at most 2 for (2, 3), but got 3"),
    (lambda: ARRAY[None], TypeError, "NDArray: an index other than a slice must be an integer, but got None"),
    (lambda: ARRAY[1.5], TypeError, "NDArray: an index other than a slice must be an integer, but got 1.5"),
    (lambda: ARRAY.reshape((4, 2)), ValueError,
     "reshape: shape must hold the 6 elements of (2, 3), but got (4, 2)"),
    (lambda: ARRAY.reshape((-1, -1)), ValueError,
     "reshape: shape must hold the 6 elements of (2, 3), but got (-1, -1)"),
    (lambda: ARRAY.reshape((-1, 4)), ValueError,
     "reshape: shape must hold the 6 elements of (2, 3), but got (-1, 4)"),
    (lambda: ARRAY.permute((0,)), ValueError,
     "permute: the array and axes must agree in number of axes, but got 2 and 1"),
    (lambda: ARRAY.permute((0, 0)), ValueError, "permute: axes must differ, but got (0, 0) for 2 dimensions"),
    (lambda: ARRAY.pad(((1, 1),)), ValueError, "pad: the array and axes must agree in number of axes, but got 2 and 1"),
    (lambda: ARRAY.pad(((1, -1), (0, 0))), ValueError, "pad: pair must be at least 0, but got -1"),
    (lambda: ARRAY.sum(axis=2), ValueError, "sum: axis must lie in [-2, 1], but got 2"),
    (lambda: ARRAY.maximum("a"), TypeError, "maximum: other must be an array or a number, but got str"),
    (lambda: ARRAY.item(), ValueError, "item: an array of one element is needed, but got shape (2, 3)"),
    (lambda: bool(ARRAY == ARRAY), ValueError, "item: an array of one element is needed, but got shape (2, 3)"),
    (lambda: [ARRAY + there.cached_data for there in elsewhere(2, 3)], TypeError,
     "NDArray: operands must be on one device, but got cpu() and elsewhere()"),
    (lambda: ARRAY.as_strided((3, 3), (3, 1)), ValueError,
     "as_strided: elements must lie in the memory of 6, but shape (3, 3) with strides (3, 1) at offset 0 needs [0, 9)"),
    (lambda: ARRAY[1:].as_strided((2,), (-4,)), ValueError,
     "as_strided: elements must lie in the memory of 6, but shape (2,) with strides (-4,) at offset 3 needs [-1, 4)"),
    (lambda: ARRAY.as_strided((3, 3), (3,)), ValueError,
     "as_strided: shape and strides must agree in rank, but got 2 and 1"),
    (lambda: NDArray.make((2, 2), handle=ARRAY._handle, offset=3), ValueError,
     "make: elements must lie in the memory of 6, but shape (2, 2) with strides (2, 1) at offset 3 needs [3, 7)"),
    (lambda: NDArray.make((2, -1)), ValueError, "make: shape must be at least 0, but got -1"),
    (lambda: tiled((8, 8), (8, 8), (8, 8), 8, 8, 9), ValueError,
     "matmul_tiled: sizes must be multiples of 8, but b has (8, 9)"),
    (lambda: tiled((8, 8), (8, 16), (8, 8), 8, 8, 16), ValueError,
     "matmul_tiled: the matrix and the buffer of out must agree in size, but got 128 and 64"),
    (lambda: tiled((8, 8), (8, 8), (8, 8), -8, -8, -8), ValueError,
     "matmul_tiled: sizes must be at least 0, but got -8"),
    (lambda: ndl.cpu().matmul_tiled(TILE, TILE, READ_ONLY_TILE, 8, 8, 8), ValueError,
     "matmul_tiled: the memory of out must be writable, but got a read-only array's"),
    (lambda: NDArray.make((2,), handle=np.zeros(2)), TypeError, "make: handle must be a Buffer, but got ndarray"),
    (lambda: NDArray.make((2,), offset=-1), ValueError, "make: offset must be at least 0, but got -1"),
    # ---- op classes, called without their functions
    (lambda: Window((0,), ((0, 0),), (1,)), ValueError, re.compile(
        r"Window: sizes must be positive, of one rank, and padding not negative, but got Window\(stride=\(0,\), .*")),
    (lambda: Window((1.5,), ((0, 0),), (1,)), TypeError, re.compile(
        r"Window: sizes must be of Python's type int, but got Window\(stride=\(1.5,\), .*")),
    (lambda: Correlate(DENSE)(X, ndl.ones(1, 1, 2)), ValueError, re.compile(
        r"correlate: shapes must fit together, but got x \(2, 3\), w \(1, 1, 2\) and y None with Window\(.*\)")),
    (lambda: Correlate(DENSE)(X, ndl.ones(1, 1, 2, dtype="float64")), TypeError,
     "correlate: arrays must have one dtype, but got float32 and float64"),
    (lambda: NDArray([1]).__setitem__(0, NDArray([1.5])), TypeError,
     "NDArray: a value must fit dtype int64, but got float64"),
    (lambda: NDArray([1]).max(0, 1), TypeError, "max: keepdims must be a bool, but got int"),
    (lambda: NDArray([1]).sum(where=None), TypeError, "sum: arguments must be axis and keepdims, but got where=None"),
    # ---- the course's modules
    (lambda: ndl.gone, AttributeError, "needle: the name must be one of this package, but got 'gone'"),
    (lambda: autograd.TENSORS, AttributeError, "autograd: the name must be one of this module, but got 'TENSORS'"),
    (lambda: with_backend("cupy"), ValueError, "needle: NEEDLE_BACKEND must be one of 'nd', 'np', but got 'cupy'"),
    # ---- operands
    (lambda: ops.add_scalar(X, "a"), TypeError, "add_scalar: scalar must be a number, but got str"),
    (lambda: ops.mul_scalar(X, [2]), TypeError, "mul_scalar: scalar must be a number, but got list"),
    (lambda: ops.divide_scalar(X, np.ones(2)), TypeError, "divide_scalar: scalar must be a number, but got ndarray"),
    (lambda: ops.power_scalar(X, np.array([1j])), TypeError, "power_scalar: scalar must be a number, but got ndarray"),
    (lambda: ops.clip(X, "a", 1), TypeError, "clip: scalar must be a number, but got str"),
    (lambda: ops.pad(X, ((1, 1), (1, 1)), "a"), TypeError, "pad: scalar must be a number, but got str"),
    (without_weight, TypeError,
     "Linear: operands must be tensors, arrays, rectangular lists or numbers, but got NoneType"),
    (lambda: X + "a", TypeError, "add: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: None - X, TypeError,
     "subtract: operands must be tensors, arrays, rectangular lists or numbers, but got NoneType"),
    (lambda: X * b"a", TypeError,
     "multiply: operands must be tensors, arrays, rectangular lists or numbers, but got bytes"),
    (lambda: X / object(), TypeError,
     "divide: operands must be tensors, arrays, rectangular lists or numbers, but got object"),
    (lambda: [[1, 2], [3]] @ X, TypeError,
     "matmul: operands must be tensors, arrays, rectangular lists or numbers, but got list"),
    (lambda: X**1j, TypeError,
     "power: operands must be tensors, arrays, rectangular lists or numbers, but got complex"),
    (lambda: X < "a", TypeError, "less: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: ops.exp("a"), TypeError,
     "exp: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: ops.reshape(None, ()), TypeError,
     "reshape: operands must be tensors, arrays, rectangular lists or numbers, but got NoneType"),
    (lambda: ops.sum_to("a", ()), TypeError,
     "sum_to: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: ops.make_tuple(X, None), TypeError,
     "make_tuple: operands must be tensors, arrays, rectangular lists or numbers, but got NoneType"),
    (lambda: ops.stack([X, "a"]), TypeError,
     "stack: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: X + ndl.ones(2), ValueError, "add: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: X - ndl.ones(3, 3), ValueError, "subtract: shapes must broadcast, but got (2, 3) and (3, 3)"),
    (lambda: X * np.ones((0, 3)), ValueError, "multiply: shapes must broadcast, but got (2, 3) and (0, 3)"),
    (lambda: ops.equal(X, [1, 2]), ValueError, "equal: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: ops.maximum(X, [1, 2]), ValueError, "maximum: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: ops.where(X > 0, X, ndl.ones(2)), ValueError, "where: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: ops.where(X > 0, ndl.ones(2), 0), ValueError,
     "where: shapes must broadcast, but got (2, 3) and (2,) and ()"),
    (lambda: ndl.ones(5, 2, 3) @ ndl.ones(4, 3, 2), ValueError, "matmul: shapes must broadcast, but got (5,) and (4,)"),
    (lambda: ops.broadcast_to(X, (2, 2)), ValueError, "broadcast_to: shapes must broadcast, but got (2, 3) and (2, 2)"),
    (lambda: ops.sum_to(X, (2,)), ValueError, "sum_to: shapes must broadcast, but got (2, 3) and (2,)"),
    # ---- ops
    (lambda: ops.standardize(ndl.ones(0, 3), 0), ValueError,
     "standardize: axes must hold at least one element, but got axes (0,) of shape (0, 3)"),
    (lambda: ops.where(X, X, 0), TypeError, "where: condition must be of bools, but got dtype float32"),
    (lambda: X.astype("complex64"), TypeError,
     "astype: dtype must be one of real numbers or bools, but got 'complex64'"),
    (lambda: X.astype("float33"), TypeError, "astype: dtype must be one of real numbers or bools, but got 'float33'"),
    (lambda: X.sum(foo=1), TypeError,
     "summation: arguments must be among axes, keepdims, axis, dim, dims, keepdim, but got foo=1"),
    (lambda: X.sum(0, dim=1), TypeError, "summation: axes must be given once, but got 0 and dim=1"),
    (lambda: X.clip(), ValueError, "clip: at least one bound must be given, but got low=None and high=None"),
    (lambda: BYTES + 300, ValueError, "add_scalar: scalar must lie in [0, 255], the range of uint8, but got 300"),
    (lambda: BYTES + ndl.ones(2, dtype="int64") * ndl.ones(2, dtype="uint64"), TypeError,
     re.compile("multiply: dtypes must have a common integer dtype, but got u?int64 and u?int64")),
    (lambda: Tensor([1]) ** -1, ValueError,
     "power_scalar: an integer exponent of integers must be at least 0, but got -1"),
    (lambda: BYTES ** Tensor([1, -2]), ValueError,
     "power: integer exponents of integers must be at least 0, but got -2"),
    (lambda: -(BYTES > 0), TypeError, "negate: x must be of numbers, but got dtype bool"),
    (lambda: (BYTES > 0) - (BYTES > 1), TypeError,
     "subtract: one operand must not be of bools, but got two; use not_equal"),
    (lambda: X[1.5], TypeError, "getitem: index arrays must be of integers or bools, but got dtype float64"),
    (lambda: X[X], TypeError, "getitem: index arrays must be of integers or bools, but got dtype float32"),
    (lambda: range(DOUBLE), TypeError, "index: the tensor must be one integer, but got dtype float64, shape (2, 3)"),
    (lambda: range(Tensor([2])), TypeError, "index: the tensor must be one integer, but got dtype int64, shape (1,)"),
    (
        lambda: operator.setitem(leaf(2), 0, 1),
        RuntimeError,
        "setitem: x[index] = value must run under no_grad, but x requires grad",
    ),
    (
        lambda: operator.setitem(X, 0, leaf(3)),
        RuntimeError,
        "setitem: x[index] = value must run under no_grad, but value requires grad",
    ),
    (lambda: operator.setitem(ops.argmax(X, 1), 0, 1.5), TypeError,
     "setitem: value must fit dtype int64, but got float32"),
    (lambda: operator.setitem(X, 0, [1, 2]), ValueError, "setitem: shapes must broadcast, but got (2,) and (3,)"),
    (lambda: operator.setitem(X, 0, X), ValueError,
     "setitem: value must broadcast to x[index] of shape (3,), but got shape (2, 3)"),
    (
        lambda: operator.setitem(X, 0, next(elsewhere(3))),
        TypeError,
        "setitem: x and value must be on one device, but got cpu() and elsewhere()",
    ),
    (
        lambda: operator.setitem(ndl.ones(3).broadcast_to((2, 3)), 0, 1),
        ValueError,
        ("setitem: x must have writable memory, but got a read-only or repeated array of shape (2, 3), as "
         "broadcasting makes it; copy it first"),
    ),
    (lambda: operator.setitem(X, 1.5, 0), TypeError,
     "setitem: index arrays must be of integers or bools, but got dtype float64"),
    (lambda: ops.flatten(X, 1, 0), ValueError, "flatten: start_dim must not come after end_dim, but got 1 and 0"),
    (lambda: IMAGE.t(), ValueError,
     "t: x must have at most 2 axes, but got shape (1, 3, 5, 5); x.mT exchanges the last two"),
    (lambda: (leaf(2) * 2).requires_grad_(False), RuntimeError,
     "requires_grad_: x must be a leaf, but got the result of MulScalar(scalar=2); detach it first"),
    (lambda: X.to("cuda"), TypeError, "to: device must be a Device or a dtype, but got 'cuda'"),
    (lambda: X.split([1, 2]), ValueError, "split: the sum of sizes and axis 0 must agree in size, but got 3 and 2"),
    (lambda: X.chunk(0), ValueError, "chunk: chunks must be at least 1, but got 0"),
    (lambda: init.randint(3, 3), ValueError, "randint: low must be less than high, but got 3 and 3"),
    (lambda: init.linspace(0, float("inf")), ValueError, "linspace: stop must be finite, but got inf"),
    (lambda: ndl.grad(leaf(2).sum(), leaf(2)), RuntimeError,
     ("grad: outputs must depend on each of inputs, but they do not on one of shape (2,); "
      "allow_unused=True makes its gradient None")),
    (lambda: ndl.grad([1.0], leaf(2)), TypeError, "grad: each of outputs must be a Tensor, but got float"),
    (lambda: ops.one_hot(2.5, X), TypeError, "one_hot: n must be an integer, but got 2.5"),
    (lambda: ops.one_hot(2**62, [0]), ValueError,
     "one_hot: the result must have fewer than 2 ** 60 elements, but got 1 x 4611686018427387904"),
    (lambda: ops.one_hot(2, [True]), TypeError, "one_hot: indices must be integers, but got dtype bool"),
    (lambda: X[2], IndexError,
     "getitem: index must fit shape (2, 3), but the array says: index 2 is out of bounds for axis 0 with size 2"),
    (lambda: X[[0, -3]], IndexError,
     "getitem: index must fit shape (2, 3), but the array says: index -3 is out of bounds for axis 0 with size 2"),
    (lambda: X[0, 0, 0], IndexError,
     re.compile(r"getitem: index must fit shape \(2, 3\), but the array says: too many indices .*")),
    (lambda: X[::0], ValueError,
     "getitem: index must fit shape (2, 3), but the array says: slice step cannot be zero"),
    (lambda: X[0.5:], TypeError,
     re.compile(r"getitem: index must fit shape \(2, 3\), but the array says: slice indices must be integers .*")),
    (lambda: X @ 2, ValueError, "matmul: operands must have at least 1 axis, but got shapes (2, 3) and ()"),
    (lambda: X @ X, ValueError, "matmul: the inner sizes must agree, but got shapes (2, 3) and (2, 3)"),
    (lambda: X @ ndl.ones(2), ValueError, "matmul: the inner sizes must agree, but got shapes (2, 3) and (2,)"),
    (lambda: ndl.ones(0, 3).max(), ValueError,
     "max: axes must hold at least one element, but got axes (0, 1) of shape (0, 3)"),
    (lambda: ndl.ones(0, 3).min(0), ValueError,
     "min: axes must hold at least one element, but got axes (0,) of shape (0, 3)"),
    (lambda: ndl.ones(0).argmax(), ValueError,
     "argmax: axes must hold at least one element, but got axes (0,) of shape (0,)"),
    (lambda: ndl.ones(0, 3).argmax(0), ValueError,
     "argmax: axes must hold at least one element, but got axes (0,) of shape (0, 3)"),
    (lambda: X.reshape((4, 2)), ValueError, "reshape: shape must hold the 6 elements of (2, 3), but got (4, 2)"),
    (lambda: X.reshape((4, -1)), ValueError, "reshape: shape must hold the 6 elements of (2, 3), but got (4, 1)"),
    (lambda: X.reshape((-1, -1)), ValueError, "reshape: shape must hold the 6 elements of (2, 3), but got (-1, -1)"),
    (lambda: ndl.ones(0, 3).reshape((0, -1)), ValueError,
     "reshape: shape must hold the 0 elements of (0, 3), but got (0, -1)"),
    (lambda: X.reshape(2.5), TypeError, "reshape: shape must be an integer, but got 2.5"),
    (lambda: X.reshape((2, -3)), ValueError, "reshape: shape must be at least -1, but got -3"),
    (lambda: X.permute((0,)), ValueError, "permute: axes must name each of the 2 axes of (2, 3) once, but got (0,)"),
    (lambda: X.permute((0, 0)), ValueError, "permute: axes must differ, but got (0, 0) for 2 dimensions"),
    (lambda: ndl.ones(3).transpose(), ValueError, "transpose: x must have at least 2 axes, but got shape (3,)"),
    (lambda: X.transpose((0,)), ValueError, "transpose: axes must be two axes, but got (0,)"),
    (lambda: X.broadcast_to((1, 3)), ValueError,
     "broadcast_to: shape must be one that (2, 3) repeats to, but got (1, 3)"),
    (lambda: X.broadcast_to(3), ValueError, "broadcast_to: shape must be one that (2, 3) repeats to, but got (3,)"),
    (lambda: X.broadcast_to("ab"), TypeError, "broadcast_to: shape must be an integer, but got 'ab'"),
    (lambda: ops.sum_to(X, (5, 2, 3)), ValueError,
     "sum_to: shape must be one that repeats to (2, 3), but got (5, 2, 3)"),
    (lambda: ops.dilate(X, 0, -1), ValueError, "dilate: dilation must be at least 0, but got -1"),
    (lambda: ops.dilate(X, "a", 1), TypeError, "dilate: axis must be an integer, but got 'a'"),
    (lambda: ops.undilate(X, (0, -2), 1), ValueError, "undilate: axes must differ, but got (0, -2) for 2 dimensions"),
    (lambda: ops.pad(X, 1), TypeError, "pad: pairs must be a Sequence, but got int"),
    (lambda: ops.pad(X, ((1, 1),)), ValueError, "pad: pairs must hold one pair for each axis of (2, 3), but got 1"),
    (lambda: ops.pad(X, ((1, 1, 1), (0, 0))), ValueError, "pad: pair must be one integer or 2, but got 3: (1, 1, 1)"),
    (lambda: ops.pad(X, ((-1, -2), (0, 0))), ValueError,
     "pad: negative pairs must not crop an axis of (2, 3) below 0, but got ((-1, -2), (0, 0))"),
    (lambda: ops.stack(X), TypeError, "stack: tensors must be a list or tuple of tensors, but got Tensor"),
    (lambda: ops.stack([]), ValueError, "stack: at least one tensor is needed, but got none"),
    (lambda: ops.concatenate(()), ValueError, "concatenate: at least one tensor is needed, but got none"),
    (lambda: ops.concatenate([X, ndl.ones(2, 4)]), ValueError,
     "concatenate: the first tensor and another must agree in all sizes but axis 0, but got (3,) and (4,)"),
    (lambda: ops.concatenate([X, ndl.ones(2)], 1), ValueError,
     "concatenate: the first tensor and another must agree in rank, but got 2 and 1"),
    (lambda: ops.split(X)[2], IndexError, "tuple_get_item: index must lie in [-2, 1], but got 2"),
    (lambda: ops.split(X)[0.5], TypeError, "tuple_get_item: index must be an integer, but got 0.5"),
    (lambda: ops.split(X) + 1, TypeError, "tuple_add: b must be a TensorTuple, but got int"),
    # ---- convolution and pooling
    (lambda: ndl.conv2d(IMAGE, ndl.ones(2, 3, 3)), ValueError,
     "conv2d: x (N, C, *S) and weight (O, C/G, *K) must agree in rank, but got (1, 3, 5, 5) and (2, 3, 3)"),
    (lambda: ndl.conv2d(IMAGE, ndl.ones(2, 4, 3, 3)), ValueError,
     "conv2d: weight (2, 4, 3, 3) reads 4 channels per group x groups=1, but x (1, 3, 5, 5) has 3 channels"),
    (lambda: ndl.conv2d(IMAGE, ndl.ones(2, 1, 3, 3), groups=3), ValueError,
     "conv2d: groups must divide the 2 out-channels of weight, but got 3"),
    (lambda: ops.conv(ndl.ones(5, 5, 3), WEIGHT), ValueError,
     "conv: x must be (N, H, W, C) and weight (K, L, C, O), but got shapes (5, 5, 3) and (2, 3, 3, 3)"),
    (lambda: ndl.conv2d(ndl.ones(1, 3, 0, 5), WEIGHT), ValueError,
     "conv2d: the sizes of x must be at least 1, but got (1, 3, 0, 5)"),
    (lambda: ndl.conv2d(IMAGE, ndl.ones(2, 3, 0, 3)), ValueError,
     "conv2d: kernel sizes must be at least 1, but got (0, 3)"),
    (lambda: ndl.conv1d(ndl.ones(1, 3, 4), ndl.ones(2, 3, 3), dilation=2), ValueError,
     ("conv1d: the kernel must fit into the padded input, but its extent is (5,) "
      "and the padded size of x (1, 3, 4) is (4,)")),
    (lambda: ndl.conv2d(IMAGE, ndl.ones(2, 3, 3, 3, dtype="float64")), TypeError,
     "conv2d: x and weight must have one floating dtype, but got float32 and float64" + HINT),
    (lambda: functional.max_pool2d(Tensor([[[[True]]]]), 1), TypeError,
     "max_pool2d: x must have a floating dtype, but got bool"),
    (lambda: functional.max_pool1d(X[0], 2), ValueError,
     "max_pool1d: x must have 3 axes, (N, C, *S), or 2, (C, *S), of which only N may be 0, but got shape (3,)"),
    (lambda: functional.avg_pool2d(IMAGE, 3, padding=(1, 2)), ValueError,
     "avg_pool2d: padding must be at most half of the kernel (3, 3), but got (1, 2)"),
    (lambda: functional.max_pool2d(IMAGE, 6), ValueError,
     ("max_pool2d: the kernel must fit into the padded input, but its extent is (6, 6) "
      "and the padded size of x (1, 3, 5, 5) is (5, 5)")),
    # ---- initialisers
    (lambda: init.conv_fans((3, 3)), ValueError, "conv_fans: shape must be (O, C/G, *K), but got (3, 3)"),
    # ---- networks
    (lambda: nn.Module()(X), NotImplementedError, "Module: forward is not defined"),
    (lambda: nn.Linear(2, 1, bias=False).load_state_dict({"bias": X}), ValueError,
     "load_state_dict: names and shapes must agree, but got missing weight (2, 1); unexpected bias (2, 3)"),
    (lambda: nn.Linear(2, 1, bias=False).load_state_dict({"weight": X}), ValueError,
     "load_state_dict: names and shapes must agree, but got weight has shape (2, 1), not (2, 3)"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError,
     "Conv2d: groups must divide in_channels and out_channels, but got groups=2 for 3 and 4"),
    (lambda: nn.Linear(2, 1)(X), ValueError, "Linear: x must have 2 features in its last axis, but got (2, 3)"),
    (lambda: nn.BatchNorm1d(3)(ndl.ones(2, 4)), ValueError,
     "BatchNorm1d: x must have 2 or 3 axes and 3 channels, but got shape (2, 4)"),
    (lambda: nn.BatchNorm2d(3)(X), ValueError,
     "BatchNorm2d: x must have 4 axes and 3 channels, but got shape (2, 3)"),
    (lambda: nn.BatchNorm1d(3)(ndl.ones(1, 3)), ValueError,
     "BatchNorm1d: each channel must have more than 1 value in training, but got x (1, 3)"),
    (lambda: setattr(nn.BatchNorm1d(3, track_running_stats=False), "track_running_stats", True), AttributeError,
     "BatchNorm1d: track_running_stats must be True from the start, but got True later"),
    (lambda: setattr(nn.Linear(2, 1), "in_features", 3), AttributeError,
     "Linear: in_features must stay 2, for which the layer was made, but got 3; make a new layer"),
    (lambda: nn.Identity().register_buffer("forward", X), ValueError,
     "register_buffer: name must be new, not empty and without a dot, but got 'forward'"),
    (lambda: nn.Identity().state_dict(copy=1), TypeError, "state_dict: copy must be a bool, but got int"),
    (lambda: nn.Identity().to("int64"), TypeError,
     "to: device must be a Device and dtype a floating dtype, but got 'int64' and None"),
    (lambda: nn.Identity().to(), TypeError,
     "to: device must be a Device and dtype a floating dtype, but got None and None"),
    (lambda: nn.BatchNorm1d(2).load_state_dict({"num_batches_tracked": np.array(2.5)}, strict=False), ValueError,
     "load_state_dict: num_batches_tracked must hold values of int64, but got some that it cannot hold"),
    (lambda: nn.Identity().load_state_dict({"weight": None}), TypeError,
     "load_state_dict: weight must be an array of numbers, but got NoneType"),
    (lambda: nn.ModuleDict({"a.b": nn.ReLU()}), ValueError,
     "ModuleDict: key must not be empty or have a dot, but got 'a.b'"),
    (lambda: ndl.conv2d(X, WEIGHT), ValueError,
     "conv2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), but got shape (2, 3)"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, ndl.ones(3)), ValueError,
     "conv2d: bias must have the shape (2,) of out-channels, but got (3,)"),
    (lambda: ndl.conv2d(IMAGE, WEIGHT, ndl.ones(2, dtype="float64")), TypeError,
     "conv2d: x and weight and bias must have one floating dtype, but got float32 and float32 and float64" + HINT),
    (lambda: functional.cross_entropy(X, ndl.ones(3)), ValueError,
     "cross_entropy: target must hold class indices (2,) or probabilities (2, 3) for x (2, 3), but got (3,)"),
    (lambda: functional.cross_entropy(ndl.ones(0, 3), ndl.ones(0)), ValueError,
     "cross_entropy: the batch must not be empty, but got x of shape (0, 3)"),
    (lambda: functional.cross_entropy(X, Tensor([0, 3])), ValueError,
     "cross_entropy: targets must lie in [0, 2], but got 0 to 3"),
    (lambda: nn.SoftmaxLoss()(X, Tensor([0])), ValueError,
     "SoftmaxLoss: x (N, C) and target (N,) are needed, but got (2, 3) and (1,)"),
    (lambda: nn.CrossEntropyLoss()(X, Tensor([-1, 2])), ValueError,
     "cross_entropy: targets must lie in [0, 2], but got -1 to 2"),
    (lambda: ops.hardtanh(X, 2, 1), ValueError, "hardtanh: low must not exceed high, but got 2 and 1"),
    (lambda: functional.pad(Tensor([1]), (1, 1), value=float("nan")), ValueError,
     re.compile(r"pad: value must lie in \[-\d+, \d+\], the range of int64, but got nan")),
    (lambda: ops.pad(BYTES, ((1, 1),), 300), ValueError,
     "pad: value must lie in [0, 255], the range of uint8, but got 300"),
    (lambda: nn.Flatten(2, 1)(IMAGE), ValueError,
     "Flatten: start_dim must not come after end_dim, but got 2 and 1 for shape (1, 3, 5, 5)"),
    (lambda: nn.BatchNorm2d(4, 1e-5, 0.1, "cpu"), TypeError, "init: device must be a Device, but got str"),
    (lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"), ValueError,
     "ConvTranspose2d: padding_mode must be one of 'zeros', but got 'reflect'"),
    (lambda: on_two_devices(lambda x, there: functional.linear(x, there)), TypeError,
     "linear: x and weight must be on one device, but got cpu() and elsewhere()"),
    (lambda: on_two_devices(lambda x, there: functional.conv1d(x, ndl.ones(3, 2, 1), there[0])), TypeError,
     "conv1d: x and weight and bias must be on one device, but got cpu() and cpu() and elsewhere()"),
    (lambda: ndl.conv2d(IMAGE, ndl.ones(0, 3, 3, 3)), ValueError,
     "conv2d: weight must have at least 1 out-channel, but got (0, 3, 3, 3)"),
    # ---- optimizers
    (lambda: optim.SGD(X), TypeError, "SGD: params must be a sequence of tensors, but got Tensor"),
    (lambda: optim.Adam(1), TypeError, "Adam: params must be a sequence of tensors, but got int"),
    (lambda: optim.SGD([]), ValueError, "SGD: params must hold at least one tensor, but got none"),
    (lambda: optim.Adam([Tensor([1])]), TypeError, "Adam: params must have floating dtypes, but got int64"),
    (lambda: stepped(optim.SGD([leaf(2)]), ndl.ones(3)), ValueError,
     "step: a gradient must have its tensor's shape (2,), but got (3,)"),
    (lambda: stepped(optim.Optimizer([leaf(2)], 0.1, 0), ndl.ones(2)), NotImplementedError,
     "Optimizer: the rule is not defined"),
    (lambda: optim.SGD([leaf(2)]).clip_grad_norm(), ValueError,
     "clip_grad_norm: at least one parameter must have a gradient, but got none"),
    (lambda: optim.SGD([leaf(2)]).clip_grad_norm(-1), ValueError,
     "clip_grad_norm_: max_norm must lie in [0, inf], but got -1"),
    (lambda: optim.SGD([X], nesterov=True), ValueError,
     "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.0 and 0.0"),
    (lambda: optim.SGD([X], lr=float("inf")), ValueError, "SGD: lr must be finite, but got inf"),
    (lambda: setattr(optim.SGD([X]), "lr", -1), ValueError, "SGD: lr must lie in [0, inf], but got -1"),
    (lambda: optim.SGD([X, X]), ValueError, "SGD: params must differ, but got one of shape (2, 3) twice"),
    (lambda: optim.SGD([leaf(2) * 2]), ValueError,
     "SGD: params must be leaves, but got the result of MulScalar(scalar=2)"),
    (lambda: optim.SGD([X], nesterov=1), TypeError, "SGD: nesterov must be a bool, but got int"),
    (lambda: optim.Adam([X], betas=0.9), TypeError, "Adam: betas must be a pair of numbers, but got 0.9"),
    (lambda: optim.Adam([X], beta1=0.5, betas=(0.9, 0.99)), ValueError,
     "Adam: betas must not come with beta1 or beta2, but got (0.9, 0.99)"),
    (lambda: stepped(optim.SGD([ndl.ones(3).broadcast_to((2, 3))]), X), ValueError,
     ("step: each parameter must have writable memory, but got a read-only or repeated array of shape (2, 3), as "
      "broadcasting makes it; copy it first")),
    # ---- states
    (lambda: DataLoader(NDArrayDataset([1])).load_state_dict({"epoch": 3, "more": 1}), ValueError,
     ("DataLoader: state must hold epoch, position, order, batch_size, length, generator, sampler, "
      "but got epoch, more")),
    # ---- the derivative checker
    (lambda: ndl.gradcheck(ops.exp, 1.0), TypeError, "gradcheck: inputs must be tensors, but input 0 is float"),
    (lambda: ndl.gradcheck(ops.add, leaf(2, dtype="float64"), leaf(2)), TypeError,
     "gradcheck: inputs must be of float64, but input 1 is of float32"),
    (lambda: ndl.gradcheck(ops.exp, DOUBLE), ValueError,
     "gradcheck: at least one input must require grad, but none does"),
    (lambda: ndl.gradcheck(_Slope(), Tensor([1.5])), AssertionError,
     re.compile(r"gradcheck: _Slope\(\) has a wrong derivative of order 1 in input 0 of shape \(1,\): at index \(0,\) "
                r"backward gives -?\d+\.\d+, but differences give -?\d+\.\d+")),
]  # fmt: skip


def raised_by(row):
    """The error of a row."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        row[0]()
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: getattr(row[2], "pattern", row[2]))
def test_message(row):
    _, kind, text = row
    error = raised_by(row)
    pattern = text.pattern if isinstance(text, re.Pattern) else re.escape(text)
    assert re.fullmatch(pattern, str(error))
    assert type(error) is kind
    # The form is "op: rule, but got values".
    assert re.match(r"\w+: \S", str(error))
    assert re.search(r"\bbut\b|\bgot\b|\bdefined$|\bfirst$|\bto copy it$|\bcannot be set$", str(error))


def raise_statements():
    """(file, first line) -> the text of every raise statement of needle, without the data package.

    `raise error` re-raises an error of the caller's work and has no message of its own.
    """
    statements = {}
    for path in sorted(SOURCES.rglob("*.py")):
        name, text = path.relative_to(SOURCES).as_posix(), path.read_text("utf-8")
        if not name.startswith("data/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    statements[name, node.lineno] = ast.get_source_segment(text, node)
    return statements


def lines_of(error):
    """(file, line) in needle where an error, or one that it replaces, was raised."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            path = Path(trace.tb_frame.f_code.co_filename)
            if path.is_relative_to(SOURCES):
                yield path.relative_to(SOURCES).as_posix(), trace.tb_lineno
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def rows_elsewhere():
    """The rows of the error tables of functions and layers, each as a call that is refused."""
    modules = (
        test_activation, test_attention, test_attention_function, test_dropout, test_embedding, test_grid, test_linear,
        test_loss, test_margin_loss, test_metrics, test_norm, test_recurrent, test_refusals, test_scale_norm,
        test_similarity, test_unpool,
        test_files,
        interop_torch, interop_foreign,
        test_clip_grad,
        test_groups,
        test_state_dict,
        test_hooks, test_anomaly, test_summary, test_recording, test_cuda_graph, test_capture,
        test_schedule_errors,
        test_average,
        test_captured, test_gradients, test_joining, test_whole_batch, test_ranks,
        export_refusals,
        onnx_refusals, test_hostile,
        test_array_operators, test_linear_models,
        test_layer_operators, test_recurrent_operators,
        onnx_windows,
        test_cublas, test_cuda_nccl,
    )  # fmt: skip
    for module in modules:
        yield from (row[0] for row in module.ERRORS)
    yield from (row[0] for row in training_refusals.ERRORS)
    yield from (row[0] for row in distributed_refusals.ERRORS)
    for module in (test_pool, test_resampling):
        for name, shape, arguments, options, *_ in module.REFUSED:
            yield partial(getattr(functional, name), Tensor(np.zeros(shape)), *arguments, **options)
    for shape, arguments, *_ in test_pad.REFUSED:
        yield partial(functional.pad, Tensor(np.zeros(shape)), *arguments)
    yield from (partial(test_conv_errors.call, misuse, functional) for misuse in test_conv_errors.MISUSES)
    yield from (partial(test_conv.build, nn, misuse) for misuse in test_conv.MISUSES)


def test_every_raise_has_a_row():
    statements = raise_statements()
    calls = [*(row[0] for row in ROWS), *rows_elsewhere()]
    reached = {line for call in calls for line in lines_of(raised_by((call,)))}
    missing = {f"{name}:{line}: {statements[name, line]}" for name, line in statements.keys() - reached}
    assert not missing, "these statements have no row in ROWS"


def test_a_raise_without_a_row_is_seen(tmp_path, monkeypatch):
    """The test above can fail: one more statement anywhere breaks it."""
    (tmp_path / "new.py").write_text('def f():\n    raise ValueError("new: nothing is right, but got 1")\n')
    monkeypatch.setattr(sys.modules[__name__], "SOURCES", tmp_path)
    assert raise_statements() == {("new.py", 2): 'raise ValueError("new: nothing is right, but got 1")'}
    with pytest.raises(AssertionError, match=r"new\.py:2"):
        test_every_raise_has_a_row()


def test_errors_come_before_any_work(monkeypatch):
    """Nothing is computed before a call is refused."""
    for op_class in [entry for entry in vars(ops).values() if isinstance(entry, type) and issubclass(entry, Op)]:
        monkeypatch.setattr(op_class, "compute", autograd.Op.compute)
    for function in (
        lambda: X + ndl.ones(2),
        lambda: X @ X,
        lambda: X.reshape((4, 2)),
        lambda: X.sum(2),
        lambda: ops.stack([X, ndl.ones(3)]),
        lambda: ops.concatenate([X, ndl.ones(2, 4)]),
        lambda: ops.pad(X, ((-1, -2), (0, 0))),
        lambda: ops.hardtanh(X, 2, 1),
        lambda: ndl.conv2d(IMAGE, ndl.ones(2, 4, 3, 3)),
    ):
        with pytest.raises(ValueError, match=": "):
            function()
