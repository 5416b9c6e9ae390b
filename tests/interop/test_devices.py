"""Weights and optimizers of models on other devices."""

import numpy as np
import torch

import needle as ndl
import needle.interop.torch as interop
from needle import nn, optim


def test_models_of_any_device_go_both_ways(device):
    theirs = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2)).double()
    mine = nn.Sequential(nn.BatchNorm1d(3, device=device), nn.Linear(3, 2, device=device)).double()
    rules = torch.optim.Adam(theirs.parameters()), optim.Adam(mine.parameters())
    x = np.arange(12, dtype="float64").reshape(4, 3) / 8
    for i in range(3):
        theirs.zero_grad()
        (theirs(torch.tensor(x)) ** 3).sum().backward()
        if not i:
            rules[0].step()
            interop.load_state_dict(mine, theirs.state_dict())
            interop.load_optimizer_state_dict(mine, rules[1], rules[0].state_dict(), theirs.state_dict())
            continue
        (mine(ndl.Tensor(x, device=device)) ** 3).sum().backward(create_graph=False)
        for rule in rules:
            rule.step()
    assert all(parameter.device == device for parameter in mine.parameters())
    state = interop.state_dict(mine)
    for name, value in theirs.named_parameters():
        np.testing.assert_allclose(state[name], value.detach().numpy(), rtol=1e-9)
    moments = interop.optimizer_state_dict(mine, rules[1], theirs.state_dict())["state"][0]
    np.testing.assert_allclose(moments["exp_avg"], rules[0].state_dict()["state"][0]["exp_avg"].numpy(), atol=1e-12)
