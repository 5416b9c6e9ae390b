// What all sources share. Arrays lie in memory as (C, *S, N): a warp is a run of images, so its accesses lie side by
// side, and a test for padding has one result for all of its lanes. Read by NVRTC, and by a C++ compiler through
// tests/gpu/shim. Kernels are `extern "C"`; their shared memory has fixed sizes.

#define FULL 0xffffffffu
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

// A window over at most three spatial axes; the axes that lack come first, with sizes 1.
struct Window {
  int size[3], kernel[3], output[3], stride[3], padding[3], dilation[3];
};

// The place of number i among (C, *sides, N / V): channel, position, and the first of V images.
struct Place {
  int c, at[3], n;
};
template <int V> __device__ __forceinline__ Place place_of(int i, const int (&sides)[3], int batch) {
  Place place;
  int lanes = batch / V;
  place.n = i % lanes * V, i /= lanes;
  for (int axis = 2; axis >= 0; axis--) place.at[axis] = i % sides[axis], i /= sides[axis];
  place.c = i;
  return place;
}

// The offset of a place in an array (C, *sides, N).
__device__ __forceinline__ int offset(const int (&sides)[3], const Place& place, int batch) {
  int row = ((place.c * sides[0] + place.at[0]) * sides[1] + place.at[1]) * sides[2] + place.at[2];
  return row * batch + place.n;
}

// Whether tap k of a window of y reads `at` of x along an axis, and of which window.
__device__ __forceinline__ bool reads(const Window& w, int axis, int at, int k, int& p) {
  int start = at + w.padding[axis] - k * w.dilation[axis];
  p = start / w.stride[axis];
  return start >= 0 && start == p * w.stride[axis] && p < w.output[axis];
}

// V images of one place, one access of 4·V bytes in memory; V is 1 or 4.
template <int V> struct Lanes {
  float v[V];
};
template <int V> __device__ __forceinline__ Lanes<V> load(const float* p) {
  Lanes<V> lanes;
  if constexpr (V == 4) {
    float4 whole = *(const float4*)p;
    lanes.v[0] = whole.x, lanes.v[1] = whole.y, lanes.v[2] = whole.z, lanes.v[3] = whole.w;
  } else {
    lanes.v[0] = *p;
  }
  return lanes;
}
template <int V> __device__ __forceinline__ void store(float* p, const Lanes<V>& lanes) {
  if constexpr (V == 4)
    *(float4*)p = make_float4(lanes.v[0], lanes.v[1], lanes.v[2], lanes.v[3]);
  else
    *p = lanes.v[0];
}

// The sum of v over a warp, in all of its lanes.
__device__ __forceinline__ float warp_sum(float v) {
  for (int step = 16; step; step >>= 1) v += __shfl_xor_sync(FULL, v, step);
  return v;
}

// The sum of v over a block of whole warps, in all of its threads; `scratch` is shared memory, a float for each warp.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
  int warps = blockDim.x >> 5, lane = threadIdx.x & 31;
  v = warp_sum(v);
  __syncthreads();  // the sum before may still be read
  if (lane == 0) scratch[threadIdx.x >> 5] = v;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

__device__ __forceinline__ double warp_sum(double v) {
  for (int step = 16; step; step >>= 1) v += __shfl_xor_sync(FULL, v, step);
  return v;
}

// The sums of a and of b over a block of whole warps, in all of its threads; `scratch` is shared memory, a pair for each
// warp.
__device__ __forceinline__ void block_sums(double& a, double& b, double (*scratch)[2]) {
  int warps = blockDim.x >> 5, lane = threadIdx.x & 31;
  a = warp_sum(a), b = warp_sum(b);
  __syncthreads();  // the sums before may still be read
  if (lane == 0) scratch[threadIdx.x >> 5][0] = a, scratch[threadIdx.x >> 5][1] = b;
  __syncthreads();
  a = warp_sum(lane < warps ? scratch[lane][0] : 0.0), b = warp_sum(lane < warps ? scratch[lane][1] : 0.0);
}

// Shared memory of a block that takes part in sums over all blocks.
struct Scratch {
  double sums[32][2];
  int last;
};

// The sums of a and of b over all blocks, in the first thread of the last of them to come here, which alone gets true; in
// the same order each time. `parts` has two entries for each block, `ticket` is 0 before and after. All threads call it.
__device__ __forceinline__ bool grid_sums(double& a, double& b, Scratch& scratch, unsigned long long* parts, int* ticket) {
  int blocks = gridDim.x;
  block_sums(a, b, scratch.sums);
  if (blocks == 1) return threadIdx.x == 0;
  if (threadIdx.x == 0) {
    atomicExch(parts + 2 * blockIdx.x, (unsigned long long)__double_as_longlong(a));
    atomicExch(parts + 2 * blockIdx.x + 1, (unsigned long long)__double_as_longlong(b));
    __threadfence();
    scratch.last = atomicAdd(ticket, 1) == blocks - 1;
  }
  __syncthreads();
  if (!scratch.last) return false;
  __threadfence();
  a = b = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) {  // atomics, since other blocks wrote them
    a += __longlong_as_double((long long)atomicAdd(parts + 2 * i, 0ull));
    b += __longlong_as_double((long long)atomicAdd(parts + 2 * i + 1, 0ull));
  }
  block_sums(a, b, scratch.sums);
  if (threadIdx.x) return false;
  atomicExch(ticket, 0);
  return true;
}
