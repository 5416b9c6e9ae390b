#!/usr/bin/env bash
# torch 2.13.0: RMSprop(centered=True) divides by sqrt(v - m²), a variance that rounding makes negative where gradients
# stay nearly equal: the weights become NaN. In float32 with alpha=0.9 and a constant gradient of 2.3 that takes 136
# steps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch

weight = torch.nn.Parameter(torch.ones(5))
optimizer = torch.optim.RMSprop([weight], lr=1e-3, alpha=0.9, centered=True)
for step in range(1, 201):
    weight.grad = torch.tensor([0.1, 0.3, 0.7, 1.1, 2.3])
    optimizer.step()
    if weight.isnan().any():
        break
print(f"step {step}:", weight.detach())
state = optimizer.state[weight]
print("v - m²:", state["square_avg"] - state["grad_avg"] ** 2)
assert step == 136
assert weight.isnan()[4]
PYTHON
