#!/usr/bin/env bash
# torch 2.13.0: torch.distributed's gloo sends the memory of a tensor, not its elements. A batch in channels_last that
# rank 0 broadcasts arrives scrambled in a torch.empty of its shape, and so does a transposed matrix; all_reduce of equal
# tensors adds elements that do not belong together, and the ranks get different sums. There is no error and no warning.
# all_gather of the same tensors is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import sys

import torch
import torch.distributed as dist


def main(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    values = torch.arange(16.0).reshape(1, 2, 2, 4)
    images = values.to(memory_format=torch.channels_last) if rank == 0 else torch.empty(1, 2, 2, 4)
    dist.broadcast(images, 0)

    matrix = torch.arange(6.0).reshape(2, 3)
    weight = matrix.T.contiguous().T if rank == 0 else torch.zeros(2, 3)
    dist.broadcast(weight, 0)

    total = matrix.T.contiguous().T if rank == 0 else matrix.clone()
    dist.all_reduce(total)

    gathered = [torch.empty(2, 3) for _ in range(2)]
    dist.all_gather(gathered, matrix.T.contiguous().T if rank == 0 else matrix.clone())
    if rank == 1:
        print("broadcast, channels_last:", images.flatten().tolist())
        print("broadcast, transposed:   ", weight.tolist())
    print(f"all_reduce on rank {rank}:   ", total.tolist(), flush=True)
    assert all(torch.equal(entry, matrix) for entry in gathered)
    assert torch.equal(images, values) == (rank == 0)
    assert torch.equal(weight, matrix) == (rank == 0)
    assert total.tolist() == [[[0, 3, 6], [4, 7, 10]], [[0, 4, 3], [7, 6, 10]]][rank]  # right: [[0, 2, 4], [6, 8, 10]]
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(main, (sys.argv[1],), 2)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ranks.py" "$folder"
