"""Captured training steps on a GPU, or on the null device: bits of eager steps, live numbers, memory, refusals."""

from __future__ import annotations

import gc
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle import nn, optim
from needle.backend import CannotRecord, recording
from needle.data import DataLoader, PixelDataset
from tests.gpu.null import device as null
from tests.gpu.null.steps import NETWORKS, Training

if not ndl.cuda().enabled():
    pytest.skip("there is no GPU", allow_module_level=True)
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("error")]

GPU = ndl.cuda()


def with_batch(training):
    def step(x, target):
        training.x, training.target = x, target
        return training.step()

    return step


def batches(training, count):
    """Batches of the kind of a training's own."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        x = ndl.Tensor(rng.normal(size=training.x.shape).astype("float32"), device=GPU)
        x.requires_grad = training.x.requires_grad
        is_own = training.target is training.x
        labels = rng.integers(0, 10, len(x.numpy()))
        yield x, x if is_own else ndl.Tensor(labels, device=GPU, requires_grad=False)


def state(training):
    return [parameter.numpy() for parameter in training.model.parameters()] + [
        buffer.numpy() for buffer in training.model.state_dict().values()
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_captured_steps_equal_eager_ones_bit_for_bit(name):
    """Also after the rate has changed."""
    net = replace(NETWORKS[name].small(), batch=4)
    eager, other = Training(net, GPU), Training(net, GPU)
    steps = with_batch(eager), ndl.capture(with_batch(other))
    for number, batch in enumerate(batches(eager, 20)):
        if number in (7, 13):
            for training in (eager, other):
                training.optimizer.lr = training.optimizer.lr * 0.1
        losses = [step(*batch).item() for step in steps]
        assert losses[0] == losses[1], number
    for mine, its in zip(state(eager), state(other), strict=True):
        np.testing.assert_array_equal(mine, its)


# ---- a small step of our own -----------------------------------------------------------------------------------------


class Drop(nn.Module):
    """Dropout on the device: the layer of the course draws on the host, which cannot be recorded."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, self.training)


class Net:
    """Dropout and batch norm; `seed` sets parameters and the stream of random numbers."""

    def __init__(self, optimizer="Adam", seed=0, dropout=0.4, **options):
        ndl.seed(seed)
        layers = [nn.Conv2d(1, 4, 3, padding=1, device=GPU), nn.BatchNorm2d(4, device=GPU), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), Drop(dropout), nn.Linear(64, 10, device=GPU)]
        self.model = nn.Sequential(*layers)
        self.optimizer = getattr(optim, optimizer)(self.model.parameters(), **({"lr": 0.01} | options))
        self.step = ndl.capture(self.eager)
        self.layer = nn.Dropout(0.5)

    def eager(self, x, labels):
        loss = nn.CrossEntropyLoss()(self.model(x), labels)
        self.optimizer.reset_grad()
        loss.backward(create_graph=False)
        self.optimizer.step()
        return loss

    def recordings(self):
        return [kind.recorded for kind in self.step._kinds.values() if kind.recorded is not None]


