"""The names, modules, devices and environment on which the course's homeworks rely."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import needle as ndl
from needle import backend_ndarray as nd
from needle.backend import cuda_probe

ROOT = Path(__file__).resolve().parents[2]

MATHEMATIC = """add add_scalar multiply mul_scalar power power_scalar divide divide_scalar transpose reshape
broadcast_to summation matmul negate log exp relu tanh stack split flip dilate undilate conv"""
MATHEMATIC_CLASSES = """EWiseAdd AddScalar EWiseMul MulScalar EWisePow PowerScalar EWiseDiv DivScalar Transpose Reshape
BroadcastTo Summation MatMul Negate Log Exp ReLU Tanh Stack Split Flip Dilate UnDilate Conv"""
LOGARITHMIC = "logsumexp logsoftmax LogSumExp LogSoftmax"
TUPLE = "make_tuple tuple_get_item fused_add_scalars MakeTensorTuple TensorTupleGetItem FusedAddScalars"
OPS = {
    "ops_mathematic": f"{MATHEMATIC} {MATHEMATIC_CLASSES}".split(),
    "ops_logarithmic": LOGARITHMIC.split(),
    "ops_tuple": TUPLE.split(),
}
TOP = """Tensor TensorTuple NDArray Device cpu cuda cpu_numpy default_device all_devices array_api ones zeros ones_like
zeros_like autograd ops init nn optim data backend_ndarray backend_selection backend_numpy"""


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape)


def run_python(*arguments, cwd, **variables):
    """Run Python with an environment of PYTHONPATH and `variables` alone."""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    if "SYSTEMROOT" in os.environ:  # Windows cannot start programs without it
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "autograd",
        "ops",
        *(f"ops.{name}" for name in OPS),
        "init",
        "nn",
        "optim",
        "data",
        "backend_ndarray",
        "backend_ndarray.ndarray",
        "backend_selection",
        "backend_numpy",
    ],
)
def test_modules(path):
    module = importlib.import_module(f"needle.{path}")
    actual = ndl
    for name in path.split("."):
        actual = getattr(actual, name)  # reached by attributes, too
    assert actual is module


@pytest.mark.parametrize("name", TOP.split())
def test_names_at_the_top(name):
    assert hasattr(ndl, name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in OPS.items() for name in names])
def test_ops_are_one_object_under_all_names(module, name):
    actual = getattr(ndl, name)
    assert getattr(ndl.ops, name) is actual
    assert getattr(importlib.import_module(f"needle.ops.{module}"), name) is actual


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("autograd", "Op TensorOp TensorTupleOp Value Tensor TensorTuple TENSOR_COUNTER LAZY_MODE find_topo_sort"),
        ("backend_selection", "array_api Device NDArray cpu cuda cpu_numpy all_devices default_device"),
        ("backend_numpy", "Device cpu all_devices default_device"),
        ("backend_ndarray.ndarray", "NDArray"),
        ("backend_ndarray", "NDArray BackendDevice array cpu cuda cpu_numpy default_device all_devices"),
    ],
)
def test_names_of_modules(module, names):
    module = importlib.import_module(f"needle.{module}")
    assert [name for name in names.split() if not hasattr(module, name)] == []


def test_top_level_names_match_the_modules():
    assert ndl.Tensor is ndl.autograd.Tensor
    assert ndl.NDArray is nd.NDArray is nd.ndarray.NDArray
    assert ndl.Device is nd.BackendDevice
    assert ndl.ones is ndl.init.ones


@pytest.mark.parametrize(
    ("op", "function", "shapes"),
    [
        (lambda: ndl.ops.EWiseAdd(), ndl.add, [(2, 3), (2, 3)]),
        (lambda: ndl.ops.AddScalar(2), lambda x: ndl.add_scalar(x, 2), [(2, 3)]),
        (lambda: ndl.ops.EWiseMul(), ndl.multiply, [(2, 3), (2, 3)]),
        (lambda: ndl.ops.MulScalar(2), lambda x: ndl.mul_scalar(x, 2), [(2, 3)]),
        (lambda: ndl.ops.EWisePow(), lambda a, b: ndl.power(a, b), [(2, 3), (2, 3)]),
        (lambda: ndl.ops.PowerScalar(2), lambda x: ndl.power_scalar(x, 2), [(2, 3)]),
        (lambda: ndl.ops.PowerScalar(scalar=3), lambda x: ndl.power_scalar(x, 3), [(2, 3)]),
        (lambda: ndl.ops.EWiseDiv(), ndl.divide, [(2, 3), (2, 3)]),
        (lambda: ndl.ops.DivScalar(2), lambda x: ndl.divide_scalar(x, 2), [(2, 3)]),
        (lambda: ndl.ops.Transpose(), ndl.transpose, [(2, 3, 4)]),
        (lambda: ndl.ops.Transpose((0, 2)), lambda x: ndl.transpose(x, (0, 2)), [(2, 3, 4)]),
        (lambda: ndl.ops.Transpose(axes=(0, 1)), lambda x: ndl.transpose(x, (0, 1)), [(2, 3, 4)]),
        (lambda: ndl.ops.Reshape((3, 2)), lambda x: ndl.reshape(x, (3, 2)), [(2, 3)]),
        (lambda: ndl.ops.BroadcastTo((4, 2, 3)), lambda x: ndl.broadcast_to(x, (4, 2, 3)), [(2, 1)]),
        (lambda: ndl.ops.Summation(), ndl.summation, [(2, 3)]),
        (lambda: ndl.ops.Summation(axes=None), ndl.summation, [(2, 3)]),
        (lambda: ndl.ops.Summation((0, 2)), lambda x: ndl.summation(x, (0, 2)), [(2, 3, 4)]),
        (lambda: ndl.ops.Summation(axes=1), lambda x: ndl.summation(x, 1), [(2, 3)]),
        (lambda: ndl.ops.MatMul(), ndl.matmul, [(2, 3), (3, 4)]),
        (lambda: ndl.ops.Negate(), ndl.negate, [(2, 3)]),
        (lambda: ndl.ops.Log(), ndl.log, [(2, 3)]),
        (lambda: ndl.ops.Exp(), ndl.exp, [(2, 3)]),
        (lambda: ndl.ops.ReLU(), ndl.relu, [(2, 3)]),
        (lambda: ndl.ops.Tanh(), ndl.tanh, [(2, 3)]),
        (lambda: ndl.ops.Stack(1), lambda *xs: ndl.stack(xs, 1), [(2, 3), (2, 3)]),
        (lambda: ndl.ops.Flip((0, 1)), lambda x: ndl.flip(x, (0, 1)), [(2, 3)]),
        (lambda: ndl.ops.Flip(axes=(1,)), lambda x: ndl.flip(x, (1,)), [(2, 3)]),
        (lambda: ndl.ops.Dilate((0,), 2), lambda x: ndl.dilate(x, (0,), 2), [(2, 3)]),
        (lambda: ndl.ops.Dilate(axes=(2,), dilation=1), lambda x: ndl.dilate(x, (2,), 1), [(2, 3)]),
        (lambda: ndl.ops.UnDilate((1,), 1), lambda x: ndl.undilate(x, (1,), 1), [(2, 4)]),
        (lambda: ndl.ops.Conv(), lambda x, w: ndl.conv(x, w, padding=0), [(1, 5, 5, 2), (3, 3, 2, 4)]),
        (lambda: ndl.ops.Conv(stride=2, padding=1), lambda x, w: ndl.conv(x, w, 2, 1), [(1, 5, 5, 2), (3, 3, 2, 4)]),
        (lambda: ndl.ops.LogSumExp(), ndl.logsumexp, [(2, 3)]),
        (lambda: ndl.ops.LogSumExp(axes=(1,)), lambda x: ndl.logsumexp(x, (1,)), [(2, 3)]),
        (lambda: ndl.ops.LogSoftmax(), ndl.logsoftmax, [(2, 3)]),
    ],
)
def test_op_classes_take_the_course_s_arguments(op, function, shapes, device):
    """Called with tensors, an op returns the values and the gradients of its function."""

    def outcome(f):
        inputs = [ndl.Tensor(np.abs(normal(*shape)) + 0.1, device=device) for shape in shapes]
        y = f(*inputs)
        y.backward()
        return [x.numpy() for x in (y, *(x.grad for x in inputs))]

    for actual, expected in zip(outcome(op()), outcome(function), strict=True):
        assert_array_equal(actual, expected, strict=True)


def test_op_classes_of_tuples(device):
    x = ndl.Tensor(normal(2, 3), device=device)
    for parts, expected in (
        (ndl.ops.Split(1)(x), [x.numpy()[:, i] for i in range(3)]),
        (ndl.ops.MakeTensorTuple()(x, -x), [x.numpy(), -x.numpy()]),
        (ndl.ops.FusedAddScalars(1, 2)(x), [x.numpy() + 1, x.numpy() + 2]),
    ):
        assert isinstance(parts, ndl.TensorTuple)
        for part, array in zip(parts, expected, strict=True):
            assert_array_equal(part.numpy(), array)
        assert_array_equal(ndl.ops.TensorTupleGetItem(1)(parts).numpy(), expected[1])


# ---- devices ---------------------------------------------------------------------------------------------------------


def test_devices_compare_by_name():
    assert ndl.cpu() == nd.cpu() == ndl.default_device() == ndl.Tensor([1.0]).device == ndl.init.ones(2).device
    assert hash(ndl.cpu()) == hash(nd.BackendDevice("cpu", np))
    assert nd.BackendDevice("cpu", np) == ndl.cpu()
    assert ndl.cuda() == nd.cuda()
    assert ndl.cpu() != ndl.cuda()
    assert nd.BackendDevice("other", np) != ndl.cpu()
    for other in ("cpu", "cpu()", None, 0):
        assert (ndl.cpu() == other) is False
    assert {ndl.cpu(): 1}[nd.cpu()] == 1


@pytest.mark.parametrize(("device", "text"), [(ndl.cpu(), "cpu()"), (ndl.cuda(), "cuda()")])
def test_devices_print_as_the_call_that_returns_them(device, text):
    assert repr(device) == str(device) == text
    assert repr(nd.BackendDevice(device.name, None)) == text


def test_cpu_is_enabled():
    assert ndl.cpu().enabled() is True
    assert ndl.cpu_numpy().enabled() is True
    assert ndl.cpu() in ndl.all_devices()
    assert ndl.cuda() in ndl.all_devices()


@pytest.mark.parametrize("cupy", [None, types.ModuleType("cupy")], ids=["without CuPy", "without a driver"])
def test_cuda_never_raises(cupy, monkeypatch):
    def no_library(name):
        raise OSError(name)

    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda_probe.ctypes, "CDLL", no_library)
    cuda_probe._cupy_problem.cache_clear()
    cuda_probe._probe.cache_clear()
    try:
        assert ndl.cuda().enabled() is False
        assert nd.cuda().enabled() is False
        assert repr(ndl.cuda()) == "cuda()"
    finally:
        cuda_probe._cupy_problem.cache_clear()
        cuda_probe._probe.cache_clear()


# ---- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "module"),
    [
        ({}, "needle.backend_ndarray"),
        ({"NEEDLE_BACKEND": "nd"}, "needle.backend_ndarray"),
        ({"NEEDLE_BACKEND": "np"}, "numpy"),
    ],
)
def test_needle_backend_is_read_at_import(variables, module, tmp_path):
    code = f"""
