// Linear layers: products of small matrices with all that comes before and after them, and what large ones, which cuBLAS
// multiplies, need beside it. Matrices have any strides; the axis of stride 1 is the one along which a warp reads.

#define BLOCK 256
#define RUN 32  // terms that are added by themselves, so that rounding errors do not grow with all of them

struct Product {
  int rows, columns, terms, a_row, a_term, mask_row, mask_term, b_term, b_column, out_row, out_column;
};

// Two tiles of each operand: one is read while the next is written. The odd length of a line keeps banks apart.
template <int TILE, int SLICES> struct Tiles {
  float a[2][RUN * SLICES][TILE + 1], b[2][RUN * SLICES][TILE + 1];
};

// out (rows, columns) = a (rows, terms) · b (terms, columns) + bias (rows), max(out, 0) if relu. Where there is a mask, a
// is 0 at elements of it that are not positive. sums (rows) are those of the masked a. mask, bias, sums may be null.
// A block makes TILE x TILE results; SLICES groups of its threads share the terms.
template <int TILE, int SLICES>
__device__ __forceinline__ void product(const float* a, const float* mask, const float* b, const float* bias, float* out,
                                        float* sums, const Product& p, int relu, Tiles<TILE, SLICES>& tiles) {
  constexpr int DEPTH = RUN * SLICES, EACH = TILE * DEPTH / BLOCK, LANES = BLOCK / TILE;
  int tid = threadIdx.x, across = (p.columns + TILE - 1) / TILE;
  int first_column = blockIdx.x % across * TILE, first_row = blockIdx.x / across * TILE;
  float next_a[EACH], next_b[EACH];

  // Element i of a thread in a tile: along the lines (rows of a, columns of b) or along the terms.
  auto line_of = [&](int i, bool by_line) { return by_line ? (tid + i * BLOCK) % TILE : (tid + i * BLOCK) / DEPTH; };
  auto term_of = [&](int i, bool by_line) { return by_line ? (tid + i * BLOCK) / TILE : (tid + i * BLOCK) % DEPTH; };
  bool a_by_line = p.a_row == 1, b_by_line = p.b_column == 1;
  auto fetch = [&](int first) {
    for (int i = 0; i < EACH; i++) {
      int row = first_row + line_of(i, a_by_line), term = first + term_of(i, a_by_line);
      next_a[i] = 0;
      if (row < p.rows && term < p.terms) {
        float v = a[row * p.a_row + term * p.a_term];
        next_a[i] = !mask || mask[row * p.mask_row + term * p.mask_term] > 0 ? v : 0.0f;
      }
      int column = first_column + line_of(i, b_by_line);
      term = first + term_of(i, b_by_line);
      next_b[i] = column < p.columns && term < p.terms ? b[term * p.b_term + column * p.b_column] : 0.0f;
    }
  };
  auto put = [&](int stage) {
    for (int i = 0; i < EACH; i++) {
      tiles.a[stage][term_of(i, a_by_line)][line_of(i, a_by_line)] = next_a[i];
      tiles.b[stage][term_of(i, b_by_line)][line_of(i, b_by_line)] = next_b[i];
    }
  };

  // The result of a thread: neighbours are those that lie side by side in `out`.
  int slice = tid / (TILE * TILE), place = tid % (TILE * TILE);
  int r = p.out_row == 1 ? place % TILE : place / TILE, c = p.out_row == 1 ? place / TILE : place % TILE;
  bool adds = sums && first_column == 0;
  float total = 0, row_sum = 0;
  fetch(0);
  put(0);
  __syncthreads();
  for (int first = 0, stage = 0; first < p.terms; first += DEPTH, stage ^= 1) {
    bool more = first + DEPTH < p.terms;
    if (more) fetch(first + DEPTH);
    float run = 0;
    for (int k = slice * RUN; k < (slice + 1) * RUN; k++) run += tiles.a[stage][k][r] * tiles.b[stage][k][c];
    total += run;
    if (adds) {
      run = 0;
      for (int k = tid % LANES; k < DEPTH; k += LANES) run += tiles.a[stage][k][tid / LANES];
      row_sum += run;
    }
    if (more) put(stage ^ 1);
    __syncthreads();  // the next tile is whole, and this one has been read
  }
  if (adds) {
    for (int step = LANES / 2; step; step >>= 1) row_sum += __shfl_xor_sync(FULL, row_sum, step);
    if (tid % LANES == 0 && first_row + tid / LANES < p.rows) sums[first_row + tid / LANES] = row_sum;
  }
  if (SLICES > 1) {
    float* scratch = &tiles.a[0][0][0];
    scratch[tid] = total;
    __syncthreads();
    total = 0;
    if (slice == 0)
      for (int i = 0; i < SLICES; i++) total += scratch[i * TILE * TILE + place];
  }
  int row = first_row + r, column = first_column + c;
  if (slice || row >= p.rows || column >= p.columns) return;
  if (bias) total += bias[row];
  out[row * p.out_row + column * p.out_column] = relu && total < 0 ? 0.0f : total;
}
extern "C" __global__ void __launch_bounds__(BLOCK) product_16(const float* a, const float* mask, const float* b, const float* bias, float* out, float* sums, Product p, int relu) {
  __shared__ Tiles<16, 1> tiles;
  product<16, 1>(a, mask, b, bias, out, sums, p, relu, tiles);
}
// For few results of many terms: four times as many blocks.
extern "C" __global__ void __launch_bounds__(BLOCK) product_8(const float* a, const float* mask, const float* b, const float* bias, float* out, float* sums, Product p, int relu) {
  __shared__ Tiles<8, 4> tiles;
  product<8, 4>(a, mask, b, bias, out, sums, p, relu, tiles);
}

