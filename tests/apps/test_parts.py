"""The parts of a run: tasks, schedules, sets of images, texts with a state that is carried on."""

from __future__ import annotations

import argparse
import math
import re

import numpy as np
import pytest

import cli
import image_sets
import needle as ndl
import train
from image_run import image_run
from models import LanguageModel
from needle import nn, optim
from needle.data import batchify, get_batch
from tasks import TASKS, ink, noisy, psnr
from tests.apps.scripts import error_of, write_digits, write_idx
from text import CarriedState, Text

# ---- tasks -----------------------------------------------------------------------------------------------------------


def test_psnr_is_that_of_scikit_image():
    assert psnr(0.01) == pytest.approx(20)  # 10·log10(1² / 0.01)
    assert psnr(0.0) == math.inf


def test_ink_is_brighter_than_the_mean_of_its_image(device):
    images = np.random.default_rng(0).random((3, 2, 4, 5), "float32")
    mask = ink(ndl.Tensor(images, device=device)).numpy()
    assert (mask.dtype, mask.shape) == ("int64", (3, 4, 5))
    np.testing.assert_array_equal(mask, images.mean(1) > images.mean((1, 2, 3))[:, None, None])
    assert not ink(ndl.ones(2, 1, 3, 3, device=device)).numpy().any()


def test_noise_is_new_in_training_and_the_same_in_evaluation(device):
    images = ndl.zeros(8, 1, 16, 16, device=device)
    np.random.seed(0)
    first, second = (noisy(images, True).numpy() for _ in range(2))
    np.random.seed(0)
    np.testing.assert_array_equal(noisy(images, True).numpy(), first)
    assert not np.array_equal(first, second)
    assert first.std() == pytest.approx(0.3, rel=0.05)
    assert (first.dtype, noisy(images, True).device) == ("float32", device)
    np.testing.assert_array_equal(noisy(images, False).numpy(), noisy(images, False).numpy())


@pytest.mark.parametrize("name", TASKS)
def test_a_line_shows_the_figures_of_a_row(name):
    task = TASKS[name]
    names = ("loss", *task.metrics(2))
    row = {
        "epoch": 3.0,
        "loss": 0.5,
        "val_loss": 0.25,
        **{f"{part}_{x}": 0.75 for part in ("train", "val") for x in names},
    }
    full = task.complete(row)
    line = task.line(full, "test")
    assert line.startswith("loss 0.5000, train ")
    for figure in task.figures:
        assert re.search(rf"train {figure} \d.*, test .*{figure} \d", line)
    if name == "language":
        assert full["val_perplexity"] == pytest.approx(math.exp(0.75))
        assert "test loss 0.7500" in line
    figures = task.complete({"loss": 0.25, **dict.fromkeys(task.metrics(2), 0.5)})
    assert task.test_line(figures).startswith("test loss 0.2500, test ")


# ---- schedules -------------------------------------------------------------------------------------------------------


def rates(**options):
    """The learning rates of the steps of 4 epochs of 5 steps: 10 batches, two for each step."""
    optimizer = optim.SGD([nn.Parameter(ndl.zeros(1))], lr=0.5)
    settings = {"schedule": "constant", "warmup": 0.0, "epochs": 4, "accumulate": 2, "lr": 0.5, "drop_after": 1}
    scheduler = cli.make_scheduler(optimizer, argparse.Namespace(**settings | options), 10)
    seen = []
    for _ in range(20):
        seen.append(optimizer.lr)
        if scheduler is not None:
            scheduler.step()
    return np.array(seen)


