"""The stand-in catches code that would break or stall on a GPU: each kind of mistake must fail on it."""

from __future__ import annotations

import copy
import inspect
import operator
import pickle
import re
import warnings
from functools import reduce

import numpy as np
import pytest

import needle as ndl
from needle.backend import xp
from needle.backend_ndarray import NDArray
from needle.ops.elementwise import Exp
from tests.standin.array import Array, Counts, counting
from tests.standin.device import STANDIN
from tests.standin.missing import FUNCTIONS, KEYWORDS, METHODS, UFUNC_KEYWORDS

HOST = np.array([3.0, 1.0, 2.0])
INDICES = np.array([3, 1, 2])
COPIED = "would be copied from the host in silence"
STALLS = "was asked for in silence"
UNKNOWN = "got an unexpected keyword argument"

# mistake: (call, error, message, whether CuPy itself refuses it; the others transfer or wait silently there)
MISTAKES = {
    "a stray np. call": (lambda xp, x: np.exp(x), TypeError, "numpy.exp was called on a device array", False),
    "a stray np. function": (lambda xp, x: np.sum(x), TypeError, "numpy.sum was called on a device array", False),
    "a stray np. on several": (lambda xp, x: np.stack([x, x]), TypeError, "numpy.stack was called", False),
    "np.asarray": (lambda xp, x: np.asarray(x), TypeError, "Implicit conversion to a NumPy array", True),
    "np.array of several": (lambda xp, x: np.array([x, x]), TypeError, "Implicit conversion", True),
    "a host operand": (lambda xp, x: x + HOST, TypeError, "Unsupported type <class 'numpy.ndarray'>", True),
    "a host operand first": (lambda xp, x: HOST * x, TypeError, "numpy.multiply was called", True),
    "a host operand in place": (lambda xp, x: operator.iadd(x, HOST), TypeError, "Unsupported type", True),
    "a host operand of a ufunc": (lambda xp, x: xp.maximum(x, HOST), TypeError, "Unsupported type", True),
    "a host operand of a function": (lambda xp, x: xp.concatenate([x, HOST]), TypeError, "Unsupported type", True),
    "a list as operand": (lambda xp, x: xp.exp([1.0, 2.0]), TypeError, "Unsupported type <class 'list'>", True),
    "a list as operand of a function": (lambda xp, x: xp.sum([1.0, 2.0]), TypeError, "Unsupported type", False),
    "sum(initial=)": (lambda xp, x: x.sum(initial=0.0), TypeError, UNKNOWN, True),
    "xp.sum(initial=)": (lambda xp, x: xp.sum(x, initial=0.0), TypeError, UNKNOWN, True),
    "max(where=)": (lambda xp, x: x.max(initial=0, where=x > 1), TypeError, UNKNOWN, True),
    "clip(min=)": (lambda xp, x: xp.clip(x, min=0), TypeError, UNKNOWN, True),
    "clip(casting=)": (lambda xp, x: xp.clip(x, 0, 1, casting="same_kind"), TypeError, UNKNOWN, True),
    "exp(where=)": (lambda xp, x: xp.exp(x, where=x > 1, out=x), TypeError, "Wrong arguments", True),
    "add(order=)": (lambda xp, x: xp.add(x, x, order="K"), TypeError, "Wrong arguments", True),
    "add.reduce(initial=)": (lambda xp, x: xp.add.reduce(x, initial=0), TypeError, UNKNOWN, True),
    "multiply.at": (lambda xp, x: xp.multiply.at(x, 0, 2.0), NotImplementedError, "multiply.at", True),
    "add.at of int64": (
        lambda xp, x: xp.add.at(x.astype("int64"), x.astype("int64") % 3, 1), TypeError, "only supports", False,
    ),
    "a function that CuPy lacks": (lambda xp, x: xp.insert(x, 0, 1.0), AttributeError, "no attribute 'insert'", True),
    "a method that CuPy lacks": (lambda xp, x: x.setflags(), AttributeError, "no attribute 'setflags'", True),
    "an ndarray index": (lambda xp, x: x[INDICES % 3], TypeError, COPIED, False),
    "an ndarray mask": (lambda xp, x: x[HOST > 1], TypeError, COPIED, False),
    "a list index": (lambda xp, x: x[[0, 2]], TypeError, COPIED, False),
    "an ndarray index assigned to": (lambda xp, x: operator.setitem(x, INDICES % 3, 0.0), TypeError, COPIED, False),
    "an ndarray assigned": (lambda xp, x: operator.setitem(x, slice(None), HOST), TypeError, "Unsupported type", False),
    "float()": (lambda xp, x: float(x.sum()), TypeError, STALLS, False),
    "int()": (lambda xp, x: int(x.argmax()), TypeError, STALLS, False),
    "bool()": (lambda xp, x: bool((x > 5).any()), TypeError, STALLS, False),
    "if": (lambda xp, x: 1 if x.sum() > 5 else 0, TypeError, STALLS, False),
    "in": (lambda xp, x: 3.0 in x, TypeError, STALLS, False),
    "range()": (lambda xp, x: range(x.argmax()), TypeError, STALLS, True),
    "a reduction taken for a number": (lambda xp, x: x.sum().is_integer(), AttributeError, "is_integer", True),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(mistake):
    make, error, message, _ = MISTAKES[mistake]
    with pytest.raises(error, match=re.escape(message)):
        make(STANDIN.xp, STANDIN.array(HOST))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_numpy_alone_would_not_notice(mistake):
    if mistake == "clip(min=)" and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("NumPy has clip(min=) since 2.1")
    make, *_ = MISTAKES[mistake]
    make(np, HOST.copy())


@pytest.mark.gpu
@pytest.mark.parametrize("mistake", [name for name, (*_, refused) in MISTAKES.items() if refused])
def test_cupy_itself_refuses_it(mistake):
    if not ndl.cuda().enabled():
        pytest.skip("needs a GPU and CuPy")
    make, *_ = MISTAKES[mistake]
    with pytest.raises((TypeError, AttributeError, NotImplementedError)):
        make(ndl.cuda().xp, ndl.cuda().array(HOST))


def test_mixed_devices_are_refused():
    x, y = ndl.Tensor(HOST), ndl.Tensor(HOST, device=STANDIN)
    for a, b in ((x, y), (y, x)):
        with pytest.raises(TypeError, match=r"^EWiseAdd: inputs must be on one device, but got "):
            a + b
    with pytest.raises(TypeError, match=r"on one device, but got .*standin"):
        ndl.where(ndl.Tensor([True, False, True]), y, 0)


def test_a_mistake_in_an_op_is_caught(monkeypatch):
    monkeypatch.setattr(Exp, "compute", lambda op, x: np.exp(x))
    assert ndl.exp(ndl.Tensor(HOST)).shape == (3,)
    with pytest.raises(TypeError, match=r"numpy\.exp was called on a device array"):
        ndl.exp(ndl.Tensor(HOST, device=STANDIN))


# ---- behavior shared with CuPy ---------------------------------------------------------------------------------------


def test_reductions_and_elements_are_arrays_without_axes():
    x = STANDIN.array(HOST)
    for value in (x.sum(), x.max(), x.argmax(), x[0], (x > 1).any(), STANDIN.xp.sum(x), STANDIN.xp.allclose(x, x)):
        assert type(value) is Array
        assert value.shape == ()


def test_an_element_is_a_view():
    x = STANDIN.array([[1.0, 2.0], [3.0, 4.0]])
    element = x[1, 0]
    element[...] = 9
    assert x.tolist() == [[1, 2], [9, 4]]
    x.T[0] *= 2
    assert x.tolist() == [[2, 2], [18, 4]]


def test_integers_out_of_range_wrap_around():
    x = STANDIN.array([[1, 2, 3], [4, 5, 6]])
    assert x[:, STANDIN.array([3, -1, 4])].tolist() == [[1, 3, 2], [4, 6, 5]]
    assert x[..., None, STANDIN.array([5])].tolist() == [[[3]], [[6]]]
    assert x[STANDIN.array([[True, False, True], [False] * 3])].tolist() == [1, 3]
    assert STANDIN.xp.arange(300)[STANDIN.array([-1, 7], "int8")].tolist() == [299, 7]


def test_results_of_ufuncs_are_row_major():
    x = STANDIN.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).T
    assert not x.flags.c_contiguous
    for y in (x + x, x * 2, -x, STANDIN.xp.exp(x), STANDIN.xp.maximum(x, 0), x.copy()):
        assert y.flags.c_contiguous


