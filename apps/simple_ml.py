"""The course's functions around a model: MNIST's files, a two-layer network, image classifiers, language models.

What the training loops have in common is `pass_over`: it takes the pairs (logits, targets) as a model makes them, from
`class_outputs` (a loader of images) or `word_outputs` (a text in batches), and steps an optimizer if there is one.
"""

from contextlib import nullcontext

import numpy as np

import needle as ndl
from needle import nn

__all__ = [  # what a star import brings: the course's names
    "epoch_general_cifar10",
    "epoch_general_ptb",
    "evaluate_cifar10",
    "evaluate_ptb",
    "loss_err",
    "ndl",
    "nn",
    "nn_epoch",
    "np",
    "parse_mnist",
    "softmax_loss",
    "train_cifar10",
    "train_ptb",
]

SEED = 4  # what the course's loops start from

# ---- a network of two layers -----------------------------------------------------------------------------------------


def parse_mnist(image_filename, label_filename):
    """Two IDX files, gzipped or plain, as arrays: images (N, H·W) of float32 in 0..1, and their uint8 labels (N,)."""
    images, labels = ndl.data.MNISTDataset(image_filename, label_filename).arrays
    count, height, width, _ = images.shape
    return images.reshape(count, height * width), labels


def softmax_loss(Z, y_one_hot):
    """The mean over rows of -log softmax(Z) at the true class: logits (N, C), one-hot rows (N, C) -> ()."""
    return -(ndl.logsoftmax(Z) * y_one_hot).sum() / Z.shape[0]


def nn_epoch(X, y, W1, W2, lr=0.1, batch=100):
    """One pass of SGD over arrays X (N, D) and y (N,), in their order, for relu(X @ W1) @ W2: the new (W1, W2).

    The weights that are given stay as they are.
    """
    W1, W2 = ndl.Tensor(W1), ndl.Tensor(W2)
    opt = ndl.optim.SGD([W1, W2], lr=lr)
    for start in range(0, len(X), batch):
        x = ndl.Tensor(X[start : start + batch], device=W1.device, requires_grad=False)
        logits = ndl.relu(x @ W1) @ W2
        softmax_loss(logits, _one_hot(logits, y[start : start + batch])).backward(create_graph=False)
        opt.step()
    return W1, W2


def loss_err(h, y):
    """The softmax loss and the error rate of logits h (N, C) for labels y (N,), two floats."""
    return softmax_loss(h, _one_hot(h, y)).item(), float(np.mean(h.numpy().argmax(1) != y))


def _one_hot(logits, y):
    """Labels (N,) as rows (N, C), in the dtype and on the device of the logits (N, C)."""
    return ndl.init.one_hot(logits.shape[1], ndl.Tensor(y, device=logits.device), dtype=logits.dtype)


# ---- a pass over any data --------------------------------------------------------------------------------------------


def pass_over(outputs, model, loss_fn, opt=None, clip=None):
    """The accuracy and the mean loss over pairs (logits (N, C), targets (N,)): in training mode, with a step for each.

    `outputs` are the pairs, made by the model as they are asked for. Each counts by its number of targets, with the
    logits before its step. `clip` bounds the norm of all gradients together. Without `opt`: evaluation, no graph.
    """
    model.train(opt is not None)
    measured = []  # left on the device until the end: to read a number is to wait for it
    with ndl.no_grad() if opt is None else nullcontext():
        for logits, targets in outputs:
            loss = loss_fn(logits, targets)
            if opt is not None:
                opt.reset_grad()
                loss.backward(create_graph=False)
                if clip is not None:
                    opt.clip_grad_norm(clip)
                opt.step()
            measured.append((ndl.equal(logits.argmax(1), targets).sum(), loss.detach(), len(targets)))
    if not measured:
        raise ValueError("pass_over: there must be at least one batch, but there is none")
    count = sum(number for _, _, number in measured)
    correct = sum(hits.item() for hits, _, _ in measured)
    return correct / count, sum(loss.item() * number for _, loss, number in measured) / count


