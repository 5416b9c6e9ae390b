"""The course's apps: signatures, models, losses and loops against NumPy and torch, and both ways to import them."""

from __future__ import annotations

import gzip
import importlib
import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn, optim

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = ("simple_ml", "mlp_resnet", "models")


@pytest.fixture(scope="module", params=["apps.", ""], ids=["apps as a package", "apps on the path"])
def apps(request):
    """The three modules, imported in one of the course's two ways; each way has its own module objects."""
    before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}  # those of other tests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT / "apps")])
        yield {name: importlib.import_module(request.param + name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture
def simple_ml(apps):
    return apps["simple_ml"]


@pytest.fixture
def mlp_resnet(apps):
    return apps["mlp_resnet"]


@pytest.fixture
def models(apps):
    return apps["models"]


def size(model):
    return sum(parameter.size for parameter in model.parameters())


def torch_leaf(tensor):
    return torch.from_numpy(tensor.numpy().astype(np.float64)).requires_grad_()


# ---- names -----------------------------------------------------------------------------------------------------------

SGD, ADAM, SOFTMAX_LOSS, BATCH_NORM = optim.SGD, optim.Adam, nn.SoftmaxLoss, nn.BatchNorm1d
PTB = {"device": None, "dtype": "float32"}
SIGNATURES = {
    "parse_mnist": ("image_filename label_filename", {}),
    "softmax_loss": ("Z y_one_hot", {}),
    "nn_epoch": ("X y W1 W2", {"lr": 0.1, "batch": 100}),
    "loss_err": ("h y", {}),
    "epoch_general_cifar10": ("dataloader model", {"loss_fn": SOFTMAX_LOSS, "opt": None}),
    "train_cifar10": (
        "model dataloader",
        {"n_epochs": 1, "optimizer": ADAM, "lr": 0.001, "weight_decay": 0.001, "loss_fn": SOFTMAX_LOSS},
    ),
    "evaluate_cifar10": ("model dataloader", {"loss_fn": SOFTMAX_LOSS}),
    "epoch_general_ptb": ("data model", {"seq_len": 40, "loss_fn": SOFTMAX_LOSS, "opt": None, "clip": None, **PTB}),
    "train_ptb": (
        "model data",
        {
            "seq_len": 40,
            "n_epochs": 1,
            "optimizer": SGD,
            "lr": 4.0,
            "weight_decay": 0.0,
            "loss_fn": SOFTMAX_LOSS,
            "clip": None,
            **PTB,
        },
    ),
    "evaluate_ptb": ("model data", {"seq_len": 40, "loss_fn": SOFTMAX_LOSS, **PTB}),
    "ResidualBlock": ("dim hidden_dim", {"norm": BATCH_NORM, "drop_prob": 0.1}),
    "MLPResNet": (
        "dim",
        {"hidden_dim": 100, "num_blocks": 3, "num_classes": 10, "norm": BATCH_NORM, "drop_prob": 0.1},
    ),
    "epoch": ("dataloader model", {"opt": None}),
    "train_mnist": (
        "",
        {
            "batch_size": 100,
            "epochs": 10,
            "optimizer": ADAM,
            "lr": 0.001,
            "weight_decay": 0.001,
            "hidden_dim": 100,
            "data_dir": "data",
        },
    ),
    "ResNet9": ("", {"device": None, "dtype": "float32"}),
    "LanguageModel": (
        "embedding_size output_size hidden_size",
        {"num_layers": 1, "seq_model": "rnn", "seq_len": 40, "device": None, "dtype": "float32"},
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_course_s(apps, name):
    (function,) = {getattr(module, name) for module in apps.values() if hasattr(module, name)}
    parameters = inspect.signature(function).parameters.values()
    required, defaults = SIGNATURES[name]
    actual = {parameter.name: parameter.default for parameter in parameters}
    # epoch_general_… take a loss, not its class
    actual = {name: type(value) if isinstance(value, nn.Module) else value for name, value in actual.items()}
    assert list(actual.items()) == [*((name, inspect.Parameter.empty) for name in required.split()), *defaults.items()]


STAR_IMPORTS = """
import itertools
import sys

import numpy as np

import needle as ndl
import needle.nn as nn

pytest, torch = "pytest", "torch"  # as good as the modules, which take seconds to import
before = dict(np=np, ndl=ndl, nn=nn, pytest=pytest, torch=torch, itertools=itertools)
sys.modules["tqdm"] = None  # the course's environment may lack it
sys.path.append("./apps")
from simple_ml import *
from mlp_resnet import *
from models import *
from apps.simple_ml import *
from apps.mlp_resnet import *
from apps.models import *
import apps.models
import models

assert {name: globals()[name] for name in before} == before
assert "nd" not in globals()
assert apps.models is not models
for name in ("parse_mnist", "train_ptb", "train_cifar10", "MLPResNet", "epoch", "ResNet9", "LanguageModel"):
    assert name in globals(), name
"""


def test_star_imports_in_both_ways_keep_the_names_of_the_importer():
    command = [sys.executable, "-W", "error", "-c", STAR_IMPORTS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


@pytest.mark.parametrize("name", MODULES)
def test_star_imports_bring_numpy_needle_and_nn(apps, name):
    names = {}
    exec(f"from {apps[name].__name__} import *", names)
    assert (names["np"], names["ndl"], names["nn"]) == (np, ndl, nn)


# ---- simple_ml: a network of two layers ------------------------------------------------------------------------------


def write_mnist(folder, count, side=28):
    """Write MNIST's four files with images of bars; a higher label puts the bar lower."""
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        labels = np.random.randint(0, 10, count).astype(np.uint8)
        images = np.random.randint(0, 100, (count, side, side)).astype(np.uint8)
        images[np.arange(count), labels * (side // 10)] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))
    return images, labels


def test_parse_mnist(simple_ml, tmp_path):
    images, labels = write_mnist(tmp_path, 6)
    X, y = simple_ml.parse_mnist(tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz")
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((6, 784), np.float32, (6,), np.uint8)
    np.testing.assert_array_equal(X, (images.reshape(6, 784) / 255).astype(np.float32))
    np.testing.assert_array_equal(y, labels)


def test_softmax_loss(simple_ml, device):
    z, y = np.random.randn(7, 4), np.array([0, 3, 1, 1, 2, 0, 3])
    logits = ndl.Tensor(z, device=device)
    loss = simple_ml.softmax_loss(logits, ndl.Tensor(np.eye(4)[y], device=device))
    leaf = torch.from_numpy(z).requires_grad_()
    expected = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(y))
    loss.backward()
    expected.backward()
    assert (loss.shape, loss.device) == ((), device)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(logits.grad.numpy(), leaf.grad.numpy(), atol=1e-14)


def test_loss_err(simple_ml, device):
    h = ndl.Tensor(np.array([[2.0, 0, 0], [0, 0, 1], [0, 3, 0], [1, 0, 0]], "float32"), device=device)
    loss, error = simple_ml.loss_err(h, np.array([0, 1, 1, 2], np.uint8))
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(h.numpy()), torch.tensor([0, 1, 1, 2]))
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    assert np.array((loss, error)).shape == (2,)
    assert error == 2 / 4
    for label, rule in ((3, r"must lie in \[0, 2\]"), (-1, r"must lie in \[0, 2\]"), (1.5, "must be integers")):
        with pytest.raises(ValueError, match=rule):
            simple_ml.loss_err(h, np.array([0, 1, 1, label]))
    with pytest.raises(ValueError, match="must agree in shape"):
        simple_ml.loss_err(h, np.array([[0], [1], [1], [2]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nn_epoch_steps_through_the_batches_in_order(simple_ml, device, dtype):
    X, y = np.random.randn(50, 5).astype(dtype), np.random.randint(3, size=50).astype(np.uint8)
    W1, W2 = (ndl.Tensor(np.random.randn(*shape).astype(dtype), device=device) for shape in ((5, 10), (10, 3)))
    before = W1.numpy(), W2.numpy()
    twins = [torch_leaf(W1), torch_leaf(W2)]
    step = torch.optim.SGD(twins, lr=0.5)
    for start in (0, 20, 40):  # the last batch has 10
        x, target = (torch.from_numpy(array[start : start + 20]) for array in (X.astype(np.float64), y.astype(int)))
        step.zero_grad()
        torch.nn.functional.cross_entropy((x @ twins[0]).relu() @ twins[1], target).backward()
        step.step()
    results = simple_ml.nn_epoch(X, y, W1, W2, lr=0.5, batch=20)
    for result, twin, weights, array in zip(results, twins, (W1, W2), before, strict=True):
        assert (result.dtype, result.device) == (dtype, device)
        np.testing.assert_allclose(result.numpy(), twin.detach().numpy(), atol=1e-5 if dtype == "float32" else 1e-12)
        np.testing.assert_array_equal(weights.numpy(), array)


# ---- simple_ml: classifiers ------------------------------------------------------------------------------------------


class Probe(nn.Sequential):
    """A model that records its mode and whether gradients are on, at each call."""

    def forward(self, x):
        vars(self).setdefault("seen", []).append((self.training, ndl.is_grad_enabled()))
        return super().forward(x)


def classifier(device):
    """A linear classifier of images, in float64."""
    return Probe(nn.Flatten(), nn.Linear(12, 4, device=device, dtype="float64"))


def image_batches(device):
    """Three batches of images (B, 3, 2, 2) in float64 and uint8 labels; the last is smaller."""
    return [
        (
            ndl.Tensor(np.random.randn(count, 3, 2, 2), device=device, requires_grad=False),
            ndl.Tensor(np.random.randint(4, size=count).astype(np.uint8), device=device, requires_grad=False),
        )
        for count in (5, 5, 2)
    ]


def torch_epoch(twins, batches, optimizer=None):
    """Accuracy and mean loss of x @ W + b over batches, with steps if there is an `optimizer`."""
    hits, losses = [], []
    for images, labels in batches:
        x, y = torch.from_numpy(images.numpy().reshape(-1, 12)), torch.from_numpy(labels.numpy()).long()
        logits = x @ twins[0] + twins[1]
        hits += (logits.argmax(1) == y).tolist()
        losses += torch.nn.functional.cross_entropy(logits, y, reduction="none").tolist()
        if optimizer is not None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, y).backward()
            optimizer.step()
    return np.mean(hits), np.mean(losses)


def test_train_and_evaluate_cifar10(simple_ml, device):
    model, batches = classifier(device), image_batches(device)
    twins = [torch_leaf(parameter) for parameter in model.parameters()]
    optimizer = torch.optim.Adam(twins, lr=0.1, weight_decay=0.01)
    expected = [torch_epoch(twins, batches, optimizer) for _ in range(2)]
    result = simple_ml.train_cifar10(model, batches, n_epochs=2, lr=0.1, weight_decay=0.01)
    assert model.seen == [(True, True)] * 6
    assert result == pytest.approx(expected[-1], rel=1e-9)
    for parameter, twin in zip(model.parameters(), twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), atol=1e-9)
    before = [parameter.numpy() for parameter in model.parameters()]
    result = simple_ml.evaluate_cifar10(model, batches)
    assert model.seen[6:] == [(False, False)] * 3
    assert result == pytest.approx(torch_epoch(twins, batches), rel=1e-9)
    assert all(isinstance(value, float) for value in result)
    for parameter, array in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.numpy(), array)


def test_a_custom_loss_is_used(simple_ml, device):
    class Nine(nn.Module):
        def forward(self, x, target):
            return x.sum() * 0 + 9

    assert simple_ml.evaluate_cifar10(classifier(device), image_batches(device), Nine)[1] == 9
    assert simple_ml.epoch_general_cifar10(image_batches(device), classifier(device), Nine())[1] == 9


def test_loops_without_a_batch_or_an_epoch(simple_ml, device):
    with pytest.raises(ValueError, match=r"loader must yield at least one batch, but yielded none$"):
        simple_ml.evaluate_cifar10(classifier(device), [])
    with pytest.raises(ValueError, match=r"^train_cifar10: the number of epochs must be at least 1, but got 0$"):
        simple_ml.train_cifar10(classifier(device), image_batches(device), n_epochs=0)


# ---- simple_ml: language models --------------------------------------------------------------------------------------


WORDS = 6


def language_model(models, device, seq_model="rnn", num_layers=1):
    return models.LanguageModel(3, WORDS, 5, num_layers, seq_model, seq_len=4, device=device, dtype="float64")


def text(rows=11, columns=3):
    """Random word ids (rows, columns) from `batchify`."""
    return ndl.data.batchify(np.random.randint(WORDS, size=rows * columns), columns)


class TorchLanguageModel(torch.nn.Module):
    """The twin of LanguageModel, with its parameters."""

    def __init__(self, model, seq_model, num_layers):
        super().__init__()
        self.embedding = torch.nn.Embedding(WORDS, 3)
        self.sequence = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM}[seq_model](3, 5, num_layers)
        self.linear = torch.nn.Linear(5, WORDS)
        self.double()
        with torch.no_grad():
            for twin, array in zip(self.parameters(), in_torch_layout(model), strict=True):
                twin.copy_(torch.from_numpy(array))

    def forward(self, x, h):
        y, h = self.sequence(self.embedding(x), h)
        return self.linear(y).reshape(-1, WORDS), h


def in_torch_layout(model):
    """The parameters of a needle language model in torch's order and layout: weights as (out, in)."""
    table, *arrays = (parameter.numpy() for parameter in model.parameters())
    return [table, *(np.squeeze(array).T for array in arrays)]


def torch_text_epoch(twin, data, seq_len, optimizer=None, clip=None):
    """Accuracy and mean loss over a text, cut into batches of rows by hand."""
    ids, h, hits, losses = torch.from_numpy(data).long(), None, [], []
    for start in range(0, len(ids) - 1, seq_len):
        stop = min(start + seq_len, len(ids) - 1)
        logits, h = twin(ids[start:stop], h)
        h = tuple(part.detach() for part in h) if isinstance(h, tuple) else h.detach()
        y = ids[start + 1 : stop + 1].reshape(-1)
        hits += (logits.argmax(1) == y).tolist()
        losses += torch.nn.functional.cross_entropy(logits, y, reduction="none").tolist()
        if optimizer is not None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, y).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
            optimizer.step()
    return np.mean(hits), np.mean(losses)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(("seq_model", "num_layers"), [("rnn", 1), ("lstm", 2)])
def test_train_and_evaluate_ptb(simple_ml, models, device, seq_model, num_layers, clip):
    model, data = language_model(models, device, seq_model, num_layers), text()
    twin = TorchLanguageModel(model, seq_model, num_layers)
    optimizer = torch.optim.SGD(twin.parameters(), lr=2.0, weight_decay=0.01)
    expected = [torch_text_epoch(twin, data, 4, optimizer, clip) for _ in range(2)][-1]
    options = {"seq_len": 4, "device": device}
    result = simple_ml.train_ptb(model, data, n_epochs=2, lr=2.0, weight_decay=0.01, clip=clip, **options)
    assert result == pytest.approx(expected, rel=1e-8)
    assert model.training
    for array, other in zip(in_torch_layout(model), twin.parameters(), strict=True):
        np.testing.assert_allclose(array, other.detach().numpy(), atol=1e-8)
    other_text = text(6)
    expected = torch_text_epoch(twin, other_text, 4)
    assert simple_ml.evaluate_ptb(model, other_text, **options) == pytest.approx(expected, rel=1e-8)
    assert not model.training
    assert simple_ml.epoch_general_ptb(other_text, model, **options) == pytest.approx(expected, rel=1e-8)
    for array, other in zip(in_torch_layout(model), twin.parameters(), strict=True):
        np.testing.assert_allclose(array, other.detach().numpy(), atol=1e-8)


def test_a_transformer_is_trained_on_a_text(simple_ml, models, device):
    model = language_model(models, device, "transformer")
    data = ndl.data.batchify(np.arange(60) % WORDS, 3)
    options = {"seq_len": 4, "device": device}
    _, before = simple_ml.evaluate_ptb(model, data, **options)
    simple_ml.train_ptb(model, data, n_epochs=3, optimizer=optim.Adam, lr=0.01, **options)
    assert simple_ml.evaluate_ptb(model, data, **options)[1] < before


def test_texts_without_an_epoch_or_a_next_word(simple_ml, models, device):
    model = language_model(models, device)
    with pytest.raises(ValueError, match=r"^train_ptb: the number of epochs must be at least 1, but got 0$"):
        simple_ml.train_ptb(model, text(), n_epochs=0, device=device)
    with pytest.raises(ValueError, match=r"loader must yield at least one batch, but yielded none$"):
        simple_ml.evaluate_ptb(model, text(rows=1), device=device)


def test_every_loop_begins_with_the_course_s_seed(simple_ml, mlp_resnet, models, device):
    model, batches, words, data = classifier(device), image_batches(device), language_model(models, device), text()
    loops = [
        lambda: simple_ml.epoch_general_cifar10(batches, model),
        lambda: simple_ml.train_cifar10(model, batches),
        lambda: simple_ml.evaluate_cifar10(model, batches),
        lambda: simple_ml.epoch_general_ptb(data, words, device=device),
        lambda: simple_ml.train_ptb(words, data, device=device),
        lambda: simple_ml.evaluate_ptb(words, data, device=device),
        lambda: mlp_resnet.epoch(batches, model),
    ]
    expected = np.random.RandomState(4).rand()
    for loop in loops:
        np.random.seed(123)
        loop()
        assert np.random.rand() == expected


# ---- mlp_resnet ------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_residual_networks(mlp_resnet):
    assert size(mlp_resnet.ResidualBlock(15, 2, nn.BatchNorm1d)) == 111
    assert size(mlp_resnet.ResidualBlock(784, 100, nn.LayerNorm1d)) == 159452
    assert size(mlp_resnet.MLPResNet(150, 100, 5, 10, nn.LayerNorm1d)) == 68360
    assert size(mlp_resnet.MLPResNet(10, 100, 1, 100, nn.BatchNorm1d)) == 21650


def linear(x, fan_in, fan_out):
    """x @ W + b with the numbers that Linear draws next."""
    weight = (np.random.rand(fan_in, fan_out) * 2 - 1) * np.sqrt(6 / fan_in)
    return x @ weight + (np.random.rand(fan_out) * 2 - 1) * np.sqrt(6 / fan_out)


def residual_block(x, dim, hidden_dim):
    """ResidualBlock in evaluation, with the numbers that it draws; fresh batch norms only divide by √(1 + eps)."""
    y = np.maximum(linear(x, dim, hidden_dim) / np.sqrt(1 + 1e-5), 0)
    return np.maximum(x + linear(y, hidden_dim, dim) / np.sqrt(1 + 1e-5), 0)


@pytest.mark.usefixtures("on_device")
def test_residual_block_and_network_compute_with_draws_in_the_order_of_the_text(mlp_resnet, device):
    x = np.random.randn(4, 6)
    np.random.seed(1)
    block = mlp_resnet.ResidualBlock(6, 3)
    np.random.seed(2)
    network = mlp_resnet.MLPResNet(6, hidden_dim=5, num_blocks=2, num_classes=7)
    inputs = ndl.Tensor(x, dtype="float32")
    np.random.seed(1)
    np.testing.assert_allclose(block.eval()(inputs).numpy(), residual_block(x, 6, 3), atol=1e-5)
    np.random.seed(2)
    y = np.maximum(linear(x, 6, 5), 0)
    y = linear(residual_block(residual_block(y, 5, 2), 5, 2), 5, 7)
    np.testing.assert_allclose(network.eval()(inputs).numpy(), y, atol=1e-5)


@pytest.mark.usefixtures("on_device")
def test_the_drop_probability_reaches_the_dropouts(mlp_resnet):
    network = mlp_resnet.MLPResNet(6, 8, num_blocks=2, drop_prob=0.25)
    drops = [module.p for _, module in network.named_modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.25] * 2


def test_epoch_gives_error_rate_and_mean_loss_over_the_items(mlp_resnet, device):
    model, batches = classifier(device), image_batches(device)
    twins = [torch_leaf(parameter) for parameter in model.parameters()]
    result = mlp_resnet.epoch(batches, model)
    accuracy, loss = torch_epoch(twins, batches)
    assert model.seen == [(False, False)] * 3
    assert result == pytest.approx((1 - accuracy, loss), rel=1e-9)
    assert [type(value) for value in result] == [float, float]
    optimizer = torch.optim.SGD(twins, lr=0.5)
    accuracy, loss = torch_epoch(twins, batches, optimizer)
    result = mlp_resnet.epoch(batches, model, optim.SGD(model.parameters(), lr=0.5))
    assert model.seen[3:] == [(True, True)] * 3
    assert result == pytest.approx((1 - accuracy, loss), rel=1e-9)
    for parameter, twin in zip(model.parameters(), twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), atol=1e-9)


@pytest.mark.usefixtures("on_device")
def test_a_shuffling_loader_gives_the_same_order_in_every_epoch(mlp_resnet):
    class Recorder(nn.Linear):
        def forward(self, x):
            orders[-1] += x.numpy()[:, 0].tolist()
            return super().forward(x)

    items = np.arange(12, dtype="float32").reshape(12, 1, 1, 1)
    loader = ndl.data.DataLoader(ndl.data.NDArrayDataset(items, np.zeros(12, int)), batch_size=5, shuffle=True)
    model, orders = Recorder(1, 2), []
    for _ in range(2):
        orders.append([])
        mlp_resnet.epoch(loader, model)
    assert orders[0] == orders[1] == np.random.RandomState(4).permutation(12).tolist()


@pytest.mark.usefixtures("on_device")
def test_train_mnist(mlp_resnet, tmp_path):
    write_mnist(tmp_path / "data", 300)
    arguments = {"batch_size": 50, "lr": 0.01, "weight_decay": 0, "hidden_dim": 20, "data_dir": tmp_path / "data"}
    first = mlp_resnet.train_mnist(epochs=1, **arguments)
    last = mlp_resnet.train_mnist(epochs=3, **arguments)
    assert mlp_resnet.train_mnist(epochs=1, **arguments) == first
    assert len(last) == 4
    assert all(type(value) is float for value in last)
    assert all(later < earlier for earlier, later in zip(first, last, strict=True))
    assert last[2] < 0.1
    np.random.seed(4)
    images, labels = ndl.data.idx_files(tmp_path / "data", train=True)
    loader = ndl.data.DataLoader(ndl.data.MNISTDataset(images, labels), 50, shuffle=True)
    model = mlp_resnet.MLPResNet(784, 20)
    assert mlp_resnet.epoch(loader, model, optim.Adam(model.parameters(), lr=0.01)) == first[:2]


def test_train_mnist_without_an_epoch_or_its_files(mlp_resnet, tmp_path):
    write_mnist(tmp_path / "data", 2)
    with pytest.raises(ValueError, match=r"^train_mnist: the number of epochs must be at least 1, but got 0$"):
        mlp_resnet.train_mnist(epochs=0, data_dir=tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"^idx_files: folder must hold one of train-images-idx3-ubyte"):
        mlp_resnet.train_mnist(data_dir=tmp_path)


# ---- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-5), ("float64", 3e-6)])
def test_resnet9(models, device, dtype, rtol):
    np.random.seed(0)
    model = models.ResNet9(device=device, dtype=dtype)
    assert size(model) == 431946
    x = ndl.Tensor(np.random.randn(2, 3, 32, 32), device=device, dtype=dtype)
    y = model(x)
    assert (y.shape, y.dtype, y.device) == ((2, 10), dtype, device)
    np.testing.assert_allclose(y.numpy()[0, :3], [-1.8912625, 0.64833605, 1.9400386], rtol=rtol)  # the course's numbers
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("seq_model", ["rnn", "lstm", "transformer"])
def test_language_model(models, device, seq_model, num_layers):
    options = {"device": device, "dtype": "float64"}
    np.random.seed(5)
    model = models.LanguageModel(3, WORDS, 5, num_layers, seq_model, seq_len=4, **options)
    np.random.seed(5)
    embedding = nn.Embedding(WORDS, 3, **options)
    if seq_model == "transformer":
        sequence = nn.Transformer(3, 5, num_layers, sequence_len=4, **options)
    else:
        sequence = getattr(nn, seq_model.upper())(3, 5, num_layers, **options)
    last = nn.Linear(3 if seq_model == "transformer" else 5, WORDS, **options)
    drawn = [parameter for part in (embedding, sequence, last) for parameter in part.parameters()]
    for parameter, other in zip(model.parameters(), drawn, strict=True):
        np.testing.assert_array_equal(parameter.numpy(), other.numpy())

    x = ndl.Tensor(np.random.randint(WORDS, size=(4, 2)).astype("float32"), device=device, requires_grad=False)
    out, h = model(x)
    assert (out.shape, out.dtype, out.device) == ((4 * 2, WORDS), "float64", device)
    hidden, _ = sequence(embedding(x))
    weight, bias = (parameter.numpy() for parameter in last.parameters())
    for t, b in itertools.product(range(4), range(2)):
        np.testing.assert_allclose(out.numpy()[2 * t + b], hidden.numpy()[t, b] @ weight + bias[0], atol=1e-12)
    state = (num_layers, 2, 5)
    if seq_model == "rnn":
        assert h.shape == state
    elif seq_model == "lstm":
        assert isinstance(h, tuple)
        assert [part.shape for part in h] == [state] * 2
    again, _ = model(x, h)
    assert np.array_equal(again.numpy(), out.numpy()) == (seq_model == "transformer")  # which needs no state
    model(x)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_language_model_of_another_kind(models):
    rule = r"^LanguageModel: seq_model must be one of 'rnn', 'lstm', 'transformer', but got 'gru'$"
    with pytest.raises(ValueError, match=rule):
        models.LanguageModel(3, WORDS, 5, seq_model="gru")
