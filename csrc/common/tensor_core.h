// A warp's product of small matrices on tensor cores (sm_80 and later), D (16 × 8) += A (16 × depth) · B (depth × 8):
// factors of 16 bits 16 deep, tf32 8 deep, sums in float32. Written as functions of a lane: the layouts below are those
// of mma.sync in the PTX ISA ("Matrix Fragments for mma.m16n8k16", "… m16n8k8"), and what stands in A and B is asked of
// the caller, who knows of bounds, padding and memory. On the host a lane makes its own four sums from the same answers,
// so that a host build can run the bodies of kernels thread by thread. No PyTorch header.
#pragma once

#include <type_traits>

#include "scalar.h"

namespace lt::tensor_core {

// float32 rounded to 10 bits of mantissa, ties away from zero.
struct Tf32 {
  float value;
};

constexpr int kRows = 16, kColumns = 8;

// A register holds 32 bits: two neighbours along the depth, the first in the lower half, or one tf32.
using Register = uint32_t;
template <class O>
constexpr int kPacked = 4 / sizeof(O);
template <class O>
constexpr int kDepth = 8 * kPacked<O>;

// Whose first factor, or whose sum, a lane's i-th register is.
struct Cell {
  int row, column;
};
template <class O>
constexpr LT_HOST_DEVICE Cell left_cell(int lane, int i) {
  return {lane / 4 + i % 2 * 8, (lane % 4 + i / 2 * 4) * kPacked<O>};
}
template <class O>
constexpr LT_HOST_DEVICE Cell right_cell(int lane, int i) {
  return {(lane % 4 + i * 4) * kPacked<O>, lane / 4};
}
constexpr LT_HOST_DEVICE Cell sum_cell(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }

LT_HOST_DEVICE Tf32 round_to_tf32(float x) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return {__uint_as_float(bits)};
#else
  const uint32_t bits = lt::detail::bits_from_float(x);
  if ((bits & 0x7fffffffu) >= 0x7f800000u) return {x};
  return {lt::detail::float_from_bits((bits + 0x1000u) & 0xffffe000u)};
#endif
}

// A number as a factor of type O.
template <class O, class T>
LT_HOST_DEVICE O factor(T x) {
  if constexpr (std::is_same_v<O, T>)
    return x;
  else if constexpr (std::is_same_v<O, Tf32>)
    return round_to_tf32(x);
  else
    return narrow<O>(x);
}

LT_HOST_DEVICE Register pack(const Tf32 (&v)[1]) { return lt::detail::bits_from_float(v[0].value); }
template <class O>
LT_HOST_DEVICE Register pack(const O (&v)[2]) {
  return v[0].bits | Register{v[1].bits} << 16;
}

// The i-th factor of a register.
template <class O>
LT_HOST_DEVICE float unpack(Register r, int i) {
  if constexpr (std::is_same_v<O, Tf32>)
    return lt::detail::float_from_bits(r);
  else
    return widen(O{static_cast<uint16_t>(r >> 16 * i)});
}

// A register of factors that lie apart: at(i), i < kPacked.
template <class O, class At>
LT_HOST_DEVICE Register gathered(const At& at) {
  O v[kPacked<O>];
  LT_UNROLL
  for (int i = 0; i < kPacked<O>; ++i) v[i] = factor<O>(at(i));
  return pack(v);
}

// A register of neighbours in memory, p on 4 bytes.
template <class O, class T>
LT_HOST_DEVICE Register along(const T* p) {
  if constexpr (std::is_same_v<O, T>) {
#if defined(__CUDA_ARCH__)
    return *reinterpret_cast<const Register*>(p);
#else
    Register r;
    std::memcpy(&r, p, sizeof r);
    return r;
#endif
  } else {
    return gathered<O>([&](int i) { return p[i]; });
  }
}

// A lane's share of A and of B. at(row, column): the register that begins there.
struct LeftRegisters {
  Register v[4];
};
struct RightRegisters {
  Register v[2];
};
template <class O, class At>
LT_HOST_DEVICE LeftRegisters left_registers(int lane, const At& at) {
  LeftRegisters r;
  LT_UNROLL
  for (int i = 0; i < 4; ++i) r.v[i] = at(left_cell<O>(lane, i).row, left_cell<O>(lane, i).column);
  return r;
}
template <class O, class At>
LT_HOST_DEVICE RightRegisters right_registers(int lane, const At& at) {
  RightRegisters r;
  LT_UNROLL
  for (int i = 0; i < 2; ++i) r.v[i] = at(right_cell<O>(lane, i).row, right_cell<O>(lane, i).column);
  return r;
}

// What multiply_add takes: on the host the answers themselves.
template <class O, class At>
LT_HOST_DEVICE auto left(int lane, const At& at) {
#if defined(__CUDA_ARCH__)
  return left_registers<O>(lane, at);
#else
  return at;
#endif
}
template <class O, class At>
LT_HOST_DEVICE auto right(int lane, const At& at) {
#if defined(__CUDA_ARCH__)
  return right_registers<O>(lane, at);
#else
  return at;
#endif
}

#if defined(__CUDA_ARCH__)
#define LT_MMA(shape_and_types)                                                                                       \
  asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                               \
               : "r"(a.v[0]), "r"(a.v[1]), "r"(a.v[2]), "r"(a.v[3]), "r"(b.v[0]), "r"(b.v[1]))
#endif

// sum: the lane's part of D. All lanes of a warp come here together.
template <class O, class Left, class Right>
LT_HOST_DEVICE void multiply_add(int lane, const Left& a, const Right& b, float (&sum)[4]) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<O, Tf32>)
    LT_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  else if constexpr (std::is_same_v<O, BFloat16>)
    LT_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  else
    LT_MMA("m16n8k16.row.col.f32.f16.f16.f32");
#else
  for (int i = 0; i < 4; ++i) {
    const Cell cell = sum_cell(lane, i);
    for (int k = 0; k < kDepth<O>; k += kPacked<O>) {
      const Register of_a = a(cell.row, k), of_b = b(k, cell.column);
      for (int j = 0; j < kPacked<O>; ++j) sum[i] += unpack<O>(of_a, j) * unpack<O>(of_b, j);
    }
  }
#endif
}

// A lane's sums come in pairs of neighbouring columns: f(row, column, first, second).
template <class F>
LT_HOST_DEVICE void for_each_pair(int lane, float (&sum)[4], const F& f) {
  LT_UNROLL
  for (int i = 0; i < 4; i += 2) f(sum_cell(lane, i).row, sum_cell(lane, i).column, sum[i], sum[i + 1]);
}

}  // namespace lt::tensor_core
