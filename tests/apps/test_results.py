"""What a report shows of a model, read from its batches."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
import results
from needle import nn


def batches(logits, labels, size=4):
    """(inputs, outputs, targets) of a model with these logits; the image of sample i holds i."""
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        images = np.arange(len(labels), dtype="float32").reshape(-1, 1, 1, 1)[part]
        yield ndl.Tensor(images), ndl.Tensor(logits[part]), ndl.Tensor(labels[part])


@pytest.mark.parametrize("keep", [3, 100])
def test_the_surest_mistakes_come_first(keep):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((30, 3)).astype("float32"), rng.integers(0, 3, 30)
    found = results.classification(batches(logits, labels), 3, keep)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = logits.argmax(1)
    wrong = [i for i in np.argsort(-probabilities.max(1)) if predicted[i] != labels[i]][:keep]
    assert [mistake.image.item() for mistake in found.mistakes] == wrong
    assert [mistake.predicted for mistake in found.mistakes] == predicted[wrong].tolist()
    assert [mistake.actual for mistake in found.mistakes] == labels[wrong].tolist()
    np.testing.assert_allclose([m.probability for m in found.mistakes], probabilities.max(1)[wrong], rtol=1e-6)
    np.testing.assert_array_equal(found.confusion, ndl.metrics.confusion_matrix(logits, labels, 3))
    assert all(mistake.image.base is None for mistake in found.mistakes)  # no batch is kept alive


def test_no_mistakes_and_no_images():
    labels = np.array([0, 1])
    assert results.classification(batches(np.eye(2, dtype="float32"), labels), 2).mistakes == []
    assert results.classification([], 2).confusion.sum() == 0


def test_reconstructions_stand_beside_their_inputs():
    pairs = [(ndl.ones(3, 1, 2, 2) * i, ndl.ones(3, 1, 2, 2) * -i, None) for i in range(3)]
    pictures = results.reconstruction(iter(pairs), 4).pictures
    assert [image.max() for image in pictures["input"]] == [0, 0, 0, 1]
    assert [image.max() for image in pictures["output"]] == [0, 0, 0, -1]


def test_masks_stand_beside_their_images():
    rng = np.random.default_rng(0)
    images, logits = rng.random((5, 1, 4, 4)), rng.standard_normal((5, 2, 4, 4))
    masks = rng.integers(0, 2, (5, 4, 4))
    parts = [tuple(ndl.Tensor(array[part]) for array in (images, logits, masks)) for part in (slice(3), slice(3, 5))]
    found = results.segmentation(parts, 2, keep=4)
    for name, expected in (("input", images), ("mask", masks), ("prediction", logits.argmax(1))):
        np.testing.assert_array_equal(found.pictures[name], expected[:4])
    np.testing.assert_array_equal(found.confusion, ndl.metrics.confusion_matrix(logits, masks, 2))


def test_the_first_convolution_is_found():
    conv = nn.Conv2d(3, 4, 5)
    model = nn.Sequential(nn.Identity(), nn.Residual(nn.Sequential(conv)), nn.Conv2d(4, 4, 3))
    np.testing.assert_array_equal(results.first_filters(model), conv.weight.numpy())
    assert results.first_filters(nn.Conv1d(2, 6, 3)).shape == (6, 2, 3)
    course = nn.Conv(3, 4, 5)
    assert results.first_filters(course).shape == (4, 3, 5, 5)
    np.testing.assert_array_equal(results.first_filters(course)[1, 2], course.weight.numpy()[:, :, 2, 1])
    assert results.first_filters(nn.Linear(3, 2)) is None
