// What the kernels of a convolution share: which elements each result reads, for arrays (N, C, *S) of any steps.

struct Axis { int size, output, taps, stride, dilation, before, first; };  // of x, of y; live taps; padding; first live tap
struct Conv { Axis axis[3]; int batch, groups, in, out; };                 // channels of x and of y in each group
struct View { int channel, place[3], image; };                             // steps of an array (N, C, *S) in elements
struct Taps { int out, in, tap[3]; };                                      // steps of w (O, C/G, *K)
struct Parts { int blocks, count, step, weights, biases; };                // partial sums of an earlier launch, `step` apart

// The results along one axis: result t lies at `first + t·step` and reads the input at `base + t·by_place + m·by_tap`
// by its m-th tap, which is number `tap + m·tap_step` of the kernel, where that is at least 0 and below `limit`.
struct Side { int count, first, step, limit, base, by_place, by_tap, taps, tap, tap_step; };

__device__ __forceinline__ Side forward_side(const Axis& a) {
  return {a.output, 0, 1, a.size, -a.before, a.stride, a.dilation, a.taps, a.first, 1};
}

// The transpose, for the elements of x that lie a stride apart, from `phase` on. x[i] = Σ y[q]·w[j] over
// stride·q + dilation·j = i + before: with i = phase + stride·t, the solutions are j = start + step·m and
// q = base + t - d·m, where step and d are stride and dilation without their common divisor.
__device__ __forceinline__ Side backward_side(const Axis& a, int phase) {
  int common = a.stride, rest = a.dilation;
  while (rest) { int next = common % rest; common = rest; rest = next; }
  int step = a.stride / common, place = phase + a.before, start = 0;
  while (start < step && (place - a.dilation * start) % a.stride) start++;
  int taps = start < step && start < a.taps ? (a.taps - start + step - 1) / step : 0;
  return {(a.size - phase + a.stride - 1) / a.stride, phase, a.stride, a.output,
          (place - a.dilation * start) / a.stride, 1, -(a.dilation / common), taps, a.first + start, step};
}

__device__ __forceinline__ int phases_of(const Conv& v) {
  const Axis* axis = v.axis;
  return min(axis[0].stride, axis[0].size) * min(axis[1].stride, axis[1].size) * min(axis[2].stride, axis[2].size);
}
// The three sides; the phase counts through min(stride, size) phases of each axis.
__device__ __forceinline__ void find_sides(Side (&sides)[3], const Conv& v, int transposed, int phase) {
#pragma unroll
  for (int i = 2; i >= 0; i--) {
    const Axis& a = v.axis[i];
    int phases = min(a.stride, a.size);
    sides[i] = transposed ? backward_side(a, phase % phases) : forward_side(a);
    phase /= phases;
  }
}

// A number of four digits, the last of which count to `radix`: a channel and a tap, or a place and an image.
struct Digits { int first, digit[3]; };

__device__ __forceinline__ Digits digits_of(int number, const int (&radix)[3]) {
  Digits d;
#pragma unroll
  for (int i = 2; i >= 0; i--) { d.digit[i] = number % radix[i]; number /= radix[i]; }
  d.first = number;
  return d;
}
__device__ __forceinline__ void advance(Digits& d, const Digits& by, const int (&radix)[3]) {
  int carry = 0;
#pragma unroll
  for (int i = 2; i >= 0; i--) {
    d.digit[i] += by.digit[i] + carry;
    carry = d.digit[i] >= radix[i];
    if (carry) d.digit[i] -= radix[i];
  }
  d.first += by.first + carry;
}

// The place (t0, t1, t2) and the image of a column; columns go through places, and through the images of each.
struct Column { int place[3], image; bool valid; };

__device__ __forceinline__ Column column_of(int column, const Side (&sides)[3], int batch) {
  Column c;
  c.image = column % batch;
  int place = column / batch;
#pragma unroll
  for (int i = 2; i >= 0; i--) { c.place[i] = place % sides[i].count; place /= sides[i].count; }
  c.valid = place == 0;
  return c;
}

// Where a column lies in its channel of a result (C, *S, N).
__device__ __forceinline__ int address_of(const Column& c, const Side (&sides)[3], const int (&size)[3], int batch) {
  int at = 0;
#pragma unroll
  for (int i = 0; i < 3; i++) at = at * size[i] + sides[i].first + c.place[i] * sides[i].step;
  return at * batch + c.image;
}

// max(v, 0) that keeps NaN.
__device__ __forceinline__ float rectified(float v) { return v < 0 ? 0.0f : v; }
__device__ __forceinline__ float masked(float v, float y) { return y > 0 ? v : 0.0f; }
__device__ __forceinline__ float4 masked(float4 v, float4 y) {
  return make_float4(masked(v.x, y.x), masked(v.y, y.y), masked(v.z, y.z), masked(v.w, y.w));
}

// Partial sums of the gradients of weights and biases, added in order by `blocks` blocks of this grid.
__device__ __forceinline__ void add_parts(int block, const Parts& parts, const float* partial, float* w_grad,
                                          float* bias_grad) {
  for (int i = block * blockDim.x + threadIdx.x; i < parts.weights + parts.biases; i += parts.blocks * blockDim.x) {
    float sum = 0;
    for (int part = 0; part < parts.count; part++) sum += partial[(long long)part * parts.step + i];
    if (i < parts.weights) w_grad[i] = sum; else bias_grad[i - parts.weights] = sum;
  }
}