def last_epoch(op, n_epochs, run):
    """What the last of `n_epochs` calls of `run` returns."""
    if n_epochs < 1:
        raise ValueError(f"{op}: the number of epochs must be at least 1, but got {n_epochs}")
    return [run() for _ in range(n_epochs)][-1]


# ---- classifiers of images -------------------------------------------------------------------------------------------


def class_outputs(loader, model):
    """The pairs (logits (B, C), labels (B,)) of each batch of a loader."""
    return ((model(images), labels) for images, labels in loader)


def epoch_general_cifar10(dataloader, model, loss_fn=nn.SoftmaxLoss(), opt=None):  # noqa: B008
    """One pass over a loader of images and labels, with steps if there is an optimizer: (accuracy, mean loss)."""
    np.random.seed(SEED)
    return pass_over(class_outputs(dataloader, model), model, loss_fn, opt)


def train_cifar10(
    model, dataloader, n_epochs=1, optimizer=ndl.optim.Adam, lr=0.001, weight_decay=0.001, loss_fn=nn.SoftmaxLoss
):
    """Train `model` on a loader of images and labels: (accuracy, mean loss) of the last epoch.

    `optimizer` and `loss_fn` are classes.
    """
    np.random.seed(SEED)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    return last_epoch("train_cifar10", n_epochs, lambda: epoch_general_cifar10(dataloader, model, loss_fn(), opt))


def evaluate_cifar10(model, dataloader, loss_fn=nn.SoftmaxLoss):
    """(accuracy, mean loss) of `model` on a loader of images and labels; `loss_fn` is a class."""
    return epoch_general_cifar10(dataloader, model, loss_fn())


# ---- language models -------------------------------------------------------------------------------------------------


def word_outputs(data, model, seq_len=40, device=None, dtype="float32"):
    """The pairs (logits (T·B, words), next words (T·B,)) of a text in batches (rows, B), T = `seq_len` rows at a time.

    The last stretch may be shorter. The model's state is None at first, and passed on from stretch to stretch without
    its graph.
    """
    state = None
    for start in range(0, len(data) - 1, seq_len):
        words, next_words = ndl.data.get_batch(data, start, seq_len, device=device, dtype=dtype)
        logits, state = model(words, state)
        state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        yield logits, next_words


def epoch_general_ptb(
    data,
    model,
    seq_len=40,
    loss_fn=nn.SoftmaxLoss(),  # noqa: B008
    opt=None,
    clip=None,
    device=None,
    dtype="float32",
):
    """One pass over a text as `batchify` gives it, with steps if there is an optimizer: (accuracy, mean loss)."""
    np.random.seed(SEED)
    return pass_over(word_outputs(data, model, seq_len, device, dtype), model, loss_fn, opt, clip)


def train_ptb(
    model,
    data,
    seq_len=40,
    n_epochs=1,
    optimizer=ndl.optim.SGD,
    lr=4.0,
    weight_decay=0.0,
    loss_fn=nn.SoftmaxLoss,
    clip=None,
    device=None,
    dtype="float32",
):
    """Train a language model on a text as `batchify` gives it: (accuracy, mean loss) of the last epoch.

    `optimizer` and `loss_fn` are classes; `clip` bounds the norm of all gradients together.
    """
    np.random.seed(SEED)
    opt = optimizer(model.parameters(), lr=lr, weight_decay=weight_decay)
    return last_epoch(
        "train_ptb", n_epochs, lambda: epoch_general_ptb(data, model, seq_len, loss_fn(), opt, clip, device, dtype)
    )


def evaluate_ptb(model, data, seq_len=40, loss_fn=nn.SoftmaxLoss, device=None, dtype="float32"):
    """(accuracy, mean loss) of a language model on a text as `batchify` gives it; `loss_fn` is a class."""
    return epoch_general_ptb(data, model, seq_len, loss_fn(), device=device, dtype=dtype)
