"""Devices: names, reports of unusable devices, and arrays of other libraries as data of tensors."""

from __future__ import annotations

import copy
import operator
import pickle
import re
import sys
import threading
from contextlib import nullcontext
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, tuning
from needle.backend import cuda_probe, device, device_of, register_device, to_host, xp
from needle.backend_ndarray import BackendDevice, NDArray


class Foreign:
    """An array of another library: NumPy inside, but not an ndarray; it refuses to be mixed with one."""

    __array_ufunc__ = None

    def __init__(self, host):
        self.host = host

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.host, name)
        return _within(type(self), value) if callable(value) else _wrapped(type(self), value)

    def __len__(self):
        return len(self.host)

    def __setitem__(self, index, value):
        self.host[_unwrapped(index)] = _unwrapped(value)


def _within(array_type, function):
    """A function of NumPy as the other library's."""
    return lambda *args, **options: _wrapped(array_type, function(*_unwrapped(args), **_unwrapped(options)))


def _wrapped(array_type, value):
    if isinstance(value, (np.ndarray, np.generic)):
        return array_type(np.asarray(value))
    return tuple(_wrapped(array_type, entry) for entry in value) if type(value) is tuple else value


def _unwrapped(value):
    if isinstance(value, Foreign):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError("an array of the host was mixed with one of the other library")
    if isinstance(value, dict):
        return {name: _unwrapped(entry) for name, entry in value.items()}
    return type(value)(_unwrapped(entry) for entry in value) if type(value) in (tuple, list) else value


SYMBOLS = ["add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne", "getitem", "neg"]
SYMBOLS += ["iadd", "isub", "imul", "itruediv"]
for symbol in SYMBOLS:

    def method(x, *others, function=getattr(operator, symbol)):  # noqa: B008
        return _within(type(x), function)(x, *others)

    setattr(Foreign, f"__{symbol}__", method)
for symbol in ("add", "sub", "mul", "truediv", "pow", "matmul"):

    def method(x, other, function=getattr(operator, symbol)):  # noqa: B008
        return _within(type(x), function)(other, x)

    setattr(Foreign, f"__r{symbol}__", method)


class Library:
    """The namespace of the other library; only `array` and `asarray` accept host arrays."""

    def __init__(self, array_type=Foreign):
        self.ndarray = array_type

    def __getattr__(self, name):
        value = getattr(np, name)
        return _within(self.ndarray, value) if callable(value) else value

    def array(self, data, dtype=None, order="K"):
        return self.ndarray(np.array(getattr(data, "host", data), dtype=dtype, order=order))

    def asarray(self, data, dtype=None):
        return data if isinstance(data, Foreign) and dtype in (None, data.dtype) else self.array(data, dtype)

    def asnumpy(self, array):
        return array.host.copy()


class ForeignDevice(BackendDevice):
    """The device of the other library's arrays."""

    def to_host(self, array):
        return self.xp.asnumpy(array)


@pytest.fixture
def foreign(monkeypatch):
    """A device of another array class, registered during the test."""
    known = ForeignDevice("foreign", Library())
    register_device(known)
    yield known
    del device.devices["foreign"]
    device._device_of_type.pop(Foreign, None)


class Driver:
    """NVIDIA's driver library, as far as needle calls it: the status of cuInit, the GPUs, and the newest CUDA."""

    def __init__(self, status=0, count=1, newest_cuda=13000, may_answer=None):
        self.status, self.count, self.newest_cuda, self.may_answer = status, count, newest_cuda, may_answer

    def cuInit(self, flags):
        assert self.may_answer is None or self.may_answer.wait(timeout=60)
        return self.status

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.newest_cuda
        return 0


