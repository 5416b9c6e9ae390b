"""Transforms in a loader: a seed fixes them, with and without a thread, for workers, and within a resumed epoch."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

import needle as ndl
from needle.data import (
    BatchTransform,
    Compose,
    CutMix,
    Cutout,
    DataLoader,
    ImageDataset,
    MixUp,
    NDArrayDataset,
    Normalize,
    RandomAffine,
    RandomCrop,
    RandomFlipHorizontal,
    SegmentationDataset,
    Subset,
    WeightedRandomSampler,
)
from needle.training import fit
from tests.data.test_worker_batches import run_ranks_alone

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 3, 8, 8), np.uint8)
LABELS = np.arange(11) % 4
MOVED = [RandomFlipHorizontal(), Compose([RandomCrop(2), Cutout(3)]), Normalize(0.5, 0.25)]
CHAINS = {"moved": MOVED, "mixed": [*MOVED, MixUp(4)], "cut and moved": [CutMix(4), *MOVED]}


def make(transforms=MOVED, **options):
    options = {"shuffle": "sampler" not in options, **options}
    return DataLoader(NDArrayDataset(IMAGES, LABELS), 4, transforms=transforms, **options)


def read(loader, epochs=1):
    """The bytes of all fields of all batches, which are compared bit for bit."""
    return [tuple(field.numpy().tobytes() for field in batch) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("transforms", CHAINS.values(), ids=CHAINS)
def test_a_seed_fixes_all_batches_with_and_without_a_thread(transforms):
    np.random.seed(0)
    expected = read(make(transforms, seed=3), epochs=2)
    assert len(set(expected)) == 6
    before = np.random.get_state()
    for prefetch in (1, 3):
        assert read(make(transforms, seed=3, prefetch=prefetch), epochs=2) == expected
    np.testing.assert_equal(np.random.get_state(), before)
    assert read(make(transforms, seed=4), epochs=2) != expected


def test_the_numbers_of_a_batch_are_of_the_seed_of_its_epoch_and_its_place():
    class Numbers(BatchTransform):
        draws = 2

        def apply(self, fields, numbers):
            return numbers, *fields

    loader, seeds = make([RandomFlipHorizontal(), Numbers()], seed=3), set()
    for _ in range(2):
        for place, (numbers, images, _) in enumerate(loader):
            seeds.add(seed := loader.state_dict()["transforms"])
            expected = np.random.default_rng([seed, place]).random((len(images), 3))[:, 1:]
            np.testing.assert_array_equal(numbers.numpy(), expected.astype(np.float32))
    assert len(seeds) == 2


@pytest.mark.parametrize("prefetch", [0, 2])
def test_without_a_seed_the_global_generator_gives_one_number_at_the_start_of_an_epoch(prefetch):
    """The draws of a model in between change nothing."""

    def batches(dropout):
        ndl.seed(5)
        return [*read_and(make(prefetch=prefetch), dropout)]

    def read_and(loader, dropout):
        for _ in range(2):
            state = np.random.get_state()
            epoch = iter(loader)
            np.random.set_state(state)
            np.random.permutation(11)
            np.random.randint(1 << 63, dtype=np.int64)
            for images, _ in epoch:
                dropout()
                yield images.numpy().tobytes()
            np.random.seed(9)

    assert batches(lambda: np.random.rand(3)) == batches(lambda: None)


def test_transforms_that_draw_nothing_leave_the_order_as_it_is():
    np.random.seed(1)
    expected = [labels.numpy().tolist() for _, labels in make(())]
    after = np.random.rand()
    np.random.seed(1)
    loader = make([Normalize(0, 1)])
    batches = [*loader]
    assert [labels.numpy().tolist() for _, labels in batches] == expected
    assert np.random.rand() == after
    assert "transforms" not in loader.state_dict()
    images = np.concatenate([images.numpy() for images, _ in batches])
    assert images.dtype == np.float32
    np.testing.assert_allclose(np.sort(images.sum((1, 2, 3))), np.sort((IMAGES / 255).sum((1, 2, 3))), rtol=1e-6)


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("transforms", CHAINS.values(), ids=CHAINS)
def test_an_epoch_goes_on_bit_for_bit_at_every_batch(transforms, prefetch):
    loader = make(transforms, seed=3, prefetch=prefetch)
    states, expected = [loader.state_dict()], []
    for _ in range(2):
        epoch = iter(loader)
        states.append(loader.state_dict())
        for batch in epoch:
            expected.append(tuple(field.numpy().tobytes() for field in batch))
            states.append(loader.state_dict())
    for state in states:
        resumed = make(transforms, seed=3, prefetch=2 - prefetch)
        resumed.load_state_dict(state)
        np.testing.assert_equal(resumed.state_dict(), state)
        at = 3 * state["epoch"] + state["position"]
        assert read(resumed, epochs=2 - state["epoch"]) == expected[at:]


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_a_state_goes_through_a_file(kind, tmp_path):
    loader = make(seed=3)
    next(iter(loader))
    ndl.save(tmp_path / f"state{kind}", loader.state_dict())
    resumed, again = make(seed=3), make(seed=3)
    resumed.load_state_dict(ndl.load(tmp_path / f"state{kind}"))
    again.load_state_dict(loader.state_dict())
    assert read(resumed, 2) == read(again, 2)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_state_at_the_start_of_an_epoch_has_its_seed(in_order):
    options = {"shuffle": not in_order, "seed": 3}
    loader = make(**options)
    epoch = iter(loader)
    resumed = make(**options)
    resumed.load_state_dict(loader.state_dict())
    assert read(resumed) == read(epoch)


def test_a_sampler_may_come_with_a_seed_for_the_transforms():
    def batches(seed):
        return read(make(sampler=WeightedRandomSampler(np.ones(11), 8, seed=0), seed=seed), 2)

    assert batches(1) == batches(1) != batches(2)


DATASETS = {
    "arrays": lambda: NDArrayDataset(IMAGES, LABELS),
    "draws of its own": lambda: Subset(ImageDataset(IMAGES, LABELS, transforms=[RandomCrop(1)]), np.arange(11)),
}


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("transforms", CHAINS.values(), ids=CHAINS)
def test_the_parts_of_workers_make_up_the_batches(transforms, name, prefetch):
    def make():
        return DataLoader(DATASETS[name](), 4, shuffle=True, prefetch=prefetch, transforms=transforms)

    ndl.seed(3)
    whole = [[field.numpy() for field in batch] for batch in make()]
    ranks = [run_ranks_alone(rank, make) for rank in range(2)]
    for fields, *parts in zip(whole, *ranks, strict=True):
        for number, field in enumerate(fields):
            np.testing.assert_array_equal(np.concatenate([part[1][number] for part in parts]), field, strict=True)


def test_workers_prepare_only_their_items_unless_they_are_mixed():
    seen = []

    class Seen(RandomFlipHorizontal):
        def compute(self, images, numbers):
            seen.append(len(images))
            return super().compute(images, numbers)

    run_ranks_alone(0, lambda: make([Seen()]))
    run_ranks_alone(0, lambda: make([Seen(), CutMix(4)]))
    assert seen == [2, 2, 2, 4, 4, 3]


def test_fit_with_workers_sees_the_same_images():
    """Losses of two workers are those of one process, but for rounding."""

    def losses(workers):
        ndl.seed(0)
        model = ndl.nn.Sequential(ndl.nn.Flatten(), ndl.nn.Linear(192, 4))
        loader = make([RandomAffine(20), *MOVED, MixUp(4)], seed=1, prefetch=2)
        optimizer = ndl.optim.SGD(model.parameters(), 0.1)
        rows = fit(model, ndl.nn.CrossEntropyLoss(), optimizer, loader, epochs=2, workers=workers)
        return [row["loss"] for row in rows]

    np.testing.assert_allclose(losses(2), losses(1), rtol=1e-5)


def test_masks_move_with_their_images():
    masks = (IMAGES[:, 0] > 99).astype(np.int64)
    dataset = SegmentationDataset(np.where(masks[:, None], np.float32(1), np.float32(0)), masks)
    moved = [RandomFlipHorizontal(), RandomCrop(3), RandomAffine(40, 0.2, mode="nearest")]
    for images, shifted in DataLoader(dataset, 4, seed=0, transforms=moved):
        assert shifted.dtype == "int64"
        np.testing.assert_array_equal(images.numpy()[:, 0], shifted.numpy())
        assert (images.numpy() != 0).any()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_transforms_run_where_batches_are_prepared(prefetch):
    threads = set()

    class Here(BatchTransform):
        def apply(self, fields, numbers):
            assert numbers.shape == (len(fields[0]), 0)
            threads.add(threading.current_thread().name)
            return fields[::-1]

    batches = [*make([Here()], prefetch=prefetch)]
    assert [labels.shape for labels, _ in batches] == [(4,), (4,), (3,)]
    assert threads == {"needle-prefetch" if prefetch else threading.current_thread().name}


def test_the_dataset_is_never_written_into():
    images = (IMAGES / 255).astype(np.float32)
    before = images.copy()

    class Stored(NDArrayDataset):
        def take(self, indices):
            return self.arrays

    dataset = Stored(images, LABELS)
    for transforms in CHAINS.values():
        for batch in DataLoader(dataset, 11, transforms=transforms):
            batch[0].cached_data[...] = 7
    np.testing.assert_array_equal(images, before)


def test_transforms_that_are_set_later_hold_from_the_next_epoch():
    loader = make((), shuffle=False)
    epoch = iter(loader)
    loader.transforms = [Normalize(0, 1)]
    assert {images.dtype.name for images, _ in epoch} == {"uint8"}
    assert {images.dtype.name for images, _ in loader} == {"float32"}


OP = "DataLoader: "
ERRORS = [
    (lambda: make(abs), TypeError, OP + "transforms must be a list of callables, but got <built-in function abs>"),
    (
        lambda: make([abs]),
        TypeError,
        OP + "transforms of batches must be BatchTransforms, but got <built-in function abs>",
    ),
    (
        lambda: make([Compose([Compose([abs])])]),
        TypeError,
        OP + "transforms of batches must be BatchTransforms, but got <built-in function abs>",
    ),
    (
        lambda: make(seed=1).load_state_dict(make((), seed=1).state_dict()),
        ValueError,
        OP + "state must hold epoch, position, order, batch_size, length, generator, sampler, transforms, "
        "but got epoch, position, order, batch_size, length, generator, sampler",
    ),
    (
        lambda: make(shuffle=False).load_state_dict({**make(shuffle=False).state_dict(), "position": 1}),
        TypeError,
        OP + "transforms must be an integer, but got None",
    ),
    (
        lambda: make().load_state_dict({**make().state_dict(), "transforms": -1, "order": LABELS}),
        ValueError,
        OP + "transforms must be at least 0, but got -1",
    ),
    (
        lambda: next(iter(DataLoader(NDArrayDataset(LABELS), 2, transforms=[RandomCrop(1)], prefetch=1))),
        ValueError,
        "RandomCrop: images must be N x C x H x W, but got shape (2,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
