"""Runs of `fit` in all ranks, with everything that has a state: from the start, stopped, and gone on with."""

from __future__ import annotations

import numpy as np

from needle import nn, training
from tests.training.runs import Stops, bytes_of, held_out, make, repeatable

OPTIONS = {"accumulate": 3, "clip_norm": 0.5, "bar": False}


def trained(rank=0, **options):
    """Bytes of the weights, and rows. Ranks above 0 begin with other weights and another random stream."""
    model, _, run = make()
    for parameter in model.parameters() if rank else ():
        parameter.data = parameter.data * 2
    if rank:
        np.random.seed(rank)
    rows = run(**OPTIONS | options)
    if rank:
        np.random.rand(rank)  # but `evaluate` brings the streams together
    figures = training.evaluate(model, nn.CrossEntropyLoss(), held_out())
    return bytes_of(model), repeatable(rows), figures, np.random.rand()


def main(communicator, folder):
    """What each run gives; `folder / "alone"` holds one that a process alone has begun."""
    rank = communicator.rank
    own = folder if rank == 0 else folder / "nobody writes here"
    results = {"whole": trained(rank)}
    for name, batches in (("between", 3), ("within", 5)):
        files = {"checkpoints": own / name, "resume": True}
        trained(rank, callbacks=[Stops(batches=batches)] if rank == 0 else [], **files)
        results[name] = trained(rank, **files)
    results["alone"] = trained(rank, checkpoints=own / "alone", resume=True)
    trained(rank, callbacks=[Stops(batches=5)] if rank == 0 else [], checkpoints=own / "for one")
    return results
