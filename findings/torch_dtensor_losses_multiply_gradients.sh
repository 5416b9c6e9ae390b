#!/usr/bin/env bash
# torch 2.13.0 (CPU, gloo): `mse_loss`, `smooth_l1_loss`, `huber_loss` and `binary_cross_entropy` of DTensors that are
# sharded give gradients that are too large by the number of ranks: backward divides by the number of elements of the
# rank's shard, and adds nothing up. The loss is right, so nothing shows it, and the learning rate is four times as high on
# four ranks. `l1_loss` and `binary_cross_entropy_with_logits` of the same tensors, and `(x - y).pow(2).mean()`, are right.
# Where the shards differ in length, the loss is the mean of the ranks' means, too: 9 in place of 7.2 for 5 elements on 2
# ranks, and NaN on 4, of which one has none; there `binary_cross_entropy_with_logits` is wrong as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import math
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn import functional as F


def squares(x, y):
    return (x - y).pow(2).mean()


def probabilities(x, y):
    return F.binary_cross_entropy(x / 8 + 0.125, y)


losses = (
    F.mse_loss, F.smooth_l1_loss, F.huber_loss, probabilities, F.binary_cross_entropy_with_logits, F.l1_loss, squares,
)


def loss_and_gradient(loss_fn, x, y):
    """The loss, and its gradient for the last element."""
    x.requires_grad_()
    loss = loss_fn(x, y)
    loss.backward()
    whole = [entry.full_tensor() if hasattr(entry, "full_tensor") else entry for entry in (loss, x.grad)]
    return whole[0].item(), whole[1][-1].item()


def main(rank, ranks, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{ranks}", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    seen = {}
    for length in (4, 5):
        x, y = torch.zeros(length), torch.zeros(length)
        x[-1] = 6
        for loss_fn in losses:
            alone = loss_and_gradient(loss_fn, x.clone(), y)
            sharded = [distribute_tensor(entry, mesh, [Shard(0)]) for entry in (x, y)]
            together = loss_and_gradient(loss_fn, *sharded)
            factors = [round(b / a, 3) for a, b in zip(alone, together)]
            seen[length, loss_fn.__name__] = factors
            if rank == 0:
                print(f"{ranks} ranks, {length} elements, {loss_fn.__name__}: alone {alone[0]:.4f}, gradient", end=" ")
                print(f"{alone[1]:.4f}; sharded {together[0]:.4f}, gradient {together[1]:.4f}", flush=True)
    even = [seen[4, loss_fn.__name__] for loss_fn in losses]
    assert even == [[1, ranks]] * 4 + [[1, 1]] * 3
    if ranks == 2:
        assert [seen[5, name] for name in ("mse_loss", "l1_loss", "squares")] == [[1.25, 2.5], [1, 1], [1, 1]]
        assert seen[5, "binary_cross_entropy_with_logits"][0] == 1.151
    else:
        assert all(math.isnan(seen[5, name][0]) for name in ("mse_loss", "binary_cross_entropy_with_logits"))
        assert seen[5, "l1_loss"] == seen[5, "squares"] == [1, 1]
    dist.destroy_process_group()


if __name__ == "__main__":
    print("torch", torch.__version__)
    for ranks in (2, 4):
        torch.multiprocessing.spawn(main, (ranks, sys.argv[1]), ranks)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ranks.py" "$folder"
