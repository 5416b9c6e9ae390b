"""Outlines: shapes and dtypes without values; and LAZY_MODE, the course's name, which changes nothing."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import needle as ndl
from needle import autograd, nn, ops, optim
from needle.autograd import Tensor, TensorOp
from needle.grad_mode import mode, watch
from needle.graph import Unknown
from needle.outline import Outlined, outline, outlined, spec_of
from tests.ops.table import ROWS, each_row, tensors
from tests.standin.device import STANDIN

pytestmark = pytest.mark.usefixtures("on_device")

REFUSAL = "test: values must not be read"


def unknown(*shape, dtype="float32", device=None):
    return outlined(shape, np.dtype(dtype), device or ndl.default_device(), REFUSAL)


class Doubled(TensorOp):
    """An op that cannot infer its spec."""

    def compute(self, x):
        return x + x


# ---- values without an array -----------------------------------------------------------------------------------------


def test_a_forward_pass_has_shapes_and_dtypes_only():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    with outline():
        y = model(unknown(5, 1, 4, 4))
        loss = nn.CrossEntropyLoss()(y, unknown(5, dtype="int64"))
    for value, shape in (y, (5, 3)), (loss, ()):
        assert isinstance(value, Outlined)
        assert (value.shape, value.dtype, value.ndim, value.device) == (shape, "float32", len(shape), y.device)
        assert value.is_leaf()
        assert not value.requires_grad
        assert value.detach() is value
    assert (len(y), y.size) == (5, 15)


@pytest.mark.parametrize(
    "ask",
    [
        lambda y: y.numpy(),
        lambda y: y.cached_data,
        lambda y: y.realize_cached_data(),
        lambda y: y.array,
        lambda y: y[0].item(),
        lambda y: float(y),
        lambda y: bool(y),
        repr,
        list,
        lambda y: y in [Tensor([2.0])],
        lambda y: Tensor(y),
        lambda y: pickle.dumps(y),
        lambda y: copy.deepcopy(y),
        lambda y: setattr(y, "data", Tensor([1.0], dtype="float32")),
        lambda y: setattr(y, "array", np.ones(1)),
        lambda y: y.add_(1),
        lambda y: y.__setitem__(0, 1),
        lambda y: y[y > 0],
        lambda y: Doubled()(y),
    ],
)
def test_asking_for_values_is_refused(ask):
    with outline():
        y = ops.exp(unknown(1))
        if ask is list:
            assert [x.shape for x in ask(y)] == [()]
        else:
            with pytest.raises(Unknown, match=REFUSAL):
                ask(y)


def test_ops_on_known_values_compute():
    with outline():
        known = ops.exp(ndl.zeros(3))
        y = known + unknown(3)
    assert known.numpy().tolist() == [1, 1, 1]
    assert isinstance(y, Outlined)


def test_bad_arguments_are_refused():
    with outline():
        with pytest.raises(ValueError, match=r"^matmul: the inner sizes"):
            ops.exp(unknown(2, 3)) @ unknown(2, 3)
        with pytest.raises(TypeError, match=r"^where: condition"):
            ops.where(unknown(2), 1, 2)
        with pytest.raises(TypeError, match=r"inputs must be on one device, but got cpu\(\) and standin\(\)$"):
            unknown(1, device=ndl.cpu()) + unknown(1, device=STANDIN)


def test_a_move_has_the_device_that_it_goes_to():
    with outline():
        y = ops.exp(unknown(1, device=STANDIN).to(ndl.cpu()))
    assert (y.device, y.shape) == (ndl.cpu(), (1,))


def test_tuples():
    with outline():
        parts = ops.split(unknown(2, 3), 0)
        assert len(parts) == 2
        assert parts.device == ndl.default_device()
        assert [part.shape for part in parts] == [part.shape for part in parts.detach()] == [(3,), (3,)]
        with pytest.raises(Unknown, match=REFUSAL):
            parts.cached_data  # noqa: B018


def test_an_outline_is_the_threads_own_and_ends_with_its_block():
    seen = []
    with outline():
        thread = threading.Thread(target=lambda: seen.append((mode.outlining, mode.recording)))
        thread.start()
        thread.join()
        with pytest.raises(TypeError), outline():
            len(unknown())
        assert (mode.outlining, mode.recording) == (True, False)
    assert seen == [(False, True)]
    assert (mode.outlining, mode.recording) == (False, True)


# ---- shapes and dtypes -----------------------------------------------------------------------------------------------


class Comparing:
    """A watcher that compares what each op infers with what it has computed."""

    def made(self, value, op, inputs):
        inferred = op.infer(*map(spec_of, inputs))
        assert inferred in (None, spec_of(value)), op

    def passed(self, node, grad, x_grads):
        pass


def leaves_of(row, dtype):
    """The inputs of a row, its draws in any dtype: for integers, from 1 on."""
    arrays = row.values()
    for i, drawn in enumerate(row.is_drawn()):
        if drawn:
            rounds = np.dtype(dtype).kind != "f"
            arrays[i] = (np.ceil(np.abs(arrays[i])).clip(1, 99) if rounds else arrays[i]).astype(dtype)
    return tensors(row, [ndl.default_device().array(array) for array in arrays])


def takes_integers(row):
    return not row.op.endswith(("Correlate", "RectifiedLinear")) and row.setting != "extremes"


@pytest.mark.on_cpu
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "bool"])
@each_row(row for row in ROWS if takes_integers(row))
def test_ops_infer_what_they_compute(row, dtype):
    with watch(Comparing()):
        inputs, leaves = leaves_of(row, dtype)
        try:
            result = row.apply(*inputs)
        except (TypeError, ValueError):  # the op refuses the dtype, or an option that it cannot hold
            return
        losses = [y.sum() for y in ([result] if isinstance(result, Tensor) else result) if y.requires_grad]
        if losses and np.dtype(dtype).kind == "f":
            sum(losses[1:], losses[0]).backward()
            grads = [x.grad for x in leaves if x.grad is not None and x.grad.requires_grad]
            if grads and dtype == "float64":
                sum((grad.sum() for grad in grads[1:]), grads[0].sum()).backward()


@pytest.mark.on_cpu
def test_norms_infer_what_they_compute():
    with watch(Comparing()):
        x = Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype("float16"))
        for dtype in ("float16", "float32"):
            for layer in (nn.LayerNorm(4, dtype=dtype), nn.GroupNorm(2, 4, dtype=dtype), nn.BatchNorm1d(4)):
                layer(x).sum().backward()
                assert (x.grad.dtype, layer.weight.grad.dtype) == ("float16", layer.weight.dtype)


# ---- the course's name -----------------------------------------------------------------------------------------------


def test_lazy_mode_changes_nothing(monkeypatch):
    assert autograd.LAZY_MODE is False
    states = []
    for is_lazy in (False, True):
        monkeypatch.setattr(autograd, "LAZY_MODE", is_lazy)
        np.random.seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.ReLU(), nn.Linear(5, 3))
        optimizer = optim.Adam(model.parameters(), 0.01)
        for _ in range(3):
            optimizer.reset_grad()
            loss = nn.SoftmaxLoss()(model(ndl.init.randn(6, 4)), Tensor([0, 1, 2, 0, 1, 2]))
            assert type(loss) is Tensor
            loss.backward()
            optimizer.step()
        states.append([loss.numpy(), *(value.numpy() for value in model.state_dict().values())])
    for eager, lazy in zip(*states, strict=True):
        assert eager.tobytes() == lazy.tobytes()
