// A batch as networks read it: rows of x (M, L), of floats or bytes, turned into float32 y (L, N), batch innermost.
// Row index[n] becomes column n (row n without `index`); a byte of channel c = l / side becomes table[256 c + byte].
//
// A block of 256 threads turns a tile of 32 images by 32·W elements, through shared memory: it reads W elements a
// thread along a row, and writes whole sectors of images. Element W·a + j of an image lies at tile[j][a], padded by one
// float, so that neither reading nor writing meets a bank twice.
template <class T, int W> struct alignas(sizeof(T) * W) Run {
  T v[W];
};
__device__ __forceinline__ float value(float x, const float*, int) { return x; }
__device__ __forceinline__ float value(unsigned char x, const float* table, int channel) {
  return table ? table[channel * 256 + x] : x;
}
template <class T, int W>
__device__ __forceinline__ void turn(const T* x, const long long* index, const float* table, float* y, int length,
                                     int side, int batch, float (*tile)[32][33]) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, tiles = (length + 32 * W - 1) / (32 * W);
  int first = blockIdx.x % tiles * (32 * W), image = blockIdx.x / tiles * 32;
  for (int i = warp; i < 32 && image + i < batch; i += 8) {
    int l = first + lane * W;
    if (l >= length) continue;
    long long row = index ? index[image + i] : image + i;
    Run<T, W> run = *(const Run<T, W>*)(x + row * length + l);
    for (int j = 0; j < W; j++) tile[j][lane][i] = value(run.v[j], table, (l + j) / side);
  }
  __syncthreads();
  if (image + lane >= batch) return;
  for (int e = warp; e < 32 * W; e += 8) {
    int l = first + e;
    if (l >= length) break;
    y[(long long)l * batch + image + lane] = tile[e % W][e / W][lane];
  }
}

extern "C" __global__ void turn_floats(const float* x, const long long* index, const float* table, float* y, int length,
                                       int side, int batch) {
  __shared__ float tile[1][32][33];
  turn<float, 1>(x, index, table, y, length, side, batch, tile);
}
extern "C" __global__ void turn_bytes(const unsigned char* x, const long long* index, const float* table, float* y,
                                      int length, int side, int batch) {
  __shared__ float tile[1][32][33];
  turn<unsigned char, 1>(x, index, table, y, length, side, batch, tile);
}
extern "C" __global__ void turn_bytes_4(const unsigned char* x, const long long* index, const float* table, float* y,
                                        int length, int side, int batch) {
  __shared__ float tile[4][32][33];
  turn<unsigned char, 4>(x, index, table, y, length, side, batch, tile);
}
