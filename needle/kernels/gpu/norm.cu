// Normalization of rows (R, M) in one launch forward and one backward.
#include "norm_rows.cu"

// x -> y, and the mean and variance of each row; see `normalize_row`.
template <int V>
__device__ __forceinline__ void standardize(const float* x, const float* weight, const float* bias, float* y, double* mean,
                                            double* variance, const Running& running, const Affine& affine, int m,
                                            double eps, int relu, double (*scratch)[2]) {
  int row = blockIdx.x;
  x += (long long)row * m, y += (long long)row * m;
  float near;
  double rest, var;
  row_moments<V>(x, m, near, rest, var, scratch);
  double average = near + rest;
  if (threadIdx.x == 0) {
    mean[row] = average, variance[row] = var;
    running.move(row, average, var, m);
  }
  normalize_row<V>(x, weight, bias, y, near, rest, 1 / sqrt(var + eps), affine, m, relu);
}

// grad -> the gradient in x. For a weight for each row, those in weight and bias, too: (R,) each, null if not wanted.
template <int V>
__device__ __forceinline__ void standardize_backward(const float* grad, const float* x, const float* y, const float* weight,
                                                     const double* mean, const double* variance, float* x_grad,
                                                     float* weight_grad, float* bias_grad, const Affine& affine, int m,
                                                     double eps, double (*scratch)[2]) {
  int row = blockIdx.x, entry = row % affine.groups * affine.entries;
  long long base = (long long)row * m;
  double average = mean[row], scale = 1 / sqrt(variance[row] + eps), sum, along;
  float near = (float)average;
  double rest = average - near;
  bool many = affine.entries > 1;
  auto read = [&](int i) {
    Pair<V> pair = read_pair<V>(grad, x, y, base + i, near);
    if (many && weight)
      for (int v = 0; v < V; v++) pair.g.v[v] *= weight[entry + (i + v) / affine.run];
    return pair;
  };
  gradient_sums<V>(m, rest, sum, along, read, scratch);
  if (threadIdx.x == 0 && weight_grad) weight_grad[row] = (float)(along * scale);
  if (threadIdx.x == 0 && bias_grad) bias_grad[row] = (float)sum;
  double factor = scale * (weight && !many ? weight[entry] : 1.0f);
  input_gradient<V>(x_grad + base, m, m, rest, sum, along, scale, factor, read);
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
