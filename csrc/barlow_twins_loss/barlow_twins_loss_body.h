// The bodies of the CUDA kernels of barlow_twins_loss as functions of (block, thread), one phase between two barriers
// each, so that a host build can run them thread by thread. No PyTorch header.
#pragma once

#include "../common/block_reduce.h"
#include "barlow_twins_loss.h"

#if !defined(__CUDACC__)
#include <cmath>
#endif

namespace lt::barlow_twins_loss {

// A block takes kBlockColumns columns; kLanes threads share a column, rows dealt out in turn. Two rows of 64 bytes a
// warp keep float32 traffic in whole sectors, and few columns a block keep a GPU busy at small D.
constexpr int kBlockColumns = 16;
constexpr int kLanes = 32;
constexpr int kBlockThreads = kBlockColumns * kLanes;

// One number a thread, for sums over the lanes of a column.
template <class A>
using Shares = A[kBlockThreads];

template <class A>
struct StandardizeShared {
  Shares<A> sum[2], squares[2], products;
};

template <class A>
struct CombineShared {
  Shares<A> along[2];
};

LT_HOST_DEVICE int lane_of(int thread) { return thread / kBlockColumns; }
LT_HOST_DEVICE int64_t column_of(int64_t block, int thread) { return block * kBlockColumns + thread % kBlockColumns; }

// First lane first: the same bits in every thread of the column.
template <class A>
LT_HOST_DEVICE A column_sum(const Shares<A>& shares, int thread) {
  A total = A(0);
  LT_UNROLL
  for (int lane = 0; lane < kLanes; ++lane) total += shares[lane * kBlockColumns + thread % kBlockColumns];
  return total;
}

template <class A>
LT_HOST_DEVICE A one_over_sqrt(A x) {
#if defined(__CUDA_ARCH__)
  return A(1) / sqrt(x);
#else
  return A(1) / std::sqrt(x);
#endif
}

// z relative to the column's first element: a large common offset costs no digits, a constant column none.
template <class T>
struct Column {
  const T* z;
  int64_t stride;
  accumulate_t<T> first;

