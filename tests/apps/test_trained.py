"""Scripts that use a trained network: evaluate.py, predict.py, summary.py, and the report at the end of a run."""

from __future__ import annotations

import re
import shutil
import sys

import numpy as np
import pytest

import evaluate
import needle as ndl
import predict
import results
import summary
import synthetic
import train
import train_cifar10
import train_ptb
import training
from models import MODELS
from needle.data import DigitsDataset
from tests.apps.scripts import error_of, write_digits, write_texts

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of short runs by name: three tasks on images, and a text."""
    folder = tmp_path_factory.mktemp("runs")
    digits = ["--dataset", "mnist", "--data", write_digits(folder / "digits", count=192), "--epochs", "2"]
    images = folder / "images"
    images.mkdir()
    synthetic.write_cifar10(images, per_file=10)
    small = ["--hidden-size", "8", "--embedding-size", "8", "--epochs", "1", "--batch-size", "4"]
    commands = {
        "digits": (train, [*digits, "--lr", "0.01", "--validation", "0.2"]),
        "unet": (train, [*digits, "--model", "unet"]),
        "autoencoder": (train, [*digits, "--model", "autoencoder"]),
        "cifar10": (train_cifar10, ["--data", images, "--epochs", "1", "--batch-size", "25", "--ema", "0.5"]),
        "text": (train_ptb, ["--data", write_texts(folder / "text"), *small]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "report", lambda *arguments: None)
        for name, (script, arguments) in commands.items():
            script.main([*map(str, arguments), "--out", str(folder / name)])
    return folder


@pytest.fixture
def runs(trained):
    yield trained
    for folder in trained.iterdir():
        shutil.rmtree(folder / "predictions", ignore_errors=True)


def printed(script, capsys, *arguments):
    """What `script.main` returns, and the lines that it prints."""
    capsys.readouterr()
    result = script.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert output.err == ""
    return result, output.out.splitlines()


# ---- evaluate --------------------------------------------------------------------------------------------------------


def digits_network(folder, name):
    model = MODELS["tinycnn"]((1, 8, 8), 10)
    model.load_state_dict(ndl.load(folder / f"{name}.npz")["model"])
    model.eval()
    images, labels = (array[:96] for array in DigitsDataset().arrays)
    return model(ndl.Tensor(np.round(images * 255) / 255, dtype="float32")), labels


@pytest.mark.parametrize("options", [[], ["--last"]], ids=" ".join)
def test_the_figures_of_the_test_set(options, runs, capsys):
    figures, lines = printed(evaluate, capsys, runs / "digits", *options)
    logits, labels = digits_network(runs / "digits", "last" if options else "best")
    predicted = logits.numpy().argmax(1)
    assert figures["accuracy"] == (predicted == labels).mean()
    loss = ndl.nn.functional.cross_entropy(logits, ndl.Tensor(labels)).item()
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, predicted), 1)
    np.testing.assert_array_equal(figures["confusion"], matrix)
    assert lines[0] == "mnist: 154 training, 38 validation and 96 test images of 8x8"
    assert lines[1].endswith(f"test loss {figures['loss']:.4f}, test accuracy {figures['accuracy']:.2%}")
    rows = [[int(count) for count in line.split()[1:]] for line in lines[-10:]]
    np.testing.assert_array_equal(rows, matrix)
    recall = matrix[3, 3] / max(1, matrix[3].sum())
    assert re.search(rf"^    3 .* {recall:.2%} ", "\n".join(lines), re.MULTILINE)


def test_figures_of_every_task(runs, capsys):
    figures, lines = printed(evaluate, capsys, runs / "unet")
    assert lines[1].startswith(f"UNet of {runs / 'unet'} after epoch ")
    assert lines[1].endswith(
        f"test loss {figures['loss']:.4f}, test iou {figures['iou']:.2%}, test accuracy {figures['accuracy']:.2%}"
    )
    assert lines[3:5] == ["class  precision   recall       F1   number", lines[4]]
    assert [line.split()[0] for line in lines[4:6]] == ["paper", "ink"]
    figures, lines = printed(evaluate, capsys, runs / "autoencoder")
    assert figures["psnr"] == pytest.approx(-10 * np.log10(figures["loss"]))
    assert len(lines) == 2
    figures, lines = printed(evaluate, capsys, runs / "text")
    assert figures["perplexity"] == pytest.approx(np.exp(figures["loss"]))
    assert len(lines) == 2


def test_averaged_weights_are_the_ones_that_are_tested(runs, capsys):
    figures, lines = printed(evaluate, capsys, runs / "cifar10", "--last")
    assert "airplane" in lines[4]
    state = ndl.load(runs / "cifar10" / "last.npz")
    (row,) = state["history"]
    assert figures["loss"] == pytest.approx(row["val_loss"])
    weights, averages = state["model"], state["ema"]["averages"]
    assert not np.array_equal(weights["0.0.weight"], averages["0.0.weight"])


def test_the_report_again(runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "figures", raising=False)  # it has imported matplotlib before
    _, lines = printed(evaluate, capsys, runs / "digits", "--report")
    path = runs / "digits" / "report.html"
    assert lines[-1] == f"see {path}"
    assert "rained for 2 of 2 epochs" in path.read_text("utf-8")
    path.unlink()


def test_data_that_lie_elsewhere_now(runs, tmp_path, capsys):
    shutil.copytree(runs / "digits", tmp_path / "run")
    shutil.copytree(runs.parent / runs.name / "digits", tmp_path / "copy")
    moved = write_digits(tmp_path / "moved", count=192)
    figures, _ = printed(evaluate, capsys, tmp_path / "run", "--data", moved)
    assert figures["accuracy"] == printed(evaluate, capsys, runs / "digits")[0]["accuracy"]


# ---- predict ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Two digits as pictures, and one of them as dark ink on paper, larger."""
    paths = []
    for index, name in ((0, "zero.png"), (1, "one.png")):
        pixels = np.uint8(np.round(DigitsDataset().arrays[0][index, 0] * 255))
        Image.fromarray(pixels).save(tmp_path / name)
        paths.append(tmp_path / name)
    Image.fromarray(255 - pixels).resize((16, 16), Image.Resampling.NEAREST).save(tmp_path / "paper.png")
    return [*paths, tmp_path / "paper.png"]


