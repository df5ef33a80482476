// Raw loops of barlow_twins_loss on a CPU, one pass of this file per instruction set (common/per_isa.h).
#ifndef LT_ISA

#include "barlow_twins_loss.h"

#include <cmath>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/isa.h"

#define LT_KERNEL "../barlow_twins_loss/barlow_twins_loss_kernel.cpp"
#include "../common/per_isa.h"

namespace lt::barlow_twins_loss {

template <class T>
StandardizeChunk<T> standardize_chunk() {
  return LT_DISPATCH_ISA(standardize<T>);
}
template <class T>
CombineChunk<T> combine_chunk() {
  return LT_DISPATCH_ISA(combine<T>);
}
template <class A>
DotChunk<A> dot_chunk() {
  return LT_DISPATCH_ISA(dot<A>);
}

template StandardizeChunk<float> standardize_chunk();
template StandardizeChunk<double> standardize_chunk();
template StandardizeChunk<BFloat16> standardize_chunk();
template StandardizeChunk<Half> standardize_chunk();
template CombineChunk<float> combine_chunk();
template CombineChunk<double> combine_chunk();
template CombineChunk<BFloat16> combine_chunk();
template CombineChunk<Half> combine_chunk();
template DotChunk<float> dot_chunk();
template DotChunk<double> dot_chunk();

}  // namespace lt::barlow_twins_loss

#else

namespace lt::barlow_twins_loss::LT_ISA {

#include "../common/vec.h"

// Half a chunk's columns as registers: with their sums and their block's sums they fit the register file.
template <class A>
constexpr int kVecs = kColumns<A> / lanes<A>;

// Rows whose sum is taken before it joins the column's: rounding grows with N / kRows + kRows rather than with N.
constexpr int64_t kRows = 32;

// A row of the chunk in and out of registers; lanes beyond the last column hold zeros and are never stored.
template <class T>
inline void load_row(const T* from, int64_t columns, Vec<accumulate_t<T>>* row) {
  using A = accumulate_t<T>;
  if (columns == kColumns<A>) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs<A>; ++v) row[v] = load(from + v * lanes<A>);
    return;
  }
  A values[kColumns<A>] = {};
  for (int64_t c = 0; c < columns; ++c) values[c] = widen(from[c]);
  for (int v = 0; v < kVecs<A>; ++v) row[v] = load(values + v * lanes<A>);
}

template <bool Stream = false, class T>
inline void store_row(T* to, int64_t columns, const Vec<accumulate_t<T>>* row) {
  using A = accumulate_t<T>;
  if (columns == kColumns<A>) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs<A>; ++v) store<Stream>(to + v * lanes<A>, row[v]);
    return;
  }
  for (int64_t c = 0; c < columns; ++c) to[c] = narrow<T>(row[c / lanes<A>][c % lanes<A>]);
}

// Rows of a chunk lie a page or more apart, where the hardware prefetchers do not follow.
constexpr int64_t kAhead = 8;
template <class T>
inline void prefetch_row(const T* from) {
  for (int i = 0; i < kColumns<accumulate_t<T>>; i += kLineBytes / sizeof(T)) __builtin_prefetch(from + i);
}

// sums[v] = Σ_n term(n, v), kRows rows at a time.
template <class A, class F>
inline void sum_rows(int64_t rows, Vec<A>* sums, const F& term) {
  for (int v = 0; v < kVecs<A>; ++v) sums[v] = Vec<A>{};
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t last = first + kRows < rows ? first + kRows : rows;
    Vec<A> block[kVecs<A>] = {};
    for (int64_t n = first; n < last; ++n) term(n, block);
    for (int v = 0; v < kVecs<A>; ++v) sums[v] += block[v];
  }
}

template <class A>
inline Vec<A> one_over_sqrt(Vec<A> x) {
  for (int i = 0; i < lanes<A>; ++i) x[i] = A(1) / std::sqrt(x[i]);
  return x;
}

#define LT_EACH_VEC _Pragma("GCC unroll 16") for (int v = 0; v < kVecs<A>; ++v)

