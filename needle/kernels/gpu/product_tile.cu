// A tile of a matrix product from shared memory: acc (ROWS, COLS) += aᵀ (ROWS, DEPTH) · b (DEPTH, COLS), by THREADS threads.
// `each(f)` calls f(row, column, values) for every run of WIDTH columns that a thread holds.

#define THREADS 128
#define DEPTH 16
#define GAP 8  // of the rows in shared memory: fragments and stores of weights meet no bank twice

// Where element i of term k lies in its row of shared memory: one warp may store four terms of eight elements at once.
__device__ __forceinline__ int turned(int k, int i) { return i ^ (k >> 2 & 3) * 8; }

// acc (ROWS, COLS) += a · b by the usual units: a thread has ROWS·COLS/512 rows of four columns.
template <int ROWS, int COLS>
struct Plain {
  static constexpr int HEIGHT = ROWS * COLS / (4 * THREADS), LANES = COLS / 4;
  float acc[HEIGHT][4] = {};
  __device__ __forceinline__ void add(const float (*a)[ROWS + GAP], const float (*b)[COLS + GAP]) {
    int row = threadIdx.x / LANES * HEIGHT, column = threadIdx.x % LANES * 4;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      float4 right = *(const float4*)&b[k][turned(k, column)];
#pragma unroll
      for (int i = 0; i < HEIGHT; i += 4) {
        float4 four = *(const float4*)&a[k][turned(k, row + i)];
        float left[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
          acc[i + j][0] += left[j] * right.x; acc[i + j][1] += left[j] * right.y;
          acc[i + j][2] += left[j] * right.z; acc[i + j][3] += left[j] * right.w;
        }
      }
    }
  }
  static constexpr int WIDTH = 4;
  template <class F> __device__ __forceinline__ void each(F f) {
    int row = threadIdx.x / LANES * HEIGHT, column = threadIdx.x % LANES * 4;
#pragma unroll
    for (int i = 0; i < HEIGHT; i++) f(row + i, column, acc[i]);
  }
};

// acc (64, 64) += a · b by the matrix units: four warps of 32x32, each 2x4 products of 16x8.
struct Matrix {
  float acc[2][4][4] = {};
  __device__ __forceinline__ void add(const float (*a)[64 + GAP], const float (*b)[64 + GAP]) {
    int warp = threadIdx.x >> 5, group = threadIdx.x >> 2 & 7, member = threadIdx.x & 3;
    int row = (warp & 1) * 32 + group, column = (warp >> 1) * 32 + group;
#pragma unroll
    for (int k = member; k < DEPTH; k += 8) {
      unsigned left[2][4], right[4][2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        int high = row + 16 * i, low = high + 8;
        left[i][0] = to_tf32(a[k][turned(k, high)]); left[i][1] = to_tf32(a[k][turned(k, low)]);
        left[i][2] = to_tf32(a[k + 4][turned(k + 4, high)]); left[i][3] = to_tf32(a[k + 4][turned(k + 4, low)]);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        right[j][0] = to_tf32(b[k][turned(k, column + 8 * j)]);
        right[j][1] = to_tf32(b[k + 4][turned(k + 4, column + 8 * j)]);
      }
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma(acc[i][j], left[i], right[j]);
    }
  }
  static constexpr int WIDTH = 2;
  template <class F> __device__ __forceinline__ void each(F f) {
    int warp = threadIdx.x >> 5, group = threadIdx.x >> 2 & 7, member = threadIdx.x & 3;
    int row = (warp & 1) * 32 + group, column = (warp >> 1) * 32 + 2 * member;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) f(row + 8 * i, column + 8 * j, &acc[i >> 1][j][2 * (i & 1)]);
  }
};

