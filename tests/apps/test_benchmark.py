"""The benchmark: it runs, times only equal work, and reports what it measured."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import needle as ndl
from apps.benchmark import __main__ as program
from apps.benchmark import cases, conv_algorithms, measure, report, worker
from apps.benchmark.cases import (
    ALONE,
    APART,
    CAPTURED,
    CASES,
    MPI,
    MPI_PLAN,
    NETS,
    WORKERS,
    conv,
    conv_transpose,
    linear,
    pool,
    steps,
)
from apps.benchmark.libraries.needle import Needle
from apps.benchmark.libraries.torch import BatchedTorch, Torch
from tests.apps.scripts import error_of
from tests.distributed.mpi.ranks import launcher
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PLACE = "before\n<!-- table: filled by a script -->\nold\n<!-- end -->\nafter\n"


def run(out, *arguments, path=(), **variables):
    """The output of the benchmark with tiny sizes."""
    environment = {name: value for name, value in os.environ.items() if name not in measure.PINS} | variables
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*path, ROOT)))
    command = [sys.executable, "-m", "apps.benchmark", "--smoke", "--out", out, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_it_times_all_libraries_and_writes_the_report_that_it_prints(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text(PLACE, "utf-8")
    names = ["conv1d", "overhead", "loops", "growth"]
    text = run(tmp_path / "out", "--cases", *names, "--write", document, "--cpu-time")
    assert "medians of 2 rounds, CPU time" in text
    assert text == (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert document.read_text("utf-8") == PLACE.replace("old\n", text)
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert set(record) == {"machine", "clock", "rounds", "smoke", "runs"}
    (one,) = record["runs"]
    assert set(one) == {"threads", "busy", "rivals", "missing", "rows", "memory"}
    assert (one["threads"], one["busy"], one["missing"]) == (1, False, [])
    for name, about in one["rivals"].items():
        assert f"- {name}: {about}\n" in text
    assert [(row["case"], row["row"]) for row in one["rows"]] == [(case, row) for case in names for row in CASES[case]]
    for row in one["rows"]:
        assert set(row) == {"case", "row", "products", "seconds", "ratios"}
        assert set(row["seconds"]) == {"needle", "torch", *["loops"] * (row["case"] == "loops")}
        assert all(len(turns) == 2 and min(turns) > 0 for turns in row["seconds"].values())
        assert set(row["ratios"]["needle / torch"]) == {"median", "low", "high"}
        assert row["row"] in text
    for peaks in one["memory"].values():
        assert 2**24 < peaks["needle"] < peaks["torch"] < 2**32
    earlier = tmp_path / "out" / "benchmark.json"
    assert program.main(["--read", str(earlier), "--out", str(tmp_path / "again")]) == text


def test_without_torch_it_times_needle_alone_pinned_and_native(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')", "utf-8")
    arguments = ("--cases", "conv1d", "--rivals", "mygrad", "--threads", 1, 2)
    text = run(tmp_path / "out", *arguments, path=[tmp_path], OPENBLAS_CORETYPE="Haswell")
    assert "OPENBLAS_CORETYPE=Haswell" in text
    one, two = text.split("### Threads")[1:]
    assert "- torch: not installed\n" in one
    assert "- torch: not installed\n" in two
    assert re.search(r"\|  +\| needle \(pinned\) \| needle \(native\) \|\n", one)
    names = r" \| ".join(
        map(re.escape, ["needle, threads (pinned)", "needle, threads (native)", WORKERS, ALONE, APART])
    )
    assert re.search(rf"\|  +\| {names} \|\n", two)
    assert "2 workers" in two
    (entry,) = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))["runs"][1]["rows"]
    assert 0 < entry["exchanges"][WORKERS] < 1
    assert f"{entry['exchanges'][WORKERS]:.1%}" in two


@pytest.mark.skipif(ndl.cuda().enabled(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(tmp_path, "--device", "cuda", "--cases", "lenet")
    assert caught.value.stderr.startswith(f"benchmark: {ndl.cuda().problem()}\n")


def test_on_a_gpu_steps_are_timed_in_bursts():
    class Late(SimpleNamespace):
        burst, exchanged = 5, 0.0
        times = iter(range(100))

        def wait(self):
            self.waited.append(len(self.runs))

    lib = Late(runs=[], waited=[])
    row = worker.Row.__new__(worker.Row)
    row.lib, row.run, row.clock, row.spent, row.exchanged = lib, lambda: lib.runs.append(0), lib.times.__next__, 0, 0
    assert row.median_time(2, 3) == 1 / 5
    assert lib.waited == [2, 7, 12, 17]


@pytest.mark.slow
def test_several_processes_of_one_library_compute_the_same_together(tmp_path):
    mpiexec, _ = launcher()
    text = run(
        tmp_path / "out", "--cases", "lenet", "--threads", 2, "--rivals", "torch-ddp", "--captured", "--mpi",
        shlex.join(mpiexec),
    )  # fmt: skip
    assert "2 workers" in text
    assert re.search(r"- needle, MPI: .*, 2 ranks of .*MPI", text)
    assert re.search(r"- needle, MPI, captured: .*, 2 ranks of .*MPI.*, steps captured", text)
    assert "gloo, 2 processes" in text
    (one,) = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))["runs"]
    for row in one["rows"]:
        divided = {WORKERS, MPI, MPI_PLAN, APART, "torch-ddp"}
        assert set(row["seconds"]) == {"needle, threads", CAPTURED, ALONE, "torch", *divided}
        ratios = {"needle / torch", "needle / torch-ddp", f"{MPI} / {WORKERS}", f"{MPI} / torch-ddp"}
        ratios |= {f"{CAPTURED} / needle, threads", f"{MPI_PLAN} / {MPI}", f"{MPI_PLAN} / torch-ddp"}
        assert set(row["ratios"]) == ratios
        for name in (WORKERS, MPI, MPI_PLAN):
            assert 0 < row["exchanges"][name] < 1
            assert f"{row['exchanges'][name]:.1%}" in text
    assert one["memory"]["lenet"][WORKERS] > 1.5 * one["memory"]["lenet"]["needle, threads"]


def test_beside_a_busy_process_everything_is_measured_again(tmp_path, capfd, monkeypatch):
    code, busy = "import time; print('busy', flush=True); time.sleep(600)", []

    def cases_beside(cases, threads, options, run):
        said = []
        wait_until(lambda: said.append(capfd.readouterr().out) or "".join(said) == "busy\n" * run["busy"])
        busy.append(run["busy"])

    monkeypatch.setattr(measure, "BUSY", code)
    monkeypatch.setattr(program, "run_cases", cases_beside)
    text = program.main(["--cases", "lenet", "--busy", "--out", str(tmp_path)])
    assert busy == [False, True]
    assert "### Threads: 1\n" in text
    assert "### Threads: 1, beside a busy process\n" in text


def test_an_import_is_timed_in_fresh_processes(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.05)", "utf-8")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name", "utf-8")
    options, environment = SimpleNamespace(clock="perf_counter"), os.environ | {"PYTHONPATH": str(tmp_path)}
    importer = measure.Importer("slow", options, environment)
    importer.start()
    assert importer.about == "import slow"
    assert all(0.05 < importer.ask("import", "import", 1, 1) < 60 for _ in range(2))
    missing = measure.Importer("nothing_of_this_name", options, environment)
    missing.start()
    assert missing.about is None
    with pytest.raises(SystemExit, match=r"^benchmark: import broken fails:\n(.*\n)*ModuleNotFoundError"):
        measure.Importer("broken", options, environment).start()


# ---- the proof -------------------------------------------------------------------------------------------------------


class Same:
    """A library that computes 1, or something else in the last run."""

    def __init__(self, value=1.0):
        self.value = value

    def ask(self, case, row, first, count):
        return [[1.0, 1.0]] * (first - 1) + [[1.0, self.value]]


@pytest.mark.parametrize("name", ["needle", "torch", "loops"])
@pytest.mark.parametrize("value", [1.001, float("nan")])
def test_different_work_is_not_timed(name, value):
    rivals = {"needle": Same(), "torch": Same(), "loops": Same()}
    measure.prove(rivals, "lenet", "training step", 5)
    with pytest.raises(SystemExit, match=r"lenet, training step of \w+ is off by"):
        measure.prove(rivals | {name: Same(value)}, "lenet", "training step", 5)


class Altered(Needle):
    """needle with a learning rate that is 0.1 % too high."""

    def optimizer(self, name, parameters, options):
        return super().optimizer(name, parameters, options | {"lr": options["lr"] * 1.001})


@pytest.mark.parametrize("name", ["lenet", "resnet9", "autoencoder"])
def test_the_losses_show_a_small_difference(name):
    net = NETS[name].small()
    libraries = (Needle, Torch, Altered)
    work = [worker.training(library(), cases.Training(net)) for library in libraries]
    needle, others, altered = ([step() for _ in range(3)] for step in work)
    assert needle == pytest.approx(others, rel=measure.TOLERANCE)
    assert needle[0] == altered[0]
    assert needle[-1] != altered[-1]
    assert abs(needle[-1] - needle[0]) > 1e-4 * needle[0]  # the steps move it by more than the tolerance


def test_a_gradient_of_another_layer_is_refused():
    work = CASES["ops"]["lenet: conv 16→32 3×3 on 14×14, weight gradient"].small()
    other = replace(work, net=replace(work.net, layers=(replace(work.net.layers[0], padding=0),)))
    rivals = {}
    for name, lib, task in (("needle", Needle(), other), ("torch", Torch(), work)):
        fingerprints = [worker.fingerprint(lib, worker.single(lib, task)())]
        rivals[name] = SimpleNamespace(ask=lambda *request, answer=fingerprints: answer)
    with pytest.raises(SystemExit, match="needle is off by"):
        measure.prove(rivals, "ops", "weight gradient", 1)


@pytest.mark.parametrize("row", [row for row, work in CASES["loader"].items() if isinstance(work, cases.Loading)])
def test_loaders_give_the_same_batches(row):
    work = CASES["loader"][row].small()
    needle, *others = (worker.loading(library(), work)() for library in (Needle, Torch, BatchedTorch))
    assert needle[0].shape == (4, *work.shape)
    for other in others:
        for field, expected in zip(needle, other, strict=True):
            np.testing.assert_allclose(field.numpy(), expected.numpy(), atol=2e-5)


# ---- times -----------------------------------------------------------------------------------------------------------


class Recorded:
    """A library with the listed times for its turns; `calls` records each request with its numbers of runs."""

    def __init__(self, name, times, calls):
        self.name, self.times, self.calls = name, iter(times), calls

    def ask(self, case, row, first, count):
        self.calls.append((self.name, first, count))
        return next(self.times)


def test_the_rivals_take_turns_and_warm_up():
    calls = []
    rivals = {name: Recorded(name, [0.1, 2, 3], calls) for name in ("a", "b")}
    assert measure.measure(rivals, "case", "row", 2, 0.6, 3) == {"a": [2, 3], "b": [2, 3]}
    assert calls == [("a", 1, 3), ("b", 1, 3), *[("a", 3, 6), ("b", 3, 6)] * 2]


def test_the_time_of_a_turn_is_the_median_after_the_warm_up():
    def run():
        calls.append(1)
        lib.exchanged += 0.5 if len(calls) > 1 else 7

    ticks, calls, lib = (
        iter(np.cumsum([0, 3, 0, 1, 0, 2])),
        [],
        SimpleNamespace(exchanged=0.0, burst=1, wait=lambda: None),
    )
    row = worker.Row(Needle(), "overhead", "an op forward", True, lambda: next(ticks))
    row.run, row.lib = run, lib
    assert row.median_time(1, 3) == 2
    assert len(calls) == 4
    assert (row.exchanged, row.spent) == (1.5, 6)


def test_a_ratio_is_the_median_over_the_rounds():
    seconds = {"needle": [2.0, 4.0, 9.0], "torch": [1.0, 1.0, 3.0]}
    assert report.ratios(seconds) == {"needle / torch": {"median": 3.0, "low": 2.0, "high": 4.0}}


def test_of_threads_and_workers_the_faster_way_counts():
    seconds = {"needle, threads": [2.0, 4.0, 9.0], WORKERS: [3.0, 3.0, 3.0], ALONE: [1.0] * 3, "torch": [1.0] * 3}
    assert report.ratios(seconds) == {"needle / torch": {"median": 3.0, "low": 3.0, "high": 3.0}}
    seconds["needle, threads"] = [2.0] * 3
    assert report.ratios(seconds) == {"needle / torch": {"median": 2.0, "low": 2.0, "high": 2.0}}


def test_gains_are_those_over_one_thread():
    seconds = {"needle, threads": [2.0, 4.0], WORKERS: [2.0, 2.0], ALONE: [3.0, 4.0]}
    rows = [row("lenet", "step", **seconds) | {"exchanges": {WORKERS: 0.0123}}]
    assert cells(report.gains(rows))[2:] == [["lenet", "1.25 (1.00 to 1.50)", "1.75 (1.50 to 2.00)", "1.2%"]]


def test_gains_of_mpi_are_beside_those_of_processes_that_exchange_nothing():
    seconds = {"needle, threads": [3.0], WORKERS: [2.0], ALONE: [3.0], MPI: [2.4], APART: [1.5]}
    rows = [row("lenet", "step", **seconds) | {"exchanges": {WORKERS: 0.0123, MPI: 0.2}}]
    gains = [f"{gain} ({gain} to {gain})" for gain in ("1.00", "1.50", "1.25", "2.00")]
    assert cells(report.gains(rows))[2:] == [["lenet", *gains, "1.2%", "20.0%"]]
    seconds["torch-ddp"] = [4.8]
    assert report.ratios(seconds)[f"{MPI} / torch-ddp"]["median"] == 0.5
    assert report.ratios(seconds)[f"{MPI} / {WORKERS}"]["median"] == 1.2
    rows[0]["seconds"][MPI_PLAN] = seconds[MPI_PLAN] = [1.2]
    rows[0]["exchanges"][MPI_PLAN] = 0.3
    assert cells(report.gains(rows))[2:] == [["lenet", *gains, "2.50 (2.50 to 2.50)", "1.2%", "20.0%", "30.0%"]]
    assert report.ratios(seconds)[f"{MPI_PLAN} / {MPI}"]["median"] == 0.5


def test_torch_is_compared_with_every_needle_and_others_with_the_native_one():
    seconds = {name: [1.0] for name in ("needle (pinned)", "needle (native)", "torch", "mygrad")}
    assert list(report.ratios(seconds)) == [
        "needle (pinned) / torch", "needle (native) / torch", "needle (native) / mygrad"
    ]  # fmt: skip


# ---- tables ----------------------------------------------------------------------------------------------------------


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def row(case, name, products=0, **seconds):
    entry = {"case": case, "row": name, "products": products, "seconds": seconds}
    return entry | {"ratios": report.ratios(seconds)}


def test_the_table_has_medians_and_the_range_of_the_ratio():
    rows = [row("lenet", "step", needle=[2e-3, 4e-3, 6e-3], torch=[1e-3, 1e-3, 2e-3]), row("x", "y", needle=[25e-6])]
    assert cells(report.times(rows)) == [
        ["", "needle", "torch", "needle / torch"], [":--", "--:", "--:", "--:"],
        ["lenet: step", "4.00 ms", "1.00 ms", "3.00 (2.00 to 4.00)"], ["x: y", "25.0 µs", "–", "–"],
    ]  # fmt: skip


def test_the_share_of_sgemm_compares_multiplications_per_second():
    rows = [row("ops", "lenet: conv, forward", 600, needle=[1.0, 2.0, 3.0]), row("ops", "relu, forward", needle=[1.0])]
    rows.append(row("ops", "lenet: conv, weight gradient", 600, needle=[1.0]))
    assert cells(report.shares(rows, 1000))[2:] == [["lenet: conv", "30%, –, 60%"]]


def test_memory_and_growth_are_ratios():
    peaks = {"lenet": {"needle": 2**20, "torch": 2**21}}
    assert cells(report.memory(peaks))[-1] == ["lenet", "1 MiB", "2 MiB", "0.50"]
    rows = [row("growth", "as it is", needle=[1.0, 2.0]), row("growth", "batch doubled", needle=[2.0, 6.0])]
    assert cells(report.growth(rows))[-1] == ["batch doubled", "2.50 (2.00 to 3.00)"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.3456, "12.3 s"), (0.0999, "99.9 ms"), (1.5e-6, "1.50 µs"), (2e-9, "2.00 ns"), (123.0, "123 s")],
)
def test_durations_have_three_digits(seconds, text):
    assert report.duration(seconds) == text


# ---- cases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_parameters_are_like_torch_s(name):
    net = NETS[name]
    model, parameters = Torch().network(net.layers, net.shape, worker.weights(net))
    before = [layer for layer, _ in steps(net.layers, net.shape)]
    assert len(parameters) == sum(2 for layer in before if layer.kind not in ("relu", "max_pool", "flatten", "average"))
    with torch.no_grad():
        y = model(torch.zeros(2, *net.shape))
    assert tuple(y.shape[1:]) == (net.shape if net.loss == "mean_squared" else (10,))


@pytest.mark.parametrize(
    ("layer", "shape", "out", "products"),
    [
        (conv(8, 3, 2, padding=1), (4, 9, 9), (8, 5, 5), 8 * 25 * 4 * 9),
        (conv(8, 3, dilation=2, groups=4), (4, 9), (8, 5), 8 * 5 * 3),
        (conv_transpose(8, 4, 2, padding=1), (4, 9, 9), (8, 18, 18), 4 * 81 * 8 * 16),
        (linear(3), (7,), (3,), 21),
        (pool, (4, 9, 9), (4, 4, 4), 0),
    ],
)
def test_layers_know_their_output_and_their_products(layer, shape, out, products):
    assert (layer.output(shape), layer.products(shape)) == (out, products)


def test_the_course_model_has_its_number_of_parameters():
    net = NETS["resnet9"]
    assert sum(array.size for array in worker.weights(net)) == 431946


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads and --rounds must be at least 1"),
        (["--rounds", "0"], "--threads and --rounds must be at least 1"),
        (["--cpu-time", "--threads", "2"], "--cpu-time adds up the time of all threads, so it needs --threads 1"),
        (
            ["--rivals", "mygrad,jax"],
            "--rivals must be of torch, torch-ddp, torch-compile, torch-batched, mygrad, dezero, loops, but got jax",
        ),
        (["--read", "nowhere.json"], "there is no file nowhere.json"),
        (["--write", "LICENSE"], "LICENSE has no place for the tables: <!-- table --> … <!-- end -->"),
        (
            ["--device", "cuda", "--cases", "lenet", "ops"],
            f"--device cuda has the cases {', '.join(NETS)}, but got ops",
        ),
        (
            ["--device", "cuda", "--threads", "2"],
            "--device cuda measures the time of one process, without --threads, --busy and --cpu-time",
        ),
        (["--mpi"], "--mpi needs --threads of more than 1 and a program that starts ranks, but got mpiexec"),
        (
            ["--threads", "2", "--mpi", "no-such-program -x"],
            "--mpi needs --threads of more than 1 and a program that starts ranks, but got no-such-program -x",
        ),
        (["--cases", "alexnet"], "argument --cases: invalid choice: 'alexnet'"),
    ],
)
def test_impossible_options_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert message in error_of(program, capsys, *arguments)[-1]


@pytest.mark.parametrize("turn", ["nan", "inf", "0", "-1"])
def test_a_turn_must_take_some_time(turn, capsys):
    message = f"error: --turn must be finite and greater than 0, but got {float(turn)}"
    assert error_of(program, capsys, "--turn", turn)[-1].endswith(message)
    assert "--turn finite and greater than 0" in error_of(conv_algorithms, capsys, "--turn", turn)[-1]
    assert "--rounds must be at least 1" in error_of(conv_algorithms, capsys, "--rounds", "0")[-1]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"clock": "perf_counter"}', b"[" * 10**5])
def test_a_record_that_is_none_is_one_line(tmp_path, capsys, content):
    path = tmp_path / "record"
    path.write_bytes(content)
    (line,) = error_of(program, capsys, "--read", path, "--out", tmp_path / "out")
    assert line.startswith(f"benchmark: --read must be a benchmark.json, but {path} is not: ")


def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    (line,) = error_of(program, capsys, "--out", path)
    assert line.startswith("benchmark: [Errno 17] ")
    (line,) = error_of(program, capsys, "--write", path)
    assert line.startswith("benchmark: 'utf-8' codec ")


@pytest.mark.parametrize(
    ("script", "inner", "progress"),
    [(program, "run_cases", "; the cases that are complete are in {out}"), (conv_algorithms, "case", "")],
)
@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError(32, "Broken pipe"), 2)])
def test_ctrl_c_and_a_closed_pipe_are_one_line(script, inner, progress, error, status, tmp_path, capsys, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(script, inner, fail)
    with pytest.raises(SystemExit) as caught:
        script.main(["--out", str(tmp_path)] if script is program else [])
    assert caught.value.code == status
    line = "stopped" + progress.format(out=tmp_path)
    assert capsys.readouterr().err == (f"\n{line}\n" if status == 130 else f"{line}: [Errno 32] Broken pipe\n")


def test_options_have_defaults():
    options = program.parse([])
    assert options.cases == list(CASES)
    assert options.rivals == ["torch", "loops"]
    assert options.effort == (7, 0.1, 3)
    assert program.parse(["--smoke"]).out != options.out == Path("runs/benchmark")


def test_captured_steps_are_compared_with_eager_ones():
    ratios = report.ratios({"needle": [2.0, 4.0], "needle, captured": [1.0, 1.0], "torch": [4.0, 4.0]})
    assert {pair: ratio["median"] for pair, ratio in ratios.items()} == {
        "needle, captured / needle": 0.375, "needle / torch": 0.75, "needle, captured / torch": 0.25,
    }  # fmt: skip
