// Sums of x (A, L, B) over its middle axis, divided by a number: y (A, B). Added up in float64.

// B = 1: a block for each row; or, if there is one row, all blocks together.
template <int V>
__device__ __forceinline__ void sum_rows(const float* x, float* y, unsigned long long* parts, int* ticket, int length,
                                         int shared, double divisor, Scratch& scratch) {
  int row = shared ? 0 : blockIdx.x, first = shared ? blockIdx.x : 0, blocks = shared ? gridDim.x : 1;
  double sum = 0, none = 0;
  for (int i = (first * blockDim.x + threadIdx.x) * V; i < length; i += blocks * blockDim.x * V) {
    Lanes<V> here = load<V>(x + (long long)row * length + i);
    float s = 0;
    for (int v = 0; v < V; v++) s += here.v[v];
    sum += s;
  }
  if (shared) {
    if (grid_sums(sum, none, scratch, parts, ticket)) *y = (float)(sum / divisor);
  } else {
    block_sums(sum, none, scratch.sums);
    if (threadIdx.x == 0) y[row] = (float)(sum / divisor);
  }
}
#define SUM_ROWS                                                                                                       \
  const float *x, float *y, unsigned long long *parts, int *ticket, int length, int shared, double divisor
extern "C" __global__ void sum_rows_1(SUM_ROWS) {
  __shared__ Scratch scratch;
  sum_rows<1>(x, y, parts, ticket, length, shared, divisor, scratch);
}
extern "C" __global__ void sum_rows_4(SUM_ROWS) {
  __shared__ Scratch scratch;
  sum_rows<4>(x, y, parts, ticket, length, shared, divisor, scratch);
}

// B > 1: a block of 32x8 threads for 32 columns of one (L, B).
#define LINES 8
extern "C" __global__ void sum_columns(const float* x, float* y, int length, int columns, double divisor) {
  __shared__ double scratch[LINES][32];
  int tiles = (columns + 31) / 32, a = blockIdx.x / tiles, column = blockIdx.x % tiles * 32 + threadIdx.x;
  const float* from = x + (long long)a * length * columns + column;
  double sum = 0;
  if (column < columns)
    for (int i = threadIdx.y; i < length; i += LINES) sum += from[(long long)i * columns];
  scratch[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || column >= columns) return;
  for (int line = 1; line < LINES; line++) sum += scratch[line][threadIdx.x];
  y[(long long)a * columns + column] = (float)(sum / divisor);
}
