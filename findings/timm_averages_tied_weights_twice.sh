#!/usr/bin/env bash
# timm 1.0.31 (torch 2.13.0): its moving averages of a model (ModelEma, ModelEmaV2, ModelEmaV3, with and without foreach)
# average a weight that two modules share twice in each update, because a state dict lists it under both names. So an
# output layer tied to the embedding follows with the decay squared, 0.81 in place of 0.9, while all other weights follow
# with 0.9: their averages are those of different moments. After one update from 0 to 1 the shared weight is 0.19, its
# neighbour 0.1. With exclude_buffers=True, an option that says nothing of parameters, ModelEmaV3 gives 0.1 for both, as
# torch's AveragedModel does.
# Only timm's file of averages is loaded, which needs nothing but torch; `import timm` needs torchvision, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps timm==1.0.31
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
import importlib.util
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

print("timm", importlib.metadata.version("timm"), "torch", torch.__version__)
package = importlib.metadata.distribution("timm")
spec = importlib.util.spec_from_file_location("averages", package.locate_file("timm/utils/model_ema.py"))
timm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(timm)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.middle = nn.Linear(2, 2, bias=False)
        self.output = nn.Linear(2, 5, bias=False)
        self.output.weight = self.embedding.weight


@torch.no_grad()
def averages(make, update, updates):
    """The average of the tied weight and that of the other weight: built at 0, updated from weights of 1."""
    model = Tied()
    for parameter in model.parameters():
        parameter.zero_()
    average = make(model)
    for parameter in model.parameters():
        parameter.fill_(1)
    for _ in range(updates):
        update(average, model)
    copy = average.ema if isinstance(average, timm.ModelEma) else average.module
    assert copy.output.weight is copy.embedding.weight
    return [round(weight.mean().item(), 4) for weight in (copy.embedding.weight, copy.middle.weight)]


def torch_average(model):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)  # the first call copies
    return average


kinds = {
    "ModelEma": timm.ModelEma,
    "ModelEmaV2": timm.ModelEmaV2,
    "ModelEmaV3": timm.ModelEmaV3,
    "ModelEmaV3, foreach=False": partial(timm.ModelEmaV3, foreach=False),
    "ModelEmaV3, exclude_buffers=True": partial(timm.ModelEmaV3, exclude_buffers=True),
}
seen = {
    name: [averages(partial(make, decay=0.9), lambda average, model: average.update(model), n) for n in (1, 7)]
    for name, make in kinds.items()
}
seen["torch"] = [averages(torch_average, lambda average, model: average.update_parameters(model), n) for n in (1, 7)]
print("tied weight and other weight after 1 and 7 updates; expected: [0.1, 0.1] and [0.5217, 0.5217]")
for name, result in seen.items():
    print(f"{name}:", *result)
assert list(seen.values()) == [[[0.19, 0.1], [0.7712, 0.5217]]] * 4 + [[[0.1, 0.1], [0.5217, 0.5217]]] * 2
PYTHON
