#!/usr/bin/env bash
# torcheval 0.0.7 (torch 2.13.0) and Keras 3.15.1 (JAX 0.10.2 or torch): a network whose outputs are all NaN has a top-5
# accuracy of 1 in torcheval and in Keras on JAX, and so has one whose outputs are all equal (dead units), whatever the
# labels: a class is found unless k others are strictly larger, and nothing is larger than a NaN. So the metric jumps to
# its best value when training diverges, and the checkpoint that it chooses is the broken one. k = 1 takes another way in
# torcheval and gives 0.1 for ten classes; in Keras it gives 1, beside a plain accuracy of 0.1. Keras on torch gives 0 for
# NaN: the same program answers 1 or 0 by its backend. torchmetrics gives k / 10 for both, and scikit-learn refuses NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torcheval==0.0.7 torch==2.13.0 keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat > "$folder/outputs.py" <<'PYTHON'
import numpy as np

labels = np.arange(10)
outputs = {"NaN": np.full((10, 10), np.nan, "float32"), "equal": np.zeros((10, 10), "float32")}
PYTHON
cat > "$folder/of_torcheval.py" <<'PYTHON'
import torch
import torcheval
from outputs import labels, outputs
from torcheval.metrics import MulticlassAccuracy

print("torcheval", torcheval.__version__, "torch", torch.__version__)
seen = {}
for name, values in outputs.items():
    chosen = [MulticlassAccuracy(num_classes=10, k=k) for k in (1, 2, 5)]
    for metric in chosen:
        metric.update(torch.tensor(values), torch.tensor(labels))
    seen[name] = [round(metric.compute().item(), 2) for metric in chosen]
print("top-1, top-2, top-5 accuracy; expected at most 0.1, 0.2, 0.5:", seen)
assert list(seen.values()) == [[0.1, 1, 1]] * 2
PYTHON
cat > "$folder/of_keras.py" <<'PYTHON'
import keras
from outputs import labels, outputs

print("Keras", keras.__version__, "on", keras.backend.backend())
seen = {}
for name, values in outputs.items():
    chosen = [keras.metrics.SparseTopKCategoricalAccuracy(k=k) for k in (1, 5)]
    chosen.append(keras.metrics.SparseCategoricalAccuracy())
    for metric in chosen:
        metric.update_state(labels, values)
    seen[name] = [round(float(metric.result()), 2) for metric in chosen]
print("top-1, top-5 and plain accuracy; expected at most 0.1, 0.5, 0.1:", seen)
of_nan = 1 if keras.backend.backend() == "jax" else 0
assert seen == {"NaN": [of_nan, of_nan, 0.1], "equal": [1, 1, 0.1]}
PYTHON
cd "$folder"
export JAX_PLATFORMS=cpu
venv/bin/python -W ignore of_torcheval.py
for backend in jax torch; do
    KERAS_BACKEND=$backend venv/bin/python -W ignore of_keras.py
done
