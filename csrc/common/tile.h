// A tile: the elements that one CUDA block takes of every tensor, 16 bytes a thread and load, two loads in flight a
// tensor. Host and device: the host runs of CUDA bodies use the same indices.
#pragma once

#include "scalar.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace lt {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLoads = 2;

template <class T>
constexpr int kPack = 16 / sizeof(T);
template <class T>
constexpr int kTileElements = kThreads * kPack<T> * kLoads;

// This thread's share of a tile, widened to the type of sums.
template <class T>
struct Tile {
  accumulate_t<T> v[kLoads * kPack<T>];
};

template <class T>
struct alignas(16) Pack {
  T v[kPack<T>];
};

// Where in the tile the thread's l-th pack begins.
template <class T>
LT_HOST_DEVICE int pack_offset(int thread, int l) {
  return (l * kThreads + thread) * kPack<T>;
}

// Whether the tile at `base` lies wholly inside n elements; with 16-byte alignment it then moves by packs.
template <class T>
LT_HOST_DEVICE bool whole_tile(int64_t base, int64_t n) {
  return base + kTileElements<T> <= n;
}

template <class T>
LT_HOST_DEVICE Pack<T> load_pack(const T* p) {
#if defined(__CUDA_ARCH__)
  union {
    uint4 raw;
    Pack<T> pack;
  } u{*reinterpret_cast<const uint4*>(p)};
  return u.pack;
#else
  Pack<T> pack;
  std::memcpy(&pack, p, sizeof pack);
  return pack;
#endif
}

#if defined(__CUDACC__)
namespace detail {
// As one instruction: an assignment the compiler may take apart into stores of single elements, and does.
__device__ __forceinline__ void store_raw(void* p, uint4 v) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ __forceinline__ void store_raw(void* p, uint2 v) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(v.x), "r"(v.y) : "memory");
}
__device__ __forceinline__ void keep_raw(void* p, uint4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_shared(p)), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
}  // namespace detail
#endif

template <class T>
LT_HOST_DEVICE void store_pack(T* p, const Pack<T>& pack) {
#if defined(__CUDA_ARCH__)
  union {
    Pack<T> pack;
    uint4 raw;
  } u{pack};
  detail::store_raw(p, u.raw);
#else
  std::memcpy(p, &pack, sizeof pack);
#endif
}

// Elements past n read as zero.
template <class T>
LT_HOST_DEVICE Tile<T> load_tile(const T* p, int64_t base, int64_t n, int thread, bool packs) {
  Tile<T> tile;
  LT_UNROLL
  for (int l = 0; l < kLoads; ++l) {
    const int offset = pack_offset<T>(thread, l);
    if (packs) {
      const Pack<T> pack = load_pack(p + base + offset);
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) tile.v[l * kPack<T> + i] = widen(pack.v[i]);
    } else {
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) {
        const int64_t at = base + offset + i;
        tile.v[l * kPack<T> + i] = at < n ? widen(p[at]) : accumulate_t<T>(0);
      }
    }
  }
  return tile;
}

template <class T>
LT_HOST_DEVICE void store_tile(T* p, int64_t base, int64_t n, int thread, bool packs, const Tile<T>& tile) {
  LT_UNROLL
  for (int l = 0; l < kLoads; ++l) {
    const int offset = pack_offset<T>(thread, l);
    if (packs) {
      Pack<T> pack;
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) pack.v[i] = narrow<T>(tile.v[l * kPack<T> + i]);
      store_pack(p + base + offset, pack);
    } else {
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) {
        const int64_t at = base + offset + i;
        if (at < n) p[at] = narrow<T>(tile.v[l * kPack<T> + i]);
      }
    }
  }
}

}  // namespace lt
