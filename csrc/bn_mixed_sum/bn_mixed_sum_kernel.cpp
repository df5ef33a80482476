// Raw loops of bn_mixed_sum on a CPU, one pass of this file per instruction set (common/per_isa.h).
#ifndef LT_ISA

#include "bn_mixed_sum.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/isa.h"

#define LT_KERNEL "../bn_mixed_sum/bn_mixed_sum_kernel.cpp"
#include "../common/per_isa.h"

namespace lt::bn_mixed_sum {

template <class A>
ForwardChunk<A> forward_chunk(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), forward<A>);
}
template <class A>
SumsChunk<A> sums_chunk(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), sums<A>);
}
template <class A>
GradientChunk<A> gradient_chunk(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), gradient<A>);
}
template <class A>
MomentsChunk<A> moments_chunk(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), moments_of<A>);
}

template ForwardChunk<float> forward_chunk(int64_t);
template ForwardChunk<double> forward_chunk(int64_t);
template SumsChunk<float> sums_chunk(int64_t);
template SumsChunk<double> sums_chunk(int64_t);
template GradientChunk<float> gradient_chunk(int64_t);
template GradientChunk<double> gradient_chunk(int64_t);
template MomentsChunk<float> moments_chunk(int64_t);
template MomentsChunk<double> moments_chunk(int64_t);

}  // namespace lt::bn_mixed_sum

#else

namespace lt::bn_mixed_sum::LT_ISA {

#include "../common/vec.h"
// (vec.h first)
#include "../common/moments.h"

// Candidates are taken in groups of eight, then four, two, one: as many streams as the prefetchers follow.
constexpr int kGroup = 8;

// y (+)= Σ_g scale_g x_g over one group of candidates, beginning with the offset.
template <int G, class A>
void sum_group(const Forward<A>& f, int p, int64_t begin, int64_t end) {
  const int64_t C = f.channels;
  const A* from[G];
  for (int g = 0; g < G; ++g) from[g] = f.x[p + g];
  const A* const scale = f.scale + p * C;
  for (int64_t i = begin * C; i < end * C; i += C)
    for (int64_t c = 0; c < C; c += lanes<A>) {
      Vec<A> total = load(p == 0 ? f.offset + c : f.y + i + c);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) total += load(scale + g * C + c) * load(from[g] + i + c);
      store<false>(f.y + i + c, total);
    }
}

template <int G, class A>
void sum_groups(const Forward<A>& f, int p, int64_t begin, int64_t end) {
  for (; f.count - p >= G; p += G) sum_group<G>(f, p, begin, end);
  if constexpr (G > 1) sum_groups<G / 2>(f, p, begin, end);
}

template <class A>
void forward(const Forward<A>& f, int64_t begin, int64_t end) {
  sum_groups<kGroup>(f, 0, begin, end);
}

template <class A>
inline void add_lanes(Vec<A> v, double* sums) {
  for (int l = 0; l < lanes<A>; ++l) sums[l] += v[l];
}

// along_g += Σ dy (x_g − mean_g), one register of channels at a time.
template <int G, class A>
void along_group(const Sums<A>& s, int p, int64_t begin, int64_t end, double* along) {
  const int64_t C = s.channels;
  for (int64_t c = 0; c < C; c += lanes<A>) {
    Vec<A> sum[G], mean[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) sum[g] = Vec<A>{}, mean[g] = load(s.mean + (p + g) * C + c);
    for (int64_t i = begin * C + c; i < end * C; i += C) {
      const Vec<A> d = load(s.dy + i);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) sum[g] += d * (load(s.x[p + g] + i) - mean[g]);
    }
    for (int g = 0; g < G; ++g) add_lanes<A>(sum[g], along + (p + g) * C + c);
  }
}

template <int G, class A>
void along_groups(const Sums<A>& s, int p, int64_t begin, int64_t end, double* along) {
  for (; s.count - p >= G; p += G) along_group<G>(s, p, begin, end, along);
  if constexpr (G > 1) along_groups<G / 2>(s, p, begin, end, along);
}

template <class A>
void sums(const Sums<A>& s, int64_t begin, int64_t end, double* along, double* total) {
  const int64_t C = s.channels;
  for (int64_t c = 0; c < C; c += lanes<A>) {
    Vec<A> sum = {};
    for (int64_t i = begin * C + c; i < end * C; i += C) sum += load(s.dy + i);
    for (int l = 0; l < lanes<A>; ++l) total[c + l] = sum[l];
  }
  for (int64_t i = 0; i < s.count * C; ++i) along[i] = 0;
  along_groups<4>(s, 0, begin, end, along);
}

template <class A>
void gradient(const Gradient<A>& g, int64_t begin, int64_t end) {
  const int64_t C = g.channels;
  for (int p = 0; p < g.count; ++p) {
    if (!g.dx[p]) continue;
    const A* const x = g.affine[p] ? g.x[p] : nullptr;
    A* const dx = g.dx[p];
    const A *const scale = g.scale + p * C, *const shift = g.shift + p * C, *const slope = g.slope + p * C;
    const A* const mean = g.mean + p * C;
    for (int64_t i = begin * C; i < end * C; i += C)
      for (int64_t c = 0; c < C; c += lanes<A>) {
        Vec<A> d = load(scale + c) * load(g.dy + i + c);
        if (x) d += load(shift + c) + load(slope + c) * (load(x + i + c) - load(mean + c));
        store<false>(dx + i + c, d);
      }
  }
}

template <class A>
void moments_of(const A* x, int64_t channels, int64_t pixels, double* moments) {
  for (int64_t i = 0; i < 2 * channels; ++i) moments[i] = 0;
  add_moments(x, x, channels, pixels, moments);
  centre_moments(x, channels, pixels, moments);
}

}  // namespace lt::bn_mixed_sum::LT_ISA

#endif
