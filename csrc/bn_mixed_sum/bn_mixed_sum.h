// y = Σ_p w_p · (x_p − mean_p) inv_std_p over P candidates of N channels_last numbers, per channel, and its gradients.
//
// With M numbers a channel, x̂_p = (x_p − mean_p) inv_std_p and S_p = Σ dy · x̂_p over a channel's numbers:
//   ∂/∂w_p = Σ_c S_pc,   dx_p = w_p inv_std_p (dy − Σ dy / M − x̂_p S_p / M),
// the last two terms only where mean_p and inv_std_p are the batch's own.
//
// Floor (passes of N numbers over memory): forward P + 1, and P more where no producer has taken the statistics; backward
// 3P + 2: the sums P + 1, the gradients 2P + 1. Eager PyTorch: 8P − 1 and 11P.
#pragma once

#include <cstdint>

#include "../common/scalar.h"

namespace lt::bn_mixed_sum {

// Numbers of a chunk, about: whole pixels. Sums are taken per chunk, then over the chunks in order.
constexpr int64_t kChunk = 4096;

inline int64_t chunk_pixels(int64_t channels) { return channels < kChunk ? kChunk / channels : 1; }

// Pixels [begin, end) of y[i] = offset + Σ_p scale_p x_p[i].
template <class A>
struct Forward {
  const A* const* x;
  const A* scale;   // (P, C): w_p inv_std_p
  const A* offset;  // (C,): −Σ_p w_p inv_std_p mean_p
  int count;
  int64_t channels;
  A* y;
};

// along[p] = Σ dy (x_p − mean_p) and total = Σ dy over pixels [begin, end), a number a channel.
template <class A>
struct Sums {
  const A* dy;
  const A* const* x;
  const A* mean;  // (P, C)
  int count;
  int64_t channels;
};

// dx_p = scale_p dy + shift_p + slope_p (x_p − mean_p).
template <class A>
struct Gradient {
  const A* dy;
  const A* const* x;
  const A* mean;  // each (P, C)
  const A* scale;
  const A* shift;
  const A* slope;
  const bool* affine;  // (P,): shift and slope are not zero
  int count;
  int64_t channels;
  A* const* dx;  // per candidate, or nullptr
};

template <class A>
using ForwardChunk = void (*)(const Forward<A>&, int64_t begin, int64_t end);
template <class A>
using SumsChunk = void (*)(const Sums<A>&, int64_t begin, int64_t end, double* along, double* total);
template <class A>
using GradientChunk = void (*)(const Gradient<A>&, int64_t begin, int64_t end);
// Mean and sum of squared distances to it of some pixels: (2, C).
template <class A>
using MomentsChunk = void (*)(const A* x, int64_t channels, int64_t pixels, double* moments);

template <class A>
ForwardChunk<A> forward_chunk(int64_t channels);
template <class A>
SumsChunk<A> sums_chunk(int64_t channels);
template <class A>
GradientChunk<A> gradient_chunk(int64_t channels);
template <class A>
MomentsChunk<A> moments_chunk(int64_t channels);

}  // namespace lt::bn_mixed_sum
