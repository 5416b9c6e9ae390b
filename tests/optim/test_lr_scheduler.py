"""Schedules step for step against torch's, their state, and how they go on from it."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_scheduler

import needle as ndl
from needle import optim
from needle.optim import lr_scheduler

pytestmark = pytest.mark.on_cpu

STEPS = 60


def pair(kind="SGD", rates=(0.5, 0.03), **options):
    """An optimizer of needle and its twin in torch, each with one group per rate."""
    module = {"needle": (optim, lambda: ndl.ones(1)), "torch": (torch.optim, lambda: torch.nn.Parameter(torch.ones(1)))}
    return [
        getattr(library, kind)([{"params": [parameter()], "lr": rate} for rate in rates], lr=1.0, **options)
        for library, parameter in module.values()
    ]


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def track(optimizer, schedule, steps=STEPS, before_step=lambda step, optimizer: None):
    """The rates at first and after each step, and what `get_last_lr` says of them."""
    seen = [rates(optimizer)]
    for step in range(steps):
        before_step(step, optimizer)
        schedule.step()
        seen.append(rates(optimizer))
        assert list(schedule.get_last_lr()) == seen[-1]
    return seen


MADE = {
    "LambdaLR": [
        {"lr_lambda": lambda epoch: 1 / (1 + epoch)},
        {"lr_lambda": [lambda epoch: 0.9**epoch, lambda epoch: epoch % 7]},
    ],
    "MultiplicativeLR": [
        {"lr_lambda": lambda epoch: 0.95},
        {"lr_lambda": [lambda epoch: 1 + 0.1 * math.sin(epoch), lambda epoch: 0.99]},
    ],
    "StepLR": [{"step_size": 7}, {"step_size": 1, "gamma": 0.9}, {"step_size": 30, "gamma": 2}],
    "MultiStepLR": [
        {"milestones": [3, 20, 41]},
        {"milestones": [5, 5, 9, 9, 9], "gamma": 0.3},
        {"milestones": [40, 0, 2], "gamma": 0.7},
        {"milestones": []},
    ],
    "ConstantLR": [
        {},
        {"factor": 0.1, "total_iters": 17},
        {"factor": 1, "total_iters": 1},
        {"factor": 0.7, "total_iters": 99},
    ],
    "LinearLR": [
        {},
        {"start_factor": 0.01, "total_iters": 30},
        {"start_factor": 1, "end_factor": 0.05, "total_iters": 59},
        {"start_factor": 0.3, "end_factor": 0, "total_iters": 7},
        {"start_factor": 0.2, "end_factor": 0.2, "total_iters": 1},
    ],
    "ExponentialLR": [{"gamma": 0.9}, {"gamma": 1.01}],
    "PolynomialLR": [
        {},
        {"total_iters": 40, "power": 2},
        {"total_iters": 100, "power": 0.5},
        {"total_iters": 60, "power": 3},
    ],
    "CosineAnnealingLR": [
        {"T_max": 60},
        {"T_max": 10, "eta_min": 0.001},
        {"T_max": 7},
        {"T_max": 1, "eta_min": 0.01},
        {"T_max": 25, "eta_min": 0.1},
    ],
    "CosineAnnealingWarmRestarts": [
        {"T_0": 10},
        {"T_0": 3, "T_mult": 2, "eta_min": 0.002},
        {"T_0": 1, "T_mult": 3},
        {"T_0": 1},
        {"T_0": 100},
    ],
    "OneCycleLR": [
        {"max_lr": 1.0, "total_steps": 60},
        {"max_lr": [1.0, 0.1], "epochs": 4, "steps_per_epoch": 15, "anneal_strategy": "linear", "pct_start": 0.4},
        {"max_lr": 2.0, "total_steps": 60, "three_phase": True, "div_factor": 10, "final_div_factor": 100.0},
        {"max_lr": 2.0, "total_steps": 61, "three_phase": True, "pct_start": 0.25, "anneal_strategy": "linear"},
        {"max_lr": 1.0, "total_steps": 70, "pct_start": 0.0, "max_momentum": [0.99, 0.9], "base_momentum": [0.5, 0.6]},
        {"max_lr": 1.0, "total_steps": 99, "cycle_momentum": False, "pct_start": 1.0},
    ],
}
CASES = [
    pytest.param(kind, options, id=f"{kind}-{i}")
    for kind, settings in MADE.items()
    for i, options in enumerate(settings)
]
every_schedule = pytest.mark.parametrize(("kind", "options"), CASES)


def make_pair(kind, options, optimizers):
    """The schedules of needle and torch for these optimizers; torch warns of one that steps without its optimizer."""
    schedules = [getattr(lr_scheduler, kind)(optimizers[0], **options)]
    schedules.append(getattr(torch_scheduler, kind)(optimizers[1], **options))
    optimizers[1]._opt_called = True
    return schedules


def steps_of(options):
    """How many steps a schedule can do. At the last of a line that ends, torch's rate is negative."""
    return min(STEPS, options.get("total_steps", STEPS)) - (options.get("anneal_strategy") == "linear")


