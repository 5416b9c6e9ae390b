// Convolution and its transpose as a product whose columns are read where they lie, never written out:
// result (rows, places · N) = w (rows, channels · taps) · columns. A block makes a tile of ROWS x COLS; threads load the
// next DEPTH terms into registers while they multiply those in shared memory.
//
// forward:    rows are out-channels, `in` is x, and a result reads x[place · stride - padding + tap · dilation]
// transposed: rows are in-channels, `in` is y, in one launch for all phases of the stride (`Side` in conv_places.cu)

#include "product_tile.cu"
#include "conv_places.cu"

struct Work {  // the arguments of a launch
  const float *in, *mask, *w, *bias;
  float* out;
  const float* partial;
  float *w_grad, *bias_grad;
};

template <int ROWS, int COLS, class Product>
__device__ __forceinline__ void convolve(float (*a)[DEPTH][ROWS + GAP], float (*b)[DEPTH][COLS + GAP], const Work& work,
                                         const Conv& v, const View& in_steps, const Taps& w_steps, const Parts& parts,
                                         int transposed, int relu, int vector) {
  if (blockIdx.x < parts.blocks) return add_parts(blockIdx.x, parts, work.partial, work.w_grad, work.bias_grad);
  int rows = transposed ? v.in : v.out, channels = transposed ? v.out : v.in, tid = threadIdx.x;
  int row_tiles = (rows + ROWS - 1) / ROWS, tile = blockIdx.x - parts.blocks;  // row tiles of the same columns run together
  int row0 = tile % row_tiles * ROWS, group = tile / row_tiles % v.groups, rest = tile / row_tiles / v.groups, phases = 1;
  if (transposed) phases = phases_of(v);
  Side sides[3];
  find_sides(sides, v, transposed, rest % phases);
  int column0 = rest / phases * COLS;
  if (column0 >= sides[0].count * sides[1].count * sides[2].count * v.batch) return;  // this phase has fewer places
  int radix[3] = {max(sides[0].taps, 1), max(sides[1].taps, 1), max(sides[2].taps, 1)};
  int terms = channels * sides[0].taps * sides[1].taps * sides[2].taps;

  // A thread loads one column, or four images of it, for some terms in a row, and one term for some rows of w.
  constexpr int COUNT = DEPTH * COLS / THREADS;
  int lanes = vector ? COLS / 4 : COLS, per_thread = vector ? COUNT / 4 : COUNT;
  int b_column = tid % lanes * (vector ? 4 : 1), b_term = tid / lanes * per_thread;
  int a_row = tid >> 2 & 7, a_term = (tid & 3) + 4 * (tid >> 5);
  Column column = column_of(column0 + b_column, sides, v.batch);
  int at[3];
#pragma unroll
  for (int i = 0; i < 3; i++) at[i] = sides[i].base + column.place[i] * sides[i].by_place;
  const float* in = work.in + (long long)group * channels * in_steps.channel + (long long)column.image * in_steps.image;
  const float* mask = work.mask ? work.mask + (in - work.in) : nullptr;
  const float* w = work.w + (long long)group * v.out * w_steps.out;
  int row_step = transposed ? w_steps.in : w_steps.out, channel_step = transposed ? w_steps.out : w_steps.in;
  Digits b_at = digits_of(b_term, radix), a_at = digits_of(a_term, radix);
  Digits one = digits_of(1, radix), depth = digits_of(DEPTH, radix), others = digits_of(DEPTH - per_thread, radix);

  float4 loaded[COUNT / 4];
  float weights[ROWS / 8];
  auto place = [&](int (&s)[3]) {  // where b_at reads, and whether that is an element
    bool valid = column.valid && b_at.first < channels;
#pragma unroll
    for (int i = 0; i < 3; i++) {
      s[i] = at[i] + b_at.digit[i] * sides[i].by_tap;
      valid = valid && (unsigned)s[i] < (unsigned)sides[i].limit;
    }
    return valid;
  };
  auto offset = [&](const int (&s)[3]) {
    return b_at.first * in_steps.channel + s[0] * in_steps.place[0] + s[1] * in_steps.place[1] + s[2] * in_steps.place[2];
  };
  auto load = [&](int stage) {  // what is read one by one goes to shared memory at once
    int s[3];
    if (vector) {
#pragma unroll
      for (int i = 0; i < COUNT / 4; i++) {
        loaded[i] = make_float4(0, 0, 0, 0);
        if (place(s)) {
          loaded[i] = *(const float4*)(in + offset(s));
          if (mask) loaded[i] = masked(loaded[i], *(const float4*)(mask + offset(s)));
        }
        advance(b_at, one, radix);
      }
    } else {
#pragma unroll 4
      for (int i = 0; i < COUNT; i++) {
        float value = 0;
        if (place(s)) {
          value = in[offset(s)];
          if (mask) value = masked(value, mask[offset(s)]);
        }
        b[stage][b_term + i][turned<COLS>(b_term + i, b_column)] = value;
        advance(b_at, one, radix);
      }
    }
    advance(b_at, others, radix);
    int tap = a_at.first * channel_step;
#pragma unroll
    for (int i = 0; i < 3; i++) tap += (sides[i].tap + a_at.digit[i] * sides[i].tap_step) * w_steps.tap[i];
#pragma unroll
    for (int j = 0; j < ROWS / 8; j++) {
      int row = row0 + a_row + 8 * j;
      weights[j] = row < rows && a_at.first < channels ? w[row * row_step + tap] : 0.0f;
    }
    advance(a_at, depth, radix);
  };
  auto store = [&](int stage) {
#pragma unroll
    for (int i = 0; i < COUNT / 4; i++)
      if (vector) *(float4*)&b[stage][b_term + i][turned<COLS>(b_term + i, b_column)] = loaded[i];
#pragma unroll
    for (int j = 0; j < ROWS / 8; j++) a[stage][a_term][turned<ROWS>(a_term, a_row + 8 * j)] = weights[j];
  };

  Product product;
  if (terms > 0) {
    load(0);
    store(0);
    __syncthreads();
    for (int k = 0, stage = 0; k < terms; k += DEPTH, stage ^= 1) {
      bool more = k + DEPTH < terms;
      if (more) load(stage ^ 1);
      product.add(a[stage], b[stage]);
      if (more) store(stage ^ 1);
      __syncthreads();
    }
  }

  int size[3];
#pragma unroll
  for (int i = 0; i < 3; i++) size[i] = transposed ? v.axis[i].size : v.axis[i].output;
  long long plane = (long long)size[0] * size[1] * size[2] * v.batch;
  product.each([&](int row, int first, float* values) {
    if (row0 + row >= rows) return;
    row += group * rows + row0;
    float add = work.bias ? work.bias[row] : 0.0f;
    float* out = work.out + row * plane;
#pragma unroll
    for (int j = 0; j < Product::WIDTH; j++) { values[j] += add; if (relu) values[j] = rectified(values[j]); }
    if (vector) {
      Column c = column_of(column0 + first, sides, v.batch);
      if (!c.valid) return;
      float* to = out + address_of(c, sides, size, v.batch);
      if constexpr (Product::WIDTH == 4) *(float4*)to = make_float4(values[0], values[1], values[2], values[3]);
      else *(float2*)to = make_float2(values[0], values[1]);
    } else {
      for (int j = 0; j < Product::WIDTH; j++) {
        Column c = column_of(column0 + first + j, sides, v.batch);
        if (c.valid) out[address_of(c, sides, size, v.batch)] = values[j];
      }
    }
  });
}

