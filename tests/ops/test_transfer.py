"""Moving tensors and modules between devices; ops on mixed devices are refused and name both."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, nn, ops, optim


def test_a_tensor_moves_and_its_gradient_comes_back(device):
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x.to(device)
    assert (y.device, y.dtype, y.shape) == (device, "float64", (2,))
    z = (y * y * y).sum()
    z.backward()
    assert x.grad.device == ndl.cpu()
    assert x.grad.numpy().tolist() == [3, 12]
    x.grad.sum().backward()
    assert x.grad.numpy().tolist() == [6, 12]


def test_moving_to_the_same_device_returns_the_tensor(device):
    x = Tensor([1.0], device=device)
    assert x.to(device) is x
    assert ops.to(x, device) is x


@pytest.mark.parametrize("place", ["cpu", None, 0])
def test_anything_but_a_device_is_refused(place):
    for thing in (Tensor([1.0]), nn.Linear(1, 1)):
        with pytest.raises(TypeError, match=r"^to: device must be a Device(?: (?:or|and) .*)?, but got "):
            thing.to(place)


def test_a_module_that_is_there_keeps_its_arrays(device):
    layer = nn.Linear(2, 1, device=device)
    array = layer.weight.array
    y = layer(ndl.ones(3, 2, device=device)).sum()
    layer.to(device)
    assert layer.weight.array is array
    y.backward()  # nothing has been written


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_a_module_moves_with_its_buffers_and_gradients(device):
    model = network()
    model(ndl.ones(5, 3)).sum().backward()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    parameters, grads = model.parameters(), [p.grad.numpy() for p in model.parameters()]
    assert model.to(device) is model
    assert {x.device for x in (*model.parameters(), *model.buffers())} == {device}
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert value.numpy().tobytes() == before[name].tobytes()
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert parameter.grad.device == device
        np.testing.assert_array_equal(parameter.grad.numpy(), grad)
    assert model.eval()(ndl.ones(1, 3, device=device)).device == device
    model.to(ndl.cpu())
    assert model(ndl.ones(1, 3)).device == ndl.cpu()


# The bias before the normalization has no gradient but rounding, of which Adam with a small eps makes steps.
MAKERS = [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.Adam(p, 0.1, eps=1e-3)]


@pytest.mark.parametrize("make", MAKERS)
def test_training_continues_after_a_move(device, make):
    states = []
    for moves in (False, True):
        np.random.seed(0)
        model, images = network(), np.random.randn(6, 3).astype("float32")
        optimizer = make(model.parameters())
        for step in range(3):
            if moves and step == 1:
                model.to(device)
            place = model.parameters()[0].device
            optimizer.reset_grad()
            (model(Tensor(images, device=place)) ** 2).mean().backward()
            optimizer.step()
        states.append([value.numpy() for value in model.state_dict().values()])
    for stayed, moved in zip(*states, strict=True):
        np.testing.assert_allclose(moved, stayed, rtol=1e-5, atol=1e-6)


def test_a_state_of_one_device_loads_on_another(device):
    model, other = network(), network().to(device)
    other.load_state_dict(model.state_dict())
    assert {x.device for x in (*other.parameters(), *other.buffers())} == {device}
    model.load_state_dict(pickle.loads(pickle.dumps(other.state_dict())))
    assert {x.device for x in (*model.parameters(), *model.buffers())} == {ndl.cpu()}
    for mine, yours in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())


def test_a_pickle_from_a_device_loads_without_that_device(device, monkeypatch):
    x = Tensor([[1.0, 2.0]], device=device, requires_grad=False)
    stored = pickle.dumps((x, ops.split(x)))
    if device != ndl.cpu():
        monkeypatch.setattr(type(device), "enabled", lambda self: False)
    y, parts = pickle.loads(stored)
    assert y.device == parts.device == ndl.cpu()
    assert y.numpy().tolist() == [[1, 2]]
    assert parts[0].numpy().tolist() == [1, 2]


def test_pickles_of_an_unknown_device_load_on_the_cpu(monkeypatch):
    monkeypatch.setattr("needle.autograd.serialize", lambda array: ("tpu:3", array))
    x = pickle.loads(pickle.dumps(Tensor([1.0, 2.0])))
    assert x.device == ndl.cpu()
    assert x.numpy().tolist() == [1, 2]


def test_data_of_another_device_moves_the_tensor(device):
    x = Tensor([1.0], dtype="float32")
    x.data = Tensor([2.0], device=device, dtype="float32")
    assert x.device == device
    assert x.numpy().tolist() == [2]


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a @ b.transpose(),
        lambda a, b: ops.stack([a, b]),
        lambda a, b: ops.where(a > 0, a, b),
        lambda a, b: nn.functional.mse_loss(a, b),
        lambda a, b: nn.functional.conv1d(a.reshape((1, 2, 3)), b.reshape((1, 2, 3))),
        lambda a, b: nn.Linear(3, 2)(b),
    ],
)
def test_mixed_devices_are_refused_by_name(device, function):
    if device == ndl.cpu():
        pytest.skip("one device is not mixed")
    a, b = Tensor(np.ones((2, 3), "float32")), Tensor(np.ones((2, 3), "float32"), device=device)
    pattern = rf"must be on one device, but got (cpu\(\) and {device.name}\(\)|{device.name}\(\) and cpu\(\))$"
    with pytest.raises(TypeError, match=pattern):
        function(a, b)


# ---- random numbers --------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_draws_again(device):
    x = ndl.ones(4, 5, device=device)

    def drawn():
        ndl.seed(3)
        on_device = nn.functional.dropout(x, 0.5).numpy()
        return on_device, nn.Dropout(0.5)(x).numpy(), ndl.init.rand(3, device=device).numpy(), np.random.rand(2)

    for first, second in zip(drawn(), drawn(), strict=True):
        assert first.tobytes() == second.tobytes()
    ndl.seed(4)
    assert nn.functional.dropout(x, 0.5).numpy().tobytes() != drawn()[0].tobytes()


def test_which_stream_each_dropout_draws_from(device):
    x = ndl.ones(4, 5, device=device)
    ndl.seed(3)
    expected = np.random.rand(4, 5) <= 0.7
    ndl.seed(3)
    assert ((nn.Dropout(0.3)(x).numpy() > 0) == expected).all()  # the course's: NumPy's stream on every device
    ndl.seed(3)
    kept = nn.functional.dropout(x, 0.3).numpy() > 0
    assert (kept == expected).all() == (device == ndl.cpu())  # a GPU computes its numbers from one draw
    after = np.random.get_state()[2]
    ndl.seed(3)
    np.random.rand(20 if device == ndl.cpu() else 1)
    assert np.random.get_state()[2] == after


@pytest.mark.parametrize("number", [-1, 2**32, 1.5, None])
def test_invalid_seeds_are_refused(number):
    with pytest.raises((ValueError, TypeError), match=r"^seed: number must be "):
        ndl.seed(number)
