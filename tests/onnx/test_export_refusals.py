"""What needle.onnx.export refuses, with its messages; the file stays what it was, and so does the model."""

from __future__ import annotations

import re

import numpy as np
import pytest

import needle as ndl
import needle.onnx
from needle import init, nn
from needle.grad_mode import mode
from needle.nn import functional as F
from needle.ops.elementwise import RELU_GRAD
from needle.ops.norm import standardize
from tests.onnx.exported import Function

X = ndl.ones(2, 3)


def exported(function, sample=X, path="/nowhere/model.onnx", **options):
    """The export of a function as a call, which fails before the path matters."""
    model = function if isinstance(function, nn.Module) else Function(function)
    return lambda: needle.onnx.export(model, sample, path, **options)


def gradient(x):
    return RELU_GRAD(x, x)


def statistics(x):
    return standardize(x, (0,))[1]


def wide_pool(x):
    return F.max_pool1d(x.astype("int64"), 2)


def by_size(x):
    return x * 2 if len(x) > 102 else x + 1


class Counting(nn.Module):
    """A module that counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = nn.Buffer(ndl.zeros(1))

    def forward(self, x):
        self.calls.data = self.calls + 1
        return x + self.calls


def drawing_and_failing(x):
    init.randn(3)
    raise RuntimeError("inside")


IMAGES = ndl.ones(1, 3, 8)
SAME = r"export: with batch_axis, the model must be the same for all batch sizes, but it changes "
VALUES = r"export: the forward pass must not read values that depend on an input .*, but it reads .* from 'input_0'"
# fmt: off
ERRORS = [
    (exported(gradient), ValueError, r"export: ops must have a form in ONNX, but ReLUGrad has none"),
    (exported(lambda x: ndl.atan2(ndl.hypot(x, x), x)), ValueError,
     r"export: ops must have a form in ONNX, but Atan2, Hypot have none"),
    (exported(statistics), ValueError,
     r"export: ops must have a form in ONNX, but result 1 of Standardize has none"),
    (exported(wide_pool, IMAGES), ValueError,
     r"export: the model must be valid in ONNX, but its checker says: .*MaxPool.*"),
    (exported(lambda x: x if float(x.sum()) > 0 else -x), ValueError, VALUES),
    (exported(lambda x: x[x > 0]), ValueError, VALUES),
    (exported(lambda x: ndl.Tensor(x.numpy())), ValueError, VALUES),
    (exported(lambda x: x + init.randn(3)), ValueError,
     r"export: the forward pass must be the same each time, but it draws random numbers in evaluation mode"),
    (exported(Counting()), ValueError,
     r"export: the forward pass must be the same each time, but it changes the state of the model"),
    (exported(lambda x: None), TypeError, r"export: what the model returns must be of tensors, but it returns none"),
    (exported(lambda x: (x, 3.0)), TypeError,
     r"export: what the model returns must be of tensors, but output_1 is float"),
    (exported(nn.Identity(), opset=16), ValueError, r"export: opset must lie in \[17, 28\], but got 16"),
    (exported(nn.Identity(), input_names=["a", "b"]), ValueError,
     r"export: input_names must be 1 different names that nothing else has, but got \['a', 'b'\]"),
    (exported(nn.Linear(3, 2), output_names=["weight"]), ValueError,
     r"export: output_names must be 1 different names that nothing else has, but got \['weight'\]"),
    (exported(by_size, batch_axis=0), ValueError, SAME + r"which ops it applies"),
    (exported(lambda x: x * 2 if len(x) < 5 else x + 1, batch_axis=0), ValueError, SAME + r"which ops it applies"),
    (exported(lambda x: x * 2 if len(x) % 2 else x + 1, ndl.ones(5, 3), batch_axis=0), ValueError,
     SAME + r"which ops it applies"),
    (exported(lambda x: x + init.arange(len(x)).reshape((-1, 1)), batch_axis=0), ValueError,
     SAME + r"the values of a constant of shape \(101, 1\)"),
    (exported(lambda x: ndl.var(x, 0), batch_axis=0), ValueError,
     SAME + r"DivScalar: 100\.0 for 101 items, 102\.0 for 103"),
    (exported(lambda x: ndl.pad(x, ((0, len(x)), (0, 0))), batch_axis=0), ValueError,
     r"export: with batch_axis, ops must have the same parameters for all batch sizes, but got Pad\(.*\) in the model"),
    (exported(nn.LayerNorm((2, 3)), batch_axis=1), ValueError, r"layer_norm: .*"),
    (exported(lambda x: standardize(x, (0, 1))[0], batch_axis=0), ValueError,
     r"export: with batch_axis, ops must work for all batch sizes, but one needs its size"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)


def test_what_a_forward_pass_keeps_is_forgotten(tmp_path):
    """It would have no values."""

    class Keeping(nn.Module):
        def forward(self, x):
            self.result = x * 2
            return self.result

    model = Keeping()
    model(X)
    needle.onnx.export(model, X, tmp_path / "model.onnx")
    assert model.result.numpy().tolist() == [[2.0] * 3] * 2
    assert model.training


def test_a_refusal_leaves_everything_as_it_was(tmp_path):
    """The file, the modes of the thread and of the modules, their hooks, the random stream."""
    path = tmp_path / "model.onnx"
    path.write_text("before")
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), Function(gradient))
    model[0].eval()
    for function in (gradient, lambda x: x + init.randn(3)):
        model[2].function = function
        np.random.seed(3)
        with pytest.raises(ValueError, match="export"):
            needle.onnx.export(model, X, path)
        assert np.random.rand() == np.random.RandomState(3).rand()
    assert path.read_text() == "before"
    assert [module.training for _, module in model.named_modules()] == [True, False, True, True]
    assert not any(module._hooks for _, module in model.named_modules())
    assert (mode.outlining, mode.recording, mode.watchers) == (False, True, ())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("model", "kind"), [(Counting(), ValueError), (Function(drawing_and_failing), RuntimeError)])
def test_nothing_is_changed_by_an_export_that_fails(model, kind):
    before, stream = {name: x.numpy().copy() for name, x in model.state_dict().items()}, np.random.get_state()
    with pytest.raises(kind):
        needle.onnx.export(model, X, "/nowhere/model.onnx")
    assert {name: x.numpy().tolist() for name, x in model.state_dict().items()} == {
        name: x.tolist() for name, x in before.items()
    }
    for now, then in zip(np.random.get_state(), stream, strict=True):
        np.testing.assert_array_equal(now, then)