// y = y + bias, in place, then max(y, 0) if relu. Element i has bias[i / run % features]; bias may be null.
extern "C" __global__ void bias_relu(float* y, const float* bias, int count, int run, int features, int relu) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float v = y[i];
  if (bias) v += bias[i / run % features];
  y[i] = relu && v < 0 ? 0.0f : v;
}

struct Masked {
  int rows, columns, grad_row, grad_column, mask_row, mask_column, out_row, out_column;
};

// out (rows, columns) = grad where mask is positive, else 0; sums (columns) are its sums over rows. A thread walks down a
// column: the lanes of a warp side by side in 32 columns, or in 32 rows where these lie side by side. mask is null where
// there is only to be summed, and then so is out; sums may be null.
extern "C" __global__ void __launch_bounds__(BLOCK) mask_sums(const float* grad, const float* mask, float* out, float* sums, Masked m) {
  __shared__ double scratch[BLOCK];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  bool down = m.grad_row == 1;
  int column = down ? blockIdx.x * (BLOCK / 32) + warp : blockIdx.x * 32 + lane, step = down ? 32 : BLOCK / 32, count = 0;
  double total = 0;
  float run = 0;
  for (int row = down ? lane : warp; row < m.rows && column < m.columns; row += step) {
    float g = grad[row * m.grad_row + column * m.grad_column];
    if (mask) {
      if (!(mask[row * m.mask_row + column * m.mask_column] > 0)) g = 0;
      out[row * m.out_row + column * m.out_column] = g;
    }
    run += g;
    if (++count % 16 == 0) total += run, run = 0;
  }
  total += run;
  if (!sums) return;
  int columns = down ? BLOCK / 32 : 32;
  scratch[down ? lane * columns + warp : threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x >= columns) return;
  total = 0;
  for (int i = threadIdx.x; i < BLOCK; i += columns) total += scratch[i];
  if (blockIdx.x * columns + threadIdx.x < m.columns) sums[blockIdx.x * columns + threadIdx.x] = total;
}