def test_the_out_argument_is_returned():
    x = STANDIN.array(HOST)
    before = x
    x += 1
    assert x is before
    assert STANDIN.xp.multiply(x, 2, x) is x
    assert STANDIN.xp.exp(x, out=x) is x
    assert STANDIN.xp.matmul(x[None], x[:, None], out=(out := STANDIN.xp.empty((1, 1)))) is out


def test_nothing_warns():
    x = STANDIN.array([0.0, -1.0, np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan((STANDIN.xp.log(x) / x)[1].item())
        assert (x - x).astype("int32").shape == (3,)


def test_copies_and_pickles():
    x = STANDIN.array(HOST)
    for y in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        y += 1
        assert x.tolist() == HOST.tolist()
        assert y.tolist() == (HOST + 1).tolist()


def test_numbers_of_python_and_numpy_are_operands():
    x = STANDIN.array(HOST.astype("float32"))
    assert (x * 2.0).dtype == "float32"
    assert (x * np.float64(2)).dtype == "float64"
    assert STANDIN.xp.add(1, x).tolist() == [4, 2, 3]


def test_random_draws_are_made_on_the_device():
    with counting() as counts:
        draws = STANDIN.xp.random.random_sample((2, 3), "float32")
    assert (draws.shape, draws.dtype, counts) == ((2, 3), "float32", Counts())
    with pytest.raises(AttributeError, match=r"no attribute 'random\.shuffle'"):
        STANDIN.xp.random.shuffle  # noqa: B018


def test_data_on_the_device_stay_there():
    x = STANDIN.array(HOST)
    with counting() as counts:
        assert ndl.Tensor(x).device == NDArray(x).device == STANDIN
    assert counts == Counts()
    assert xp(x) is STANDIN.xp


# ---- the list of what CuPy lacks -------------------------------------------------------------------------------------


def member(owner, name):
    """The member of a module at a dotted name."""
    return reduce(getattr, name.split("."), owner)


def test_what_cupy_lacks_is_refused():
    x = STANDIN.array(HOST)
    for name in FUNCTIONS:
        with pytest.raises(AttributeError, match=f"no attribute '{re.escape(name)}'"):
            member(STANDIN.xp, name)
    for name in METHODS:
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(x, name)
    for keyword, names in KEYWORDS.items():
        for name in names.split():
            function = member(STANDIN.xp, "lib.stride_tricks.as_strided" if name == "as_strided" else name)
            with pytest.raises(TypeError, match=f"{UNKNOWN} '{keyword}'"):
                function(x, **{keyword: None})
            if hasattr(np.ndarray, name) and keyword not in ("min", "max"):
                with pytest.raises(TypeError, match=f"{UNKNOWN} '{keyword}'"):
                    getattr(x, name)(**{keyword: None})
    assert x.clip(min=2).tolist() == [3, 2, 2]


@pytest.mark.gpu
def test_cupy_lacks_it():
    """CuPy 14.2; a newer one may have learnt something, which then leaves the list."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert not [name for name in FUNCTIONS if not hasattr(np, name.partition(".")[0]) or has(cupy, name)]
    assert not [name for name in METHODS if hasattr(cupy.ndarray, name)]
    for keyword, names in KEYWORDS.items():
        for name in names.split():
            function = member(cupy, "lib.stride_tricks.as_strided" if name == "as_strided" else name)
            assert keyword not in parameters(function), (name, keyword)
            if hasattr(np.ndarray, name) and keyword not in ("min", "max"):
                assert keyword not in parameters(getattr(cupy.ndarray, name)), (name, keyword)
    ufuncs = [value for value in vars(cupy).values() if isinstance(value, cupy.ufunc)]
    assert {word for ufunc in ufuncs for word in parameters(ufunc)} >= UFUNC_KEYWORDS
    assert len(ufuncs) > 50


def has(module, name):
    """Whether a module has a member at a dotted name."""
    try:
        return member(module, name) is not None
    except AttributeError:
        return False


def parameters(function):
    """The names of CuPy's parameters; compiled functions state them in the first line of their docstring."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return re.findall(r"\w+", (function.__doc__ or "").strip().partition("\n")[0])
