// The weight gradient of a convolution, and that of its bias: w_grad (out, in · taps) = y · columnsᵀ, a product over all
// places and images. The sum is cut into parts, each by blocks of its own; a later launch adds them in order
// (`add_parts`), so results are the same bits in every run.

#include "product_tile.cu"
#include "conv_places.cu"

// How a launch cuts its sums: `parts`, of `terms` terms each, a multiple of DEPTH; part i writes `step`·i elements behind
// the first. `biases`: none, of the channels of y, or of those of x, for which the first `image_blocks` blocks add up parts
// of x of `image_terms` elements. Without an array of their own they lie behind the weights. The mask is for x or for y.
struct Cut { int parts, terms, step, biases, image_blocks, image_terms, masks_x, vector; };
enum Biases { NONE, OF_Y, OF_X };

struct Work {
  const float *x, *y, *mask;
  float *w_grad, *bias_grad;
  __device__ __forceinline__ float* biases(const Conv& v, const Cut& cut, int part) const {
    int weights = v.groups * v.out * v.in * v.axis[0].taps * v.axis[1].taps * v.axis[2].taps;
    return bias_grad ? bias_grad : w_grad + weights + (long long)part * cut.step;
  }
};

// The sum of one part of a channel of x, by a block.
__device__ __forceinline__ void add_image(const Work& work, const Conv& v, const View& steps, const Cut& cut, float* scratch) {
  int channel = blockIdx.x % (v.groups * v.in), part = blockIdx.x / (v.groups * v.in), width = cut.vector ? 4 : 1;
  int radix[3] = {v.axis[1].size, v.axis[2].size, v.batch};
  int term = part * cut.image_terms, end = min(term + cut.image_terms, v.axis[0].size * radix[0] * radix[1] * radix[2]);
  long long start = (long long)channel * steps.channel;
  float sum = 0;
  Digits at = digits_of(term + threadIdx.x * width, radix), stride = digits_of(THREADS * width, radix);
  for (int k = term + threadIdx.x * width; k < end; k += THREADS * width, advance(at, stride, radix)) {
    long long from = start + at.first * steps.place[0] + at.digit[0] * steps.place[1] + at.digit[1] * steps.place[2] +
                     at.digit[2] * steps.image;
    if (cut.vector) {
      float4 four = *(const float4*)(work.x + from);
      if (cut.masks_x) four = masked(four, *(const float4*)(work.mask + from));
      sum += (four.x + four.y) + (four.z + four.w);
    } else {
      sum += cut.masks_x ? masked(work.x[from], work.mask[from]) : work.x[from];
    }
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) work.biases(v, cut, part)[channel] = sum;
}