@pytest.fixture
def machine(monkeypatch):
    """Fakes a machine by its module cupy, its driver, and the CUDA versions of its wheels."""

    def forget():
        cuda_probe._cupy_problem.cache_clear()
        cuda_probe._probe.cache_clear()
        vars(ndl.cuda()).pop("xp", None)

    def load(driver):
        def load_library(name):
            if driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        return load_library

    def version(wheels, number):
        def version_of(distribution):
            if distribution not in {f"cupy-cuda{major}x" for major in wheels}:
                raise metadata.PackageNotFoundError(distribution)
            return number

        return version_of

    def made(cupy, library, *wheels, number="14.0.1"):
        forget()
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setattr(cuda_probe.ctypes, "CDLL", load(library))
        monkeypatch.setattr(metadata, "version", version(wheels, number))

    yield made
    monkeypatch.undo()
    forget()


class Gpu(nullcontext):
    """CuPy's `cuda.Device`."""

    def __init__(self, number):
        super().__init__()
        self.id = number

    def use(self):
        """Every array here is on GPU 0."""


@pytest.fixture
def fake_cupy(machine):
    """CuPy with one GPU, as far as `Library` implements it."""

    class Array(Foreign):
        device = Gpu(0)

    library = Library(Array)
    library.__version__ = "14.0.1"
    library.cuda = SimpleNamespace(Device=Gpu)
    machine(library, Driver())
    yield library
    device._device_of_type.pop(Array, None)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_devices_are_equal_by_name():
    cpu, cuda = ndl.cpu(), ndl.cuda()
    assert cpu == ndl.cpu()
    assert cpu == BackendDevice("cpu", None)
    assert cpu != cuda
    assert cpu != "cpu"
    assert (cpu == None) is False  # noqa: E711
    assert {cpu, cuda, ndl.cpu(), BackendDevice("cuda", None)} == {cpu, cuda}


def test_devices_print_as_the_call_that_returns_them():
    for name in ("cpu", "cuda"):
        assert repr(getattr(ndl, name)()) == str(getattr(ndl, name)()) == f"{name}()"
    assert repr(ndl.all_devices()[:2]) == "[cpu(), cuda()]"  # the suite adds its own


def test_all_devices_is_a_new_list():
    ndl.all_devices().clear()
    assert ndl.cpu() in ndl.all_devices()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_device_is_the_device(duplicate):
    for known in ndl.all_devices():
        assert duplicate(known) is known
    unknown = BackendDevice("tpu", None)
    with pytest.raises(ValueError, match=r"^device: the name must be one of cpu, cuda.*, but got tpu$"):
        duplicate(unknown)


# ---- the CPU ---------------------------------------------------------------------------------------------------------


def test_arrays_of_the_cpu():
    cpu = ndl.cpu()
    assert cpu.enabled()
    assert cpu.xp is np
    for array, values in (
        (cpu.zeros(2, 1), [[0], [0]]),
        (cpu.ones(2), [1, 1]),
        (cpu.full((2,), 2.5), [2.5, 2.5]),
        (cpu.full((), 3), 3),
    ):
        assert type(array) is NDArray
        assert array.dtype == "float32"
        assert array.numpy().tolist() == values
        assert array.device == device_of(array.array) == cpu
        assert xp(array.array) is np
    assert cpu.empty((2, 3)).shape == (2, 3)
    for array in (cpu.empty(2, "int8"), cpu.full(2, 1, "int8"), cpu.zeros(2, dtype="int8"), cpu.ones(2, dtype="int8")):
        assert array.dtype == "int8"


def test_random_arrays_come_from_the_global_stream():
    for name in ("rand", "randn"):
        np.random.seed(3)
        expected = getattr(np.random, name)(2, 3)
        after = np.random.rand()
        np.random.seed(3)
        array = getattr(ndl.cpu(), name)(2, 3)
        assert np.random.rand() == after
        assert array.dtype == "float32"
        np.testing.assert_array_equal(array, expected.astype("float32"))
        assert getattr(ndl.cpu(), name)(2, dtype="float64").dtype == "float64"


def test_one_hot():
    array = ndl.cpu().one_hot(3, np.array([[0, 2], [1, 1]]))
    assert array.dtype == "float32"
    assert array.numpy().tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]]]
    assert ndl.cpu().one_hot(3, NDArray([1.0]), "int8").numpy().tolist() == [[0, 1, 0]]
    assert float(ndl.cpu().one_hot(10**7, [5], "bool").sum()) == 1  # without an identity matrix


