// Runs the bodies of the CUDA kernels of sep_unit on the host: block by block, phase by phase, thread by thread. Built
// and called by test_ops_sep_unit_bodies.py through ctypes.
#include "../../csrc/sep_unit/sep_unit_warp.h"
#include "phases.h"

namespace {

using namespace lt;
using namespace lt::sep_unit;
using namespace lt::host;

struct Sizes {
  int64_t images, channels, out_channels, edges, height, width;
  int kernel, stride, dilation;
  bool shared;
  int64_t shared_bytes;

  Window window() const { return {height, width, kernel, stride, dilation}; }
};

template <class T, class O, int K, int Shift>
void forward_blocks(const UnitForward<T, O>& f) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = f.tiles;
  for (int64_t tile = 0; tile < f.count; ++tile)
    for (int group = 0; group < f.groups(); ++group) {
      auto memory = poisoned<A>(f.shared_elements());
      const ForwardShared<A, O> s = forward_shared(f, memory.data());
      const Place place = place_of(t, tile);
      const int begin = group * f.edges_a_group, end = std::min(f.edges, begin + f.edges_a_group);
      for (int edge = begin; edge < end; ++edge) {
        for (int first = 0; first < t.channels; first += t.chunk) {
          const int count = t.chunk_channels(first), own = f.source(edge) * t.channels;
          if (edge == begin || !f.shared || t.chunks() > 1)
            phase([&](int thread) {
              fill_thread(t, place, f.x[f.source(edge)], first, count, f.mean ? f.mean + own : nullptr,
                          f.mean ? f.inv_std + own : nullptr, true, thread, s.a);
            });
          phase([&](int thread) { between_thread<K, Shift>(t, f.depthwise, edge, first, count, s.a, thread, s.u); });
          phase([&](int thread) {
            if constexpr (kOnTensorCores<T, O>)
              pointwise_warp(f, edge, first, count, s, thread);
            else
              pointwise_thread(f, place, edge, first, count, s, thread);
          });
        }
        if constexpr (kOnTensorCores<T, O>) phase([&](int thread) { store_z_thread(f, place, edge, s, thread); });
        phase([&](int thread) { sum_moments_thread(f, s, thread); });
        phase([&](int thread) { square_moments_thread(f, place, s, thread); });
        phase([&](int thread) { store_moments_thread(f, place, tile, edge, s, thread); });
      }
    }
}

template <class T, class O>
void run_forward(const Sizes& n, const T* const* x, const accumulate_t<T>* mean, const accumulate_t<T>* inv_std,
                 const T* depthwise, const T* pointwise, T* const* z, accumulate_t<T>* total) {
  using A = accumulate_t<T>;
  UnitForward<T, O> f{};
  f.out_channels = static_cast<int>(n.out_channels);
  f.edges = static_cast<int>(n.edges);
  f.shared = n.shared;
  plan_launch(f, n.window(), n.channels, n.images, n.shared_bytes);
  for (int i = 0; i < (n.shared ? 1 : f.edges); ++i) f.x[i] = x[i];
  for (int e = 0; e < f.edges; ++e) f.z[e] = z[e];
  f.mean = mean;
  f.inv_std = inv_std;
  f.depthwise = depthwise;
  f.pointwise = pointwise;
  auto moments = poisoned<A>(f.count * n.edges * 2 * n.out_channels);
  f.moments = moments.data();
  with_kernel<T>(n.window(), [&](auto kernel, auto shift) {
    forward_blocks<T, O, decltype(kernel)::value, decltype(shift)::value>(f);
  });
  const CombineMoments<T> m{f.tiles, f.count, n.edges * n.out_channels, f.out_channels, f.moments, total};
  for (int64_t block = 0; block < sum_rows_blocks(m.columns); ++block) {
    auto sums = poisoned<double>(kThreads), squares = poisoned<double>(kThreads);
    phase([&](int thread) { combine_sums_thread(m, block, thread, sums.data()); });
    phase([&](int thread) { combine_squares_thread(m, block, thread, sums.data(), squares.data()); });
    phase([&](int thread) { combine_store_thread(m, block, thread, sums.data(), squares.data()); });
  }
}

