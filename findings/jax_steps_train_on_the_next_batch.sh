#!/usr/bin/env bash
# jax 0.10.2 (CPU): a jitted function that is called with a NumPy array returns before it has read the array, and does not
# copy it first if its memory begins at a multiple of 64 bytes. So a loop that fills one buffer with a batch, calls the
# training step and fills it with the next trains on the wrong data, silently: while the first step is at work, the others
# wait, and all of them find the last batch. Five batches are one batch five times. Even jnp.array(buffer, copy=True) and
# device_put(buffer, may_alias=False) do not help: their copies wait in the same queue. What helps is buffer.copy().
# Buffers of shared memory, mapped .npy files and torch tensors begin at such addresses; arrays of np.empty mostly do not,
# so that a test with them passes. A plain device_put, "a copy" by its documentation, shares the memory for good.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import mmap

import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "numpy", np.__version__)
shape = (64, 100)


@jax.jit
def long_step(weight):
    return jax.lax.fori_loop(0, 100, lambda _, weight: jnp.tanh(weight @ weight), weight)


@jax.jit
def step(weight, batch):
    """The next weight, and the mean of the batch, as the step has seen it."""
    return weight + batch.mean(), batch.mean()


def batches_seen(buffer, convert=lambda batch: batch):
    """What five steps see of the batches 0 to 4, each of which fills the same buffer."""
    weight = long_step(jnp.ones((500, 500)))
    means = []
    for number in range(5):
        buffer[:] = number
        weight, mean = step(weight, convert(buffer))
        means.append(mean)
    return [int(mean) for mean in means]


shared = np.frombuffer(mmap.mmap(-1, 2**16), "float32")
np.save("batch.npy", np.zeros(shape, "float32"))
mapped = np.load("batch.npy", mmap_mode="r+")
aligned, other = shared[:6400].reshape(shape), shared[4:6404].reshape(shape)
batches_seen(aligned)  # compiles
right, last = [0, 1, 2, 3, 4], [4, 4, 4, 4, 4]
for name, buffer, convert, expected in (
    ("shared memory", aligned, lambda batch: batch, last),
    ("mapped .npy", mapped, lambda batch: batch, last),
    ("shared memory, 16 bytes on", other, lambda batch: batch, right),
    ("jnp.array(copy=True)", aligned, lambda batch: jnp.array(batch, copy=True), last),
    ("device_put(may_alias=False)", aligned, lambda batch: jax.device_put(batch, may_alias=False), last),
    ("batch.copy()", aligned, lambda batch: batch.copy(), right),
):
    seen = batches_seen(buffer, convert)
    print(f"{name}: address % 64 is {buffer.ctypes.data % 64}, batches {right} are seen as {seen}")
    assert seen == expected
aligned[:] = 1
put = jax.device_put(aligned).block_until_ready()
aligned[:] = 2
print("device_put of ones, which then become 2:", put.mean())
assert "A copy of" in jax.device_put.__doc__ and put.mean() == 2
PYTHON