def assert_equal(seen, expected):
    np.testing.assert_allclose(seen, expected, rtol=1e-12, atol=1e-16)


@every_schedule
def test_steps_are_torchs(kind, options):
    ours, theirs = pair(momentum=0.9, dampening=0)
    schedule, twin = make_pair(kind, options, (ours, theirs))
    steps = steps_of(options)
    seen = track(ours, schedule, steps)
    assert_equal(seen, track(theirs, twin, steps))
    assert schedule.last_epoch == twin.last_epoch == steps
    assert_equal([group["momentum"] for group in ours.param_groups], [g["momentum"] for g in theirs.param_groups])


@every_schedule
def test_rates_that_change_in_between_are_torchs(kind, options):
    ours, theirs = pair(momentum=0.9, dampening=0)
    schedule, twin = make_pair(kind, options, (ours, theirs))

    def change(step, optimizer):
        if step in (4, 23):
            optimizer.param_groups[0]["lr"] *= 0.6
            optimizer.param_groups[1]["lr"] = 0.02

    steps = steps_of(options)
    assert_equal(track(ours, schedule, steps, change), track(theirs, twin, steps, change))


@every_schedule
@pytest.mark.parametrize("done", [0, 10])
def test_a_loaded_state_goes_on_exactly(kind, options, done):
    optimizer, _ = pair(momentum=0.9, dampening=0)
    schedule = getattr(lr_scheduler, kind)(optimizer, **options)
    track(optimizer, schedule, done)
    state = json.loads(json.dumps(schedule.state_dict()))
    again, _ = pair(rates=(0.7, 0.7), momentum=0.9, dampening=0)
    resumed = getattr(lr_scheduler, kind)(again, **options)
    copy_groups(optimizer, again)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == schedule.state_dict()
    assert track(again, resumed, steps_of(options) - done) == track(optimizer, schedule, steps_of(options) - done)
    assert again.momentum == optimizer.momentum


def copy_groups(source, target):
    for group, kept in zip(target.param_groups, source.param_groups, strict=True):
        group.update({name: value for name, value in kept.items() if name != "params"})


@every_schedule
def test_a_schedule_made_with_last_epoch_goes_on(kind, options):
    """From any epoch, as the uninterrupted schedule does; torch's steps twice where a step falls on it."""
    optimizer, _ = pair(momentum=0.9, dampening=0)
    schedule = getattr(lr_scheduler, kind)(optimizer, **options)
    for epoch in range(1, 12):
        schedule.step()
        again, _ = pair(momentum=0.9, dampening=0)
        copy_groups(optimizer, again)
        resumed = getattr(lr_scheduler, kind)(again, **options, last_epoch=epoch - 1)
        assert resumed.state_dict() == schedule.state_dict()
        assert_equal(rates(again), rates(optimizer))


def test_the_signatures_are_torchs():
    kinds = [*MADE, "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau", "LRScheduler"]
    assert sorted(kinds) == lr_scheduler.__all__
    for kind in kinds:
        signatures = [inspect.signature(getattr(m, kind)).parameters for m in (lr_scheduler, torch_scheduler)]
        ours, theirs = [[(name, p.default, p.kind) for name, p in each.items()] for each in signatures]
        assert ours == theirs


# ---- functions of the epoch ------------------------------------------------------------------------------------------


