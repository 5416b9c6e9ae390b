// Normalization of rows (R, M), each by its own mean and variance: a block for each row.
//
// Sums are taken in float32 over at most 16 elements and beyond that in float64. The variance is that of the deviations
// from a float32 close to the mean, which is exact however far from zero the mean is; then it is corrected for the rest:
// Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance" (1983), equation 1.7.

// Two sums over a row: add(read(i), a, b) adds what the V elements from i on give. Four reads are under way at a time.
template <int V, class Read, class Add>
__device__ __forceinline__ void row_sums(int m, double& a, double& b, Read read, Add add) {
  int i = threadIdx.x * V, step = blockDim.x * V;
  a = b = 0;
  for (; i + 3 * step < m; i += 4 * step) {
    auto first = read(i), second = read(i + step), third = read(i + 2 * step), fourth = read(i + 3 * step);
    float s = 0, t = 0;
    add(first, s, t), add(second, s, t), add(third, s, t), add(fourth, s, t);
    a += s, b += t;
  }
  for (; i < m; i += step) {
    float s = 0, t = 0;
    add(read(i), s, t);
    a += s, b += t;
  }
}

// Which entry of weight and bias belongs to element i of a row: row % groups · entries + i / run.
struct Affine {
  int groups, entries, run;
};

// Where the running statistics are, null if there are none, and how they move: by momentum, the variance times correction.
struct Running {
  float *mean, *variance;
  long long* counter;
  double momentum, correction;
};

// x -> y = (x - mean) / sqrt(variance + eps) · weight + bias, max(y, 0) if relu. Weight, bias may be null.
template <int V>
__device__ __forceinline__ void standardize(const float* x, const float* weight, const float* bias, float* y, double* mean,
                                            double* variance, Running running, Affine affine, int m, double eps, int relu,
                                            double (*scratch)[2]) {
  int row = blockIdx.x;
  x += (long long)row * m, y += (long long)row * m;
  auto read = [&](int i) { return load<V>(x + i); };
  double sum, squares;
  float first = *x, near;  // elements that are all equal give exact zeros
  row_sums<V>(m, sum, squares, read, [&](const Lanes<V>& here, float& s, float& t) {
    for (int v = 0; v < V; v++) s += here.v[v] - first;
  });
  block_sums(sum, squares, scratch);
  near = (float)(first + sum / m);
  row_sums<V>(m, sum, squares, read, [&](const Lanes<V>& here, float& s, float& t) {
    for (int v = 0; v < V; v++) {
      float d = here.v[v] - near;
      s += d, t += d * d;
    }
  });
  block_sums(sum, squares, scratch);
  double rest = sum / m, average = near + rest, var = squares / m - rest * rest;
  if (var < 0) var = 0;
  if (threadIdx.x == 0) {
    mean[row] = average, variance[row] = var;
    if (running.mean) {
      running.mean[row] = (float)(running.mean[row] * (1 - running.momentum) + average * running.momentum);
      running.variance[row] = (float)(running.variance[row] * (1 - running.momentum) + var * running.correction);
      if (running.counter && row == 0) ++*running.counter;
    }
  }
  double scale = 1 / sqrt(var + eps);
  int entry = row % affine.groups * affine.entries;
  float w = weight ? weight[entry] : 1.0f, b = bias ? bias[entry] : 0.0f;
  float slope = (float)(scale * w), offset = (float)(b - rest * scale * w);
  for (int i = threadIdx.x * V; i < m; i += blockDim.x * V) {
    Lanes<V> here = read(i);
    for (int v = 0; v < V; v++) {
      float d = here.v[v] - near;
      if (affine.entries > 1) {
        int at = entry + (i + v) / affine.run;
        d = d * (float)scale - (float)(rest * scale);
        d = d * (weight ? weight[at] : 1.0f) + (bias ? bias[at] : 0.0f);
      } else {
        d = d * slope + offset;
      }
      here.v[v] = relu && d <= 0 ? 0.0f : d;  // NaN stays
    }
    store<V>(y + i, here);
  }
}

