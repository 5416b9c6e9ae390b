"""The Markdown of a record of the benchmark: tables of times and ratios, shares of sgemm, memory and growth."""

from __future__ import annotations

import re
from statistics import median

if __package__:  # imported as apps.benchmark_report; otherwise the folder apps is on sys.path
    from apps.benchmark_cases import BASE, GROUPS, RIVALS, SGEMM
else:
    from benchmark_cases import BASE, GROUPS, RIVALS, SGEMM

PLACE = re.compile(r"(<!-- table.*?-->\n).*?(<!-- end -->)", re.DOTALL)
NONE = "–"


def ratios(seconds):
    """The ratios of a row: "needle / torch" -> median, low and high of those within the rounds.

    Beside torch every needle stands; beside another rival the last one, which has the BLAS kernels of its rivals.
    """
    needles = [name for name in seconds if name.startswith("needle")]
    found = {}
    for rival in seconds:
        for needle in needles if rival == "torch" else needles[-1:]:
            if rival not in needles:
                found[f"{needle} / {rival}"] = spread(seconds[needle], seconds[rival])
    return found


def spread(times, others):
    quotients = [a / b for a, b in zip(times, others, strict=True)]
    return {"median": median(quotients), "low": min(quotients), "high": max(quotients)}


def fill(document, text):
    """The document with the text at its marked place."""
    return PLACE.sub(lambda found: f"{found[1]}{text}{found[2]}", document)


# ---- cells -----------------------------------------------------------------------------------------------------------


def duration(seconds):
    """Three digits and a unit."""
    units = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, size in units.items() if seconds >= size), "ns")
    amount = seconds / units[unit]
    return f"{amount:.{max(0, 3 - len(str(int(amount))))}f} {unit}"


def number(ratio):
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.1g}"


def ranged(ratio):
    return f"{number(ratio['median'])} ({number(ratio['low'])} to {number(ratio['high'])})"


def table(rows):
    """Rows of cells, the first of them the head, as a Markdown table without empty columns."""
    columns = [column for column in zip(*rows, strict=True) if set(column[1:]) != {NONE}]
    columns = [(head, "--:" if i else ":--", *cells) for i, (head, *cells) in enumerate(columns)]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*columns, strict=True)
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


# ---- tables of a run -------------------------------------------------------------------------------------------------


def times(rows):
    """Times and ratios of some rows."""
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    pairs = list(dict.fromkeys(pair for row in rows for pair in row["ratios"]))
    found = [["", *names, *pairs]]
    for row in rows:
        cells = [duration(median(row["seconds"][name])) if name in row["seconds"] else NONE for name in names]
        cells += [ranged(row["ratios"][pair]) if pair in row["ratios"] else NONE for pair in pairs]
        plain = row["case"] in (row["row"], "ops", "loops")
        found.append([row["row"] if plain else f"{row['case']}: {row['row']}", *cells])
    return table(found)


def shares(rows, rate):
    """How much of the rate of sgemm, in multiplications a second, each convolution reaches in its three products."""
    names, layers = list(rows[0]["seconds"]), {}
    for row in rows:
        layer, _, part = row["row"].rpartition(", ")
        if "conv" in layer:
            reached = {name: f"{row['products'] / median(row['seconds'][name]) / rate:.0%}" for name in names}
            layers.setdefault(layer, {})[part] = reached
    none = dict.fromkeys(names, NONE)
    parts = ("forward", "input gradient", "weight gradient")
    found = [["forward, input gradient, weight gradient", *names]]
    for layer, cells in layers.items():
        found.append([layer, *(", ".join(cells.get(part, none)[name] for part in parts) for name in names)])
    return table(found)


def memory(peaks):
    """Peak memory, and that of each needle as a share of torch's."""
    names = list(dict.fromkeys(name for case in peaks.values() for name in case))
    needles = [name for name in names if name.startswith("needle")]
    found = [["", *names, *(f"{name} / torch" for name in needles)]]
    for case, peak in peaks.items():
        cells = [f"{peak[name] / 2**20:.0f} MiB" if name in peak else NONE for name in names]
        cells += [number(peak[name] / peak["torch"]) if "torch" in peak else NONE for name in needles]
        found.append([case, *cells])
    return table(found)


def growth(rows):
    """The times of a grown network as multiples of those before it grew."""
    base, names = rows[0]["seconds"], list(rows[0]["seconds"])
    found = [[row["row"], *(ranged(spread(row["seconds"][name], base[name])) for name in names)] for row in rows[1:]]
    return table([["", *names], *found])


def run_parts(run):
    """The lines about one number of threads."""
    yield f"### Threads: {run['threads']}\n"
    yield from (f"- {name}: {about}" for name, about in run["rivals"].items())
    if any("native" in name for name in run["rivals"]):
        yield "- pinned: with the variables named above, which choose for OpenBLAS; native: without, as its rivals run"
    yield from (f"- {name}: not installed" for name in run["missing"])
    for name in run["rivals"]:
        if name in RIVALS and name != "torch":
            yield f"- {name} has the cases: {', '.join(RIVALS[name])}"
    for group, cases in GROUPS.items():
        if rows := [row for row in run["rows"] if row["case"] in cases]:
            yield f"\n#### {group}\n\n{times(rows)}"
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
        yield f"\n#### Growth: time as a multiple of that of half the size\n\n{growth(grown)}"


def text(record):
    """The whole report."""
    clock = {"perf_counter": "elapsed time", "process_time": "CPU time"}[record["clock"]]
    lines = [
        f"{record['machine']}.",
        f"float32; medians of {record['rounds']} rounds, {clock}. Where a ratio is below 1 needle is faster;",
        "in brackets the range of the ratio over the rounds.",
    ]
    if record["smoke"]:
        lines.append("\nTiny sizes and few runs: these times mean nothing.")
    for run in record["runs"]:
        lines += ["", *run_parts(run)]
    return "\n".join(lines) + "\n"
