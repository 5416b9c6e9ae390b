"""What schedules refuse, and that nothing has changed then. `ERRORS` is part of the table in tests/test_errors.py."""

from __future__ import annotations

import pytest

import needle as ndl
from needle import optim
from needle.optim import lr_scheduler as lrs

pytestmark = pytest.mark.on_cpu


def sgd(groups=1, lr=0.5, **options):
    return optim.SGD([{"params": [ndl.ones(1)], "lr": lr} for _ in range(groups)], **options)


def load(kind, *arguments, optimizer=None, **changes):
    """Load a schedule's own state with other entries; None removes one."""
    schedule = kind(optimizer or sgd(), *arguments)
    state = schedule.state_dict() | changes
    schedule.load_state_dict({name: value for name, value in state.items() if value is not None})


def chained(*makers):
    optimizer = sgd()
    return lrs.ChainedScheduler([make(optimizer) for make in makers])


def exponential(optimizer=None):
    return lrs.ExponentialLR(optimizer or sgd(), 0.9)


def metric(value):
    lrs.ReduceLROnPlateau(sgd()).step(value)


def grown(make):
    """A step after a group was added."""
    optimizer = sgd()
    schedule = make(optimizer)
    optimizer.add_param_group({"params": [ndl.ones(1)]})
    schedule.step(*[1.0] * isinstance(schedule, lrs.ReduceLROnPlateau))


def shrunk(make):
    """A step after a group was removed."""
    optimizer = sgd(2)
    schedule = make(optimizer)
    optimizer.param_groups.pop()
    schedule.step()


def plateau_with_a_rate(rate):
    """A step that would reduce a rate that is none; it counts nothing."""
    schedule = lrs.ReduceLROnPlateau(sgd(), patience=0)
    schedule.step(1.0)
    schedule.optimizer.param_groups[0]["lr"] = rate
    before = schedule.state_dict()
    try:
        schedule.step(2.0)
    finally:
        assert schedule.state_dict() == before


def sequence(milestones, count=2):
    optimizer = sgd()
    return lrs.SequentialLR(optimizer, [exponential(optimizer) for _ in range(count)], milestones)


