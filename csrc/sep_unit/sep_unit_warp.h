// The three products of sep_unit on tensor cores, by warps: what pointwise_thread, through_pointwise_thread and
// outer_thread of sep_unit_body.h do with plain multiply-adds. What a fragment reads beyond an image, a chunk of channels
// or C' is zero in both factors, so that no infinity beside it becomes a NaN. No PyTorch header.
#pragma once

#include "sep_unit_body.h"

namespace lt::sep_unit {

namespace detail {

LT_HOST_DEVICE int blocks(int length, int side) { return (length + side - 1) / side; }

// To shared memory.
LT_HOST_DEVICE void keep_two(float* p, float first, float second) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<float2*>(p) = make_float2(first, second);
#else
  p[0] = first;
  p[1] = second;
#endif
}

}  // namespace detail

// Phase: z += u · pointwiseᵀ over a chunk of channels, in shared memory; a warp takes 16 pixels and 32 channels of C' at
// a time.
template <class T, class O>
LT_HOST_DEVICE void pointwise_warp(const UnitForward<T, O>& f, int edge, int first, int count,
                                   const ForwardShared<float, O>& s, int thread) {
  using namespace tensor_core;
  constexpr int side = 4;
  const int lane = thread % kWarp, pixels = f.tiles.pixels(), channels = f.tiles.channels;
  const int pitch = u_pitch<T, O>(count), z_pitch = f.z_pitch();
  const int strips = detail::blocks(pixels, kRows), items = strips * detail::blocks(f.out_channels, side * kColumns);
  const T* const w = f.pointwise + int64_t{edge} * f.out_channels * channels + first;
  for (int item = thread / kWarp; item < items; item += kWarps) {
    const int pixel = item % strips * kRows, o = item / strips * side * kColumns;
    const auto for_each_z = [&](float (&sums)[side][4], const auto& f_of) {
      LT_UNROLL
      for (int j = 0; j < side; ++j)
        for_each_pair(lane, sums[j], [&](int row, int column, float& one, float& two) {
          const int to = o + j * kColumns + column;
          if (pixel + row < pixels && to < f.out_channels) f_of(s.z + (pixel + row) * z_pitch + to, one, two);
        });
    };
    float sums[side][4] = {};
    if (first > 0)
      for_each_z(sums, [](const float* z, float& one, float& two) {
        one = z[0];
        two = z[1];
      });
    for (int k = 0; k < count; k += kDepth<O>) {
      const auto u = left<O>(lane, [&](int row, int c) {
        const bool there = pixel + row < pixels && k + c < count;
        return there ? along<O>(s.u + (pixel + row) * pitch + k + c) : Register{};
      });
      LT_UNROLL
      for (int j = 0; j < side; ++j) {
        const int begin = o + j * kColumns;
        if (begin >= f.out_channels) continue;
        const auto mixing = right<O>(lane, [&](int c, int column) {
          const bool there = begin + column < f.out_channels && k + c < count;
          return there ? along<O>(w + (begin + column) * channels + k + c) : Register{};
        });
        multiply_add<O>(lane, u, mixing, sums[j]);
      }
    }
    for_each_z(sums, [](float* z, float one, float two) { detail::keep_two(z, one, two); });
  }
}

// Phase: z to its tensor, and this thread's count, means and squares of its pixels.
template <class T, class O>
LT_HOST_DEVICE void store_z_thread(const UnitForward<T, O>& f, const Place& place, int edge,
                                   const ForwardShared<float, O>& s, int thread) {
  const DepthwiseTiles& t = f.tiles;
  const int fours = f.out_channels / 4, active = threads_by_fours(f.out_channels);
  if (thread >= active) return;
  const int o = thread % fours * 4;
  T* const image = f.z[edge] + place.image * t.out_pixels() * f.out_channels + o;
  OwnMoments<float> own;
  for (int pixel = thread / fours; pixel < t.pixels(); pixel += active / fours) {
    const int row = pixel / t.width, column = pixel % t.width;
    if (!inside(t, place, row, column)) continue;
    const Four<float> z = load_four(s.z + pixel * f.z_pitch() + o);
    store_four<T>(image + out_pixel(t, place, row, column) * f.out_channels, z);
    own.take(z);
  }
  own.keep(s.own + thread * kOwn);
}

