"""Thresholds for choosing between implementations with the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores
of an AMD EPYC (family 25, OpenBLAS 0.3.31); on another machine the best values may differ, but not the results.
Every file reads these as `tuning.NAME` when it needs them, so tests patch a single place.
"""

# ---- backend: threads and chunks -------------------------------------------------------------------------------------

# Bytes of scratch memory per chunk on the CPU (times `Device.chunk_scale` elsewhere): about a core's share of cache.
# Measured: the networks of the benchmark are equally fast from 256 KiB to 4 MiB. On a processor with more cache a 3x3
# convolution of 32x64x32x32 by im2col takes, with its gradients, 98 ms at 64 KiB, 86 at 2 MiB, and 83 at 32 MiB.
BLOCK_BYTES = 1 << 21

# Bytes of all rows at which `Device.chunks` returns at least one chunk per thread. Measured: waking a second thread
# costs 20 to 100 µs, and one core copies 4 MiB in 360 µs, so half of it is worth handing over.
SPLIT_BYTES = 1 << 22

# Bytes by which glibc grows the heap at a time (M_TOP_PAD): far more than a small array, far less than a machine has.
# Measured: keeping freed memory takes a step of LeNet from 26.9 to 12.1 ms; the exact growth does not show.
HEAP_GROWTH_BYTES = 1 << 26

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

# Array size (elements) at which a row-major (N, C, *S) array is copied to batch-last order block by block. NumPy's own
# copy steps over whole images and takes two to four times as long: 128x3x32x32 float32, 0.43 ms; by blocks, 0.18 ms.
BLOCKED_COPY_SIZE = 1 << 16

# Elements of one image in a block of such a copy: a block of 128 images is 256 KiB of float32 and stays in the cache.
COPY_BLOCK_SIZE = 512

# Elements of padding after each row of a block. Without it, rows a power of two of bytes apart evict each other.
COPY_BLOCK_GAP = 16

# Result size (bytes) at which threads share an elementwise op. Below it, waking a thread (50 to 100 µs) costs more than
# it saves. From 8 MiB, two threads take half to two thirds of the time of one.
PARALLEL_ELEMENTWISE_BYTES = 6 << 20

# Array size (bytes) at which threads share a normalization by rows. Found by trial; no figure was kept.
PARALLEL_ROWS_BYTES = 1 << 20

# Minimum row length (elements) for shortening NumPy's ufunc buffer, and the length of that short buffer. NumPy copies
# a broadcast column into its buffer (8192 elements) for each row that is shorter. With rows of 2048 elements the short
# buffer halves the time of an operation; with rows shorter than the short buffer it costs time.
SHORT_UFUNC_BUFFER = 512

# Array size (elements) at which sums become matrix-vector products with ones. A product takes a third of the time of
# NumPy's sum along rows and a tenth of its sum across them: the mean of 32x64x1024 over the last axis takes 1.10 ms by
# NumPy, 0.11 by BLAS.
BLAS_SUM_MIN_SIZE = 1 << 14

# Most terms of a sum that BLAS computes. NumPy's pairwise sum is more exact on longer rows.
BLAS_SUM_MAX_TERMS = 1 << 16

# Most multiply-accumulates that OpenBLAS computes on one thread by itself: matrix times matrix, and where one operand
# is a vector. A property of OpenBLAS, not of the machine: such products need no limit on its threads.
BLAS_ONE_THREAD_MACS = 1 << 18
BLAS_ONE_THREAD_VECTOR_MACS = 9216

# Multiply-accumulates at which needle's threads share a matrix product: 0.08 ms at 54 GMAC/s, about one hand-over.
PARALLEL_MATMUL_MACS = 1 << 22

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# im2col gathers overlapping rows only if an output row of the whole batch has at least this many elements. Found by
# trial on the layers in docs/kernels.md; no figure was kept.
OVERLAP_MIN_ROW_FORWARD = 32
OVERLAP_MIN_ROW_BACKWARD_WEIGHT = 256