template <int ROWS, class Product>
__device__ __forceinline__ void weigh(float (*a)[DEPTH][ROWS + GAP], float (*b)[DEPTH][64 + GAP], const Work& work, const Conv& v,
                                      const View& x_steps, const View& y_steps, const Cut& cut) {
  if (blockIdx.x < cut.image_blocks) return add_image(work, v, x_steps, cut, &a[0][0][0]);
  constexpr int HIGH = ROWS / 32, WIDE = 2;
  const Axis* axis = v.axis;
  int taps[3] = {axis[0].taps, axis[1].taps, axis[2].taps}, radix[3] = {axis[1].output, axis[2].output, v.batch};
  int rows = v.out, columns = v.in * taps[0] * taps[1] * taps[2], tid = threadIdx.x, quad = tid & 3, line = tid >> 2;
  int row_tiles = (rows + ROWS - 1) / ROWS, column_tiles = (columns + 63) / 64, tile = blockIdx.x - cut.image_blocks;
  int row0 = tile % row_tiles * ROWS, column0 = tile / row_tiles % column_tiles * 64, rest = tile / row_tiles / column_tiles;
  int group = rest % v.groups, part = rest / v.groups;
  int term = part * cut.terms, end = min(term + cut.terms, axis[0].output * axis[1].output * axis[2].output * v.batch);
  bool vector = cut.vector;

  // A thread loads four terms in a row, `quad`, for the rows and columns `line` + 32·i.
  const float* x = work.x + (long long)group * v.in * x_steps.channel;
  const float* y = work.y + (long long)group * rows * y_steps.channel;
  const float* x_mask = cut.masks_x ? work.mask + (x - work.x) : nullptr;
  const float* y_mask = work.mask && !cut.masks_x ? work.mask + (y - work.y) : nullptr;
  Digits reads[WIDE];  // channel and first place of each column
#pragma unroll
  for (int j = 0; j < WIDE; j++) {
    reads[j] = digits_of(column0 + line + 32 * j, taps);
#pragma unroll
    for (int i = 0; i < 3; i++) reads[j].digit[i] = reads[j].digit[i] * axis[i].dilation - axis[i].before;
  }
  Digits at = digits_of(term + 4 * quad, radix), one = digits_of(1, radix);
  Digits depth = digits_of(vector ? DEPTH : DEPTH - 4, radix);

  float4 left[HIGH], right[WIDE];
  float bias_sum[HIGH] = {};
  auto load = [&](int k, int stage) {  // what is read one by one goes to shared memory at once
#pragma unroll 1
    for (int t = 0; t < (vector ? 1 : 4); t++) {
      int to = 4 * quad + t;
      bool valid = k + 4 * quad + t < end;
      int p[3] = {at.first, at.digit[0], at.digit[1]}, n = at.digit[2];
      int y_at = p[0] * y_steps.place[0] + p[1] * y_steps.place[1] + p[2] * y_steps.place[2] + n * y_steps.image;
#pragma unroll
      for (int i = 0; i < HIGH; i++) {
        int row = row0 + line + 32 * i, from = y_at + row * y_steps.channel;
        if (vector) {
          left[i] = make_float4(0, 0, 0, 0);
          if (valid && row < rows) {
            left[i] = *(const float4*)(y + from);
            if (y_mask) left[i] = masked(left[i], *(const float4*)(y_mask + from));
          }
          bias_sum[i] += (left[i].x + left[i].y) + (left[i].z + left[i].w);
        } else {
          float value = 0;
          if (valid && row < rows) value = y_mask ? masked(y[from], y_mask[from]) : y[from];
          a[stage][to][turned<ROWS>(to, line + 32 * i)] = value;
          bias_sum[i] += value;
        }
      }
#pragma unroll
      for (int j = 0; j < WIDE; j++) {
        bool inside = valid && reads[j].first < v.in;
        int from = reads[j].first * x_steps.channel + n * x_steps.image;
#pragma unroll
        for (int i = 0; i < 3; i++) {
          int s = p[i] * axis[i].stride + reads[j].digit[i];
          inside = inside && (unsigned)s < (unsigned)axis[i].size;
          from += s * x_steps.place[i];
        }
        if (vector) {
          right[j] = make_float4(0, 0, 0, 0);
          if (inside) {
            right[j] = *(const float4*)(x + from);
            if (x_mask) right[j] = masked(right[j], *(const float4*)(x_mask + from));
          }
        } else {
          float value = 0;
          if (inside) value = x_mask ? masked(x[from], x_mask[from]) : x[from];
          b[stage][to][turned<64>(to, line + 32 * j)] = value;
        }
      }
      if (!vector) advance(at, one, radix);
    }
    advance(at, depth, radix);
  };
  auto store = [&](int stage) {
    if (!vector) return;
    int k = 4 * quad;
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
      int at = turned<ROWS>(k, line + 32 * i);
      a[stage][k][at] = left[i].x; a[stage][k + 1][at] = left[i].y;
      a[stage][k + 2][at] = left[i].z; a[stage][k + 3][at] = left[i].w;
    }
#pragma unroll
    for (int j = 0; j < WIDE; j++) {
      int at = turned<64>(k, line + 32 * j);
      b[stage][k][at] = right[j].x; b[stage][k + 1][at] = right[j].y;
      b[stage][k + 2][at] = right[j].z; b[stage][k + 3][at] = right[j].w;
    }
  };

  Product product;
  load(term, 0);
  store(0);
  __syncthreads();
  for (int k = term, stage = 0; k < end; k += DEPTH, stage ^= 1) {
    bool more = k + DEPTH < end;
    if (more) load(k + DEPTH, stage ^ 1);
    product.add(a[stage], b[stage]);
    if (more) store(stage ^ 1);
    __syncthreads();
  }

  float* w_grad = work.w_grad + (long long)part * cut.step;
  bool aligned = (columns & 3) == 0;
  product.each([&](int row, int column, const float* values) {
    row += row0; column += column0;
    if (row >= rows || column >= columns) return;
    float* to = w_grad + (group * rows + row) * columns + column;
    if (aligned && Product::WIDTH == 4) { *(float4*)to = make_float4(values[0], values[1], values[2], values[3]); return; }
    if (aligned) { *(float2*)to = make_float2(values[0], values[1]); return; }
    for (int j = 0; j < Product::WIDTH; j++) if (column + j < columns) to[j] = values[j];
  });
  if (cut.biases != OF_Y || column0) return;
  float* bias_grad = work.biases(v, cut, part) + group * rows;
#pragma unroll
  for (int i = 0; i < HIGH; i++) {
    float sum = bias_sum[i] + __shfl_xor_sync(FULL, bias_sum[i], 1);
    sum += __shfl_xor_sync(FULL, sum, 2);
    int row = row0 + line + 32 * i;
    if (quad == 0 && row < rows) bias_grad[row] = sum;
  }
}

#define ARGUMENTS                                                                                                        \
  const float *__restrict__ x, const float *__restrict__ y, const float *__restrict__ mask, float *__restrict__ w_grad,  \
      float *__restrict__ bias_grad, Conv v, View x_steps, View y_steps, Cut cut
#define SHARED(ROWS)                                                                                                     \
  __shared__ __align__(16) float a[2][DEPTH][ROWS + GAP];                                                                \
  __shared__ __align__(16) float b[2][DEPTH][64 + GAP];                                                                  \
  Work work{x, y, mask, w_grad, bias_grad};
#define CALL (a, b, work, v, x_steps, y_steps, cut)

