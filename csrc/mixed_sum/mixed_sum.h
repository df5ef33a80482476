// y = Σ_p weights[p] · x_p over P candidates of N elements, and its gradients.
//
// Floor (passes of N elements over memory): forward P + 1; backward with dα 2P + 1, every dx_p and ⟨dy, x_p⟩ in one
// sweep; backward with α frozen P + 1. Eager PyTorch: 5P − 1, 6P, 2P.
#pragma once

#include <cstdint>

#include "../common/scalar.h"

namespace lt::mixed_sum {

// Sums are taken per chunk of this many elements, then over the chunks in order: the same bits for any thread count.
constexpr int64_t kChunk = 16384;

// Elements [begin, end) of one chunk.
template <class T>
struct Forward {
  const T* const* x;
  const accumulate_t<T>* weights;
  int count;
  T* y;
  bool stream;  // bypass the caches for results that are larger than they
};

template <class T>
struct Backward {
  const T* dy;
  const T* const* x;  // nullptr: no dot products
  const accumulate_t<T>* weights;
  int count;
  T* const* dx;  // nullptr: no dx
  bool stream;
};

template <class T>
using ForwardChunk = void (*)(const Forward<T>&, int64_t begin, int64_t end);

// dots[p] = ⟨dy, x_p⟩ over the chunk.
template <class T>
using BackwardChunk = void (*)(const Backward<T>&, int64_t begin, int64_t end, double* dots);

// The kernels of the active instruction set. `begin` is a multiple of kChunk.
template <class T>
ForwardChunk<T> forward_chunk();
template <class T>
BackwardChunk<T> backward_chunk();

}  // namespace lt::mixed_sum
