"""The course's contract for `ndl.data`: signatures, items, batches, and the order of random draws."""

from __future__ import annotations

import gzip
import inspect
import pickle
import struct

import numpy as np
import pytest

import needle as ndl
from needle.backend_ndarray import NDArray

IMAGES = np.random.default_rng(1).integers(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([5, 0, 4, 1, 9, 2, 1], np.uint8)


def zipped_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
    return str(path)


@pytest.fixture
def mnist(tmp_path):
    """Makes an MNISTDataset of seven images, with the arguments that the homeworks pass."""
    paths = (
        zipped_idx(tmp_path / "train-images-idx3-ubyte.gz", IMAGES),
        zipped_idx(tmp_path / "train-labels-idx1-ubyte.gz", LABELS),
    )
    return lambda **options: ndl.data.MNISTDataset(*paths, **options)


@pytest.fixture
def cifar(tmp_path):
    """A folder of batches with two images per file; the labels encode file and position."""
    random = np.random.default_rng(2)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        pixels = random.integers(0, 256, (2, 3072), np.uint8)
        pixels[0, 0] = 255
        content = {b"data": pixels, b"labels": [number, 9 - number]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    return str(tmp_path)


@pytest.fixture
def ptb(tmp_path):
    (tmp_path / "train.txt").write_text(" aer banknote <unk> \n banknote N <unk> N \n calloway \n")
    (tmp_path / "test.txt").write_text(" no calloway \n aer it \n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Dataset", {"transforms": None}),
        ("DataLoader", {"dataset": ..., "batch_size": 1, "shuffle": False}),
        ("RandomFlipHorizontal", {"p": 0.5}),
        ("RandomCrop", {"padding": 3}),
        ("MNISTDataset", {"image_filename": ..., "label_filename": ..., "transforms": None}),
        ("CIFAR10Dataset", {"base_folder": ..., "train": ..., "p": 0.5, "transforms": None}),
        ("Dictionary", {}),
        ("Corpus", {"base_dir": ..., "max_lines": None}),
        ("batchify", {"data": ..., "batch_size": ..., "device": None, "dtype": None}),
        ("get_batch", {"batches": ..., "i": ..., "bptt": ..., "device": None, "dtype": None}),
    ],
)
def test_signatures(name, parameters):
    actual = inspect.signature(getattr(ndl.data, name)).parameters.values()
    positional = [p for p in actual if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, ... if p.default is p.empty else p.default) for p in positional] == list(parameters.items())


# Dataset and NDArrayDataset


def test_a_custom_dataset():
    class Halves(ndl.data.Dataset):
        def __getitem__(self, index):
            return self.apply_transforms(np.array([index / 2], np.float32)), index

        def __len__(self):
            return 3

    dataset = Halves(transforms=[lambda x: x + 1, lambda x: x * 2])
    assert dataset[1][0].tolist() == [3]  # (0.5 + 1) * 2: first to last
    x, y = list(ndl.data.DataLoader(dataset, batch_size=2))[1]
    assert (x.numpy().tolist(), y.numpy().tolist()) == ([[4]], [2])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_item_of_arrays_is_a_tuple_of_their_entries(count):
    arrays = [np.arange(number, number + 5) for number in range(count)]
    dataset = ndl.data.NDArrayDataset(*arrays)
    assert len(dataset) == 5
    assert isinstance(dataset[3], tuple)
    assert dataset[3] == tuple(3 + number for number in range(count))


# DataLoader


def test_batches_are_tuples_of_stacked_tensors_the_last_one_smaller():
    dataset = ndl.data.NDArrayDataset(np.arange(14, dtype=np.float32).reshape(7, 2), np.arange(7))
    batches = list(ndl.data.DataLoader(dataset=dataset, batch_size=3, shuffle=False))
    assert [[field.shape for field in batch] for batch in batches] == [[(3, 2), (3,)]] * 2 + [[(1, 2), (1,)]]
    for number, batch in enumerate(batches):
        assert isinstance(batch, tuple | list)
        for field, array in zip(batch, dataset.arrays, strict=True):
            assert isinstance(field, ndl.Tensor)
            assert isinstance(field.cached_data, NDArray)
            np.testing.assert_array_equal(field.numpy(), array[3 * number : 3 * number + 3])
    assert batches[0][0].dtype == "float32"


