"""Training on images: the numbers against torch, lines, files of images, errors of the user."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import image_run
import needle as ndl
import simple_ml
import train
import training
from models import MODELS, TinyCNN
from needle import nn, optim
from needle.data import DigitsDataset
from tests.apps.scripts import error_of, run, without_speed, write_digits, write_idx

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other

EPOCH_LINE = re.compile(
    r"epoch +(\d+): loss (\d+\.\d{4}), train accuracy (\d+\.\d\d)%, test accuracy (\d+\.\d\d)%, ([\d,]+) images/s"
)
COLUMNS = (
    "epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds", "images_per_second",
)  # fmt: skip


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory):
    """Arguments of the script for a small folder."""
    folder = write_digits(tmp_path_factory.mktemp("few"), count=192)
    return ["--dataset", "mnist", "--data", str(folder), "--batch-size", "32", "--epochs", "2"]


# ---- the numbers -----------------------------------------------------------------------------------------------------


def torch_twin(model, side):
    """TinyCNN in torch, with the parameters of needle's."""

    def block(channels, out_channels):
        conv = torch.nn.Conv2d(channels, out_channels, 3, padding=1)
        return conv, torch.nn.BatchNorm2d(out_channels), torch.nn.ReLU()

    twin = torch.nn.Sequential(
        *block(1, 16),
        *block(16, 32),
        torch.nn.MaxPool2d(2),
        *block(32, 64),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * (side // 4) ** 2, 10),
    ).double()
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            other.copy_(torch.from_numpy(np.ascontiguousarray(in_torch_layout(parameter))))
    return twin


def in_torch_layout(parameter):
    """The values in torch's layout: a Linear has the weight (out, in) and the bias (out,)."""
    array = parameter.numpy()
    return array.T.reshape(-1) if array.shape[0] == 1 else array.T if array.ndim == 2 else array


def test_fifty_steps_follow_torch():
    np.random.seed(0)
    model = TinyCNN(8, dtype="float64")
    twin = torch_twin(model, 8)
    options = train.parse([])
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    torch_optimizer = torch.optim.Adam(twin.parameters(), lr=options.lr)
    images, labels = (array for array in DigitsDataset().arrays)
    losses = []
    for _ in range(50):
        batch = np.random.permutation(len(images))[: options.batch_size]
        x, target = images[batch].astype(np.float64), labels[batch]
        tensors = [ndl.Tensor(array, requires_grad=False) for array in (x, target)]
        accuracy, loss = simple_ml.pass_over(model, [tensors], nn.CrossEntropyLoss(), optimizer)
        logits = twin(torch.from_numpy(x))
        torch_loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(target).long())
        torch_optimizer.zero_grad()
        torch_loss.backward()
        torch_optimizer.step()
        np.testing.assert_allclose(loss, torch_loss.item(), rtol=1e-8)
        assert accuracy == (logits.argmax(1).numpy() == target).mean()
        losses.append(loss)
    assert losses[-1] < losses[0] / 4
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(in_torch_layout(parameter), other.detach().numpy(), atol=1e-7, err_msg=name)


def test_the_digits_are_learned_with_the_default_arguments(capsys):
    rows = train.main([])
    assert len(rows) == 15
    assert rows[-1]["test_accuracy"] >= 0.98
    assert rows[-1]["train_accuracy"] >= 0.99
    assert rows[-1]["loss"] < 0.05 < rows[0]["loss"]
    assert "digits: 1442 training and 355 test images of 8x8\n" in capsys.readouterr().out


