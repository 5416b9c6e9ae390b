"""The model of steps on several machines, and the program that measures what it needs."""

import pytest

from apps.benchmark import model, scaling
from apps.benchmark.model import Call, Link, Step, exchange_seconds, sent_bytes, step_seconds
from needle import tuning
from needle.distributed import mpi
from tests.apps.scripts import error_of
from tests.distributed.mpi.ranks import start

SLOW = Link(latency=1e-3, per_byte=1e-6)


def test_the_model_knows_the_limits_of_needle():
    assert tuning.MPI_WHOLE_BYTES == model.WHOLE
    assert model.OPENING == mpi.START


def test_small_sums_go_whole_to_all_and_large_ones_by_shares():
    assert sent_bytes(1000, 3) == 2 * (1000 + model.OPENING)
    assert sent_bytes(10**6, 4) == 1.5e6 + 3 * model.OPENING
    assert exchange_seconds(SLOW, 1000, 3) == pytest.approx(1e-3 + 2528e-6)
    assert exchange_seconds(SLOW, 10**6, 4) == pytest.approx(3e-3 + 1.500792)


def test_a_step_waits_for_sums_one_after_the_other():
    step = Step([Call(1000, True, 0.1), Call(1000, True, 0.9)], 0)
    sent = 2 * (1000 + model.OPENING)
    assert step_seconds(SLOW, step, 2, 0.5) == pytest.approx(0.5 + 2e-3 + sent * 1e-6)
    assert step_seconds(SLOW, step, 1, 0.5) == 0.5
    assert step_seconds(SLOW, Step([], 0), 2, 0.5) == 0.5


def test_sums_that_are_started_go_on_while_the_rank_computes():
    early, late, wire = Call(10**5, False, 0.5), Call(10**5, False, 0.9), 1e-6 * (10**5 + model.OPENING)
    alone = [step_seconds(SLOW, Step([call], 0.9), 2, 0.2) for call in (early, late)]
    assert alone == pytest.approx([0.2 + 3e-3 + wire - 0.08, 0.2 + 3e-3 + wire])
    both = step_seconds(SLOW, Step([early, late], 0.9), 2, 0.2)
    assert both == pytest.approx(0.2 + 3e-3 + 2 * wire - 0.08)
    assert step_seconds(SLOW, Step([early], 0.9), 2, 2) == 2
    behind = Step([early, Call(1000, True, 0.6)], 0.9)  # the link is busy for 80 ms more when the rank wants to sum
    small = exchange_seconds(SLOW, 1000, 2)
    assert step_seconds(SLOW, behind, 2, 0.2) == pytest.approx(0.2 + (wire - 0.02) + small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--machines", "0"], "--machines and --batches must be at least 1"),
        (["--batches", "4", "0"], "--machines and --batches must be at least 1"),
        (["--link", "0", "5"], "--link must be a finite rate greater than 0 and a finite time"),
        (["--link", "1", "nan"], "--link must be a finite rate greater than 0 and a finite time"),
        (["--nets", "alexnet"], "argument --nets: invalid choice: 'alexnet'"),
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