def test_transfers_of_the_cpu():
    cpu, array = ndl.cpu(), np.arange(6.0).reshape(2, 3).T
    assert cpu.asarray(array) is array
    assert cpu.to_host(array) is array
    assert to_host(array) is array
    copied = cpu.array(array)
    assert copied.flags.c_contiguous
    assert not np.shares_memory(copied, array)
    np.testing.assert_array_equal(copied, array)
    assert cpu.asarray(array, "float32").dtype == cpu.array(array, "float32").dtype == "float32"
    assert cpu.asarray([1, 2]).tolist() == cpu.array((1, 2)).tolist() == [1, 2]


def test_real_array():
    array = np.arange(2.0)
    assert not np.shares_memory(ndl.cpu().real_array("op", array), array)
    assert ndl.cpu().real_array("op", [1, 2], "float32").dtype == "float32"
    with pytest.raises(TypeError, match=r"^op: elements must be real numbers or bools, but got dtype <U1$"):
        ndl.cpu().real_array("op", "a")


def test_subclasses_of_numpys_arrays_are_arrays_of_the_cpu():
    matrix = np.ones((2, 2)).view(type("Special", (np.ndarray,), {}))
    assert device_of(matrix) == device_of(np.float32(1)) == ndl.cpu()
    assert type(Tensor(matrix).array) is np.ndarray


def test_the_last_device_that_recognizes_an_array_wins():
    """Also for a class whose arrays were in use before the device was registered."""
    special = type("Special", (np.ndarray,), {})
    array = np.ones(2).view(special)
    assert device_of(array) == ndl.cpu()
    own = BackendDevice("special", SimpleNamespace(ndarray=special))
    try:
        register_device(own)
        assert device_of(array) is own
        assert xp(array) is own.xp
        assert device_of(np.ones(2)) == ndl.cpu()
    finally:
        del device.devices["special"], device._device_of_type[special]


def test_only_arrays_have_a_device():
    for value in ([1, 2], 1.5, "a", None):
        with pytest.raises(TypeError, match=f"^device: arrays of a known .* but got {type(value).__name__}$"):
            device_of(value)
        assert to_host(value) is value


# ---- the GPU ---------------------------------------------------------------------------------------------------------

TWO_WHEELS = "`pip install 'cupy-cuda12x[ctk]>=14'`", "`pip install 'cupy-cuda13x[ctk]>=14'`"
CUPY = SimpleNamespace(__version__="14.0.1")
PROBLEMS = {  # reason: (CuPy, driver, wheels, message)
    "no CuPy": (
        None, Driver(), (),
        "CuPy must be installed, by {} (CUDA 12) or {} (CUDA 13), but got no module cupy".format(*TWO_WHEELS),
    ),
    "no driver": (
        CUPY, None, (13,),
        "an NVIDIA driver must be installed (meanwhile use device=ndl.cpu()), but got no libcuda.so.1: ",
    ),
    "driver that fails": (
        CUPY, Driver(status=999), (13,),
        ("the NVIDIA driver must work (meanwhile use device=ndl.cpu()); update it or restart, but got CUDA "
        "error 999"),
    ),
    "no GPU, says cuInit": (
        CUPY, Driver(status=100), (12,),
        ("a GPU must exist (meanwhile use device=ndl.cpu()); see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but "
        "got 0 devices"),
    ),
    "no GPU, says the count": (
        CUPY, Driver(count=0), (12,),
        ("a GPU must exist (meanwhile use device=ndl.cpu()); see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but "
        "got 0 devices"),
    ),
    "old driver": (
        CUPY, Driver(newest_cuda=12080), (13,),
        ("CuPy must fit the driver, which supports CUDA 12: `pip uninstall cupy-cuda13x`, then "
        f"{TWO_WHEELS[0]}, but got a build for CUDA 13"),
    ),
}  # fmt: skip
USES = {
    "Tensor": lambda cuda: Tensor([1.0], device=cuda),
    "NDArray": lambda cuda: NDArray([1.0], cuda),
    "to": lambda cuda: NDArray([1.0]).to(cuda),
    "zeros": lambda cuda: cuda.zeros(2),
    "rand": lambda cuda: cuda.rand(2),
    "init": lambda cuda: ndl.init.ones(2, device=cuda),
    "Linear": lambda cuda: ndl.nn.Linear(2, 2, device=cuda),
    "default": ndl.set_default_device,
}


