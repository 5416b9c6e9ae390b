"""Thresholds by which needle chooses between ways that give the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores of an
AMD EPYC (family 25, OpenBLAS 0.3.31); on another machine the best value may differ, the result never does.
Every file reads these as `tuning.NAME` when it needs them, so that a test patches one place.
"""

# ---- backend: threads and chunks -------------------------------------------------------------------------------------

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# ---- ops -------------------------------------------------------------------------------------------------------------

# ---- optimizers ------------------------------------------------------------------------------------------------------

# Elements: parameters below this size are updated together, as flat arrays. A NumPy call on so few elements costs more
# than its arithmetic: with 40 small parameters an Adam step takes 2.5 µs per parameter instead of 9.
POOLED_ELEMENTS = 1 << 14

# Parameters: minimum number of small ones of one dtype on one device that are updated together. Copying fewer to the
# flat arrays and back saves nothing.
POOLED_PARAMETERS = 5

# Elements of a parameter that a step updates at a time (times the device's `chunk_scale`): in float32 a chunk of Adam
# uses 5 MB, which stays in cache from one NumPy call of the rule to the next.
STEP_CHUNK_ELEMENTS = 1 << 18

# Elements of all parameters together: minimum for a step to use threads. Waking a thread takes 50 to 100 µs, about what
# it saves at this size.
PARALLEL_STEP_ELEMENTS = 1 << 17
