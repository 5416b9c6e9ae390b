"""The pinned figures that need the real files: run where NEEDLE_DATA names a folder of them.

It holds `mnist/` (four IDX files), `cifar-10-batches-py/` and `ptb/`. The course's own tests hold these figures to 1e-3
or 1e-5 relative; figures after many steps depend on rounding and have wider tolerances here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from apps import mlp_resnet, models, simple_ml
from needle.data import CIFAR10Dataset, Corpus, DataLoader, MNISTDataset, batchify, idx_files

FOLDER = Path(os.environ.get("NEEDLE_DATA", "no such folder"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="NEEDLE_DATA does not name a folder of the real files")


def mnist(train):
    return MNISTDataset(*idx_files(FOLDER / "mnist", train=train))


def test_two_layers_on_mnist():
    images, labels = simple_ml.parse_mnist(*idx_files(FOLDER / "mnist", train=True))
    np.random.seed(0)
    weights = np.random.randn(784, 100) / np.sqrt(100), np.random.randn(100, 10) / np.sqrt(10)
    first, second = (ndl.Tensor(weight.astype("float32")) for weight in weights)
    first, second = simple_ml.nn_epoch(images, labels, first, second, lr=0.2, batch=100)
    norms = [np.linalg.norm(weight.numpy()) for weight in (first, second)]
    np.testing.assert_allclose(norms, [28.437788, 10.455095], rtol=1e-5)
    logits = ndl.Tensor(np.maximum(images @ first.numpy(), 0)) @ second
    np.testing.assert_allclose(simple_ml.loss_err(logits, labels), [0.19770025, 0.06006667], rtol=1e-4, atol=1e-4)


def test_an_epoch_of_the_residual_network():
    np.random.seed(1)
    model = mlp_resnet.MLPResNet(784, 5)
    optimizer = ndl.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    actual = mlp_resnet.epoch(DataLoader(mnist(True), 250), model, optimizer)
    np.testing.assert_allclose(actual, [0.675267, 1.84043], rtol=1e-4)


def test_an_evaluation_of_the_residual_network():
    np.random.seed(1)
    model = mlp_resnet.MLPResNet(784, 10)
    actual = mlp_resnet.epoch(DataLoader(mnist(False), 150), model)
    np.testing.assert_allclose(actual, [0.9164, 4.137814], rtol=1e-5)


def test_the_training_of_the_residual_network():
    actual = mlp_resnet.train_mnist(250, 2, ndl.optim.SGD, 0.001, 0.01, 100, data_dir=FOLDER / "mnist")
    np.testing.assert_allclose(actual, [0.4875, 1.462595, 0.3245, 1.049429], rtol=1e-3, atol=1e-3)


def test_resnet9_on_the_first_images(device):
    np.random.seed(0)
    model = models.ResNet9(device=device)
    images, labels = CIFAR10Dataset(FOLDER / "cifar-10-batches-py", train=True)[:128]
    logits = model(ndl.Tensor(images, device=device))
    loss = ndl.nn.SoftmaxLoss()(logits, ndl.Tensor(labels, device=device))
    assert np.mean(logits.numpy().argmax(1) == labels) == 0.09375
    assert loss.item() == pytest.approx(3.5892258, rel=1e-5)


def test_the_language_model_on_twenty_lines(device):
    corpus = Corpus(FOLDER / "ptb", max_lines=20)
    assert (len(corpus.dictionary), len(corpus.train)) == (381, 423)
    batches = batchify(corpus.train, batch_size=16, device=device, dtype="float32")
    np.random.seed(3)
    for losses in ((5.809671, 5.391172), (5.632849, 5.417056)):  # the second time without a new seed
        model = models.LanguageModel(30, 381, hidden_size=10, num_layers=2, seq_model="rnn", device=device)
        actual = [
            simple_ml.train_ptb(model, batches, seq_len=10, n_epochs=2, device=device)[1],
            simple_ml.evaluate_ptb(model, batches, seq_len=10, device=device)[1],
        ]
        np.testing.assert_allclose(actual, losses, rtol=1e-5)


def test_the_whole_text():
    corpus = Corpus(FOLDER / "ptb")
    assert (len(corpus.dictionary), len(corpus.train), len(corpus.test)) == (10000, 929589, 82430)
