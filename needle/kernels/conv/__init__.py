"""Convolution on raw arrays: three passes of one trilinear form, each by several algorithms.

A convolution has a forward pass and two gradients. ⟨y, conv(x, w)⟩ is linear in x, in w and in y, and each pass is its
derivative in one of them, so the derivative of every pass is made of the other two. Arrays are indexed as x (N, C, *S),
w (O, C/G, *K), y (N, O, *P), and lie batch-last in memory, (C, *S, N): see `needle.kernels.layout`. Passes have
cuDNN's and oneDNN's names: forward, backward_data, backward_weight.

Read the files in this order; each uses only those before it:

1. `gemm`: matrix products, one per group, cut into sizes that BLAS multiplies fast.
2. `one_image`: the forward pass of im2col for one small image, without chunks.
3. `im2col`: the default, forward and backward_weight. Columns of what the kernel reads, a chunk of output rows at a
   time, and one matrix product for each chunk. `Columns` also says when consecutive rows may share what they gather.
   `unfold` makes all columns at once.
4. `col2im`: the transpose of that, backward_data. One matrix product makes columns, which are added back to their
   places. `fold` is the second half alone.
5. `taps`: no columns, forward and backward_weight. One 1x1 convolution for each position of the kernel.
6. `polyphase`: backward_data as forward convolutions at stride 1, one for each phase of the stride.
7. `winograd`: forward and backward_weight with fewer multiplications, at stride 1 and kernels up to 3.
8. `toeplitz`: forward, depthwise. One product with a banded matrix for each output row of a channel.
9. `reference`: the shortest forms, a tensordot and two convolutions. The tests compare the others with them.
10. `dispatch`: the entry points. `correlate`, `correlate_transpose` and `correlate_weight` drop dead taps, choose an
   algorithm by shape (or by name within `conv_algorithm`), and call it. Choices are cached for each shape.

On a GPU `needle/kernels/gpu/conv.py` takes the place of the entry points. `needle.kernels` exports what ops use. The
mathematics is in docs/convolution.md; thresholds, with the measurements behind them, are in `needle.tuning`.
"""
