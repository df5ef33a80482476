// The bodies of the CUDA kernels of depthwise_conv as functions of (block, thread), one phase between two barriers each,
// so that a host build can run them thread by thread (python_tests/host_bodies). No PyTorch header.
#pragma once

#include "../common/depthwise_tile.h"

namespace lt::depthwise_conv {

// Channels that a block holds at a time.
constexpr int64_t kChunk = 32;

// A block for each tile and chunk. Travels to the device by value.
template <class T>
struct ConvForward {
  using A = accumulate_t<T>;
  DepthwiseTiles tiles;
  bool relu;
  int64_t count;  // of tiles
  const T* x;
  const T* weight;  // (taps, C)
  T* y;

  LT_HOST_DEVICE int shared_elements() const { return tiles.in_elements(); }
};

// A block for each slot of tiles and chunk.
template <class T>
struct ConvBackward {
  using A = accumulate_t<T>;
  DepthwiseTiles tiles;
  bool relu, need_x, need_weight;
  int64_t count;
  int tiles_a_block;
  const T* x;
  const T* weight;
  const T* dy;
  T* dx;
  A* dweight;  // (slots, taps, C): a block's share

  LT_HOST_DEVICE int64_t slots() const { return (count + tiles_a_block - 1) / tiles_a_block; }
  LT_HOST_DEVICE int shared_elements() const {
    return tiles.in_elements() + tiles.du_elements() + (need_x ? tiles.own_elements() : 0) +
           (need_weight ? correlate_elements(tiles.window.kernel, tiles.chunk) : 0);
  }
};

template <class A>
struct ConvShared {
  A *a, *dy, *g, *correlated;
};

template <class T>
LT_HOST_DEVICE ConvShared<accumulate_t<T>> conv_shared(const ConvBackward<T>& b, accumulate_t<T>* base) {
  ConvShared<accumulate_t<T>> s;
  s.a = base;
  s.dy = s.a + b.tiles.in_elements();
  s.g = s.dy + b.tiles.du_elements();
  s.correlated = s.g + (b.need_x ? b.tiles.own_elements() : 0);
  return s;
}

// Phase: y of the tile, from the input under it.
template <int K, int Shift, class T>
LT_HOST_DEVICE void convolve_thread(const ConvForward<T>& f, const Place& place, int first, int count,
                                    const accumulate_t<T>* a, int thread) {
  const DepthwiseTiles& t = f.tiles;
  T* const image = f.y + place.image * t.out_pixels() * t.channels + first;
  depthwise_thread<K, Shift>(over_tile(t, count), a, f.weight + first, t.channels, false, thread,
                             [&](int row, int column, int c, accumulate_t<T> sum) {
                               if (inside(t, place, row, column))
                                 image[out_pixel(t, place, row, column) * t.channels + c] = narrow<T>(sum);
                             });
}

// Phase: dy on the tile and its margin, zeros where the image has none.
template <class T>
LT_HOST_DEVICE void load_dy_thread(const ConvBackward<T>& b, const Place& place, int first, int count, int thread,
                                   accumulate_t<T>* dy) {
  const DepthwiseTiles& t = b.tiles;
  const int fours = count / 4, pitch = t.du_pitch();
  const T* const image = b.dy + place.image * t.out_pixels() * t.channels + first;
  for (int item = thread; item < t.du_height() * pitch * fours; item += kThreads) {
    const int c = item % fours * 4, pixel = item / fours;
    const int row = pixel / pitch - t.before(), column = pixel % pitch - t.before();
    Four<accumulate_t<T>> v{};
    if (inside(t, place, row, column)) v = load_four(image + out_pixel(t, place, row, column) * t.channels + c);
    keep_four(dy + pixel * count + c, v);
  }
}

// Phase: a tile's weight gradient from its slices, added to the block's share after its first tile.
template <int K, class T>
LT_HOST_DEVICE void weight_thread(const ConvBackward<T>& b, int64_t slot, int first, int count, bool add,
                                  const accumulate_t<T>* correlated, int thread) {
  using A = accumulate_t<T>;
  const int taps = b.tiles.taps(), slices = correlate_slices<K>(b.tiles.window.kernel, count);
  A* const to = b.dweight + slot * taps * b.tiles.channels + first;
  for (int item = thread; item < taps * count; item += kThreads) {
    A sum = A(0);
    for (int slice = 0; slice < slices; ++slice) sum += correlated[slice * taps * count + item];
    A& place = to[item / count * b.tiles.channels + item % count];
    place = add ? place + sum : sum;
  }
}

// ---- launches, on the host

template <class T>
void plan_launch(ConvForward<T>& f, const Window& window, int64_t channels, int64_t images, int64_t most) {
  f.tiles = choose_tiles(f, window, channels, kChunk, most);
  f.count = images * f.tiles.tiles_an_image();
}

template <class T>
void plan_launch(ConvBackward<T>& b, const Window& window, int64_t channels, int64_t images, int64_t most) {
  b.tiles = choose_tiles(b, window, channels, kChunk, most);
  b.count = images * b.tiles.tiles_an_image();
  b.tiles_a_block = static_cast<int>(std::max<int64_t>(1, b.count * b.tiles.chunks() / (2 * kBusyBlocks)));
}

}  // namespace lt::depthwise_conv