ERRORS = [
    (lambda: lrs.StepLR("SGD", 3), TypeError, "StepLR: optimizer must be a Optimizer, but got str"),
    (lambda: lrs.StepLR(sgd(), 3, last_epoch=-2), ValueError, "StepLR: last_epoch must be at least -1, but got -2"),
    (lambda: lrs.StepLR(sgd(), 3, last_epoch=2), ValueError,
     "StepLR: with last_epoch each group must have an initial_lr, but got group 0 without one"),
    (lambda: lrs.StepLR(sgd(), 0), ValueError, "StepLR: step_size must be at least 1, but got 0"),
    (lambda: lrs.StepLR(sgd(), 2.5), TypeError, "StepLR: step_size must be an integer, but got 2.5"),
    (lambda: lrs.StepLR(sgd(), 1, -1), ValueError, "StepLR: gamma must lie in [0, inf], but got -1"),
    (lambda: setattr(lrs.StepLR(sgd(), 1), "gamma", "a"), TypeError, "StepLR: gamma must be a number, but got 'a'"),
    (lambda: lrs.MultiStepLR(sgd(), 3), TypeError, "MultiStepLR: milestones must be a list of integers, but got 3"),
    (lambda: lrs.MultiStepLR(sgd(), [3.0]), TypeError, "MultiStepLR: milestones must be an integer, but got 3.0"),
    (lambda: lrs.MultiStepLR(sgd(), [3, -1]), ValueError, "MultiStepLR: milestones must be at least 0, but got -1"),
    (lambda: lrs.ConstantLR(sgd(), 0), ValueError, "ConstantLR: factor must lie in (0, 1], but got 0"),
    (lambda: lrs.ConstantLR(sgd(), total_iters=0), ValueError, "ConstantLR: total_iters must be at least 1, but got 0"),
    (lambda: lrs.LinearLR(sgd(), 0), ValueError, "LinearLR: start_factor must lie in (0, 1], but got 0"),
    (lambda: lrs.LinearLR(sgd(), end_factor=1.5), ValueError, "LinearLR: end_factor must lie in [0, 1], but got 1.5"),
    (lambda: lrs.ExponentialLR(sgd(), float("inf")), ValueError, "ExponentialLR: gamma must be finite, but got inf"),
    (lambda: lrs.PolynomialLR(sgd(), power=-1), ValueError, "PolynomialLR: power must lie in [0, inf], but got -1"),
    (lambda: lrs.CosineAnnealingLR(sgd(), 0), ValueError, "CosineAnnealingLR: T_max must be at least 1, but got 0"),
    (lambda: lrs.CosineAnnealingWarmRestarts(sgd(), 5, 1.5), TypeError,
     "CosineAnnealingWarmRestarts: T_mult must be an integer, but got 1.5"),
    (lambda: lrs.LambdaLR(sgd(), 0.5), TypeError,
     "LambdaLR: lr_lambda must be a function or a list of functions, but got 0.5"),
    (lambda: lrs.LambdaLR(sgd(2), [abs]), ValueError,
     "LambdaLR: lr_lambda must have one entry for each of 2 groups, but got 1"),
    (lambda: lrs.LambdaLR(sgd(), lambda epoch: -1), ValueError, "LambdaLR: lr must lie in [0, inf], but got -0.5"),
    (lambda: lrs.LambdaLR(sgd(), lambda epoch: float("nan")), ValueError,
     "LambdaLR: lr must lie in [0, inf], but got nan"),
    (lambda: lrs.LRScheduler(sgd()), NotImplementedError, "LRScheduler: get_lr is not defined"),
    (lambda: lrs.base.RecursiveScheduler(sgd()), NotImplementedError, "RecursiveScheduler: _next_lr is not defined"),
    (lambda: grown(lambda o: lrs.LambdaLR(o, abs)), ValueError,
     "LambdaLR: lr_lambda must have one entry for each of 2 groups, but got 1"),
    # ---- one cycle
    (lambda: lrs.OneCycleLR(sgd(), 1.0, epochs=3), ValueError,
     "OneCycleLR: total_steps, or both epochs and steps_per_epoch, must be given, but got None, 3 and None"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, epochs=3, steps_per_epoch=0), ValueError,
     "OneCycleLR: steps_per_epoch must be at least 1, but got 0"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 0), ValueError, "OneCycleLR: total_steps must be at least 1, but got 0"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, pct_start=1.1), ValueError,
     "OneCycleLR: pct_start must lie in [0, 1], but got 1.1"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, anneal_strategy="cosine"), ValueError,
     "OneCycleLR: anneal_strategy must be one of 'cos', 'linear', but got 'cosine'"),
    (lambda: lrs.OneCycleLR(sgd(2), [1.0], 9), ValueError,
     "OneCycleLR: max_lr must have one entry for each of 2 groups, but got 1"),
    (lambda: lrs.OneCycleLR(sgd(), "1", 9), TypeError, "OneCycleLR: max_lr must be a number, but got '1'"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, div_factor=0), ValueError,
     "OneCycleLR: div_factor must lie in (0, inf], but got 0"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, three_phase=1), TypeError,
     "OneCycleLR: three_phase must be a bool, but got int"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, last_epoch=-2), ValueError,
     "OneCycleLR: last_epoch must be at least -1, but got -2"),
    (lambda: lrs.OneCycleLR(sgd(), 1.0, 9, last_epoch=3), ValueError,
     "OneCycleLR: with last_epoch each group must have an initial_lr, but got group 0 without one"),
    (lambda: lrs.OneCycleLR(optim.Optimizer([ndl.ones(1)]), 1.0, 9), ValueError,
     "OneCycleLR: with cycle_momentum the optimizer must have a momentum, but got Optimizer"),
    (lambda: [s.step() for s in [lrs.OneCycleLR(sgd(), 1.0, 2)] * 3], ValueError,
     "OneCycleLR: step must stay within total_steps=2, but got 3"),
    (lambda: grown(lambda o: lrs.OneCycleLR(o, 1.0, 9)), ValueError,
     "OneCycleLR: max_lr must have one entry for each of 2 groups, but got 1"),
    # ---- sequences and chains
    (lambda: lrs.SequentialLR(1, [], []), TypeError, "SequentialLR: optimizer must be a Optimizer, but got int"),
    (lambda: lrs.SequentialLR(sgd(), [], []), ValueError,
     "SequentialLR: schedulers must hold at least one, but got none"),
    (lambda: lrs.SequentialLR(sgd(), exponential(), []), TypeError,
     "SequentialLR: schedulers must be a list of schedulers, but got ExponentialLR"),
    (lambda: lrs.SequentialLR(sgd(), [0.1], []), TypeError,
     "SequentialLR: each of schedulers must be a LRScheduler, but got float"),
    (lambda: lrs.SequentialLR(sgd(), [exponential()], []), ValueError,
     "SequentialLR: schedulers must have the same optimizer, but ExponentialLR has another one"),
    (lambda: lrs.ChainedScheduler([lrs.ReduceLROnPlateau(sgd())]), ValueError,
     "ChainedScheduler: schedulers must step without a metric, but got a ReduceLROnPlateau"),
    (lambda: lrs.ChainedScheduler([exponential(), exponential()]), ValueError,
     "ChainedScheduler: schedulers must have the same optimizer, but ExponentialLR has another one"),
    (lambda: sequence([3, 2], 3), ValueError,
     "SequentialLR: milestones must be sorted and one fewer than schedulers, but got [3, 2] for 3"),
    (lambda: sequence([3, 4]), ValueError,
     "SequentialLR: milestones must be sorted and one fewer than schedulers, but got [3, 4] for 2"),
    (lambda: lrs.SequentialLR(sgd(), [], [], last_epoch=4), ValueError,
     "SequentialLR: last_epoch must be -1 (load_state_dict goes on), but got 4"),
    # ---- a metric
    (lambda: lrs.ReduceLROnPlateau(sgd(), "least"), ValueError,
     "ReduceLROnPlateau: mode must be one of 'min', 'max', but got 'least'"),
    (lambda: lrs.ReduceLROnPlateau(sgd(), factor=1.0), ValueError,
     "ReduceLROnPlateau: factor must lie in [0, 1), but got 1.0"),
    (lambda: lrs.ReduceLROnPlateau(sgd(), patience=-1), ValueError,
     "ReduceLROnPlateau: patience must be at least 0, but got -1"),
    (lambda: lrs.ReduceLROnPlateau(sgd(), threshold_mode="relative"), ValueError,
     "ReduceLROnPlateau: threshold_mode must be one of 'rel', 'abs', but got 'relative'"),
    (lambda: lrs.ReduceLROnPlateau(sgd(), min_lr=[0.1, 0.1]), ValueError,
     "ReduceLROnPlateau: min_lr must have one entry for each of 1 groups, but got 2"),
    (lambda: grown(lambda o: lrs.ReduceLROnPlateau(o, min_lr=[0.1])), ValueError,
     "ReduceLROnPlateau: min_lr must have one entry for each of 2 groups, but got 1"),
    (lambda: shrunk(exponential), ValueError,
     "ExponentialLR: base_lrs must have one entry for each of 1 groups, but got 2"),
    (lambda: metric("0.5"), TypeError, "ReduceLROnPlateau: metrics must be a number, but got '0.5'"),
    (lambda: plateau_with_a_rate("high"), TypeError, "ReduceLROnPlateau: lr must be a number, but got 'high'"),
    (lambda: metric(None), TypeError, "ReduceLROnPlateau: metrics must be a number, but got None"),
    # ---- states
    (lambda: exponential().load_state_dict([]), TypeError, "ExponentialLR: state must be a Mapping, but got list"),
    (lambda: load(exponential, gamma=None), ValueError,
     ("ExponentialLR: the state must have the entries last_epoch, base_lrs, _last_lr, gamma, but got last_epoch, "
     "base_lrs, _last_lr")),
    (lambda: load(exponential, gamma="0.9"), TypeError, "ExponentialLR: gamma must be a number, but got '0.9'"),
    (lambda: load(exponential, last_epoch=-3), ValueError, "ExponentialLR: last_epoch must be at least -1, but got -3"),
    (lambda: load(exponential, base_lrs=0.5), TypeError,
     "ExponentialLR: base_lrs must be a list of numbers, but got 0.5"),
    (lambda: load(exponential, base_lrs=[1, 2]), ValueError,
     "ExponentialLR: base_lrs must have one entry for each of 1 groups, but got 2"),
    (lambda: load(lrs.LambdaLR, abs, lr_lambdas=[]), ValueError,
     "LambdaLR: lr_lambdas must have one entry for each of 1 groups, but got 0"),
    (lambda: load(lrs.LambdaLR, abs, lr_lambdas=None), TypeError,
     "LambdaLR: lr_lambdas must be a list, but got NoneType"),
    (lambda: load(lrs.LambdaLR, abs, lr_lambdas=[0]), TypeError,
     "LambdaLR: each of lr_lambdas must be a dict, but got int"),
    (lambda: load(lrs.LambdaLR, abs, lr_lambdas=[{"scale": 2}]), ValueError,
     "LambdaLR: lr_lambdas must be objects as they were for the state, but got <built-in function abs>"),
    (lambda: load(lrs.OneCycleLR, 1.0, 9, max_lrs=[1.0, 2.0]), ValueError,
     "OneCycleLR: max_lrs must have one entry for each of 1 groups, but got 2"),
    (lambda: load(lambda _: sequence([3]), _milestones=[3, 4]), ValueError,
     "SequentialLR: milestones must be sorted and one fewer than schedulers, but got [3, 4] for 2"),
    (lambda: chained(exponential).load_state_dict({}), ValueError,
     "ChainedScheduler: the state must hold those of 1 schedulers, but got 0"),
    (lambda: load(lrs.ReduceLROnPlateau, min_lr=[]), ValueError,
     "ReduceLROnPlateau: min_lr must have one entry for each of 1 groups, but got 0"),
    (lambda: load(lrs.ReduceLROnPlateau, best="high"), TypeError,
     "ReduceLROnPlateau: best must be a number, but got 'high'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def groups_of(optimizer):
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lrs.StepLR(o, 0),
        lambda o: lrs.ExponentialLR(o, 0.9, last_epoch=-2),
        lambda o: lrs.OneCycleLR(o, 1.0, 9, last_epoch=-2),
        lambda o: lrs.OneCycleLR(o, 1.0, 9, div_factor=0),
        lambda o: lrs.OneCycleLR(o, 1.0, 9, base_momentum=[0.5, 0.5]),
    ],
)
def test_a_schedule_that_is_refused_leaves_the_optimizer_as_it_was(make):
    optimizer = sgd(momentum=0.9)
    before = groups_of(optimizer)
    with pytest.raises(ValueError, match=": "):
        make(optimizer)
    assert groups_of(optimizer) == before