def test_the_rates_of_every_schedule():
    steps = np.arange(20)
    np.testing.assert_allclose(rates(), 0.5)
    np.testing.assert_allclose(rates(schedule="cosine"), 0.25 * (1 + np.cos(np.pi * steps / 20)), atol=1e-9)
    np.testing.assert_allclose(rates(schedule="step"), 0.5 * 0.1 ** (steps // 5))
    one_cycle = rates(schedule="onecycle")
    assert one_cycle.argmax() == 5
    assert one_cycle[0] == pytest.approx(0.5 / 25)
    assert one_cycle[-1] < 1e-4


def test_the_rate_rises_for_the_epochs_of_the_warmup():
    rising = 0.5 * np.arange(1, 6) / 5
    warm = rates(warmup=1.0)
    np.testing.assert_allclose(warm[:5], [0.1, 0.18, 0.26, 0.34, 0.42])
    np.testing.assert_allclose(warm[5:], 0.5)
    assert rising[0] == warm[0]
    cosine = rates(warmup=1.0, schedule="cosine")
    np.testing.assert_allclose(cosine[:5], warm[:5])
    np.testing.assert_allclose(cosine[5:], 0.25 * (1 + np.cos(np.pi * np.arange(15) / 15)), atol=1e-9)


# ---- sets of images --------------------------------------------------------------------------------------------------


def test_a_part_is_held_out_by_the_seed(tmp_path):
    folder = write_digits(tmp_path / "data")
    whole = image_sets.load("mnist", folder)
    assert (whole.counts, str(whole)) == (
        {"train": 96, "test": 48},
        "mnist: 96 training and 48 test images of 8x8",
    )
    first, same, other = (image_sets.load("mnist", folder, validation=0.25, seed=seed) for seed in (1, 1, 2))
    assert str(first) == "mnist: 72 training, 24 validation and 48 test images of 8x8"
    images = [
        np.concatenate([part[:][0] for part in (split.train, split.validation)]) for split in (first, same, other)
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    keys = [sorted(image.tobytes() for image in array) for array in (*images, whole.train[:][0])]
    assert keys[0] == keys[2] == keys[3]
    assert first.checksum == other.checksum == whole.checksum


def test_only_training_images_are_augmented(tmp_path):
    folder = write_digits(tmp_path / "data", side=16)
    split = image_sets.load("fashion-mnist", folder, validation=0.25, augment=True)
    names = [type(transform).__name__ for transform in split.transforms]
    assert names == ["RandomFlipHorizontal", "RandomCrop"]
    assert split.transforms[1].padding == 2
    options = train.parse(["--dataset", "fashion-mnist", "--data", str(folder)])
    run = image_run("train", options, split, "tinycnn", ndl.cpu())
    assert run.train.transforms == split.transforms
    assert run.validation.transforms == run.test.transforms == ()
    (shift,) = image_sets.load("mnist", folder, augment=True).transforms  # a 2 in a mirror is no digit
    assert type(shift).__name__ == "RandomCrop"


def test_classes_are_those_that_occur(tmp_path):
    folder = write_digits(tmp_path / "data")
    for part, count in (("train", 96), ("t10k", 48)):
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.resize(np.uint8([3, 9, 200]), count))
    split = image_sets.load("mnist", folder)
    assert split.classes == ("3", "9", "200")
    assert [label for _, label in (split.test[index] for index in range(4))] == [0, 1, 2, 0]
    write_idx(folder / "t10k-labels-idx1-ubyte", np.resize(np.uint8([3, 9, 201]), 48))
    with pytest.raises(ValueError, match="must be among the 3 classes of the training images, but one is 201"):
        image_sets.load("mnist", folder)


def test_the_names_of_classes(tmp_path):
    folder = write_digits(tmp_path / "data")
    assert image_sets.load("fashion-mnist", folder).classes[9] == "boot"
    assert image_sets.load("mnist", folder).classes[9] == "9"


def test_images_of_one_class(tmp_path, capsys):
    folder = write_digits(tmp_path / "data")
    for part, count in (("train", 96), ("t10k", 48)):
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.full(count, 7, np.uint8))
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line == "train: images must be of at least 2 classes, but all are of class 7"
    train.main(["--dataset", "mnist", "--data", str(folder), "--model", "autoencoder", "--epochs", "1"])


def test_too_few_images_to_hold_some_out(tmp_path, capsys):
    folder = write_digits(tmp_path / "data", count=4)
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder, "--validation", "0.1")
    assert line.startswith("train: random_split: a fraction must be one item at least, but got 0.1 of 4 items")


