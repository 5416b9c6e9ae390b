"""What ranks exchange in a test: the same calls, whatever carries them, so the results can be compared bit for bit."""

from __future__ import annotations

import numpy as np

DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "bool", ">f2", ">f4"]
SHAPES = [(), (0,), (2, 0, 3), (1,), (7,), (3, 5), (13, 31), (2, 500)]
SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38]  # float32


def main(communicator, seed=0):
    """Results by name, as bytes."""
    results = {}
    for name, call in calls(seed, communicator.size):
        results[name] = [_bits(array) for array in call(communicator) or []]
    return results


def _bits(array):
    """The dtype, the shape and the bytes of an array. Which NaN it is does not matter."""
    values = array.copy()
    if array.dtype.kind == "f":
        values[np.isnan(values)] = np.nan
    return array.dtype.str, array.shape, values.tobytes()


def calls(seed, size):
    """(name, call of a communicator that returns what it got)."""
    for dtype in DTYPES:
        for shape in SHAPES if dtype == "float32" else [(), (13, 31)]:
            yield f"sums of {dtype} {shape}", _sums(_values(seed, size, shape, dtype))
    yield "sums of several orders", _sums_of_orders(_values(seed, size, (13, 31), "float32"))
    yield "sums of float32 of every kind", _sums(_special(seed, size))
    for length in [*range(62, 68), *range(126, 132), *range(128 * size - 2, 128 * size + 3), 5000]:
        yield f"sum of {length}", _sums(_values(seed, size, (length,), "float32"))
    for wire in ("float16", "bfloat16"):
        for length in (3, 64, 65, 1031):
            yield f"sum of {length} as {wire}", _sums(_values(seed, size, (length,), "float32"), wire)
    for root in range(size):
        for shape in [(), (0,), (3, 5), (40, 31)]:
            yield f"broadcast of {shape} from {root}", _broadcasts(_values(seed, size, shape, "float32"), root)
    for lengths in ([3, 0, 2, 1], [100, 2, 300, 0], [300, 200, 100, 400], [32, 16, 31, 17]):  # 32: 256 bytes
        yield f"gather of {lengths}", _gathers(_values(seed, size, (max(lengths), 2), "float32"), lengths)
    yield "gather of numbers", lambda communicator: communicator.all_gather(np.array(communicator.rank))
    repeated = np.broadcast_to(_values(seed, size, (5, 1), ">f4"), (size, 5, 9))  # read-only
    yield "gather of repeated numbers", _gathers(repeated, [5] * size)
    yield "started", _started(seed, size)
    yield "barrier", lambda communicator: communicator.barrier()


def _values(seed, size, shape, dtype):
    """rank -> array; the order in which they are added shows."""
    stream = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        values = stream.standard_normal((size, *shape)) * 8.0 ** np.arange(size).reshape(-1, *[1] * len(shape))
        return values.astype(dtype)
    return stream.integers(0, 100, (size, *shape)).astype(dtype)


def _special(seed, size):
    return np.random.default_rng(seed).choice(np.array([*SPECIAL, 1.0], "float32"), (size, 3, 1000))


def orders(values):
    """The values in arrays of several orders of memory."""
    yield values.copy()
    if values.ndim:
        yield np.array(values, order="F")
        yield np.repeat(values, 2, axis=-1)[..., ::2]
        yield values[..., ::-1].copy()[..., ::-1]


def _sums(values, wire=None):
    def call(communicator):
        arrays = [*orders(values[communicator.rank, ...])]
        requests = [communicator.start_all_reduce(array, wire) for array in arrays]
        alone = values[communicator.rank, ...].copy()
        communicator.all_reduce(alone, wire)
        for request in [*requests[::-1], *requests]:
            request.wait()
        return [alone, *arrays]

    return call


def _sums_of_orders(values):
    """Each rank has its array in another order of memory."""

    def call(communicator):
        results = []
        for first in range(4):
            array = [*orders(values[communicator.rank])][(first + communicator.rank) % 4]
            communicator.all_reduce(array)
            results.append(array)
        return results

    return call


def _broadcasts(values, root):
    def call(communicator):
        arrays = [*orders(values[communicator.rank, ...])]
        for array in arrays:
            communicator.broadcast(array, root)
        return arrays

    return call


def _gathers(values, lengths):
    def call(communicator):
        return communicator.all_gather(values[communicator.rank, : lengths[communicator.rank]])

    return call


def _started(seed, size):
    """Sums of many sizes under way at the same time, others in between."""

    def call(communicator):
        stream, ours = np.random.default_rng(seed), np.random.default_rng((seed, communicator.rank))
        waiting, results = [], []
        for _ in range(150):
            array = ours.standard_normal(int(stream.choice([1, 10, 65, 500, 3000])))
            kind = stream.integers(5)
            if kind == 0:
                communicator.all_reduce(array)
            elif kind == 1:
                communicator.broadcast(array, int(stream.integers(size)))
            elif kind == 2:
                results += communicator.all_gather(array)
            else:
                waiting.append(communicator.start_all_reduce(array))
            results.append(array)
            if stream.random() < 0.3 and waiting:
                waiting.pop(int(stream.integers(len(waiting)))).wait()
        for request in waiting:
            request.wait()
        return results

    return call
