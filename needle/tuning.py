"""Thresholds for choosing between implementations with the same result.

Each constant has its unit, what it decides, and the measurement behind it. The measurements were made on two cores
of an AMD EPYC (family 25, OpenBLAS 0.3.31), those marked "Xeon" on two cores of an Intel Xeon (model 207, 2 MiB of
second-level cache per core, OpenBLAS 0.3.31) that other programs used as well. The latter, on one thread, are the least
processor time of 9 to 31 alternating samples in float32; repeated at the same value they differ by 2 % at the median,
6 % at the 90th percentile, 39 % at most. On another machine the best values may differ, but not the results.

Every file reads these as `tuning.NAME` when it needs them, so tests patch a single place. Seven caches hold results
that depend on a threshold, and a test that patches one clears them: `_plan` and `_gradients_plan` in
kernels/conv/dispatch.py, `split_count` in gemm.py, `columns_for` in im2col.py, `image_for` in one_image.py,
`_product_plan` and `_weight_plan` in kernels/gpu/conv.py. An optimizer keeps the pools that it has formed.
HEAP_GROWTH_BYTES, CUDA_CHUNK_SCALE, CUDA_BLOCK_THREADS and DRIVER_PATIENCE are read at import.
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

# `Device.chunk_scale` of a GPU: how many times as large as on the CPU a chunk is. Not measured: no GPU was available.
# A kernel launch costs more than a cache hit saves, so chunks are large.
CUDA_CHUNK_SCALE = 256

# Bytes of the memory that cuBLAS works in, on each stream. Not measured: no GPU was available. NVIDIA advises 32 MiB on
# an H100, and 4 MiB before.
CUBLAS_WORKSPACE_BYTES = 1 << 25

# Threads of a block of a raw kernel, where nothing speaks for another number. Not measured: no GPU was available. It is
# the usual choice: whole warps, and enough blocks for every multiprocessor.
CUDA_BLOCK_THREADS = 256

# A linear layer on a GPU is one launch of our kernel, with bias and relu, up to this many multiply-accumulates and
# terms per result; larger ones go to cuBLAS, with one launch more. Not measured: no GPU was available. cuBLAS takes
# about 5 µs even for few, and a block of our kernel passes a term in about 0.02 µs.
PRODUCT_MAX_MACS = 1 << 23
PRODUCT_MAX_TERMS = 1 << 11

# Blocks of 16x16 results below which that kernel makes 8x8 ones, with a quarter of the terms for each thread. Not
# measured: no GPU was available. Half as many as an H100 has multiprocessors.
PRODUCT_FEW_BLOCKS = 64

# Sums of all elements in one launch: up to so many items one block adds them, and needs no other; beyond, at most so
# many blocks share them. Not measured: no GPU was available. A block takes a few microseconds for so many; an H100 has
# 132 multiprocessors, each with room for eight blocks of 256 threads.
CUDA_ONE_BLOCK_ITEMS = 4096
CUDA_REDUCTION_BLOCKS = 528

# Elements that one block of a GPU updates by the rule of an optimizer, and that one adds or scales in clipping by the
# norm. Not measured: no GPU was available. Small ones share a few parameters among all multiprocessors; each block
# first looks for its parameter in a list, and clipping adds up one number for each block.
CUDA_UPDATE_PIECE = 1024
CUDA_CLIP_PIECE = 4096

# Seconds to wait for the answer of the GPU's driver; a slower one is still initializing, not broken. Not measured: no
# GPU was available. The answer should come within a second.
DRIVER_PATIENCE = 0.8

# Share of a GPU's free memory that the arrays of a data set may take to stay there. Not measured: no GPU was available.
# The rest is for the model, its optimizer and its activations.
RESIDENT_SHARE = 0.25

# Bytes of the pieces in which these arrays are sent. Not measured: no GPU was available. A piece takes about 1 ms, and
# two of them stay in pinned memory.
UPLOAD_BYTES = 1 << 24

# ---- kernels: memory order, elementwise work, sums, matrix products --------------------------------------------------

# Array size (elements) at which a row-major (N, C, *S) array is copied to batch-last order block by block. NumPy's own
# copy steps over whole images and takes two to four times as long: 128x3x32x32 float32, 0.43 ms; by blocks, 0.18 ms.
BLOCKED_COPY_SIZE = 1 << 16

# Elements of one image in a block of such a copy: a block of 128 images is 256 KiB of float32 and stays in the cache.
# Measured (Xeon, one thread) at 128, 256, 512, 1024, 2048: 128x3x32x32 takes 0.38, 0.31, 0.30, 0.34, 0.33 ms, and
# 64x16x28x28 takes 1.05, 0.84, 0.70, 0.61, 0.59.
COPY_BLOCK_SIZE = 512

# Array size (bytes) at which a convolution pads what it reads in parts, each just before it is read, instead of all at
# once: the copy of a part is still in the cache, and threads make it. Measured (Xeon, one thread): 16->16 3x3 on 32x32,
# batch 32, takes 3.5 ms forward instead of 3.8.
PADDED_PARTS_BYTES = 1 << 18

# Elements of padding after each row of a block. Without it, rows a power of two of bytes apart evict each other.
# Measured (Xeon, one thread): 128x3x32x32 takes 0.29 to 0.31 ms with 4 to 64 elements, 0.74 with none; 256x1x28x28,
# with rows of 504, takes 0.16 to 0.17 ms with all but 8, which makes them 512: 0.29.
COPY_BLOCK_GAP = 16

# Result size (bytes) at which threads share an elementwise op. Below it, waking a thread (50 to 100 µs) costs more than
# it saves. From 8 MiB, two threads take half to two thirds of the time of one.
PARALLEL_ELEMENTWISE_BYTES = 6 << 20

# Array size (bytes) at which threads share a normalization by rows. Measured (Xeon, wall time, nothing else running):
# forward and backward take, on two threads, 0.71 and 0.81 of the time on one at 2 MiB, 0.66 and 0.73 at 4 MiB, 0.67 and
# 0.66 at 8 MiB; at 0.8 MiB they would take 1.8 and 1.6 times as long.
PARALLEL_ROWS_BYTES = 1 << 21

# Bytes of the result that a normalization by rows computes at a time on one thread of the CPU. With the input, and
# backward with the gradient and three more arrays, this stays in the second-level cache for all passes. Measured (Xeon,
# one thread, 2 MiB in rows of 128 KiB, forward and backward as a multiple of the time at 512 KiB): 2 MiB 1.2 and 1.6,
# 256 KiB 1.2 and 1.
ROWS_CHUNK_BYTES = 1 << 19

# Minimum row length (elements) for shortening NumPy's ufunc buffer, and the length of that short buffer. NumPy copies
# a broadcast column into its buffer (8192 elements) for each row that is shorter. With rows shorter than the short
# buffer it costs time. Measured (Xeon, one thread, normalization of 1 MiB): rows of 2048 take 0.24 ms with buffers of
# 64 to 2048, 0.45 with 8192; rows of 512, 0.30 with 512 and 0.43 with 8192; rows of 256, 0.33 with 256 and 0.42 with
# 8192; rows of 64, 0.79 with 64 and 0.49 with 8192.
SHORT_UFUNC_BUFFER = 512

# Array size (elements) up to which NumPy computes sums, in float64; larger ones are products with ones. Measured (Xeon,
# one thread): the sum of 128x64 across rows takes 9 µs by NumPy, 12 by products; of 8000x2, 140 and 19.
NUMPY_SUM_MAX_SIZE = 1 << 13

# Most terms of a sum that one product adds. More are faster and less exact. BLAS keeps 16 partial sums along a row, 64
# in the dot product of a longer row, and one across rows. Measured (Xeon): the error of sums of 0.1, in units of the
# last place, is 2 (torch's, too) with these numbers of terms; with rows of 1024 13, of 4096 55; with dot products of
# 4096 8; with 32, 64 terms across rows 10, 8.
BLAS_ROW_TERMS = 128
BLAS_DOT_TERMS = 1024
BLAS_COLUMN_TERMS = 16

# Columns of a product that adds rows; shorter rows are added several at a time. Measured (Xeon, one thread), 10⁶x4 with
# 64, 256, 1024: 0.89, 0.80, 0.78 ms.
BLAS_COLUMNS = 512

# How many terms each sum must hold for its further additions to be in float64: then these are too few to take time.
FLOAT64_SUM_TERMS = 128

# Array size (bytes) at which threads share a sum. Measured (Xeon, two cores, in turns), time on two threads as a
# multiple of that on one: 1.2 to 2.0 at 1 MiB, 0.94 to 1.05 at 4 MiB, 0.86 at 8 MiB, 0.7 at 16 MiB.
PARALLEL_SUM_BYTES = 1 << 22

# Most multiply-accumulates that OpenBLAS computes on one thread by itself: matrix times matrix, and where one operand
# is a vector. A property of OpenBLAS, not of the machine: such products need no limit on its threads.
BLAS_ONE_THREAD_MACS = 1 << 18
BLAS_ONE_THREAD_VECTOR_MACS = 9216

# Most multiply-accumulates of a matrix product that OpenBLAS adds one by one, for it neither packs nor blocks: a
# property of OpenBLAS. Its error grows with the terms: those of more than BLAS_MATMUL_TERMS are cut, which takes 10 µs.
# Measured (Xeon, one thread), float32 (4, 40000) @ (40000, 4) in column-major order: 70 µs and an error of 66 units of
# the last place, 91 µs and 0.5 in blocks of 128 terms (torch: 3).
BLAS_UNPACKED_MACS = 10**6
BLAS_MATMUL_TERMS = 1 << 10

# Multiply-accumulates at which needle's threads share a matrix product. Measured (Xeon, two cores, in turns), time on
# two threads as a multiple of that on one: 1.75 at 2^22, 1.0 to 1.1 at 2^24, 0.73 at 2^26.
PARALLEL_MATMUL_MACS = 1 << 25

# A kernel is copied tap by tap if its taps do not make a loop of at least this many elements, and each tap has at least
# that many. Measured (Xeon, one thread, µs), in one copy and tap by tap: 2x2 of 3x3 taps, 128x64 channels, 168 and 28;
# rows of 3x3 taps exchanged with channels, 128x64 200 and 50, 64x32 64 and 18, 32x16 14 and 8; all 9 taps reversed, one
# loop, 128x64 73 and 124.
TAP_LOOP_ELEMENTS = 8
TAP_COPY_ELEMENTS = 1 << 10

# ---- kernels: convolution --------------------------------------------------------------------------------------------

# im2col gathers overlapping rows only if an output row of the whole batch has at least this many elements. Measured
# (Xeon, one thread, 1 to 32 in-channels): time without overlap, as a multiple of that with it. Forward, 256 rows: of 8
# elements 0.8 to 1.3, of 16 1.1 to 1.4, of 32 1.3 to 1.5. Weight gradient, 32 rows: of 32 elements 0.7 to 1.0, of 64
# 0.8 to 1.2, of 128 1.1 to 1.55, of 256 1.1 to 2.0.
OVERLAP_MIN_ROW_FORWARD = 32
OVERLAP_MIN_ROW_BACKWARD_WEIGHT = 256

# Output row (elements, all images) below which the rows that a dilation interleaves are multiplied together, as lanes
# of one matmul: 1-d 32->64 with dilation 4, 8.5 ms; with lanes, 7.7.
LANES_MAX_ROW = 256

# Bytes of all columns of one image up to which its forward pass builds them at once, for products on one thread.
# Measured (Xeon, one thread, µs): 1->16 5x5 on 28x28 (76 KiB of columns) takes 30 instead of 62, 16->32 3x3 on 14x14
# (110 KiB) 55 instead of 85, 128->128 3x3 on 8x8 (288 KiB) 333 and 378, 16->16 3x3 on 32x32 (576 KiB) 268 and 155.
ONE_IMAGE_BYTES = 1 << 18

# Gathered elements that cost as much as reordering one element of the kernel. Overlapping rows save gathers but need
# the kernel reordered; they take a third to a half off layers with 1 to 32 channels (LeNet 1->16 5x5: 0.94 ms to 0.48).
KERNEL_REORDER_COST = 12

# Most multiply-accumulates that OpenBLAS computes without repacking its operands, up to 1.3 times as fast. A matmul
# is cut into products of this size, of no fewer columns than the second number. Measured (Xeon, one thread): cut into
# 32 columns, 64x288x1024 takes 1.4 and 64x432x1024 1.9 times as long as whole; into 64 columns, 32x400x1536 0.86 to
# 0.97 and the layer 48->32 3x3 0.8, but 48x288x1536 1.1 to 1.3; into 96 columns, 32x288x1536 0.7; 32->32
# 3x3 on 32x32, batch 64: 26.4 ms in products of 64 columns, 23.8 whole.
SMALL_GEMM_MACS = 10**6
SMALL_GEMM_MIN_COLUMNS = 80
# ... but where there are at most the first number of columns in all, of no fewer than the second. Measured (Xeon, one
# thread, in turns): 1-d 32->64, kernel 5, dilation 4 (128 columns): forward 0.97, input gradient 0.81 of the time; a
# step of the 1-d network 0.96; 64->64, kernel 3, dilation 4: 1.02 and 1.03.
SMALL_GEMM_SHORT_ROW = 256
SMALL_GEMM_SHORT_MIN_COLUMNS = 64

# ... or into blocks of no fewer rows than the first number, where the other operand has at most the second number of
# elements: 48 KiB, which the first-level cache holds. Measured (Xeon, one thread), time in blocks as a multiple of that
# of whole products: 128x128x64 0.72, 128x64x128 0.74, 256x128x64 0.74, 256x256x32 0.77, 128x128x96 0.89; beyond,
# 64x128x128 1.09, 128x64x256 1.17. In blocks of 64, 32 and 16 rows 128x128x64 takes 0.72, 0.72, 0.73.
SMALL_GEMM_MIN_ROWS = 16
SMALL_GEMM_CACHED = 12 << 10

# Multiply-accumulates at which threads share a convolution. Measured (Xeon, two cores, in turns), time on two threads
# as a multiple of that on one: 1.1 at 20 million, 1.1 to 1.3 at 29, 0.84 at 58, 0.6 to 0.7 at 75.
PARALLEL_CONV_MACS = 1 << 25

# The same for col2im, whose additions take longer than its matmul.
PARALLEL_COL2IM_MACS = 1 << 23

# Multiply-accumulates from which, and below which, two threads compute one gradient each: below, a hand-over takes
# longer than it saves; above (1.2 ms), they share each of the two.
PARALLEL_GRADIENTS_MIN_MACS = 1 << 24
PARALLEL_GRADIENTS_MAX_MACS = 1 << 26

# Bytes of the accumulator of the taps algorithm at a time (CPU). It is read and written once per tap, so it is kept in
# the second-level cache. Forward by taps runs only on request. Measured (Xeon, one thread) at 16 KiB, 128 KiB,
# 256 KiB, 512 KiB and in one piece, the layers of docs/kernels.md: 1->16 48, 25, 8.5, 9.1, 14.6 ms; 16->32 33, 15.4,
# 20.1, 18.0, 17.2; 64->64 19.4, 11.9, 11.5, 12.3, 10.5; 128->128 32, 15.3, 14.7, 16.3, 12.7.
TAPS_ACCUMULATOR_BYTES = 1 << 18

# The weight gradient by taps is chosen between these limits: elements of an output row (all images); channels of the
# smaller side, in and out, of a group; channels of both sides multiplied. It takes a quarter off with 16 to 32 channels
# (16->32 3x3 on 14x14: 1.67 ms to 1.19) and a third with depthwise kernels (0.79 ms to 0.48).
TAPS_MIN_ROW = 256
TAPS_MIN_CHANNELS = 9
TAPS_MAX_CHANNEL_PAIRS = 1024

# Depthwise convolutions are products with banded matrices up to this many terms (elements of an input row, times kernel
# rows), and from this many images on. Measured (Xeon, one thread), im2col and banded: 32 channels 3x3 on 16x16, batch
# 64, 1.9 and 0.8 ms, batch 16, 0.60 and 0.53, batch 8, 0.42 and 0.46; 3x3 on 48x48, batch 32, 10.8 and 8.1; 16 channels
# 5x5 on 28x28, batch 64, 9.6 and 4.2; 3x3 on 56x56, batch 8, 1.7 and 2.8.
TOEPLITZ_MAX_TERMS = 150
TOEPLITZ_MIN_BATCH = 16

# The input gradient by polyphase is chosen with at least this many in-channels per group: BLAS is slow at flat
# products, and 1->16 5x5 takes 1.56 times as long by polyphase as by col2im.
POLYPHASE_MIN_IN_CHANNELS = 8
# ... for at most this multiple of the multiply-accumulates of col2im (more where most phases read padding).
POLYPHASE_MAX_EXTRA_MACS = 1.25
# ... and, with a stride, with at least this many multiply-accumulates: each phase is a convolution with a fixed cost.
POLYPHASE_MIN_MACS = 1 << 24

# Winograd needs at least this many multiply-accumulates of the plain sum: below, its calls take longer than it saves.
WINOGRAD_MIN_MACS = 1 << 24
# ... and an estimated time below this multiple of the time of the plain sum, in multiplications of that. One between
# tiles counts as this many, and so does each transformed element, which is copied and multiplied by A or B. Measured
# (Xeon, one thread), time forward as a multiple of that by im2col: 3x3 16->16 1.10, 24->24 0.84, 32->32 0.70,
# 48->48 0.67, 16->32 1.3, 32->16 0.99, 20->40 0.88, 64->16 0.84; 1-d 3 32->32 1.5, 64->64 1.3, 128->128 0.8; 3x3x3
# 16->16 0.49, 32->32 0.42. Batches of 4 and 8 take longer: 3x3 32->32 1.33 and 1.06.
WINOGRAD_MAX_COST = 0.97
WINOGRAD_PRODUCT_COST = 1.3
WINOGRAD_TRANSFORM_COST = 30

# Bytes of transformed tiles that one thread works on at a time (CPU): they stay in its cache until the matmul.
# Measured (Xeon, one thread) at 512 KiB, 1, 4 and 16 MiB: 128->128 of docs/kernels.md takes 9.6, 7.5, 7.9, 7.7 ms
# forward and 15.2, 13.6, 10.1, 10.2 for the weight gradient; 64->64 on 28x28, N=64, takes 29.0, 28.9, 30.0, 38.6 and
# 42.9, 40.8, 42.3, 43.5.
WINOGRAD_TILE_BYTES = 1 << 20
# ... but at least so many that products have this many columns (tiles times images): sums of kernels are read and
# written for each product. Measured (Xeon, one thread, in turns), 128->128 on 16x16, time as a multiple of that with 32
# columns: both gradients with 64 0.88 (batch 32) and 0.83 (batch 16), with 128 0.88 and 0.89; forward with 64 1.01 and
# 0.98, with 128 1.13 and 1.14.
WINOGRAD_MIN_COLUMNS = 64

# On a GPU: rows of a product, that is, channels of its result in one group, below which each thread computes results by
# itself. Not measured: a tile of a product has 16 rows at least, so with fewer than 4 most of its work is for nothing.
CUDA_DIRECT_ROWS = 4

# On a GPU: blocks among which the sums of a weight gradient are divided, and terms that each of them adds at least. Not
# measured: an H100 has 132 multiprocessors that run one or two such blocks each; parts are written and read again.
CUDA_SUM_BLOCKS = 264
CUDA_SUM_TERMS = 256

# ---- kernels: pooling ------------------------------------------------------------------------------------------------

# Image size (bytes) at which threads share a pooling by channels: two threads halve the time with 8 MiB of images.
PARALLEL_POOL_BYTES = 1 << 21

# ---- ops -------------------------------------------------------------------------------------------------------------

# Array size (elements) below which relu uses `maximum`, which starts faster; NumPy's `clip` is vectorized and faster on
# many elements (819,200: 75 µs instead of 273).
RELU_MAXIMUM_SIZE = 2048

# Multiple of the variance that the square of a mean exceeds where a normalization centers its elements first, which
# takes half as long again. Below, the error of a variance computed from the mean square is at most 17 times that of the
# mean square, which is added in float64.
FAR_FROM_ZERO = 16

# The same for the gradient, where centering takes a fifth longer and the sum of grad · x is in question: for rows of
# fewer elements than the number, and for others. Measured for means of one deviation, of x and of the gradient: errors
# of 3 and 6 units of the last place for 81 elements with and without centering, 6 and 16 for 1176, 11 and 7 for 32768.
FAR_FROM_ZERO_SHORT, FAR_FROM_ZERO_LONG = 0.5, 4
LONG_ROW = 1 << 12

# ---- optimizers ------------------------------------------------------------------------------------------------------

# Elements: parameters below this size are updated together, as flat arrays. A NumPy call on so few elements costs more
# than its arithmetic: with 40 small parameters an Adam step takes 2.5 µs per parameter instead of 9. Measured (Xeon,
# one thread): pooled, 10 parameters of 4096 elements take 0.7 (Adam) to 1.05 (SGD) of the time, and 10 of 16000 take
# 1.2 (Adam) to 1.8 times as long (SGD with momentum).
POOLED_ELEMENTS = 1 << 14

# Parameters: minimum number of small ones of one dtype on one device that are updated together. Copying fewer to the
# flat arrays and back saves SGD nothing. Measured (Xeon, one thread), one by one and pooled: of 64 elements, Adam takes
# 36 and 25 µs with 3 parameters, 54 and 30 with 5; SGD 16 and 18 with 3, 20 and 20 with 4, 26 and 23 with 5. Of 4096
# elements, the times are equal with 2 parameters for Adam, 5 for SGD with momentum, and 8 to 10 for SGD.
POOLED_PARAMETERS = 5

# Elements of a parameter that a step updates at a time (times the device's `chunk_scale`): in float32 a chunk of Adam
# uses 5 MB, which stays in cache from one NumPy call to the next. Measured (Xeon, one thread, 2^22 elements) at 2^14,
# 2^16, 2^18, 2^19 and in one piece: Adam takes 15.6, 14.2, 15.3, 17.7, 25.2 ms, SGD 6.8, 6.1, 6.6, 6.9, 8.8.
STEP_CHUNK_ELEMENTS = 1 << 18

# Elements of all parameters together: minimum for a step to use threads. Measured (Xeon, two cores, in turns), time on
# two threads as a multiple of that on one, Adam and SGD with momentum: 1.56 and 1.34 at 2^17, 1.02 and 1.43 at 2^18,
# 0.91 and 0.87 at 2^19, 1.05 and 0.78 at 2^20.
PARALLEL_STEP_ELEMENTS = 1 << 19

# ---- distributed: what ranks exchange --------------------------------------------------------------------------------

# Bytes from which a bucket of gradients takes no further one, and is sent once it is full. Measured (Xeon, two workers,
# with other programs on both cores): least time in all exchanges of a step, in ms, with 32 KiB, 128 KiB, 512 KiB and
# 2 MiB: LeNet 0.21, 0.21, 0.15, 0.19; ResNet9 (3 MB of gradients) 1.4, 1.6, 1.8, 1.5. So it decides little.
GRADIENT_BUCKET_BYTES = 1 << 19

# Seconds after which backward, between two nodes of the graph or two chunks of one, looks whether sums of gradients can
# go on. A look takes 1 to 5 µs. Measured (Xeon, two ranks of MPICH, a VGG with 2.2 MB of gradients, backward alone
# 44 ms), backward by a link of 200 Mbit/s, which needs 88 ms: 127 ms without looks, 106 between nodes, 96 with chunks.
PROGRESS_SECONDS = 1e-4

# Bytes of a slot of shared memory: the pieces in which large arrays go through; a rank has four. Measured (Xeon, two
# ranks): a sum of 1 MiB takes 553, 406, 358, 313, 904 µs by pieces of 64, 128, 256, 512 KiB, 1 MiB.
SHARED_SLOT_BYTES = 1 << 18

# Bytes of a piece at which each rank sums a share of it. Below, every rank sums all of it, and waits once, not twice.
# Measured (Xeon, two ranks), whole and by shares: 32 KB take 14 and 22 µs, 64 KB 20 and 31, 128 KB 32 and 40. With more
# ranks the former takes longer, the latter hardly.
SHARED_SUM_BYTES = 1 << 16

# Bytes that a rank sends at most to sum an array that goes by MPI whole from each rank to each, with the message that
# opens the call. Measured (two cores, two ranks, MPICH 5.0 and Open MPI 5.0): 64 KB take 35 µs whole, by shares 53.
MPI_WHOLE_BYTES = 1 << 16

# The same of one of two ranks, who send no more bytes that way. Measured there with MPICH, whole and by shares, in µs:
# 96 KiB take 54 and 86, 160 KiB 71 and 99, 256 KiB 100 and 117, 384 KiB 139 and 144, 512 KiB 185 and 169.
MPI_PAIR_BYTES = 1 << 18

# Bytes of a rank's share of a piece: larger arrays go by MPI in pieces of as many shares as there are ranks. Measured
# there: a sum of 16 MiB takes 5.5, 3.5, 3.0, 3.0 ms by shares of 128, 256, 512 KiB, 1 MiB.
MPI_SHARE_BYTES = 1 << 19

# Pieces of large arrays that are under way by MPI at the same time.
MPI_PIECES = 4

# Bytes up to which an array goes whole from each GPU to each by NCCL, in one launch in place of two; not measured.
NCCL_WHOLE_BYTES = 1 << 16

# Seconds for which a rank waits busily for the others: waking up takes about as long (58 µs on the Xeon).
SPIN_SECONDS = 5e-5

# Seconds after which it no longer looks all the time, giving way to every program that could use the core, but sleeps.
# Measured (Xeon, two ranks, a small sum after every 0.5 ms of work, of which one rank has a quarter more): a sum takes
# 36 µs longer than the slower rank's work, 55 if it sleeps at once; beside a busy program 708 and 636.
YIELD_SECONDS = 5e-4

# Seconds that a rank sleeps at most before it looks again.
LONGEST_PAUSE_SECONDS = 1e-3
