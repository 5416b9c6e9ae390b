"""Random numbers on a GPU: Philox by key and place, and dropout that draws them again for the gradient."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import kernels, nn
from needle.kernels import Draws
from needle.kernels.dropout import Part
from needle.kernels.gpu.random import KEY, source
from needle.nn import functional
from tests.gpu.faults import Fault
from tests.gpu.kernels import Module, missing, running
from tests.gpu.shim_device import SHIM

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

# Counter, key, and what Philox 4x32-10 makes of them: kat_vectors of Random123, the authors' library.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]  # fmt: skip


def philox(counter, key):
    """Philox 4x32-10 on NumPy: counters (N, 4) and a key of two words -> (N, 4)."""
    mask, counter, key = np.uint64(0xFFFFFFFF), np.array(counter, np.uint64), [np.uint64(word) for word in key]
    for _ in range(10):
        first, second = counter[:, 0] * np.uint64(0xD2511F53), counter[:, 2] * np.uint64(0xCD9E8D57)
        high = [product >> np.uint64(32) for product in (first, second)]
        columns = high[1] ^ counter[:, 1] ^ key[0], second & mask, high[0] ^ counter[:, 3] ^ key[1], first & mask
        counter = np.stack(columns, 1)
        key = [(key[0] + np.uint64(0x9E3779B9)) & mask, (key[1] + np.uint64(0xBB67AE85)) & mask]
    return counter


def numbers(key, count):
    """The numbers of the places from 0 on, of 32 bits."""
    counters = np.zeros((-(-count // 4), 4), np.uint64)
    counters[:, 0] = np.arange(len(counters))
    return philox(counters, (key & 0xFFFFFFFF, key >> 32)).ravel()[:count]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected, run):
    assert philox([counter], key).tolist() == [expected]
    text = """extern "C" __global__ void known(const unsigned* in, unsigned* out) {
      uint4 four = philox(make_uint4(in[0], in[1], in[2], in[3]), make_uint2(in[4], in[5]));
      out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    }"""
    out = SHIM.xp.empty(4, "uint32")
    Module(source.text + text).get_function("known")((1,), (1,), (SHIM.array([*counter, *key], "uint32"), out))
    assert out.tolist() == expected


def expected_drop(x, p, key, shape=None, part=()):
    shape = x.shape if shape is None else shape
    draws = numbers(key, int(np.prod(shape))).reshape(shape)[part] / 2**32
    return np.where(np.broadcast_to(draws < 1 - p, x.shape), x / np.float32(1 - p), 0)


KEYS = [0, 7, 2**63 + 12345]
SHAPES = [(), (1,), (5,), (64,), (1023,), (3, 1, 7), (2, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("key", KEYS)
def test_drop(key, shape, run):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    y = kernels.drop(SHIM.array(x), 0.25, Draws(key, shape))
    np.testing.assert_array_equal(y, expected_drop(x, 0.25, key))


ORDERS = [(0, 1, 2, 3), (1, 2, 3, 0), (3, 1, 0, 2)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_numbers_do_not_depend_on_the_memory_order(order, run):
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 5)).astype("float32")
    placed = SHIM.array(np.ascontiguousarray(x.transpose(order))).transpose(np.argsort(order))
    y = kernels.drop(placed, 0.5, Draws(3, x.shape))
    np.testing.assert_array_equal(y, expected_drop(x, 0.5, 3))
    assert y.strides == placed.strides


def test_an_array_that_begins_between_accesses(run):
    x = np.random.default_rng(0).standard_normal(65).astype("float32")
    y = kernels.drop(SHIM.array(x)[1:], 0.5, Draws(3, (64,)))
    np.testing.assert_array_equal(y, expected_drop(x[1:], 0.5, 3))


def test_arrays_with_gaps(run):
    x = np.random.default_rng(0).standard_normal((6, 8)).astype("float32")
    y = kernels.drop(SHIM.array(x)[::2, 1::3], 0.5, Draws(3, (3, 3)))
    np.testing.assert_array_equal(y, expected_drop(x[::2, 1::3], 0.5, 3))


@pytest.mark.parametrize("shape", [(4, 3, 1, 1), (4, 1, 5, 1), (1, 3, 1, 5)])
def test_a_number_for_several_elements(shape, run):
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 5) if shape[2] == 1 else (4, 2, 5, 2)).astype("float32")
    y = kernels.drop(SHIM.array(x), 0.5, Draws(11, shape))
    np.testing.assert_array_equal(y, expected_drop(x, 0.5, 11, shape))


@pytest.mark.parametrize(
    ("shape", "part"), [((3, 8, 5), Part(1, 3, 5)), ((7, 3), Part(0, 1, 5)), ((7, 4), Part(0, 1, 5))]
)
def test_part_of_a_batch(shape, part, run):
    of_part = (*[slice(None)] * part.axis, slice(part.start, part.stop))
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")[of_part].copy()
    y = kernels.drop(SHIM.array(x), 0.5, Draws(2, shape, part))
    np.testing.assert_array_equal(y, expected_drop(x, 0.5, 2, shape, of_part))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_take_the_generic_kernel(dtype):
    x = np.ones((40, 50), dtype)
    y = kernels.drop(SHIM.array(x), 0.25, Draws(5, x.shape))
    assert y.dtype == dtype
    assert set(np.unique(y).tolist()) == {0, float(x.dtype.type(1) / x.dtype.type(0.75))}
    assert 0.7 < np.count_nonzero(y) / y.size < 0.8


@pytest.mark.parametrize("p", [1e-12, 1e-3, 0.5, 0.999])
def test_how_many_elements_are_kept(p):
    y = kernels.drop(SHIM.array(np.ones(1 << 20, "float32")), p, Draws(9, (1 << 20,)))
    assert abs(np.count_nonzero(y) / y.size - (1 - p)) < 5 * np.sqrt(p / y.size) + 1e-9


def test_numbers_are_uniform_and_keys_independent():
    draws = np.stack([numbers(key, 1 << 16) for key in (0, 1, 2**32, 2**63)]) / 2**32
    counts = np.stack([np.histogram(row, 256, (0, 1))[0] for row in draws])
    assert (np.abs(((counts - 256) ** 2 / 256).sum(1) - 255) < 5 * np.sqrt(2 * 255)).all()  # χ² of 255 degrees
    correlation = np.corrcoef(np.concatenate([draws, draws[:, ::-1], np.roll(draws, 1, 1)]))
    assert np.abs(correlation - np.eye(12)).max() < 5 / 256


def test_infinities_become_what_the_cpu_makes_of_them(run):
    x = np.full(64, np.inf, "float32")
    y = np.asarray(kernels.drop(SHIM.array(x), 0.5, Draws(1, x.shape)))
    dropped = numbers(1, 64) >= 2**31
    assert np.isnan(y[dropped]).all()
    assert (y[~dropped] == np.inf).all()


# ---- functions and layers --------------------------------------------------------------------------------------------


def test_dropout_and_its_gradients_draw_the_same_numbers(launches):
    x = ndl.Tensor(np.random.default_rng(0).standard_normal((6, 5)).astype("float32"), device=SHIM)
    ndl.seed(3)
    key = int(np.random.randint(0, 2**64, dtype="uint64"))
    ndl.seed(3)
    y = functional.dropout(x, 0.4)
    np.testing.assert_array_equal(y.numpy(), expected_drop(x.numpy(), 0.4, key))
    (y * y).sum().backward()
    mask = expected_drop(np.ones((6, 5), "float32"), 0.4, key)
    np.testing.assert_allclose(x.grad.numpy(), 2 * y.numpy() * mask, rtol=1e-6)
    assert [name for name in launches if name.startswith("drop")] == ["drop_4"] * 2
    first, x.grad = x.grad, None
    first.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * mask * mask, rtol=1e-6)


def test_one_launch_for_batch_last_arrays_and_channels(launches):
    x = ndl.Tensor.make_const(SHIM.array(np.ones((3, 4, 4, 2), "float32")).transpose(3, 0, 1, 2))
    for module in (nn.Dropout2d(0.5), nn.Dropout3d(0.5)):
        ndl.seed(1)
        y = module(x if module.extra_repr() and isinstance(module, nn.Dropout2d) else x.reshape((1, 2, 3, 4, 4)))
        channels = y.numpy().reshape(2, 3, 16) if isinstance(module, nn.Dropout2d) else y.numpy().reshape(2, 48)
        assert (channels == channels[..., :1]).all()
    functional.dropout(x)
    assert launches == ["drop_1"] * 3


def test_the_courses_layer_draws_numpys_numbers(launches):
    x = ndl.ones(4, 5, device=SHIM)
    ndl.seed(3)
    expected = np.random.rand(4, 5) <= 0.7
    ndl.seed(3)
    assert ((nn.Dropout(0.3)(x).numpy() > 0) == expected).all()
    assert launches == []


def test_dropout_moves_whole_sectors():
    x = SHIM.array(np.ones(8192, "float32"))
    batch_last = SHIM.array(np.ones((3, 4, 4, 32), "float32")).transpose(3, 0, 1, 2)
    with running(checked=True, measure=True) as run:
        kernels.drop(x, 0.5, Draws(1, x.shape))
        kernels.drop(batch_last, 0.5, Draws(1, batch_last.shape))
    for kernel in ("drop_1", "drop_4"):
        assert run.used(kernel, write=False) >= 0.95
        assert run.used(kernel, write=True) >= 0.95


def test_the_structure_of_a_key_is_that_of_the_source():
    assert KEY.itemsize == 16


DROP, LAST = (
    partial(test_drop, KEYS[2], (1023,)),
    partial(test_the_numbers_do_not_depend_on_the_memory_order, ORDERS[1]),
)
FAULTS = [
    Fault("random.cu", "another constant", "key.y += 0xBB67AE85u", "key.y += 0xBB67AE84u", DROP),
    Fault("random.cu", "an access past the end", "i + 4 <= walk.count", "i + 3 <= walk.count", DROP),
    Fault("random.cu", "kept for dropped", "number <= most", "number >= most", DROP),
    Fault("random.cu", "a counter for each element", "make_uint4(place / 4,", "make_uint4(place,", LAST),
]
