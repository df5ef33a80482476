// The element types of the kernels and their conversion to the type in which sums are taken.
// Raw bits, no PyTorch header: the same code serves the CPU loops, the CUDA kernels and the host runs of CUDA bodies.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define LT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define LT_HOST_DEVICE inline
#endif

// Only the device's compiler knows these; nvcc's host pass and plain compilers would warn.
#if defined(__CUDA_ARCH__)
#define LT_UNROLL _Pragma("unroll")
#define LT_UNROLL_4 _Pragma("unroll 4")
#else
#define LT_UNROLL
#define LT_UNROLL_4
#endif

namespace lt {

struct BFloat16 {
  uint16_t bits;
};

struct Half {
  uint16_t bits;
};

// float16, bfloat16 and float32 are summed in float32, float64 in float64.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using accumulate_t = typename Accumulate<T>::type;

namespace detail {

LT_HOST_DEVICE float float_from_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

LT_HOST_DEVICE uint32_t bits_from_float(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

}  // namespace detail

LT_HOST_DEVICE float widen(float x) { return x; }
LT_HOST_DEVICE double widen(double x) { return x; }
LT_HOST_DEVICE float widen(BFloat16 x) { return detail::float_from_bits(uint32_t{x.bits} << 16); }

LT_HOST_DEVICE float widen(Half x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
  const uint32_t rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) return detail::float_from_bits(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
  if (rest >= 0x0400u) return detail::float_from_bits(sign | ((rest << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  return detail::float_from_bits(sign | detail::bits_from_float(subnormal));
#endif
}

// narrow<T>(x): round to nearest, ties to even, as PyTorch does.
template <class T>
LT_HOST_DEVICE T narrow(accumulate_t<T> x);

template <>
LT_HOST_DEVICE float narrow<float>(float x) {
  return x;
}
template <>
LT_HOST_DEVICE double narrow<double>(double x) {
  return x;
}

template <>
LT_HOST_DEVICE BFloat16 narrow<BFloat16>(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = detail::bits_from_float(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0u};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
}

template <>
LT_HOST_DEVICE Half narrow<Half>(float x) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
  const uint32_t bits = detail::bits_from_float(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (rest >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to 2^16 and beyond
  if (rest < 0x38800000u) {  // below 2^-14: a subnormal; adding 2^-1 aligns its last bit with that of a float
    const float aligned = detail::float_from_bits(rest) + 0.5f;
    return {static_cast<uint16_t>(sign | (detail::bits_from_float(aligned) - 0x3f000000u))};
  }
  const uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
#endif
}

}  // namespace lt
