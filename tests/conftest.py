"""What every test gets: the devices, a fixed random stream, and a guard over needle's global state."""

import numpy as np
import pytest
from hypothesis import settings

import needle
from needle.backend_ndarray import register_device
from needle.grad_mode import grad_mode
from tests.standin.device import STANDIN

settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)  # pytest --hypothesis-profile=nightly
settings.load_profile("default")

# Every device that the suite runs on.
register_device(STANDIN)
DEVICES = [needle.cpu(), STANDIN]
if needle.cuda().enabled():
    DEVICES.append(pytest.param(needle.cuda(), marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES, ids=str, scope="session")
def device(request):
    return request.param


@pytest.fixture
def on_device(device):
    """Make each device in turn the default one, for tests whose tensors name none."""
    before = needle.default_device()
    needle.set_default_device(device)
    yield
    needle.set_default_device(before)


@pytest.fixture(autouse=True)
def random_stream():
    """Start every test at the same state of NumPy's global stream, and put the former state back after it.

    Initialisers and dropout draw from that stream, so nearly every test moves it. Failing those would forbid the
    normal; instead no test can see what another has drawn, whatever their order, and alone or in parallel.
    """
    before = np.random.get_state()
    needle.seed(0)
    yield
    np.random.set_state(before)


@pytest.fixture(autouse=True)
def global_state():
    """Fail a test that leaves grad mode or the default device other than it found them; put them back for the next."""
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