def test_a_step_that_is_refused_changes_nothing():
    optimizer = sgd(2)
    schedule = lrs.LambdaLR(optimizer, [lambda epoch: 1 / (1 + epoch), lambda epoch: 1 - epoch])
    schedule.step()
    before = schedule.state_dict(), groups_of(optimizer)
    with pytest.raises(ValueError, match=r"^LambdaLR: lr must lie in \[0, inf\], but got -0.5$"):
        schedule.step()
    assert (schedule.state_dict(), groups_of(optimizer)) == before


@pytest.mark.parametrize("entry", [{"last_epoch": 1.5}, {"gamma": -1}, {"strange": 1}, {"_last_lr": "a"}])
@pytest.mark.parametrize("kind", ["ExponentialLR", "ChainedScheduler", "SequentialLR", "LambdaLR"])
def test_a_state_that_is_refused_changes_nothing(kind, entry):
    """Also where the wrong entry belongs to an inner schedule, behind one that is right."""
    optimizer = sgd()
    inner = [exponential(optimizer), exponential(optimizer)]
    schedule = {
        "ExponentialLR": lambda: inner[0],
        "ChainedScheduler": lambda: lrs.ChainedScheduler(inner),
        "SequentialLR": lambda: lrs.SequentialLR(optimizer, inner, [3]),
        "LambdaLR": lambda: lrs.LambdaLR(optimizer, lambda epoch: 1.0),
    }[kind]()
    state = schedule.state_dict()
    for _ in range(5):
        schedule.step()
    before = schedule.state_dict()
    wrong = state | entry
    if "_schedulers" in state:
        wrong = state | {"_schedulers": [state["_schedulers"][0], state["_schedulers"][1] | entry]}
    with pytest.raises((TypeError, ValueError), match=r"^\w+: "):
        schedule.load_state_dict(wrong)
    assert schedule.state_dict() == before
    schedule.load_state_dict(state)
    assert schedule.state_dict() == state
