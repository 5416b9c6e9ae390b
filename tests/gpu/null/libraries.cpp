// The calls of cuBLAS and cuRAND that CuPy and needle make. Matrices are column-major; a product sums in float64,
// since cuBLAS sums in parts, and with TF32 reads 10 bits of mantissa.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "device.h"

using namespace null;

namespace {
enum Type { F32 = 0, F64 = 1, F16 = 2 };                                      // cudaDataType
enum Compute { COMPUTE_16F = 64, COMPUTE_32F = 68, COMPUTE_64F = 70, TF32 = 77 };  // cublasComputeType_t
constexpr int INVALID = 7, UNSUPPORTED = 15;                                  // cublasStatus_t

float rounded(float value) {  // to TF32, ties away from zero
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits = (bits + 0x1000) & 0xffffe000u;
  memcpy(&value, &bits, 4);
  return value;
}

struct Matrix {
  const void* data;
  int type, transposed, leading;
  double at(long row, long column) const {
    if (transposed) std::swap(row, column);
    long place = row + column * leading;
    return type == F64 ? ((const double*)data)[place] : type == F32 ? ((const float*)data)[place] : (float)((const _Float16*)data)[place];
  }
  Matrix offset(long long items) const {
    return {(const char*)data + items * (type == F64 ? 8 : type == F32 ? 4 : 2), type, transposed, leading};
  }
};

template <class Sum>  // c (m, n) = alpha a (m, k) b (k, n) + beta c
void product(int m, int n, int k, Sum alpha, Matrix a, Matrix b, Sum beta, Matrix c, bool tf32) {
  std::vector<Sum> left((size_t)m * k), column(m);
  for (long l = 0; l < k; l++)
    for (long i = 0; i < m; i++) left[l * m + i] = tf32 ? rounded(a.at(i, l)) : a.at(i, l);
  for (long j = 0; j < n; j++) {
    std::fill(column.begin(), column.end(), Sum(0));
    for (long l = 0; l < k; l++) {
      Sum factor = tf32 ? rounded(b.at(l, j)) : b.at(l, j);
      const Sum* from = &left[l * m];
      for (long i = 0; i < m; i++) column[i] += factor * from[i];
    }
    for (long i = 0; i < m; i++) {
      long place = i + j * c.leading;
      Sum value = alpha * column[i] + (beta == 0 ? Sum(0) : beta * Sum(c.at(i, j)));
      if (c.type == F64) ((double*)c.data)[place] = value;
      else if (c.type == F32) ((float*)c.data)[place] = value;
      else ((_Float16*)c.data)[place] = (_Float16)value;
    }
  }
}

struct Handle {
  void* stream;
  int mode;  // of pointers: 0 on the host, 1 on the device
};

double scalar(const void* value, int compute) {
  return compute == COMPUTE_64F ? *(const double*)value : compute == COMPUTE_16F ? (double)*(const _Float16*)value : *(const float*)value;
}

int multiply(void* handle, const char* name, int ta, int tb, int m, int n, int k, const void* alpha, Matrix a, long long step_a,
             Matrix b, long long step_b, const void* beta, Matrix c, long long step_c, int batch, int compute) {
  LOCKED;
  for (int type : {a.type, b.type, c.type})
    if (type != F32 && type != F64 && type != F16) return UNSUPPORTED;
  if (compute != COMPUTE_16F && compute != COMPUTE_32F && compute != COMPUTE_64F && compute != TF32) return UNSUPPORTED;
  if (a.leading < std::max(1, ta ? k : m) || b.leading < std::max(1, tb ? n : k) || c.leading < std::max(1, m)) return INVALID;
  a.transposed = ta, b.transposed = tb;
  double by = scalar(alpha, compute), plus = scalar(beta, compute);
  std::string what = std::string(name) + " " + (ta ? 'T' : 'N') + (tb ? 'T' : 'N') + " " + std::to_string(m) + "x" + std::to_string(n) +
                     "x" + std::to_string(k) + " by " + std::to_string(batch) + (compute == TF32 ? " tf32" : "");
  return submit(((Handle*)handle)->stream, "gemm", what, [=] {
    if (idle) return;
    for (long i = 0; i < batch; i++) {
      Matrix left = a.offset(i * step_a), right = b.offset(i * step_b), out = c.offset(i * step_c);
      product<double>(m, n, k, by, left, right, plus, out, compute == TF32);
    }
  });
}

template <class T>
int batched(void* handle, int type, int compute, int ta, int tb, int m, int n, int k, const T* alpha, const T* const* a, int lda,
            const T* const* b, int ldb, const T* beta, T* const* c, int ldc, int batch) {  // arrays of pointers, on the device
  LOCKED;
  T by = *alpha, plus = *beta;
  return submit(((Handle*)handle)->stream, "gemm", "batched by pointers", [=] {
    for (int i = 0; i < batch && !idle; i++)
      product<T>(m, n, k, by, {a[i], type, ta, lda}, {b[i], type, tb, ldb}, plus, {c[i], type, 0, ldc}, false);
  });
}

template <class T>
int dot(void* handle, int n, const T* x, int step_x, const T* y, int step_y, T* result) {
  LOCKED;
  return submit(((Handle*)handle)->stream, "gemm", "dot", [=] {
    T sum = 0;
    for (long i = 0; i < n && !idle; i++) sum += x[i * step_x] * y[i * step_y];
    *result = sum;
  });
}

struct Generator {
  void* stream;
  std::mt19937_64 bits;
};

template <class T, class Draw>
int draw(void* handle, const char* name, T* to, size_t count, Draw next) {
  LOCKED;
  auto* generator = (Generator*)handle;
  return submit(generator->stream, "random", name, [=]() mutable {
    for (size_t i = 0; i < count && !idle; i++) to[i] = next(generator->bits);
  });
}
}  // namespace

