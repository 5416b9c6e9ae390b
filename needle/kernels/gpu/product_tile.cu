// A tile of a matrix product from shared memory: acc (ROWS, COLS) += aᵀ (ROWS, DEPTH) · b (DEPTH, COLS), by THREADS threads.
// `each(f)` calls f(row, column, values) for every run of WIDTH columns that a thread holds.

#if defined(__CUDACC__) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
// The matrix units: d (16, 8) += a (16, 8) · b (8, 8) in TF32, spread over a warp as mma.m16n8k8 has it.
__device__ __forceinline__ unsigned to_tf32(float v) {
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(v));
  return rounded;
}
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#define THREADS 128
#define DEPTH 16
#define GAP 8  // of the rows in shared memory: fragments and stores of weights meet no bank twice

// Where element i of term k lies in a row of `SIZE` in shared memory: a warp may store four terms of eight elements at once.
template <int SIZE> __device__ __forceinline__ int turned(int k, int i) { return i ^ (k >> 2 & 3 & (SIZE / 8 - 1)) * 8; }

// acc (ROWS, COLS) += a · b by the usual units: a thread has ROWS·COLS/512 rows of four columns.
template <int ROWS, int COLS>
struct Plain {
  static constexpr int HEIGHT = ROWS * COLS / (4 * THREADS), LANES = COLS / 4;
  float acc[HEIGHT][4] = {};
  __device__ __forceinline__ void add(const float (*a)[ROWS + GAP], const float (*b)[COLS + GAP]) {
    int row = threadIdx.x / LANES * HEIGHT, column = threadIdx.x % LANES * 4;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      float4 right = *(const float4*)&b[k][turned<COLS>(k, column)];
#pragma unroll
      for (int i = 0; i < HEIGHT; i += 4) {
        float4 four = *(const float4*)&a[k][turned<ROWS>(k, row + i)];
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

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
using Matrix = Plain<64, 64>;  // these have no TF32
#else
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
        left[i][0] = to_tf32(a[k][turned<64>(k, high)]); left[i][1] = to_tf32(a[k][turned<64>(k, low)]);
        left[i][2] = to_tf32(a[k + 4][turned<64>(k + 4, high)]); left[i][3] = to_tf32(a[k + 4][turned<64>(k + 4, low)]);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        right[j][0] = to_tf32(b[k][turned<64>(k, column + 8 * j)]);
        right[j][1] = to_tf32(b[k + 4][turned<64>(k + 4, column + 8 * j)]);
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
#endif