def data(count, batch=8, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        images, labels = rng.normal(size=(batch, 1, 8, 8)).astype("float32"), rng.integers(0, 10, batch)
        yield tuple(ndl.Tensor(array, device=GPU, requires_grad=False) for array in (images, labels))


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_a_schedule_is_heeded(optimizer):
    results = []
    for kind in ("eager", "step"):
        net = Net(optimizer)
        schedule = optim.lr_scheduler.StepLR(net.optimizer, step_size=2, gamma=0.5)
        losses = []
        for batch in data(10):
            losses.append(getattr(net, kind)(*batch).item())
            schedule.step()
        results.append(losses)
        assert net.optimizer.lr == 0.01 * 0.5**5
    assert results[0] == results[1]


def test_a_step_without_tensors_works_where_its_eager_calls_do():
    """Gradients are added up by one captured function, and used by another one, which has no arguments."""
    results = []
    for wrap in (ndl.capture, lambda function: function):
        ndl.seed(0)
        layer = nn.Linear(64, 10, device=GPU)
        optimizer = optim.Adam(layer.parameters(), lr=0.01)

        def add(images, labels, layer=layer):
            loss = nn.CrossEntropyLoss()(layer(images.reshape((8, 64))), labels)
            loss.backward(create_graph=False, accumulate=True)
            return loss

        def update(optimizer=optimizer):
            optimizer.step()
            optimizer.reset_grad()

        add, update, losses = wrap(add), wrap(update), []
        for number, batch in enumerate(data(10)):
            losses.append(add(*batch).item())
            if number % 2:
                update()
        results.append(losses)
    assert results[0] == results[1]


def test_dropout_differs_from_step_to_step_and_equals_eager_steps():
    losses = {}
    for kind in ("eager", "step"):
        net = Net("SGD", lr=0.0)
        (batch,) = data(1)
        losses[kind] = [getattr(net, kind)(*batch).item() for _ in range(9)]
    assert len(set(losses["step"])) == 9
    assert losses["step"] == losses["eager"]


def test_what_others_allocate_between_replays_stays_and_changes_nothing():
    nets = Net(), Net()
    losses, noise = [], []
    for net, own in zip(nets, (False, True), strict=True):
        np.random.seed(3)
        found = []
        for batch in data(10):
            found.append(net.step(*batch).item())
            if own:
                GPU.xp.get_default_memory_pool().free_all_blocks()
                noise += [GPU.xp.full(size, 7.0, "float32") for size in (10, 640, 2048)]
                side = GPU.xp.cuda.Stream(non_blocking=True)
                with side:
                    noise.append(GPU.xp.full(2048, 7.0, "float32"))
                side.synchronize()
        losses.append(found)
    assert losses[0] == losses[1]
    assert all(bool((array == 7).all()) for array in noise)


def test_a_smaller_last_batch_is_eager_and_equals_eager_steps():
    results = []
    for kind in ("eager", "step"):
        net, losses = Net(), []
        for epoch in range(3):
            given = (*data(4, seed=epoch), *data(1, batch=3, seed=epoch))
            losses += [getattr(net, kind)(*batch).item() for batch in given]
        results.append(losses)
        if kind == "step":
            assert len(net.recordings()) == 2  # the third one of the small batches was recorded, too
    assert results[0] == results[1]


def test_a_resumed_run_captures_again_and_goes_on_bit_for_bit():
    whole = Net()
    losses = [whole.step(*batch).item() for batch in data(12)]
    first, given = Net(), [*data(12)]
    start = [first.step(*batch).item() for batch in given[:6]]
    saved = (first.model.state_dict(), first.optimizer.state_dict(), np.random.get_state())
    second = Net(seed=5)
    second.model.load_state_dict(saved[0])
    second.optimizer.load_state_dict(saved[1])
    np.random.set_state(saved[2])
    end = [second.step(*batch).item() for batch in given[6:]]
    assert start + end == losses
    assert len(second.recordings()) == 1


def test_loading_a_state_between_replays_is_noticed():
    nets = Net(dropout=0), Net(dropout=0)
    other = Net(seed=4).model.state_dict()
    results = []
    for net, kind in zip(nets, ("eager", "step"), strict=True):
        found = []
        for number, batch in enumerate(data(10)):
            if number == 5:
                net.model.load_state_dict(other)
            found.append(getattr(net, kind)(*batch).item())
        results.append(found)
    assert results[0] == results[1]


def test_replays_are_in_order_on_any_stream():
    results = []
    for kind in ("eager", "step"):
        net, found = Net(), []
        for number, batch in enumerate(data(9)):
            stream = GPU.xp.cuda.Stream(non_blocking=True)
            if number % 2:
                stream.wait_event(GPU.xp.cuda.Stream.null.record())
                with stream:
                    loss = getattr(net, kind)(*batch)
                    found.append(loss.item())
                GPU.xp.cuda.Stream.null.wait_event(stream.record())
            else:
                found.append(getattr(net, kind)(*batch).item())
        results.append(found)
    assert results[0] == results[1]


def test_batches_of_a_loader():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), "uint8")
    dataset = PixelDataset(pixels, np.arange(40) % 10)
    results = []
    for kind in ("eager", "step"):
        net, loader = Net(), DataLoader(dataset, 8, shuffle=True, seed=0, device=GPU)
        results.append([getattr(net, kind)(*batch).item() for _ in range(2) for batch in loader])
    assert results[0] == results[1]


# ---- what cannot be captured -----------------------------------------------------------------------------------------


def asks_for_a_value(net, x, labels):
    return net.eager(x, labels) if net.model(x).sum().item() < 1e9 else None


def uploads(net, x, labels):
    return net.eager(x + ndl.Tensor(np.ones((1, 8), "float32"), device=GPU), labels)


def waits(net, x, labels):
    GPU.xp.cuda.Device().synchronize()
    return net.eager(x, labels)


def draws(net, x, labels):
    return net.eager(x + ndl.randn(1, 8, device=GPU), labels)


def drops_as_a_layer(net, x, labels):
    return net.eager(net.layer(x), labels)


