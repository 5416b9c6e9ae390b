// Convolution and its transpose for few rows in a group, where a tile of a product would be empty: depthwise ones, and
// those to one or two channels. A thread adds up one result, or those of four images.

#include "conv_places.cu"

extern "C" __global__ void __launch_bounds__(128, 4) convolve_direct(
    const float* __restrict__ in, const float* __restrict__ mask, const float* __restrict__ w, const float* __restrict__ bias,
    float* __restrict__ out, const float* __restrict__ partial, float* __restrict__ w_grad, float* __restrict__ bias_grad,
    Conv v, View in_steps, Taps w_steps, Parts parts, int transposed, int relu, int vector) {
  if (blockIdx.x < parts.blocks) return add_parts(blockIdx.x, parts, partial, w_grad, bias_grad);
  int rows = transposed ? v.in : v.out, channels = transposed ? v.out : v.in, tile = blockIdx.x - parts.blocks, phases = 1;
  int row = tile % rows, group = tile / rows % v.groups, rest = tile / rows / v.groups;
  if (transposed) phases = phases_of(v);
  Side sides[3];
  find_sides(sides, v, transposed, rest % phases);
  Column column = column_of((rest / phases * blockDim.x + threadIdx.x) * (vector ? 4 : 1), sides, v.batch);
  if (!column.valid) return;
  long long start = (long long)group * channels * in_steps.channel + (long long)column.image * in_steps.image;
  in += start;
  if (mask) mask += start;
  w += (long long)group * v.out * w_steps.out + row * (transposed ? w_steps.in : w_steps.out);
  int channel_step = transposed ? w_steps.out : w_steps.in;

  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
  for (int i = 0; i < sides[0].taps; i++) {
    int x = sides[0].base + column.place[0] * sides[0].by_place + i * sides[0].by_tap;
    if ((unsigned)x >= (unsigned)sides[0].limit) continue;
#pragma unroll 1
    for (int j = 0; j < sides[1].taps; j++) {
      int y = sides[1].base + column.place[1] * sides[1].by_place + j * sides[1].by_tap;
      if ((unsigned)y >= (unsigned)sides[1].limit) continue;
#pragma unroll 1
      for (int k = 0; k < sides[2].taps; k++) {
        int z = sides[2].base + column.place[2] * sides[2].by_place + k * sides[2].by_tap;
        if ((unsigned)z >= (unsigned)sides[2].limit) continue;
        int at = x * in_steps.place[0] + y * in_steps.place[1] + z * in_steps.place[2];
        int tap = (sides[0].tap + i * sides[0].tap_step) * w_steps.tap[0] + (sides[1].tap + j * sides[1].tap_step) * w_steps.tap[1]
                + (sides[2].tap + k * sides[2].tap_step) * w_steps.tap[2];
        for (int c = 0; c < channels; c++) {
          float weight = w[c * channel_step + tap];
          if (vector) {
            float4 four = *(const float4*)(in + at + c * in_steps.channel);
            if (mask) four = masked(four, *(const float4*)(mask + at + c * in_steps.channel));
            sum.x += weight * four.x; sum.y += weight * four.y; sum.z += weight * four.z; sum.w += weight * four.w;
          } else {
            float one = in[at + c * in_steps.channel];
            if (mask) one = masked(one, mask[at + c * in_steps.channel]);
            sum.x += weight * one;
          }
        }
      }
    }
  }
  int size[3];
#pragma unroll
  for (int i = 0; i < 3; i++) size[i] = transposed ? v.axis[i].size : v.axis[i].output;
  row += group * rows;
  out += (long long)row * size[0] * size[1] * size[2] * v.batch + address_of(column, sides, size, v.batch);
  float add = bias ? bias[row] : 0.0f;
  sum = make_float4(sum.x + add, sum.y + add, sum.z + add, sum.w + add);
  if (relu) sum = make_float4(rectified(sum.x), rectified(sum.y), rectified(sum.z), rectified(sum.w));
  if (vector) *(float4*)out = sum; else *out = sum.x;
}
