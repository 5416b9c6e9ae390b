
// Random numbers by key and place: Philox 4x32-10. Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2,
// 3" (2011). A key and a counter of 128 bits give four numbers of 32 bits, so that no number needs the ones before it.

__device__ __forceinline__ uint4 philox(uint4 counter, uint2 key) {
  for (int round = 0; round < 10; round++) {
    unsigned high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    unsigned high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u, key.y += 0xBB67AE85u;
  }
  return counter;
}

// A key of this launch, or if it is recorded, from memory that each replay fills.
struct Key {
  const unsigned* cell;
  unsigned words[2];
};
__device__ __forceinline__ uint2 key_of(const Key& key) {
  return make_uint2(key.cell ? key.cell[0] : key.words[0], key.cell ? key.cell[1] : key.words[1]);
}

// Element i of the result lies in memory in its order; its digits to the base of sizes times strides say where it lies in x,
// and times places which number is its own. The first digit has no bound.
struct Walk {
  int count, axes, start, sizes[5], strides[6], places[6];
};

// x / share if its number is at most `most`, else 0·x.
__device__ __forceinline__ float dropped(float x, unsigned number, unsigned most, float share) {
  return number <= most ? x / share : x * 0;
}

// Four elements for each thread, which lie side by side in x, y and the numbers.
extern "C" __global__ void drop_4(const float* x, float* y, const __grid_constant__ Walk walk, const __grid_constant__ Key key, unsigned most, float share) {
  int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= walk.count) return;
  uint4 four = philox(make_uint4((unsigned)(walk.start + i) / 4, 0, 0, 0), key_of(key));
  if (i + 4 <= walk.count) {
    float4 v = *(const float4*)(x + i);
    *(float4*)(y + i) = make_float4(dropped(v.x, four.x, most, share), dropped(v.y, four.y, most, share),
                                    dropped(v.z, four.z, most, share), dropped(v.w, four.w, most, share));
    return;
  }
  unsigned numbers[3] = {four.x, four.y, four.z};
  for (int lane = 0; i + lane < walk.count; lane++) y[i + lane] = dropped(x[i + lane], numbers[lane], most, share);
}

// The same for any memory order, one element for each thread.
extern "C" __global__ void drop_1(const float* x, float* y, const __grid_constant__ Walk walk, const __grid_constant__ Key key, unsigned most, float share) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, rest = i, from = 0;
  unsigned place = walk.start;
  if (i >= walk.count) return;
  for (int axis = walk.axes - 1; axis > 0; axis--) {
    int digit = rest % walk.sizes[axis - 1];
    from += digit * walk.strides[axis], place += digit * walk.places[axis];
    rest /= walk.sizes[axis - 1];
  }
  from += rest * walk.strides[0], place += rest * walk.places[0];
  uint4 four = philox(make_uint4(place / 4, 0, 0, 0), key_of(key));
  unsigned number = place % 4 == 0 ? four.x : place % 4 == 1 ? four.y : place % 4 == 2 ? four.z : four.w;
  y[i] = dropped(x[from], number, most, share);
}