def asks_cupy(net, x, labels):
    GPU.xp.random.random_sample(3)
    return net.eager(x, labels)


REFUSED = {
    asks_for_a_value: "item: recorded work must be the same without Python, but got a value read on the host",
    uploads: "but got data of the host, which would be sent once",
    waits: "waits: recorded work must be the same without Python, but got what CUDA cannot record: ",
    draws: "random: recorded work must be the same without Python, but got numbers drawn on the host",
    drops_as_a_layer: "Dropout: recorded work must be the same without Python, but got draws of NumPy's stream",
    asks_cupy: "but got what CUDA cannot record: calling cuRAND API during stream capture",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_needs_the_host_warns_once_and_stays_eager(change):
    results = []
    for captures in (False, True):
        net = Net()

        def step(x, labels, net=net):
            return change(net, x, labels)

        run = ndl.capture(step) if captures else step
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append([run(*batch).item() for batch in data(6)])
        assert len(caught) == captures
    assert REFUSED[change] in str(caught[0].message)
    assert results[0] == results[1]
    assert recording() is None


def test_eager_work_goes_on_after_a_refusal():
    x = GPU.xp.ones(3, "float32")
    with pytest.raises(CannotRecord):
        GPU.record(lambda: GPU.to_host(x))
    x += 1
    assert GPU.to_host(x).tolist() == [2, 2, 2]


# ---- what a replay costs, on the null device -------------------------------------------------------------------------

counted = pytest.mark.skipif(null.library is None, reason="only the null device counts")


@counted
@pytest.mark.parametrize("name", ["lenet", "resnet9"])
def test_a_replay_is_one_graph_with_as_many_nodes_as_an_eager_step_has_launches(name):
    from tests.gpu.null.counts import counting

    eager, other = Training(NETWORKS[name].small(), GPU), Training(NETWORKS[name].small(), GPU)
    given = [*batches(eager, 6)]
    for batch in given[:3]:
        with_batch(eager)(*batch)
    with counting() as of_eager:
        with_batch(eager)(*given[3])
    step = ndl.capture(with_batch(other))
    for batch in given[:2]:
        step(*batch)
    with counting() as of_record:
        step(*given[2])
    assert of_record["escaped"] == of_record["refused"] == 0
    assert of_record.graph_launches == 1
    step(*given[3])
    with counting() as of_replay:
        step(*given[4])
    assert of_replay.graph_launches == 1
    assert (of_replay.uploads, of_replay.downloads, of_replay.waits, of_replay["malloc"]) == (0, 0, 0, 0)
    assert of_replay.launches <= 4  # the batch into its place, the cells, and the loss to memory of its own
    assert of_record.launches - of_replay.launches == of_eager.launches


@counted
def test_nothing_is_sent_but_the_batch():
    from tests.gpu.null.counts import counting

    pixels = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8), "uint8")
    net, loader = Net(), DataLoader(PixelDataset(pixels, np.arange(80) % 10), 8, device=GPU)
    given = iter(loader)
    for _ in range(5):
        net.step(*next(given))
    with counting() as counts:
        for _ in range(4):
            net.step(*next(given))
    assert (counts.uploads, counts.downloads, counts.graph_launches) == (4, 0, 4)


def free_memory():
    gc.collect()
    GPU.xp.get_default_memory_pool().free_all_blocks()
    return GPU.xp.cuda.runtime.memGetInfo()[0]


@counted
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_recording_that_is_gone_takes_no_memory(is_refused):
    """CuPy keeps the free memory of a pool that nobody has any more."""
    found, kept = [], []

    def function():
        ones = GPU.xp.ones(1 << 20, "float32")
        kept.append(ones[:2] + 1)
        if is_refused:
            GPU.to_host(ones)

    for _ in range(3):
        with suppress(CannotRecord):
            GPU.record(function).replay()
        found.append(free_memory())
    assert found[0] - found[2] < 1 << 20
    if not is_refused:
        assert [array.tolist() for array in kept] == [[2, 2]] * 3


@counted
@pytest.mark.parametrize("name", ["lenet", "cnn"])
def test_a_device_that_works_late_computes_the_same(name):
    """The null device then does nothing before somebody waits: an order that is missing shows."""
    net = NETWORKS[name].small()
    losses = []
    for late in (0, 1):
        null.library.null_late(late)
        try:
            training = Training(net, GPU)
            step = ndl.capture(with_batch(training))
            results = [step(*batch) for batch in batches(training, 8)]
            losses.append([loss.item() for loss in results])
        finally:
            null.library.null_late(0)
    assert losses[0] == losses[1]
