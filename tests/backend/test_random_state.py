"""The random stream as plain data: what comes after it, and states that are refused."""

import numpy as np
import pytest

import needle as ndl


def draws():
    return [np.random.rand(3), np.random.randn(3), np.random.permutation(5), ndl.rand(2).numpy()]


def test_a_state_brings_back_every_draw():
    np.random.randn()  # a second normal number is cached
    before = ndl.get_rng_state()
    first = draws()
    ndl.set_rng_state(before)
    assert [array.tobytes() for array in draws()] == [array.tobytes() for array in first]
    assert before["has_gauss"] == 1


def test_a_state_is_a_copy():
    state = ndl.get_rng_state()
    key = state["state"]["key"].copy()
    np.random.rand(2000)
    np.testing.assert_array_equal(state["state"]["key"], key)


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"state": 3}, "state 3"),
        ({"bit_generator": "PCG64"}, "bit_generator 'PCG64'"),
        ({"has_gauss": True}, "has_gauss True"),
        ({"gauss": 1}, "gauss 1"),
        ({"more": 1}, "['more'] on one side only"),
        ({"state": {"pos": 3}}, "state.['key'] on one side only"),
        ({"state": {"key": [0], "pos": 3}}, "state.key of shape None and dtype None"),
        ({"state": {"key": np.zeros(624), "pos": 3}}, "state.key of shape (624,) and dtype float64"),
        ({"state": {"key": np.zeros(623, "uint32"), "pos": 3}}, "state.key of shape (623,) and dtype uint32"),
        ({"state": {"key": np.zeros(624, "uint32"), "pos": 625}}, "state.pos 625"),
        ({"state": {"key": np.zeros(624, "uint32"), "pos": -1}}, "state.pos -1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, got):
    before = ndl.get_rng_state()
    with pytest.raises(ValueError, match=r"^set_rng_state: ") as error:
        ndl.set_rng_state(before | change)
    assert str(error.value) == f"set_rng_state: state must be what get_rng_state returned, but got {got}"
    np.testing.assert_equal(ndl.get_rng_state(), before)
    with pytest.raises(TypeError, match=r"^set_rng_state: state must be a Mapping, but got list"):
        ndl.set_rng_state([before])
