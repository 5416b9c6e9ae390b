"""Devices that share one array class, like `cuda:0` and `cuda:1`: distinguished, not mixed, copied between."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, optim, tuning
from needle.backend import cuda_probe, device_of, from_dlpack, overridable, register_device, to_host
from needle.backend.device import device_named, devices
from needle.backend_ndarray import NDArray
from tests.standin.current import DeviceContext
from tests.standin.device import PEER, STANDIN


@pytest.fixture(params=[STANDIN, PEER], ids=str)
def place(request):
    """Make each of the two peers current, one after the other."""
    with request.param.current():
        yield request.param


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_peer_has_a_number_in_its_name():
    assert [STANDIN.name, PEER.name] == ["standin", "standin:1"]
    assert [repr(STANDIN), repr(PEER)] == ["standin()", "standin(1)"]
    assert [STANDIN.index, PEER.index] == [0, 1]
    assert STANDIN != PEER
    assert STANDIN.peer(1) is PEER.peer(1) is PEER
    assert PEER.peer(0) is STANDIN
    assert {STANDIN, PEER} <= set(ndl.all_devices())


def test_gpus_have_numbers():
    first, second = ndl.cuda(), ndl.cuda(1)
    try:
        assert first is ndl.cuda(0) is not second
        assert second is ndl.cuda(1) is device_named("cuda:1")
        assert [repr(first), repr(second), second.name] == ["cuda()", "cuda(1)", "cuda:1"]
        assert second in ndl.all_devices()
        assert second.array_type is not None
        assert isinstance(second, type(first))
        assert second.kernels is first.kernels
        with pytest.raises(ValueError, match=r"^cuda: index must be at least 0, but got -1$"):
            ndl.cuda(-1)
        with pytest.raises(TypeError, match=r"^cuda: index must be an integer, but got '1'$"):
            ndl.cuda("1")
    finally:
        del devices["cuda:1"], first.peers[1]


def test_names_of_devices_without_peers_have_no_number():
    for name in ("cpu:1", "cuda:x", "tpu:0"):
        with pytest.raises(ValueError, match=rf"^device: the name must be one of cpu, cuda.*, but got {name}$"):
            device_named(name)
    assert ndl.cpu().peer(3) is ndl.cpu()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_peer_is_the_peer(duplicate):
    assert duplicate(PEER) is PEER


def test_a_number_that_the_driver_does_not_count_is_a_problem(monkeypatch):
    class Driver:
        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, count):
            count._obj.value = 1
            return 0

        def cuDriverGetVersion(self, version):
            version._obj.value = 13000
            return 0

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="14.0.1"))
        patch.setattr(cuda_probe.ctypes, "CDLL", lambda name: Driver())
        probe = cuda_probe._Probe()
        patch.setattr(cuda_probe, "_probe", lambda: probe)
        patch.setattr(cuda_probe, "_cupy_problem", lambda: None)
        assert cuda_probe.cuda_problem(0) is None
        assert cuda_probe.cuda_problem(1) == (
            "GPU 1 must exist; see `nvidia-smi` and CUDA_VISIBLE_DEVICES, but got 1 in all"
        )


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_arrays_are_told_apart():
    arrays = [device.array([1.0, 2.0]) for device in (STANDIN, PEER)]
    assert type(arrays[0]) is type(arrays[1])
    assert [device_of(array) for array in arrays] == [STANDIN, PEER]
    assert [[device.owns(array) for array in arrays] for device in (STANDIN, PEER)] == [[True, False], [False, True]]
    assert not any(device.owns(np.ones(2)) or device.owns([1.0]) for device in (STANDIN, PEER))
    assert ndl.cpu().owns(np.ones(2))
    assert not ndl.cpu().owns(arrays[0])
    assert not ndl.cuda().owns(arrays[0])


def test_an_array_of_a_peer_that_nobody_asked_for_creates_it():
    array = STANDIN.array([1.0])
    array.device = DeviceContext(7)
    try:
        assert device_of(array).name == "standin:7"
    finally:
        del devices["standin:7"], STANDIN.peers[7]


MAKERS = {
    "array": lambda device: device.array([1.0, 2.0]),
    "array of the other": lambda device: device.array(STANDIN.peer(1 - device.index).array([1.0])),
    "array with dtype": lambda device: device.array(STANDIN.peer(1 - device.index).array([1.0]), "float64"),
    "asarray": lambda device: device.asarray(np.ones(2)),
    "asarray of the other": lambda device: device.asarray(STANDIN.peer(1 - device.index).array([1.0])),
    "real_array": lambda device: device.real_array("op", [1.0]),
    "real_array of the other": lambda device: device.real_array("op", STANDIN.peer(1 - device.index).array([1.0])),
    "filled": lambda device: device.filled((2,), 3),
    "uniform": lambda device: device.uniform((2,)),
    "normal": lambda device: device.normal((2,)),
    "one_hot_array": lambda device: device.one_hot_array(3, [0, 2]),
    "empty": lambda device: device.empty((2,)).array,
    "full": lambda device: device.full((2,), 3).array,
    "zeros": lambda device: device.zeros(2).array,
    "ones": lambda device: device.ones(2).array,
    "rand": lambda device: device.rand(2).array,
    "one_hot": lambda device: device.one_hot(3, np.array([0, 2])).array,
    "NDArray": lambda device: NDArray([1.0], device).array,
    "NDArray.make": lambda device: NDArray.make((2,), device=device).array,
    "Tensor": lambda device: Tensor([1.0], device=device).array,
    "nd.empty": lambda device: ndl.backend_ndarray.empty((2,), device=device).array,
    "nd.full": lambda device: ndl.backend_ndarray.full((2,), 1, device=device).array,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("device", [STANDIN, PEER], ids=str)
def test_new_arrays_lie_on_their_device_whichever_is_current(make, device, place):
    array = make(device)
    assert device.owns(array)
    assert DeviceContext.current().id == place.index


def test_transfers_between_peers():
    x = NDArray(np.arange(6.0).reshape(2, 3), STANDIN)
    there = x[:, ::2].to(PEER)
    back = there.to(STANDIN)
    assert [x.device, there.device, back.device] == [STANDIN, PEER, STANDIN]
    assert x.to(STANDIN) is x
    assert there.numpy().tolist() == back.numpy().tolist() == to_host(there.array).tolist() == [[0, 2], [3, 5]]
    with PEER.current():
        there.fill(9)
    assert x.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert NDArray(there).device == Tensor(there).device == PEER


def test_tensors_go_to_a_peer_and_gradients_come_back():
    x = Tensor([1.0, 2.0], device=STANDIN)
    y = x.to(PEER)
    assert y.device == PEER
    with PEER.current():
        y = (y * y).sum()
    with STANDIN.current(), pytest.raises(TypeError, match=r"^an array of device 1 was used on device 0 in silence"):
        y * 2
    assert y.device == PEER


def test_pickles_remember_the_peer():
    x = Tensor([1.0, 2.0], device=PEER)
    loaded = pickle.loads(pickle.dumps(x))
    assert loaded.device == PEER
    assert loaded.numpy().tolist() == [1, 2]


def test_dlpack_finds_the_peer():
    array = PEER.array([1.0, 2.0])
    shared = from_dlpack(array)
    assert device_of(shared) == PEER
    assert shared.data.ptr == array.data.ptr


# ---- mixing ----------------------------------------------------------------------------------------------------------

MIXTURES = {
    "+": lambda x, y: x + y,
    "+ a raw array": lambda x, y: x + y.array,
    "<": lambda x, y: x < y,
    "maximum": lambda x, y: x.maximum(y),
    "setitem": lambda x, y: x.__setitem__(0, y),
}


@pytest.mark.parametrize("mix", MIXTURES.values(), ids=MIXTURES.keys())
def test_mixing_peers_is_refused_naming_both(mix, place):
    x, y = NDArray([1.0], STANDIN), NDArray([2.0], PEER)
    rule = "NDArray: operands must be on one device, but got "
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}{re.escape('standin() and standin(1)')}$"):
        mix(x, y)
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}{re.escape('standin(1) and standin()')}$"):
        mix(y, x)
    assert x.numpy().tolist() == [1]


@pytest.mark.parametrize(
    "mix",
    [lambda x, y: x + y, lambda x, y: ndl.where(x > 0, x, y), lambda x, y: ndl.stack([x, x, y])],
    ids=["two", "three", "many"],
)
def test_mixing_tensors_of_peers_is_refused_naming_both(mix):
    x, y = Tensor([1.0], device=STANDIN), Tensor([2.0], device=PEER)
    rule = "inputs must be on one device, but got standin() and standin(1)"
    with pytest.raises(TypeError, match=f": {re.escape(rule)}$"):
        mix(x, y)


# ---- computing -------------------------------------------------------------------------------------------------------


def test_a_step_on_each_peer(place):
    """Everything that a step creates is on the current device, like its data."""
    x = Tensor(np.ones((2, 3), "float32"), device=place, requires_grad=False)
    layer = ndl.nn.Linear(3, 2, device=place)
    loss = (ndl.relu(layer(x)) ** 2).sum()
    loss.backward()
    ndl.optim.Adam(layer.parameters()).step()
    assert {t.device for t in (loss, layer.weight, layer.weight.grad)} == {place}


def test_the_default_device_becomes_current():
    try:
        ndl.set_default_device(PEER)
        y = Tensor([1.0, 2.0]) * 2
        assert y.device == ndl.ones(2).device == PEER
    finally:
        ndl.set_default_device(STANDIN)
        ndl.set_default_device(ndl.cpu())
    assert DeviceContext.current().id == 0


def test_each_peer_has_a_random_stream():
    draws = []
    for _ in range(2):
        ndl.seed(5)
        for device in (STANDIN, PEER):
            with device.current():
                draws.append(to_host(device.xp.random.random_sample((3,))).tolist())
    assert draws[:2] == draws[2:]
    with STANDIN.current():
        STANDIN.xp.random.random_sample((3,))
    with PEER.current():
        assert to_host(PEER.xp.random.random_sample((3,))).tolist() != draws[1]


def test_peers_share_their_kernels(monkeypatch):
    @overridable
    def negate(x):
        return -x

    monkeypatch.setitem(STANDIN.kernels, "negate", lambda x: x)
    assert PEER.kernels is STANDIN.kernels
    x = PEER.array([1.0])
    assert negate(x) is x


# ---- in ops, optimizers and caches -----------------------------------------------------------------------------------


def test_ops_refuse_two_peers_before_they_compute():
    """Also the first op on arrays of this class in the process, when no cache knows the class."""
    x, y = (Tensor([1.0], device=device) for device in (STANDIN, PEER))
    register_device(STANDIN)  # empties the caches
    message = r"inputs must be on one device, but got standin\(\) and standin\(1\)$"
    for _ in range(2):
        with pytest.raises(TypeError, match=message):
            x + y
        with pytest.raises(TypeError, match=message):
            ndl.stack([x, x, y])


def test_an_optimizer_tells_peers_apart():
    """Small parameters of two peers are not pooled; each peer's are updated while it is current."""
    values = [float(i) for i in range(2 * tuning.POOLED_PARAMETERS)]
    mixed = [Tensor([value], device=(STANDIN, PEER)[i % 2]) for i, value in enumerate(values)]
    alone = [Tensor([value], device=ndl.cpu()) for value in values]
    optimizer, reference = optim.SGD(mixed, lr=0.1, momentum=0.5), optim.SGD(alone, lr=0.1, momentum=0.5)
    for _ in range(2):
        for device in (STANDIN, PEER):
            for parameter in mixed:
                parameter.grad = Tensor([1.5], device=device) if parameter.device == device else None
            with device.current():
                optimizer.step()
        for parameter in alone:
            parameter.grad = Tensor([1.5])
        reference.step()
    assert [x.device for x in mixed[:2]] == [STANDIN, PEER]
    assert [x.item() for x in mixed] == [x.item() for x in alone]


def test_a_step_refuses_a_gradient_on_a_peer():
    parameter = Tensor([1.0], device=STANDIN)
    parameter.grad = Tensor([1.0], device=PEER)
    message = r"^step: inputs must be on one device, but got standin\(\) and standin\(1\)$"
    with pytest.raises(TypeError, match=message):
        optim.SGD([parameter]).step()


def test_constants_of_a_kernel_are_made_for_each_peer(place):
    x, w = (ndl.ones(1, 2, 6, 6, device=place), ndl.ones(3, 2, 3, 3, device=place))
    with ndl.conv_algorithm("winograd"):
        y = ndl.conv2d(x, w)
    assert y.device == place
    np.testing.assert_allclose(y.numpy(), 18, rtol=1e-6)