def test_iter_begins_an_epoch():
    loader = ndl.data.DataLoader(ndl.data.NDArrayDataset(np.arange(4)), 2)
    assert next(iter(loader))[0].numpy().tolist() == [0, 1]
    assert next(iter(loader))[0].numpy().tolist() == [0, 1]
    assert len(list(loader)) == len(list(loader)) == 2


def test_a_batch_of_one_scalar_has_one_element():
    (batch,) = next(iter(ndl.data.DataLoader(ndl.data.NDArrayDataset(np.array([7, 8])))))
    assert batch.numpy().item() == 7


def test_two_batches_compare_as_different():
    loader = ndl.data.DataLoader(ndl.data.NDArrayDataset(np.zeros((4, 3)), np.zeros(4)), 2)
    first, second = loader
    assert first != second


def test_shuffling_draws_one_permutation_at_each_iter():
    np.random.seed(0)
    loader = ndl.data.DataLoader(ndl.data.NDArrayDataset(np.arange(10)), 4, shuffle=True)
    epochs = [[batch.numpy().tolist() for (batch,) in loader] for _ in range(2)]
    after = np.random.rand()
    np.random.seed(0)
    for epoch in epochs:
        order = np.arange(10)
        np.random.shuffle(order)
        assert epoch == [order[:4].tolist(), order[4:8].tolist(), order[8:].tolist()]
    assert np.random.rand() == after
    assert epochs[0] == [[2, 8, 4, 9], [1, 6, 7, 3], [0, 5]]  # NumPy's legacy stream is the same in every version


def test_the_permutation_is_drawn_by_iter_itself():
    """Drawn by `iter`, before the first batch, and not by the constructor."""
    loader = ndl.data.DataLoader(ndl.data.NDArrayDataset(np.arange(10)), 10, shuffle=True)
    np.random.seed(3)
    epoch = iter(loader)
    np.random.seed(4)
    np.testing.assert_array_equal(next(epoch)[0].numpy(), np.random.RandomState(3).permutation(10))


# The transforms


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_a_flip_is_of_axis_1_below_p(seed, p):
    image = np.random.rand(4, 5, 3)
    np.random.seed(seed)
    draw, after = np.random.rand(2)
    np.random.seed(seed)
    flipped = ndl.data.RandomFlipHorizontal(p)(image)
    np.testing.assert_array_equal(flipped, np.flip(image, axis=1) if draw < p else image)
    assert np.random.rand() == after


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("padding", [0, 1, 3, 16, 40])
def test_a_crop_is_of_the_padded_image(seed, padding):
    image = np.random.rand(28, 16, 2)
    np.random.seed(seed)
    sx, sy = np.random.randint(low=-padding, high=padding + 1, size=2)
    after = np.random.rand()
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    expected = padded[padding + sx : padding + sx + 28, padding + sy : padding + sy + 16]
    np.random.seed(seed)
    np.testing.assert_array_equal(ndl.data.RandomCrop(padding)(image), expected)
    assert np.random.rand() == after


# MNISTDataset


def test_mnist_pixels_are_the_raw_ones_divided_by_255(mnist):
    dataset = mnist()
    for index in range(7):
        image, label = dataset[index]
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image.ravel(), IMAGES[index].ravel().astype(np.float32) / np.float32(255))
        assert label == LABELS[index]
    assert len(dataset) == 7
    pixels = IMAGES.astype(np.float32)  # the equality above tells these two apart:
    assert not np.array_equal(pixels / np.float32(255), pixels * np.float32(1 / 255))


def test_mnist_slices_are_items_stacked(mnist):
    dataset = mnist()
    images, labels = dataset[1:4]
    np.testing.assert_array_equal(images, np.stack([dataset[i][0] for i in (1, 2, 3)]))
    assert images.shape == (3, *dataset[0][0].shape)
    np.testing.assert_array_equal(labels, LABELS[1:4])


