"""The report of a benchmark record in Markdown: tables of times and ratios, shares of sgemm, memory and growth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from .cases import ALONE, APART, BASE, CAPTURED, GROUPS, MPI, MPI_PLAN, RIVALS, SGEMM, WORKERS

Ratio = dict[str, float]  # median, low, high
Row = dict[str, Any]  # an entry of the record: case, row, products, seconds, ratios

PLACE = re.compile(r"(<!-- table.*?-->\n).*?(<!-- end -->)", re.DOTALL)
NONE = "–"


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, Ratio]:
    """Ratios of a row's times: "needle / torch" -> median, low and high over the rounds.

    torch is compared with every needle; other rivals only with the last one, which uses the same BLAS kernels. Of the
    ways to use several cores, the faster one counts: "needle / torch". Captured steps are compared with eager ones,
    ranks of MPI with workers and with torch's own processes.
    """
    apart = (ALONE, WORKERS, MPI, MPI_PLAN, APART)
    needles = {name: seconds[name] for name in seconds if name.startswith("needle") and name not in apart}
    plain = [name for name in needles if name != CAPTURED]
    result = {}
    if CAPTURED in needles and plain:
        result[f"{CAPTURED} / {plain[-1]}"] = spread(needles[CAPTURED], needles[plain[-1]])
    if WORKERS in seconds:
        ways = (needles[plain[-1]], seconds[WORKERS])
        needles = {"needle": min(ways, key=median)}
    for rival in seconds:
        for needle in needles if rival == "torch" else list(needles)[-1:]:
            if not rival.startswith("needle"):
                result[f"{needle} / {rival}"] = spread(needles[needle], seconds[rival])
    for ranks, eager in ((MPI, WORKERS), (MPI_PLAN, MPI)):
        for other in (eager, "torch-ddp"):
            if ranks in seconds and other in seconds:
                result[f"{ranks} / {other}"] = spread(seconds[ranks], seconds[other])
    return result


def spread(times: Sequence[float], others: Sequence[float]) -> Ratio:
    """Median, low and high of the ratios within each round."""
    quotients = [a / b for a, b in zip(times, others, strict=True)]
    return {"median": median(quotients), "low": min(quotients), "high": max(quotients)}


def fill(document: str, text: str) -> str:
    """The document with `text` in its marked place."""
    return PLACE.sub(lambda place: f"{place[1]}{text}{place[2]}", document)


# ---- cells -----------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A time with three digits and a unit."""
    units = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, size in units.items() if seconds >= size), "ns")
    amount = seconds / units[unit]
    return f"{amount:.{max(0, 3 - len(str(int(amount))))}f} {unit}"


def number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def ranged(ratio: Ratio) -> str:
    return f"{number(ratio['median'])} ({number(ratio['low'])} to {number(ratio['high'])})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells without its empty columns; the first row is the head."""
    columns = [column for column in zip(*rows, strict=True) if set(column[1:]) != {NONE}]
    columns = [(head, "--:" if i else ":--", *cells) for i, (head, *cells) in enumerate(columns)]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


# ---- tables of a run -------------------------------------------------------------------------------------------------


def times(rows: Sequence[Row]) -> str:
    """Times and ratios of some rows."""
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    pairs = list(dict.fromkeys(pair for row in rows for pair in row["ratios"]))
    lines = [["", *names, *pairs]]
    for row in rows:
        cells = [duration(median(row["seconds"][name])) if name in row["seconds"] else NONE for name in names]
        cells += [ranged(row["ratios"][pair]) if pair in row["ratios"] else NONE for pair in pairs]
        plain = row["case"] in (row["row"], "ops", "loops")
        lines.append([row["row"] if plain else f"{row['case']}: {row['row']}", *cells])
    return table(lines)


def shares(rows: Sequence[Row], rate: float) -> str:
    """The share of sgemm's rate, in multiplications per second, that each convolution reaches in each of its passes."""
    names = list(rows[0]["seconds"])
    layers: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        layer, _, part = row["row"].rpartition(", ")
        if "conv" in layer:
            reached = {name: f"{row['products'] / median(row['seconds'][name]) / rate:.0%}" for name in names}
            layers.setdefault(layer, {})[part] = reached
    none = dict.fromkeys(names, NONE)
    parts = ("forward", "input gradient", "weight gradient")
    lines = [["forward, input gradient, weight gradient", *names]]
    for layer, cells in layers.items():
        lines.append([layer, *(", ".join(cells.get(part, none)[name] for part in parts) for name in names)])
    return table(lines)