def run_with_parameters(monkeypatch, *arguments):
    """The rows of `main` without the speed, and the parameters of its model."""
    models = []

    def record(*arguments, **options):
        models.append(make(*arguments, **options))
        return models[-1]

    make = MODELS["tinycnn"]
    with monkeypatch.context() as patch:
        patch.setitem(image_run.MODELS, "tinycnn", record)
        rows = train.main(list(arguments))
    (model,) = models
    return without_speed(rows), {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(monkeypatch, few_digits):
    first = run_with_parameters(monkeypatch, *few_digits, "--seed", "3")
    np.random.rand(5)
    assert run_with_parameters(monkeypatch, *few_digits, "--seed", "3") == first
    rows, parameters = run_with_parameters(monkeypatch, *few_digits, "--seed", "4")
    assert rows != first[0]
    assert all(parameters[name] != first[1][name] for name in ("features.0.weight", "classify.weight"))


# ---- lines and files -------------------------------------------------------------------------------------------------


def test_each_epoch_prints_a_line_and_makes_a_row(capsys):
    rows, lines = run(train, capsys, "--epochs", "2")
    assert lines[:2] == [
        "digits: 1442 training and 355 test images of 8x8",
        "TinyCNN with 26,090 parameters on cpu()",
    ]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, line in zip(rows, lines[2:], strict=True):
        assert tuple(row) == COLUMNS
        assert EPOCH_LINE.fullmatch(line).groups() == (
            f"{row['epoch']}",
            f"{row['loss']:.4f}",
            f"{100 * row['train_accuracy']:.2f}",
            f"{100 * row['test_accuracy']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )


@pytest.mark.parametrize(
    ("name", "side", "end"), [("mnist", 28, ".gz"), ("fashion-mnist", 8, ""), ("mnist", 13, "")], ids=str
)
def test_a_folder_of_idx_files(name, side, end, tmp_path, capsys):
    folder = write_digits(tmp_path / "data", side=side, end=end)
    rows = train.main(["--dataset", name, "--data", str(folder), "--epochs", "3", "--batch-size", "16"])
    assert len(rows) == 3
    assert rows[2]["loss"] < rows[0]["loss"]
    assert capsys.readouterr().out.startswith(f"{name}: 96 training and 48 test images of {side}x{side}\n")


def test_the_options_of_the_command_line():
    assert train.parse([]).epochs == 15
    assert train.parse(["--dataset", "mnist", "--data", "folder"]).epochs == 5
    options = train.parse(["--epochs", "3", "--batch-size", "8", "--lr", "0.1", "--seed", "7", "--out", "runs"])
    assert (options.epochs, options.batch_size, options.lr, options.seed) == (3, 8, 0.1, 7)
    assert options.out == Path("runs")


def test_training_images_are_shuffled_for_each_epoch_and_test_images_are_not(monkeypatch, few_digits):
    def prepared(batch, is_training):
        seen.setdefault(is_training, []).extend(batch[1].numpy().tolist())
        return batch

    seen = {}
    monkeypatch.setitem(training.TASKS, "classification", replace(training.TASKS["classification"], prepare=prepared))
    train.main(few_digits)
    labels = DigitsDataset().arrays[1].tolist()
    assert seen[False] == labels[:96] * 2
    first, second = seen[True][:192], seen[True][192:]
    assert first != second
    assert labels[:192] not in (first, second)
    assert sorted(first) == sorted(second) == sorted(labels[:192])


# ---- errors of the user ----------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named_with_the_address_of_the_files(tmp_path, capsys):
    folder = tmp_path / "nowhere"
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line.startswith("train: idx_files: folder must hold one of train-images-idx3-ubyte, ")
    assert f"but there is no such folder as {folder}; MNIST is at https://" in line


def test_a_file_that_is_cut_off(tmp_path, capsys):
    folder = write_digits(tmp_path / "data")
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line == (
        f"train: read_idx: data of shape (48, 8, 8) and type uint8 must have 3072 bytes, but {path} has 3071"
    )


def test_images_that_are_too_small(tmp_path, capsys):
    folder = write_digits(tmp_path / "data", side=3)
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line == "train: TinyCNN: images must have at least 4x4 pixels, but got 3x3"


def test_images_need_not_be_square(tmp_path, capsys):
    folder = write_digits(tmp_path / "data", side=(9, 13))
    rows, lines = run(train, capsys, "--dataset", "mnist", "--data", folder, "--epochs", "3", "--batch-size", "16")
    assert lines[0] == "mnist: 96 training and 48 test images of 9x13"
    assert rows[2]["loss"] < rows[0]["loss"]


def test_training_and_test_images_of_different_size(tmp_path, capsys):
    folder, other = write_digits(tmp_path / "data"), write_digits(tmp_path / "other", side=(8, 9))
    (other / "t10k-images-idx3-ubyte").replace(folder / "t10k-images-idx3-ubyte")
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line == f"train: training and test images must agree in size, but those in {folder} are 8x8 and 8x9"


def test_labels_may_start_at_1_as_those_of_letters_do(tmp_path, capsys):
    folder = write_digits(tmp_path / "data")
    for part, count in (("train", 96), ("t10k", 48)):
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 26 + 1)
    rows, lines = run(train, capsys, "--dataset", "mnist", "--data", folder, "--epochs", "1")
    assert lines[1] == f"TinyCNN with {26090 + 16 * 257:,} parameters on cpu()"
    assert np.isfinite(rows[0]["test_loss"])


def test_a_set_without_images(tmp_path, capsys):
    folder = write_digits(tmp_path / "data", count=1)  # none for testing
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line.startswith("train: IDXDataset: there must be at least one image and pixel, but ")


def test_an_empty_file(tmp_path, capsys):
    folder = write_digits(tmp_path / "data")
    (folder / "train-images-idx3-ubyte").write_bytes(b"")
    (line,) = error_of(train, capsys, "--dataset", "mnist", "--data", folder)
    assert line.endswith(f"{folder / 'train-images-idx3-ubyte'} begins with nothing")


def write_pictures(folder, side, **counts):
    """A folder of pictures by class."""
    image = pytest.importorskip("PIL.Image")
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image.new("L", (side, side), 16 * number).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize(("model", "side"), [("conv1d", 4), ("unet", 4), ("resnet9", 8)])
def test_a_batch_of_one_image_is_refused_where_a_layer_would_see_one_number(model, side, tmp_path, capsys):
    folder = write_pictures(tmp_path / "set", side, cat=5, dog=5)
    (line,) = error_of(train, capsys, "--dataset", folder, "--model", model, "--batch-size", "7")
    assert line.endswith("at least 2 images in every batch, but --batch-size 7 of 8 leaves a batch of 1")


def test_folders_of_too_few_pictures(tmp_path, capsys):
    (line,) = error_of(train, capsys, "--dataset", write_pictures(tmp_path / "two", 8, cat=1, dog=1))
    assert "must hold at least 5 pictures, since a fifth is held out for the test, but holds 2" in line
    folder = write_pictures(tmp_path / "one_each", 8, **{f"class{number}": 1 for number in range(5)})
    (line,) = error_of(train, capsys, "--dataset", folder)
    assert line.startswith("train: each class must have an image to train on, but all of class")


def test_a_folder_of_pictures_may_be_moved(tmp_path, capsys):
    before, after, out = tmp_path / "before", tmp_path / "after", tmp_path / "run"
    run(train, capsys, "--dataset", write_pictures(before, 8, cat=5, dog=5), "--epochs", "1", "--out", out)
    before.rename(after)
    (line,) = error_of(train, capsys, "--resume", out)
    assert str(before) in line
    rows, _ = run(train, capsys, "--resume", out, "--data", after, "--epochs", "2")
    assert len(rows) == 2
    rows, _ = run(train, capsys, "--resume", out, "--dataset", after, "--epochs", "3")
    assert len(rows) == 3
    evaluate.main([str(out)])
    assert "TinyCNN" in capsys.readouterr().out
    write_pictures(tmp_path / "other", 8, cat=5, dog=6)
    (line,) = error_of(evaluate, capsys, out, "--data", tmp_path / "other")
    assert line == f"evaluate: the data must be those that {out} began with, but train is 9, not 8"
