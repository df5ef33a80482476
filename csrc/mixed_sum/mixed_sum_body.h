// The bodies of the CUDA kernels of mixed_sum as functions of (block, thread), one phase between two barriers each, so
// that a host build can run them thread by thread (python_tests/host_bodies). No PyTorch header.
#pragma once

#include "../common/block_reduce.h"
#include "../common/gate.h"
#include "../common/tile.h"

namespace lt::mixed_sum {

// Candidates of one launch; a longer list is a chain of launches.
constexpr int kMaxCandidates = 64;
// Candidates whose loads are in flight together in the backward sweep.
constexpr int kTogether = 4;

// Travels to the device by value: no copy, so a captured graph holds everything.
template <class T>
struct Candidates {
  const T* x[kMaxCandidates];
  T* dx[kMaxCandidates];
  int slot[kMaxCandidates];
  int count;
};

template <class T>
struct Gates {
  const accumulate_t<T>* alpha;
  int rows;
  int K;
  Gate gate;
};

// Phase 0 of every kernel: weights of all rows into shared memory.
template <class T>
LT_HOST_DEVICE void weights_thread(const Gates<T>& g, int thread, int threads, accumulate_t<T>* weights) {
  for (int row = thread; row < g.rows; row += threads) gate_row(g.gate, g.alpha + row * g.K, g.K, weights + row * g.K);
}

// y (+)= Σ_p w_p x_p over one tile.
template <class T>
LT_HOST_DEVICE void forward_thread(const Candidates<T>& c, const accumulate_t<T>* weights, T* y, bool add, bool aligned,
                                   int64_t n, int64_t block, int thread) {
  const int64_t base = block * kTileElements<T>;
  const bool packs = aligned && whole_tile<T>(base, n);
  Tile<T> sum{};
  if (add) sum = load_tile(y, base, n, thread, packs);
  LT_UNROLL_4
  for (int p = 0; p < c.count; ++p) {
    const Tile<T> x = load_tile(c.x[p], base, n, thread, packs);
    const accumulate_t<T> w = weights[c.slot[p]];
    LT_UNROLL
    for (int i = 0; i < kLoads * kPack<T>; ++i) sum.v[i] += w * x.v[i];
  }
  store_tile(y, base, n, thread, packs, sum);
}

// dx_p = w_p dy and this thread's share of ⟨dy, x_p⟩ for up to kTogether candidates from `first` on.
template <class T, bool Dots>
LT_HOST_DEVICE void backward_thread(const Candidates<T>& c, const accumulate_t<T>* weights, const Tile<T>& dy,
                                    int first, bool packs, int64_t base, int64_t n, int thread, accumulate_t<T>* dots) {
  Tile<T> x[kTogether];
  if (Dots) {
    LT_UNROLL
    for (int g = 0; g < kTogether; ++g)
      if (first + g < c.count) x[g] = load_tile(c.x[first + g], base, n, thread, packs);
  }
  LT_UNROLL
  for (int g = 0; g < kTogether; ++g) {
    dots[g] = accumulate_t<T>(0);
    if (first + g >= c.count) continue;
    if (Dots) {
      LT_UNROLL
      for (int i = 0; i < kLoads * kPack<T>; ++i) dots[g] += dy.v[i] * x[g].v[i];
    }
    if (c.dx[first + g] != nullptr) {
      Tile<T> dx;
      const accumulate_t<T> w = weights[c.slot[first + g]];
      LT_UNROLL
      for (int i = 0; i < kLoads * kPack<T>; ++i) dx.v[i] = w * dy.v[i];
      store_tile(c.dx[first + g], base, n, thread, packs, dx);
    }
  }
}

// After the sweep's barrier: the block's sum of each candidate, to partial[p][block].
template <class T>
LT_HOST_DEVICE void partial_thread(int count, const accumulate_t<T>* warp_dots, int64_t block, int64_t blocks,
                                   int thread, accumulate_t<T>* partial) {
  for (int p = thread; p < count; p += kThreads)
    partial[p * blocks + block] = sum_of_warps(warp_dots + p, kMaxCandidates);
}

// Lane's share of the sum of one candidate's partial sums over all blocks.
template <class A>
LT_HOST_DEVICE double dots_lane(const A* partial, int64_t blocks, int lane) {
  double sum = 0;
  for (int64_t block = lane; block < blocks; block += kWarp) sum += double(partial[block]);
  return sum;
}

// dα of the rows from the dot products by slot.
template <class T>
LT_HOST_DEVICE void alpha_thread(const Gates<T>& g, const accumulate_t<T>* weights, const double* dots, int thread,
                                 int threads, double* grad_alpha) {
  for (int row = thread; row < g.rows; row += threads)
    gate_row_backward(g.gate, weights + row * g.K, dots + row * g.K, g.K, grad_alpha + row * g.K);
}

}  // namespace lt::mixed_sum
