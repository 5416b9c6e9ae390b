"""Fixtures of the tests with several ranks."""

import pytest

from tests.distributed.streams import separate


@pytest.fixture
def streams(monkeypatch):
    """A random stream for each rank that is a thread: `streams.stream`."""
    return separate(monkeypatch)
