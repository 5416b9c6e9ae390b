"""How the tests of raw kernels run: on the shim device, plain and in reverse order, and with every access checked."""

from __future__ import annotations

import pytest

from needle.kernels.gpu.source import Source
from tests.gpu.kernels import missing, running

collect_ignore = ["on_gpu.py"]  # a plugin, which needs CuPy


@pytest.fixture(params=["backward", "checked"])
def run(request):
    """The run of the kernels of a test: blocks and threads from the last to the first, or checked."""
    if problem := missing():
        pytest.skip(problem)
    with running(checked=request.param == "checked", order=int(request.param == "backward")) as run:
        yield run


@pytest.fixture
def launches(monkeypatch):
    """The names of the raw kernels that are launched, in order."""
    names, launch = [], Source.launch

    def noted(self, like, kernel, *arguments):
        names.append(kernel)
        launch(self, like, kernel, *arguments)

    monkeypatch.setattr(Source, "launch", noted)
    return names


@pytest.fixture
def sectors():
    """A checked run that counts sectors: `sectors.assert_streams("kernel")` after it ran."""
    if problem := missing():
        pytest.skip(problem)
    with running(checked=True, measure=True) as run:
        yield run
