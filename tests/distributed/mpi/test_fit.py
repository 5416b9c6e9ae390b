"""`fit` in ranks of MPI: they begin with rank 0's state, end alike, and go on from its files, as one process can."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from tests.distributed.mpi import fitting
from tests.distributed.mpi.ranks import run
from tests.training.runs import Stops


@pytest.mark.parametrize("size", [2, 3])
def test_a_run_in_ranks(size, tmp_path):
    fitting.trained(checkpoints=tmp_path / "alone", callbacks=[Stops(batches=5)])
    expected = fitting.trained()
    ranks = run(size, "fitting", tmp_path)
    assert all(rank == ranks[0] for rank in ranks[1:])  # weights and rows, to the bit, and random streams
    assert not (tmp_path / "nobody writes here").exists()
    results = ranks[0]
    assert results["between"] == results["whole"]
    assert results["within"] == results["whole"]
    assert "terms" in ndl.load(tmp_path / "for one" / "last.npz")["stepper"]
    results["one"] = fitting.trained(checkpoints=tmp_path / "for one", resume=True)
    for weights, rows, figures, draw in results.values():
        for name, content in weights.items():
            first, second = (np.frombuffer(each, "float32") for each in (content, expected[0][name]))
            np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
        for row, other in zip(rows, expected[1], strict=True):
            assert row == pytest.approx(other, rel=1e-4)
        assert figures == pytest.approx(expected[2], rel=1e-4)
        assert draw == expected[3]
