"""`fit` and `evaluate` called by all ranks of a group: one run, which begins and ends alike on all of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, training
from needle.data import DataLoader, DigitsDataset, NDArrayDataset, Normalize, worker_batches
from needle.distributed import Alone, current_communicator, using
from needle.metrics import Accuracy, TopKAccuracy
from needle.training.exchanges import whole_batch, whole_count
from tests.distributed.threads import in_python, in_shared_memory, run_ranks
from tests.training.runs import Stops, bytes_of, repeatable
from tests.training.test_workers import ONE_BY_ONE, OPTIONS, Meddles, Rises, assert_same, batches, network, play


def played(ranks, engine=None, **options):
    """What `play` returns on each rank: (model, rows, optimizer)."""
    return run_ranks(ranks, lambda communicator: play(1, **options), engine)


def assert_alike(ranks):
    """Ranks end with the same weights, and the same rows."""
    for model, rows, optimizer in ranks[1:]:
        assert bytes_of(model) == bytes_of(ranks[0][0])
        assert rows == ranks[0][1]
        assert [group["lr"] for group in optimizer.param_groups] == [g["lr"] for g in ranks[0][2].param_groups]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_rows_and_weights_are_those_of_one_process(name, size):
    ranks = played(size, in_shared_memory if size == 2 else in_python, **OPTIONS[name])
    assert_alike(ranks)
    assert_same(ranks[0], play(1, **OPTIONS[name]))


def test_all_begin_with_the_state_of_rank_0():
    """Weights, moments of the optimizer, averages, schedule, and a loss's own weights."""

    def work(communicator):
        model, loss_fn = network(), nn.CrossEntropyLoss(weight=ndl.Tensor([1.0, 2.0, 3.0], dtype="float64"))
        shift = communicator if isinstance(communicator, int) else communicator.rank
        for parameter in model.parameters():
            parameter.data = ndl.Tensor(np.random.RandomState(parameter.size + shift).randn(*parameter.shape))
        loss_fn.weight.data = loss_fn.weight.data + shift
        optimizer = optim.Adam(model.parameters(), lr=0.01 * (1 + shift))
        ema = optim.ExponentialMovingAverage(model, 0.5)
        for _ in range(shift):
            optimizer.reset_grad()
            loss_fn(model(batches(8)[0][0]), batches(8)[0][1]).backward()
            optimizer.step()
            ema.update()
        options = {"epochs": 2, "validation": batches(5), "ema": ema, "bar": False}
        return model, training.fit(model, loss_fn, optimizer, batches(8), **options), optimizer

    ranks = run_ranks(2, work)
    assert_alike(ranks)
    assert_same(ranks[0], work(0))


