// Arrays without gaps, one after the other in a flat one: up to MOST in a launch, whose addresses come with the arguments.

#define MOST 100

struct Row {
  const float* values;
  int start;  // in the flat array
};
struct Rows {
  Row each[MOST];
  int count, start, end;  // rows, and the elements that this launch writes
};

extern "C" __global__ void join(const __grid_constant__ Rows rows, float* flat) {
  int i = rows.start + blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= rows.end) return;
  int low = 0, high = rows.count - 1;
  while (low < high) {  // the last that begins at i or before
    int middle = (low + high + 1) / 2;
    if (rows.each[middle].start <= i) low = middle;
    else high = middle - 1;
  }
  flat[i] = rows.each[low].values[i - rows.each[low].start];
}
