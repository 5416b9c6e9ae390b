"""The state of a loader: an epoch goes on where it was left, batch for batch, and so do the epochs after it."""

from __future__ import annotations

import copy
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import needle as ndl
from needle.data import (
    BalancedSampler,
    DataLoader,
    ImageDataset,
    NDArrayDataset,
    RandomCrop,
    RandomFlipHorizontal,
    WeightedRandomSampler,
)

LABELS = np.arange(10) % 3

# The options of a loader, made anew for each.
OPTIONS = {
    "in order": dict,
    "shuffled": lambda: {"shuffle": True},
    "own seed": lambda: {"shuffle": True, "seed": 5},
    "list": lambda: {"sampler": [7, 7, 1, 0, 3]},
    "weighted": lambda: {"sampler": WeightedRandomSampler(np.arange(10), 11)},
    "balanced, own seed": lambda: {"sampler": BalancedSampler(LABELS, 13, seed=1)},
}


def make(options=dict, *, length=10, size=3, **more):
    return DataLoader(NDArrayDataset(np.arange(length)), size, **options(), **more)


def rest(epoch):
    """The items of the batches that are left of an epoch."""
    return [batch.numpy().tolist() for (batch,) in epoch]


def streams(loader):
    """Where a loader is, with NumPy's global generator, which belongs to no loader."""
    return copy.deepcopy((loader.state_dict(), np.random.get_state()))


def go_on(loader, state):
    loader.load_state_dict(state[0])
    np.random.set_state(state[1])


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_an_epoch_goes_on_at_every_batch(options, drop_last, prefetch):
    """After each batch of two epochs, before the first and after the last: the same batches follow, in three epochs."""
    np.random.seed(3)
    loader = make(options, drop_last=drop_last, prefetch=prefetch)
    states, read = [streams(loader)], []
    for _ in range(2):
        epoch = iter(loader)
        states.append(streams(loader))
        for (batch,) in epoch:
            read.append(batch.numpy().tolist())
            states.append(streams(loader))
        states.append(streams(loader))
    last = rest(loader)

    count = len(loader)
    assert len(read) == 2 * count
    positions = [0, *range(count + 1)] * 2 + [0]
    assert [state["position"] for state, _ in states] == [*positions[: count + 2], *positions[count + 2 :]]
    assert [state["epoch"] for state, _ in states] == [0] * (count + 2) + [1] * (count + 2) + [2]
    for state in states:
        resumed = make(options, drop_last=drop_last, prefetch=prefetch)
        go_on(resumed, state)
        np.testing.assert_equal(streams(resumed), state)
        epoch, position = state[0]["epoch"], state[0]["position"]
        followed = [rest(resumed) for _ in range(3 - epoch)]
        assert [*itertools.chain(*followed)] == [*read[epoch * count + position :], *last]
        assert [len(batches) for batches in followed] == [count - position, count, count][: 3 - epoch]


def events(loader):
    """The batches of epoch after epoch, and "end" after each epoch."""
    while True:
        for (batch,) in loader:
            yield batch.numpy().tolist()
        yield "end"


@given(
    length=st.integers(0, 9),
    size=st.integers(1, 4),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    prefetch=st.integers(0, 2),
    cuts=st.lists(st.integers(0, 7), max_size=5),
)
def test_a_run_in_pieces_is_the_run(prefetch, cuts, **options):
    """A loader that is replaced by a new one after some batches, again and again, yields what one loader yields."""
    loader, read = make(**options, seed=2, prefetch=prefetch), []
    for cut in cuts:
        piece = events(loader)
        read += itertools.islice(piece, cut)
        piece.close()
        state, loader = loader.state_dict(), make(**options, seed=2, prefetch=prefetch)
        loader.load_state_dict(state)
    assert read == list(itertools.islice(events(make(**options, seed=2)), len(read)))


def test_random_transforms_go_on_bit_for_bit():
    """Without prefetch each batch is made when it is asked for: the draws of its transforms come then, too."""
    images = np.random.default_rng(0).random((10, 3, 8, 8), np.float32)

    def augmented():
        dataset = ImageDataset(images, LABELS, transforms=[RandomFlipHorizontal(), RandomCrop(2)])
        return DataLoader(dataset, 4, shuffle=True)

    np.random.seed(0)
    loader, states, read = augmented(), [], []
    for _ in range(2):
        for batch, _ in loader:
            read.append(batch.numpy().tobytes())
            np.random.rand(7)  # a model's dropout
            states.append(streams(loader))
    for position, state in enumerate(states[:-1], start=1):
        resumed, followed = augmented(), []
        go_on(resumed, state)
        while len(followed) < len(read) - position:
            for batch, _ in resumed:
                followed.append(batch.numpy().tobytes())
                np.random.rand(7)
        assert followed == read[position:]


