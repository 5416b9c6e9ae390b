"""Pools of small parameters, chunks of big ones on threads, and parameters that share memory."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import needle as ndl
from needle import optim, tuning
from needle.optim.flat import may_share_memory
from tests.optim.steps import (
    MANY,
    OPTIMIZERS,
    alone,
    assert_same_bits,
    every_optimizer,
    parameters_with_gradients,
    stepped,
)
from tests.standin.device import STANDIN


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_parameters_are_updated_together_as_each_alone(make, dtype, device):
    optimizers = []

    def together(params):
        optimizers.append(make(params))
        return optimizers

    params = stepped(together, MANY, dtype=dtype, device=device)
    is_one_launch = str(device) == "cuda()" and dtype == "float32"  # of all parameters, wherever they lie
    assert pooled_sizes(optimizers[0]) == ([] if is_one_launch else [len(MANY)])
    assert_same_bits(params, alone(make, MANY, dtype=dtype, device=device))


@every_optimizer
def test_parameters_on_two_devices_are_pooled_apart(make):
    params = [*parameters_with_gradients(*MANY), *parameters_with_gradients(*MANY, device=STANDIN)]
    optimizer = make(params)
    for _ in range(2):
        optimizer.step()
    assert pooled_sizes(optimizer) == [len(MANY)] * 2
    arrays = [parameter.numpy() for parameter in params]
    assert_same_bits(arrays[: len(MANY)], arrays[len(MANY) :])


@pytest.mark.parametrize("absent", [0, 2])
@pytest.mark.parametrize("make", [OPTIMIZERS["momentum"], OPTIMIZERS["nesterov"]])
def test_gradients_may_be_absent_in_any_step(make, absent, device):
    def change(step, params):
        if step == absent:
            params[1].grad = params[4].grad = None

    params = stepped(lambda params: [make(params)], MANY, change, device=device)
    assert_same_bits(params, alone(make, MANY, change, device=device))


@every_optimizer
@pytest.mark.parametrize("device", [STANDIN], ids=str)
def test_one_of_many_parameters_moves_to_another_device_and_back(make, device):
    def change(step, params):
        place = device if step == 2 else ndl.cpu()
        if params[1].device != place:
            params[1].data, params[1].grad = params[1].detach().to(place), params[1].grad.detach().to(place)

    def plain(step, params):
        pass

    params = stepped(lambda params: [make(params)], MANY, change, steps=5, device=ndl.cpu())
    for array, other in zip(params, alone(make, MANY, plain, steps=5, device=ndl.cpu()), strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-12)


@every_optimizer
@pytest.mark.parametrize("device", [STANDIN], ids=str)
def test_the_state_of_a_parameter_that_moved_while_another_was_absent_is_not_lost(make, device):
    def change(step, params):
        place = device if step == 2 else ndl.cpu()
        if params[1].device != place:
            params[1].data, params[1].grad = params[1].detach().to(place), params[1].grad.detach().to(place)
        if step == 2:
            params[2].grad = None

    def absent(step, params):
        if step == 2:
            params[2].grad = None

    params = stepped(lambda params: [make(params)], MANY, change, steps=5, device=ndl.cpu())
    for i, (array, other) in enumerate(
        zip(params, stepped(lambda params: [make(params)], MANY, absent, steps=5), strict=True)
    ):
        np.testing.assert_allclose(array, other, rtol=1e-12, err_msg=str(i))


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_continues_like_the_original(make, copied):
    params = parameters_with_gradients(*MANY)
    optimizer = make(params)
    optimizer.step()
    other = copied(optimizer)
    for twin, parameter in zip(other.params, params, strict=True):
        twin.grad = parameter.grad
    for _ in range(2):
        optimizer.step()
        other.step()
    assert_same_bits([twin.numpy() for twin in other.params], [parameter.numpy() for parameter in params])


def pooled_sizes(optimizer):
    """The number of parameters in each pool."""
    return [len(pool.views) for cohort in optimizer._state.cohorts for pool in cohort.pools or ()]


@every_optimizer
def test_parameters_that_join_later_are_pooled_too(make, device):
    frozen = range(len(MANY))

    def change(step, params):
        if step < 2:
            for i in frozen:
                params[i].grad = None

    optimizers = []

    def together(params):
        optimizers.append(make(params))
        return optimizers

    params = stepped(together, [*MANY, *MANY], change, device=device)
    assert pooled_sizes(optimizers[0]) == [len(MANY)] * 2
    assert_same_bits(params, alone(make, [*MANY, *MANY], change, device=device))


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_is_pooled_again(make, copied):
    optimizer = make(parameters_with_gradients(*MANY))
    optimizer.step()
    other = copied(optimizer)
    for parameter in other.params:
        parameter.grad = parameter.detach()
    other.step()
    assert pooled_sizes(other) == [len(MANY)]


@every_optimizer
@pytest.mark.parametrize(
    "shapes", [[(70, 50), (3, 10000), (1, 30000), (50,), (0, 3)], [*MANY, (60, 300)]], ids=["big", "both"]
)
def test_big_parameters_are_updated_in_chunks(make, shapes, monkeypatch):
    monkeypatch.setattr(tuning, "POOLED_ELEMENTS", 1 << 10)
    monkeypatch.setattr(tuning, "PARALLEL_STEP_ELEMENTS", 1 << 12)
    results = []
    for chunk, count in (1 << 40, 1), (1 << 11, 1), (1 << 11, 2):
        monkeypatch.setattr(tuning, "STEP_CHUNK_ELEMENTS", chunk)
        with ThreadpoolController().limit(limits=count, user_api="blas"):
            results.append(stepped(lambda params: [make(params)], shapes, dtype="float32"))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@every_optimizer
def test_big_gradients_may_have_any_strides(make):
    results = []
    for order in "CF":
        (parameter,) = parameters_with_gradients((700, 500))
        parameter.grad = ndl.Tensor.make_const(np.asarray(parameter.grad.array, order=order))
        optimizer = make([parameter])
        for _ in range(2):
            optimizer.step()
        results.append(parameter.numpy())
    assert_same_bits(*[[result] for result in results])


@every_optimizer
def test_big_parameters_may_have_any_strides(make, monkeypatch):
    monkeypatch.setattr(tuning, "PARALLEL_STEP_ELEMENTS", 1 << 10)
    monkeypatch.setattr(tuning, "STEP_CHUNK_ELEMENTS", 1 << 9)
    results = []
    for order in "CF":
        (like,) = parameters_with_gradients((70, 50))
        parameter = ndl.Tensor.make_const(np.asarray(like.array, order=order), requires_grad=True)
        parameter.grad = like.grad
        make([parameter]).step()
        results.append(parameter.numpy())
    assert_same_bits(*[[result] for result in results])


@every_optimizer
def test_a_step_makes_no_temporaries_of_the_size_of_the_parameter(make, monkeypatch):
    monkeypatch.setattr(tuning, "STEP_CHUNK_ELEMENTS", 1 << 14)
    (parameter,) = parameters_with_gradients((1000, 1000), dtype="float32")
    optimizer = make([parameter])
    optimizer.step()
    tracemalloc.start()
    try:
        for _ in range(2):
            optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < parameter.array.nbytes / 5  # scratch and temporaries of one chunk on each of two threads


# ---- parameters that share memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [0, 6])
def test_parameters_on_one_memory_are_updated_in_turns(device, many):
    """A tensor and a view of it: each is updated, with and without other small parameters."""
    base = ndl.Tensor(np.zeros((2, 3)), device=device)
    parameters = [base, ndl.Tensor.make_const(base.array.reshape(-1), requires_grad=True)]
    parameters += [ndl.Tensor(np.zeros(2), device=device) for _ in range(many)]
    optimizer = optim.SGD(parameters, lr=1.0)
    for parameter in parameters:
        parameter.grad = ndl.ones_like(parameter)
    optimizer.step()
    assert (base.numpy() == -2).all()
    assert all((parameter.numpy() == -1).all() for parameter in parameters[2:])


@pytest.mark.parametrize("many", [0, 6])
def test_parameters_that_share_memory_after_the_first_step_are_updated_in_turns(device, many):
    """Weights may be tied, or the list of parameters changed, between two steps."""
    params = [ndl.Tensor(np.zeros(3), device=device) for _ in range(2 + many)]
    optimizer = optim.SGD(params, lr=1.0)
    for parameter in params:
        parameter.grad = ndl.ones_like(parameter)
    optimizer.step()
    tied = ndl.Tensor.make_const(params[0].array)
    tied.grad, optimizer.params[1] = params[1].grad, tied
    optimizer.step()
    assert [parameter.numpy().tolist() for parameter in params[:3]] == [[-3] * 3, [-1] * 3, [-2] * 3][: 2 + many]
    optimizer.params[1] = params[1]
    optimizer.step()
    assert [parameter.numpy().tolist() for parameter in params[:3]] == [[-4] * 3, [-2] * 3, [-3] * 3][: 2 + many]


def test_arrays_share_memory_if_their_addresses_overlap(device):
    base = device.xp.zeros((6, 4), "float32")
    apart = [base[:2], base[2:3], base[3:], device.xp.zeros(3, "float32"), base[:0]]
    assert not may_share_memory(apart)
    assert not may_share_memory([])
    for view in (base, base[1:3, 1], base.T, base[::-1], base[:, ::-1], base[5:, 3]):
        assert may_share_memory([*apart, view])
    assert may_share_memory([base[:2], base[::-1]])
    assert not may_share_memory([base[:2], base[:1:-1]])


def test_disjoint_views_of_one_buffer_are_pooled():
    buffer = np.zeros(10, "float32")
    params = [ndl.Tensor.make_const(part, requires_grad=True) for part in np.split(buffer, 5)]
    for parameter in params:
        parameter.grad = ndl.ones_like(parameter)
    optimizer = optim.SGD(params, lr=1.0)
    optimizer.step()
    assert (buffer == -1).all()
    assert pooled_sizes(optimizer) == [5]
