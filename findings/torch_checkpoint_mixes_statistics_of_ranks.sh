#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): torch.distributed.checkpoint takes whatever is no DTensor for equal on all ranks, and writes
# each such entry from one rank: the one that has the least to write so far. But buffers differ: with fully_shard (FSDP2)
# each rank updates the statistics of BatchNorm by its own batches, as nothing broadcasts them. On 3 ranks the checkpoint
# holds the running mean of rank 1 beside the running variance of rank 2, and the loaded network gives outputs that no
# rank gave. The same happens to a rank's own state: its place in the data, its random numbers. After loading, all ranks
# read the samples of one. No warning. DefaultSavePlanner(dedup_save_to_lowest_rank=True) takes all entries from rank 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    return fully_shard(layers, mesh=init_device_mesh("cpu", (3,)))


@torch.no_grad()
def output(model):
    return model.eval()(torch.ones(1, 2)).item()


def of_all_ranks(value):
    values = [None] * 3
    dist.all_gather_object(values, value)
    return values


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    model = network()
    torch.manual_seed(rank)
    model(torch.randn(64, 2) * (1 + rank) + rank)  # a batch of each rank
    means, variances = of_all_ranks(model[1].running_mean), of_all_ranks(model[1].running_var)
    outputs = of_all_ranks(output(model))
    state = {"model": get_model_state_dict(model), "position": 100 + rank, "generator": torch.get_rng_state()}
    positions, generators = of_all_ranks(state["position"]), of_all_ranks(state["generator"])
    for planner, expected in ((None, (1, 2)), (dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True), (0, 0))):
        checkpoint = f"{folder}/checkpoint_{expected[0]}"
        dcp.save(state, checkpoint_id=checkpoint, planner=planner)

        other = network()
        loaded = {"model": get_model_state_dict(other), "position": 0, "generator": torch.get_rng_state()}
        dcp.load(loaded, checkpoint_id=checkpoint)
        set_model_state_dict(other, loaded["model"])
        of_mean = next(r for r in range(3) if torch.equal(means[r], other[1].running_mean))
        of_variance = next(r for r in range(3) if torch.equal(variances[r], other[1].running_var))
        of_generator = next(r for r in range(3) if torch.equal(generators[r], loaded["generator"]))
        all_loaded = of_all_ranks((of_mean, of_variance, loaded["position"], of_generator))
        if rank == 0:
            print(f"each rank loads the mean of rank {of_mean}, the variance of rank {of_variance},")
            print(f"  the generator of rank {of_generator}, and the position {loaded['position']}; saved were {positions}")
            print(f"  the network gave {outputs} on the three ranks, now it gives {output(other):.6f}", flush=True)
        assert (of_mean, of_variance) == expected
        assert all_loaded == all_loaded[:1] * 3
        assert (output(other) in outputs) == (expected == (0, 0))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(main, (sys.argv[1],), 3)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ranks.py" "$folder"
