// Raw loops of mixed_sum on a CPU, one pass of this file per instruction set (common/per_isa.h).
#ifndef LT_ISA

#include "mixed_sum.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/isa.h"

#define LT_KERNEL "../mixed_sum/mixed_sum_kernel.cpp"
#include "../common/per_isa.h"

namespace lt::mixed_sum {

template <class T>
ForwardChunk<T> forward_chunk() {
  return LT_DISPATCH_ISA(forward<T>);
}
template <class T>
BackwardChunk<T> backward_chunk() {
  return LT_DISPATCH_ISA(backward<T>);
}

template ForwardChunk<float> forward_chunk();
template ForwardChunk<double> forward_chunk();
template ForwardChunk<BFloat16> forward_chunk();
template ForwardChunk<Half> forward_chunk();
template BackwardChunk<float> backward_chunk();
template BackwardChunk<double> backward_chunk();
template BackwardChunk<BFloat16> backward_chunk();
template BackwardChunk<Half> backward_chunk();

}  // namespace lt::mixed_sum

#else

namespace lt::mixed_sum::LT_ISA {

#include "../common/vec.h"

// Candidates are taken in groups of eight (then four, two, one): as many streams as the prefetchers follow and the
// registers hold.
constexpr int kGroup = 8;
// Elements of a block, small enough that dy or the running sum stays in the first-level cache across the groups, and
// that a lane sums few products before they join the others in double.
constexpr int64_t kBlock = 512;

// sum[0..n) (+)= Σ_g w_g x_g over one group of candidates; the last group writes y instead.
template <class T, int G, bool Stream>
void sum_group(const T* const* x, const accumulate_t<T>* weights, int64_t begin, int64_t n, bool first, bool last,
               accumulate_t<T>* sum, T* y) {
  using A = accumulate_t<T>;
  const T* from[G];
  A w[G];
  for (int g = 0; g < G; ++g) from[g] = x[g] + begin, w[g] = weights[g];
  T* to = y + begin;
  int64_t i = 0;
  for (; i + line<A> <= n; i += line<A>) {
#pragma GCC unroll 4
    for (int v = 0; v < line_vecs<A>; ++v) {
      const int64_t at = i + v * lanes<A>;
      Vec<A> total = first ? Vec<A>{} : load(sum + at);
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) total += w[g] * load(from[g] + at);
      if (last)
        store<Stream>(to + at, total);
      else
        store<false>(sum + at, total);
    }
  }
  for (; i < n; ++i) {
    A total = first ? A(0) : sum[i];
    for (int g = 0; g < G; ++g) total += w[g] * widen(from[g][i]);
    if (last)
      to[i] = narrow<T>(total);
    else
      sum[i] = total;
  }
}

template <class T, int G, bool Stream>
void sum_groups(const Forward<T>& f, int p, int64_t begin, int64_t n, accumulate_t<T>* sum) {
  for (; f.count - p >= G; p += G)
    sum_group<T, G, Stream>(f.x + p, f.weights + p, begin, n, p == 0, p + G == f.count, sum, f.y);
  if constexpr (G > 1) sum_groups<T, G / 2, Stream>(f, p, begin, n, sum);
}

template <class T, bool Stream>
void sum_block(const Forward<T>& f, int64_t begin, int64_t n) {
  accumulate_t<T> sum[kBlock];
  sum_groups<T, kGroup, Stream>(f, 0, begin, n, sum);
}

// A streamed result must start on a cache line; kChunk and kBlock are whole lines of any type.
template <class T>
bool on_line(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % kLineBytes == 0;
}

template <class T>
void forward(const Forward<T>& f, int64_t begin, int64_t end) {
  const bool stream = f.stream && on_line(f.y);
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = end - at < kBlock ? end - at : kBlock;
    if (stream)
      sum_block<T, true>(f, at, n);
    else
      sum_block<T, false>(f, at, n);
  }
  if (stream) stream_fence();
}

// dx_g = w_g dy and dots[g] += ⟨dy, x_g⟩ over one block of one group of candidates, dy read from cache.
template <class T, int G, bool Dots, bool Dx, bool Stream>
void spread_group(const T* dy, const T* const* x, const accumulate_t<T>* weights, T* const* dx, int64_t begin,
                  int64_t n, double* dots) {
  using A = accumulate_t<T>;
  const T* from[G];
  T* to[G];
  A w[G];
  Vec<A> dot[G];
  A tail[G];
  for (int g = 0; g < G; ++g) {
    if constexpr (Dots) from[g] = x[g] + begin;
    if constexpr (Dx) to[g] = dx[g] + begin;
    w[g] = weights[g], dot[g] = Vec<A>{}, tail[g] = A(0);
  }
  dy += begin;
  int64_t i = 0;
  for (; i + line<A> <= n; i += line<A>) {
    Vec<A> d[line_vecs<A>];
#pragma GCC unroll 4
    for (int v = 0; v < line_vecs<A>; ++v) d[v] = load(dy + i + v * lanes<A>);
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
      for (int v = 0; v < line_vecs<A>; ++v) {
        const int64_t at = i + v * lanes<A>;
        if constexpr (Dots) dot[g] += d[v] * load(from[g] + at);
        if constexpr (Dx) store<Stream>(to[g] + at, w[g] * d[v]);
      }
    }
  }
  for (; i < n; ++i) {
    const A d = widen(dy[i]);
    for (int g = 0; g < G; ++g) {
      if constexpr (Dots) tail[g] += d * widen(from[g][i]);
      if constexpr (Dx) to[g][i] = narrow<T>(w[g] * d);
    }
  }
  if constexpr (Dots)
    for (int g = 0; g < G; ++g) dots[g] += lane_sum<A>(dot[g]) + double(tail[g]);
}

template <class T, int G, bool Dots, bool Dx, bool Stream>
void spread_groups(const Backward<T>& b, int p, int64_t begin, int64_t n, double* dots) {
  for (; b.count - p >= G; p += G)
    spread_group<T, G, Dots, Dx, Stream>(b.dy, Dots ? b.x + p : nullptr, b.weights + p, Dx ? b.dx + p : nullptr, begin,
                                         n, Dots ? dots + p : nullptr);
  if constexpr (G > 1) spread_groups<T, G / 2, Dots, Dx, Stream>(b, p, begin, n, dots);
}

template <class T, bool Dots, bool Dx, bool Stream>
void spread(const Backward<T>& b, int64_t begin, int64_t end, double* dots) {
  for (int64_t at = begin; at < end; at += kBlock)
    spread_groups<T, kGroup, Dots, Dx, Stream>(b, 0, at, end - at < kBlock ? end - at : kBlock, dots);
  if (Stream) stream_fence();
}

template <class T>
void backward(const Backward<T>& b, int64_t begin, int64_t end, double* dots) {
  bool stream = b.stream && b.dx;
  if (b.dx)
    for (int p = 0; p < b.count; ++p) stream = stream && on_line(b.dx[p]);
  if (b.x)
    for (int p = 0; p < b.count; ++p) dots[p] = 0;
  if (!b.dx)
    spread<T, true, false, false>(b, begin, end, dots);
  else if (b.x)
    stream ? spread<T, true, true, true>(b, begin, end, dots) : spread<T, true, true, false>(b, begin, end, dots);
  else
    stream ? spread<T, false, true, true>(b, begin, end, dots) : spread<T, false, true, false>(b, begin, end, dots);
}

}  // namespace lt::mixed_sum::LT_ISA

#endif
