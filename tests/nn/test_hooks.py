"""Hooks of modules and tensors, held to torch's."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import namedtuple

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.functional.alike import raises
from tests.standin.device import STANDIN

VALUES = np.random.default_rng(5).standard_normal((3, 4)).astype("float32")


def hooked(hook, kind="register_full_backward_hook", **options):
    layer = nn.Linear(4, 2)
    getattr(layer, kind)(hook, **options)
    return layer


def backward(hook):
    """Backward through a layer with that hook."""
    hooked(hook)(ndl.ones(3, 4, requires_grad=True)).sum().backward()


def of_tensor(hook):
    x = ndl.ones(3, requires_grad=True)
    x.register_hook(hook)
    (x * 2).sum().backward()


class _Calling(nn.Module):
    """A module that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def _with_backward_hook(function, hook=lambda *_: None):
    module = _Calling(function)
    module.register_full_backward_hook(hook)
    return module


FIT = "Linear: a backward hook must return a tuple of None or gradients of shapes"

ERRORS = [
    (lambda: nn.ReLU().register_forward_pre_hook(3), TypeError,
     "register_forward_pre_hook: hook must be callable, but got int"),
    (lambda: nn.ReLU().register_forward_hook(print, prepend=1), TypeError,
     "register_forward_hook: prepend must be a bool, but got int"),
    (lambda: nn.ReLU().register_forward_hook(print, with_kwargs=1), TypeError,
     "register_forward_hook: with_kwargs must be a bool, but got int"),
    (lambda: hooked(lambda *_: ((1,),), "register_forward_pre_hook", with_kwargs=True)(1), TypeError,
     "Linear: a forward pre-hook with kwargs must return None or a pair (args, kwargs), but got ((1,),)"),
    (lambda: backward(lambda *_: (None, None)), ValueError, f"{FIT} [(3, 4)], but got [None, None]"),
    (lambda: backward(lambda *_: (ndl.ones(3, 2),)), ValueError, f"{FIT} [(3, 4)], but got [(3, 2)]"),
    (lambda: backward(lambda *_: "x"), ValueError, f"{FIT} [(3, 4)], but got ['str']"),
    (lambda: hooked(lambda *_: [ndl.ones(3, 4)])(ndl.ones(3, 4)).sum().backward(), ValueError,
     f"{FIT} [None], but got [(3, 4)]"),
    (lambda: _with_backward_hook(lambda x: {"y": x})(ndl.ones(3, requires_grad=True)), TypeError,
     "_Calling: a module with a backward hook must return a Tensor or a tuple of Tensors, but got dict"),
    (lambda: ndl.ones(3).register_hook(print), RuntimeError,
     "register_hook: x must require grad, but got a constant of shape (3,)"),
    (lambda: ndl.ones(3, requires_grad=True).register_hook(None), TypeError,
     "register_hook: hook must be callable, but got NoneType"),
    (lambda: backward(lambda *_: (ndl.ones(3, 4, device=STANDIN),)), TypeError,
     "Linear: inputs must be on one device, but got cpu() and standin()"),
    (lambda: of_tensor(lambda grad: ndl.ones(3, device=STANDIN)), TypeError,
     "backward: inputs must be on one device, but got cpu() and standin()"),
    (lambda: of_tensor(lambda grad: 3), TypeError, "backward: what a hook returns must be a Tensor, but got int"),
]  # fmt: skip


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[2])
def test_errors(row):
    raises(*row)


# ---- the same program in needle and in torch -------------------------------------------------------------------------