class Notes:
    """A callback that notes its calls."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name in training_events:
            return lambda state: self.calls.append((name, state.epoch, state.batch, state.workers))
        raise AttributeError(name)


training_events = ("on_start", "on_epoch_start", "on_step", "on_epoch_end", "on_end", "on_exit")


def test_callbacks_and_files_are_rank_0s(tmp_path):
    """The others need no folder, and theirs are not touched."""
    notes = [Notes(), Notes()]
    folders = [tmp_path / "0", tmp_path / "1"]

    def work(communicator):
        rank = communicator.rank
        return play(1, callbacks=[notes[rank]], checkpoints=folders[rank], resume=bool(rank))

    ranks = run_ranks(2, work)
    assert_alike(ranks)
    assert notes[1].calls == []
    assert [call[0] for call in notes[0].calls if call[0] != "on_step"] == [
        "on_start", *["on_epoch_start", "on_epoch_end"] * 3, "on_end", "on_exit"
    ]  # fmt: skip
    assert {call[3] for call in notes[0].calls} == {2}
    assert sorted(path.name for path in folders[0].iterdir()) == ["best.npz", "last.npz"]
    assert not folders[1].exists()
    saved = ndl.load(folders[0] / "last.npz")
    assert saved["history"] == ranks[1][1]


@pytest.mark.parametrize("stop", [{"batches": 4}, {"epochs": 2}, "before"])
def test_a_stop_ends_all_after_the_step(stop):
    class Never:
        def on_start(self, state):
            state.stop("nothing to do")

    make = Never if stop == "before" else lambda: Stops(**stop)
    ranks = run_ranks(2, lambda communicator: play(1, callbacks=[make()] if communicator.rank == 0 else []))
    assert_alike(ranks)
    assert_same(ranks[0], play(1, callbacks=[make()]))


def test_what_callbacks_change_reaches_all():
    ranks = played(2, callbacks=[Meddles()])
    assert_alike(ranks)
    assert_same(ranks[0], play(1, callbacks=[Meddles()]))


def test_early_stopping_gives_all_the_best_weights():
    options = {"epochs": 12, "early_stopping": 2, "size": 22}
    ranks = run_ranks(2, lambda communicator: play(1, loss_fn=Rises(), **options))
    assert_alike(ranks)
    assert 2 < len(ranks[0][1]) < 12
    assert_same(ranks[0], play(1, loss_fn=Rises(), **options))


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(before, after, tmp_path):
    """From the middle of a group of batches, whose gradients wait."""
    options = {"size": 5, "accumulate": 3, "resume": True}
    whole = play(1, size=5, accumulate=3)

    def work(communicator, **more):
        folder = tmp_path / ("run" if communicator is None or communicator.rank == 0 else "none")
        return play(1, checkpoints=folder, **options, **more)

    for size, more in ((before, {"callbacks": [Stops(batches=7)]}), (after, {})):
        ranks = [work(None, **more)] if size == 1 else run_ranks(size, lambda rank, more=more: work(rank, **more))
    assert_alike(ranks)
    assert_same(ranks[0], whole)


class Fails:
    """A callback that fails after some batches."""

    def __init__(self, batches):
        self.batches = batches

    def on_step(self, state):
        self.batches -= 1
        if not self.batches:
            raise LookupError("no step")


GROUPS = {"size": 5, "accumulate": 3}  # batches of an epoch: 3 of a group, then 2


@pytest.mark.parametrize("is_stopped", [True, False])
@pytest.mark.parametrize("done", [1, 3, 4, 5, 7])
def test_a_run_goes_on_bit_for_bit(done, is_stopped, tmp_path):
    """Stopped, or from the last file of one that failed, also with gradients that wait on each rank."""
    expected = played(2, **GROUPS)[0]

    def work(communicator, **more):
        saver = training.Checkpoints(tmp_path, every=1) if communicator.rank == 0 else None
        return play(1, checkpoints=saver, resume=True, **GROUPS, **more)

    if is_stopped:
        run_ranks(2, lambda communicator: work(communicator, callbacks=[Stops(batches=done)]))
    else:
        with pytest.raises(LookupError):
            run_ranks(2, lambda communicator: work(communicator, callbacks=[Fails(done + 1)]))
    saved = ndl.load(tmp_path / "last.npz")
    assert 5 * len(saved["history"]) + saved["batch"] == done
    assert ("terms" in saved["stepper"]) == (saved["batch"] not in (0, 3))
    ranks = run_ranks(2, work)
    assert_alike(ranks)
    assert bytes_of(ranks[0][0]) == bytes_of(expected[0])
    assert repeatable(ranks[0][1]) == repeatable(expected[1])


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_evaluate_together(size):
    """With the weights of rank 0; one alone evaluates all."""

    def figures(communicator=None):
        with ONE_BY_ONE:
            ndl.seed(3)
            model = network()
        if communicator is not None and communicator.rank:
            model[4].bias.data = model[4].bias.data + 1
        metrics, graphs = {"accuracy": Accuracy()}, []

        def forward(model, batch):
            outputs = model(batch[0])
            graphs.append(outputs.requires_grad)
            return outputs, batch[1]

        together = training.evaluate(model, nn.CrossEntropyLoss(), batches(5), metrics, forward=forward)
        assert not any(graphs)
        with using(Alone()):
            alone = training.evaluate(model, nn.CrossEntropyLoss(), batches(5), metrics)
        return together, alone

    ranks, (expected, _) = run_ranks(size, figures), figures()
    for together, alone in ranks:
        assert together == ranks[0][0]
        assert together == pytest.approx(expected, rel=1e-12)
        assert alone == expected


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_no_number_is_the_same_error_on_all(rank, tmp_path):
    """Before the step: weights and checkpoint stay as they are."""
    images, labels = batches(8)[1]
    images = images.numpy()
    images[3 + rank] = np.nan  # the last item of rank 0, or the first of rank 1
    bad = [batches(8)[0], (ndl.Tensor(images, requires_grad=False), labels)]

    def work(communicator):
        model = network()
        folder = tmp_path if communicator.rank == 0 else None
        with pytest.raises(training.NonFiniteLoss, match="got nan in batch 2 of epoch 1") as caught:
            training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), bad, epochs=1, checkpoints=folder)
        return str(caught.value), bytes_of(model)

    ranks = run_ranks(2, work)
    assert ranks[0] == ranks[1]
    assert ndl.load(tmp_path / "last.npz")["batch"] == 0


def test_an_error_of_a_callback_ends_all():
    with pytest.raises(LookupError, match="no step"):
        run_ranks(2, lambda communicator: play(1, callbacks=[Fails(2)]))


def gradient_bytes(communicator):
    """The bytes of all large sums."""
    sums = [(np.prod(shape), dtype) for kind, shape, dtype in communicator.calls if kind == "all_reduce"]
    return sum(size * dtype.itemsize for size, dtype in sums if size > 100)


def test_gradients_of_a_group_cross_once():
    """11 batches of two items in groups of four, the last of three. Outputs, which nobody sees, are not gathered."""

    def work(accumulate):
        def train(communicator):
            play(1, size=2, epochs=1, accumulate=accumulate, metrics=None, validation=None)
            gathered = [(shape, dtype) for kind, shape, dtype in communicator.calls if kind == "all_gather"]
            assert not [shape for shape, dtype in gathered if dtype == "uint8" and len(shape) > 1]
            return gradient_bytes(communicator)

        return run_ranks(2, train, in_python)

    once = sum(parameter.size for parameter in network().parameters()) * 8
    for accumulate, exchanges in ((1, 11), (4, 3)):
        for sent in work(accumulate):
            assert exchanges * once <= sent < exchanges * 1.1 * once


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_may_travel_in_16_bits(accumulate):
    """Ranks stay alike, near to what they are without; one process rounds nothing."""
    exact = play(1, accumulate=accumulate)
    ranks = played(2, accumulate=accumulate, compression="bfloat16")
    assert_alike(ranks)
    with pytest.raises(AssertionError):
        assert_same(ranks[0], exact, 1e-5)
    assert_same(ranks[0], exact, 0.2)
    assert bytes_of(play(1, accumulate=accumulate, compression="bfloat16")[0]) == bytes_of(exact[0])


class Saves:
    """A callback that writes the state after each step."""

    def __init__(self, path):
        self.path = path

    def on_step(self, state):
        state.save(self.path)


def differ(**arguments):
    """Two ranks of which the second one has other arguments."""

    def work(communicator):
        options = arguments if communicator.rank else {}
        return play(1, **{"accumulate": 1} | options)

    return run_ranks(2, work, in_python)


def other_batches(**options):
    """Two ranks, the second of which makes other batches of the digits, as many."""

    def work(communicator):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        loader = DataLoader(DigitsDataset(train=False), **{"batch_size": 64} | (options if communicator.rank else {}))
        training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), loader, epochs=1)

    return run_ranks(2, work, in_python)


def evaluated(is_fit=False, **other):
    """Two ranks, the second of which evaluates, or trains, with other parts."""

    def work(communicator):
        parts = {"model": network, "loss_fn": nn.CrossEntropyLoss(), "loader": digits, "metrics": {"top": Accuracy()}}
        parts = parts | {"forward": by_digits} | (other if communicator.rank else {})
        model, loss_fn, loader = (parts.pop(name) for name in ("model", "loss_fn", "loader"))
        model = model()
        if is_fit:
            training.fit(model, loss_fn, optim.SGD(model.parameters()), loader(), epochs=1, **parts)
        else:
            training.evaluate(model, loss_fn, loader(), **parts)

    return run_ranks(2, work, in_python)


def digits(count=20, size=8, **options):
    dataset = NDArrayDataset(np.ones((count, 2, 6, 6), "float32"), np.zeros(count, int))
    return DataLoader(dataset, size, **options)


def by_digits(model, batch):
    return model(batch[0].astype("float64")), batch[1]


OTHERS = {
    "loss_fn": [nn.CrossEntropyLoss(weight=ndl.ones(3)), nn.MultiMarginLoss(), nn.functional.cross_entropy],
    "model": [lambda: nn.Sequential(*network().modules[:-1], nn.Dropout(0.9), network().modules[-1])],
    "metrics": [{"top": TopKAccuracy(2)}, {"accuracy": Accuracy()}, None],
    "forward": [lambda model, batch: by_digits(model, batch)],
    "loader": [lambda: digits(24), lambda: digits(22), lambda: digits(size=7), lambda: digits(drop_last=True),
               lambda: digits(transforms=[Normalize([0.5] * 2, [2] * 2)]), lambda: [*digits()]],
}  # fmt: skip


@pytest.mark.parametrize("is_fit", [False, True])
@pytest.mark.parametrize(("name", "other"), [(name, other) for name, others in OTHERS.items() for other in others])
def test_parts_that_ranks_have_made_otherwise_are_an_error(name, other, is_fit):
    with pytest.raises(ValueError, match=r"(all ranks must have the same|agree in length)"):
        evaluated(is_fit, **{name: other})


class Deck(list):
    """A loader whose attributes are named like those of a DataLoader."""

    def shuffle(self):
        pass


def test_what_loaders_of_others_call_batch_size_or_shuffle_may_be_anything():
    def work(communicator):
        loader = Deck(digits())
        loader.batch_size, loader.drop_last = np.arange(2 + communicator.rank), lambda: True
        options = {"validation": loader, "forward": by_digits, "epochs": 1}
        return training.fit(model := network(), nn.CrossEntropyLoss(), optim.SGD(model.parameters()), loader, **options)

    run_ranks(2, work)


def test_callbacks_may_read_loaders_with_seeds():
    """They draw from generators of the loaders, which no other rank does."""

    def work(communicator=None):
        training_loader, held_out = digits(shuffle=True, seed=3), digits(shuffle=True, seed=4)

        class Reads:
            def on_epoch_start(self, state):
                next(iter(training_loader))

            def on_epoch_end(self, state):
                training.evaluate(model, nn.CrossEntropyLoss(), training_loader, forward=by_digits)
                next(iter(held_out))

        with ONE_BY_ONE:
            ndl.seed(0)
            model = network()
        optimizer, callbacks = optim.SGD(model.parameters()), [] if communicator and communicator.rank else [Reads()]
        options = {"epochs": 3, "forward": by_digits, "callbacks": callbacks, "validation": held_out}
        return model, training.fit(model, nn.CrossEntropyLoss(), optimizer, training_loader, **options), optimizer

    ranks = run_ranks(2, work)
    assert_alike(ranks)
    assert_same(ranks[0], work())


def test_what_is_noted_on_a_module_may_differ():
    def work(communicator):
        model = network()
        model.folder, model[0].note = f"runs/{communicator.rank}", communicator.rank
        return training.evaluate(model, nn.CrossEntropyLoss(), digits(), forward=by_digits)

    first, second = run_ranks(2, work)
    assert first == second


def test_a_rank_with_fewer_batches_is_told():
    """Of iterators, whose lengths nobody knows: those who wait say where they are."""

    def work(communicator):
        model = network()
        batches = (batch for batch in [*digits()][: 3 - communicator.rank])
        training.fit(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), batches, epochs=1, forward=by_digits)

    with pytest.raises(RuntimeError, match="all ranks must make the same calls") as caught:
        run_ranks(2, work, in_shared_memory)
    hint, note = caught.value.__notes__
    assert "all ranks must call them" in hint
    assert note.startswith("This rank had done 2 batches of epoch 1;")


def rank_0_alone(call):
    """Two ranks that train; the first calls something before, by itself."""

    def work(communicator):
        if communicator.rank == 0:
            call()
        play(1)

    return run_ranks(2, work)


def only_rank_0_evaluates():
    training.evaluate(network(), nn.CrossEntropyLoss(), batches(5))


def test_what_one_rank_calls_alone_has_a_hint():
    with pytest.raises(RuntimeError) as caught:
        rank_0_alone(only_rank_0_evaluates)
    (hint,) = caught.value.__notes__
    assert hint == (
        "fit, evaluate, worker_batches, SharedGradients and Shard exchange, so all ranks must call them. What one does "
        "alone, as below `if communicator.rank == 0:`, belongs into `with using(Alone()):`."
    )

    def work():
        with using(Alone()):
            only_rank_0_evaluates()

    rank_0_alone(work)


def step_lr(optimizer):
    return optim.lr_scheduler.StepLR(optimizer, 2)


SETTINGS = {
    "epochs": {"epochs": 4}, "accumulate": {"accumulate": 2}, "clip_norm": {"clip_norm": 1.0},
    "clip_value": {"clip_value": 1.0}, "compression": {"compression": "float16"}, "ema": {"ema": 0.5},
    "scheduler": {"make_scheduler": step_lr}, "schedule_by": {"make_scheduler": step_lr, "schedule_by": "step"},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_differ_between_ranks_are_an_error(name):
    with pytest.raises(ValueError, match=f"^fit: all ranks must have the same {name}, but rank 1 has "):
        differ(**SETTINGS[name])


ERRORS = [
    (lambda: other_batches(batch_size=65), ValueError,
     "fit: all ranks must have the same batch_size, but rank 1 has 65, and rank 0 has 64"),
    (lambda: other_batches(shuffle=True), ValueError,
     "fit: all ranks must have the same shuffle, but rank 1 has True, and rank 0 has False"),
    (lambda: differ(metrics=None), ValueError,
     "fit: all ranks must have the same metrics, but rank 1 has [], and rank 0 has ['accuracy']"),
    (lambda: evaluated(loss_fn=nn.CrossEntropyLoss(label_smoothing=0.5)), ValueError,
     re.compile(r"evaluate: all ranks must have the same loss_fn, but rank 1 has CrossEntropyLoss\(reduction='mean', "
                r"weight=None, ignore_index=-100, label_smoothing=0.5\), and rank 0 has .*, label_smoothing=0.0\)")),
    (lambda: differ(size=11), ValueError,
     "fit: all ranks must have the same batches, but rank 1 has 2, and rank 0 has 3"),
    (lambda: run_ranks(2, lambda communicator: play(1, accumulate=2, callbacks=[Saves("never.npz")])), RuntimeError,
     ("Stepper: the state of several ranks must be taken after a group of batches, or where Checkpoints writes it, but "
      "got it after 1 of 2 batches")),
    (lambda: play(1, compression="int8"), ValueError,
     "SharedGradients: compression must be one of 'float16', 'bfloat16', but got 'int8'"),
    (lambda: run_ranks(2, lambda communicator: training.evaluate(
        network(), nn.CrossEntropyLoss(reduction="sum"), batches(5))), ValueError,
     "evaluate: loss_fn must be a mean over items for several processes, but got reduction 'sum'"),
    (lambda: rank_0_alone(only_rank_0_evaluates), RuntimeError,
     re.compile("(evaluate|fit): all ranks must make the same calls, but rank 0 calls evaluate, and rank 1 calls fit")),
    (lambda: rank_0_alone(lambda: next(worker_batches([]), None)), RuntimeError,
     re.compile(".*: all ranks must make the same calls, but rank 0 calls worker_batches, and rank 1 calls fit")),
    (lambda: rank_0_alone(lambda: current_communicator().all_gather_object(None)), RuntimeError,
     "fit: all ranks must make the same calls, but rank 0 calls all_gather_object, and rank 1 calls fit"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_what_ranks_must_agree_on(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert re.fullmatch(message if isinstance(message, re.Pattern) else re.escape(message), str(caught.value))


def test_rows_tell_the_time_of_rank_0():
    ranks = played(2, epochs=1)
    assert ranks[0][1] == ranks[1][1]
    assert repeatable(ranks[0][1]) != ranks[0][1]


# ---- what the metrics see --------------------------------------------------------------------------------------------


def whole_fields(items, width):
    """Outputs and targets of a batch, with values that only an exact copy keeps, in several orders of memory."""
    stream = np.random.RandomState(items)
    outputs = stream.randn(width, items).astype("float32").T
    outputs[0, 0], outputs[-1, -1], outputs[items // 2, 0] = -0.0, np.nan, np.inf
    targets = stream.randint(2**60, 2**62, (items,))
    halves = stream.randn(2 * items, 3).astype("float16")
    return {"logits": outputs, "rest": [np.empty((items, 0)), halves]}, (targets, outputs[:, :1] > 0)


@pytest.mark.parametrize(("size", "engine"), [(2, in_python), (3, in_python), (3, in_shared_memory)])
@pytest.mark.parametrize(("items", "width"), [(7, 5), (7, 50000)])
def test_metrics_see_the_bits_of_the_whole_batch(size, engine, items, width):
    """Each byte is sent once."""
    outputs, (targets, masks) = whole_fields(items, width)

    def work(communicator):
        communicator.part = part = communicator.part_of(items)
        assert whole_count(2 * part.items) == 2 * items  # such as words of sentences
        own = slice(part.start, part.stop)
        mine = {"logits": ndl.Tensor(outputs["logits"][own]), "rest": [outputs["rest"][0][own], None]}
        mine["rest"][1] = outputs["rest"][1][2 * part.start : 2 * part.stop]
        return whole_batch(mine, (ndl.Tensor(targets[own]), masks[own]), True), getattr(communicator, "calls", None)

    for (seen, labels, count), calls in run_ranks(size, work, engine):
        assert count == items
        assert isinstance(seen["logits"], ndl.Tensor)
        found = [seen["logits"].numpy(), *seen["rest"], labels[0].numpy(), labels[1]]
        for one, other in zip(found, [outputs["logits"], *outputs["rest"], targets, masks], strict=True):
            assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
        if engine is in_python:
            assert calls == [("all_gather", (0, width * 4 + 12 + 8 + 1), np.uint8)]  # rows for this rank's items


def test_ranks_start_no_workers():
    """The best number of workers is 1 there, and the ranks are told as the number of the run."""
    counts = []

    class Counts:
        def on_start(self, state):
            counts.append(state.workers)

    one, two = run_ranks(2, lambda communicator: play("auto", epochs=1, callbacks=[Counts()]))
    assert bytes_of(one[0]) == bytes_of(two[0])
    assert counts == [2]