def test_mnist_transforms_run_in_order_at_access_one_image_at_a_time(mnist):
    seen = []

    def first(image):
        seen.append(("first", image.shape))
        return image + 1

    def second(image):
        seen.append(("second", image.shape))
        return image * 3

    dataset = mnist(transforms=[first, second])
    assert seen == []
    image, _ = dataset[2]
    assert seen == [("first", (28, 28, 1)), ("second", (28, 28, 1))]
    np.testing.assert_allclose(image.ravel(), (IMAGES[2].ravel() / 255 + 1) * 3, rtol=1e-6)
    next(iter(ndl.data.DataLoader(dataset, 3)))
    assert seen[2:] == [("first", (28, 28, 1)), ("second", (28, 28, 1))] * 3


@pytest.mark.parametrize("order", [1, -1])
def test_random_transforms_draw_per_item_in_their_order(mnist, order):
    """One rand() for the flip, one randint(size=2) for the crop, in list order, item after item."""
    transforms = [ndl.data.RandomFlipHorizontal(0.5), ndl.data.RandomCrop(4)][::order]
    loader = ndl.data.DataLoader(mnist(transforms=transforms), batch_size=3, shuffle=True)
    np.random.seed(11)
    images = np.concatenate([images.numpy().reshape(-1, 28, 28) for images, _ in loader])
    after = np.random.rand()

    def flip(image):
        return image[:, ::-1] if np.random.rand() < 0.5 else image

    def crop(image):
        sx, sy = np.random.randint(low=-4, high=5, size=2)
        return np.pad(image, 4)[4 + sx : 32 + sx, 4 + sy : 32 + sy]

    np.random.seed(11)
    for image, number in zip(images, np.random.permutation(7), strict=True):
        expected = IMAGES[number].astype(np.float32) / np.float32(255)
        for step in [flip, crop][::order]:
            expected = step(expected)
        np.testing.assert_array_equal(image, expected)
    assert np.random.rand() == after


# CIFAR10Dataset


@pytest.mark.parametrize(("train", "labels"), [(True, [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]), (False, [5, 4])])
def test_cifar_items(cifar, train, labels):
    dataset = ndl.data.CIFAR10Dataset(cifar, train=train)
    assert len(dataset) == len(labels) == len(dataset.X) == len(dataset.y)
    assert [label for _, label in dataset] == labels  # in the order of the files
    for index in (0, np.random.randint(len(dataset))):
        item = dataset[index]
        assert isinstance(item, tuple)
        image, label = item
        assert isinstance(image, np.ndarray)
        assert image.shape == (3, 32, 32)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, dataset.X[index])
        assert label == dataset.y[index]
    assert dataset[0][0][0, 0, 0] == 1
    assert 0 <= dataset.X.min() < 0.1
    assert dataset.X.max() == 1


def test_cifar_pixels_are_divided_by_255_and_no_more(cifar):
    with open(f"{cifar}/data_batch_1", "rb") as file:
        pixels = pickle.load(file, encoding="bytes")[b"data"]
    dataset = ndl.data.CIFAR10Dataset(cifar, True)
    np.testing.assert_array_equal(dataset.X[:2], (pixels / np.float32(255)).reshape(2, 3, 32, 32))


def test_cifar_batches(cifar, device):
    loader = ndl.data.DataLoader(ndl.data.CIFAR10Dataset(cifar, True), batch_size=4, shuffle=True)
    np.random.seed(0)
    for (images, labels), size in zip(loader, (4, 4, 2), strict=True):
        images, labels = ndl.Tensor(images, device=device), ndl.Tensor(labels, device=device)
        assert images.shape == (size, 3, 32, 32)
        assert images.dtype == "float32"
        assert images.device == device
        assert labels.shape == (size,)


def test_cifar_transforms_apply_to_the_image(cifar):
    flipped = ndl.data.CIFAR10Dataset(cifar, True, transforms=[ndl.data.RandomFlipHorizontal(p=1)])
    image, _ = flipped[1]
    np.testing.assert_array_equal(image, flipped.X[1, :, :, ::-1])


# Dictionary, Corpus, batchify, get_batch


def test_a_dictionary_counts_from_0():
    dictionary = ndl.data.Dictionary()
    assert len(dictionary) == 0
    assert [dictionary.add_word(word) for word in ("b", "a", "b", "c")] == [0, 1, 0, 2]
    assert dictionary.word2idx == {"b": 0, "a": 1, "c": 2}
    assert list(dictionary.idx2word) == ["b", "a", "c"]
    assert len(dictionary) == 3


