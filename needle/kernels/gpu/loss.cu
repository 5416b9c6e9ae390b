// Losses: each makes its value and its gradient together, in one launch. A second one multiplies the gradient later.

#define NO_NUMBER __int_as_float(0x7fc00000)

// Scores of classes at inner · outer positions, and the steps, in elements, to the next position, class and label.
struct Scores {
  int inner, outer, classes;
  long long inner_step, outer_step, class_step, inner_label, outer_label;
};

__device__ __forceinline__ long long label_at(const void* labels, long long at, int bytes) {
  if (bytes == 8) return ((const long long*)labels)[at];
  if (bytes == 4) return ((const int*)labels)[at];
  return ((const unsigned char*)labels)[at];
}

// -log softmax(x)[label], its sum over positions, divided by their number if `mean` and not `apart`; positions with the label `ignored`
// do not count. gradient has the memory order of x and is that of the sum; what it is to be divided by goes to `divisor`.
// A label that is no class makes NaN. L lanes share a position: 1, or the 32 of a warp.
template <int L>
__device__ __forceinline__ void cross_entropy(const float* x, const void* labels, float* gradient, float* loss, float* divisor,
                                              unsigned long long* parts, int* ticket, Scores s, long long ignored, int bytes,
                                              int mean, int apart, Scratch& scratch) {
  double sum = 0, count = 0;
  int positions = s.inner * s.outer, lane = threadIdx.x % L;
  for (int i = (blockIdx.x * blockDim.x + threadIdx.x) / L; i < positions; i += gridDim.x * blockDim.x / L) {
    int inner = i % s.inner, outer = i / s.inner;
    long long at = inner * s.inner_step + outer * s.outer_step;
    long long label = label_at(labels, inner * s.inner_label + outer * s.outer_label, bytes);
    float top = -INFINITY, total = 0;
    for (int c = lane; c < s.classes; c += L) top = fmaxf(top, x[at + c * s.class_step]);
    if (L > 1)
      for (int step = 16; step; step >>= 1) top = fmaxf(top, __shfl_xor_sync(FULL, top, step));
    for (int c = lane; c < s.classes; c += L) total += expf(x[at + c * s.class_step] - top);
    if (L > 1) total = warp_sum(total);
    bool kept = label != ignored, known = 0 <= label && label < s.classes;
    for (int c = lane; c < s.classes; c += L) {
      float p = expf(x[at + c * s.class_step] - top) / total - (c == label);
      gradient[at + c * s.class_step] = !kept ? 0.0f : known ? p : NO_NUMBER;
    }
    if (kept && lane == 0) {
      sum += known ? logf(total) - (x[at + label * s.class_step] - top) : NO_NUMBER;
      count += 1;
    }
  }
  if (!grid_sums(sum, count, scratch, parts, ticket)) return;
  *divisor = mean ? (float)count : 1.0f;
  *loss = (float)(mean && !apart ? sum / count : sum);
}
#define CROSS_ENTROPY                                                                                                  \
  const float *x, const void *labels, float *gradient, float *loss, float *divisor, unsigned long long *parts,         \
      int *ticket, Scores s, long long ignored, int bytes, int mean, int apart
extern "C" __global__ void cross_entropy_1(CROSS_ENTROPY) {
  __shared__ Scratch scratch;
  cross_entropy<1>(x, labels, gradient, loss, divisor, parts, ticket, s, ignored, bytes, mean, apart, scratch);
}
extern "C" __global__ void cross_entropy_32(CROSS_ENTROPY) {
  __shared__ Scratch scratch;
  cross_entropy<32>(x, labels, gradient, loss, divisor, parts, ticket, s, ignored, bytes, mean, apart, scratch);
}

// (x - target)², its sum divided by `divisor`; d = x - target.
template <int V>
__device__ __forceinline__ void squared_error(const float* x, const float* target, float* d, float* loss,
                                              unsigned long long* parts, int* ticket, int size, double divisor,
                                              Scratch& scratch) {
  double sum = 0, none = 0;
  for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * V; i < size; i += gridDim.x * blockDim.x * V) {
    Lanes<V> a = load<V>(x + i), b = load<V>(target + i);
    float squares = 0;
    for (int v = 0; v < V; v++) a.v[v] -= b.v[v], squares += a.v[v] * a.v[v];
    store<V>(d + i, a);
    sum += squares;
  }
  if (grid_sums(sum, none, scratch, parts, ticket)) *loss = (float)(sum / divisor);
}
#define SQUARED_ERROR                                                                                                  \
  const float *x, const float *target, float *d, float *loss, unsigned long long *parts, int *ticket, int size,        \
      double divisor
extern "C" __global__ void squared_error_1(SQUARED_ERROR) {
  __shared__ Scratch scratch;
  squared_error<1>(x, target, d, loss, parts, ticket, size, divisor, scratch);
}
extern "C" __global__ void squared_error_4(SQUARED_ERROR) {
  __shared__ Scratch scratch;
  squared_error<4>(x, target, d, loss, parts, ticket, size, divisor, scratch);
}

// y = gradient · (out_grad · factor / divisor), the last of one number each; 0 where the divisor is, as in a mean of
// nothing; a divisor of 1 may be null.
template <int V>
__device__ __forceinline__ void scaled(const float* gradient, const float* out_grad, const float* divisor, float* y,
                                       int size, float factor) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= size) return;
  float by = *out_grad * factor, over = divisor ? *divisor : 1.0f;
  by = over ? by / over : 0.0f;
  Lanes<V> here = load<V>(gradient + i);
  for (int v = 0; v < V; v++) here.v[v] *= by;
  store<V>(y + i, here);
}
#define SCALED const float *gradient, const float *out_grad, const float *divisor, float *y, int size, float factor
extern "C" __global__ void scaled_1(SCALED) { scaled<1>(gradient, out_grad, divisor, y, size, factor); }
extern "C" __global__ void scaled_4(SCALED) { scaled<4>(gradient, out_grad, divisor, y, size, factor); }