class Halving:
    """A function with a state: how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 0.5**self.calls


@pytest.mark.parametrize("kind", ["LambdaLR", "MultiplicativeLR"])
def test_a_function_with_attributes_is_saved_with_them(kind):
    schedules = []
    for calls in (0, 9):
        optimizer, _ = pair()
        function = Halving()
        schedules.append(getattr(lr_scheduler, kind)(optimizer, [function, lambda epoch: 1.0]))
        function.calls += calls
    schedule, other = schedules
    track(schedule.optimizer, schedule, 5)
    state = schedule.state_dict()
    assert state["lr_lambdas"] == [{"calls": schedule.lr_lambdas[0].calls}, None]
    schedule.step()
    copy_groups(schedule.optimizer, other.optimizer)
    other.load_state_dict(state)
    assert other.lr_lambdas[0].calls == schedule.lr_lambdas[0].calls - 1
    other.step()
    assert state["lr_lambdas"][0] == {"calls": schedule.lr_lambdas[0].calls - 1}  # the state is a copy


# ---- one cycle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MADE["OneCycleLR"])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_momentum_cycles_as_torchs(kind, options):
    options = options | {"max_momentum": [0.97, 0.9], "base_momentum": 0.8}
    ours, theirs = pair(kind, **({"momentum": 0.5, "dampening": 0} if kind == "SGD" else {"betas": (0.5, 0.99)}))
    schedule, twin = make_pair("OneCycleLR", options, (ours, theirs))
    key = "momentum" if kind == "SGD" else "betas"
    for _ in range(steps_of(options)):
        for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert_equal(group[key], other[key])
        schedule.step()
        twin.step()
    assert ours.param_groups[0][key] != pair(kind)[0].param_groups[0][key]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_ends_one_step_behind_its_end(strategy):
    """A loop that steps after every batch is then one step beyond the curve; one more is an error, as in torch."""
    ours, theirs = pair(momentum=0.9, dampening=0)
    schedule, twin = make_pair(
        "OneCycleLR", {"max_lr": 1.0, "total_steps": 10, "anneal_strategy": strategy}, (ours, theirs)
    )
    for _ in range(10):
        last = rates(ours)
        schedule.step()
        twin.step()
    if strategy == "cos":
        assert_equal(rates(ours), rates(theirs))
    else:
        assert rates(ours) == last
        assert min(rates(theirs)) < 0
    before = schedule.state_dict(), rates(ours)
    with pytest.raises(ValueError, match=r"^OneCycleLR: step must stay within total_steps=10, but got 11$"):
        schedule.step()
    with pytest.raises(ValueError, match="10"):
        twin.step()
    assert (schedule.state_dict(), rates(ours)) == before


@pytest.mark.parametrize("options", [{"pct_start": 0.1}, {"pct_start": 1.0}, {"pct_start": 0.1, "three_phase": True}])
def test_one_cycle_with_a_phase_without_steps(options):
    """torch divides by 0."""
    optimizer, _ = pair(momentum=0.9, dampening=0)
    seen = track(optimizer, lr_scheduler.OneCycleLR(optimizer, 1.0, 10, **options), 10)
    assert seen[0 if options["pct_start"] == 0.1 else 9] == [1.0, 1.0]
    assert all(0 < rate <= 1 for entry in seen for rate in entry)


# ---- sequences and chains --------------------------------------------------------------------------------------------


def warm_up(library, optimizer):
    return library.LinearLR(optimizer, 0.1, total_iters=9)


SEQUENCES = {
    "warm-up, cosine": ([warm_up, lambda m, o: m.CosineAnnealingLR(o, 51, eta_min=0.001)], [9]),
    "three": ([warm_up, lambda m, o: m.StepLR(o, 4, 0.5), lambda m, o: m.ExponentialLR(o, 0.9)], [9, 30]),
    "repeated milestone": (
        [warm_up, lambda m, o: m.ConstantLR(o, 0.5, 8), lambda m, o: m.PolynomialLR(o, 30)],
        [12, 12],
    ),
    "from 0": ([warm_up, lambda m, o: m.MultiStepLR(o, [0, 3, 3], 0.8)], [0]),
    "restarts": ([warm_up, lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, 2, 0.01)], [20]),
    "functions": (
        [lambda m, o: m.LambdaLR(o, lambda e: 1 / (1 + e)), lambda m, o: m.MultiplicativeLR(o, lambda e: 0.9)],
        [10],
    ),
    "one cycle": ([warm_up, lambda m, o: m.OneCycleLR(o, 2.0, 60)], [5]),
    "one cycle first": ([lambda m, o: m.OneCycleLR(o, 2.0, 60), warm_up], [40]),
    "one": ([warm_up], []),
}


@pytest.mark.parametrize(("makers", "milestones"), SEQUENCES.values(), ids=SEQUENCES)
def test_sequences_are_torchs_and_go_on_exactly(makers, milestones):
    (ours, theirs), (again, _) = pair(momentum=0.9, dampening=0), pair(momentum=0.9, dampening=0)
    theirs._opt_called = True
    schedule, twin, resumed = [
        library.SequentialLR(optimizer, [make(library, optimizer) for make in makers], milestones)
        for library, optimizer in ((lr_scheduler, ours), (torch_scheduler, theirs), (lr_scheduler, again))
    ]
    expected = track(theirs, twin)
    assert_equal(track(ours, schedule, 22), expected[:23])
    copy_groups(ours, again)
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert track(again, resumed, STEPS - 22) == track(ours, schedule, STEPS - 22)
    assert_equal(rates(again), expected[-1])
    assert resumed.last_epoch == STEPS


def test_sequences_nest():
    """torch switches the inner one a step early, and fails if it is not the first."""

    def constant(optimizer, factor):
        return lr_scheduler.ConstantLR(optimizer, factor, 100)

    optimizer, _ = pair(rates=(1.0,))
    inner = lr_scheduler.SequentialLR(optimizer, [constant(optimizer, 0.5), constant(optimizer, 0.25)], [3])
    other = lr_scheduler.SequentialLR(optimizer, [constant(optimizer, 0.125), constant(optimizer, 0.75)], [2])
    schedule = lr_scheduler.SequentialLR(optimizer, [inner, other], [5])
    seen = [rate for (rate,) in track(optimizer, schedule, 9)]
    assert seen == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.75, 0.75, 0.75]


def chain(library, optimizer):
    schedules = [library.ConstantLR(optimizer, 0.1, 4), library.ExponentialLR(optimizer, 0.9)]
    return library.ChainedScheduler([*schedules, library.MultiStepLR(optimizer, [6, 20])])


def test_chains_are_torchs_and_go_on_exactly():
    (ours, theirs), (again, _) = pair(), pair()
    theirs._opt_called = True
    schedule, twin = chain(lr_scheduler, ours), chain(torch_scheduler, theirs)
    expected = track(theirs, twin)
    assert_equal(track(ours, schedule, 15), expected[:16])
    resumed = chain(lr_scheduler, again)
    copy_groups(ours, again)
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert_equal(track(again, resumed, STEPS - 15), expected[15:])
    assert resumed.last_epoch == STEPS


def test_chains_in_sequences():
    """Each schedule of the chain begins anew; torch's skip their start."""
    optimizer, _ = pair(rates=(1.0,))
    schedule = lr_scheduler.SequentialLR(
        optimizer, [chain(lr_scheduler, optimizer), chain(lr_scheduler, optimizer)], [5]
    )
    seen = [rate for (rate,) in track(optimizer, schedule, 9)]
    assert_equal(seen, [0.1, 0.09, 0.081, 0.0729, 0.9**4] * 2)


