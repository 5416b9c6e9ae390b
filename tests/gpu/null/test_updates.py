"""Steps of optimizers and dropout on the null device: what they launch and transfer, and how a run goes on."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim
from needle.nn import functional
from tests.gpu.null import device
from tests.optim.steps import OPTIMIZERS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]
GPU = ndl.cuda()
SHAPES = [(16, 3, 3, 3), (16,), (40, 10), (1, 10)] * 5


def parameters(place, dtype="float32"):
    rng = np.random.default_rng(0)
    return [ndl.Tensor(rng.standard_normal(shape).astype(dtype), device=place) for shape in SHAPES]


def give_gradients(params, seed):
    rng = np.random.default_rng(seed)
    for parameter in params:
        parameter.grad = ndl.Tensor(rng.standard_normal(parameter.shape).astype("float32"), device=parameter.device)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_is_one_launch_without_transfers(make):
    from tests.gpu.null.counts import counting

    params = parameters(GPU)
    optimizer = make(params)
    for step in range(3):
        give_gradients(params, step)
        with counting() as counts:
            optimizer.step()
    assert (counts.launches, counts.uploads, counts.downloads, counts.waits) == (1, 0, 0, 0)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_steps_are_the_cpus_and_go_on_from_a_state(make):
    here, there, resumed = parameters(ndl.cpu()), parameters(GPU), parameters(GPU)
    optimizers = [make(here), make(there), make(resumed)]
    for step in range(6):
        if step == 3:
            for parameter, other in zip(resumed, there, strict=True):
                parameter.data = other.detach()
            optimizers[2].load_state_dict(optimizers[1].state_dict())
        for params, optimizer in zip((here, there, resumed), optimizers, strict=True):
            give_gradients(params, step)
            if step >= 3 or params is not resumed:
                optimizer.step()
    for a, b, c in zip(here, there, resumed, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(c.numpy(), b.numpy())


@pytest.mark.parametrize("shape", [(64, 100), (8, 16, 5, 5)])
def test_dropout_is_one_launch_each_way_without_transfers(shape):
    from tests.gpu.null.counts import counting

    x = ndl.ones(*shape, device=GPU, requires_grad=True)
    out_grad = ndl.ones(*shape, device=GPU)
    functional.dropout(x, 0.3)
    with counting() as counts:
        y = functional.dropout(x, 0.3)
    assert (counts.launches, counts.uploads, counts.waits) == (1, 0, 0)
    with counting() as counts:
        y.backward(out_grad, create_graph=False)
    assert (counts.launches, counts.uploads, counts.waits) == (1, 0, 0)
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    if len(shape) == 4:
        with counting() as counts:
            nn.Dropout2d(0.5)(x)
        assert (counts.launches, counts.uploads) == (1, 0)


def test_averages_of_weights_are_one_launch():
    from tests.gpu.null.counts import counting

    average = optim.ExponentialMovingAverage(nn.Sequential(*[nn.Linear(3, 4, device=GPU) for _ in range(6)]))
    average.update()
    with counting() as counts:
        average.update()
    assert (counts.launches, counts.uploads, counts.waits) == (1, 0, 0)


class Clipped(optim.Adam):
    """Adam on clipped gradients."""

    def step(self):
        self.clip_grad_norm(0.5)
        super().step()


@pytest.mark.parametrize("kind", [optim.Adam, optim.RAdam, Clipped])
def test_captured_steps_are_the_eager_ones(kind):
    runs = []
    for captured in (False, True):
        ndl.seed(0)
        net = nn.Sequential(nn.Linear(6, 8, device=GPU), nn.ReLU(), nn.Dropout1d(0.3), nn.Linear(8, 3, device=GPU))
        optimizer = kind([{"params": [net[0].weight], "lr": 0.1}, {"params": [*net.parameters()][1:]}])

        def step(x, net=net, optimizer=optimizer):
            optimizer.reset_grad()
            loss = (net(functional.dropout(x, 0.2).reshape((2, 2, 6))) ** 2).mean()
            loss.backward(create_graph=False)
            optimizer.step()
            return loss

        step, losses = ndl.capture(step) if captured else step, []
        for number in range(10):
            if number == 6:
                optimizer.param_groups[1]["lr"] = 0.5
            x = np.random.RandomState(number).standard_normal((4, 6)).astype("float32")
            losses.append(step(ndl.Tensor(x, device=GPU, requires_grad=False)).item())
        runs.append((losses, [parameter.numpy().tolist() for parameter in net.parameters()], optimizer.state_dict()))
        if captured:
            assert [entry.recorded.replays for entry in step._kinds.values()] == [7]
    np.testing.assert_equal(runs[1], runs[0])


def test_gradients_are_clipped_by_their_norm_in_two_launches():
    from tests.gpu.null.counts import counting

    params = parameters(GPU)
    give_gradients(params, 0)
    nn.utils.clip_grad_norm_(params, 0.5)
    with counting() as counts:
        nn.utils.clip_grad_norm_(params, 0.5)
    assert (counts.launches, counts.uploads, counts.downloads, counts.waits) == (2, 0, 0, 0)
