
// Rules of optimizers: one launch for up to MOST parameters, whose addresses come with the arguments. The rules are those
// of needle/optim, with the settings that these compute; `state` has the arrays in the order of optimizer.py.

#define MOST 50          // parameters in one launch: the arguments of a kernel take at most 4 KiB
#define MOST_SETTINGS 12

// A parameter and its state lie in memory in one order, without gaps; its gradient lies in any. Element i of the others is
// that at the sum of digit · stride in it, where the digits of i are to the base of sizes; the first digit has no bound.
struct Parameter {
  float* theta;
  const float* grad;
  float* state[3];  // null where the options need none
  int count, first_block, axes, sizes[3], strides[4];
};
struct Parameters {
  Parameter each[MOST];
  int count, maximize, nesterov, piece;  // piece: elements for each block
};

// The numbers that a rule takes: those of this launch, or if the step is recorded, from memory that each replay fills.
struct Settings {
  const float* cell;
  float numbers[MOST_SETTINGS];
  __device__ __forceinline__ float operator[](int i) const { return cell ? cell[i] : numbers[i]; }
};

__device__ __forceinline__ int place_in_gradient(const Parameter& p, int i) {
  int place = 0;
  for (int axis = p.axes - 1; axis > 0; axis--) {
    place += i % p.sizes[axis - 1] * p.strides[axis];
    i /= p.sizes[axis - 1];
  }
  return place + i * p.strides[0];
}

// Applies rule(theta, grad, state) to each element; it changes theta and state.
template <class Rule> __device__ __forceinline__ void update_each(const Parameters& all, Rule rule) {
  int low = 0, high = all.count - 1;  // the parameter of this block: the last that begins with it or before
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (all.each[middle].first_block <= (int)blockIdx.x) low = middle;
    else high = middle - 1;
  }
  const Parameter& p = all.each[low];
  int start = ((int)blockIdx.x - p.first_block) * all.piece, end = min(p.count, start + all.piece);
  for (int i = start + (int)threadIdx.x; i < end; i += blockDim.x) {
    float theta = p.theta[i], grad = p.grad[place_in_gradient(p, i)], state[3] = {0, 0, 0};
    for (int k = 0; k < 3; k++)
      if (p.state[k]) state[k] = p.state[k][i];
    rule(theta, all.maximize ? -grad : grad, state);
    p.theta[i] = theta;
    for (int k = 0; k < 3; k++)
      if (p.state[k]) p.state[k][i] = state[k];
  }
}

// grad + decay·theta; without decay not even 0·theta, as theta may be infinite.
__device__ __forceinline__ float decayed(float grad, float theta, float decay) {
  return decay ? grad + decay * theta : grad;
}

// The larger number; NaN if one is.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

extern "C" __global__ void sgd(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float decay = settings[0], momentum = settings[1], rise = settings[2], lr = settings[3], ahead = settings[4];
  bool nesterov = all.nesterov, has_buffer = all.each[0].state[0];
  update_each(all, [=](float& theta, float grad, float* state) {
    float g = decayed(grad, theta, decay), velocity = rise * g;
    if (has_buffer) velocity = state[0] = momentum * state[0] + velocity;
    theta -= nesterov ? lr * g + ahead * velocity : lr * velocity;
  });
}

extern "C" __global__ void adam(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float keep = settings[0], decay = settings[1], ratio = settings[2], rise1 = settings[3];
  float beta2 = settings[4], rise2 = settings[5], eps = settings[6], rate = settings[7];
  bool amsgrad = all.each[0].state[2];
  update_each(all, [=](float& theta, float grad, float* state) {
    theta *= keep;
    float g = decayed(grad, theta, decay);
    float mean = state[0] = (ratio * state[0] + g) * rise1, variance = state[1] = beta2 * state[1] + rise2 * (g * g);
    if (amsgrad) variance = state[2] = larger(state[2], variance);
    theta -= rate * (mean / (sqrtf(variance) + eps));
  });
}

extern "C" __global__ void nadam(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float keep = settings[0], decay = settings[1], beta1 = settings[2], rise1 = settings[3], beta2 = settings[4];
  float rise2 = settings[5], of_mean = settings[6], of_grad = settings[7], bias = settings[8], eps = settings[9];
  float lr = settings[10];
  update_each(all, [=](float& theta, float grad, float* state) {
    theta *= keep;
    float g = decayed(grad, theta, decay);
    float mean = state[0] = beta1 * state[0] + rise1 * g, variance = state[1] = beta2 * state[1] + rise2 * g * g;
    theta -= lr * ((of_mean * mean + of_grad * g) / (sqrtf(variance / bias) + eps));
  });
}

extern "C" __global__ void radam(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float keep = settings[0], decay = settings[1], beta1 = settings[2], rise1 = settings[3], beta2 = settings[4];
  float rise2 = settings[5], lr = settings[6], eps = settings[7], is_rectified = settings[8];
  update_each(all, [=](float& theta, float grad, float* state) {
    theta *= keep;
    float g = decayed(grad, theta, decay);
    float mean = state[0] = beta1 * state[0] + rise1 * g, variance = state[1] = beta2 * state[1] + rise2 * g * g;
    theta -= lr * (is_rectified ? mean / (sqrtf(variance) + eps) : mean);
  });
}

extern "C" __global__ void adamax(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float decay = settings[0], beta1 = settings[1], rise = settings[2], beta2 = settings[3];
  float eps = settings[4], rate = settings[5];
  update_each(all, [=](float& theta, float grad, float* state) {
    float g = decayed(grad, theta, decay), mean = state[0] = beta1 * state[0] + rise * g;
    float largest = state[1] = larger(beta2 * state[1], fabsf(g) + eps);
    theta -= rate * (mean / largest);
  });
}

extern "C" __global__ void rmsprop(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float decay = settings[0], alpha = settings[1], rise = settings[2], eps = settings[3], momentum = settings[4];
  float lr = settings[5];
  bool has_buffer = all.each[0].state[1], centered = all.each[0].state[2];
  update_each(all, [=](float& theta, float grad, float* state) {
    float g = decayed(grad, theta, decay), variance = state[0] = alpha * state[0] + rise * g * g;
    if (centered) {
      float mean = state[2] = state[2] + rise * (g - state[2]);
      variance = larger(variance - mean * mean, 0);
    }
    float step = g / (sqrtf(variance) + eps);
    if (has_buffer) step = state[1] = momentum * state[1] + step;
    theta -= lr * step;
  });
}

extern "C" __global__ void adagrad(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float decay = settings[0], eps = settings[1], lr = settings[2];
  update_each(all, [=](float& theta, float grad, float* state) {
    float g = decayed(grad, theta, decay), total = state[0] = state[0] + g * g;
    theta -= lr * (g / (sqrtf(total) + eps));
  });
}

extern "C" __global__ void adadelta(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float decay = settings[0], rho = settings[1], rise = settings[2], eps = settings[3], lr = settings[4];
  update_each(all, [=](float& theta, float grad, float* state) {
    float g = decayed(grad, theta, decay), square = state[0] = rho * state[0] + rise * g * g;
    float delta = sqrtf(state[1] + eps) / sqrtf(square + eps) * g;
    state[1] = rho * state[1] + rise * delta * delta;
    theta -= lr * delta;
  });
}

// The moving averages of weights: theta is an average, grad its weight.
extern "C" __global__ void average(const __grid_constant__ Parameters all, const __grid_constant__ Settings settings) {
  float rise = settings[0];
  update_each(all, [=](float& theta, float weight, float* state) { theta += rise * (weight - theta); });
}