def plain(value):
    """Tensors of needle and torch as lists, also within tuples and dicts."""
    if isinstance(value, ndl.Tensor | torch.Tensor):
        return np.round(value.detach().numpy().astype("float64"), 5).tolist()
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return {key: plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


class World:
    """needle or torch, and what a program logs there."""

    def __init__(self, library):
        self.is_needle, self.library, self.log = library is ndl, library, []

        class Twice(library.nn.Module):
            def forward(self, x, other=None, *, scale=1.0):
                y = x * x * scale
                return y if other is None else (y, x * other, "text")

        self.Twice = Twice

    def tensor(self, values, requires_grad=True):
        return self.library.tensor(values, requires_grad=requires_grad)

    def note(self, word, value=None):
        """A hook that logs all but the module, and returns `value(*what it got)`."""

        def hook(*args):
            args = args[1:] if isinstance(args[0], self.library.nn.Module) else args
            self.log.append((word, plain(args)))
            return None if value is None else value(*args)

        return hook

    def backward(self, y, graph=False):
        y.backward(create_graph=graph, retain_graph=True, accumulate=True) if self.is_needle else y.backward(
            retain_graph=True, create_graph=graph
        )

    def derivative(self, y, x, graph=False):
        (grad,) = self.library.grad(y, x, create_graph=graph) if self.is_needle else torch.autograd.grad(
            y, x, create_graph=graph
        )
        return grad


def arguments_change(w):
    net = w.Twice()
    net.register_forward_pre_hook(w.note("a", lambda args: args[0] + 1))
    net.register_forward_pre_hook(w.note("b", lambda args: (args[0] * 2,)))
    net.register_forward_pre_hook(w.note("first"), prepend=True)
    net.register_forward_pre_hook(
        w.note("kwargs", lambda args, kwargs: (args, kwargs | {"scale": 3.0})), with_kwargs=True
    )
    net.register_forward_pre_hook(w.note("none", lambda args, kwargs: None), with_kwargs=True)
    w.log.append(plain(net(w.tensor([1.0, 2.0]), scale=2.0)))


def results_change(w):
    net = w.Twice()
    net.register_forward_hook(w.note("a", lambda args, y: y * 10))
    net.register_forward_hook(w.note("b", lambda args, kwargs, y: y + 1), with_kwargs=True)
    net.register_forward_hook(w.note("first"), prepend=True)
    w.log.append(plain(net(w.tensor([1.0, 2.0]), scale=2.0)))


def handles(w):
    net, x = w.Twice(), w.tensor([1.0])
    handle = net.register_forward_hook(w.note("a"))
    with net.register_forward_pre_hook(w.note("b")) as inner:
        net(x)
    net(x)
    inner.remove()
    handle.remove()
    handle.remove()
    net(x)
    grad_hook = x.register_hook(w.note("c"))
    w.backward(net(x).sum())
    grad_hook.remove()
    w.backward(net(x).sum())


def a_handle_forgets_its_hook(w):
    """To remove it once more leaves the next hook alone."""
    net, x = w.Twice(), w.tensor([1.0])
    first = net.register_forward_hook(w.note("first"))
    of_x = x.register_hook(w.note("of x"))
    first.remove(), of_x.remove()
    net.register_forward_hook(w.note("second"))
    x.register_hook(w.note("again"))
    first.remove(), of_x.remove()
    w.backward(net(x).sum())


def hooks_add_and_remove_hooks_of_the_call(w):
    net = w.Twice()
    old = net.register_forward_hook(w.note("old"))

    def change(*_):
        old.remove()
        net.register_forward_hook(w.note("new"))

    with net.register_forward_pre_hook(w.note("before", change)):
        net(w.tensor([1.0]))


def a_hook_removes_itself(w):
    net = w.Twice()
    handle = net.register_forward_hook(w.note("once", lambda *_: handle.remove()))
    net.register_forward_hook(w.note("always"))
    net(w.tensor([1.0]))
    net(w.tensor([2.0]))


def backward_sees_both_gradients(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0])
    net.register_full_backward_hook(w.note("a"))
    net.register_full_backward_hook(w.note("first"), prepend=True)
    y = net(x).sum() * 3
    w.backward(y)
    w.backward(y)
    w.log.append(plain(x.grad))


def backward_changes_gradients(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0])
    net.register_full_backward_hook(w.note("a", lambda back, out: (back[0] * 10,)))
    net.register_full_backward_hook(w.note("b", lambda back, out: (back[0] + 1,)))
    w.backward(net(net(x)).sum())
    w.log.append(plain(x.grad))


def a_gradient_is_stopped(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0])
    net.register_full_backward_hook(lambda module, back, out: (None,))
    w.backward((net(x) + x).sum())
    w.log.append(plain(x.grad))


def several_arguments_and_results(w):
    net, x, other = w.Twice(), w.tensor([1.0, 2.0]), w.tensor([3.0, 4.0])
    net.register_full_backward_hook(w.note("a", lambda back, out: (back[1], back[0])))
    y, z, text = net(x, other)
    w.backward((y * z).sum())
    w.log += [plain(x.grad), plain(other.grad), text]


def no_argument_requires_a_gradient(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0], requires_grad=False)
    net.gain = w.library.nn.Parameter(w.tensor([5.0, 6.0]))
    inner = net.forward
    net.forward = lambda x: inner(x) * net.gain
    net.register_full_backward_hook(w.note("a", lambda back, out: (None,)))
    w.backward(net(x).sum())
    w.log.append(plain(net.gain.grad))


def nothing_is_recorded(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0])
    net.register_full_backward_hook(w.note("a"))
    with w.library.no_grad():
        w.log.append(net(x).requires_grad)
    w.log.append(net(w.tensor([1.0], requires_grad=False)).requires_grad)


def second_derivatives(w):
    net, x = w.Twice(), w.tensor([1.0, 2.0])
    net.register_full_backward_hook(w.note("a", lambda back, out: (back[0] * back[0],)))
    first = w.derivative(net(x * x).sum(), x, graph=True)
    w.log.append(plain(first))
    w.log.append(plain(w.derivative(first.sum(), x)))