def test_prefetched_batches_do_not_count():
    loader = make(prefetch=3, length=30)
    epoch = iter(loader)
    next(epoch)
    assert loader.state_dict()["position"] == 1
    epoch.close()
    resumed = make(length=30)
    resumed.load_state_dict(loader.state_dict())
    assert rest(resumed)[0] == [3, 4, 5]


def test_a_state_draws_nothing():
    loader = make(OPTIONS["shuffled"])
    next(iter(loader))
    state, before = loader.state_dict(), np.random.get_state()
    resumed = make(OPTIONS["shuffled"])
    resumed.load_state_dict(state)
    rest(resumed)
    np.testing.assert_equal(np.random.get_state(), before)


def test_after_break_a_new_iterator_begins_a_new_epoch_and_a_state_goes_on():
    loader = make()
    for (batch,) in loader:
        if 3 in batch.numpy():
            break
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (0, 2)
    assert rest(loader)[0] == [0, 1, 2]
    assert loader.state_dict()["epoch"] == 2  # the one that was left, and the one that followed
    loader.load_state_dict(state)
    assert rest(loader) == [[6, 7, 8], [9]]
    assert rest(loader)[0] == [0, 1, 2]


@pytest.mark.parametrize("seed", [None, 3])
def test_after_reset_a_loaded_state_begins_the_epoch_that_another_iterator_would(seed):
    def make():
        return DataLoader(NDArrayDataset(np.arange(12)), 2, shuffle=True, seed=seed)

    np.random.seed(0)
    loader, resumed = make(), make()
    for steps in (0, 1, 6):  # before, within and after an epoch
        for _ in zip(range(steps), loader, strict=False):
            pass
        resumed.load_state_dict(loader.state_dict())
        resumed.reset()
        stream = ndl.get_rng_state()
        expected = [items.numpy().tolist() for (items,) in loader]
        ndl.set_rng_state(stream)
        assert [items.numpy().tolist() for (items,) in resumed] == expected
        np.testing.assert_equal(resumed.state_dict(), loader.state_dict())


def test_a_state_holds_for_one_iterator():
    loader = make()
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    first, second = iter(loader), iter(loader)
    assert [len(rest(first)), len(rest(second))] == [3, 4]


def test_with_two_iterators_the_state_is_that_of_the_later_one():
    loader = make()
    first, second = iter(loader), iter(loader)
    next(second)
    rest(first)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (1, 1)
    rest(second)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (2, 0)


def test_a_running_iterator_is_untouched_by_a_state():
    loader = make()
    state = loader.state_dict()
    epoch = iter(loader)
    next(epoch)
    loader.load_state_dict(state)
    assert rest(epoch) == [[3, 4, 5], [6, 7, 8], [9]]
    assert loader.state_dict()["position"] == 0
    assert loader.state_dict()["epoch"] == 0


def test_an_error_of_the_dataset_leaves_the_position_before_its_batch():
    def refuse(number):
        if number == 7:
            raise OSError("no number 7")
        return number

    loader = DataLoader(NDArrayDataset(np.arange(10), transforms=[refuse]), 3)
    with pytest.raises(OSError, match="no number 7"):
        rest(loader)
    state = loader.state_dict()
    assert state["position"] == 2
    resumed = make()
    resumed.load_state_dict(state)
    assert rest(resumed) == [[6, 7, 8], [9]]


