"""Samplers: how often each item is drawn, from which generator, and what is refused."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch.utils.data import SubsetRandomSampler
from torch.utils.data import WeightedRandomSampler as TorchSampler

import needle as ndl
from needle.data import BalancedSampler, DataLoader, NDArrayDataset, WeightedRandomSampler

WEIGHTS = [0, 1, 2.5, 0, 0.5]


def items(loader):
    return [batch.numpy().tolist() for (batch,) in loader]


def shares(sampler, count):
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return np.bincount(drawn, minlength=count) / len(drawn)


@pytest.mark.parametrize("weights", [WEIGHTS, np.multiply(WEIGHTS, 5e307), ndl.tensor(WEIGHTS), np.float16(WEIGHTS)])
def test_indices_are_drawn_in_proportion_to_their_weights(weights):
    """As torch's are: both lie within five standard deviations of the shares of the weights."""
    torch.manual_seed(0)
    expected = np.array(WEIGHTS) / 4
    for sampler in (WeightedRandomSampler(weights, 20_000, seed=0), TorchSampler(WEIGHTS, 20_000)):
        found = shares(sampler, 5)
        assert (abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_without_replacement_an_index_is_drawn_once():
    sampler = WeightedRandomSampler(WEIGHTS, 3, replacement=False, seed=0)
    epochs = [list(sampler) for _ in range(200)]
    assert {tuple(sorted(epoch)) for epoch in epochs} == {(1, 2, 4)}
    first = np.bincount([epoch[0] for epoch in epochs]) / 200  # the heavy ones come first
    assert first[2] > first[1] > first[4] > 0


def test_classes_are_balanced():
    labels = np.repeat([3, 7, -2], [900, 90, 10]).astype("int16")
    for given in (labels, ndl.Tensor(labels), labels.tolist()):
        sampler = BalancedSampler(given, 30_000, seed=0)
        drawn = labels[list(sampler)]
        np.testing.assert_allclose([np.mean(drawn == label) for label in (3, 7, -2)], 1 / 3, atol=0.014)
        assert len(BalancedSampler(given)) == 1000
    weights = 1 / torch.bincount(torch.tensor(labels + 2))[labels + 2]
    np.testing.assert_allclose(sampler.weights, weights)


def test_draws_come_from_the_global_generator_or_the_sampler_s_own():
    np.random.seed(4)
    expected = np.random.choice(5, 6, p=np.divide(WEIGHTS, 4)).tolist()
    np.random.seed(4)
    assert list(WeightedRandomSampler(WEIGHTS, 6)) == expected
    before = np.random.get_state()
    one, two = (WeightedRandomSampler(WEIGHTS, 6, seed=9) for _ in range(2))
    epochs = [list(one) for _ in range(3)]
    assert [list(two) for _ in range(3)] == epochs
    assert epochs[0] != epochs[1]
    np.testing.assert_equal(np.random.get_state(), before)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_reads_the_items_of_its_sampler(prefetch):
    dataset = NDArrayDataset(np.arange(5) * 10)
    loader = DataLoader(dataset, 4, sampler=WeightedRandomSampler(WEIGHTS, 9, seed=0), prefetch=prefetch)
    expected = [[10 * index for index in WeightedRandomSampler(WEIGHTS, 9, seed=0)]]
    assert len(loader) == 3
    assert [*itertools.chain(*items(loader))] == expected[0]
    assert [*itertools.chain(*items(loader))] != expected[0]
    loader.drop_last = True
    assert len(loader) == len(items(loader)) == 2


def test_lists_and_samplers_of_torch_will_do():
    dataset = NDArrayDataset(np.arange(5) * 10)
    loader = DataLoader(dataset, 2, sampler=[4, 0, 4])
    assert items(loader) == items(loader) == [[40, 0], [40]]
    assert items(DataLoader(dataset, sampler=np.array([2]))) == [[20]]
    assert items(DataLoader(dataset, sampler=[])) == []
    (batch,) = items(DataLoader(dataset, 3, sampler=SubsetRandomSampler([1, 3])))
    assert sorted(batch) == [10, 30]


def test_the_sampler_draws_when_the_epoch_begins():
    loader = DataLoader(NDArrayDataset(np.arange(5)), 2, sampler=WeightedRandomSampler(WEIGHTS, 6))
    np.random.seed(1)
    expected = list(WeightedRandomSampler(WEIGHTS, 6))
    np.random.seed(1)
    epoch = iter(loader)
    np.random.rand(3)
    assert [item for (batch,) in epoch for item in batch.numpy().tolist()] == expected


LOADER = DataLoader(NDArrayDataset(np.arange(5)))
SHUFFLED = DataLoader(LOADER.dataset, shuffle=True)
SAMPLED = DataLoader(LOADER.dataset, sampler=[0])
SEEDED = WeightedRandomSampler([1], 1, seed=0)
REFUSED = [
    (
        lambda: DataLoader(LOADER.dataset, shuffle=True, sampler=[1]), ValueError,
        "DataLoader: shuffle must be False with a sampler, but got True",
    ),
    (
        lambda: setattr(SHUFFLED, "sampler", []), ValueError,
        "DataLoader: shuffle must be False with a sampler, but got True",
    ),
    (
        lambda: setattr(SAMPLED, "shuffle", True), ValueError,
        "DataLoader: shuffle must be False with a sampler, but got True",
    ),
    (
        lambda: DataLoader(LOADER.dataset, sampler=[1], seed=3), ValueError,
        "DataLoader: seed is for shuffle and random transforms, and a sampler has its own, but got both and seed=3",
    ),
    (
        lambda: DataLoader(LOADER.dataset, sampler=iter([1])), TypeError,
        "DataLoader: sampler must be a Sampler, but got list_iterator",
    ),
    (
        lambda: iter(DataLoader(LOADER.dataset, sampler=[0, 5, 7])), ValueError,
        "DataLoader: sampler must hold indices of the dataset, 0 to 4, but got 5",
    ),
    (
        lambda: iter(DataLoader(LOADER.dataset, sampler=[-1])), ValueError,
        "DataLoader: sampler must hold indices of the dataset, 0 to 4, but got -1",
    ),
    (
        lambda: iter(DataLoader(LOADER.dataset, sampler=[0.5])), ValueError,
        "DataLoader: sampler must hold 1 integers, but got float64 of shape (1,)",
    ),
    (
        lambda: WeightedRandomSampler([[1.0]], 1), ValueError,
        "WeightedRandomSampler: weights must be numbers (N,), but got float64 of shape (1, 1)",
    ),
    (
        lambda: WeightedRandomSampler(["a"], 1), ValueError,
        "WeightedRandomSampler: weights must be numbers (N,), but got <U1 of shape (1,)",
    ),
    *(
        (
            lambda wrong=wrong: WeightedRandomSampler([1, wrong], 1), ValueError,
            f"WeightedRandomSampler: weights must be finite and at least 0, but got {float(wrong)}",
        )
        for wrong in (-1, np.nan, np.inf)
    ),
    (
        lambda: WeightedRandomSampler([0, 0], 1), ValueError,
        "WeightedRandomSampler: weights must have one above 0, but got 2 of 0",
    ),
    (
        lambda: WeightedRandomSampler([1], 0), ValueError,
        "WeightedRandomSampler: num_samples must be at least 1, but got 0",
    ),
    (
        lambda: WeightedRandomSampler([1], 1, 0), TypeError,
        "WeightedRandomSampler: replacement must be a bool, but got int",
    ),
    (
        lambda: WeightedRandomSampler(WEIGHTS, 4, False), ValueError,
        "WeightedRandomSampler: num_samples must be at most 3, the number of weights above 0, but got 4",
    ),
    (
        lambda: WeightedRandomSampler([1], 1, seed=-1), ValueError,
        "WeightedRandomSampler: seed must be at least 0, but got -1",
    ),
    (
        lambda: BalancedSampler([]), ValueError,
        "BalancedSampler: labels must have shape (N,), N at least 1, but got (0,)",
    ),
    (
        lambda: BalancedSampler([0.5]), TypeError, "BalancedSampler: labels must be integers, but got dtype float64",
    ),
    (lambda: BalancedSampler([1, 2], 0), ValueError, "BalancedSampler: num_samples must be at least 1, but got 0"),
    (
        lambda: SEEDED.load_state_dict({}), ValueError,
        "WeightedRandomSampler: state must hold generator, but got nothing",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_refused_option_leaves_the_loader_as_it_was():
    assert SHUFFLED.sampler is None
    assert SAMPLED.shuffle is False
