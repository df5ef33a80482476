// Sums over the threads of a warp and a block in one fixed order, on the device and, with the same order, on the host.
#pragma once

#include "tile.h"

namespace lt {

#if defined(__CUDACC__)
// The sum of the warp's 32 values, in every lane.
template <class A>
__device__ __forceinline__ A warp_sum(A value) {
  LT_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
#endif

// What lane 0 gets from warp_sum when lane i holds values[i].
template <class A>
A warp_sum_on_host(const A* values) {
  A v[kWarp];
  for (int i = 0; i < kWarp; ++i) v[i] = values[i];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    A next[kWarp];
    for (int i = 0; i < kWarp; ++i) next[i] = v[i] + v[i ^ distance];
    for (int i = 0; i < kWarp; ++i) v[i] = next[i];
  }
  return v[0];
}

// The last step of a block's sum: its warps' sums, first warp first. `stride` apart in memory.
template <class A>
LT_HOST_DEVICE A sum_of_warps(const A* warp_sums, int stride) {
  A total = A(0);
  LT_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) total += warp_sums[warp * stride];
  return total;
}

}  // namespace lt