def test_options_that_are_set_after_a_state_hold_from_the_next_epoch():
    loader = make()
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    loader.batch_size = 5
    assert rest(loader) == [[3, 4, 5], [6, 7, 8], [9]]
    assert rest(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_between_epochs_the_batch_size_may_change():
    loader = make(OPTIONS["own seed"])
    rest(loader)
    expected = [*itertools.chain(*rest(copy.deepcopy(loader)))]
    other = make(OPTIONS["own seed"], size=4)
    other.load_state_dict(loader.state_dict())
    batches = rest(other)
    assert [*itertools.chain(*batches)] == expected
    assert len(batches[0]) == 4


def test_a_state_is_plain_data_of_its_own():
    loader = make(OPTIONS["own seed"])
    epoch = iter(loader)
    next(epoch)
    state = loader.state_dict()
    order = state.pop("order")
    assert json.loads(json.dumps(state)) == state
    assert state["generator"]["bit_generator"] == "PCG64"
    state["order"] = order.tolist()  # lists will do
    resumed = make(OPTIONS["own seed"])
    resumed.load_state_dict(state)
    left = rest(resumed)
    other = make(OPTIONS["own seed"])
    other.load_state_dict({**state, "order": order})
    order[:] = 0  # all have copies
    assert rest(epoch) == rest(other) == left


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_state_goes_through_a_file(options, kind, tmp_path):
    loader = make(options)
    for _ in range(2):  # between epochs, and within one
        ndl.save(tmp_path / f"state{kind}", loader.state_dict())
        stream = np.random.get_state()
        expected = [rest(loader) for _ in range(2)]
        resumed = make(options)
        resumed.load_state_dict(ndl.load(tmp_path / f"state{kind}"))
        np.random.set_state(stream)
        assert [rest(resumed) for _ in range(2)] == expected
        loader.load_state_dict(resumed.state_dict())
        next(iter(loader))
        loader.load_state_dict(loader.state_dict())


# ---- refused states --------------------------------------------------------------------------------------------------

OP = "DataLoader: "
KEYS = "epoch, position, order, batch_size, length, generator, sampler"
UNLIKE = OP + "shuffle and sampler must be as they were for the state, but got others"


def state_of(options=dict, *, read=1, **changes):
    loader = make(options)
    for _ in zip(range(read), loader, strict=False):
        pass
    return {**loader.state_dict(), **changes}


PCG = np.random.default_rng(0).bit_generator.state
REFUSED = [
    (dict, 3, TypeError, OP + "state must be a dict, but got int"),
    (dict, {}, ValueError, f"{OP}state must hold {KEYS}, but got nothing"),
    (dict, state_of() | {"more": 1}, ValueError, f"{OP}state must hold {KEYS}, but got {KEYS}, more"),
    (dict, state_of(epoch=-1), ValueError, OP + "epoch must be at least 0, but got -1"),
    (dict, state_of(position=1.0), TypeError, OP + "position must be an integer, but got 1.0"),
    (dict, state_of(position=5), ValueError, OP + "position must be at most 4, the number of batches, but got 5"),
    (
        dict, state_of(length=11), ValueError,
        OP + "the dataset of the state and this dataset must agree in length, but got 11 and 10",
    ),
    (
        dict, state_of(batch_size=4), ValueError,
        OP + "the state and the loader, within an epoch, must agree in batch_size, but got 4 and 3",
    ),
    (dict, state_of(OPTIONS["shuffled"]), ValueError, UNLIKE),
    (OPTIONS["shuffled"], state_of(), ValueError, UNLIKE),
    (OPTIONS["balanced, own seed"], state_of(OPTIONS["list"]), ValueError, UNLIKE),
    (dict, state_of(OPTIONS["balanced, own seed"], read=0), ValueError, UNLIKE),
    (
        OPTIONS["list"], state_of(OPTIONS["shuffled"]), ValueError,
        OP + "order must hold 5 integers, but got int64 of shape (10,)",
    ),
    (
        OPTIONS["shuffled"], state_of(OPTIONS["shuffled"], order=np.arange(10.0)), ValueError,
        OP + "order must hold 10 integers, but got float64 of shape (10,)",
    ),
    (
        OPTIONS["shuffled"], state_of(OPTIONS["shuffled"], order=np.arange(1, 11)), ValueError,
        OP + "order must hold indices of the dataset, 0 to 9, but got 10",
    ),
    (
        OPTIONS["own seed"], state_of(OPTIONS["shuffled"]), ValueError,
        OP + "a seed must be given as it was for the state, but got a seed where that has none",
    ),
    (
        OPTIONS["shuffled"], state_of(OPTIONS["own seed"]), ValueError,
        OP + "a seed must be given as it was for the state, but got no seed where that has one",
    ),
    *(
        (
            OPTIONS["own seed"], state_of(OPTIONS["own seed"], generator=wrong), ValueError,
            OP + f"generator must be the state of a PCG64, but got {wrong!r:.100}",
        )
        for wrong in (
            3, {}, {"bit_generator": "MT19937"}, {**PCG, "state": 5}, {**PCG, "state": {"state": "a", "inc": 1}},
            {**PCG, "has_uint32": "no"}, {**PCG, "state": {"state": 2**200, "inc": 1}}, {**PCG, "uinteger": -1},
        )
    ),
    (
        OPTIONS["balanced, own seed"], state_of(OPTIONS["balanced, own seed"], sampler={"generator": None}), ValueError,
        (OP + "a seed must be given as it was for the state, but got a seed where that has none").replace(
            "DataLoader", "BalancedSampler"
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "state", "error", "message"), REFUSED)
def test_a_wrong_state_is_refused_and_changes_nothing(options, state, error, message):
    loader = make(options)
    epoch = iter(loader)
    next(epoch)
    before = streams(loader)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        loader.load_state_dict(state)
    np.testing.assert_equal(streams(loader), before)
    assert len(rest(epoch)) == len(loader) - 1
