"""Captured steps of optimizers: bit for bit those of eager mode, whatever the host decides between them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim
from needle.optim import lr_scheduler
from tests.optim.steps import OPTIMIZERS, assert_same_bits

MORE = {
    "amsgrad": lambda params: optim.Adam(params, amsgrad=True, maximize=True),
    "decoupled": lambda params: optim.NAdam(params, weight_decay=0.1, decoupled_weight_decay=True),
    "rectified": lambda params: optim.RAdam(params, lr=0.05),  # from the sixth step on
    "dampening": lambda params: optim.SGD(params, momentum=0.9, dampening=0.3),
    "maximize": lambda params: optim.SGD(params, maximize=True, weight_decay=0.1),
}


class Run:
    """A small network, its optimizer and a step that may be captured."""

    def __init__(self, make, dtype="float32", captured=True, after=lambda run: None):
        ndl.seed(0)
        self.net = nn.Sequential(nn.Linear(5, 7, dtype=dtype), nn.Tanh(), nn.Linear(7, 3, dtype=dtype))
        self.optimizer = make([*self.net.parameters()])
        self.after, self.dtype = after, dtype
        self.step = ndl.capture(self._step) if captured else self._step

    def _step(self, x, y):
        self.optimizer.reset_grad()
        loss = ((self.net(x) - y) ** 2).mean()
        loss.backward(create_graph=False)
        self.optimizer.step()
        self.after(self)
        return loss

    def run(self, start, stop, between=lambda run, step: None):
        losses = []
        for step in range(start, stop):
            rng = np.random.default_rng(step)
            between(self, step)
            x, y = (ndl.Tensor(rng.standard_normal((4, n)).astype(self.dtype)) for n in (5, 3))
            losses.append(self.step(x, y).item())
        return losses

    def arrays(self):
        return [parameter.numpy() for parameter in self.net.parameters()]


def assert_captured_as_eager(make, between=lambda run, step: None, dtype="float32", steps=12, **options):
    eager, captured = Run(make, dtype, False, **options), Run(make, dtype, True, **options)
    assert captured.run(0, steps, between) == eager.run(0, steps, between)
    assert_same_bits(captured.arrays(), eager.arrays())
    states = captured.optimizer.state_dict(), eager.optimizer.state_dict()
    np.testing.assert_equal(states[0], states[1])
    return captured


def replays(run):
    """How often the recordings of a run that hold still were replayed."""
    return sum(kind.recorded.replays for kind in run.step._kinds.values() if kind.recorded is not None)


@pytest.mark.parametrize("make", (OPTIMIZERS | MORE).values(), ids=OPTIMIZERS | MORE)
def test_every_optimizer_counts_its_steps_and_gives_the_bits_of_eager_ones(make):
    assert replays(assert_captured_as_eager(make)) == 8


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(dtype):
    assert replays(assert_captured_as_eager(lambda params: optim.Adam(params, eps=1e-3), dtype=dtype)) == 8


def two_groups(params):
    return optim.SGD([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}], momentum=0.9)


def test_the_rate_of_a_group_is_heeded():
    def between(run, step):
        run.optimizer.param_groups[1]["lr"] = 0.5 / (step + 1)

    assert replays(assert_captured_as_eager(two_groups, between)) == 8


def test_other_numbers_are_heeded():
    def between(run, step):
        if step == 6:
            run.optimizer.betas, run.optimizer.weight_decay = (0.5, 0.6), 0.3
            run.optimizer.eps = 1e-4

    assert replays(assert_captured_as_eager(lambda params: optim.Adam(params, weight_decay=0.1), between)) == 8


@pytest.mark.parametrize(("options", "change"), [
    ({}, {"weight_decay": 0.1}), ({}, {"maximize": True}), ({"weight_decay": 0.1}, {"weight_decay": 0.0}),
    ({}, {"amsgrad": True}), ({"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
])  # fmt: skip
def test_options_that_change_the_rule_lead_to_another_recording(options, change):
    def between(run, step):
        if step == 6:
            for name, value in change.items():
                setattr(run.optimizer, name, value)

    assert replays(assert_captured_as_eager(lambda params: optim.Adam(params, **options), between)) == 2


def test_a_schedule_between_steps_is_heeded():
    schedules = {}

    def between(run, step):
        if step == 0:
            schedules[run] = lr_scheduler.CosineAnnealingLR(run.optimizer, T_max=10)
        elif step % 2:
            schedules[run].step()

    assert replays(assert_captured_as_eager(two_groups, between)) == 8


def test_a_state_that_is_loaded_between_steps_is_where_the_next_begins():
    states = {}

    def between(run, step):
        if step == 5:
            states[run] = run.optimizer.state_dict(), run.net.state_dict()
        if step == 8:
            run.optimizer.load_state_dict(states[run][0])
            run.net.load_state_dict(states[run][1])

    assert replays(assert_captured_as_eager(optim.Adam, between, steps=14)) == 2


def test_a_resumed_run_goes_on_as_the_first():
    whole = Run(optim.Adam)
    first = whole.run(0, 6)
    state = whole.optimizer.state_dict()
    weights = {name: value.copy() for name, value in whole.net.state_dict().items()}
    rest = whole.run(6, 12)
    resumed = Run(optim.Adam)
    resumed.optimizer.load_state_dict(state)
    resumed.net.load_state_dict(weights)
    assert resumed.run(6, 12) == rest != first
    assert_same_bits(resumed.arrays(), whole.arrays())
    assert state["state"][0]["step"] == 6


def test_a_group_that_is_added_between_steps_is_updated():
    def between(run, step):
        if step == 6:
            extra = ndl.ones(3, requires_grad=True)
            run.optimizer.add_param_group({"params": [extra], "lr": 0.2})

    assert_captured_as_eager(optim.SGD, between)


def test_averages_of_weights():
    averages = {}

    def after(run):
        if run not in averages:
            averages[run] = optim.ExponentialMovingAverage(run.net, decay=0.9)
        averages[run].update()

    def between(run, step):
        if step == 7:
            averages[run].decay = 0.5

    assert replays(assert_captured_as_eager(optim.Adam, between, after=after)) >= 6
    captured, eager = (average.state_dict() for average in averages.values())
    assert captured["n_averaged"] == eager["n_averaged"] == 12
    for name, value in captured["averages"].items():
        np.testing.assert_array_equal(value.numpy(), eager["averages"][name].numpy())


@pytest.mark.parametrize("norm_type", [2.0, 1.0, np.inf])
def test_clipped_gradients(norm_type):
    class Clipped(optim.Adam):
        def step(self):
            nn.utils.clip_grad_norm_(self.params, 0.1, norm_type)
            self.clip_grad_value(0.05)
            super().step()

    assert replays(assert_captured_as_eager(Clipped)) == 8


# ---- what cannot be captured -----------------------------------------------------------------------------------------

REFUSED = {
    "Adam": lambda run: setattr(run.optimizer, "lr", 0.5),
    "load_state_dict": lambda run: run.optimizer.load_state_dict(run.state),
    "state_dict": lambda run: run.optimizer.state_dict(),
    "ExponentialLR": lambda run: run.schedule.step(),
    "clip_grad_norm_": lambda run: nn.utils.clip_grad_norm_(run.optimizer.params, 1.0, error_if_nonfinite=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_host_is_refused_by_name_and_runs_eagerly(name):
    runs = [Run(optim.Adam, captured=captured, after=REFUSED[name]) for captured in (False, True)]
    for run in runs:
        run.state, run.schedule = run.optimizer.state_dict(), lr_scheduler.ExponentialLR(run.optimizer, 0.9)
    losses = runs[0].run(0, 5)
    op = "step" if name == "load_state_dict" else name  # the state of no step at all, which the step begins anew
    with pytest.warns(UserWarning, match=f"^capture: {op}: ") as warned:
        assert runs[1].run(0, 5) == losses
    assert len(warned) == 1
    assert_same_bits(runs[1].arrays(), runs[0].arrays())


def test_a_rule_without_settings_is_refused():
    class Signed(optim.Optimizer):
        def _update(self, theta, grad, state, scratch, group, numbers):
            theta -= group["lr"] / numbers["step"] * np.sign(grad)

    eager, captured = Run(Signed, captured=False), Run(Signed)
    with pytest.warns(UserWarning, match=r"^capture: Signed: .* a rule whose settings are unknown"):
        assert captured.run(0, 5) == eager.run(0, 5)


def with_late_change(make, frozen, capture):
    """The parameters of a run in which one of them takes part from the third call on, or no more."""
    np.random.seed(0)
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
    optimizer = make(model.parameters(), lr=0.01)
    weight = optimizer.params[frozen]

    @capture
    def step(x):
        optimizer.reset_grad()
        loss = ndl.ops.summation(model(x) ** 2)
        loss.backward(create_graph=False)
        optimizer.step()
        return loss

    for i in range(7):
        weight.requires_grad = (frozen == 0) is (i < 2)
        step(ndl.ones(2, 3) * (i * 0.1))
    return [parameter.numpy().tobytes() for parameter in model.parameters()]


@pytest.mark.parametrize("make", [optim.Adam, optim.SGD])
@pytest.mark.parametrize("frozen", [0, 4])
def test_a_state_that_comes_to_be_in_the_recorded_call(make, frozen):
    """An optimizer makes arrays for other parameters: each replay would make them again."""
    eager = with_late_change(make, frozen, lambda step: step)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert with_late_change(make, frozen, ndl.capture) == eager
    causes = [str(warning.message) for warning in caught]
    assert ["a state that an optimizer has only just got" in cause for cause in causes] == [True] * (make is optim.Adam)