def test_a_step_that_one_of_a_chain_refuses_changes_nothing():
    optimizer, _ = pair(momentum=0.9, dampening=0)
    cycle, decay = lr_scheduler.OneCycleLR(optimizer, 1.0, 9), lr_scheduler.ExponentialLR(optimizer, 0.5)
    ending = lr_scheduler.LambdaLR(optimizer, lambda epoch: 3 - epoch)
    schedule = lr_scheduler.ChainedScheduler([cycle, decay, ending])
    track(optimizer, schedule, 3)
    before = schedule.state_dict(), [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ValueError, match=r"^LambdaLR: lr must lie in \[0, inf\], but got -"):
        schedule.step()
    assert (schedule.state_dict(), [dict(group) for group in optimizer.param_groups]) == before


def test_a_step_is_refused_at_any_depth_and_then_possible_again():
    """A group that is added may be the reason, or come with it."""
    optimizer, _ = pair()
    factors = [lambda epoch: 1.0] * 2
    inner = lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(optimizer, 0.5), lr_scheduler.LambdaLR(optimizer, factors)]
    )
    schedule = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer, 0.5), inner], [1])
    optimizer.add_param_group({"params": [ndl.ones(1)], "lr": 0.25})
    parts = [(vars(part), {**vars(part)}) for part in schedule._parts()]
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ValueError, match=r"^LambdaLR: lr_lambda must have one entry for each of 3 groups, but got 2$"):
        schedule.step()
    assert optimizer.param_groups == before
    assert all(now == kept for now, kept in parts)
    inner._schedulers[1].lr_lambdas.append(factors[0])
    schedule.step()
    assert_equal(rates(optimizer), [0.5, 0.03, 0.25])


