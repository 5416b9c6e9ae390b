"""The model of steps on several machines, and the program that measures what it needs."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from apps.benchmark import model, scaling
from apps.benchmark.model import Call, Link, Step, exchange_seconds, sent_bytes, step_seconds
from needle import tuning
from needle.distributed import mpi
from tests.apps.scripts import error_of
from tests.distributed.mpi.ranks import start

SLOW = Link(latency=1e-3, per_byte=1e-6)


def test_the_model_knows_the_limits_of_needle():
    assert (tuning.MPI_WHOLE_BYTES, tuning.MPI_PAIR_BYTES) == (model.WHOLE, model.PAIR)
    assert model.OPENING == mpi.START


def test_small_sums_go_whole_to_all_and_large_ones_by_shares():
    assert sent_bytes(1000, 3) == 2 * (1000 + model.OPENING)
    assert sent_bytes(10**6, 4) == 1.5e6 + 3 * model.OPENING
    assert exchange_seconds(SLOW, 1000, 3) == pytest.approx(1e-3 + 2528e-6)
    assert exchange_seconds(SLOW, 10**6, 4) == pytest.approx(3e-3 + 1.500792)
    assert exchange_seconds(SLOW, 1 << 15, 3) == pytest.approx(1e-3 + (65536 + 528) * 1e-6)  # the largest of them
    assert exchange_seconds(SLOW, 1 << 18, 2) == pytest.approx(1e-3 + (262144 + 264) * 1e-6)  # and of two ranks
    assert exchange_seconds(SLOW, (1 << 18) + 1, 2) == pytest.approx(3e-3 + (262145 + 264) * 1e-6)
    assert exchange_seconds(SLOW, (1 << 15) + 3, 3) == pytest.approx(3e-3 + (43694.6667 + 528) * 1e-6)


def test_a_step_waits_for_sums_one_after_the_other():
    step = Step([Call(1000, True, 0.1), Call(1000, True, 0.9)], 0)
    sent = 2 * (1000 + model.OPENING)
    assert step_seconds(SLOW, step, 2, 0.5) == pytest.approx(0.5 + 2e-3 + sent * 1e-6)
    assert step_seconds(SLOW, step, 1, 0.5) == 0.5
    assert step_seconds(SLOW, Step([], 0), 2, 0.5) == 0.5


def test_sums_that_are_started_go_on_while_the_rank_computes():
    size = 3 * 10**5
    early, late, wire = Call(size, False, 0.5), Call(size, False, 0.9), 1e-6 * (size + model.OPENING)
    alone = [step_seconds(SLOW, Step([call], 0.9), 2, 0.2) for call in (early, late)]
    assert alone == pytest.approx([0.2 + 3e-3 + wire - 0.08, 0.2 + 3e-3 + wire])
    both = step_seconds(SLOW, Step([early, late], 0.9), 2, 0.2)
    assert both == pytest.approx(0.2 + 3e-3 + 2 * wire - 0.08)
    assert step_seconds(SLOW, Step([early], 0.9), 2, 2) == 2
    small = Step([early, Call(1000, False, 0.9)], 0.9)  # of which the last shows one latency
    assert step_seconds(SLOW, small, 2, 0.2) == pytest.approx(0.2 + 0.22 + 1e-3 + 1264e-6 + 264e-6)
    delayed = Step([Call(1000, True, 0.1), early], 0.9)  # all that follows comes later by the first exchange
    assert step_seconds(SLOW, delayed, 2, 0.2) == pytest.approx(alone[0] + 1e-3 + 1264e-6)
    behind = Step([early, Call(1000, True, 0.6)], 0.9)  # the link is busy for 280 ms more when the rank wants to sum
    small = exchange_seconds(SLOW, 1000, 2)
    assert step_seconds(SLOW, behind, 2, 0.2) == pytest.approx(0.2 + (wire - 0.02) + small)


def test_the_link_is_what_three_sums_tell(monkeypatch):
    """Ten of 4 bytes, and one of each of two sizes, whose bytes on the wire differ by 4/3 of 1835008."""
    sums, times = [], [[0.03, 0.01, 0.02], [2e-3] * 3, [9e-3] * 3]
    monkeypatch.setattr(scaling, "turns", lambda ranks, *runs: [times[i] for i, run in enumerate(runs) if not run()])
    ranks = SimpleNamespace(size=3, all_reduce=lambda array: sums.append(array.nbytes))
    link = scaling.measured_link(ranks)
    assert sums == [4] * 10 + [1 << 18, 1 << 21]
    assert link.latency == 2e-3
    assert link.per_byte == pytest.approx(7e-3 / (4 / 3 * 1835008))
    links = scaling.named(Link(25e-6, 0.8e-9), [[1, 50]])
    assert list(links) == ["the link here, 10 Gbit/s, 25 µs", "1 Gbit/s, 50 µs"]
    assert (links["1 Gbit/s, 50 µs"].latency, links["1 Gbit/s, 50 µs"].per_byte) == pytest.approx((50e-6, 8e-9))


class Clock:
    """A time of which each look takes a second."""

    def __init__(self):
        self.perf_counter = count().__next__


def test_runs_take_turns_and_the_first_round_does_not_count(monkeypatch):
    calls = []
    monkeypatch.setattr(scaling, "time", Clock())
    monkeypatch.setattr(scaling, "SECONDS", 17.5)  # for 7 rounds of two runs: a round takes 5 looks
    ranks = scaling.Unheard(2)
    times = scaling.turns(ranks, lambda: calls.append("a"), lambda: calls.append("b"))
    assert calls == ["a", "b"] * 8
    assert times == [[1] * 7] * 2


def test_a_step_notes_its_sums_and_the_first_wait(monkeypatch):
    monkeypatch.setattr(scaling, "time", Clock())
    recorded = scaling.Recorded(scaling.Unheard(3))
    recorded.begin()  # at 1
    array = np.ones(5)
    recorded.all_reduce(array)
    requests = [recorded.start_all_reduce(np.ones(3)) for _ in range(2)]
    assert len(recorded.all_gather(np.ones(1))) == 3
    for request in requests:
        request.wait()
    step = recorded.end()  # at 7
    calls = [Call(40, True, 1 / 6), Call(24, False, 2 / 6), Call(24, False, 3 / 6), Call(8, True, 4 / 6)]
    assert step == Step(calls, 5 / 6)


def test_tables_tell_gains_and_shares():
    """Of two machines that compute for 1 s and exchange for 0.25 s what takes one machine 2 s."""
    computed, steps = {1: [2.0] * 3, 2: [1.0] * 3}, {2: Step([Call(4, True, 0)], 0)}
    study = SimpleNamespace(gradient_bytes=5e6, computed=computed, measured=[1.25] * 3, steps=steps)
    study.predicted = lambda link, machines: scaling.Study.predicted(study, link, machines)
    links = {"a": Link(0.25, 0), "b": Link(1, 0)}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in scaling.text(2, links, {"net, 8": study}, [2, 4]).splitlines()
        if line.startswith("| net")
    ]
    assert [row for row in rows if row[0] == "net, 8"] == [
        ["net, 8", "5.00 MB", "1, 1", "1.25 s", "1.60 (1.60 to 1.60)", "20%", "1.00 (1.00 to 1.00)"],
        ["net, 8", "2.00 s", "1.25 s, 1.60, 20%"],
        ["net, 8", "2.00 s", "2.00 s, 1.00, 50%"],
    ]


def test_every_rank_has_an_item():
    with pytest.raises(ValueError, match="scaling: a batch must have an item for each of the 3 ranks, but it has 2"):
        scaling.Study(scaling.Unheard(3), "blocks", 2, [2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--machines", "0"], "--machines and --batches must be at least 1"),
        (["--batches", "4", "0"], "--machines and --batches must be at least 1"),
        (["--link", "0", "5"], "--link must be a finite rate greater than 0 and a finite time"),
        (["--link", "1", "nan"], "--link must be a finite rate greater than 0 and a finite time"),
        (["--nets", "alexnet"], "argument --nets: invalid choice: 'alexnet'"),
        ([], "scaling: ranks must be at least two, as mpiexec -n 2 starts them, but there is one"),
    ],
)
def test_impossible_options_are_refused(arguments, message, capsys):
    assert message in error_of(scaling, capsys, *arguments)[-1]


def test_two_ranks_measure_and_predict():
    arguments = "--nets blocks --batches 4 --machines 2 4 8 --link 1 100"
    with start(2, ["python", "-m", "apps.benchmark.scaling", *arguments.split()]) as started:
        assert started.wait() == 0, started.errors
        tables = started.output.split("\n\n")
    assert len(tables) == 6
    assert tables[0] == "2 machines, measured"
    row = [cell.strip() for cell in tables[1].splitlines()[-1].split("|")]
    assert row[1:4] == ["blocks, 4", "0.08 MB", "6, 5"]  # two for each batch norm, one for ignored classes
    assert tables[4].startswith("Predicted with 1 Gbit/s, 100 µs")
    row = [cell.strip() for cell in tables[5].splitlines()[-1].split("|")]
    assert len(row) == 6  # 4 items are too few for 8 machines
