// The matrix units and asynchronous copies, which sources reach by inline PTX on a GPU.
#pragma once

// float32 with 10 bits of mantissa, ties away from zero: cvt.rna.tf32.f32
inline unsigned to_tf32(float v) { return (__float_as_uint(v) + 0x1000) & 0xffffe000u; }

// d (16, 8) += a (16, 8) · b (8, 8), spread over the lanes of a warp as PTX has it: mma.m16n8k8.row.col.f32.tf32
UNCHECKED inline void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Fragment {
    unsigned a[4], b[2];
  } mine;
  memcpy(mine.a, a, 16);
  memcpy(mine.b, b, 8);
  const char* all = cpu_warp_exchange(~0u, &mine, sizeof mine);
  auto of = [&](int lane) UNCHECKED {
    Fragment fragment;
    memcpy(&fragment, all + 64 * lane, sizeof fragment);
    return fragment;
  };
  int group = cpu_lane() >> 2, member = cpu_lane() & 3;
  for (int r = 0; r < 4; r++) {  // d[r] is in row group + 8 (r / 2), column 2 member + r % 2
    int row = group + 8 * (r / 2), column = 2 * member + r % 2;
    float sum = 0;
    for (int k = 0; k < 8; k++) {
      // a (row, k) is in lane 4 (row % 8) + k % 4, register row / 8 + 2 (k / 4); b (k, column) in lane
      // 4 column + k % 4, register k / 4.
      float left = __uint_as_float(of(4 * (row % 8) + k % 4).a[row / 8 + 2 * (k / 4)]);
      float right = __uint_as_float(of(4 * column + k % 4).b[k / 4]);
      sum += left * right;
    }
    d[r] += sum;
  }
}

// cp.async of 16 bytes to shared memory, zeros unless `valid`; they arrive when they are waited for.
inline void copy16(float* to, const float* from, bool valid) { cpu_copy_later(to, from, 16, !valid); }
inline void copy_commit() { cpu_copy_commit(); }
template <int LEFT> inline void copy_wait() { cpu_copy_wait(LEFT); }