@pytest.mark.parametrize("reason", PROBLEMS)
def test_without_a_gpu_asking_never_raises(machine, reason):
    cupy, library, wheels, _ = PROBLEMS[reason]
    machine(cupy, library, *wheels)
    cuda = ndl.cuda()
    assert cuda.enabled() is False
    assert cuda in ndl.all_devices()
    assert (repr(cuda), cuda == ndl.cuda()) == ("cuda()", True)


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("reason", PROBLEMS)
def test_without_a_gpu_using_it_says_what_is_missing(machine, reason, use):
    cupy, library, wheels, message = PROBLEMS[reason]
    machine(cupy, library, *wheels)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"^cuda: {re.escape(message)}"):
            use(ndl.cuda())
    assert ndl.default_device() == ndl.cpu()


def test_the_driver_is_asked_once(machine):
    machine(CUPY, Driver())
    assert ndl.cuda().enabled()
    cuda_probe.ctypes.CDLL = None
    assert ndl.cuda().enabled()


def test_asking_imports_nothing_and_takes_less_than_a_second(machine, monkeypatch, tmp_path):
    may_answer = threading.Event()
    machine(CUPY, Driver(may_answer=may_answer, status=100))
    monkeypatch.delitem(sys.modules, "cupy")
    (tmp_path / "cupy.py").write_text("raise AssertionError('cupy was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert ndl.cuda().enabled()  # the driver exists and has not answered yet
    assert tuning.DRIVER_PATIENCE < 1.0
    answer = threading.Timer(0.05, may_answer.set)
    answer.start()
    with pytest.raises(RuntimeError, match="got 0 devices"):
        ndl.zeros(1, device=ndl.cuda())  # using the device waits for the answer
    answer.join()
    assert not ndl.cuda().enabled()


def test_a_library_other_than_a_driver_is_reported_without_an_error(machine):
    machine(CUPY, SimpleNamespace())
    assert not ndl.cuda().enabled()
    with pytest.raises(
        RuntimeError, match=r"^cuda: the NVIDIA driver must be intact; reinstall it, but got AttributeError: "
    ):
        ndl.zeros(1, device=ndl.cuda())


def test_a_folder_called_cupy_is_not_cupy(machine, monkeypatch, tmp_path):
    machine(CUPY, Driver())
    monkeypatch.delitem(sys.modules, "cupy")
    (tmp_path / "cupy").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not ndl.cuda().enabled()


def test_an_old_wheel_is_reported_without_importing_it(machine):
    machine(CUPY, Driver(), 12, number="13.6.0")
    message = f"CuPy must be 14 or newer; install it by {cuda_probe.EITHER}, but got cupy-cuda12x 13.6.0"
    assert ndl.cuda().problem() == message


def test_a_seed_waits_until_the_gpu_is_used(fake_cupy):
    seeds = []
    fake_cupy.random = SimpleNamespace(seed=seeds.append)
    ndl.seed(3)
    assert not seeds
    ndl.zeros(1, device=ndl.cuda())
    ndl.seed(4)
    assert seeds == [3, 4]


def test_a_new_peer_takes_the_seed_of_the_first(fake_cupy, machine):
    machine(fake_cupy, Driver(count=2))
    seeds = []
    fake_cupy.random = SimpleNamespace(seed=seeds.append)
    ndl.seed(3)
    peer = ndl.cuda(1)
    try:
        assert peer.xp is fake_cupy
        assert seeds == [3]
    finally:
        del device.devices["cuda:1"], peer.peers[1]


@pytest.mark.parametrize("newest_cuda", [12080, 13010])
def test_a_cupy_that_fits_the_driver_is_no_problem(machine, newest_cuda):
    machine(CUPY, Driver(newest_cuda=newest_cuda), 12)
    assert ndl.cuda().enabled()


def test_a_broken_or_old_cupy_is_reported(machine, monkeypatch, tmp_path):
    machine(SimpleNamespace(__version__="13.6.0"), Driver())
    message = f"cuda: CuPy must be 14 or newer; install it by {cuda_probe.EITHER}, but got 13.6.0"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        ndl.zeros(1, device=ndl.cuda())
    monkeypatch.delitem(sys.modules, "cupy")
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart is gone')")
    monkeypatch.syspath_prepend(tmp_path)
    reason = "ImportError: libcudart is gone"
    message = f"cuda: CuPy must be intact; reinstall it by {cuda_probe.EITHER}, but got {reason}"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        ndl.zeros(1, device=ndl.cuda())


def test_with_cupy_the_gpu_works(fake_cupy):
    cuda = ndl.cuda()
    assert cuda.enabled() is True
    assert cuda.xp is fake_cupy
    x = Tensor([1.0, 2.0], device=cuda)
    assert type(x.array) is fake_cupy.ndarray
    assert x.device == cuda
    (x * x).sum().backward()
    assert x.grad.device == cuda
    assert type(x.grad.numpy()) is np.ndarray
    assert x.grad.numpy().tolist() == [2, 4]


def test_random_numbers_of_the_gpu_are_drawn_on_the_host(fake_cupy):
    state = np.random.get_state()
    on_gpu = ndl.init.randn(3, device=ndl.cuda())
    np.random.set_state(state)
    assert on_gpu.numpy().tolist() == ndl.init.randn(3, device=ndl.cpu()).numpy().tolist()


# ---- the default device ----------------------------------------------------------------------------------------------


def test_the_default_device_is_the_cpu():
    assert ndl.default_device() is ndl.cpu()
    assert Tensor([1.0]).device == ndl.init.zeros(1).device == ndl.cpu()


def test_set_default_device(foreign):
    ndl.set_default_device(foreign)
    try:
        made = [Tensor([1.0]), ndl.init.ones(2), ndl.init.rand(2), ndl.nn.Linear(2, 2).weight, NDArray([1.0])]
    finally:
        ndl.set_default_device(ndl.cpu())
    assert {x.device for x in made} == {foreign}
    assert Tensor([1.0]).device == ndl.cpu()


@pytest.mark.parametrize("value", ["cpu", None, np])
def test_the_default_device_must_be_a_device(value):
    message = f"^set_default_device: device must be a Device, but got {type(value).__name__}$"
    with pytest.raises(TypeError, match=message):
        ndl.set_default_device(value)


# ---- arrays of another library ---------------------------------------------------------------------------------------


def test_a_registered_device_is_known(foreign):
    assert foreign in ndl.all_devices()
    register_device(foreign)
    assert ndl.all_devices().count(foreign) == 1
    array = foreign.zeros(2)
    assert array.device == device_of(array.array) == foreign
    assert xp(array.array) is foreign.xp
    assert copy.deepcopy(foreign) is foreign


def _net(x, w, b):
    hidden = ndl.tanh(x @ w + b) * 2 - x / 3
    return (ndl.logsoftmax(hidden) ** 2).sum() + ndl.exp(hidden[0]).mean()


def test_tensors_of_another_library(foreign):
    values = [np.random.randn(*shape) for shape in ((4, 3), (3, 3), (3,))]
    grads = []
    for place in (ndl.cpu(), foreign):
        leaves = [Tensor(value, device=place) for value in values]
        y = _net(*leaves)
        y.backward()
        first = [leaf.grad for leaf in leaves]
        (first[0] * first[0]).sum().backward()
        everything = [y, *first, *(leaf.grad for leaf in leaves)]
        assert {type(x.array) for x in everything} == {place.array_type()}
        assert {x.device for x in everything} == {place}
        grads.append([x.numpy() for x in everything])
    for on_cpu, elsewhere in zip(*grads, strict=True):
        np.testing.assert_allclose(elsewhere, on_cpu, rtol=1e-13)


def test_numbers_and_arrays_join_tensors_of_another_library(foreign):
    x = Tensor([1.0, 2.0], device=foreign)
    for y in (x + 1, 1 - x, np.float32(2) * x, x * np.ones(2), np.ones(2) / x, x.sum() * np.array(2.0)):
        assert y.device == foreign
    assert x[np.array([1, 0])].numpy().tolist() == [2, 1]
    assert (x > 1).numpy().tolist() == [False, True]
    assert ndl.ones_like(x).device == ndl.zeros_like(x).device == foreign


def test_reading_a_tensor_of_another_library(foreign):
    x = Tensor([1.0, 2.0], device=foreign, requires_grad=False)
    assert x.numpy().tolist() == np.array(x.cached_data).tolist() == [1, 2]
    assert x[1].item() == float(x[1]) == 2
    assert repr(x) == "Tensor([1. 2.])"
    assert repr(x.cached_data) == "NDArray([1. 2.], device=foreign())"
    message = "Tensor: a tensor on foreign() is not a host array; call .numpy() to copy it"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        np.asarray(x)


def test_transfers_between_devices(foreign):
    x = Tensor([1.0, 2.0], dtype="float32")
    there = Tensor(x, device=foreign)
    back = Tensor(there, device=ndl.cpu())
    assert [t.device for t in (x, there, back)] == [ndl.cpu(), foreign, ndl.cpu()]
    assert {t.dtype for t in (x, there, back)} == {np.dtype("float32")}
    assert there.numpy().tolist() == back.numpy().tolist() == [1, 2]
    assert Tensor(there).device == Tensor(there.cached_data).device == foreign
    there.data = back.detach()  # a tensor is on the device of its data
    assert there.device == ndl.cpu()
    array = NDArray([1.0])
    assert array.to(foreign).device == foreign
    assert array.to(foreign).to(ndl.cpu()).numpy().tolist() == [1]


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x, y: x + y, "EWiseAdd"),
        (lambda x, y: y * x, "EWiseMul"),
        (lambda x, y: ndl.stack([x, x, y]), "Stack"),
        (lambda x, y: ndl.where(x > 0, x, y), "Where"),
        (lambda x, y: ndl.ops.make_tuple(x, y), "MakeTensorTuple"),
    ],
)
def test_mixed_devices_are_refused_naming_both(foreign, function, op):
    x, y = Tensor([1.0]), Tensor([1.0], device=foreign)
    for arguments, names in (((x, y), ("cpu()", "foreign()")), ((y, x), ("foreign()", "cpu()"))):
        names = names[::-1] if op == "EWiseMul" else names
        message = re.escape(f"{op}: inputs must be on one device, but got {names[0]} and {names[1]}")
        with pytest.raises(TypeError, match=f"^{message}$"):
            function(*arguments)


def test_out_grad_on_another_device_is_refused(foreign):
    x = Tensor([2.0])
    with pytest.raises(TypeError, match=r"inputs must be on one device, but got foreign\(\) and cpu\(\)$"):
        (x * x).backward(Tensor([1.0], device=foreign))


# ---- additions at an index -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_additions_at_a_repeated_index_add_up(dtype, device):
    start, places = np.array([[3, 0, 1], [0, 1, 2]]).astype(dtype), np.array([1, 0, 1, 1])
    values = np.array([[1, 0, 1], [2, 1, 0], [0, 0, 5], [7, 0, 1]]).astype(dtype)
    values = -values if dtype[0] in "if" else values
    expected = start.copy()
    np.add.at(expected, (places,), values)
    array = device.array(start)
    device.add_at(array, (device.array(places),), device.array(values))
    np.testing.assert_array_equal(device.to_host(array), expected, strict=True)