// grad -> the gradient in x. For a weight for each row, those in weight and bias, too: (R,) each, null if not wanted.
// y is the result of a rectified normalization, which masks grad; else null.
template <int V>
__device__ __forceinline__ void standardize_backward(const float* grad, const float* x, const float* y, const float* weight,
                                                     const double* mean, const double* variance, float* x_grad,
                                                     float* weight_grad, float* bias_grad, Affine affine, int m, double eps,
                                                     double (*scratch)[2]) {
  struct Pair { Lanes<V> g, d; };
  int row = blockIdx.x, entry = row % affine.groups * affine.entries;
  long long base = (long long)row * m;
  double average = mean[row], scale = 1 / sqrt(variance[row] + eps), sum, along;
  float near = (float)average;
  double rest = average - near;
  bool many = affine.entries > 1;
  auto read = [&](int i) {
    Pair pair{load<V>(grad + base + i), load<V>(x + base + i)};
    Lanes<V> result;
    if (y) result = load<V>(y + base + i);
    for (int v = 0; v < V; v++) {
      pair.d.v[v] -= near;
      if (y && !(result.v[v] > 0)) pair.g.v[v] = 0;
      if (many && weight) pair.g.v[v] *= weight[entry + (i + v) / affine.run];
    }
    return pair;
  };
  row_sums<V>(m, sum, along, read, [&](const Pair& pair, float& s, float& t) {
    for (int v = 0; v < V; v++) s += pair.g.v[v], t += pair.g.v[v] * pair.d.v[v];
  });
  block_sums(sum, along, scratch);
  along -= rest * sum;
  if (threadIdx.x == 0 && weight_grad) weight_grad[row] = (float)(along * scale);
  if (threadIdx.x == 0 && bias_grad) bias_grad[row] = (float)sum;
  double slope = along * scale * scale / m, factor = scale * (weight && !many ? weight[entry] : 1.0f);
  float by_grad = (float)factor, by_x = (float)(-slope * factor), offset = (float)((rest * slope - sum / m) * factor);
  for (int i = threadIdx.x * V; i < m; i += blockDim.x * V) {
    Pair pair = read(i);
    for (int v = 0; v < V; v++) pair.g.v[v] = pair.g.v[v] * by_grad + (pair.d.v[v] * by_x + offset);
    store<V>(x_grad + base + i, pair.g);
  }
}

// The gradients in a weight (M,) and a bias (M,) that vary along the rows; either may be null. Blocks of 32 columns.
#define LINES 8
extern "C" __global__ void column_gradients(const float* grad, const float* x, const double* mean, const double* variance,
                                            float* weight_grad, float* bias_grad, int rows, int m, double eps) {
  __shared__ double scratch[LINES][32][2];
  int column = blockIdx.x * 32 + threadIdx.x;
  double sum = 0, along = 0;
  if (column < m)
    for (int row = threadIdx.y; row < rows; row += LINES) {
      float g = grad[(long long)row * m + column], d = (float)(x[(long long)row * m + column] - mean[row]);
      sum += g, along += g * d * (float)rsqrt(variance[row] + eps);
    }
  scratch[threadIdx.y][threadIdx.x][0] = sum, scratch[threadIdx.y][threadIdx.x][1] = along;
  __syncthreads();
  if (threadIdx.y || column >= m) return;
  for (int line = 1; line < LINES; line++) sum += scratch[line][threadIdx.x][0], along += scratch[line][threadIdx.x][1];
  if (weight_grad) weight_grad[column] = (float)along;
  if (bias_grad) bias_grad[column] = (float)sum;
}

#define FORWARD                                                                                                        \
  const float *x, const float *weight, const float *bias, float *y, double *mean, double *variance, Running running,    \
      Affine affine, int m, double eps, int relu
#define BACKWARD                                                                                                       \
  const float *grad, const float *x, const float *y, const float *weight, const double *mean, const double *variance,   \
      float *x_grad, float *weight_grad, float *bias_grad, Affine affine, int m, double eps

extern "C" __global__ void __launch_bounds__(512) standardize_1(FORWARD) {
  __shared__ double scratch[32][2];
  standardize<1>(x, weight, bias, y, mean, variance, running, affine, m, eps, relu, scratch);
}
extern "C" __global__ void __launch_bounds__(512) standardize_4(FORWARD) {
  __shared__ double scratch[32][2];
  standardize<4>(x, weight, bias, y, mean, variance, running, affine, m, eps, relu, scratch);
}
extern "C" __global__ void __launch_bounds__(512) standardize_backward_1(BACKWARD) {
  __shared__ double scratch[32][2];
  standardize_backward<1>(grad, x, y, weight, mean, variance, x_grad, weight_grad, bias_grad, affine, m, eps, scratch);
}
extern "C" __global__ void __launch_bounds__(512) standardize_backward_4(BACKWARD) {
  __shared__ double scratch[32][2];
  standardize_backward<4>(grad, x, y, weight, mean, variance, x_grad, weight_grad, bias_grad, affine, m, eps, scratch);
}
