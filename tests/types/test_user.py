"""The script that type checkers read does what it says; `make lint` checks its types."""

import pytest

from tests.types import user


@pytest.mark.parametrize("function", [user.arithmetic, user.functions])
def test_the_types_hold_for_code_that_runs(function):
    function()


def test_the_training_runs():
    assert user.train() < 3