@pytest.mark.parametrize("begin", [1, 4])
def test_a_group_that_is_added_before_a_milestone_takes_part(begin):
    optimizer, _ = pair()
    decay = lr_scheduler.ExponentialLR(optimizer, 0.5)
    schedule = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ExponentialLR(optimizer, 0.1), decay], [begin])
    track(optimizer, schedule, begin - 1)
    optimizer.add_param_group({"params": [ndl.ones(1)], "lr": 0.25})
    schedule.step()
    assert_equal(rates(optimizer), [0.5, 0.03, 0.25])


# ---- a metric --------------------------------------------------------------------------------------------------------

PLATEAUS = [
    {"patience": 2},
    {"mode": "max", "patience": 3, "factor": 0.5},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "cooldown": 3},
    {"mode": "max", "patience": 0, "threshold": 0.01, "threshold_mode": "abs", "min_lr": [0.1, 0.001]},
    {"patience": 0, "cooldown": 1, "factor": 0.7, "min_lr": 0.02},
    {"patience": 0, "eps": 0.05, "factor": 0.8, "threshold": 0},
]


@pytest.mark.parametrize("options", PLATEAUS)
@pytest.mark.parametrize("seed", range(2))
def test_a_plateau_is_torchs_and_goes_on_exactly(options, seed):
    (ours, theirs), (again, _) = pair(), pair()
    schedule, twin = make_pair("ReduceLROnPlateau", options, (ours, theirs))
    resumed = lr_scheduler.ReduceLROnPlateau(again, **options)
    noise = np.random.default_rng(seed).standard_normal(STEPS)
    metrics = np.where(np.arange(STEPS) == 17, np.nan, np.exp(-np.arange(STEPS) / 15) + 0.1 * noise)
    for step, metric in enumerate(metrics):
        schedule.step(metric)
        twin.step(metric)
        assert rates(ours) == rates(theirs) == schedule.get_last_lr()
        assert (schedule.best, schedule.num_bad_epochs) == (twin.best, twin.num_bad_epochs)
        assert (schedule.cooldown_counter, schedule.last_epoch) == (twin.cooldown_counter, twin.last_epoch)
        if step == 20:
            resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
            copy_groups(ours, again)
        if step > 20:
            resumed.step(metric)
    assert rates(again) == rates(ours) != rates(pair()[0])
    assert resumed.state_dict() == schedule.state_dict()


def test_a_metric_may_be_a_tensor():
    optimizer, _ = pair()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for loss in (ndl.Tensor(2.0), ndl.Tensor([2.0]), np.float32(2.0), 2):
        schedule.step(loss)
    assert_equal(rates(optimizer), [0.5e-3, 0.03e-3])


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_that_is_added_later_takes_part():
    """Its first rate is its base rate."""
    (ours, theirs) = pair()
    schedules = make_pair("StepLR", {"step_size": 2}, (ours, theirs))
    cosine = lr_scheduler.CosineAnnealingLR(ours, 4)
    ours.add_param_group({"params": [ndl.ones(1)], "lr": 0.25})
    theirs.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.25})
    state = schedules[0].state_dict()
    schedules[0].load_state_dict(state)
    assert state["base_lrs"] == [0.5, 0.03, 0.25]
    for schedule in schedules * 3:
        schedule.step()
    assert_equal(rates(ours), rates(theirs))
    cosine.step()
    assert cosine.base_lrs == schedules[0].base_lrs == [0.5, 0.03, 0.25]


def test_a_plateau_reduces_a_group_that_is_added_later():
    optimizer, _ = pair()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.02)
    optimizer.add_param_group({"params": [ndl.ones(1)], "lr": 0.25})
    for _ in range(2):
        schedule.step(1.0)
    assert_equal(rates(optimizer), [0.05, 0.02, 0.025])


def test_a_schedule_of_ones_own():
    class SquareRoot(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base / math.sqrt(1 + self.last_epoch) for base in self.base_lrs]

    optimizer, _ = pair(rates=(1.0,))
    assert track(optimizer, SquareRoot(optimizer), 3)[-1] == [0.5]
