"""Programs of ranks that have a null device each: the exchanges of CPUs on it, and training steps."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings

import numpy as np

import needle as ndl
from needle import distributed
from needle.backend.communicator import Communicator
from needle.data import worker_batches
from tests.distributed import nets
from tests.distributed.mpi import exchanges
from tests.gpu.null import device


def main(communicator, work, late, *arguments):
    """The result of that function of this module, and the requests that NCCL got in this rank."""
    library = device.start()
    with device.late() if late else contextlib.nullcontext():
        result = globals()[work](communicator, *arguments)
    return result, library.null_count(b"nccl")


class OnGpu(Communicator):
    """Exchanges arrays of NumPy by a communicator, but as arrays of the GPU, in the same order of memory."""

    def __init__(self, communicator):
        self.communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size

    def all_reduce(self, array, wire=None):
        there = on_gpu(array)
        self.communicator.all_reduce(there, wire)
        array[...] = there.get()

    def start_all_reduce(self, array, wire=None):
        there = on_gpu(array)
        return Request(self.communicator.start_all_reduce(there, wire), array, there)

    def broadcast(self, array, root=0):
        there = on_gpu(array)
        self.communicator.broadcast(there, root)
        array[...] = there.get()

    def barrier(self):
        self.communicator.barrier()

    def all_gather(self, array):
        gathered = self.communicator.all_gather(on_gpu(array))
        return [there.get().astype(array.dtype) for there in gathered]  # a GPU has one order of bytes


class Request:
    def __init__(self, request, array, there):
        self.request, self.array, self.there = request, array, there

    def wait(self):
        self.request.wait()
        self.array[...] = self.there.get()


def on_gpu(array):
    """A copy on the GPU, with gaps between its elements if the array has some."""
    import cupy

    native = array.astype(array.dtype.newbyteorder("="), order="K")
    if array.flags.forc:
        return cupy.asarray(native)
    there = cupy.zeros((*array.shape[:-1], 2 * array.shape[-1]), native.dtype)[..., ::2]
    there[...] = cupy.asarray(native)
    return there


def exchange(communicator, seed=0):
    """What the ranks of `exchanges.main` return."""
    import needle.tuning

    needle.tuning.NCCL_WHOLE_BYTES = 256
    return exchanges.main(OnGpu(communicator), seed)


def train(communicator, net, optimizer, steps):
    """The losses, gradients and weights of a training of `nets` on the GPU."""
    ndl.seed(0)
    ndl.set_default_device(ndl.cuda())
    return nets.train(nets.NETS[net](), optimizer, steps)


def step(communicator, name):
    """The losses of two steps, and what the second asks of the GPU: waits, uploads, launches of NCCL, and others."""
    from tests.gpu.null.counts import counting
    from tests.gpu.null.steps import NETWORKS, Training

    training = Training(NETWORKS[name].small(), ndl.cuda())
    gradients = distributed.SharedGradients(training.model.parameters())
    batch, losses = (training.x.numpy(), training.target.numpy()), []
    for part in worker_batches([batch] * 2):
        x, target = (ndl.Tensor(array, device=ndl.cuda(), requires_grad=False) for array in part)
        with counting() as counts:
            loss = gradients.backward(training.criterion(training.model(x), target))
            training.optimizer.step()
        losses.append(loss.item())
    return losses, counts.waits, counts.uploads, counts["nccl"], counts.launches


def differ(communicator):
    """Rank 0 passes an array of the GPU, the others one of the host, once NCCL is connected."""
    import cupy

    communicator.all_reduce(cupy.ones(3))
    communicator.all_reduce((np if communicator.rank else cupy).ones(3))


def share(communicator):
    """The sum and what is warned of if all ranks have the same GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        total = np.ones((2, 3))
        OnGpu(communicator).all_reduce(total)
    return total.tolist(), [str(entry.message) for entry in caught]


def end(how):
    """A program of two ranks: rank 1 ends so, while rank 0 waits for its GPU, which waits for that of rank 1."""
    device.start()
    import cupy

    with distributed.join() as communicator, device.late():
        array = cupy.ones(3)
        communicator.all_reduce(array)  # to connect
        array.get()
        communicator.all_reduce(array)
        if communicator.rank == 0:
            sys.stdout.write("begun\n")
            sys.stdout.flush()
            array.get()
        time.sleep(1)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError("rank 1 fails")


if __name__ == "__main__":
    end(sys.argv[1])