def memory(peaks: Mapping[str, Mapping[str, int]]) -> str:
    """Peak memory, also as a ratio to torch's."""
    names = list(dict.fromkeys(name for case in peaks.values() for name in case))
    needles = [name for name in names if name.startswith("needle")]
    lines = [["", *names, *(f"{name} / torch" for name in needles)]]
    for case, peak in peaks.items():
        cells = [f"{peak[name] / 2**20:.0f} MiB" if name in peak else NONE for name in names]
        cells += [number(peak[name] / peak["torch"]) if "torch" in peak else NONE for name in needles]
        lines.append([case, *cells])
    return table(lines)


def gains(rows: Sequence[Row]) -> str:
    """How many times as fast several cores are as one thread, and the share of a step spent in exchanges."""
    ways = {WORKERS: "workers", MPI: "MPI", APART: "processes that exchange nothing"}
    if any(MPI_PLAN in row["seconds"] for row in rows):
        ways[MPI_PLAN] = "MPI, captured"
    divided = [name for name in ways if name != APART]
    exchanges = [f"exchanges of {ways[name]}, waiting included" for name in divided]
    lines = [["", "threads", *ways.values(), *exchanges]]
    for row in rows:
        seconds = row["seconds"]
        threads = next(times for name, times in seconds.items() if name not in (ALONE, *ways))
        found = [threads, *(seconds.get(name) for name in ways)]
        cells = [ranged(spread(seconds[ALONE], times)) if times else NONE for times in found]
        spent = [row["exchanges"].get(name) for name in divided]
        lines.append([row["case"], *cells, *(NONE if share is None else f"{share:.1%}" for share in spent)])
    return table(lines)


def growth(rows: Sequence[Row]) -> str:
    """The times of the grown networks as multiples of the first row's."""
    base, names = rows[0]["seconds"], list(rows[0]["seconds"])
    lines = [[row["row"], *(ranged(spread(row["seconds"][name], base[name])) for name in names)] for row in rows[1:]]
    return table([["", *names], *lines])


def run_parts(run: Mapping[str, Any]) -> Iterator[str]:
    """The report on one number of threads."""
    yield f"### Threads: {run['threads']}{', beside a busy process' * run['busy']}\n"
    yield from (f"- {name}: {about}" for name, about in run["rivals"].items())
    if any("native" in name for name in run["rivals"]):
        yield "- pinned: with the variables above, which choose OpenBLAS's kernels; native: without, as the rivals run"
    yield from (f"- {name}: not installed" for name in run["missing"])
    if WORKERS in run["rivals"]:
        yield "- needle, threads and needle, workers: two ways to use the cores; ratios to others take the faster one"
        yield "- needle, apart: a process for each core trains on its part of each batch, and they exchange nothing"
    if "torch-ddp" in run["rivals"]:
        yield "- torch-ddp: each process normalizes its own items, so only nets without batch norm compute the same"
    for name in run["rivals"]:
        if name in RIVALS and name != "torch":
            yield f"- {name} runs the cases: {', '.join(RIVALS[name])}"
    for group, cases in GROUPS.items():
        if rows := [row for row in run["rows"] if row["case"] in cases]:
            yield f"\n#### {group}\n\n{times(rows)}"
    if divided := [row for row in run["rows"] if WORKERS in row["seconds"]]:
        yield f"\n#### Gain of {run['threads']} cores over one thread\n\n{gains(divided)}"
    ops = [row for row in run["rows"] if row["case"] == "ops"]
    if ops:
        fastest = [row["products"] / median(t) for row in ops if row["row"] == SGEMM for t in row["seconds"].values()]
        rate = max(fastest)
        yield f"\n#### Convolutions: share of this machine's sgemm, {2e-9 * rate:.0f} GFLOP/s\n\n{shares(ops, rate)}"
    if run["memory"]:
        yield f"\n#### Peak memory of the training process\n\n{memory(run['memory'])}"
    grown = [row for row in run["rows"] if row["case"] == "growth"]
    if grown:
        assert grown[0]["row"] == BASE
        yield f"\n#### Growth: time as a multiple of the time at half the size\n\n{growth(grown)}"


def text(record: Mapping[str, Any]) -> str:
    """The complete report."""
    clock = {"perf_counter": "elapsed time", "process_time": "CPU time"}[record["clock"]]
    lines = [
        f"{record['machine']}.",
        f"float32; medians of {record['rounds']} rounds, {clock}. A ratio below 1 means that needle is faster;",
        "in brackets: the range of the ratio over the rounds.",
    ]
    if record["smoke"]:
        lines.append("\nTiny sizes and few runs: these times mean nothing.")
    for run in record["runs"]:
        lines += ["", *run_parts(run)]
    return "\n".join(lines) + "\n"
