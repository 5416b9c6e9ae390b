"""Two parts of `make gpu`: NCCL in one process, and two ranks that train, on one GPU or on one each.

python -m tests.gpu.first_ranks FOLDER [--smoke] is one of the ranks; what it finds goes to FOLDER/RANK.json.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

MISSING = "not installed"
STEPS = 8
PATIENCE = 60  # seconds until two ranks are stopped
DTYPES = "float32", "float64", "float16", "uint16", "uint8", "int32", "int64", "bool"  # uint16: bits of bfloat16
TOLERANCE = {"float32": 1e-2, "float64": 1e-9}  # of losses and weights; Adam may turn what is almost 0 by 4e-3


# ---- NCCL in one process ---------------------------------------------------------------------------------------------


def nccl(smoke: bool) -> dict[str, Any]:
    """NCCL with one rank, which sends to itself: each kind of call that needle makes, and what each one costs."""
    import cupy

    import needle as ndl
    from needle.backend import cuda_nccl
    from needle.distributed.nccl import GpuExchange, GpuExchanges
    from tests.gpu.first_gpu import report, timed
    from tests.gpu.null import device

    version, reason = cuda_nccl.find_nccl()
    if reason:
        return {MISSING: reason}
    found: dict[str, Any] = {"version": version}
    failed: list[str] = []

    @contextlib.contextmanager
    def part(name: str) -> Iterator[None]:
        """Say whether the block did what it should; if not, go on behind it."""
        try:
            yield
            found[name] = "right"
        except Exception as error:
            failed.append(name)
            found[name] = repr(error)
        report(found)

    def connected() -> Any:
        start = time.perf_counter()
        communicator = cuda_nccl.Nccl(ndl.cuda(), 1, cuda_nccl.new_id(), 0)
        found.setdefault("to connect, s", round(time.perf_counter() - start, 3))
        return communicator

    def finish(is_done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_done():
            gpu.progress()
            assert time.monotonic() < end, "the exchanges never end"

    gpu = GpuExchanges(connected(), 0, 1, finish)  # nothing else can be tried if this fails
    for dtype in DTYPES:
        with part(f"messages of {dtype}"):
            for sizes in ((1,), (1000, 3), (1 << (12 if smoke else 20), 7)):  # each group holds messages of these
                bits = [np.random.default_rng(0).integers(0, 256, size * 8, "uint8") for size in sizes]
                outs = [cupy.asarray(some & (1 if dtype == "bool" else 255)).view(dtype)[:size]
                        for some, size in zip(bits, sizes, strict=True)]  # fmt: skip
                intos = [cupy.zeros_like(out) for out in outs]
                gpu.nccl.exchange((0, out, into) for out, into in zip(outs, intos, strict=True))
                for out, into in zip(outs, intos, strict=True):
                    assert out.get().tobytes() == into.get().tobytes(), f"{out.size} numbers differ"
    side = 64 if smoke else 4096
    with part("order of streams"), device.late() if smoke else contextlib.nullcontext():
        square, out = cupy.ones((side, side), "float32"), cupy.zeros(side, "float32")
        into = cupy.zeros_like(out)
        for turn in range(1, 4):
            out[...] = (square @ square)[0] * turn  # takes a while
            before = gpu.mark()
            with gpu.stream:
                gpu.stream.wait_event(before)
                gpu.nccl.exchange([(0, out, into)])
                after = gpu.mark()
            gpu.stream_now().wait_event(after)
            if turn == 2:
                gpu.stream.synchronize()  # the null device then begins with the exchange
            total = into * 2
            out[...] = 0  # behind what was received
            assert (total.get() == 2 * side * turn).all(), "an exchange did not wait for the array, or nobody for it"
    with part("broadcast"):
        out[...] = (square @ square)[0]
        exchange = GpuExchange(gpu, "broadcast", out, 0)
        gpu.launch(exchange)
        exchange.wait()
        assert (out.get() == side).all(), "the array has changed"
    with part("times"):
        times = {}
        for size in (4, 1 << 16, 1 << 20, 1 << (20 if smoke else 26)):
            source, target = cupy.ones(size, "uint8"), cupy.zeros(size, "uint8")
            times[size] = timed(lambda pair=(0, source, target): gpu.nccl.exchange([pair]), 2 if smoke else 20)
        found["µs, by bytes"] = times
    with part("end"):
        gpu.close()
        assert not gpu.under_way
    with part("abort"):
        other = connected()
        other.exchange([(0, source, target)])
        other.abort()
        assert float(cupy.ones(3).sum()) == 3
    assert not failed, f"wrong: {', '.join(failed)}"
    return found


# ---- two ranks -------------------------------------------------------------------------------------------------------


def ranks(smoke: bool) -> dict[str, Any]:
    """Two ranks by `mpiexec` beside one process: losses, weights, and how their arrays went."""
    import cupy
    import pytest

    from tests.distributed.mpi import ranks as starting
    from tests.gpu.first_gpu import report

    try:
        starting.launcher()
    except pytest.skip.Exception as missing:
        return {MISSING: str(missing)}
    alone = training(smoke)
    found: dict[str, Any] = {"one process": {"ms per step": alone["ms per step"]}}
    wrong: list[str] = []
    are_many = cupy.cuda.runtime.getDeviceCount() > 1
    for is_shared in (True, False) if smoke else (not are_many,):
        name = "two ranks on one GPU" if is_shared else "two ranks, a GPU each"
        environment = {"NULL_DEVICE": "shared"} if is_shared else {}
        with TemporaryDirectory() as folder:
            command = ["python", "-m", "tests.gpu.first_ranks", folder, *["--smoke"] * smoke]
            with starting.start(2, command, environment=environment) as started:
                status = started.wait(PATIENCE * (5 if smoke else 1))
                printed = started.output + started.errors
            files = sorted(Path(folder).iterdir())
            both = [json.loads(file.read_text("utf-8")) for file in files]
        entry = found[name] = {"status": status, "output": printed.splitlines()[-20:]}
        if status or len(both) < 2:
            wrong.append(f"{name}: no result")
        else:
            entry |= {key: [one[key] for one in both] for key in ("GPU", "said", "ms per step")}
            entry["same bits"] = all(both[0][dtype] == both[1][dtype] for dtype in TOLERANCE)
            for dtype, tolerance in TOLERANCE.items():
                expected, got = np.array(alone[dtype]), np.array(both[0][dtype])
                difference = entry[f"difference in {dtype}"] = float(np.abs(got - expected).max())
                wrong += [f"{name}: {dtype} differ by {difference:.1e}"] * (not difference <= tolerance)
            goes_by_host = any("have the same GPU" in line for line in both[0]["said"])
            wrong += [f"{name}: said {both[0]['said']}"] * (goes_by_host != is_shared)
            wrong += [f"{name}: the ranks differ"] * (not entry["same bits"])
        report(found)
    assert not wrong, "; ".join(wrong)
    return found


def training(smoke: bool) -> dict[str, Any]:
    """Losses and weights of two small trainings of the current communicator on its GPU, and what was warned of."""
    import needle as ndl
    from needle.backend.cuda_nccl import gpu_name
    from needle.data import worker_batches
    from needle.distributed import SharedGradients
    from tests.distributed import nets
    from tests.gpu.null.steps import NETWORKS, Training

    found: dict[str, Any] = {"GPU": gpu_name(ndl.cuda()).split()[-1]}
    before = ndl.default_device()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ndl.set_default_device(ndl.cuda())
        ndl.seed(0)
        found["float64"] = nets.train(nets.NETS["convolutions"](), "adam", STEPS).tolist()
        net = Training(NETWORKS["lenet"].small() if smoke else NETWORKS["lenet"], ndl.cuda())
        gradients, losses, times = SharedGradients(net.model.parameters()), [], []
        for images, labels in worker_batches([(net.x.numpy(), net.target.numpy())] * STEPS):
            start = time.perf_counter()
            x, target = (ndl.Tensor(array, requires_grad=False) for array in (images, labels))
            losses.append(gradients.backward(net.criterion(net.model(x), target)).item())
            net.optimizer.step()
            times.append(time.perf_counter() - start)
        weights = [parameter.numpy().ravel() for parameter in net.model.parameters()]
        found["float32"] = np.concatenate([losses, *weights]).tolist()
        ndl.set_default_device(before)
    return found | {"ms per step": round(1e3 * min(times), 3), "said": [str(entry.message) for entry in caught]}


def main(folder: str, *options: str) -> None:
    smoke = "--smoke" in options
    if smoke:
        from tests.gpu.null import device

        device.start()
    from needle import distributed

    with distributed.join() as communicator:
        found = training(smoke)
        (Path(folder) / f"{communicator.rank}.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