// Phase: du = dz · pointwise on the tile, and on its margin where dx is wanted; a warp takes 16 pixels and 16 channels at
// a time.
template <class T, class O>
LT_HOST_DEVICE void through_pointwise_warp(const UnitBackward<T, O>& b, const Place& place, int edge, int first,
                                           int count, int thread, float* du) {
  using namespace tensor_core;
  constexpr int side = 2;
  const DepthwiseTiles& t = b.tiles;
  const int lane = thread % kWarp, width = t.du_width(), pixels = t.du_height() * width;
  const int strips = detail::blocks(pixels, kRows), items = strips * detail::blocks(count, side * kColumns);
  const T* const image = b.dz[edge] + place.image * t.out_pixels() * b.out_channels;
  const T* const w = b.pointwise + int64_t{edge} * b.out_channels * t.channels + first;
  for (int item = thread / kWarp; item < items; item += kWarps) {
    const int c = item / strips * side * kColumns;
    // The lane's two pixels: where dz is read, nullptr outside of the image, and where du is kept, -1 beyond the tile.
    const T* from[2];
    int to[2];
    LT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int pixel = item % strips * kRows + left_cell<O>(lane, i).row, row = pixel / width, column = pixel % width;
      const bool there = pixel < pixels && inside(t, place, row - t.before(), column - t.before());
      from[i] = there ? image + out_pixel(t, place, row - t.before(), column - t.before()) * b.out_channels : nullptr;
      to[i] = pixel < pixels ? (row * t.du_pitch() + column) * count : -1;
    }
    float sums[side][4] = {};
    for (int o = 0; o < b.out_channels; o += kDepth<O>) {
      const auto dz = left<O>(lane, [&](int row, int k) {
        const T* const at = row < 8 ? from[0] : from[1];
        return at && o + k < b.out_channels ? along<O>(at + o + k) : Register{};
      });
      LT_UNROLL
      for (int j = 0; j < side; ++j) {
        const int begin = c + j * kColumns;
        if (begin >= count) continue;
        const auto mixing = right<O>(lane, [&](int k, int column) {
          if (o + k >= b.out_channels || begin + column >= count) return Register{};
          const T* const at = w + (o + k) * t.channels + begin + column;
          return gathered<O>([&](int i) { return at[i * t.channels]; });
        });
        multiply_add<O>(lane, dz, mixing, sums[j]);
      }
    }
    LT_UNROLL
    for (int j = 0; j < side; ++j)
      for_each_pair(lane, sums[j], [&](int row, int column, float one, float two) {
        const bool inner = row < 8 ? from[0] : from[1];
        const int at = row < 8 ? to[0] : to[1], channel = c + j * kColumns + column;
        if (at < 0 || channel >= count) return;
        detail::keep_two(du + at + channel, inner ? one : 0.f, inner ? two : 0.f);
      });
  }
}

// Pixels that a fragment is deep, in eights of a row: tiles are a multiple of 8 wide.
template <class T, class O>
struct Eights {
  static constexpr int count = tensor_core::kDepth<O> / 8;
  const T* first[count];
  int there[count];  // of its pixels the image has so many

  LT_HOST_DEVICE Eights(const UnitBackward<T, O>& b, const Place& place, int edge, int pixel) {
    const DepthwiseTiles& t = b.tiles;
    LT_UNROLL
    for (int i = 0; i < count; ++i) {
      const int at = pixel + i * 8, row = at / t.width, column = at % t.width;
      const bool any = at < t.pixels() && inside(t, place, row, column);
      const int64_t left = any ? t.window.out_width() - place.column - column : 0;
      there[i] = static_cast<int>(left < 8 ? left : 8);
      const int64_t before = place.image * t.out_pixels() + (any ? out_pixel(t, place, row, column) : 0);
      first[i] = b.dz[edge] + before * b.out_channels;
    }
  }

  LT_HOST_DEVICE bool has(int pixel) const { return pixel % 8 < (pixel < 8 ? there[0] : there[count - 1]); }
  LT_HOST_DEVICE const T* of(int pixel, int channels) const {
    return (pixel < 8 ? first[0] : first[count - 1]) + pixel % 8 * channels;
  }
};

// Phase: the tile's Σ dz ⊗ u over slices of its pixels, to (slices, C', count); a warp makes 16 × 16 of them.
template <class T, class O>
LT_HOST_DEVICE void outer_warp(const UnitBackward<T, O>& b, const Place& place, int edge, int count, const O* u,
                               int thread, float* sums) {
  using namespace tensor_core;
  constexpr int side = 2;
  const int lane = thread % kWarp, pixels = b.tiles.pixels(), pitch = u_pitch<T, O>(count), outs = b.out_channels;
  const int rows = detail::blocks(outs, kRows), columns = detail::blocks(count, side * kColumns);
  const int slices = b.outer_slices();
  for (int item = thread / kWarp; item < rows * columns * slices; item += kWarps) {
    const int o = item % rows * kRows, c = item / rows % columns * side * kColumns, slice = item / (rows * columns);
    float own[side][4] = {};
    for (int pixel = slice * kDepth<O>; pixel < pixels; pixel += slices * kDepth<O>) {
      const Eights<T, O> eights(b, place, edge, pixel);
      const auto dz = left<O>(lane, [&](int row, int k) {
        return gathered<O>(
            [&](int i) { return o + row < outs && eights.has(k + i) ? eights.of(k + i, outs)[o + row] : T{}; });
      });
      LT_UNROLL
      for (int j = 0; j < side; ++j) {
        const int begin = c + j * kColumns;
        if (begin >= count) continue;
        const auto between = right<O>(lane, [&](int k, int column) {
          const O* const at = u + (pixel + k) * pitch + begin + column;
          return gathered<O>([&](int i) { return begin + column < count && eights.has(k + i) ? at[i * pitch] : O{}; });
        });
        multiply_add<O>(lane, dz, between, own[j]);
      }
    }
    LT_UNROLL
    for (int j = 0; j < side; ++j)
      for_each_pair(lane, own[j], [&](int row, int column, float one, float two) {
        const int to = c + j * kColumns + column;
        if (o + row < outs && to < count) detail::keep_two(sums + (slice * outs + o + row) * count + to, one, two);
      });
  }
}

}  // namespace lt::sep_unit
