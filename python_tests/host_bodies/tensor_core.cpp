// What each lane of a warp holds of A and B, and the sums it makes, for one product on tensor cores. Built and called by
// test_ops_tensor_core.py through ctypes.
#include "../../csrc/common/tensor_core.h"

namespace {

using namespace lt;
using namespace lt::tensor_core;

// a (16, depth) and b (depth, 8) of factors' bits, 32 bits each; registers (32, 4 or 2); sums (32, 4), added to.
template <class O>
Register neighbours(const uint32_t* first, int apart) {
  if constexpr (kPacked<O> == 1) return first[0];
  return first[0] | first[apart] << 16;
}

template <class O>
void warp(const uint32_t* a, const uint32_t* b, uint32_t* of_a, uint32_t* of_b, float* sums) {
  const auto at_a = [&](int row, int k) { return neighbours<O>(a + row * kDepth<O> + k, 1); };
  const auto at_b = [&](int k, int column) { return neighbours<O>(b + k * kColumns + column, kColumns); };
  for (int lane = 0; lane < 32; ++lane) {
    std::memcpy(of_a + lane * 4, left_registers<O>(lane, at_a).v, 4 * sizeof(Register));
    std::memcpy(of_b + lane * 2, right_registers<O>(lane, at_b).v, 2 * sizeof(Register));
    float own[4];
    std::memcpy(own, sums + lane * 4, sizeof own);
    multiply_add<O>(lane, left<O>(lane, at_a), right<O>(lane, at_b), own);
    std::memcpy(sums + lane * 4, own, sizeof own);
  }
}

}  // namespace

extern "C" void warp_tf32(const uint32_t* a, const uint32_t* b, uint32_t* of_a, uint32_t* of_b, float* sums) {
  warp<Tf32>(a, b, of_a, of_b, sums);
}
extern "C" void warp_bfloat16(const uint32_t* a, const uint32_t* b, uint32_t* of_a, uint32_t* of_b, float* sums) {
  warp<BFloat16>(a, b, of_a, of_b, sums);
}
extern "C" void warp_half(const uint32_t* a, const uint32_t* b, uint32_t* of_a, uint32_t* of_b, float* sums) {
  warp<Half>(a, b, of_a, of_b, sums);
}

extern "C" void round_all_to_tf32(const float* x, int64_t count, float* rounded) {
  for (int64_t i = 0; i < count; ++i) rounded[i] = round_to_tf32(x[i]).value;
}
