"""Thresholds by which needle chooses between ways that give the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores
of an AMD EPYC (family 25, OpenBLAS 0.3.31); on another machine the best value may differ, the result never does.
Every file reads these as `tuning.NAME` when it needs them, so that a test patches one place.
"""

# ---- backend: threads and chunks -------------------------------------------------------------------------------------

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

SHARED_BYTES = 6 << 20
RELU_BY_MAXIMUM = 2048

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# ---- ops -------------------------------------------------------------------------------------------------------------

# ---- optimizers ------------------------------------------------------------------------------------------------------
