"""Gradients of ranks in a test: parameters that only some use, groups of batches, 16 bits, a limit of their norm."""

from __future__ import annotations

import numpy as np

import needle as ndl
from needle import nn, optim
from needle.distributed import SharedGradients

ITEMS = [7, 6, 2, 9]  # of batches: for three ranks one of 2 is no part
LIMITS = {"GRADIENT_BUCKET_BYTES": 400}  # so that some buckets are full within backward


class Net(nn.Module):
    """Layers of which the middle one is for some items only, and a weight that nobody uses."""

    def __init__(self, has_norm, stream):
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(*sizes) for sizes in ((6, 16), (16, 16), (16, 3)))
        self.norm = nn.BatchNorm1d(16) if has_norm else nn.Identity()
        self.unused = nn.Parameter(ndl.ones(5))
        for parameter in self.parameters():
            parameter.data = ndl.Tensor(stream.standard_normal(parameter.shape).astype("float32"))

    def forward(self, x, takes_all):
        hidden = self.norm(nn.functional.relu(self.first(x)))
        if takes_all:
            hidden = nn.functional.relu(self.middle(hidden))
        return self.last(hidden)


def main(communicator):
    """The bytes of losses, gradients, norms and weights by the name of a case."""
    cases = {"all": {}, "float16": {"compression": "float16"}, "bfloat16": {"compression": "bfloat16"}}
    cases |= {"groups": {"groups": True}, "groups in bfloat16": {"groups": True, "compression": "bfloat16"}}
    cases |= {"some": {"only_rank": 1}, "batch norm": {"has_norm": True, "compression": "bfloat16"}}
    return {name: train(communicator, **options) for name, options in cases.items()}


def train(communicator, has_norm=False, groups=False, only_rank=None, compression=None):
    stream = np.random.default_rng(3)
    net = Net(has_norm, stream)
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    gradients, seen = SharedGradients(net.parameters(), compression), []
    for i, items in enumerate(ITEMS):
        x = stream.standard_normal((items, 6)).astype("float32")
        communicator.part = part = communicator.part_of(items)
        takes_all = not (groups and i == 1)
        if part is not None:
            x = x[part.start : part.stop]
            takes_all = takes_all and only_rank in (None, communicator.rank)
        is_last = not groups or i in (1, 3)
        loss = (net(ndl.Tensor(x), takes_all) ** 2).mean()
        loss = gradients.backward(loss, accumulate=groups, exchange=is_last)
        seen.append(loss)
        if is_last:
            seen += [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
            seen.append(optimizer.clip_grad_norm(1.0))
            optimizer.step()
            optimizer.reset_grad()
    communicator.part = None
    return [np.asarray(x.numpy() if hasattr(x, "numpy") else x).tobytes() for x in [*seen, *net.parameters()]]
