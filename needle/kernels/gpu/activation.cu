// Gradients of activations.

// grad where y is positive, else 0.
template <int V> __device__ __forceinline__ void where_positive(const float* y, const float* grad, float* result, int size) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * V;
  if (i >= size) return;
  Lanes<V> at = load<V>(y + i), here = load<V>(grad + i);
  for (int v = 0; v < V; v++) here.v[v] = at.v[v] > 0 ? here.v[v] : 0.0f;
  store<V>(result + i, here);
}
#define WHERE_POSITIVE const float *y, const float *grad, float *result, int size
extern "C" __global__ void where_positive_1(WHERE_POSITIVE) { where_positive<1>(y, grad, result, size); }
extern "C" __global__ void where_positive_4(WHERE_POSITIVE) { where_positive<4>(y, grad, result, size); }