extern "C" __global__ void __launch_bounds__(THREADS) weigh_32(ARGUMENTS) {
  SHARED(32)
  weigh<32, Plain<32, 64>> CALL;
}
extern "C" __global__ void __launch_bounds__(THREADS, 3) weigh_64(ARGUMENTS) {
  SHARED(64)
  weigh<64, Plain<64, 64>> CALL;
}
extern "C" __global__ void __launch_bounds__(THREADS, 3) weigh_tf32(ARGUMENTS) {
  SHARED(64)
  weigh<64, Matrix> CALL;
}

// For few rows in a group: a block adds up one row of one channel, for up to SOME taps.
#define SOME 8
extern "C" __global__ void __launch_bounds__(THREADS) weigh_direct(ARGUMENTS) {
  __shared__ float scratch[32];
  Work work{x, y, mask, w_grad, bias_grad};
  if (blockIdx.x < cut.image_blocks) return add_image(work, v, x_steps, cut, scratch);
  const Axis* axis = v.axis;
  int taps[3] = {axis[0].taps, axis[1].taps, axis[2].taps}, radix[3] = {axis[1].output, axis[2].output, v.batch};
  int all_taps = taps[0] * taps[1] * taps[2], runs = (all_taps + SOME - 1) / SOME, width = cut.vector ? 4 : 1;
  int tile = blockIdx.x - cut.image_blocks;
  int first_tap = tile % runs * SOME, channel = tile / runs % v.in, rest = tile / runs / v.in;
  int row = rest % (v.out * v.groups), part = rest / (v.out * v.groups);
  int term = part * cut.terms, end = min(term + cut.terms, axis[0].output * axis[1].output * axis[2].output * v.batch);
  int image_channel = row / v.out * v.in + channel;
  x += (long long)image_channel * x_steps.channel;
  y += (long long)row * y_steps.channel;
  const float* x_mask = cut.masks_x ? mask + (long long)image_channel * x_steps.channel : nullptr;
  const float* y_mask = mask && !cut.masks_x ? mask + (long long)row * y_steps.channel : nullptr;
  int reads[SOME][3];
#pragma unroll
  for (int t = 0; t < SOME; t++) {
    Digits tap = digits_of(first_tap + t, taps);
#pragma unroll
    for (int i = 0; i < 3; i++) reads[t][i] = tap.digit[i] * axis[i].dilation - axis[i].before;
  }
  float sums[SOME] = {}, bias_sum = 0;
  Digits at = digits_of(term + threadIdx.x * width, radix), stride = digits_of(THREADS * width, radix);
  for (int k = term + threadIdx.x * width; k < end; k += THREADS * width, advance(at, stride, radix)) {
    int p[3] = {at.first, at.digit[0], at.digit[1]}, n = at.digit[2];
    int y_at = p[0] * y_steps.place[0] + p[1] * y_steps.place[1] + p[2] * y_steps.place[2] + n * y_steps.image;
    float4 g = make_float4(0, 0, 0, 0);
    if (cut.vector) {
      g = *(const float4*)(y + y_at);
      if (y_mask) g = masked(g, *(const float4*)(y_mask + y_at));
    } else {
      g.x = y_mask ? masked(y[y_at], y_mask[y_at]) : y[y_at];
    }
    bias_sum += (g.x + g.y) + (g.z + g.w);
#pragma unroll
    for (int t = 0; t < SOME; t++) {
      int x_at = n * x_steps.image;
      bool inside = first_tap + t < all_taps;
#pragma unroll
      for (int i = 0; i < 3; i++) {
        int s = p[i] * axis[i].stride + reads[t][i];
        inside = inside && (unsigned)s < (unsigned)axis[i].size;
        x_at += s * x_steps.place[i];
      }
      if (!inside) continue;
      if (cut.vector) {
        float4 four = *(const float4*)(x + x_at);
        if (x_mask) four = masked(four, *(const float4*)(x_mask + x_at));
        sums[t] += (g.x * four.x + g.y * four.y) + (g.z * four.z + g.w * four.w);
      } else {
        sums[t] += g.x * (x_mask ? masked(x[x_at], x_mask[x_at]) : x[x_at]);
      }
    }
  }
  w_grad += (long long)part * cut.step + (row * v.in + channel) * all_taps;
#pragma unroll
  for (int t = 0; t < SOME; t++) {
    float sum = block_sum(sums[t], scratch);
    if (threadIdx.x == 0 && first_tap + t < all_taps) w_grad[first_tap + t] = sum;
  }
  if (cut.biases != OF_Y || channel || first_tap) return;
  bias_sum = block_sum(bias_sum, scratch);
  if (threadIdx.x == 0) work.biases(v, cut, part)[row] = bias_sum;
}

// Partial sums added up by a launch of their own, where no other follows.
extern "C" __global__ void __launch_bounds__(THREADS) add_weights(
    const float* __restrict__ partial, float* __restrict__ w_grad, float* __restrict__ bias_grad, Parts parts) {
  add_parts(blockIdx.x, parts, partial, w_grad, bias_grad);
}
