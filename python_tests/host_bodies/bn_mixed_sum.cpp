// Runs the bodies of the CUDA kernels of bn_mixed_sum on the host: block by block, phase by phase, thread by thread, in
// the launches of bn_mixed_sum_cuda.cu. Built and called by test_ops_bn_mixed_sum_bodies.py through ctypes.
#include <algorithm>
#include <memory>
#include <vector>

#include "../../csrc/bn_mixed_sum/bn_mixed_sum_body.h"

namespace {

using namespace lt;
using namespace lt::bn_mixed_sum;

// What shared and fresh memory holds before a kernel writes it: nothing that a sum could hide.
template <class Shared>
std::unique_ptr<Shared> poisoned() {
  auto shared = std::make_unique<Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xff, sizeof(Shared));
  return shared;
}

template <class A>
std::vector<A> poisoned(int64_t count) {
  std::vector<A> memory(count);
  std::memset(memory.data(), 0xff, count * sizeof(A));
  return memory;
}

// The arguments of a call as a test passes them.
template <class T>
struct Call {
  const T* const* x;
  const int* slots;
  const bool* batch;
  int count;
  Gates<accumulate_t<T>> gates;
  const accumulate_t<T>*mean, *inv_std;
  int64_t pixels, channels;

  Candidates<T> launch(int p, T* const* dx) const {
    Candidates<T> c{};
    for (; c.count < kMaxCandidates && p + c.count < count; ++c.count) {
      c.x[c.count] = x[p + c.count];
      c.slot[c.count] = slots[p + c.count];
      c.batch[c.count] = batch[p + c.count];
      if (dx) c.dx[c.count] = dx[p + c.count];
    }
    return c;
  }

  // Every block has its own.
  std::vector<accumulate_t<T>> weights(int threads) const {
    auto weights = poisoned<accumulate_t<T>>(gates.rows * gates.K);
    for (int thread = 0; thread < threads; ++thread) mixed_sum::weights_thread(gates, thread, threads, weights.data());
    return weights;
  }
};

template <class T, int W>
void run_forward(const Call<T>& call, T* y) {
  const Grid grid = grid_of(call.pixels, call.channels, W);
  const int64_t blocks = tiles_of(grid, kForwardPixels<T, W>) * grid.channel_blocks;
  const auto weights = call.weights(kThreads);
  for (int p = 0; p < call.count; p += kMaxCandidates) {
    const int64_t row = p * call.channels;
    const ForwardPass<T> f{call.launch(p, nullptr), call.gates, grid, call.mean + row, call.inv_std + row, y, p > 0};
    for (int64_t block = 0; block < blocks; ++block)
      for (int thread = 0; thread < kThreads; ++thread) forward_thread<T, W>(f, weights.data(), block, thread);
  }
}

template <class T, int W>
void run_sums(const SumsPass<T>& s, int64_t blocks) {
  for (int64_t block = 0; block < blocks; ++block) {
    const auto shared = poisoned<SumsShared<T, W>>();
    for (int thread = 0; thread < kThreads; ++thread) sums_thread(s, block, thread, *shared);
    for (int thread = 0; thread < kThreads; ++thread) partial_thread(s, block, thread, *shared);
  }
}

template <class A>
void run_tables(const TablesPass<A>& t, const A* weights) {
  for (int64_t block = 0; block < t.c.count * table_blocks(t.channels); ++block) {
    const auto shared = poisoned<TablesShared>();
    for (int thread = 0; thread < kTableThreads; ++thread) totals_thread(t, block, thread, *shared);
    for (int thread = 0; thread < kTableThreads; ++thread) tables_thread(t, weights, block, thread, *shared);
  }
}