def test_a_corpus_numbers_train_then_test(ptb):
    corpus = ndl.data.Corpus(ptb)
    assert corpus.dictionary.idx2word == ["aer", "banknote", "<unk>", "<eos>", "N", "calloway", "no", "it"]
    assert corpus.train == [0, 1, 2, 3, 1, 4, 2, 4, 3, 5, 3]
    assert corpus.test == [6, 5, 3, 0, 7, 3]


def test_a_corpus_of_the_first_lines_of_each_file(ptb):
    corpus = ndl.data.Corpus(ptb, max_lines=1)
    assert corpus.train == [0, 1, 2, 3]
    assert corpus.test == [4, 5, 3]
    assert len(corpus.dictionary) == 6


def test_a_corpus_is_kept_word_for_word(ptb):
    corpus = ndl.data.Corpus(ptb)
    words = [corpus.dictionary.idx2word[number] for number in corpus.train]
    assert " ".join(words) == "aer banknote <unk> <eos> banknote N <unk> N <eos> calloway <eos>"


@pytest.mark.parametrize("batch_size", [1, 2, 4, 15])
def test_batchify_makes_columns_of_stretches(batch_size):
    data = np.random.randint(0, 10000, 101).tolist()
    batches = ndl.data.batchify(data, batch_size, device=ndl.cpu(), dtype="float32")
    rows = 101 // batch_size
    assert len(batches) == rows
    assert batches.shape == (rows, batch_size)
    assert batches.dtype == "float32"
    for j in range(batch_size):
        assert batches[:, j].tolist() == data[j * rows : (j + 1) * rows]


@pytest.mark.parametrize("bptt", [1, 3, 32])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_get_batch_gives_tensors_of_float32_on_the_device(device, bptt, batch_size):
    batches = ndl.data.batchify(list(range(164)), batch_size, device=device, dtype="float32")
    for i in (0, 1, len(batches) - 3, len(batches) - 2):
        x, y = ndl.data.get_batch(batches, i, bptt, device=device)
        n = min(bptt, len(batches) - 1 - i)
        assert x.shape == (n, batch_size)
        assert y.shape == (n * batch_size,)
        np.testing.assert_array_equal(x.numpy(), batches[i : i + n])
        np.testing.assert_array_equal(y.numpy(), batches[i + 1 : i + 1 + n].flatten())
        for tensor in (x, y):
            assert isinstance(tensor, ndl.Tensor)
            assert tensor.dtype == "float32"
            assert tensor.device == device
            assert isinstance(tensor.cached_data, NDArray)


def test_get_batch_takes_device_and_dtype_by_position(device):
    batches = ndl.data.batchify([3, 1, 4, 1, 5, 9], 2, device, "float32")
    x, y = ndl.data.get_batch(batches, 0, 40, device, "float32")
    assert x.numpy().tolist() == [[3, 1], [1, 5]]
    assert y.numpy().tolist() == [1, 5, 4, 9]
    assert (x.device, x.dtype) == (device, "float32")


# Errors for missing files


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (
            lambda: ndl.data.MNISTDataset("data/train-images-idx3-ubyte.gz", "data/train-labels-idx1-ubyte.gz"),
            ("MNISTDataset", "train-images-idx3-ubyte.gz", "data", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        ),
        (
            lambda: ndl.data.CIFAR10Dataset("data/cifar-10-batches-py", train=True),
            (
                "CIFAR10Dataset",
                "data_batch_1",
                "data/cifar-10-batches-py",
                "https://www.cs.toronto.edu/~kriz/cifar.html",
            ),
        ),
        (
            lambda: ndl.data.Corpus("data/ptb"),
            ("Corpus", "train.txt", "data/ptb", "https://data.deepai.org/ptbdataset.zip"),
        ),
    ],
)
def test_the_error_for_a_missing_file_names_its_folder_and_its_source(tmp_path, monkeypatch, call, parts):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        call()
    dataset, name, folder, source = parts
    text = str(caught.value)
    assert text.startswith(f"{dataset}: ")
    assert name in text
    assert str(tmp_path / folder) in text
    assert source in text
