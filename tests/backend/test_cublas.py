"""Products by cuBLAS: every pattern of strides against NumPy, on a library that plays cuBLAS on host memory."""

from __future__ import annotations

import ctypes
import gc
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import needle as ndl
from needle import tuning
from needle.backend import cublas, tf32_allowed
from needle.backend_ndarray import BackendDevice

TYPES = {0: np.float32, 1: np.float64, 2: np.float16}
COMPUTE = {0: 68, 1: 70, 2: 68}


class Stream:
    """A stream of `cupy.cuda`."""

    ptr = 7


class Library:
    """cuBLAS's functions on host memory; they note their calls."""

    def __init__(self, status=0):
        self.calls, self.status = [], status
        for name in ("cublasSetStream_v2", "cublasSetWorkspace_v2", *cublas.PRODUCTS):
            setattr(self, name, self.function(name))

    def function(self, name):
        def call(*arguments):
            assert call.argtypes is not None
            assert len(arguments) == len(call.argtypes)
            for argument, kind in zip(arguments, call.argtypes, strict=True):
                kind(argument)  # raises if ctypes would
            self.calls.append((name, arguments))
            return self.status or getattr(self, f"play_{name}", lambda *arguments: 0)(*arguments)

        call.argtypes = None
        return call

    def play_cublasGemmEx(self, *arguments):
        *head, one, a, at, lda, b, bt, ldb, zero, c, ct, ldc, compute, algorithm = arguments
        return self.product(*head, one, a, at, lda, 0, b, bt, ldb, 0, zero, c, ct, ldc, 0, 1, compute, algorithm)

    def play_cublasGemmStridedBatchedEx(self, *arguments):
        return self.product(*arguments)

    def product(
        self, handle, ta, tb, m, n, k, one, a, at, lda, sa, b, bt, ldb, sb, zero, c, ct, ldc, sc, count, compute, _
    ):  # fmt: skip
        dtype = TYPES[ct]
        assert handle == 99
        assert at == bt == ct
        assert compute == (77 if tf32_allowed() and ct == 0 else COMPUTE[ct])
        scalar = ctypes.c_double if ct == 1 else ctypes.c_float
        assert scalar.from_address(one).value == 1
        assert scalar.from_address(zero).value == 0
        assert lda >= max(1, k if ta else m)
        assert ldb >= max(1, n if tb else k)
        assert ldc >= max(1, m)
        wide = np.float64 if ct == 1 else np.float32
        for i in range(count):
            first = matrix(a, dtype, sa * i, lda, *((k, m) if ta else (m, k)))
            second = matrix(b, dtype, sb * i, ldb, *((n, k) if tb else (k, n)))
            product = (first.T if ta else first).astype(wide) @ (second.T if tb else second).astype(wide)
            matrix(c, dtype, sc * i, ldc, m, n)[...] = product
        return 0


def matrix(address, dtype, offset, leading, rows, columns):
    """A column-major matrix on the memory at an address."""
    count = (columns - 1) * leading + rows
    size = np.dtype(dtype).itemsize
    memory = (ctypes.c_char * (count * size)).from_address(address + offset * size)
    steps = size, size * leading
    return np.lib.stride_tricks.as_strided(np.frombuffer(memory, dtype), (rows, columns), steps)


class Played(BackendDevice):
    """NumPy's arrays, multiplied by the played cuBLAS."""

    def __init__(self, status=0):
        super().__init__("played", np)
        self.library, self.stream = Library(status), Stream()
        self.cuda = SimpleNamespace(
            device=SimpleNamespace(get_cublas_handle=lambda: 99),
            get_current_stream=lambda: self.stream,
            alloc=lambda size: SimpleNamespace(ptr=4096, size=size),
        )
        self.blas = cublas.Blas(self.library, self.cuda)

    def gemm(self, a, b, out=None):
        return cublas.gemm(self, a, b, out)

    def products(self):
        return [call for call in self.library.calls if call[0] in cublas.PRODUCTS]


