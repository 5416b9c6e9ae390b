// Maxima and sums over windows, and their transposes as gathers: each thread computes V images at one place of its
// result in a fixed order, without atomics. Arrays are x (C, *S, N) and y (C, *P, N).

// Calls visit(tap, offset in x) for the taps of the window at `place` of y that do not read padding, in row-major
// order.
template <class F> __device__ __forceinline__ void each_tap(const Window& w, const Place& place, int batch, F visit) {
  int start[3];
  for (int axis = 0; axis < 3; axis++) start[axis] = place.at[axis] * w.stride[axis] - w.padding[axis];
  for (int k0 = 0, s0 = start[0]; k0 < w.kernel[0]; k0++, s0 += w.dilation[0]) {
    if (s0 < 0 || s0 >= w.size[0]) continue;
    for (int k1 = 0, s1 = start[1]; k1 < w.kernel[1]; k1++, s1 += w.dilation[1]) {
      if (s1 < 0 || s1 >= w.size[1]) continue;
      for (int k2 = 0, s2 = start[2]; k2 < w.kernel[2]; k2++, s2 += w.dilation[2]) {
        if (s2 < 0 || s2 >= w.size[2]) continue;
        visit((k0 * w.kernel[1] + k1) * w.kernel[2] + k2,
              offset(w.size, Place{place.c, {s0, s1, s2}, place.n}, batch));
      }
    }
  }
}

// Calls visit(tap, window's place in y) for the windows that read `place` of x, by ascending taps.
template <class F> __device__ __forceinline__ void each_window(const Window& w, const Place& place, F visit) {
  Place window = place;
  for (int k0 = 0; k0 < w.kernel[0]; k0++) {
    if (!reads(w, 0, place.at[0], k0, window.at[0])) continue;
    for (int k1 = 0; k1 < w.kernel[1]; k1++) {
      if (!reads(w, 1, place.at[1], k1, window.at[1])) continue;
      for (int k2 = 0; k2 < w.kernel[2]; k2++) {
        if (!reads(w, 2, place.at[2], k2, window.at[2])) continue;
        visit((k0 * w.kernel[1] + k1) * w.kernel[2] + k2, window);
      }
    }
  }
}

// ---- maxima ---------------------------------------------------------------------------------------------------------

// The maximum of each window, NaN if it holds one.
template <int V> __device__ __forceinline__ void max_pool(const float* x, float* y, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Lanes<V> best;
  for (int v = 0; v < V; v++) best.v[v] = -INFINITY;
  each_tap(w, place_of<V>(i, w.output, batch), batch, [&](int, int at) {
    Lanes<V> here = load<V>(x + at);
    for (int v = 0; v < V; v++)
      if (here.v[v] > best.v[v] || here.v[v] != here.v[v]) best.v[v] = here.v[v];
  });
  store<V>(y + i * V, best);
}

// The tap of a window, of one image, that is its maximum `best`: the first of equal ones, the last of several NaNs.
// And its offset in x.
__device__ __forceinline__ int tap_of_max(const float* x, float best, const Window& w, const Place& window, int batch,
                                          int& at) {
  int found = -1;
  each_tap(w, window, batch, [&](int tap, int here) {
    float value = x[here];
    if (best == best ? value == best && found < 0 : value != value) found = tap, at = here;
  });
  return found;
}

// Each element of x sums the y of the windows whose maximum it is. Only a window whose maximum it equals is searched.
template <int V>
__device__ __forceinline__ void max_pool_back(const float* y, const float* x, const float* best, float* x_grad,
                                              Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Lanes<V> here = load<V>(x + i * V), sum;
  for (int v = 0; v < V; v++) sum.v[v] = 0;
  each_window(w, place_of<V>(i, w.size, batch), [&](int tap, Place window) {
    int at = offset(w.output, window, batch), first = window.n, from;
    Lanes<V> top = load<V>(best + at);
    for (int v = 0; v < V; v++) {
      bool is_equal = here.v[v] == top.v[v] || (here.v[v] != here.v[v] && top.v[v] != top.v[v]);
      window.n = first + v;
      if (is_equal && tap_of_max(x, top.v[v], w, window, batch, from) == tap) sum.v[v] += y[at + v];
    }
  });
  store<V>(x_grad + i * V, sum);
}

