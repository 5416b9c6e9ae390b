// A batch as networks read it: rows of x (M, L), of floats or bytes, turned into float32 y (L, N), batch innermost.
// Row index[n] becomes column n (row n without `index`); y = x * scale[c] + shift[c] for channel c = l / side.
//
// A block of 256 threads turns a tile of 32 images by 32·W elements, through shared memory: it reads W elements a
// thread along a row, and writes whole sectors of images. Element W·a + j of an image lies at tile[j][a], padded by one
// float, so that neither reading nor writing meets a bank twice.
template <class T, int W> struct alignas(sizeof(T) * W) Run {
  T v[W];
};
template <class T, int W>
__device__ __forceinline__ void turn(const T* x, const long long* index, const float* scale, const float* shift,
                                     float* y, int length, int side, int batch, float (*tile)[32][33]) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = blockIdx.x * 32 * W, image = blockIdx.y * 32;
  for (int i = warp; i < 32 && image + i < batch; i += 8) {
    int l = first + lane * W;
    if (l >= length) continue;
    long long row = index ? index[image + i] : image + i;
    Run<T, W> run = *(const Run<T, W>*)(x + row * length + l);
    for (int j = 0; j < W; j++) tile[j][lane][i] = run.v[j];
  }
  __syncthreads();
  if (image + lane >= batch) return;
  for (int e = warp; e < 32 * W; e += 8) {
    int l = first + e, c = l / side;
    if (l >= length) break;
    float value = tile[e % W][e / W][lane];
    if (scale) value *= scale[c];
    if (shift) value += shift[c];
    y[(long long)l * batch + image + lane] = value;
  }
}

extern "C" __global__ void turn_floats(const float* x, const long long* index, const float* scale, const float* shift,
                                       float* y, int length, int side, int batch) {
  __shared__ float tile[1][32][33];
  turn<float, 1>(x, index, scale, shift, y, length, side, batch, tile);
}
extern "C" __global__ void turn_bytes(const unsigned char* x, const long long* index, const float* scale,
                                      const float* shift, float* y, int length, int side, int batch) {
  __shared__ float tile[1][32][33];
  turn<unsigned char, 1>(x, index, scale, shift, y, length, side, batch, tile);
}
extern "C" __global__ void turn_bytes_4(const unsigned char* x, const long long* index, const float* scale,
                                        const float* shift, float* y, int length, int side, int batch) {
  __shared__ float tile[4][32][33];
  turn<unsigned char, 4>(x, index, scale, shift, y, length, side, batch, tile);
}