extern "C" {
int cublasCreate_v2(void** handle) { *handle = new Handle{nullptr, 0}; return 0; }
int cublasDestroy_v2(void* handle) { delete (Handle*)handle; return 0; }
int cublasSetStream_v2(void* handle, void* stream) { ((Handle*)handle)->stream = stream; return 0; }
int cublasGetStream_v2(void* handle, void** stream) { *stream = ((Handle*)handle)->stream; return 0; }
int cublasSetWorkspace_v2(void*, void*, size_t) { LOCKED; note("workspace"); return 0; }
int cublasGetVersion_v2(void*, int* version) { *version = 130000; return 0; }
int cublasSetPointerMode_v2(void* handle, int mode) { ((Handle*)handle)->mode = mode; return 0; }
int cublasGetPointerMode_v2(void* handle, int* mode) { *mode = ((Handle*)handle)->mode; return 0; }
int cublasSetMathMode(void*, int) { return 0; }
int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
int cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
                 const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute, int) {
  return multiply(handle, "gemm", ta, tb, m, n, k, alpha, {a, type_a, 0, lda}, 0, {b, type_b, 0, ldb}, 0, beta, {c, type_c, 0, ldc}, 0, 1, compute);
}
int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int type_a,
                               int lda, long long step_a, const void* b, int type_b, int ldb, long long step_b, const void* beta,
                               void* c, int type_c, int ldc, long long step_c, int batch, int compute, int) {
  return multiply(handle, "gemmStrided", ta, tb, m, n, k, alpha, {a, type_a, 0, lda}, step_a, {b, type_b, 0, ldb}, step_b, beta, {c, type_c, 0, ldc}, step_c, batch, compute);
}
int cublasSgemm_v2(void* handle, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta, float* c, int ldc) {
  return multiply(handle, "sgemm", ta, tb, m, n, k, alpha, {a, F32, 0, lda}, 0, {b, F32, 0, ldb}, 0, beta, {c, F32, 0, ldc}, 0, 1, COMPUTE_32F);
}
int cublasDgemm_v2(void* handle, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda, const double* b, int ldb, const double* beta, double* c, int ldc) {
  return multiply(handle, "dgemm", ta, tb, m, n, k, alpha, {a, F64, 0, lda}, 0, {b, F64, 0, ldb}, 0, beta, {c, F64, 0, ldc}, 0, 1, COMPUTE_64F);
}
int cublasSgemmBatched(void* handle, int ta, int tb, int m, int n, int k, const float* alpha, const float* const* a, int lda, const float* const* b, int ldb, const float* beta, float* const* c, int ldc, int batch) {
  return batched<float>(handle, F32, COMPUTE_32F, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, batch);
}
int cublasDgemmBatched(void* handle, int ta, int tb, int m, int n, int k, const double* alpha, const double* const* a, int lda, const double* const* b, int ldb, const double* beta, double* const* c, int ldc, int batch) {
  return batched<double>(handle, F64, COMPUTE_64F, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, batch);
}
int cublasSdot_v2(void* handle, int n, const float* x, int step_x, const float* y, int step_y, float* result) { return dot(handle, n, x, step_x, y, step_y, result); }
int cublasDdot_v2(void* handle, int n, const double* x, int step_x, const double* y, int step_y, double* result) { return dot(handle, n, x, step_x, y, step_y, result); }

int curandCreateGenerator(void** generator, int) {
  LOCKED;
  if (int code = refuse_unsafe("curandCreateGenerator")) return code;
  *generator = new Generator{nullptr, std::mt19937_64(0)};
  return 0;
}
int curandDestroyGenerator(void* generator) { LOCKED; drain_all(); delete (Generator*)generator; return 0; }
int curandGetVersion(int* version) { *version = 10400; return 0; }
int curandSetStream(void* generator, void* stream) { ((Generator*)generator)->stream = stream; return 0; }
int curandSetPseudoRandomGeneratorSeed(void* handle, unsigned long long seed) {
  LOCKED;
  auto* generator = (Generator*)handle;
  return submit(generator->stream, "seed", "", [=] { generator->bits.seed(seed); }, false);
}
int curandSetGeneratorOffset(void*, unsigned long long) { return 0; }
int curandSetGeneratorOrdering(void*, int) { return 0; }
int curandGenerate(void* generator, unsigned* to, size_t count) {
  return draw(generator, "bits", to, count, [](std::mt19937_64& bits) { return (unsigned)(bits() >> 32); });
}
int curandGenerateUniform(void* generator, float* to, size_t count) {  // in (0, 1]
  return draw(generator, "uniform", to, count, [](std::mt19937_64& bits) { return ((bits() >> 40) + 1) / 16777216.0f; });
}
int curandGenerateUniformDouble(void* generator, double* to, size_t count) {
  return draw(generator, "uniform", to, count, [](std::mt19937_64& bits) { return ((bits() >> 11) + 1) / 9007199254740992.0; });
}
int curandGenerateNormal(void* generator, float* to, size_t count, float mean, float deviation) {
  return draw(generator, "normal", to, count, std::bind(std::normal_distribution<float>(mean, deviation), std::placeholders::_1));
}
int curandGenerateNormalDouble(void* generator, double* to, size_t count, double mean, double deviation) {
  return draw(generator, "normal", to, count, std::bind(std::normal_distribution<double>(mean, deviation), std::placeholders::_1));
}
}