template <class T, class O, int K, int Shift>
void backward_blocks(const UnitBackward<T, O>& b, int64_t slot, int group, int first) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  auto memory = poisoned<A>(b.shared_elements());
  const BackwardShared<A, O> s = backward_shared(b, memory.data());
  const int count = t.chunk_channels(first);
  const int begin = group * b.edges_a_group, end = std::min(b.edges, begin + b.edges_a_group);
  const int own = b.source(begin) * t.channels;
  const int64_t images = b.count / t.tiles_an_image(), last = std::min(b.count, (slot + 1) * b.tiles_a_block);
  for (int64_t tile = slot * b.tiles_a_block; tile < last; ++tile) {
    const Place place = place_of(t, tile);
    const bool add = tile > slot * b.tiles_a_block;
    phase([&](int thread) {
      fill_thread(t, place, b.x[b.source(begin)], first, count, b.mean ? b.mean + own : nullptr,
                  b.mean ? b.inv_std + own : nullptr, true, thread, s.a);
    });
    for (int edge = begin; edge < end; ++edge) {
      phase([&](int thread) {
        if constexpr (kOnTensorCores<T, O>)
          through_pointwise_warp(b, place, edge, first, count, thread, s.du);
        else
          through_pointwise_thread(b, place, edge, first, count, thread, s.du);
        if (b.need_weights) between_thread<K, Shift>(t, b.depthwise, edge, first, count, s.a, thread, s.u);
      });
      phase([&](int thread) {
        if (b.need_weights) {
          correlate_thread<K, Shift>(over_tile(t, count), s.a, s.du + (t.before() * t.du_pitch() + t.before()) * count,
                                     t.du_pitch(), thread, s.correlated);
          if constexpr (kOnTensorCores<T, O>)
            outer_warp(b, place, edge, count, s.u, thread, s.outer);
          else
            outer_thread(b, place, edge, count, s.u, thread, s.outer);
        }
        if (b.need_x)
          gather_thread<K>(t, s.du, count, b.depthwise + int64_t{edge} * t.taps() * t.channels + first, edge > begin,
                           thread, s.g);
      });
      phase([&](int thread) {
        if (b.need_weights) weights_thread<K>(b, slot, edge, first, count, add, s, thread);
      });
    }
    if (!b.need_x) continue;
    A* const sums = b.need_sums ? s.correlated : nullptr;
    phase([&](int thread) {
      if (b.dx)
        mask_thread(t, place, s.a, s.g, first, count, true, thread, b.dx, sums);
      else
        mask_thread(t, place, s.a, s.g, first, count, true, thread, b.staged + group * images * t.in_image(), sums);
    });
    if (!sums) continue;
    phase([&](int thread) {
      mask_sums_thread(sums, count, t.channels, add, thread,
                       b.sums + (slot * b.groups() + group) * 2 * t.channels + first);
    });
  }
}

