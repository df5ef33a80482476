// Runs the bodies of the CUDA kernels of depthwise_conv on the host: block by block, phase by phase, thread by thread.
// Built and called by test_ops_depthwise_conv_bodies.py through ctypes.
#include "../../csrc/depthwise_conv/depthwise_conv_body.h"
#include "phases.h"

namespace {

using namespace lt;
using namespace lt::depthwise_conv;
using namespace lt::host;

struct Sizes {
  int64_t images, channels, height, width;
  int kernel, stride, dilation;
  bool relu;
  int64_t shared_bytes;

  Window window() const { return {height, width, kernel, stride, dilation}; }
};

template <class T, int K, int Shift>
void forward_blocks(const ConvForward<T>& f) {
  using A = accumulate_t<T>;
  for (int64_t tile = 0; tile < f.count; ++tile)
    for (int first = 0; first < f.tiles.channels; first += f.tiles.chunk) {
      auto a = poisoned<A>(f.shared_elements());
      const Place place = place_of(f.tiles, tile);
      const int count = f.tiles.chunk_channels(first);
      phase([&](int thread) {
        fill_thread<T>(f.tiles, place, f.x, first, count, nullptr, nullptr, f.relu, thread, a.data());
      });
      phase([&](int thread) { convolve_thread<K, Shift>(f, place, first, count, a.data(), thread); });
    }
}

template <class T, int K, int Shift>
void backward_block(const ConvBackward<T>& b, int64_t slot, int first) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  auto memory = poisoned<A>(b.shared_elements());
  const ConvShared<A> s = conv_shared(b, memory.data());
  const int count = t.chunk_channels(first);
  const int64_t last = std::min(b.count, (slot + 1) * b.tiles_a_block);
  for (int64_t tile = slot * b.tiles_a_block; tile < last; ++tile) {
    const Place place = place_of(t, tile);
    phase([&](int thread) {
      fill_thread<T>(t, place, b.x, first, count, nullptr, nullptr, b.relu, thread, s.a);
      load_dy_thread(b, place, first, count, thread, s.dy);
    });
    phase([&](int thread) {
      if (b.need_weight)
        correlate_thread<K, Shift>(over_tile(t, count), s.a, s.dy + (t.before() * t.du_pitch() + t.before()) * count,
                                   t.du_pitch(), thread, s.correlated);
      if (b.need_x) gather_thread<K>(t, s.dy, count, b.weight + first, false, thread, s.g);
    });
    phase([&](int thread) {
      if (b.need_weight) weight_thread<K>(b, slot, first, count, tile > slot * b.tiles_a_block, s.correlated, thread);
      if (b.need_x) mask_thread<T>(t, place, s.a, s.g, first, count, b.relu, thread, b.dx, nullptr);
    });
  }
}

template <class T>
void run_forward(const Sizes& n, const T* x, const T* weight, T* y) {
  ConvForward<T> f{};
  f.relu = n.relu;
  f.x = x;
  f.weight = weight;
  f.y = y;
  plan_launch(f, n.window(), n.channels, n.images, n.shared_bytes);
  with_kernel<T>(n.window(), [&](auto kernel, auto shift) {
    forward_blocks<T, decltype(kernel)::value, decltype(shift)::value>(f);
  });
}

template <class T>
void run_backward(const Sizes& n, const T* dy, const T* x, const T* weight, T* dx, accumulate_t<T>* dweight,
                  int tiles_a_block) {
  ConvBackward<T> b{};
  b.relu = n.relu;
  b.need_x = dx != nullptr;
  b.need_weight = dweight != nullptr;
  b.x = x;
  b.weight = weight;
  b.dy = dy;
  b.dx = dx;
  plan_launch(b, n.window(), n.channels, n.images, n.shared_bytes);
  if (tiles_a_block > 0) b.tiles_a_block = tiles_a_block;
  const int64_t numbers = b.tiles.taps() * n.channels;
  auto parts = poisoned<accumulate_t<T>>(b.need_weight ? b.slots() * numbers : 0);
  b.dweight = parts.data();
  with_kernel<T>(n.window(), [&](auto kernel, auto shift) {
    for (int64_t slot = 0; slot < b.slots(); ++slot)
      for (int first = 0; first < b.tiles.channels; first += b.tiles.chunk)
        backward_block<T, decltype(kernel)::value, decltype(shift)::value>(b, slot, first);
  });
  if (b.need_weight) sum_rows(b.dweight, b.slots(), numbers, dweight);
}

}  // namespace

#define LT_HOST_RUN(name, T)                                                                       \
  extern "C" void forward_##name(const Sizes* n, const T* x, const T* weight, T* y) {              \
    run_forward<T>(*n, x, weight, y);                                                              \
  }                                                                                                \
  extern "C" void backward_##name(const Sizes* n, const T* dy, const T* x, const T* weight, T* dx, \
                                  accumulate_t<T>* dweight, int tiles_a_block) {                   \
    run_backward<T>(*n, dy, x, weight, dx, dweight, tiles_a_block);                                \
  }
LT_HOST_RUN(float, float)
LT_HOST_RUN(double, double)
LT_HOST_RUN(bfloat16, BFloat16)
LT_HOST_RUN(half, Half)