def gradients_of_tensors(w):
    x = w.tensor([1.0, 2.0])
    y = x * x
    y.register_hook(w.note("y", lambda grad: grad * 10))
    y.register_hook(w.note("y again"))
    x.register_hook(w.note("x", lambda grad: grad + 1))
    loss = (y * y + y).sum()
    w.backward(loss)
    w.log.append(plain(x.grad))
    w.log.append(plain(w.derivative(loss, y)))


def second_derivatives_of_tensors(w):
    x = w.tensor([1.0, 2.0])
    y = x * x
    y.register_hook(w.note("y", lambda grad: grad * grad))
    first = w.derivative((y * y).sum(), x, graph=True)
    w.log += [plain(first), plain(w.derivative(first.sum(), x))]


PROGRAMS = [
    arguments_change, results_change, handles, a_hook_removes_itself,
    a_handle_forgets_its_hook, hooks_add_and_remove_hooks_of_the_call, backward_sees_both_gradients,
    backward_changes_gradients, a_gradient_is_stopped, several_arguments_and_results, no_argument_requires_a_gradient,
    nothing_is_recorded, second_derivatives, gradients_of_tensors, second_derivatives_of_tensors,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs_do_what_they_do_in_torch(program, on_device):
    mine, theirs = World(ndl), World(torch)
    program(mine)
    program(theirs)
    assert mine.log == theirs.log
    assert mine.log


# ---- what torch does otherwise, or not -------------------------------------------------------------------------------


def test_gradients_accumulate_through_hooks():
    layer, x = hooked(lambda module, back, out: (back[0] * 2,)), ndl.Tensor(VALUES)
    for times in (1, 2):
        layer(x).sum().backward(create_graph=False, accumulate=True)
        expected = 2 * times * np.broadcast_to(layer.weight.numpy().sum(1), (3, 4))
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


def test_named_tuples_stay_what_they_are():
    Pair = namedtuple("Pair", "first second")
    x = ndl.ones(2, requires_grad=True)
    pair = _with_backward_hook(lambda x: Pair(x * 2, x))(x)
    assert isinstance(pair, Pair)
    pair.second.sum().backward()
    assert x.grad.numpy().tolist() == [1, 1]


def test_results_of_an_op_are_a_tuple():
    seen = []
    module = _with_backward_hook(lambda x: ndl.ops.split(x, 0), lambda module, back, out: seen.append(plain(out)))
    x = ndl.Tensor(VALUES[:2])
    first, second = module(x)
    (first * 2 + second).sum().backward(create_graph=False)
    assert seen == [([2] * 4, [1] * 4)]


def test_results_of_any_kind_pass_where_no_gradient_flows():
    module = _with_backward_hook(lambda x: {"y": x})
    with ndl.no_grad():
        assert module(3) == {"y": 3}


def test_a_result_that_is_not_used_has_a_zero_gradient():
    seen = []
    module = _with_backward_hook(lambda x: (x * 2, x * 3), lambda module, back, out: seen.append(out))
    first, _ = module(ndl.ones(2, requires_grad=True))
    first.sum().backward()
    assert [grad.numpy().tolist() for grad in seen[0]] == [[1, 1], [0, 0]]


def test_writes_are_noticed_through_the_identity():
    """Arguments and results are views of the memory that they had: backward refuses values that changed."""
    module = _with_backward_hook(lambda x: x * x)
    x = ndl.ones(3, requires_grad=True)
    y = module(x)
    with ndl.no_grad():
        x[...] = 2.0
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.sum().backward()


def test_integers_pass_and_constants_stay_constants():
    seen = {}
    module = _with_backward_hook(
        lambda x, index, mask: (seen.update(index=index, mask=mask), x[index] * mask)[1],
        lambda module, back, out: seen.update(back=back),
    )
    index, mask = ndl.tensor([0, 1], requires_grad=True), ndl.ones(2)
    module(ndl.ones(3, requires_grad=True), index, mask).sum().backward()
    assert seen["index"] is index
    assert seen["mask"] is mask
    assert [grad is None for grad in seen["back"]] == [False, True, True]
    assert index.grad is None


def test_copies_keep_hooks_of_modules_and_lose_those_of_tensors():
    calls = []
    layer = hooked(lambda *_: calls.append("forward"), "register_forward_hook")
    layer.weight.register_hook(lambda grad: calls.append("grad"))
    copy.deepcopy(layer)(ndl.ones(1, 4)).sum().backward()
    assert calls == ["forward"]


def test_hooks_are_no_state():
    """Also those that are modules themselves."""
    layer = hooked(nn.Linear(2, 2), "register_forward_hook")
    assert layer.children() == []
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_gradients_that_hooks_saw_are_freed():
    """A call keeps the gradients of its results only until backward has passed it."""
    grads = []
    layer = hooked(lambda module, back, out: grads.append(weakref.ref(out[0])))
    y = layer(ndl.ones(3, 4, requires_grad=True)).sum()
    y.backward(create_graph=False, retain_graph=True)
    gc.collect()
    assert [ref() for ref in grads] == [None]
