// Columns of x (C, *S, N), one for each place of a window: (C, *K, *P, N); and their sum, the transpose. Each thread
// computes V images at one place of its result.

// The columns: 0 where a tap reads padding.
template <int V>
__device__ __forceinline__ void unfold(const float* x, float* columns, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Place place = place_of<V>(i, w.output, batch);  // with (c, k0, k1, k2) as its channel
  bool is_inside = true;
  for (int axis = 2; axis >= 0; axis--) {
    int k = place.c % w.kernel[axis], at = place.at[axis] * w.stride[axis] - w.padding[axis] + k * w.dilation[axis];
    place.c /= w.kernel[axis];
    place.at[axis] = at;
    is_inside = is_inside && 0 <= at && at < w.size[axis];
  }
  Lanes<V> value;
  for (int v = 0; v < V; v++) value.v[v] = 0;
  if (is_inside) value = load<V>(x + offset(w.size, place, batch));
  store<V>(columns + i * V, value);
}

// Each element of x sums the columns that it was read into, in the order of the taps.
template <int V> __device__ __forceinline__ void fold(const float* columns, float* x, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Place place = place_of<V>(i, w.size, batch), read = place;
  Lanes<V> sum;
  for (int v = 0; v < V; v++) sum.v[v] = 0;
  for (int k0 = 0; k0 < w.kernel[0]; k0++) {
    if (!reads(w, 0, place.at[0], k0, read.at[0])) continue;
    for (int k1 = 0; k1 < w.kernel[1]; k1++) {
      if (!reads(w, 1, place.at[1], k1, read.at[1])) continue;
      for (int k2 = 0; k2 < w.kernel[2]; k2++) {
        if (!reads(w, 2, place.at[2], k2, read.at[2])) continue;
        read.c = ((place.c * w.kernel[0] + k0) * w.kernel[1] + k1) * w.kernel[2] + k2;
        Lanes<V> term = load<V>(columns + offset(w.output, read, batch));
        for (int v = 0; v < V; v++) sum.v[v] += term.v[v];
      }
    }
  }
  store<V>(x + i * V, sum);
}

extern "C" __global__ void unfold_1(const float* x, float* columns, Window w, int count, int batch) {
  unfold<1>(x, columns, w, count, batch);
}
extern "C" __global__ void unfold_4(const float* x, float* columns, Window w, int count, int batch) {
  unfold<4>(x, columns, w, count, batch);
}
extern "C" __global__ void fold_1(const float* columns, float* x, Window w, int count, int batch) {
  fold<1>(columns, x, w, count, batch);
}
extern "C" __global__ void fold_4(const float* columns, float* x, Window w, int count, int batch) {
  fold<4>(columns, x, w, count, batch);
}