@pytest.fixture
def played():
    return Played()


def laid(shape, order, dtype="float32", seed=0):
    """An array of that shape whose axes lie in memory in `order`, outermost first."""
    values = np.random.default_rng(seed).normal(size=[shape[axis] for axis in order]).astype(dtype)
    return values.transpose(np.argsort(order))


def agree(played, a, b, calls=1, out=None, copies=(False, False, False)):
    """The product is NumPy's, with that many calls of cuBLAS, and copies of (a, b, out)."""
    result = played.gemm(a, b, out)
    wide = np.float64 if a.dtype != np.float16 else np.float32
    expected = np.matmul(a.astype(wide), b.astype(wide)).astype(a.dtype)
    np.testing.assert_allclose(result, expected, rtol=1e-2 if a.dtype == np.float16 else 1e-5, atol=1e-5)
    assert result.dtype == a.dtype
    assert len(played.products()) == calls
    found = cublas.plan((a.shape, b.shape, result.shape), (a.strides, b.strides, result.strides), a.itemsize)
    assert found.copies == copies
    return result


PATTERNS = {  # a and b (or their shapes), each with the order of its axes in memory
    "matrices": ((5, 4), (0, 1), (4, 3), (0, 1)),
    "a transposed": ((5, 4), (1, 0), (4, 3), (0, 1)),
    "b transposed": ((5, 4), (0, 1), (4, 3), (1, 0)),
    "both transposed": ((5, 4), (1, 0), (4, 3), (1, 0)),
    "a row": ((1, 4), (0, 1), (4, 3), (1, 0)),
    "a column": ((5, 4), (1, 0), (4, 1), (0, 1)),
    "one term": ((5, 1), (0, 1), (1, 3), (0, 1)),
    "a batch": ((6, 5, 4), (0, 1, 2), (6, 4, 3), (0, 1, 2)),
    "a batch of transposes": ((6, 5, 4), (0, 2, 1), (6, 4, 3), (0, 2, 1)),
    "a batch between the axes": ((6, 5, 4), (1, 0, 2), (6, 4, 3), (2, 0, 1)),
    "a batch innermost, times a matrix": ((6, 5, 4), (1, 2, 0), (4, 3), (0, 1)),
    "a batch innermost, times a transpose": ((6, 5, 4), (2, 1, 0), (4, 3), (1, 0)),
    "a matrix times a batch outside": ((5, 4), (0, 1), (6, 4, 3), (2, 0, 1)),
    "a sequence times a matrix": ((6, 5, 4), (0, 1, 2), (4, 3), (0, 1)),
    "a broadcast batch": ((1, 5, 4), (0, 1, 2), (6, 4, 3), (0, 1, 2)),
    "a batch of batches": ((2, 6, 5, 4), (0, 1, 2, 3), (2, 6, 4, 3), (0, 1, 2, 3)),
    "blocks of a convolution": ((1, 1, 5, 4), (0, 1, 2, 3), (1, 6, 4, 3), (1, 0, 2, 3)),
    "ones times rows": ((1, 4), (0, 1), (2, 6, 4, 3), (0, 1, 2, 3)),
    "dot products": ((6, 1, 4), (0, 1, 2), (6, 4, 1), (0, 1, 2)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", PATTERNS)
def test_one_call_reads_operands_where_they_lie(name, dtype, played):
    a_shape, a_order, b_shape, b_order = PATTERNS[name]
    agree(played, laid(a_shape, a_order, dtype), laid(b_shape, b_order, dtype, 1))


def test_slices_are_read_where_they_lie(played):
    a, b = laid((9, 8), (0, 1))[2:7, 1:5], laid((8, 20), (0, 1))[::2, 3:10]
    out = np.zeros((12, 9), "float32")
    agree(played, a, b, out=out[::2, 1:8][:5])
    assert np.count_nonzero(out) == 35


def test_results_are_written_where_they_belong(played):
    a, b = laid((5, 4), (0, 1)), laid((4, 3), (0, 1))
    agree(played, a, b, out=np.empty((3, 5), "float32").T)


def test_an_explicitly_broadcast_batch_is_a_step_of_zero(played):
    agree(played, np.broadcast_to(laid((5, 4), (0, 1)), (6, 5, 4)), laid((6, 4, 3), (0, 1, 2)))


def test_vectors_are_rows_and_columns(played):
    a, b = laid((5, 4), (0, 1)), laid((4,), (0,))
    np.testing.assert_allclose(played.gemm(a, b), a @ b, rtol=1e-5)
    np.testing.assert_allclose(played.gemm(b, a.T), b @ a.T, rtol=1e-5)
    np.testing.assert_allclose(played.gemm(b, b), b @ b, rtol=1e-5)
    assert len(played.products()) == 3


@pytest.mark.parametrize(
    ("a", "b", "copies"),
    [
        (laid((10, 8), (0, 1))[:, ::2], laid((4, 3), (0, 1)), (True, False, False)),
        (laid((5, 4), (0, 1)), laid((4, 6), (0, 1))[:, ::2], (False, True, False)),
        (laid((5, 4), (0, 1)), laid((6, 4, 3), (2, 1, 0)), (False, True, False)),
        (np.broadcast_to(np.float32(2), (5, 4)), laid((4, 3), (0, 1)), (True, False, False)),
        (laid((5, 4), (0, 1))[::-1], laid((4, 3), (0, 1)), (True, False, False)),
        (laid((5, 4), (0, 1))[::-1], laid((4, 3), (0, 1))[:, ::-1], (True, True, False)),
    ],
    ids=[
        "every other column",
        "of b",
        "a batch innermost of b, which a row-major result has outside",
        "repeated rows",
        "reversed rows",
        "both reversed",
    ],
)
def test_what_blas_cannot_read_is_copied_once(a, b, copies, played):
    agree(played, a, b, copies=copies)


def test_a_result_that_blas_cannot_write_is_copied(played):
    out = np.zeros((5, 6), "float32")
    agree(played, laid((5, 4), (0, 1)), laid((4, 3), (0, 1)), out=out[:, ::2], copies=(False, False, True))
    assert not out[:, 1::2].any()


def test_a_few_calls_are_cheaper_than_a_copy(played):
    """Two heads of attention as slices of one array: one call for each; of eight heads, both operands are copied."""
    for heads, calls, copied in ((2, 2, False), (8, 1, True)):
        played.library.calls.clear()
        query, key = (laid((6, 5, heads, 4), (0, 1, 2, 3), seed=i).swapaxes(1, 2) for i in range(2))
        agree(played, query, key.swapaxes(2, 3), calls, copies=(copied, copied, False))


def test_empty_and_other_arrays_are_left_to_the_library(played):
    for a, b in (
        (np.zeros((3, 0), "float32"), np.zeros((0, 2), "float32")),
        (np.zeros((0, 3), "float32"), np.zeros((3, 2), "float32")),
        (np.ones((2, 3), "int32"), np.ones((3, 2), "int32")),
        (np.ones((2, 3), "float32"), np.ones((3, 2), "float64")),
    ):
        np.testing.assert_array_equal(played.gemm(a, b), a @ b)
    assert not played.library.calls


def test_sizes_beyond_31_bits_are_left_to_the_library():
    huge = 1 << 31
    assert cublas.plan(((2, 3), (3, 2), (2, 2)), ((4 * huge, 4), (8, 4), (8, 4)), 4).copies == (True, False, False)
    assert cublas.plan(((huge, 1), (1, 2), (huge, 2)), ((4, 4), (8, 4), (8, 4)), 4) is None


@given(st.data())
def test_any_strides_agree_with_numpy(data):
    """Random shapes, orders, steps, broadcasting and result: the product is NumPy's."""
    size = st.integers(1, 4)
    batch = data.draw(st.lists(size, max_size=3))
    n, k, m = (data.draw(size) for _ in range(3))
    operands = []
    for shape in ((n, k), (k, m), (n, m)):
        lead = [*batch] if len(operands) == 2 else [data.draw(st.sampled_from([1, entry])) for entry in batch]
        lead = lead if len(operands) == 2 else lead[data.draw(st.integers(0, len(lead))) :]
        full = (*lead, *shape)
        order = data.draw(st.permutations(range(len(full))))
        steps = [data.draw(st.sampled_from([1, 1, 2, -1])) for _ in full]
        whole = laid([entry * abs(step) for entry, step in zip(full, steps, strict=True)], order, seed=len(operands))
        operands.append(whole[tuple(slice(None, None, step) for step in steps)])
    a, b, out = operands
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = out[tuple(slice(entry) for entry in (*(1,) * (out.ndim - 2 - len(batch)), *batch, n, m))]
    out = out.reshape((*batch, n, m)) if out.ndim - 2 == len(batch) else np.empty((*batch, n, m), "float32")
    result = Played().gemm(a, b, out)
    assert result is out
    np.testing.assert_allclose(result, np.matmul(a, b), rtol=1e-5, atol=1e-5)


# ---- the library -----------------------------------------------------------------------------------------------------


def test_the_workspace_is_set_after_the_stream_with_every_product(played):
    for _ in range(2):
        played.gemm(laid((5, 4), (0, 1)), laid((4, 3), (0, 1)))
    names = [name for name, _ in played.library.calls]
    assert names == ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"] * 2
    assert played.library.calls[0][1] == (99, 7)
    assert played.library.calls[1][1] == (99, 4096, tuning.CUBLAS_WORKSPACE_BYTES)


def test_a_stream_keeps_its_workspace_until_it_ends(played):
    matrix = laid((4, 4), (0, 1))
    played.gemm(matrix, matrix)
    (first,) = played.blas.workspaces.values()
    played.gemm(matrix, matrix)
    assert list(played.blas.workspaces.values()) == [first]
    played.stream = Stream()
    gc.collect()
    assert not played.blas.workspaces


@pytest.mark.parametrize(("allowed", "compute"), [(False, 68), (True, 77)])
def test_tf32_is_passed_where_it_is_allowed(allowed, compute, played):
    matrix = laid((4, 4), (0, 1))
    with ndl.allow_tf32(allowed):
        played.gemm(matrix, matrix)
        played.gemm(matrix.astype("float64"), matrix.astype("float64"))
    assert [arguments[-2] for _, arguments in played.products()] == [compute, 70]


def test_the_switch_holds_until_the_next_call_or_the_end_of_the_block():
    assert not tf32_allowed()
    with ndl.allow_tf32():
        assert tf32_allowed()
        with ndl.allow_tf32(False):
            assert not tf32_allowed()
        assert tf32_allowed()
    assert not tf32_allowed()
    ndl.allow_tf32()
    assert tf32_allowed()
    ndl.allow_tf32(False)
    assert not tf32_allowed()


def test_a_library_without_the_functions_is_not_used():
    missing = SimpleNamespace(cuda=SimpleNamespace(cublas=SimpleNamespace(__file__=ctypes.__file__)))
    assert cublas.load(missing) is None
    assert cublas.load(SimpleNamespace(cuda=SimpleNamespace(cublas=itertools))) is None
    without = Played()
    without.blas = None
    matrix = laid((4, 4), (0, 1))
    np.testing.assert_array_equal(without.gemm(matrix, matrix), matrix @ matrix)


ERRORS = [
    (lambda: Played(status=13).gemm(np.ones((2, 2)), np.ones((2, 2))),
     RuntimeError, "matmul: cuBLAS must succeed, but got its status 13"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_a_failure_of_cublas_is_an_error(call, kind, message):
    with pytest.raises(kind) as raised:
        call()
    assert str(raised.value) == message