def test_probabilities_of_pictures(runs, pictures, capsys):
    zero, one, paper = pictures
    first, lines = printed(predict, capsys, runs / "digits", zero, one)
    assert [result.shape for result in first] == [(10,), (10,)]
    logits, _ = digits_network(runs / "digits", "best")
    for result, expected in zip(first, ndl.softmax(logits, 1).numpy(), strict=False):
        np.testing.assert_allclose(result, expected, rtol=1e-5)
    best = np.argsort(-first[0], kind="stable")[:3]
    text = ", ".join(f"{index} {first[0][index]:.2%}" for index in best)
    assert lines[0] == f"{zero}: {text}; it saw {runs / 'digits' / 'predictions' / 'zero.png'}"
    (inverted,), _ = printed(predict, capsys, runs / "digits", paper, "--invert")
    np.testing.assert_allclose(inverted, first[1], atol=0.2)  # scaled, its edges are less sharp


def test_the_picture_as_the_network_saw_it(runs, pictures, capsys):
    for name in ("zero.png", "zero-2.png"):
        _, lines = printed(predict, capsys, runs / "digits", pictures[0])
        assert lines[0].endswith(f"it saw {runs / 'digits' / 'predictions' / name}")
        seen = np.asarray(Image.open(runs / "digits" / "predictions" / name))
    assert seen.shape == (256, 256)
    np.testing.assert_array_equal(seen[::32, ::32].repeat(32, 0).repeat(32, 1), seen)
    expected = np.round(DigitsDataset().arrays[0][0, 0] * 255)
    np.testing.assert_array_equal(seen[::32, ::32], expected)


@pytest.mark.parametrize("name", ["unet", "autoencoder"])
def test_a_picture_of_a_picture(name, runs, pictures, capsys):
    (result,), lines = printed(predict, capsys, runs / name, pictures[0])
    assert result.shape == (1, 8, 8)
    target = runs / name / "predictions" / "zero.png"
    assert lines == [f"{pictures[0]}: what the network saw, and made of it: {target}"]
    both = np.asarray(Image.open(target))
    assert both.shape == (256, 512)
    np.testing.assert_array_equal(both[::32, 256::32], np.round(255 * result[0]))


def test_a_color_network_takes_gray_pictures(runs, pictures, capsys):
    (result,), lines = printed(predict, capsys, runs / "cifar10", pictures[0])
    assert result.shape == (10,)
    assert re.search(": (airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck) ", lines[0])


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (predict, ["RUNS/text", "IMAGE"], "RUN must be a network for images, but RUNS/text is a run of train_ptb.py"),
        (
            predict,
            ["RUNS/digits", "none.png"],
            "read_image: path must be a file that can be read, but none.png: No such file or directory",
        ),
        (predict, ["RUNS/digits", "IMAGE", "BROKEN"], "read_image: a picture must be whole, but BROKEN is broken: "),
        (predict, ["RUNS", "IMAGE"], "RUN must be the folder of a run, but there is no RUNS/config.json"),
        (evaluate, ["RUNS"], "RUN must be the folder of a run, but there is no RUNS/config.json"),
        (summary, ["RUNS"], "RUN must be the folder of a run, but there is no RUNS/config.json"),
        (summary, ["--model", "lenet"], "LeNet: images must have at least 12x12 pixels, but got 8x8"),
    ],
)
def test_errors_of_the_user(script, arguments, message, runs, pictures, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:60])
    names = {"RUNS": runs, "IMAGE": pictures[0], "BROKEN": broken}
    for name, path in names.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
        message = message.replace(name, str(path))
    capsys.readouterr()
    (line,) = error_of(script, capsys, *arguments)
    assert line.startswith(f"{script.__name__}: {message}")
    assert not (runs / "digits" / "predictions").exists()