@pytest.fixture
def pictures(tmp_path):
    """A folder of 20 pictures in two classes."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (tmp_path / "sets" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(level, level + 60, (8, 12, 3)).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "sets" / name / f"{number}.png")
    return tmp_path / "sets"


def test_a_folder_of_pictures(pictures, capsys):
    rows = train.main(["--dataset", str(pictures), "--epochs", "3", "--batch-size", "4", "--augment"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{pictures.name}: 16 training and 4 test images of 3x8x12"
    assert min(row["loss"] for row in rows[1:]) < rows[0]["loss"]
    split = image_sets.load(str(pictures), size=16, validation=0.25)
    assert (split.shape, split.classes) == ((3, 16, 16), ("dark", "light"))
    assert split.counts == {"train": 12, "validation": 4, "test": 4}


def test_a_folder_with_sets_of_its_own(pictures, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / "own" / name).symlink_to(pictures)
    split = image_sets.load(str(tmp_path / "own"))
    assert split.counts == {"train": 20, "validation": 20, "test": 20}
    (line,) = error_of(train, capsys, "--dataset", tmp_path / "own", "--validation", "0.5")
    assert line.startswith(f"train: --validation must not be given, since {tmp_path / 'own'} has a folder val")


def test_broken_pictures_and_a_folder_of_one_class(pictures, capsys):
    (pictures / "dark" / "3.png").write_bytes(b"\x89PNG no")
    (line,) = error_of(train, capsys, "--dataset", pictures)
    assert line.startswith("train: read_image: ")
    assert str(pictures / "dark" / "3.png") in line
    for path in [*(pictures / "dark").iterdir()]:
        path.unlink()
    (pictures / "dark").rmdir()
    (line,) = error_of(train, capsys, "--dataset", pictures)
    assert "at least two classes" in line


def test_batches_are_prepared_ahead(tmp_path):
    folder = write_digits(tmp_path / "data")
    for augment in (False, True):
        options = train.parse(["--dataset", "mnist", "--data", str(folder), *(["--augment"] * augment)])
        run = image_run("train", options, image_sets.load("mnist", folder, augment=augment), "tinycnn", ndl.cpu())
        assert (run.train.prefetch, run.test.prefetch) == (2, 2)


# ---- text ------------------------------------------------------------------------------------------------------------


def test_batches_of_a_text_are_those_of_get_batch():
    for rows, batches in ((8, 2), (9, 2), (10, 3)):
        data = batchify(np.arange(rows * 3), 3)
        text = Text(data, 4)
        assert len(text) == len([*text]) == batches
        for start, (words, next_words) in zip(range(0, rows, 4), text, strict=False):
            expected = get_batch(data, start, 4)
            np.testing.assert_array_equal(words.numpy(), expected[0].numpy())
            np.testing.assert_array_equal(next_words.numpy(), expected[1].numpy())


@pytest.mark.parametrize("kind", ["rnn", "lstm", "transformer"])
def test_a_carried_state_goes_through_a_file(kind, tmp_path, device):
    np.random.seed(0)
    model = LanguageModel(4, 6, 5, 2, kind, 4, device=device)
    batches = [*Text(batchify(np.random.randint(6, size=39), 3), 4, device)]
    carry, other = CarriedState(device), CarriedState(device)
    ndl.save(tmp_path / "begin.npz", carry.state_dict())
    carry(model, batches[0])
    ndl.save(tmp_path / "state.npz", carry.state_dict())
    other.load_state_dict(ndl.load(tmp_path / "state.npz"))
    expected = carry(model, batches[1])[0].numpy()
    logits, targets = other(model, batches[1])
    np.testing.assert_array_equal(logits.numpy(), expected)
    assert targets is batches[1][1]
    other.load_state_dict(ndl.load(tmp_path / "begin.npz"))
    fresh = model(batches[1][0], None)[0].numpy()
    np.testing.assert_array_equal(other(model, batches[1])[0].numpy(), fresh)
    carry.reset()
    np.testing.assert_array_equal(carry(model, batches[1])[0].numpy(), fresh)


def test_gradients_stop_at_the_start_of_a_batch():
    carry, model = CarriedState(), LanguageModel(4, 6, 5)
    batches = [*Text(batchify(np.arange(24) % 6, 3), 4)]
    for batch in batches[:2]:
        assert not any(part.requires_grad for part in [carry.state] if part is not None)
        carry(model, batch)
