#!/usr/bin/env bash
# torchdata 0.11.0 (torch 2.13.0): StatefulDataLoader resumes in two ways that pass the obvious test and fail later.
# `shuffle=True` with a generator and without workers: the rest of the interrupted epoch is right, but all later epochs
# have other orders than in the uninterrupted run, even if the user restores the generator, too. With one worker, or
# without a generator, they are right. (The generator is set back to the epoch's beginning and draws the order again, but
# not the seed of workers, which it drew next.)
# A seeded RandomSampler of torch: right if stopped in the first epoch. Stopped in the second, it goes on, without a
# warning, in the order of the first, so that samples come twice in the epoch and as many others never.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchdata==0.11.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/resume.py" <<'PYTHON'
import torch
import torchdata
from torch.utils.data import RandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

samples = list(range(100))


def shuffled(generator, workers=0):
    return StatefulDataLoader(samples, 10, shuffle=True, generator=generator, num_workers=workers)


def sampled(generator):
    return StatefulDataLoader(samples, 10, sampler=RandomSampler(samples, generator=generator))


def flat(batches):
    return [number for batch in batches for number in batch.tolist()]


def resumed(make, whole_epochs=0, restore=False):
    """Whether the rest of the epoch and the next two are as without the stop; how many samples the epoch gave twice."""
    generator = torch.Generator().manual_seed(5)
    loader = make(generator)
    for _ in range(whole_epochs):
        flat(loader)
    batches = iter(loader)
    before = flat(next(batches) for _ in range(5))
    state, position = loader.state_dict(), generator.get_state()
    expected = [flat(batches), flat(loader), flat(loader)]

    generator = torch.Generator().manual_seed(5)
    loader = make(generator)
    loader.load_state_dict(state)
    if restore:
        generator.set_state(position)
    seen = [flat(loader) for _ in range(3)]
    return [a == b for a, b in zip(expected, seen)], len({*before} & {*seen[0]})


if __name__ == "__main__":
    print("torchdata", torchdata.__version__, "torch", torch.__version__)
    seen = {
        "shuffle, generator, no workers": resumed(shuffled),
        "shuffle, generator (restored, too), no workers": resumed(shuffled, restore=True),
        "shuffle, generator, 1 worker": resumed(lambda generator: shuffled(generator, 1)),
        "shuffle, no generator, no workers": resumed(lambda generator: shuffled(None)),
        "seeded RandomSampler, stopped in epoch 1": resumed(sampled),
        "seeded RandomSampler, stopped in epoch 2": resumed(sampled, 1),
    }
    print("rest of the epoch and next two epochs right (expected: all True), samples given twice (expected: 0)")
    for name, result in seen.items():
        print(f"{name}:", *result)
    right, wrong_later = ([True] * 3, 0), ([True, False, False], 0)
    *most, (same, repeated) = seen.values()
    assert most == [wrong_later, wrong_later, right, right, right]
    assert same == [False] * 3 and repeated > 10
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/resume.py"