@pytest.mark.parametrize("script", [evaluate, predict])
def test_a_checkpoint_that_does_not_fit(script, runs, pictures, tmp_path, capsys):
    folder = shutil.copytree(runs / "digits", tmp_path / "run")
    shutil.copy(runs / "unet" / "best.npz", folder)
    arguments = [folder, *([pictures[0]] if script is predict else [])]
    (line,) = error_of(script, capsys, *arguments)
    assert line.startswith(f"{script.__name__}: {folder / 'best.npz'} must be a checkpoint of this network, but: ")
    (folder / "best.npz").write_bytes((runs / "unet" / "best.npz").read_bytes()[:1000])
    (line,) = error_of(script, capsys, *arguments)
    assert str(folder / "best.npz") in line


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"shape": [', '"shape": [-7, '),
        ('"network": "', '"network": "x'),
        ('"classes": [', '"klasses": ['),
        ('"task": "', '"task": "x'),
    ],
)
def test_a_damaged_config(before, after, runs, pictures, tmp_path, capsys):
    folder = shutil.copytree(runs / "digits", tmp_path / "run")
    path = folder / "config.json"
    text = path.read_text("utf-8")
    assert before in text
    path.write_text(text.replace(before, after), "utf-8")
    (line,) = error_of(predict, capsys, folder, pictures[0])
    assert line == f"predict: {path} must name a network, a shape and classes, but it is damaged"


def test_a_damaged_history(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "digits", tmp_path / "run")
    for text in ("loss,lr\n1,2\n", "epoch,loss\n1,x\n"):
        (folder / "metrics.csv").write_text(text, "utf-8")
        with pytest.raises(SystemExit) as caught:
            evaluate.main([str(folder), "--report"])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"evaluate: {folder / 'metrics.csv'} must hold figures of epochs, but it is damaged: ")


# ---- summary ---------------------------------------------------------------------------------------------------------


def test_the_layers_of_a_run_and_of_a_network(runs, capsys):
    found, lines = printed(summary, capsys, runs / "digits")
    assert lines[0] == "for a batch 64x1x8x8"
    assert found.parameters == 26_090
    assert "\n".join(lines[1:]) == str(found)
    found, lines = printed(summary, capsys, "--model", "lenet", "--dataset", "mnist", "--batch-size", "2")
    assert (lines[0], found.parameters) == ("for a batch 2x1x28x28", 61_706)
    found, lines = printed(summary, capsys, "--model", "unet", "--shape", 3, 16, 32, "--batch-size", "2")
    assert found.layers[0].output == (2, 2, 16, 32)
    assert printed(summary, capsys, runs / "text")[1][0] == "for a batch 40x4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either RUN or --model must be given"),
        (["run", "--model", "lenet"], "either RUN or --model must be given"),
        (["run", "--batch-size", "2"], "--batch-size is for --model, but RUN is run"),
        (["run", "--shape", "1", "2", "3"], "--shape is for --model, but RUN is run"),
        (["--model", "lenet", "--classes", "-1"], "--classes must be at least 1, but got -1"),
        (["--model", "lenet", "--classes", "0"], "--classes must be at least 1, but got 0"),
        (["--model", "lenet", "--shape", "3", "0", "4"], "--shape must be at least 1, but got 0"),
    ],
)
def test_wrong_usage_of_summary(arguments, message, capsys):
    assert error_of(summary, capsys, *arguments)[-1].endswith(f"error: {message}")


# ---- the report ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("digits", ["confusion", "mistakes"]), ("unet", ["confusion", "pictures"]), ("autoencoder", ["pictures"])],
)
def test_what_a_report_is_made_of(name, kinds, runs, monkeypatch):
    reports = []
    monkeypatch.setattr(sys.modules["runs"], "write_report", lambda folder, **parts: reports.append(parts))
    evaluate.main([str(runs / name), "--report"])
    (parts,) = reports
    shown = parts["results"]
    found = {"confusion": shown.confusion is not None, "mistakes": shown.mistakes, "pictures": shown.pictures}
    assert [kind for kind, value in found.items() if value] == kinds
    assert isinstance(shown, results.Results)
    assert len(parts["rows"]) == 2
    assert parts["filters"].shape[1] == 1
    assert "multiply-adds" in parts["summary"]
    assert re.fullmatch(r"96 images of the test set, with the weights after epoch [12]\.", parts["results_of"])
    if name == "unet":
        noisy, mask = np.array(shown.pictures["input"]), np.array(shown.pictures["mask"])
        clean = np.round(DigitsDataset().arrays[0][: len(mask), 0] * 255) / 255
        np.testing.assert_array_equal(mask, clean > clean.mean((1, 2), keepdims=True))
        assert 0.2 < (noisy[:, 0] - clean).std() < 0.4
