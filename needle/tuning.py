"""Thresholds by which needle chooses between ways that give the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores of an
AMD EPYC (family 25, OpenBLAS 0.3.31); on another machine the best value may differ, the result never does.
Every file reads these as `tuning.NAME` when it needs them, so that a test patches one place.
"""

# ---- backend: threads and chunks -------------------------------------------------------------------------------------

# Bytes of scratch memory per chunk on the CPU (times `Device.chunk_scale` elsewhere): about a core's share of cache.
# Measured: the networks of the benchmark are equally fast from 256 KiB to 4 MiB. On a processor with more cache a 3x3
# convolution of 32x64x32x32 by im2col takes, with its gradients, 98 ms at 64 KiB, 86 at 2 MiB, and 83 at 32 MiB.
BLOCK_BYTES = 1 << 21

# Bytes of all rows from which `Device.chunks` returns at least one chunk per thread. Measured: waking a second thread
# costs 20 to 100 µs, and one core copies 4 MiB in 360 µs, so half of it is worth handing over.
SPLIT_BYTES = 1 << 22

# Bytes by which glibc grows the heap at a time (M_TOP_PAD): far more than a small array, far less than a machine has.
# Measured: keeping freed memory takes a step of LeNet from 26.9 to 12.1 ms; the exact growth does not show.
HEAP_GROWTH_BYTES = 1 << 26

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# ---- ops -------------------------------------------------------------------------------------------------------------

# ---- optimizers ------------------------------------------------------------------------------------------------------
