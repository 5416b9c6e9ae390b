"""LAZY_MODE: nothing is computed before it is read, and results equal those of eager mode."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import Counter

import numpy as np
import pytest

import needle as ndl
from needle import autograd, nn, ops, optim
from needle.autograd import Tensor, TensorOp
from needle.lazy import Deferred
from needle.ops.elementwise import Exp
from tests.ops.op_classes import all_op_classes
from tests.ops.table import ROWS, each_row, tensors
from tests.standin.device import STANDIN

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.fixture
def lazily(monkeypatch):
    monkeypatch.setattr(autograd, "LAZY_MODE", True)


@pytest.fixture
def computed(monkeypatch):
    """The number of times that each op class has computed."""
    counts = Counter()

    def counting(op_class, compute):
        def counted(self, *arrays):
            counts[op_class.__name__] += 1
            return compute(self, *arrays)

        return counted

    for op_class in set(all_op_classes()):
        if "compute" in vars(op_class):
            monkeypatch.setattr(op_class, "compute", counting(op_class, op_class.compute))
    return counts


class Doubled(TensorOp):
    """An op that cannot infer its spec."""

    def compute(self, x):
        return x + x

    def gradient(self, out_grad, node):
        return out_grad * 2


def network(norm=False):
    noisy = [nn.BatchNorm2d(2), nn.Dropout(0.3)] if norm else []
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), *noisy, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )


def loss_of(model, seed=0):
    draws = np.random.RandomState(seed)
    images = Tensor(draws.randn(5, 1, 4, 4).astype("float32"), requires_grad=False)
    return nn.CrossEntropyLoss()(model(images), Tensor([0, 1, 2, 0, 1], requires_grad=False))


# ---- nothing is computed before it is read ---------------------------------------------------------------------------


def test_a_forward_and_a_backward_pass_compute_nothing(lazily, computed):
    model = network()
    computed.clear()
    loss = loss_of(model)
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(isinstance(x, Deferred) for x in (loss, *grads))
    assert not computed
    loss.item()
    assert computed["Correlate"] == computed["MaxPool"] == computed["Linear"] == 1
    assert not computed["CorrelateWeight"]
    grads[0].numpy()
    assert (computed["Correlate"], computed["CorrelateWeight"]) == (1, 1)
    before = Counter(computed)
    loss.item(), grads[0].numpy()
    assert computed == before


@pytest.mark.parametrize(
    "ask",
    [
        lambda y: y.numpy(),
        lambda y: y.cached_data,
        lambda y: y.realize_cached_data(),
        lambda y: y.array,
        lambda y: y[0].item(),
        float,
        bool,
        repr,
        lambda y: Tensor(y),
        lambda y: pickle.dumps(y),
        lambda y: copy.deepcopy(y),
    ],
)
def test_asking_for_the_value_computes_it(lazily, computed, ask):
    y = ops.exp(Tensor([1.0]))
    assert (y.shape, y.dtype, y.ndim, y.size, y.device) == ((1,), "float64", 1, 1, ndl.default_device())
    assert len(y) == 1
    assert not computed
    ask(y)
    assert computed["Exp"] == 1


def test_an_op_that_cannot_tell_its_shape_computes_when_it_is_asked_for(lazily):
    calls = []

    class Seen(Doubled):
        def compute(self, x):
            calls.append(x.shape)
            return super().compute(x)

    y = Seen()(Tensor([1.0, 2.0]))
    z = Exp()(y)  # the function asks for the dtype
    assert not calls
    assert z.shape == (2,)
    assert calls == [(2,)]
    assert isinstance(z, Deferred)
    assert z.numpy().tolist() == np.exp([2.0, 4.0]).tolist()
    assert calls == [(2,)]


def test_the_mode_is_off_by_default_and_may_change_midway(monkeypatch):
    assert autograd.LAZY_MODE is False
    monkeypatch.setattr(autograd, "LAZY_MODE", True)
    x = Tensor([1.0, 2.0])
    y = ops.exp(x)
    monkeypatch.setattr(autograd, "LAZY_MODE", False)
    z = y.detach() * y
    assert not isinstance(z, Deferred)
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([2.0, 4.0]))


def test_bad_arguments_are_refused_at_once(lazily):
    with pytest.raises(ValueError, match=r"^matmul: the inner sizes"):
        ops.exp(ndl.ones(2, 3)) @ ndl.ones(2, 3)
    with pytest.raises(TypeError, match=r"^where: condition"):
        ops.where(ops.exp(ndl.ones(2)), 1, 2)


def test_mixed_devices_are_refused_at_once(lazily):
    x, y = Tensor([1.0], device=ndl.cpu()), Tensor([1.0], device=STANDIN)
    with pytest.raises(TypeError, match=r"inputs must be on one device, but got cpu\(\) and standin\(\)$"):
        x * 2 + y


def test_an_error_in_an_op_is_raised_when_it_is_computed(lazily):
    y = Tensor([1.0, 2.0], device=ndl.cpu())[Tensor([5], device=ndl.cpu())]  # a GPU reads indices modulo the size
    for _ in range(2):
        with pytest.raises(IndexError):
            y.numpy()


# ---- the same results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.Adam(p, 0.01)])
def test_training_is_the_same_to_the_bit(make, monkeypatch):
    states = []
    for mode in (False, True):
        monkeypatch.setattr(autograd, "LAZY_MODE", mode)
        np.random.seed(1)
        model = network(norm=True)
        optimizer = make(model.parameters())
        losses = []
        for step in range(3):
            optimizer.reset_grad()
            loss = loss_of(model, step)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        values = [loss.numpy() for loss in losses]  # the first was never read before
        states.append([*values, *(value.numpy() for value in model.state_dict().values())])
    for eager, lazy in zip(*states, strict=True):
        assert eager.tobytes() == lazy.tobytes()


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.cached_data.fill(7),
        lambda x: x.cached_data.__setitem__(0, 7),
        lambda x: x.cached_data.flat.__setitem__(0, 7),
        lambda x: x.detach().cached_data.fill(7),
        lambda x: x.reshape((2, 1)).cached_data.fill(7),
        lambda x: setattr(x, "data", Tensor([7.0, 7.0])),
    ],
)
def test_a_write_comes_after_earlier_deferred_reads(write, monkeypatch):
    results = []
    for mode in (False, True):
        monkeypatch.setattr(autograd, "LAZY_MODE", mode)
        x = Tensor([1.0, 2.0])
        view = x.reshape((2, 1))
        later = [x * 2, view * 3, ops.exp(view.detach()), ops.stack([x, x])]
        write(x)
        results.append([y.numpy().tolist() for y in (*later, view, x)])
    assert results[0] == results[1]


def test_a_constant_on_the_memory_of_an_array_is_computed_before_a_write():
    results = []
    for mode in (False, True):
        autograd.LAZY_MODE = mode
        try:
            x, array = Tensor([1.0, 2.0]), ndl.NDArray([1.0, 2.0])
            of_tensor, of_array = Tensor.make_const(x.cached_data) * 2, Tensor.make_const(array) * 2
            x.cached_data[0] = 7
            array[0] = 7
            results.append([of_tensor.numpy().tolist(), of_array.numpy().tolist()])
        finally:
            autograd.LAZY_MODE = False
    assert results == [[[2, 4], [2, 4]]] * 2


def test_data_that_a_deferred_tensor_was_assigned_stays(lazily):
    x = Tensor([1.0, 2.0])
    y = x * 2
    y.data = Tensor([5.0, 6.0])
    z = y + 1
    assert z.numpy().tolist() == [6, 7]
    assert y.numpy().tolist() == [5, 6]


def test_a_value_changed_in_place_is_noticed_by_backward(lazily):
    x = Tensor([1.0, 2.0])
    y = ops.log(x)
    x.cached_data.fill(3)
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.backward()


def test_the_graph_equals_eager_modes(lazily):
    x, constant = Tensor([2.0]), Tensor([3.0], requires_grad=False)
    y = x * constant
    assert y.op == ops.EWiseMul()
    assert y.inputs == (x, constant)
    assert y.requires_grad
    z = constant * constant
    assert z.is_leaf()
    assert not z.requires_grad
    with ndl.no_grad():
        z = x * x
    assert z.is_leaf()
    assert z.numpy().tolist() == [4]
    assert y.detach().is_leaf()
    assert not y.detach().requires_grad
    assert y.detach().numpy().tolist() == [6]
    assert type(y) is Tensor  # as soon as it was read


def test_second_derivatives(lazily):
    x = Tensor([2.0, 3.0])
    (x**3).sum().backward()
    x.grad.sum().backward()
    assert x.grad.numpy().tolist() == [12, 18]


def test_tuples(lazily, computed):
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    parts = ops.split(ops.exp(x), 0)
    assert isinstance(parts, Deferred)
    assert len(parts) == 2
    assert parts[1].shape == (2,)
    assert not computed
    detached = parts.detach()
    assert len(detached) == 2
    np.testing.assert_allclose(detached[1].numpy(), np.exp([3.0, 4.0]))
    parts[0].backward()
    np.testing.assert_allclose(x.grad.numpy(), [np.exp([1.0, 2.0]), [0, 0]])


# ---- shapes and dtypes -----------------------------------------------------------------------------------------------


def check_spec(value):
    """What a deferred value says of itself is what its array has."""
    shape, dtype = value.shape, value.dtype
    assert isinstance(dtype, np.dtype)
    assert (shape, dtype) == (value.array.shape, value.array.dtype)


def leaves_of(row, dtype):
    """The inputs of a row, its draws in any dtype: for integers, from 1 on."""
    arrays = row.values()
    for i, drawn in enumerate(row.is_drawn()):
        if drawn:
            rounds = np.dtype(dtype).kind != "f"
            arrays[i] = (np.ceil(np.abs(arrays[i])).clip(1, 99) if rounds else arrays[i]).astype(dtype)
    return tensors(row, [ndl.default_device().array(array) for array in arrays])


@pytest.mark.on_cpu
def takes_integers(row):
    return not row.op.endswith(("Correlate", "RectifiedLinear")) and row.setting != "extremes"


@pytest.mark.parametrize("dtype", ["float16", "int8", "bool"])
@each_row(row for row in ROWS if takes_integers(row))
def test_values_have_the_shape_and_dtype_that_they_say(row, dtype, lazily):
    for create_graph in (False, True)[: 2 if dtype == "float16" else 1]:
        inputs, leaves = leaves_of(row, dtype)
        try:
            result = row.apply(*inputs)
        except (TypeError, ValueError):  # the op refuses the dtype, or an option that it cannot hold
            return
        results = [result] if isinstance(result, Tensor) else list(result)
        losses = [y.sum() for y in results if y.requires_grad]
        for y in results:
            check_spec(y)
        if losses and dtype != "bool":
            sum(losses[1:], losses[0]).backward(create_graph=create_graph)
            for x in leaves:
                if x.grad is not None:
                    check_spec(x.grad)


@pytest.mark.on_cpu
def test_gradients_of_norms_have_the_dtype_that_they_say(lazily):
    x = Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype("float16"))
    for dtype in ("float16", "float32"):
        for layer in (nn.BatchNorm1d(4, dtype=dtype), nn.LayerNorm(4, dtype=dtype), nn.GroupNorm(2, 4, dtype=dtype)):
            for create_graph in (False, True):
                if isinstance(layer, nn.BatchNorm1d) and dtype == "float32":
                    continue
                layer(x).sum().backward(create_graph=create_graph)
                for grad, expected in (x.grad, "float16"), (layer.weight.grad, dtype), (layer.bias.grad, dtype):
                    assert grad.dtype == expected
                    check_spec(grad)


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_a_deep_chain_needs_no_recursion(lazily, depth):
    depth //= 4  # a step of lazy mode costs several of eager mode
    x = y = Tensor([0.5])
    for _ in range(depth):
        y = ops.Negate()(y)  # unlike a function, an op does not read its input's shape
    assert y.shape == (1,)
    assert y.item() == 0.5
    y = x
    for _ in range(depth):
        y = ops.Negate()(y)
    assert y.item() == 0.5
    y.backward()
    assert x.grad.item() == 1


def test_computed_values_hold_no_inputs(lazily):
    with ndl.no_grad():
        x = Tensor([1.0])
        y = ops.exp(x)
        watched = weakref.ref(x)
        del x
        assert watched() is not None
        y.numpy()
        gc.collect()
        assert watched() is None


def test_a_write_keeps_no_deferred_value_alive_and_raises_no_error_of_another(lazily):
    class Failing(Doubled):
        def compute(self, x):
            raise ValueError("failing: x must be another")

    x = Tensor(np.ones(3, "float32"), requires_grad=False)
    y, failed = x + 1, Failing()(x)
    kept = weakref.ref(y)
    del y
    gc.collect()
    assert kept() is None
    x.data = Tensor(np.zeros(3, "float32"), requires_grad=False)
    assert not x.numpy().any()
    with pytest.raises(ValueError, match="must be another"):
        failed.numpy()