# Output row (elements, all images) below which the rows that a dilation interleaves are multiplied together, as lanes
# of one matmul: 1-d 32->64 with dilation 4, 8.5 ms; with lanes, 7.7.
LANES_MAX_ROW = 256

# Gathered elements that cost as much as reordering one element of the kernel. Overlapping rows save gathers but need
# the kernel reordered; they take a third to a half off layers with 1 to 32 channels (LeNet 1->16 5x5: 0.94 ms to 0.48).
KERNEL_REORDER_COST = 12

# Most multiply-accumulates that OpenBLAS computes without repacking its operands, up to 1.3 times as fast. A matmul
# is cut into products of this size, of no fewer columns than the second number.
SMALL_GEMM_MACS = 10**6
SMALL_GEMM_MIN_COLUMNS = 48

# Multiply-accumulates at which threads share a convolution: 0.3 ms at 54 GMAC/s, three to six hand-overs.
PARALLEL_CONV_MACS = 1 << 24

# The same for col2im, whose additions take longer than its matmul.
PARALLEL_COL2IM_MACS = 1 << 22

# Multiply-accumulates below which two threads compute one gradient each, instead of sharing each of them: 1.2 ms.
PARALLEL_GRADIENTS_MAX_MACS = 1 << 26

# Bytes of the accumulator of the taps algorithm at a time (CPU). It is read and written once per tap, so it must stay
# in the second-level cache.
TAPS_ACCUMULATOR_BYTES = 1 << 18

# The weight gradient by taps is chosen between these limits: elements of an output row (all images); channels of the
# smaller side, in and out, of a group; channels of both sides multiplied. It takes a quarter off with 16 to 32 channels
# (16->32 3x3 on 14x14: 1.67 ms to 1.19) and a third with depthwise kernels (0.79 ms to 0.48).
TAPS_MIN_ROW = 256
TAPS_MIN_CHANNELS = 9
TAPS_MAX_CHANNEL_PAIRS = 1024

# The input gradient by polyphase is chosen with at least this many in-channels per group: BLAS is slow at flat
# products, and 1->16 5x5 takes 1.56 times as long by polyphase as by col2im.
POLYPHASE_MIN_IN_CHANNELS = 8
# ... for at most this multiple of the multiply-accumulates of col2im (more where most phases read padding).
POLYPHASE_MAX_EXTRA_MACS = 1.25
# ... and, with a stride, with at least this many multiply-accumulates: each phase is a convolution with a fixed cost.
POLYPHASE_MIN_MACS = 1 << 24

# Winograd needs at least this many multiply-accumulates of the plain sum: below, its calls take longer than it saves.
WINOGRAD_MIN_MACS = 1 << 24
# ... and an estimated time below this multiple of the time of the plain sum. The estimate counts multiplications; one
# in a transformation by A or B takes this multiple of one in a matmul, because those products are narrow. Both fit the
# layers of docs/kernels.md: 64->64 3x3 takes 4.33 ms by Winograd and 1.80 times that by im2col; 16->32
# takes 1.12 times as long by Winograd as by im2col.
WINOGRAD_MAX_COST = 0.85
WINOGRAD_TRANSFORM_COST = 1.7

# Bytes of transformed tiles that one thread works on at a time (CPU): they stay in its cache until the matmul.
WINOGRAD_TILE_BYTES = 1 << 20

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# Image size (bytes) at which threads share a pooling by channels: two threads halve the time with 8 MiB of images.
PARALLEL_POOL_BYTES = 1 << 21

# ---- ops -------------------------------------------------------------------------------------------------------------

# Array size (elements) below which relu uses `maximum`, which starts faster; NumPy's `clip` is vectorized and faster on
# many elements (819,200: 75 µs instead of 273).
RELU_MAXIMUM_SIZE = 2048

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
