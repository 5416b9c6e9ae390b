// Maxima over windows.

// x (C, *S, N) -> y (C, *P, N), with V images for each thread: the maximum of each window, NaN if it holds one.
template <int V> __device__ __forceinline__ void max_pool(const float* x, float* y, Window w, int channels, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, lanes = batch / V;
  int n = i % lanes, place = i / lanes, c = place, at[3];
  for (int axis = 2; axis >= 0; axis--) at[axis] = c % w.output[axis] * w.stride[axis] - w.padding[axis], c /= w.output[axis];
  if (c >= channels) return;
  Lanes<V> best;
  for (int v = 0; v < V; v++) best.v[v] = -INFINITY;
  for (int k0 = 0, s0 = at[0]; k0 < w.kernel[0]; k0++, s0 += w.dilation[0]) {
    if (s0 < 0 || s0 >= w.size[0]) continue;
    for (int k1 = 0, s1 = at[1]; k1 < w.kernel[1]; k1++, s1 += w.dilation[1]) {
      if (s1 < 0 || s1 >= w.size[1]) continue;
      for (int k2 = 0, s2 = at[2]; k2 < w.kernel[2]; k2++, s2 += w.dilation[2]) {
        if (s2 < 0 || s2 >= w.size[2]) continue;
        Lanes<V> here = load<V>(x + (((c * w.size[0] + s0) * w.size[1] + s1) * w.size[2] + s2) * batch + n * V);
        for (int v = 0; v < V; v++)
          if (here.v[v] > best.v[v] || here.v[v] != here.v[v]) best.v[v] = here.v[v];
      }
    }
  }
  store<V>(y + place * batch + n * V, best);
}
extern "C" __global__ void max_pool_1(const float* x, float* y, Window w, int channels, int batch) {
  max_pool<1>(x, y, w, channels, batch);
}
extern "C" __global__ void max_pool_4(const float* x, float* y, Window w, int channels, int batch) {
  max_pool<4>(x, y, w, channels, batch);
}
