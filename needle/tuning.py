"""Thresholds by which needle chooses between ways that give the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores
of an AMD EPYC (family 25, OpenBLAS 0.3.31); on another machine the best value may differ, the result never does.
Every file reads these as `tuning.NAME` when it needs them, so that a test patches one place.
"""

# ---- backend: threads and chunks -------------------------------------------------------------------------------------

# Bytes of scratch that a thread fills before it uses them, on the CPU (times `Device.chunk_scale` on others).
# About a core's share of the cache. A step of ResNet9 is flat within 1 % from 256 KiB to 4 MiB, slower outside.
BLOCK_BYTES = 1 << 21

# Bytes of all rows together from which `Device.chunks` makes at least one chunk per thread. Waking a thread costs 50 to
# 100 µs, the time in which one core copies about 1 MiB: below 4 MiB the second thread saves little or nothing.
SPLIT_BYTES = 1 << 22

# Bytes by which the heap grows at a time (glibc's M_TOP_PAD). Larger steps mean fewer system calls; a step of LeNet
# takes 12.1 ms with memory kept and grown like this, and 26.9 ms with glibc's defaults.
HEAP_GROWTH_BYTES = 1 << 26

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

SHARED_BYTES = 6 << 20
RELU_BY_MAXIMUM = 2048

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# ---- ops -------------------------------------------------------------------------------------------------------------

# ---- optimizers ------------------------------------------------------------------------------------------------------