import needle as ndl
from needle import backend_selection
assert ndl.array_api is backend_selection.array_api
assert ndl.array_api.__name__ == {module!r}, ndl.array_api
assert ndl.Tensor([[1.0]]).dtype == "float64"
assert ndl.cpu() == ndl.default_device() == backend_selection.cpu()
"""
    done = run_python("-W", "error", "-c", code, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr


HOMEWORK = '''
import sys
sys.path.append("./python")
sys.path.append("./apps")
import mugrade
import numpy as np
import pytest
import needle as ndl
import needle.nn as nn
from needle import backend_ndarray as nd
from needle.autograd import Tensor
import apps.models, models, simple_ml
from models import *
from simple_ml import *

_DEVICES = [
    ndl.cpu(),
    pytest.param(ndl.cuda(), marks=pytest.mark.skipif(not ndl.cuda().enabled(), reason="No GPU")),
]

np.random.seed(3)


@pytest.mark.parametrize("device", _DEVICES, ids=["cpu", "cuda"])
def test_training(device):
    model = nn.Sequential(nn.Linear(3, 4, device=device), nn.ReLU(), nn.Linear(4, 2, device=device))
    opt = ndl.optim.SGD(model.parameters(), lr=0.1)
    x = Tensor(nd.array(np.random.randn(5, 3), device=device), device=device)
    y = Tensor(np.array([0, 1, 0, 1, 1]), device=device)
    losses = []
    for _ in range(3):
        opt.reset_grad()
        loss = nn.SoftmaxLoss()(model(x), y)
        loss.backward()
        opt.step()
        losses.append(float(loss.numpy()))
    assert losses[0] > losses[1] > losses[2]


def test_apps(tmp_path):
    assert ResNet9 is models.ResNet9
    assert apps.models.ResNet9 is not ResNet9
    assert parse_mnist is simple_ml.parse_mnist


def submit_training():
    mugrade.submit(None)
'''
STUDENTS = "raise NotImplementedError('this is the solution of a student')"


def test_a_homework_needs_pythonpath_alone(tmp_path):
    """Its tests run from its own folder. The folder's needle and apps come later on the path; GPU tests are skipped."""
    for name in ("python/needle/__init__.py", "apps/models.py", "apps/simple_ml.py", "tests/hw/test_training.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(HOMEWORK if name.startswith("tests") else STUDENTS)
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "mugrade.py").touch()
    paths = [ROOT, ROOT / "apps", tmp_path / "stubs"]
    pytest_itself = "import sys; sys.path.remove(''); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = run_python(
        "-c", pytest_itself, "-q", "-p", "no:cacheprovider", "tests/hw",
        cwd=tmp_path, PYTHONPATH=os.pathsep.join(map(str, paths)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    gpu = "3 passed" if ndl.cuda().enabled() else "2 passed, 1 skipped"
    assert gpu in done.stdout, done.stdout
