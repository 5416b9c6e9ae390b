#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0, scikit-learn 1.9.1): binary metrics take scores for logits if any score of the same
# update is outside [0, 1], and else for probabilities, so what they give depends on the batches. The AUROC of a thousand
# logits is 0.744 in batches of 1, 0.806 in batches of 2, and 0.833 (right) in one; accuracy and F1 move as well. In the
# small batches some logits go through a sigmoid and some do not, and then they are ranked against each other.
# One NaN is outside [0, 1] too: among probabilities it turns the predictions for all other samples of its batch to 1.
# And since the sigmoid is 1 in float32 from a logit of 17 on, the AUROC of logits 20 and 30 is that of a tie, 0.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torchmetrics==1.9.0 torch==2.13.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import sklearn
import torch
import torchmetrics
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__, "scikit-learn", sklearn.__version__)
random = np.random.RandomState(0)
logits = random.standard_normal(1000).astype("float32")
labels = (logits + random.standard_normal(1000) > 0).astype(int)


def metrics(size, scores=logits, labels=labels):
    """AUROC, accuracy and F1 of all scores, updated in batches of `size`."""
    chosen = [torchmetrics.AUROC("binary"), torchmetrics.Accuracy("binary"), torchmetrics.F1Score("binary")]
    for start in range(0, len(scores), size):
        for metric in chosen:
            metric.update(torch.tensor(scores[start : start + size]), torch.tensor(labels[start : start + size]))
    return [round(metric.compute().item(), 3) for metric in chosen]


predicted = logits > 0
right = [roc_auc_score(labels, logits), accuracy_score(labels, predicted), f1_score(labels, predicted)]
right = [round(float(value), 3) for value in right]
print("AUROC, accuracy, F1 of 1000 logits; scikit-learn:", *right)
seen = {size: metrics(size) for size in (1, 2, 4, 1000)}
for size, result in seen.items():
    print(f"torchmetrics in batches of {size}:", *result)
assert seen[1000] == right
assert [seen[size][0] for size in (1, 2)] == [0.744, 0.806]
assert all(result < expected - 0.01 for size in (1, 2) for result, expected in zip(seen[size], right))

probabilities, truth = [0.9, 0.8, 0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0, 0, 0]
with_nan = [float("nan"), *probabilities[1:]]
results = [metrics(6, scores, truth)[1] for scores in (probabilities, with_nan)]
print("accuracy without and with one NaN among 6; expected 1.0 and 0.833:", *results)
assert results == [1.0, 0.167]

saturated = [metrics(2, scores, [0, 1])[0] for scores in ([2.0, 3.0], [20.0, 30.0])]
print("AUROC of logits 2 < 3 and 20 < 30; expected 1.0 and 1.0:", *saturated)
assert saturated == [1.0, 0.5]
PYTHON
