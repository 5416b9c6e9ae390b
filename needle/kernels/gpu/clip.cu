
// Arrays clipped by the L2 norm of all of them: first the sums of squares of their pieces, then every block adds these up, in
// one order, and scales its piece. Arrays lie without gaps; up to MOST in a launch, whose addresses come with the arguments.

#define MOST 100

struct Array {
  const float* values;
  float* clipped;
  int count, first_block;  // blocks are counted over all launches
};
struct Arrays {
  Array each[MOST];
  int count, first_block, piece;  // piece: elements for each block
};

__device__ __forceinline__ const Array& array_of(const Arrays& all, int block) {  // the last that begins at it or before
  int low = 0, high = all.count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (all.each[middle].first_block <= block) low = middle;
    else high = middle - 1;
  }
  return all.each[low];
}

extern "C" __global__ void squares(const __grid_constant__ Arrays all, float* sums) {
  __shared__ float scratch[32];
  int block = all.first_block + blockIdx.x;
  const Array& array = array_of(all, block);
  int start = (block - array.first_block) * all.piece, end = min(array.count, start + all.piece);
  float sum = 0;
  for (int i = start + (int)threadIdx.x; i < end; i += blockDim.x) sum += array.values[i] * array.values[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) sums[block] = sum;
}

extern "C" __global__ void clip(const __grid_constant__ Arrays all, const float* sums, float* norm, int blocks, float most) {
  __shared__ float scratch[32];
  float sum = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += sums[i];
  float length = sqrtf(block_sum(sum, scratch)), scale = most / (length + 1e-6f);
  if (scale > 1) scale = 1;  // NaN stays
  int block = all.first_block + blockIdx.x;
  const Array& array = array_of(all, block);
  int start = (block - array.first_block) * all.piece, end = min(array.count, start + all.piece);
  for (int i = start + (int)threadIdx.x; i < end; i += blockDim.x) array.clipped[i] = array.values[i] * scale;
  if (block == 0 && threadIdx.x == 0) *norm = length;
}
