"""What the scripts do in stages that every rank goes through: how they end together, and what is shown."""

from __future__ import annotations

import contextlib
import io

import errors
import ranks


def main(communicator):
    """name -> (status, what this rank shows, result)."""
    return {name: _end_of(lambda case=case: case(communicator.rank)) for name, case in CASES.items()}


def _end_of(case):
    words, status, result = io.StringIO(), None, None
    try:
        with contextlib.redirect_stderr(words):
            result = case()
    except ranks.AllLeave as end:
        status = end.code
    return status, words.getvalue(), result


def _fails_on(*which):
    def case(rank):
        def work():
            if rank in which:
                raise ValueError(f"a file must be there, but {which[0]} is not")
            return rank

        return ranks.by_all("train", work)

    return case


def _reads_first(rank):
    def read():
        errors.show("careful")
        return {"rank": rank}

    return ranks.by_first("train", read)


def _tells_another(rank):
    return ranks.by_all("train", lambda: bool(rank and errors.show("careful")))


def _calls_first(rank):
    called = []
    ranks.by_first("train", lambda: called.append(rank))
    return called


def _leaves_first(rank):
    return ranks.by_first("train", lambda: errors.leave("train: error: no", 2))


def _has_other_data(rank):
    ranks.by_all("train", lambda: ranks.check_alike({"name": rank, "train": 100, "checksum": "ab"[rank == 2]}))


def _has_the_data(rank):
    ranks.by_all("train", lambda: ranks.check_alike({"name": rank, "train": 100}))


CASES = {
    "all is well": _fails_on(9),
    "all fail": _fails_on(0, 1, 2),
    "one fails": _fails_on(1),
    "the first tells": _reads_first,
    "another tells": _tells_another,
    "the first is called": _calls_first,
    "the first leaves": _leaves_first,
    "help": lambda rank: ranks.by_first("train", lambda: errors.Parser("It.").parse_args(["--help"])),
    "other data": _has_other_data,
    "the data": _has_the_data,
    "names": lambda rank: (ranks.is_first(), ranks.named(), ranks.launcher()),
}
