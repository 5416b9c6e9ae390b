#!/usr/bin/env bash
# torch 2.13.0: `torch.onnx.export(dynamo=False)` writes tensors of equal values as one initialiser. In a network that
# was not trained yet, the weight of a BatchNorm (ones) and its running variance (ones) become the same tensor, and so do
# its bias and its running mean (zeros), and with them those of all layers of that size. The outputs are right, but
# whoever loads the file to train it changes variances with the weights, and all layers of one width as one. The other
# names remain, as results of Identity nodes. Neither `do_constant_folding=False` nor `TrainingMode.PRESERVE` helps; a
# model in training mode (`TrainingMode.TRAINING`) is written with all its tensors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 onnx==1.23.2
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io

import onnx
import torch
from torch import nn

model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def inputs_of_norms(model, **options):
    """The initialisers that each BatchNormalization reads, through Identity nodes."""
    file = io.BytesIO()
    torch.onnx.export(
        model, (torch.ones(1, 1, 8, 8),), file, dynamo=False, opset_version=17, do_constant_folding=False, **options
    )
    graph = onnx.load_from_string(file.getvalue()).graph
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    norms = [[*node.input][1:] for node in graph.node if node.op_type == "BatchNormalization"]
    read = [[same.get(name, name) for name in names] for names in norms]
    assert {name for names in read for name in names} <= {tensor.name for tensor in graph.initializer}
    return read


kinds = ("scale", "bias", "mean", "variance")
mode = torch.onnx.TrainingMode
for option in (mode.EVAL, mode.PRESERVE):
    tied = inputs_of_norms(model.eval(), training=option)
    print(option, [dict(zip(kinds, names)) for names in tied])
    assert tied == [["1.weight", "1.bias", "1.bias", "1.weight"]] * 2, tied
apart = inputs_of_norms(model.train(), training=mode.TRAINING)
print(mode.TRAINING, [dict(zip(kinds, names)) for names in apart])
assert len({*apart[0], *apart[1]}) == 8, apart
PYTHON
