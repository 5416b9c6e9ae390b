"""A plugin of pytest: CUDA's device is the null device, so that the tests marked `gpu` run without a GPU."""

import pytest

from tests.gpu.null import device


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:  # the first of them asks whether there is a GPU
    device.start()
