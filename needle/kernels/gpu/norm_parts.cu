// Normalization of rows (R, M) that are parts of longer ones: each of several ranks has a part of every row. Between the
// two launches of each direction the ranks exchange what the first has written.
#include "norm_rows.cu"
#define MOST 100

// What `part_moments` of each rank has written.
struct Parts {
  const double* each[MOST];
  int count;
};

// The number of elements of a row, the means (R,), and the sums of the squared deviations from them (R,).
template <int V>
__device__ __forceinline__ void part_moments(const float* x, double* part, int m, double (*scratch)[2]) {
  int row = blockIdx.x, rows = gridDim.x;
  float near;
  double rest, var;
  row_moments<V>(x + (long long)row * m, m, near, rest, var, scratch);
  if (threadIdx.x) return;
  if (row == 0) part[0] = m;
  part[1 + row] = near + rest, part[1 + rows + row] = var * m;
}

// x -> y by the mean and variance of whole rows, which are written, too, and the number of elements of one. The parts are
// merged in the order of the ranks: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
// Sample Variances" (1979), equations 1.5a and 1.5b.
template <int V>
__device__ __forceinline__ void standardize_part(const float* x, const float* weight, const float* bias, const Parts& parts,
                                                 float* y, double* mean, double* variance, double* count,
                                                 const Running& running, const Affine& affine, int m, double eps, int relu,
                                                 double (*scratch)[2]) {
  int row = blockIdx.x, rows = gridDim.x;
  if (threadIdx.x == 0) {
    double total = 0, average = 0, squares = 0;
    for (int i = 0; i < parts.count; i++) {
      const double* part = parts.each[i];
      double before = total, difference = part[1 + row] - average;
      total += part[0];
      double share = part[0] / fmax(total, 1.0);  // the first may be empty
      average += difference * share;
      squares = squares + part[1 + rows + row] + difference * difference * (before * share);
    }
    double var = squares / total;
    mean[row] = average, variance[row] = var;
    if (row == 0) *count = total;
    running.move(row, average, var, total);
    scratch[0][0] = average, scratch[0][1] = 1 / sqrt(var + eps);
  }
  __syncthreads();
  double average = scratch[0][0];
  float near = (float)average;
  long long base = (long long)row * m;
  normalize_row<V>(x + base, weight, bias, y + base, near, average - near, scratch[0][1], affine, m, relu);
}

// grad -> the sums (2, R) of grad and of grad · (x - mean) over this part, and what it gives to the gradients in weight
// and bias (R,), null if not wanted. Where y masks grad, `masked` is what remains.
template <int V>
__device__ __forceinline__ void part_gradient_sums(const float* grad, const float* x, const float* y, const double* mean,
                                                   const double* variance, float* masked, double* sums, float* weight_grad,
                                                   float* bias_grad, int m, double eps, double (*scratch)[2]) {
  int row = blockIdx.x, rows = gridDim.x;
  long long base = (long long)row * m;
  double average = mean[row], sum, along;
  float near = (float)average;
  auto read = [&](int i) {
    Pair<V> pair = read_pair<V>(grad, x, y, base + i, near);
    if (y) store<V>(masked + base + i, pair.g);
    return pair;
  };
  gradient_sums<V>(m, average - near, sum, along, read, scratch);
  if (threadIdx.x) return;
  sums[row] = sum, sums[rows + row] = along;
  if (weight_grad) weight_grad[row] = (float)(along / sqrt(variance[row] + eps));
  if (bias_grad) bias_grad[row] = (float)sum;
}

// grad -> the gradient in x, from the sums over whole rows of `count` elements; it may be written over grad.
template <int V>
__device__ __forceinline__ void part_gradient(const float* grad, const float* x, const float* weight, const double* mean,
                                              const double* variance, const double* sums, const double* count,
                                              float* x_grad, const Affine& affine, int m, double eps) {
  int row = blockIdx.x, rows = gridDim.x;
  long long base = (long long)row * m;
  double average = mean[row], scale = 1 / sqrt(variance[row] + eps);
  float near = (float)average;
  double factor = scale * (weight ? weight[row % affine.groups] : 1.0f);
  auto read = [&](int i) { return read_pair<V>(grad, x, nullptr, base + i, near); };
  input_gradient<V>(x_grad + base, m, *count, average - near, sums[row], sums[rows + row], scale, factor, read);
}

#define MOMENTS const float *x, double *part, int m
#define FORWARD                                                                                                        \
  const float *x, const float *weight, const float *bias, const __grid_constant__ Parts parts, float *y, double *mean,  \
      double *variance, double *count, Running running, Affine affine, int m, double eps, int relu
#define SUMS                                                                                                           \
  const float *grad, const float *x, const float *y, const double *mean, const double *variance, float *masked,         \
      double *sums, float *weight_grad, float *bias_grad, int m, double eps
#define BACKWARD                                                                                                       \
  const float *grad, const float *x, const float *weight, const double *mean, const double *variance,                   \
      const double *sums, const double *count, float *x_grad, Affine affine, int m, double eps

extern "C" __global__ void __launch_bounds__(512) part_moments_1(MOMENTS) {
  __shared__ double scratch[32][2];
  part_moments<1>(x, part, m, scratch);
}
extern "C" __global__ void __launch_bounds__(512) part_moments_4(MOMENTS) {
  __shared__ double scratch[32][2];
  part_moments<4>(x, part, m, scratch);
}
extern "C" __global__ void __launch_bounds__(512) standardize_part_1(FORWARD) {
  __shared__ double scratch[1][2];
  standardize_part<1>(x, weight, bias, parts, y, mean, variance, count, running, affine, m, eps, relu, scratch);
}
extern "C" __global__ void __launch_bounds__(512) standardize_part_4(FORWARD) {
  __shared__ double scratch[1][2];
  standardize_part<4>(x, weight, bias, parts, y, mean, variance, count, running, affine, m, eps, relu, scratch);
}
extern "C" __global__ void __launch_bounds__(512) part_gradient_sums_1(SUMS) {
  __shared__ double scratch[32][2];
  part_gradient_sums<1>(grad, x, y, mean, variance, masked, sums, weight_grad, bias_grad, m, eps, scratch);
}
extern "C" __global__ void __launch_bounds__(512) part_gradient_sums_4(SUMS) {
  __shared__ double scratch[32][2];
  part_gradient_sums<4>(grad, x, y, mean, variance, masked, sums, weight_grad, bias_grad, m, eps, scratch);
}
extern "C" __global__ void __launch_bounds__(512) part_gradient_1(BACKWARD) {
  part_gradient<1>(grad, x, weight, mean, variance, sums, count, x_grad, affine, m, eps);
}
extern "C" __global__ void __launch_bounds__(512) part_gradient_4(BACKWARD) {
  part_gradient<4>(grad, x, weight, mean, variance, sums, count, x_grad, affine, m, eps);
}
