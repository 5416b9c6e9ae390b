// Sigmoid, and gradients of activations from their results y.

template <int V, class F>
__device__ __forceinline__ void each(const float* x, float* result, int size, F f) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= size) return;
  Lanes<V> here = load<V>(x + i);
  for (int v = 0; v < V; v++) here.v[v] = f(here.v[v]);
  store<V>(result + i, here);
}
template <int V, class F>
__device__ __forceinline__ void each(const float* y, const float* grad, float* result, int size, F f) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= size) return;
  Lanes<V> at = load<V>(y + i), here = load<V>(grad + i);
  for (int v = 0; v < V; v++) here.v[v] = f(at.v[v], here.v[v]);
  store<V>(result + i, here);
}

// 1 / (1 + e^-x) from e^-|x|, which cannot overflow.
struct Sigmoid {
  __device__ __forceinline__ float operator()(float x) const {
    float small = expf(-fabsf(x));
    return (x >= 0 ? 1.0f : small) / (small + 1);
  }
};
// grad where y is positive, else 0.
struct WherePositive {
  __device__ __forceinline__ float operator()(float y, float grad) const { return y > 0 ? grad : 0.0f; }
};
struct SigmoidGrad {
  __device__ __forceinline__ float operator()(float y, float grad) const { return (1 - y) * y * grad; }
};
struct TanhGrad {
  __device__ __forceinline__ float operator()(float y, float grad) const { return (1 - y * y) * grad; }
};

#define FORWARD const float *x, float *result, int size
#define BACKWARD const float *y, const float *grad, float *result, int size
extern "C" __global__ void sigmoid_1(FORWARD) { each<1>(x, result, size, Sigmoid()); }
extern "C" __global__ void sigmoid_4(FORWARD) { each<4>(x, result, size, Sigmoid()); }
extern "C" __global__ void where_positive_1(BACKWARD) { each<1>(y, grad, result, size, WherePositive()); }
extern "C" __global__ void where_positive_4(BACKWARD) { each<4>(y, grad, result, size, WherePositive()); }
extern "C" __global__ void sigmoid_grad_1(BACKWARD) { each<1>(y, grad, result, size, SigmoidGrad()); }
extern "C" __global__ void sigmoid_grad_4(BACKWARD) { each<4>(y, grad, result, size, SigmoidGrad()); }
extern "C" __global__ void tanh_grad_1(BACKWARD) { each<1>(y, grad, result, size, TanhGrad()); }
extern "C" __global__ void tanh_grad_4(BACKWARD) { each<4>(y, grad, result, size, TanhGrad()); }
