"""Shared by the tests of the course's counter of tensors."""

import gc

import pytest


@pytest.fixture
def uncollected():
    """Collect garbage only on request, and only objects that the test creates: all others are frozen."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()
