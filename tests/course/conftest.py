"""What the tests of the course's counter of tensors share."""

import gc

import pytest


@pytest.fixture
def uncollected():
    """No collection but those that the test asks for, of what it makes itself: all else is frozen meanwhile."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()
