"""`detect_anomaly`: the op and the line that first made a NaN or an infinity, forward and backward."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle import autograd, nn
from needle.anomaly import SOURCES, _calling_place
from tests.interrupts import interrupt_everywhere
from tests.nn.functional.alike import raises

pytestmark = [
    pytest.mark.usefixtures("on_device"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def leaf(*values, **options):
    return ndl.Tensor(np.array(values, options.pop("dtype", "float32")), **options)


def anomaly(function):
    """The message for a function, with the marker of its line in this file for the place: `# here`."""
    with pytest.raises(RuntimeError) as caught, ndl.detect_anomaly():
        function()
    message, place = str(caught.value).split("\n  at ")
    file, line, source = re.fullmatch(r"(.*):(\d+) in \S+: (.*)", place).groups()
    assert file == __file__
    assert Path(__file__).read_text("utf-8").splitlines()[int(line) - 1].strip() == source
    return message, source.partition("  # ")[2]


# ---- forward ---------------------------------------------------------------------------------------------------------


def logarithm():
    x = leaf(1, 0, 0) * 2.0
    y = ndl.log(x)  # here
    return y.sum()


def root():
    return leaf(-1, 4).sqrt()  # here


def division():
    return leaf(0, 1) / leaf(0, 0)  # here


def half_overflow():
    return leaf(300, 1, dtype="float16") * 300.0  # here


def within_a_layer():
    class Net(nn.Module):
        def forward(self, x):
            return self.inner(x) / (x - x)  # here

    net = Net()
    net.inner = nn.ReLU()
    return nn.Sequential(nn.Identity(), net)(leaf(1, 2))


def fully_masked():
    scores = leaf(1, 2) + leaf(-math.inf, -math.inf)
    return scores.softmax(0)  # here


def by_a_tuple():
    return ndl.ops.split(leaf([1, 2], [3, 4]), 0)[0] / 0.0  # here


FORWARD = {
    logarithm: "Log: results must be finite, but got 2 infinities in shape (3,), not from its inputs",
    root: "Sqrt: results must be finite, but got 1 NaN in shape (2,), not from its inputs",
    division: "EWiseDiv: results must be finite, but got 1 NaN and 1 infinity in shape (2,), not from its inputs",
    half_overflow: "MulScalar: results must be finite, but got 1 infinity in shape (2,), not from its inputs",
    within_a_layer: "EWiseDiv: results must be finite, but got 2 infinities in shape (2,), not from its inputs",
    fully_masked: "Softmax: results must be finite, but got 2 NaNs in shape (2,), not from its inputs",
    by_a_tuple: "DivScalar: results must be finite, but got 2 infinities in shape (2,), not from its inputs",
}


@pytest.mark.parametrize("function", FORWARD, ids=lambda function: function.__name__)
def test_forward_names_op_and_line(function):
    assert anomaly(function) == (FORWARD[function], "here")
    with ndl.no_grad():
        assert anomaly(function) == (FORWARD[function], "here")


def test_a_layer_of_needle_is_found_by_the_line_that_called_it():
    layer = nn.Linear(2, 1)
    layer.weight.data = ndl.Tensor(np.array([[2], [2]], np.float32))
    message, place = anomaly(lambda: nn.Sequential(nn.Flatten(), layer)(leaf([3e38, 3e38])))  # here
    assert message == "Linear: results must be finite, but got 1 infinity in shape (1, 1), not from its inputs"
    assert place == "here"


@pytest.mark.parametrize(
    "function",
    [
        lambda: ndl.log(leaf(1, 2)).sum().backward(),
        lambda: leaf(1, math.nan) * 2.0,  # not made by an op
        lambda: (leaf(1, math.nan) * leaf(1, 2)).sum().backward(),
        lambda: leaf(1, 2).masked_fill(leaf(0, 1) > 0, -math.inf).softmax(0),  # asked for
        lambda: F.scaled_dot_product_attention(*[ndl.ones(1, 4, 4)] * 3, is_causal=True),
        lambda: F.max_pool2d(ndl.ones(1, 1, 4, 4), 3, padding=1),
        lambda: ndl.tensor([1, 0]) // ndl.tensor([1, 1]),
        lambda: leaf(0, 1).isinf(),
        lambda: (leaf(1, 2) * 2.0).backward(leaf(math.inf, 1)),
    ],
)
def test_what_is_no_anomaly(function):
    with ndl.detect_anomaly():
        function()


def spoiled():
    layer = nn.Linear(2, 2, bias=False)
    optimizer = ndl.optim.SGD(layer.parameters(), lr=1e38)
    (layer(leaf([1, 2])) * 1000.0).sum().backward(create_graph=False)
    optimizer.step()
    layer(leaf([1, 2]))  # the next op


def test_a_parameter_that_a_step_has_spoiled_is_named():
    message, place = anomaly(spoiled)
    assert message == "Linear: parameters must be finite, but got 4 infinities in shape (2, 2), input 1"
    assert place == "the next op"


# ---- backward --------------------------------------------------------------------------------------------------------


def root_of_zero():
    x = leaf(4, 0)
    y = x.sqrt()  # here
    (y * 2.0).sum().backward(create_graph=CREATE_GRAPH)


def fused_power():
    x = leaf(0, 1)
    (x**0.5).sum().backward(create_graph=CREATE_GRAPH)  # here


def of_a_function():
    x = leaf(0, 1)
    y = x.sqrt().sum()  # here
    ndl.grad(y, x, create_graph=CREATE_GRAPH)


def accumulation():
    x = leaf(1)
    y = x * 1.0
    (y * 3e38 + y * 3e38).sum().backward(create_graph=CREATE_GRAPH)  # here


def own_op():
    class Bad(autograd.TensorOp):
        def compute(self, x):
            return x + 1

        def compute_gradient(self, out_grad, y, x, *, needed):
            return out_grad / 0

        def gradient(self, out_grad, node):
            return out_grad / 0.0  # here

    x = leaf(1)
    y = Bad()(x)  # fused
    y.sum().backward(create_graph=CREATE_GRAPH)


def a_hook():
    x = leaf(1)
    x.register_hook(lambda grad: grad / 0.0)  # here
    (x * 2.0).sum().backward(create_graph=CREATE_GRAPH)


CREATE_GRAPH = True
ERRORS = [(ndl.detect_anomaly()(function),) for function in (division, spoiled, root_of_zero)]
OF_ROOT = "backward: gradients must be finite, but {} made 1 infinity in shape (2,) for its input 0"
BACKWARD = {
    root_of_zero: OF_ROOT.format("Sqrt"),
    fused_power: OF_ROOT.format("PowerScalar"),
    of_a_function: OF_ROOT.format("Sqrt"),
    accumulation: "EWiseAdd: results must be finite, but got 1 infinity in shape (1,), not from its inputs",
    a_hook: "DivScalar: results must be finite, but got 1 infinity in shape (1,), not from its inputs",
}


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("function", BACKWARD, ids=lambda function: function.__name__)
def test_backward_names_the_op_and_the_line_of_forward(function, create_graph, monkeypatch):
    monkeypatch.setitem(globals(), "CREATE_GRAPH", create_graph)
    assert anomaly(function) == (BACKWARD[function], "here")


def test_a_gradient_of_ones_own(monkeypatch):
    assert anomaly(own_op)[1] == "here"
    monkeypatch.setitem(globals(), "CREATE_GRAPH", False)
    made = "backward: gradients must be finite, but Bad made 1 infinity in shape (1,) for its input 0"
    assert anomaly(own_op) == (made, "fused")


def test_second_derivatives_name_the_line_of_the_first_backward():
    def function():
        x = leaf(0, 1)
        (first,) = ndl.grad((x**1.5).sum(), x, create_graph=True)  # first
        first.sum().backward()

    assert anomaly(function) == (OF_ROOT.format("PowerScalar"), "first")


def test_an_op_before_the_block_has_no_line():
    y = leaf(0, 1).sqrt().sum()
    message = OF_ROOT.format("Sqrt") + "\n  at an unknown line: it ran before the block"
    with ndl.detect_anomaly():
        raises(y.backward, RuntimeError, message)


def test_infinities_that_the_gradient_undoes_are_no_anomaly():
    """Only what a gradient returns counts, not what it computes on the way."""

    class Careful(autograd.TensorOp):
        def compute(self, x):
            return x + 1

        def gradient(self, out_grad, node):
            return F.relu(-ndl.ops.add_scalar(out_grad, 1e38) * 0.0)

    with ndl.detect_anomaly():
        Careful()(leaf(1)).sum().backward()


# ---- the mode --------------------------------------------------------------------------------------------------------


def overflow():
    return leaf(3e38) * 10.0


def test_the_mode_ends_with_the_block_and_with_errors():
    with ndl.detect_anomaly():
        with ndl.detect_anomaly():
            pass
        with pytest.raises(RuntimeError, match="MulScalar"):
            overflow()
        with pytest.raises(ValueError, match="shapes"), ndl.detect_anomaly():
            ndl.ones(2) + ndl.ones(3)
        with pytest.raises(RuntimeError, match="MulScalar"):
            overflow()
    assert overflow().item() == math.inf


def test_the_mode_decorates():
    with pytest.raises(RuntimeError, match="MulScalar"):
        ndl.detect_anomaly()(overflow)()
    assert overflow().item() == math.inf


def test_the_mode_is_that_of_a_thread():
    results = []
    with ndl.detect_anomaly():
        thread = threading.Thread(target=lambda: results.append(overflow().item()))
        thread.start()
        thread.join()
    assert results == [math.inf]


def test_warnings_of_numpy_are_silent_within():
    with ndl.detect_anomaly(), np.testing.assert_no_warnings(), pytest.raises(RuntimeError):
        overflow()


def test_a_summary_works_within_and_around():
    with ndl.detect_anomaly():
        assert ndl.summary(nn.Linear(2, 3), (1, 2)).macs == 6
        with pytest.raises(RuntimeError, match="MulScalar"):
            overflow()

    class Net(nn.Module):
        def forward(self, x):
            with ndl.detect_anomaly():
                return x / 0.0

    with pytest.raises(RuntimeError, match="DivScalar: results must be finite"):
        ndl.summary(Net(), (1, 2))
    assert autograd.mode.watchers == ()


def test_interrupts_leave_nothing_behind():
    import contextlib

    def run():
        with ndl.detect_anomaly():
            assert autograd.mode.watchers

    for place in interrupt_everywhere(run, contextlib, sys.modules["needle.grad_mode"], sys.modules["needle.anomaly"]):
        assert autograd.mode.watchers == (), place
        assert not autograd.watching, place


def test_a_folder_beside_needle_is_the_users():
    """The place of `needle-experiments/train.py` is not taken for needle's own."""
    file = SOURCES.rstrip(os.sep) + "-experiments/train.py"
    with pytest.raises(RuntimeError, match=f"at {re.escape(file)}:1 in <module>$"), ndl.detect_anomaly():
        exec(compile("x * 10.0", file, "exec"), {"x": leaf(3e38)})


def test_the_walk_over_frames_ends_at_the_outermost(monkeypatch):
    """Code of needle that nothing calls from outside has a line, too."""
    monkeypatch.setattr("needle.anomaly.SOURCES", "")
    assert _calling_place().line > 0


def test_training_finds_nothing_and_gives_the_same():
    """A whole step is watched; its numbers do not change."""

    def step(mode):
        ndl.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten())
        net.append(nn.Linear(64, 3))
        optimizer = ndl.optim.Adam(net.parameters())
        x, y = ndl.init.randn(5, 1, 6, 6), ndl.tensor([0, 1, 2, 0, 1])
        with mode:
            for _ in range(2):
                optimizer.zero_grad()
                nn.CrossEntropyLoss()(net(x), y).backward(create_graph=False)
                optimizer.step()
        return [tensor.numpy().tobytes() for tensor in net.state_dict().values()]

    assert step(ndl.detect_anomaly()) == step(ndl.enable_grad())
