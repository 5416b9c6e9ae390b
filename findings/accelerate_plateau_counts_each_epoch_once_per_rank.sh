#!/usr/bin/env bash
# accelerate 1.15.0 (torch 2.13.0): a schedule that `prepare` returns steps once per rank at each step. Rates that follow
# the number of batches need that, but ReduceLROnPlateau gets the same loss as many times, and only the first of them is an
# improvement. On 4 ranks with patience=2 the rate falls to a tenth after every epoch, although the loss is better each
# time: 1e-08 after eight epochs. On 1 and 2 ranks the same program keeps the rate, but where the loss stays the same, 2
# ranks lower it in epoch 2, not 4. split_batches=True and step_scheduler_with_optimizer=False are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import importlib.metadata
import os
import socket

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.optim.lr_scheduler import ReduceLROnPlateau

better = [1 / (1 + epoch) for epoch in range(8)]


def main(rank, ranks, port, options, losses, results):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    accelerator = Accelerator(cpu=True, **options)
    assert accelerator.num_processes == ranks
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, patience=2)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    rates = []
    for loss in losses:
        optimizer.zero_grad()
        accelerator.backward(model(torch.ones(1, 1)).sum())
        optimizer.step()
        schedule.step(loss)
        rates.append(float(f"{optimizer.param_groups[0]['lr']:.0e}"))
    if rank == 0:
        results.put(rates)
    accelerator.end_training()


def rates(ranks, options=None, losses=better):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = torch.multiprocessing.get_context("fork").SimpleQueue()
    arguments = (ranks, port, options or {}, losses, results)
    torch.multiprocessing.start_processes(main, arguments, ranks, start_method="fork")
    return results.get()


if __name__ == "__main__":
    print("accelerate", importlib.metadata.version("accelerate"), "torch", torch.__version__)
    seen = {
        "a better loss each epoch, 1 rank": rates(1),
        "a better loss each epoch, 2 ranks": rates(2),
        "a better loss each epoch, 4 ranks": rates(4),
        "the same, split_batches=True": rates(4, {"dataloader_config": DataLoaderConfiguration(split_batches=True)}),
        "the same, step_scheduler_with_optimizer=False": rates(4, {"step_scheduler_with_optimizer": False}),
        "the same loss each epoch, 1 rank": rates(1, losses=[1.0] * 5),
        "the same loss each epoch, 2 ranks": rates(2, losses=[1.0] * 5),
    }
    print("learning rate after each epoch")
    for name, result in seen.items():
        print(f"{name}:", *result)
    kept = [1.0] * 8
    assert list(seen.values()) == [
        kept, kept, [0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8], kept, kept,
        [1, 1, 1, 0.1, 0.1], [1, 0.1, 0.1, 0.01, 0.001],
    ]
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore "$folder/ranks.py"