// The element of g at each window's maximum in x.
extern "C" __global__ void max_pool_gather(const float* g, const float* x, const float* best, float* y, Window w,
                                           int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, at;
  if (i >= count) return;
  int tap = tap_of_max(x, best[i], w, place_of<1>(i, w.output, batch), batch, at);
  y[i] = tap < 0 ? 0 : g[at];  // a window may read padding only
}

// The row-major index in *S of each window's maximum.
extern "C" __global__ void max_pool_locate(const float* x, const float* best, long long* index, Window w, int count,
                                           int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, at = 0;
  if (i >= count) return;
  Place place = place_of<1>(i, w.output, batch);
  int tap = tap_of_max(x, best[i], w, place, batch, at);
  index[i] = tap < 0 ? 0 : (at - place.n) / batch - place.c * w.size[0] * w.size[1] * w.size[2];
}

// ---- sums -----------------------------------------------------------------------------------------------------------

template <int V> __device__ __forceinline__ void sum_pool(const float* x, float* y, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Lanes<V> sum;
  for (int v = 0; v < V; v++) sum.v[v] = 0;
  each_tap(w, place_of<V>(i, w.output, batch), batch, [&](int, int at) {
    Lanes<V> here = load<V>(x + at);
    for (int v = 0; v < V; v++) sum.v[v] += here.v[v];
  });
  store<V>(y + i * V, sum);
}

// Each element of x sums the y of the windows that read it.
template <int V>
__device__ __forceinline__ void sum_pool_back(const float* y, float* x_grad, Window w, int count, int batch) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  Lanes<V> sum;
  for (int v = 0; v < V; v++) sum.v[v] = 0;
  each_window(w, place_of<V>(i, w.size, batch), [&](int, const Place& p) {
    Lanes<V> term = load<V>(y + offset(w.output, p, batch));
    for (int v = 0; v < V; v++) sum.v[v] += term.v[v];
  });
  store<V>(x_grad + i * V, sum);
}

// ---- kernels of 1 and of 4 images for each thread -------------------------------------------------------------------

extern "C" __global__ void max_pool_1(const float* x, float* y, Window w, int count, int batch) {
  max_pool<1>(x, y, w, count, batch);
}
extern "C" __global__ void max_pool_4(const float* x, float* y, Window w, int count, int batch) {
  max_pool<4>(x, y, w, count, batch);
}
extern "C" __global__ void max_pool_back_1(const float* y, const float* x, const float* best, float* x_grad, Window w,
                                           int count, int batch) {
  max_pool_back<1>(y, x, best, x_grad, w, count, batch);
}
extern "C" __global__ void max_pool_back_4(const float* y, const float* x, const float* best, float* x_grad, Window w,
                                           int count, int batch) {
  max_pool_back<4>(y, x, best, x_grad, w, count, batch);
}
extern "C" __global__ void sum_pool_1(const float* x, float* y, Window w, int count, int batch) {
  sum_pool<1>(x, y, w, count, batch);
}
extern "C" __global__ void sum_pool_4(const float* x, float* y, Window w, int count, int batch) {
  sum_pool<4>(x, y, w, count, batch);
}
extern "C" __global__ void sum_pool_back_1(const float* y, float* x_grad, Window w, int count, int batch) {
  sum_pool_back<1>(y, x_grad, w, count, batch);
}
extern "C" __global__ void sum_pool_back_4(const float* y, float* x_grad, Window w, int count, int batch) {
  sum_pool_back<4>(y, x_grad, w, count, batch);
}
