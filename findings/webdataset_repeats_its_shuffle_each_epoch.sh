#!/usr/bin/env bash
# webdataset 1.0.2: `shardshuffle=100` draws one seed when the dataset is made and starts from it in each epoch, so the
# shards come in the same order every time; so do samples after `.shuffle(100, seed=0)`. Only the option `detshuffle`, for
# "deterministic shuffling", gives each epoch an order of its own. And `with_epoch(n)`, which gives all ranks epochs of one
# length, starts at the first shard each time: with `.repeat().with_epoch(8)` two ranks of 16 samples each see the same
# half in 20 epochs, while the other half is never read. With `detshuffle=True` all are read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cat > "$folder/epochs.py" <<'PYTHON'
import importlib.metadata
import os
import sys

import webdataset as wds

urls = [f"{sys.argv[1]}/{shard}.tar" for shard in range(8)]
for shard, url in enumerate(urls):
    with wds.TarWriter(url) as writer:
        for sample in range(4 * shard, 4 * shard + 4):
            writer.write({"__key__": str(sample), "i.txt": str(sample)})


def dataset(rank, ranks=2, **options):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks))
    options = {"shardshuffle": 100, "nodesplitter": wds.split_by_node, "empty_check": False} | options
    return wds.WebDataset(urls, **options).decode()


def epochs(data, number=20):
    return [[int(sample["i.txt"]) for sample in data] for _ in range(number)]


def orders(seen):
    return len(set(map(tuple, seen)))


def read(seen):
    return sorted({sample for epoch in seen for sample in epoch})


print("webdataset", importlib.metadata.version("webdataset"))
for rank in range(2):
    for seed in ({}, {"seed": 7}):
        name = f"rank {rank}, {seed or 'no seed'}"
        same = epochs(dataset(rank, **seed))
        other = epochs(dataset(rank, detshuffle=True, **seed))
        print(f"{name}: orders in 20 epochs: {orders(same)} by shardshuffle=100, {orders(other)} with detshuffle=True")
        assert orders(same) == 1 and orders(other) > 5
        assert len(read(same)) == len(read(other)) == 16

        same = epochs(dataset(rank, **seed).repeat().with_epoch(8))
        other = epochs(dataset(rank, detshuffle=True, **seed).repeat().with_epoch(8))
        print(f"{name}: of 16 samples, 20 epochs of 8 read {len(read(same))}, and {len(read(other))} with detshuffle=True")
        assert len(read(same)) == 8 and len(read(other)) == 16
    samples = [orders(epochs(dataset(rank, shardshuffle=False).shuffle(100, **seed))) for seed in ({"seed": 0}, {})]
    print(f"rank {rank}: orders of samples in 20 epochs: {samples[0]} by shuffle(100, seed=0), {samples[1]} without a seed")
    assert samples == [1, 20]
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/epochs.py" "$folder"