template <class T, class O>
void run_backward(const Sizes& n, const T* const* dz, const T* const* x, const accumulate_t<T>* mean,
                  const accumulate_t<T>* inv_std, const T* depthwise, const T* pointwise, bool batch, T* const* dx,
                  accumulate_t<T>* weights, int tiles_a_block) {
  using A = accumulate_t<T>;
  UnitBackward<T, O> b{};
  b.out_channels = static_cast<int>(n.out_channels);
  b.edges = static_cast<int>(n.edges);
  b.shared = n.shared;
  b.need_weights = weights != nullptr;
  b.need_x = dx != nullptr;
  b.need_sums = mean != nullptr && b.need_x;
  plan_launch(b, n.window(), n.channels, n.images, n.shared_bytes);
  if (tiles_a_block > 0) b.tiles_a_block = tiles_a_block;
  const int inputs = n.shared ? 1 : b.edges;
  const int64_t in = n.images * b.tiles.in_image();
  for (int i = 0; i < inputs; ++i) b.x[i] = x[i];
  for (int e = 0; e < b.edges; ++e) b.dz[e] = dz[e];
  b.mean = mean;
  b.inv_std = inv_std;
  b.depthwise = depthwise;
  b.pointwise = pointwise;
  const bool direct = !mean && b.shared && b.groups() == 1;
  const int64_t numbers = n.edges * (b.tiles.taps() + n.out_channels) * n.channels;
  auto staged = poisoned<A>(b.need_x && !direct ? b.groups() * in : 0);
  auto parts = poisoned<A>(b.need_weights ? b.slots() * numbers : 0);
  auto sums = poisoned<A>(b.need_sums ? b.slots() * b.groups() * 2 * n.channels : 0);
  b.dx = b.need_x && direct ? dx[0] : nullptr;
  b.staged = staged.data();
  b.weights = parts.data();
  b.sums = sums.data();
  with_kernel<T>(n.window(), [&](auto kernel, auto shift) {
    for (int64_t slot = 0; slot < b.slots(); ++slot)
      for (int group = 0; group < b.groups(); ++group)
        for (int first = 0; first < b.tiles.channels; first += b.tiles.chunk)
          backward_blocks<T, O, decltype(kernel)::value, decltype(shift)::value>(b, slot, group, first);
  });
  auto total = poisoned<A>(inputs * 2 * n.channels);
  if (b.need_sums) sum_rows(b.sums, b.slots() * b.groups() / inputs, inputs * 2 * n.channels, total.data());
  if (b.need_x && !direct)
    for (int i = 0; i < inputs; ++i) {
      const int groups = b.groups() / inputs;
      const UnitFinish<T> f{in,
                            b.tiles.channels,
                            groups,
                            batch,
                            mean ? x[i] : nullptr,
                            mean ? mean + i * n.channels : nullptr,
                            mean ? inv_std + i * n.channels : nullptr,
                            total.data() + i * 2 * n.channels,
                            b.staged + i * groups * in,
                            dx[i]};
      for (int64_t block = 0; block < (in / 4 + kThreads - 1) / kThreads; ++block)
        phase([&](int thread) { finish_thread(f, block, thread); });
    }
  if (b.need_weights) sum_rows(b.weights, b.slots(), numbers, weights);
}

}  // namespace

// O: in what type the products take their factors.
#define LT_HOST_RUN(name, T, O)                                                                                       \
  extern "C" void forward_##name(const Sizes* n, const T* const* x, const accumulate_t<T>* mean,                      \
                                 const accumulate_t<T>* inv_std, const T* depthwise, const T* pointwise, T* const* z, \
                                 accumulate_t<T>* total) {                                                            \
    run_forward<T, O>(*n, x, mean, inv_std, depthwise, pointwise, z, total);                                          \
  }                                                                                                                   \
  extern "C" void backward_##name(const Sizes* n, const T* const* dz, const T* const* x, const accumulate_t<T>* mean, \
                                  const accumulate_t<T>* inv_std, const T* depthwise, const T* pointwise, bool batch, \
                                  T* const* dx, accumulate_t<T>* weights, int tiles_a_block) {                        \
    run_backward<T, O>(*n, dz, x, mean, inv_std, depthwise, pointwise, batch, dx, weights, tiles_a_block);            \
  }
LT_HOST_RUN(float, float, float)
LT_HOST_RUN(double, double, double)
LT_HOST_RUN(bfloat16, BFloat16, float)
LT_HOST_RUN(half, Half, float)
LT_HOST_RUN(float_on_tensor_cores, float, tensor_core::Tf32)
LT_HOST_RUN(bfloat16_on_tensor_cores, BFloat16, BFloat16)
LT_HOST_RUN(half_on_tensor_cores, Half, Half)