template <class A>
void run_alpha(const Launch& c, const Gates<A>& gates, const A* weights, const double* share, int64_t channels,
               bool first, bool last, double* dots, double* grad_alpha) {
  auto by_candidate = poisoned<double>(kMaxCandidates);
  for (int p = 0; p < c.count; ++p) {
    double lanes[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = mixed_sum::dots_lane(share + p * channels, channels, lane);
    by_candidate[p] = warp_sum_on_host(lanes);
  }
  for (int thread = 0; thread < kAlphaThreads; ++thread)
    dots_thread(c, by_candidate.data(), gates.rows * gates.K, first, thread, dots);
  if (!last) return;
  for (int thread = 0; thread < kAlphaThreads; ++thread)
    mixed_sum::alpha_thread(gates, weights, dots, thread, kAlphaThreads, grad_alpha);
}

// `with_sums` false: no candidate's gradient asks for the sums, and nobody for that of α.
template <class T, int W>
void run_backward(const Call<T>& call, const T* dy, bool with_sums, T* const* dx, double* grad_alpha) {
  using A = accumulate_t<T>;
  const int64_t C = call.channels;
  const Grid grid = grid_of(call.pixels, C, W);
  const int64_t tiles = tiles_of(grid, kPixels<T, W>);
  const auto weights = call.weights(kTableThreads);
  auto scale = poisoned<A>(call.count * C), shift = scale, slope = scale;
  auto partial = poisoned<A>((std::min(call.count, kMaxCandidates) + 1) * tiles * C);
  auto share = poisoned<double>(call.count * C), dots = poisoned<double>(call.gates.rows * call.gates.K);
  for (int p = 0; p < call.count; p += kMaxCandidates) {
    const Candidates<T> c = call.launch(p, dx);
    const int groups = groups_of<T, W>(c.count);
    const int64_t blocks = tiles * grid.channel_blocks * groups, row = p * C;
    A* const sums = with_sums ? partial.data() : nullptr;
    if (with_sums) run_sums<T, W>({c, grid, groups, dy, call.mean + row, tiles, sums}, blocks);
    run_tables<A>({c, call.gates, grid.pixels, C, tiles, sums, call.inv_std + row, scale.data() + row,
                   shift.data() + row, slope.data() + row, share.data() + row},
                  weights.data());
    if (with_sums)
      run_alpha(c, call.gates, weights.data(), share.data() + row, C, p == 0, p + kMaxCandidates >= call.count,
                dots.data(), grad_alpha);
    const GradientPass<T> g{
        c, grid, groups, dy, call.mean + row, scale.data() + row, shift.data() + row, slope.data() + row};
    for (int64_t block = 0; block < blocks; ++block)
      for (int thread = 0; thread < kThreads; ++thread) gradient_thread<T, W>(g, block, thread);
  }
}

template <class T, int W>
void run_moments(const T* x, int64_t pixels, int64_t channels, accumulate_t<T>* moments) {
  const Grid grid = grid_of(pixels, channels, W);
  const int64_t tiles = tiles_of(grid, kPixels<T, W>);
  auto partial = poisoned<double>(tiles * 2 * channels);
  const MomentsPass<T> m{x, grid, tiles, partial.data(), moments};
  for (int64_t block = 0; block < tiles * grid.channel_blocks; ++block) {
    const auto shared = poisoned<MomentsShared<T, W>>();
    for (int thread = 0; thread < kThreads; ++thread) squares_thread(m, block, thread, *shared);
    for (int thread = 0; thread < kThreads; ++thread) centre_thread(m, block, thread, *shared);
  }
  for (int64_t block = 0; block < table_blocks(channels); ++block) {
    const auto shared = poisoned<CombineShared>();
    for (int thread = 0; thread < kTableThreads; ++thread) means_thread<T, W>(m, block, thread, *shared);
    for (int thread = 0; thread < kTableThreads; ++thread) distances_thread<T, W>(m, block, thread, *shared);
    for (int thread = 0; thread < kTableThreads; ++thread) moments_thread(m, block, thread, *shared);
  }
}

}  // namespace

#define LT_HOST_RUN(name, T, W)                                                                                        \
  extern "C" void forward_##name(const T* const* x, const int* slots, const bool* batch, int count,                    \
                                 const accumulate_t<T>* alpha, int rows, int K, int gate, const accumulate_t<T>* mean, \
                                 const accumulate_t<T>* inv_std, int64_t pixels, int64_t channels, T* y) {             \
    run_forward<T, W>(                                                                                                 \
        {x, slots, batch, count, {alpha, rows, K, static_cast<Gate>(gate)}, mean, inv_std, pixels, channels}, y);      \
  }                                                                                                                    \
  extern "C" void backward_##name(const T* const* x, const int* slots, const bool* batch, int count,                   \
                                  const accumulate_t<T>* alpha, int rows, int K, int gate,                             \
                                  const accumulate_t<T>* mean, const accumulate_t<T>* inv_std, int64_t pixels,         \
                                  int64_t channels, const T* dy, bool with_sums, T* const* dx, double* grad_alpha) {   \
    run_backward<T, W>(                                                                                                \
        {x, slots, batch, count, {alpha, rows, K, static_cast<Gate>(gate)}, mean, inv_std, pixels, channels}, dy,      \
        with_sums, dx, grad_alpha);                                                                                    \
  }                                                                                                                    \
  extern "C" void moments_##name(const T* x, int64_t pixels, int64_t channels, accumulate_t<T>* moments) {             \
    run_moments<T, W>(x, pixels, channels, moments);                                                                   \
  }
LT_HOST_RUN(float_4, float, 4)
LT_HOST_RUN(double_2, double, 2)
LT_HOST_RUN(bfloat16_8, BFloat16, 8)
LT_HOST_RUN(bfloat16_4, BFloat16, 4)
LT_HOST_RUN(half_8, Half, 8)
LT_HOST_RUN(half_4, Half, 4)