#define ARGUMENTS                                                                                                        \
  const float *__restrict__ in, const float *__restrict__ mask, const float *__restrict__ w,                             \
      const float *__restrict__ bias, float *__restrict__ out, const float *__restrict__ partial,                        \
      float *__restrict__ w_grad, float *__restrict__ bias_grad, Conv v, View in_steps, Taps w_steps,                    \
      Parts parts, int transposed, int relu, int vector
#define SHARED(ROWS, COLS)                                                                                               \
  __shared__ __align__(16) float a[2][DEPTH][ROWS + GAP];                                                                \
  __shared__ __align__(16) float b[2][DEPTH][COLS + GAP];                                                                \
  Work work{in, mask, w, bias, out, partial, w_grad, bias_grad};
#define CALL (a, b, work, v, in_steps, w_steps, parts, transposed, relu, vector)

extern "C" __global__ void __launch_bounds__(THREADS, 4) convolve_16(ARGUMENTS) {
  SHARED(16, 128)
  convolve<16, 128, Plain<16, 128>> CALL;
}
extern "C" __global__ void __launch_bounds__(THREADS, 3) convolve_32(ARGUMENTS) {
  SHARED(32, 128)
  convolve<32, 128, Plain<32, 128>> CALL;
}
extern "C" __global__ void __launch_bounds__(THREADS, 3) convolve_64(ARGUMENTS) {
  SHARED(64, 64)
  convolve<64, 64, Plain<64, 64>> CALL;
}
extern "C" __global__ void __launch_bounds__(THREADS, 4) convolve_tf32(ARGUMENTS) {
  SHARED(64, 64)
  convolve<64, 64, Matrix> CALL;
}