template <class T>
void standardize(const Standardize<T>& s, int64_t begin, accumulate_t<T>* scratch) {
  using A = accumulate_t<T>;
  const int64_t columns = s.columns - begin < kColumns<A> ? s.columns - begin : kColumns<A>;
  const A over_rows = A(1) / static_cast<A>(s.rows);
  A* const tiles[2] = {scratch, scratch + s.rows * kColumns<A>};
  Vec<A> mean[2][kVecs<A>], inv_std[2][kVecs<A>];
  for (int side = 0; side < 2; ++side) {
    const T* const z = s.z[side] + begin;
    A* const tile = tiles[side];
    // Everything is taken relative to the first row: a large common offset costs no digits, a constant column none.
    Vec<A> first[kVecs<A>];
    load_row(z, columns, first);
    sum_rows<A>(s.rows, mean[side], [&](int64_t n, Vec<A>* sum) {
      Vec<A> row[kVecs<A>];
      prefetch_row(z + (n + kAhead) * s.z_stride[side]);
      load_row(z + n * s.z_stride[side], columns, row);
      LT_EACH_VEC {
        row[v] -= first[v];
        store<false>(tile + n * kColumns<A> + v * lanes<A>, row[v]);
        sum[v] += row[v];
      }
    });
    LT_EACH_VEC mean[side][v] *= over_rows;
    sum_rows<A>(s.rows, inv_std[side], [&](int64_t n, Vec<A>* sum) {
      LT_EACH_VEC {
        const Vec<A> centred = load(tile + n * kColumns<A> + v * lanes<A>) - mean[side][v];
        sum[v] += centred * centred;
      }
    });
    LT_EACH_VEC inv_std[side][v] = one_over_sqrt<A>(inv_std[side][v] * over_rows + static_cast<A>(s.eps));
    if (s.inv_std[side]) store_row(s.inv_std[side] + begin, columns, inv_std[side]);
  }
  Vec<A> diagonal[kVecs<A>];
  sum_rows<A>(s.rows, diagonal, [&](int64_t n, Vec<A>* sum) {
    Vec<A> a[kVecs<A>], b[kVecs<A>];
    LT_EACH_VEC {
      const int64_t at = n * kColumns<A> + v * lanes<A>;
      a[v] = (load(tiles[0] + at) - mean[0][v]) * inv_std[0][v];
      b[v] = (load(tiles[1] + at) - mean[1][v]) * inv_std[1][v];
      sum[v] += a[v] * b[v];
    }
    store_row(s.normalized[0] + n * s.stride + begin, columns, a);
    store_row(s.normalized[1] + n * s.stride + begin, columns, b);
  });
  LT_EACH_VEC diagonal[v] *= over_rows;
  store_row(s.diagonal + begin, columns, diagonal);
}

template <bool Stream, class T>
void combine_chunk_of(const Combine<T>& c, int64_t begin) {
  using A = accumulate_t<T>;
  const int64_t columns = c.columns - begin < kColumns<A> ? c.columns - begin : kColumns<A>;
  const A product_weight = static_cast<A>(c.product_weight * *c.grad);
  const A diagonal_weight = static_cast<A>(c.diagonal_weight * *c.grad);
  Vec<A> diagonal[kVecs<A>], e[kVecs<A>];
  load_row(c.diagonal + begin, columns, diagonal);
  LT_EACH_VEC e[v] = diagonal_weight * (A(1) - diagonal[v] + static_cast<A>(c.lambda_diagonal) * diagonal[v]);
  for (int side = 0; side < 2; ++side) {
    const A* const product = c.products[side] + begin;
    const A* const own = c.normalized[side] + begin;
    const A* const other = c.normalized[1 - side] + begin;
    Vec<A> along[kVecs<A>], inv_std[kVecs<A>], w[kVecs<A>], f[kVecs<A>];
    sum_rows<A>(c.rows, along, [&](int64_t n, Vec<A>* sum) {
      Vec<A> p[kVecs<A>], x[kVecs<A>];
      prefetch_row(product + (n + kAhead) * c.stride);
      prefetch_row(own + (n + kAhead) * c.stride);
      load_row(product + n * c.stride, columns, p);
      load_row(own + n * c.stride, columns, x);
      LT_EACH_VEC sum[v] += p[v] * x[v];
    });
    load_row(c.inv_std[side] + begin, columns, inv_std);
    // dz = w P + f (other) − along (own), the standard deviation multiplied in.
    const A mean_weight = product_weight / static_cast<A>(c.rows);
    LT_EACH_VEC {
      along[v] = inv_std[v] * (mean_weight * along[v] + e[v] * diagonal[v]);
      w[v] = inv_std[v] * product_weight;
      f[v] = inv_std[v] * e[v];
    }
    for (int64_t n = 0; n < c.rows; ++n) {
      Vec<A> p[kVecs<A>], x[kVecs<A>], y[kVecs<A>];
      load_row(product + n * c.stride, columns, p);
      load_row(own + n * c.stride, columns, x);
      load_row(other + n * c.stride, columns, y);
      LT_EACH_VEC p[v] = w[v] * p[v] + f[v] * y[v] - along[v] * x[v];
      store_row<Stream>(c.dz[side] + n * c.dz_stride + begin, columns, p);
    }
  }
  if (Stream) stream_fence();
}

// A streamed store must be aligned to its register's size in memory.
template <class T>
bool on_line(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % kLineBytes == 0;
}

template <class T>
void combine(const Combine<T>& c, int64_t begin) {
  if (c.stream && c.dz_stride * sizeof(T) % kLineBytes == 0 && on_line(c.dz[0] + begin) && on_line(c.dz[1] + begin))
    combine_chunk_of<true>(c, begin);
  else
    combine_chunk_of<false>(c, begin);
}

// In double from the first product on: the Gram form takes a difference of such sums.
template <class A>
double dot(const A* x, const A* y, int64_t n) {
  constexpr int kSums = 32;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(y[i + j]);
  double total = 0;
  for (; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  for (double sum : sums) total += sum;
  return total;
}

#undef LT_EACH_VEC

}  // namespace lt::barlow_twins_loss::LT_ISA

#endif
