"""The null device behaves as CUDA where that can spoil a program: captures, order of work, undefined memory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu.null import device
from tests.gpu.null.counts import counting

if device.library is None:
    pytest.skip("runs on the null device (make gpu-check)", allow_module_level=True)

import cupy

pytestmark = pytest.mark.gpu
CudaError = cupy.cuda.runtime.CUDARuntimeError


def captured(stream, function):
    """The graph of what `function` launches, on `stream`."""
    with stream:
        stream.begin_capture()
        try:
            function()
        finally:
            graph = stream.end_capture()
    return graph


def test_requests_are_counted():
    with counting() as counts:
        x = cupy.asarray(np.arange(6.0))
        y = (x.reshape(2, 3) @ x.reshape(3, 2)).copy()
        y.get()
    assert (counts.uploads, counts["gemm"], counts["d2d"] + counts["kernel"], counts.downloads) == (1, 1, 1, 1)
    assert counts.launches == 2
    assert any("gemm" in line for line in counts.journal)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_products(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4, 5)).astype(dtype), rng.normal(size=(3, 5, 2)).astype(dtype)
    tolerance = {"float16": 1e-2, "float32": 1e-6, "float64": 1e-14}[dtype]
    for left, right in ((a, b), (a[0], b[0]), (a[0].T, a[0]), (a, a.swapaxes(1, 2))):
        result = cupy.asarray(left) @ cupy.asarray(right)
        np.testing.assert_allclose(result.get(), left @ right, rtol=tolerance, atol=tolerance)


def test_sorts():
    values = np.random.default_rng(0).integers(0, 5, (3, 40)).astype("float32")
    x = cupy.asarray(values)
    np.testing.assert_array_equal(cupy.argsort(x, 1).get(), values.argsort(1, kind="stable"))
    np.testing.assert_array_equal(cupy.sort(x, 0).get(), np.sort(values, 0))
    np.testing.assert_array_equal(cupy.lexsort(x).get(), np.lexsort(values))


def test_memory_without_content_is_nan():
    used = cupy.ones(1000, "float32")
    assert np.isnan(cupy.empty(10, "float32").get()).all()
    view = cupy.ndarray(1000, "float32", cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(used.data.ptr, 4000, None), 0))
    del used
    assert np.isnan(view.get()).all()


def test_a_graph_repeats_launches_with_their_arguments():
    x, y = cupy.zeros(4, "float32"), cupy.ones(4, "float32")
    stream = cupy.cuda.Stream(non_blocking=True)
    graph = captured(stream, lambda: cupy.add(x, y, out=x))
    assert x.get().tolist() == [0] * 4
    y.fill(3)
    with counting() as counts:
        for _ in range(2):
            graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [6] * 4
    assert (counts.graph_launches, counts.launches) == (2, 0)


def refused(function, *arguments):
    with pytest.raises(CudaError, match="StreamCapture"):
        function(*arguments)


REFUSED = {
    "waiting for the stream": lambda stream, event: stream.synchronize(),
    "waiting for the device": lambda stream, event: cupy.cuda.Device().synchronize(),
    "waiting for work from outside": lambda stream, event: stream.wait_event(event),
    "a copy of memory that is not pinned": lambda stream, event: cupy.cuda.runtime.memcpyAsync(
        cupy.zeros(1).data.ptr, np.zeros(1).ctypes.data, 8, 1, stream.ptr
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_a_capture_refuses(mistake):
    stream, other = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    event = other.record()
    with pytest.raises(CudaError, match="StreamCaptureInvalidated"):
        captured(stream, lambda: refused(REFUSED[mistake], stream, event))


def test_the_legacy_stream_breaks_a_capture_on_a_blocking_stream():
    x, stream = cupy.zeros(1), cupy.cuda.Stream()
    with pytest.raises(CudaError, match="StreamCaptureInvalidated"):
        captured(stream, lambda: refused(x.data.memset_async, 0, 8, cupy.cuda.Stream.null))


def test_work_on_another_stream_escapes_a_capture():
    x, stream = cupy.zeros(4), cupy.cuda.Stream(non_blocking=True)
    with counting() as counts:
        graph = captured(stream, lambda: x.data.memset_async(1, 8, cupy.cuda.Stream.null))
    assert (counts["escaped"], x.get()[0] > 0) == (1, True)
    x.fill(0)
    graph.launch(stream)
    stream.synchronize()
    assert x.get()[0] == 0


def test_another_stream_joins_a_capture_by_an_event():
    x, main, other = cupy.zeros(1), cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)

    def forked(joined):
        other.wait_event(main.record())
        with other:
            cupy.add(x, 1, out=x)
        if joined:
            main.wait_event(other.record())

    graph = captured(main, lambda: forked(True))
    graph.launch(main)
    main.synchronize()
    assert x.get().tolist() == [1]
    with pytest.raises(CudaError, match="StreamCaptureUnjoined"):
        captured(main, lambda: forked(False))


def test_late_work_shows_a_missing_wait():
    pinned = cupy.cuda.alloc_pinned_memory(8)
    host = np.frombuffer(pinned, "float64", 1)
    upload, compute = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    results = {}
    for waits in (False, True):
        with device.late():
            with compute:
                x = cupy.zeros(1)
            host[0] = 5
            with upload:
                x.data.copy_from_host_async(host.ctypes.data, 8)
                done = upload.record()
            if waits:
                compute.wait_event(done)
            with compute:
                results[waits] = (x + 1).get()[0]
    assert results == {False: 1, True: 6}


def test_pinned_memory_is_read_late():
    pinned = cupy.cuda.alloc_pinned_memory(8)
    host = np.frombuffer(pinned, "float64", 1)
    with device.late():
        x = cupy.zeros(1)
        host[0] = 5
        x.data.copy_from_host_async(host.ctypes.data, 8)
        host[0] = 7  # too early
        assert x.get()[0] == 7


@pytest.mark.parametrize("grid", [(1, 65536), (1, 1, 65536)])
def test_launches_that_no_gpu_takes(grid):
    kernel = cupy.RawKernel('extern "C" __global__ void nothing(float* x) {}', "nothing")
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="INVALID_VALUE"):
        kernel(grid, (32,), (cupy.zeros(1, "float32"),))


def test_a_host_pointer_is_no_place_on_the_device():
    with pytest.raises(CudaError, match="InvalidValue"):
        cupy.cuda.runtime.memcpy(np.zeros(1).ctypes.data, np.zeros(1).ctypes.data, 8, 1)