  LT_HOST_DEVICE Column(const Standardize<T>& s, int side, int64_t column)
      : z(s.z[side] + column), stride(s.z_stride[side]), first(widen(z[0])) {}
  LT_HOST_DEVICE accumulate_t<T> operator[](int64_t n) const { return widen(z[n * stride]) - first; }
};

// Phase 1: this thread's share of the columns' sums.
template <class T>
LT_HOST_DEVICE void sum_thread(const Standardize<T>& s, int64_t block, int thread,
                               StandardizeShared<accumulate_t<T>>& shared) {
  using A = accumulate_t<T>;
  const int64_t column = column_of(block, thread);
  if (column >= s.columns) return;
  for (int side = 0; side < 2; ++side) {
    const Column<T> z(s, side, column);
    A sum = A(0);
    LT_UNROLL_4
    for (int64_t n = lane_of(thread); n < s.rows; n += kLanes) sum += z[n];
    shared.sum[side][thread] = sum;
  }
}

// Phase 2: of the squared distances to the mean.
template <class T>
LT_HOST_DEVICE void squares_thread(const Standardize<T>& s, int64_t block, int thread,
                                   StandardizeShared<accumulate_t<T>>& shared) {
  using A = accumulate_t<T>;
  const int64_t column = column_of(block, thread);
  if (column >= s.columns) return;
  for (int side = 0; side < 2; ++side) {
    const Column<T> z(s, side, column);
    const A mean = column_sum(shared.sum[side], thread) / static_cast<A>(s.rows);
    A squares = A(0);
    LT_UNROLL_4
    for (int64_t n = lane_of(thread); n < s.rows; n += kLanes) {
      const A centred = z[n] - mean;
      squares += centred * centred;
    }
    shared.squares[side][thread] = squares;
  }
}

// Phase 3: the normalised columns, and this thread's share of their products.
template <class T>
LT_HOST_DEVICE void normalize_thread(const Standardize<T>& s, int64_t block, int thread,
                                     StandardizeShared<accumulate_t<T>>& shared) {
  using A = accumulate_t<T>;
  const int64_t column = column_of(block, thread);
  if (column >= s.columns) return;
  const Column<T> za(s, 0, column), zb(s, 1, column);
  const A rows = static_cast<A>(s.rows);
  A mean[2], inv_std[2];
  LT_UNROLL
  for (int side = 0; side < 2; ++side) {
    mean[side] = column_sum(shared.sum[side], thread) / rows;
    inv_std[side] = one_over_sqrt(column_sum(shared.squares[side], thread) / rows + static_cast<A>(s.eps));
    if (lane_of(thread) == 0) s.inv_std[side][column] = inv_std[side];
  }
  A products = A(0);
  LT_UNROLL_4
  for (int64_t n = lane_of(thread); n < s.rows; n += kLanes) {
    const A a = (za[n] - mean[0]) * inv_std[0];
    const A b = (zb[n] - mean[1]) * inv_std[1];
    s.normalized[0][n * s.stride + column] = a;
    s.normalized[1][n * s.stride + column] = b;
    products += a * b;
  }
  shared.products[thread] = products;
}

// Phase 4: the diagonal of C.
template <class T>
LT_HOST_DEVICE void diagonal_thread(const Standardize<T>& s, int64_t block, int thread,
                                    const StandardizeShared<accumulate_t<T>>& shared) {
  const int64_t column = column_of(block, thread);
  if (column >= s.columns || lane_of(thread) != 0) return;
  s.diagonal[column] = column_sum(shared.products, thread) / static_cast<accumulate_t<T>>(s.rows);
}

// Phase 1: this thread's share of Σ_n P ⊙ own normalised, of both sides.
template <class T>
LT_HOST_DEVICE void along_thread(const Combine<T>& c, int64_t block, int thread,
                                 CombineShared<accumulate_t<T>>& shared) {
  using A = accumulate_t<T>;
  const int64_t column = column_of(block, thread);
  if (column >= c.columns) return;
  for (int side = 0; side < 2; ++side) {
    A along = A(0);
    LT_UNROLL_4
    for (int64_t n = lane_of(thread); n < c.rows; n += kLanes) {
      const int64_t at = n * c.stride + column;
      along += c.products[side][at] * c.normalized[side][at];
    }
    shared.along[side][thread] = along;
  }
}

// Phase 2: dz = inv_std (w P + e other − mean_n((w P + e other) own) own), of both sides.
template <class T>
LT_HOST_DEVICE void combine_thread(const Combine<T>& c, int64_t block, int thread,
                                   const CombineShared<accumulate_t<T>>& shared) {
  using A = accumulate_t<T>;
  const int64_t column = column_of(block, thread);
  if (column >= c.columns) return;
  const A w = static_cast<A>(c.product_weight * *c.grad);
  const A diagonal = c.diagonal[column];
  const A e =
      static_cast<A>(c.diagonal_weight * *c.grad) * (A(1) - diagonal + static_cast<A>(c.lambda_diagonal) * diagonal);
  A along[2], inv_std[2];
  LT_UNROLL
  for (int side = 0; side < 2; ++side) {
    along[side] = w / static_cast<A>(c.rows) * column_sum(shared.along[side], thread) + e * diagonal;
    inv_std[side] = c.inv_std[side][column];
  }
  LT_UNROLL_4
  for (int64_t n = lane_of(thread); n < c.rows; n += kLanes) {
    const int64_t at = n * c.stride + column, to = n * c.dz_stride + column;
    const A a = c.normalized[0][at], b = c.normalized[1][at];
    c.dz[0][to] = narrow<T>(inv_std[0] * (w * c.products[0][at] + e * b - along[0] * a));
    c.dz[1][to] = narrow<T>(inv_std[1] * (w * c.products[1][at] + e * a - along[1] * b));
  }
}

// This thread's share of ⟨x, y⟩ over one chunk, in double from the first product on.
template <class A>
LT_HOST_DEVICE double dot_thread(const Loss<A>& l, int64_t chunk, int thread) {
  const int64_t begin = chunk * kDotChunk;
  const int64_t end = begin + kDotChunk < l.elements ? begin + kDotChunk : l.elements;
  double sum = 0;
  LT_UNROLL_4
  for (int64_t i = begin + thread; i < end; i += kThreads)
    sum += static_cast<double>(l.x[i]) * static_cast<double>(l.y[i]);
  return sum;
}

// This thread's share of the loss, from the partial sums of all chunks and the diagonal.
template <class A>
LT_HOST_DEVICE double loss_thread(const Loss<A>& l, int thread) {
  double off = 0, on = 0;
  const int64_t chunks = chunks_of(l.elements);
  for (int64_t chunk = thread; chunk < chunks; chunk += kThreads) off += l.partial[chunk];
  for (int64_t i = thread; i < l.columns; i += kThreads) on += diagonal_share(l, i);
  return l.scale * (l.lambda * off / (l.rows * l.rows) + on);
}

}  // namespace lt::barlow_twins_loss
