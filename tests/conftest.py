"""Setup of all tests: the devices, hypothesis' profiles, a fixed random stream, and a guard over global state."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import needle
from needle.backend_ndarray import register_device
from needle.grad_mode import grad_mode
from tests.guard_pages import SIDES, guard
from tests.profiles import DEFAULT
from tests.standin.device import STANDIN

# Chosen by pytest --hypothesis-profile=NAME. Nightly also walks deeper graphs and takes all devices for all tests.
settings.register_profile("quick", max_examples=5, deadline=None, derandomize=True)
settings.register_profile("default", max_examples=DEFAULT, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile("default")

# A background shell ignores SIGINT, and the programs that tests start inherit that: an interrupt would not end them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The first of the programs that tests start caches needle, compiled, for the others: that takes 0.6 s of each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

register_device(STANDIN)
CUDA = [pytest.param(needle.cuda(), marks=pytest.mark.gpu)] if needle.cuda().enabled() else []
DEVICES = {"cpu": [needle.cpu()], "standin": [STANDIN], "all": [needle.cpu(), STANDIN, *CUDA]}

# The floors that compute on raw arrays run on the stand-in by default. The floors above run their training steps there,
# in tests/standin/test_steps.py, and convolution at each level.
ON_STANDIN = ["backend", "backend_ndarray", "kernels", "ops", "standin"]
ON_STANDIN += ["data/test_loader.py", "interop/test_devices.py", "test_conv_conformance.py", "test_tensor.py"]
ON_STANDIN += ["onnx/test_array_operators.py", "onnx/test_windows.py"]


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=DEVICES,
        help="devices of the tests that run on several: cpu, standin, or all; by default the CPU and a GPU, and the "
        "stand-in for a GPU on the floors that compute on raw arrays",
    )
    parser.addoption("--guard", choices=SIDES, help="put each array beside an unreadable page on that side")


def pytest_configure(config):
    if config.getoption("--guard"):
        guard(config.getoption("--guard"))


def pytest_generate_tests(metafunc):
    own = any("device" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "device" in metafunc.fixturenames and not own:
        metafunc.parametrize("device", devices_for(metafunc), indirect=True, ids=str, scope="session")


def devices_for(metafunc):
    """The devices that a test runs on."""
    chosen = metafunc.config.getoption("--device")
    if chosen is None and settings.get_current_profile_name() == "nightly":
        chosen = "all"
    if chosen is None and metafunc.definition.get_closest_marker("on_cpu") is None:
        path = metafunc.definition.path.relative_to(Path(__file__).parent)
        chosen = "all" if any(path.is_relative_to(place) for place in ON_STANDIN) else None
    return [*DEVICES["cpu"], *CUDA] if chosen is None else DEVICES[chosen]


@pytest.fixture(scope="session")
def device(request):
    return request.param


@pytest.fixture(scope="session")
def depth():
    """The number of ops in a deep graph: far more than the frames that Python's and C's stacks can hold."""
    return {"quick": 2_000, "nightly": 100_000}.get(settings.get_current_profile_name(), 20_000)


@pytest.fixture
def on_device(device):
    """Run the test with each device as the default one."""
    before = needle.default_device()
    needle.set_default_device(device)
    yield
    needle.set_default_device(before)


@pytest.fixture(autouse=True)
def random_stream():
    """Start every test at the same state of NumPy's global stream, and restore the former state after it.

    Initializers and dropout draw from that stream. Tests do not depend on each other's draws, whatever their order.
    """
    before = np.random.get_state()
    needle.seed(0)
    yield
    np.random.set_state(before)


@pytest.fixture(autouse=True)
def global_state():
    """Fail a test that changes grad mode or the default device, and restore them for the next one."""
    grad, device = needle.is_grad_enabled(), needle.default_device()
    with grad_mode(grad):
        yield
        leaks = []
        if needle.is_grad_enabled() != grad:
            leaks.append(f"grad mode {needle.is_grad_enabled()} instead of {grad}")
        if needle.default_device() != device:
            leaks.append(f"default device {needle.default_device()} instead of {device}")
            needle.set_default_device(device)
    assert not leaks, f"the test leaks {' and '.join(leaks)}"
