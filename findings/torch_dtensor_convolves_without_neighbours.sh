#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): a convolution of a DTensor that is sharded along the width or the height of its images, with
# `distribute_module` for the layer, computes each shard as if it were an image of its own: zeros, not the neighbours of
# the next shard, stand at the cut. The result says that it is replicated and has the shape of the whole; in truth each
# rank holds its own half, `full_tensor()` returns half an image, another on each rank, and nothing warns. Pools of the
# same tensor are right, and so is the convolution of one that is sharded along the batch. torch has code that exchanges
# borders for this very case.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor
from torch.nn import functional as F


@torch.no_grad()
def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    images = torch.arange(1.0, 9).expand(2, 1, 2, 8).contiguous()
    layer = torch.nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
    layer.weight.fill_(1)
    right = layer(images)
    layer = distribute_module(layer, mesh)

    def whole(function, axis):
        result = function(distribute_tensor(images, mesh, [Shard(axis)]))
        assert result.shape == (right if function is layer else function(images)).shape
        return result, result.full_tensor()

    result, wide = whole(layer, 3)
    for turn in range(2):
        if turn == rank:
            print(f"rank {rank}: the first row of {tuple(result.shape)}, {result.placements}:", wide[0, 0, 0].tolist())
            sys.stdout.flush()
        dist.barrier()
    if rank == 0:
        print("right:", right[0, 0, 0].tolist())
    assert right[0, 0, 0].tolist() == [3, 6, 9, 12, 15, 18, 21, 15]
    assert result.placements == (Replicate(),) and wide.shape == (2, 1, 2, 4)
    assert wide[0, 0, 0].tolist() == [[3, 6, 9, 7], [11, 18, 21, 15]][rank]
    assert whole(layer, 2)[1].shape == (2, 1, 1, 8)

    assert torch.equal(whole(layer, 0)[1], right)
    for pool in (lambda x: F.max_pool2d(x, (1, 2)), lambda x: F.avg_pool2d(x, (1, 3), 1, (0, 1))):
        assert torch.equal(whole(pool, 3)[1], pool(images))
    dist.destroy_process_group()


if __name__ == "__main__":
    print("torch", torch.__version__)
    torch.multiprocessing.spawn(main, (sys.argv[1],), 2)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ranks.py" "$folder"
