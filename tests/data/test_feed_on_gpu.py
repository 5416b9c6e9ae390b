"""Batches on a GPU, or on the null device: the values of batches on the CPU, one transfer a batch, arrays that stay."""

import copy
import gc
import pickle
import sys

import numpy as np
import pytest

import needle as ndl
from needle import tuning
from needle.data import DataLoader, NDArrayDataset, PixelDataset
from needle.data.feed import RowsFeed, feed_of
from tests.data.test_feed import DATASETS, LABELS, PIXELS

if not ndl.cuda().enabled():
    pytest.skip("there is no GPU", allow_module_level=True)
pytestmark = pytest.mark.gpu


def null_device():
    """The library of the null device, if CuPy is on that."""
    module = sys.modules.get("tests.gpu.null.device")
    return None if module is None else module.library


@pytest.fixture(params=["at once", "late"])
def there(request):
    """The GPU. The null device also works late: it does nothing before somebody waits for it."""
    null = null_device()
    if null is None:
        yield ndl.cuda()
    else:
        null.null_late(int(request.param == "late"))
        yield ndl.cuda()
        null.null_late(0)


def epochs(dataset, transforms, device, count=2, **options):
    np.random.seed(0)
    loader = DataLoader(dataset, 4, shuffle=True, transforms=transforms, device=device, **options)
    return [batch for _ in range(count) for batch in loader]


@pytest.mark.parametrize("share", [0, tuning.RESIDENT_SHARE])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("name", DATASETS)
def test_batches_are_those_of_the_cpu(name, prefetch, share, there, monkeypatch):
    if name == "transforms of items" and prefetch:
        pytest.skip("draws depend on timing")
    monkeypatch.setattr(tuning, "RESIDENT_SHARE", share)
    dataset, transforms, _ = DATASETS[name]
    ours = epochs(dataset, transforms, there, prefetch=prefetch)
    theirs = epochs(dataset, transforms, ndl.cpu(), prefetch=0)
    for mine, other in zip(ours, theirs, strict=True):
        for x, y in zip(mine, other, strict=True):
            assert (x.device, x.dtype, x.requires_grad) == (there, y.dtype, False)
            np.testing.assert_array_equal(x.numpy(), y.numpy(), strict=True)
            if y.ndim >= 4 and y.dtype == "float32" and len(y.numpy()) > 1:
                assert x.array.strides[0] == 4


def test_arrays_that_stay_are_shared_and_sent_again_after_a_reset(there):
    pixels = PIXELS.copy()
    loaders = [DataLoader(PixelDataset(pixels, LABELS), 23, device=there) for _ in range(2)]
    first = [next(iter(loader))[0].numpy() for loader in loaders]
    assert loaders[0]._resident is loaders[1]._resident is not None
    pixels[:] = 0
    np.testing.assert_array_equal(next(iter(loaders[0]))[0].numpy(), first[0])
    for loader in loaders:
        loader.reset()
    gc.collect()
    assert not next(iter(loaders[0]))[0].numpy().any()
    for other in (copy.deepcopy(loaders[0]), pickle.loads(pickle.dumps(loaders[0]))):
        assert other._resident is None


def test_a_loader_left_early_and_read_in_another_order(there):
    loader = DataLoader(PixelDataset(PIXELS, LABELS), 5, device=there, prefetch=2)
    for (images, _), _ in zip(loader, range(2), strict=False):
        kept = images
    one, other = iter(loader), iter(loader)
    both = [next(one)[0], next(other)[0], next(one)[0], next(other)[0]]
    np.testing.assert_array_equal(both[2].numpy(), both[3].numpy())
    np.testing.assert_array_equal(kept.numpy(), both[2].numpy())


def test_errors_come_with_their_batch(there):
    class Broken(NDArrayDataset):
        def take(self, indices):
            if 5 in indices:
                raise KeyError("no item 5")
            return super().take(indices)

    for prefetch in (0, 2):
        batches = iter(DataLoader(Broken(PIXELS), 4, device=there, prefetch=prefetch))
        next(batches)
        with pytest.raises(KeyError, match="no item 5"):
            next(batches)


def test_fields_that_are_no_numbers_are_refused_as_ever(there):
    with pytest.raises(TypeError, match="real numbers or bools, but got dtype complex128"):
        next(iter(DataLoader(NDArrayDataset(PIXELS, LABELS * 1j), 4, device=there)))


@pytest.mark.parametrize("name", ["bytes, normalized", "floats", "bytes, flipped"])
@pytest.mark.parametrize("share", [0, tuning.RESIDENT_SHARE])
def test_one_transfer_a_batch_and_no_wait(name, share, there, monkeypatch):
    if null_device() is None:
        pytest.skip("only the null device counts")
    from tests.gpu.null.counts import counting

    monkeypatch.setattr(tuning, "RESIDENT_SHARE", share)
    dataset, transforms, _ = DATASETS[name]
    loader = DataLoader(dataset, 4, transforms=transforms, device=there)
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    with counting() as counts:
        for _ in range(3):
            next(batches)
    is_resident = isinstance(feed_of(dataset, transforms, there, 0), RowsFeed) and share
    assert (counts.uploads, counts.downloads) == (3, 0)
    assert counts.launches <= 3 * (3 if name == "floats" else 2), counts.journal
    assert bool(loader._resident) == bool(is_resident)
