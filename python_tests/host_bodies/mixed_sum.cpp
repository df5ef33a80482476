// Runs the bodies of the CUDA kernels of mixed_sum on the host: block by block, thread by thread, phase by phase.
// Built and called by test_ops_mixed_sum_bodies.py through ctypes; float32 and float64.
#include <vector>

#include "../../csrc/mixed_sum/mixed_sum_body.h"

namespace {

using namespace lt;
using namespace lt::mixed_sum;

template <class T>
Candidates<T> candidates(const T* const* x, T* const* dx, const int* slots, int count) {
  Candidates<T> c{};
  c.count = count;
  for (int p = 0; p < count; ++p) {
    if (x) c.x[p] = x[p];
    if (dx) c.dx[p] = dx[p];
    c.slot[p] = slots[p];
  }
  return c;
}

template <class T>
std::vector<accumulate_t<T>> weights_phase(const Gates<T>& g) {
  std::vector<accumulate_t<T>> weights(g.rows * g.K);
  for (int thread = 0; thread < kThreads; ++thread) weights_thread(g, thread, kThreads, weights.data());
  return weights;
}

template <class T>
void run_forward(const T* const* x, const int* slots, int count, const T* alpha, int rows, int K, int gate, T* y,
                 int64_t n, bool aligned) {
  const Gates<T> g{alpha, rows, K, static_cast<Gate>(gate)};
  const auto weights = weights_phase(g);
  const int64_t blocks = (n + kTileElements<T> - 1) / kTileElements<T>;
  for (int first = 0; first < count; first += kMaxCandidates) {
    const int some = std::min(kMaxCandidates, count - first);
    const Candidates<T> c = candidates<T>(x + first, nullptr, slots + first, some);
    for (int64_t block = 0; block < blocks; ++block)
      for (int thread = 0; thread < kThreads; ++thread)
        forward_thread(c, weights.data(), y, first > 0, aligned, n, block, thread);
  }
}

template <class T>
void run_backward(const T* dy, const T* const* x, T* const* dx, const int* slots, int count, const T* alpha, int rows,
                  int K, int gate, double* grad_alpha, int64_t n, bool aligned) {
  using A = accumulate_t<T>;
  const Gates<T> g{alpha, rows, K, static_cast<Gate>(gate)};
  const auto weights = weights_phase(g);
  const int64_t blocks = (n + kTileElements<T> - 1) / kTileElements<T>;
  std::vector<double> dots(rows * K, 0.0);
  for (int begin = 0; begin < count; begin += kMaxCandidates) {
    const Candidates<T> c =
        candidates<T>(x + begin, dx + begin, slots + begin, std::min(kMaxCandidates, count - begin));
    std::vector<A> partial(c.count * blocks, A(-1e30));
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t base = block * kTileElements<T>;
      const bool packs = aligned && whole_tile<T>(base, n);
      std::vector<A> warp_dots(kWarps * kMaxCandidates, A(-1e30)), thread_dots(kThreads * kTogether);
      for (int first = 0; first < c.count; first += kTogether) {
        for (int thread = 0; thread < kThreads; ++thread)
          backward_thread<T, true>(c, weights.data(), load_tile(dy, base, n, thread, packs), first, packs, base, n,
                                   thread, thread_dots.data() + thread * kTogether);
        for (int warp = 0; warp < kWarps; ++warp)
          for (int g_ = 0; g_ < kTogether && first + g_ < c.count; ++g_) {
            A lanes[kWarp];
            for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = thread_dots[(warp * kWarp + lane) * kTogether + g_];
            warp_dots[warp * kMaxCandidates + first + g_] = warp_sum_on_host(lanes);
          }
      }
      for (int thread = 0; thread < kThreads; ++thread)
        partial_thread<T>(c.count, warp_dots.data(), block, blocks, thread, partial.data());
    }
    for (int p = 0; p < c.count; ++p) {
      double lanes[kWarp];
      for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = dots_lane(partial.data() + p * blocks, blocks, lane);
      dots[c.slot[p]] += warp_sum_on_host(lanes);
    }
  }
  for (int thread = 0; thread < kThreads; ++thread)
    alpha_thread(g, weights.data(), dots.data(), thread, kThreads, grad_alpha);
}

}  // namespace

#define LT_HOST_RUN(name, T)                                                                                      \
  extern "C" void forward_##name(const T* const* x, const int* slots, int count, const T* alpha, int rows, int K, \
                                 int gate, T* y, int64_t n, bool aligned) {                                       \
    run_forward<T>(x, slots, count, alpha, rows, K, gate, y, n, aligned);                                         \
  }                                                                                                               \
  extern "C" void backward_##name(const T* dy, const T* const* x, T* const* dx, const int* slots, int count,      \
                                  const T* alpha, int rows, int K, int gate, double* grad_alpha, int64_t n,       \
                                  bool aligned) {                                                                 \
    run_backward<T>(dy, x, dx, slots, count, alpha, rows, K, gate, grad_alpha, n, aligned);                       \
  }
LT_HOST_RUN(float, float)
LT_HOST_RUN(double, double)
