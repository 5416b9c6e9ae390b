"""The random stream as plain data: what comes after it, and states that are refused."""

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle.backend import to_host
from needle.backend.splitmix import splitmix64


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


def test_all_devices_draw_from_this_stream(device):
    def drop():
        x = ndl.ones(4, 5, device=device)
        return [F.dropout(x), F.dropout1d(x), ndl.nn.Dropout()(x), ndl.rand(4, device=device)]

    before = ndl.get_rng_state()
    first = [tensor.numpy() for tensor in drop()]
    assert 0 < np.count_nonzero(first[0]) < 20
    ndl.set_rng_state(before)
    np.testing.assert_equal([tensor.numpy() for tensor in drop()], first)


def test_splitmix64_gives_the_numbers_of_its_reference_implementation(device):
    numbers = to_host(splitmix64(device.xp, 1234567, 5)).tolist()
    assert numbers == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert to_host(splitmix64(device.xp, 2**64 - 1, 0)).tolist() == []


def test_draws_are_uniform(device):
    """Their moments, and the correlation of neighbours, of 300,000 draws; one draw is in [0, 1)."""
    draws = to_host(device.draws((3, 100_000)))
    assert 0 <= draws.min() < 1e-4
    assert 1 - 1e-4 < draws.max() < 1
    np.testing.assert_allclose([(draws**n).mean() for n in (1, 2, 3)], [1 / 2, 1 / 3, 1 / 4], atol=0.003)
    np.testing.assert_allclose(np.corrcoef([*draws, draws[0, np.arange(100_000) - 1]]), np.eye(4), atol=0.02)
    assert device.draws(()).shape == ()


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
