"""Two BLAS threads for the tests of kernels, on which most of them share their work; nightly, one as well.

The floors above run on as many as OMP_NUM_THREADS says, which is one with `make test`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from threadpoolctl import ThreadpoolController

BLAS = ThreadpoolController().select(user_api="blas")


def pytest_generate_tests(metafunc):
    if settings.get_current_profile_name() == "nightly" and "threads" not in metafunc.fixturenames:
        metafunc.parametrize("blas_threads", [1, 2], indirect=True)


@pytest.fixture(autouse=True)
def blas_threads(request):
    """BLAS, and so needle, with two threads."""
    with BLAS.limit(limits=getattr(request, "param", 2)):
        yield


@pytest.fixture(params=[1, 2])
def threads(request, blas_threads):
    """BLAS, and so needle, with that number of threads."""
    with BLAS.limit(limits=request.param):
        yield request.param
