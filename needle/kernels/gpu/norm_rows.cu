// What normalizations of rows (R, M) share: a block for each row, each with its own mean and variance.
//
// Sums are taken in float32 over at most 16 elements and beyond that in float64. The variance is that of the deviations
// from a float32 close to the mean, which is exact however far from zero the mean is; then it is corrected for the rest:
// Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance" (1983), equation 1.7.

// Two sums over a row: add(read(i), a, b) adds what the V elements from i on give. Four reads are under way at a time.
template <int V, class Read, class Add>
__device__ __forceinline__ void row_sums(int m, double& a, double& b, Read read, Add add) {
  int i = threadIdx.x * V, step = blockDim.x * V;
  a = b = 0;
  for (; i + 3 * step < m; i += 4 * step) {
    auto first = read(i), second = read(i + step), third = read(i + 2 * step), fourth = read(i + 3 * step);
    float s = 0, t = 0;
    add(first, s, t), add(second, s, t), add(third, s, t), add(fourth, s, t);
    a += s, b += t;
  }
  for (; i < m; i += step) {
    float s = 0, t = 0;
    add(read(i), s, t);
    a += s, b += t;
  }
}

// Which entry of weight and bias belongs to element i of a row: row % groups · entries + i / run.
struct Affine {
  int groups, entries, run;
};

// Where the running statistics are, null if there are none, and how they move: by momentum, towards the variance divided
// by the count less 1 if unbiased, unless there is 1.
struct Running {
  float *mean, *variance;
  long long* counter;
  double momentum;
  int unbiased;

  __device__ __forceinline__ void move(int row, double average, double var, double count) const {
    if (!mean) return;
    double correction = unbiased ? momentum * count / (count - (count != 1)) : momentum;
    mean[row] = (float)(mean[row] * (1 - momentum) + average * momentum);
    variance[row] = (float)(variance[row] * (1 - momentum) + var * correction);
    if (counter && row == 0) ++*counter;
  }
};

// ---- forward --------------------------------------------------------------------------------------------------------

// The variance of a row, and its mean as near + rest.
template <int V>
__device__ __forceinline__ void row_moments(const float* x, int m, float& near, double& rest, double& var,
                                            double (*scratch)[2]) {
  auto read = [&](int i) { return load<V>(x + i); };
  double sum, squares;
  float first = *x, close;  // elements that are all equal give exact zeros
  row_sums<V>(m, sum, squares, read, [&](const Lanes<V>& here, float& s, float& t) {
    for (int v = 0; v < V; v++) s += here.v[v] - first;
  });
  block_sums(sum, squares, scratch);
  close = (float)(first + sum / m);
  row_sums<V>(m, sum, squares, read, [&](const Lanes<V>& here, float& s, float& t) {
    for (int v = 0; v < V; v++) {
      float d = here.v[v] - close;
      s += d, t += d * d;
    }
  });
  block_sums(sum, squares, scratch);
  near = close, rest = sum / m, var = squares / m - rest * rest;
  if (var < 0) var = 0;
}

// x -> y = (x - near - rest) · scale · weight + bias of row blockIdx.x, max(y, 0) if relu. Weight, bias may be null.
template <int V>
__device__ __forceinline__ void normalize_row(const float* x, const float* weight, const float* bias, float* y, float near,
                                              double rest, double scale, const Affine& affine, int m, int relu) {
  int entry = blockIdx.x % affine.groups * affine.entries;
  float w = weight ? weight[entry] : 1.0f, b = bias ? bias[entry] : 0.0f;
  float slope = (float)(scale * w), offset = (float)(b - rest * scale * w);
  for (int i = threadIdx.x * V; i < m; i += blockDim.x * V) {
    Lanes<V> here = load<V>(x + i);
    for (int v = 0; v < V; v++) {
      float d = here.v[v] - near;
      if (affine.entries > 1) {
        int at = entry + (i + v) / affine.run;
        d = d * (float)scale - (float)(rest * scale);
        d = d * (weight ? weight[at] : 1.0f) + (bias ? bias[at] : 0.0f);
      } else {
        d = d * slope + offset;
      }
      here.v[v] = relu && d <= 0 ? 0.0f : d;  // NaN stays
    }
    store<V>(y + i, here);
  }
}

// ---- backward -------------------------------------------------------------------------------------------------------

// V elements of grad, and of x less what is near its mean.
template <int V> struct Pair {
  Lanes<V> g, d;
};

// Those at `at`. y is the result of a rectified normalization, which masks grad; else null.
template <int V>
__device__ __forceinline__ Pair<V> read_pair(const float* grad, const float* x, const float* y, long long at, float near) {
  Pair<V> pair{load<V>(grad + at), load<V>(x + at)};
  Lanes<V> result;
  if (y) result = load<V>(y + at);
  for (int v = 0; v < V; v++) {
    pair.d.v[v] -= near;
    if (y && !(result.v[v] > 0)) pair.g.v[v] = 0;
  }
  return pair;
}

// The sums of grad and of grad · (x - mean) over a row of pairs; the mean is near + rest.
template <int V, class Read>
__device__ __forceinline__ void gradient_sums(int m, double rest, double& sum, double& along, Read read,
                                              double (*scratch)[2]) {
  row_sums<V>(m, sum, along, read, [&](const Pair<V>& pair, float& s, float& t) {
    for (int v = 0; v < V; v++) s += pair.g.v[v], t += pair.g.v[v] * pair.d.v[v];
  });
  block_sums(sum, along, scratch);
  along -= rest * sum;
}

// The gradient in x of a row, from the sums over the `count` elements that were normalized together. The factor is
// scale · weight.
template <int V, class Read>
__device__ __forceinline__ void input_gradient(float* x_grad, int m, double count, double rest, double sum, double along,
                                               double scale, double factor, Read read) {
  double slope = along * scale * scale / count;
  float by_grad = (float)factor, by_x = (float)(-slope * factor), offset = (float)((rest * slope - sum / count) * factor);
  for (int i = threadIdx.x * V; i < m; i += blockDim.x * V) {
    Pair<V> pair = read(i);
    for (int v = 0; v < V; v++) pair.g.v[v] = pair.g.v[v] * by_grad + (pair.d.v[v] * by_x + offset);
    store<V>(x_grad + i, pair.g);
  }
}
