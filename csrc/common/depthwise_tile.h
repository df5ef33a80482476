// A depthwise convolution on CUDA: a block takes a tile of an image into shared memory, in the type of sums, and every
// phase between two barriers is a function of its thread, so that a host build can run it (python_tests/host_bodies).
// Images are channels_last; channels come in fours. No PyTorch header.
#pragma once

#include <algorithm>
#include <type_traits>

#include "taps.h"
#include "tile.h"

namespace lt {

// Four neighbouring channels of a pixel.
template <class T>
struct alignas(sizeof(T) < 4 ? 8 : 16) Four {
  T v[4];
};

template <class T>
LT_HOST_DEVICE Four<accumulate_t<T>> load_four(const T* p) {
  Four<T> raw;
#if defined(__CUDA_ARCH__)
  raw = *reinterpret_cast<const Four<T>*>(p);
#else
  std::memcpy(&raw, p, sizeof raw);
#endif
  Four<accumulate_t<T>> wide;
  LT_UNROLL
  for (int i = 0; i < 4; ++i) wide.v[i] = widen(raw.v[i]);
  return wide;
}

// To global memory.
template <class T>
LT_HOST_DEVICE void store_four(T* p, const Four<accumulate_t<T>>& wide) {
  Four<T> raw;
  LT_UNROLL
  for (int i = 0; i < 4; ++i) raw.v[i] = narrow<T>(wide.v[i]);
#if defined(__CUDA_ARCH__)
  using Piece = std::conditional_t<sizeof raw == 8, uint2, uint4>;
  Piece pieces[sizeof raw / sizeof(Piece)];
  memcpy(pieces, &raw, sizeof raw);
  LT_UNROLL
  for (unsigned i = 0; i < sizeof raw / sizeof(Piece); ++i)
    detail::store_raw(reinterpret_cast<Piece*>(p) + i, pieces[i]);
#else
  std::memcpy(p, &raw, sizeof raw);
#endif
}

// To shared memory.
template <class A>
LT_HOST_DEVICE void keep_four(A* p, const Four<A>& four) {
#if defined(__CUDA_ARCH__)
  uint4 pieces[sizeof four / sizeof(uint4)];
  memcpy(pieces, &four, sizeof four);
  LT_UNROLL
  for (unsigned i = 0; i < sizeof four / sizeof(uint4); ++i)
    detail::keep_raw(reinterpret_cast<uint4*>(p) + i, pieces[i]);
#else
  std::memcpy(p, &four, sizeof four);
#endif
}

// How images are cut: `height` × `width` outputs a tile, `chunk` channels in shared memory at a time. width % 8 == 0: a
// thread takes four outputs of a row together, every second one where the dilation is 2 and the stride 1.
struct DepthwiseTiles {
  Window window;
  int channels, chunk;
  int height, width;

  LT_HOST_DEVICE int taps() const { return window.kernel * window.kernel; }
  LT_HOST_DEVICE int chunks() const { return (channels + chunk - 1) / chunk; }
  LT_HOST_DEVICE int chunk_channels(int first) const { return channels - first < chunk ? channels - first : chunk; }
  LT_HOST_DEVICE int pixels() const { return height * width; }

  // The part of the input under a tile. Odd pitches: half-warps on neighbouring rows then meet different banks.
  LT_HOST_DEVICE int extent(int outputs) const {
    const int under = (outputs - 1) * window.stride + 2 * static_cast<int>(window.padding()) + 1;
    const int own = outputs * window.stride + static_cast<int>(window.padding());
    return under > own ? under : own;
  }
  LT_HOST_DEVICE int in_height() const { return extent(height); }
  LT_HOST_DEVICE int in_pitch() const { return extent(width) | 1; }
  LT_HOST_DEVICE int in_elements() const { return in_height() * in_pitch() * chunk; }

  // The outputs that a tile's own inputs reach: `before` rows and columns more at the near side, `after` at the far one.
  LT_HOST_DEVICE int before() const { return static_cast<int>(window.padding()) / window.stride; }
  LT_HOST_DEVICE int after() const { return (static_cast<int>(window.padding()) + window.stride - 1) / window.stride; }
  LT_HOST_DEVICE int du_height() const { return height + before() + after(); }
  LT_HOST_DEVICE int du_width() const { return width + before() + after(); }
  LT_HOST_DEVICE int du_pitch() const { return du_width() | 1; }
  LT_HOST_DEVICE int du_elements() const { return du_height() * du_pitch() * chunk; }

  // The inputs that belong to a tile: every input to exactly one.
  LT_HOST_DEVICE int own_height() const { return height * window.stride; }
  LT_HOST_DEVICE int own_width() const { return width * window.stride; }
  LT_HOST_DEVICE int own_elements() const { return own_height() * own_width() * chunk; }

  LT_HOST_DEVICE int64_t tile_rows() const { return (window.out_height() + height - 1) / height; }
  LT_HOST_DEVICE int64_t tile_columns() const { return (window.out_width() + width - 1) / width; }
  LT_HOST_DEVICE int64_t tiles_an_image() const { return tile_rows() * tile_columns(); }
  LT_HOST_DEVICE int64_t in_image() const { return window.height * window.width * channels; }
  LT_HOST_DEVICE int64_t out_pixels() const { return window.out_height() * window.out_width(); }
};

// Whose tile: the image, and the tile's first output in it.
struct Place {
  int64_t image;
  int64_t row, column;
};

LT_HOST_DEVICE Place place_of(const DepthwiseTiles& t, int64_t tile) {
  const int64_t in_image = tile % t.tiles_an_image();
  return {tile / t.tiles_an_image(), in_image / t.tile_columns() * t.height, in_image % t.tile_columns() * t.width};
}

// Outputs of the tile that the image has.
LT_HOST_DEVICE int64_t pixels_at(const DepthwiseTiles& t, const Place& place) {
  const int64_t rows = t.window.out_height() - place.row, columns = t.window.out_width() - place.column;
  return (rows < t.height ? rows : t.height) * (columns < t.width ? columns : t.width);
}

LT_HOST_DEVICE bool inside(const DepthwiseTiles& t, const Place& place, int row, int column) {
  const int64_t y = place.row + row, x = place.column + column;
  return y >= 0 && x >= 0 && y < t.window.out_height() && x < t.window.out_width();
}

// Where an output of the tile stands among the image's.
LT_HOST_DEVICE int64_t out_pixel(const DepthwiseTiles& t, const Place& place, int row, int column) {
  return (place.row + row) * t.window.out_width() + place.column + column;
}

// a = the image under the tile, channels [first, first + count), normalised where mean is given and, with relu, without
// its negative numbers; zeros around it. A NaN stays.
template <class T>
LT_HOST_DEVICE void fill_thread(const DepthwiseTiles& t, const Place& place, const T* x, int first, int count,
                                const accumulate_t<T>* mean, const accumulate_t<T>* inv_std, bool relu, int thread,
                                accumulate_t<T>* a) {
  using A = accumulate_t<T>;
  const int fours = count / 4, pitch = t.in_pitch(), padding = static_cast<int>(t.window.padding());
  const int64_t top = place.row * t.window.stride - padding, left = place.column * t.window.stride - padding;
  const T* const image = x + place.image * t.in_image() + first;
  for (int item = thread; item < t.in_height() * pitch * fours; item += kThreads) {
    const int c = item % fours * 4, pixel = item / fours;
    const int64_t row = top + pixel / pitch, column = left + pixel % pitch;
    Four<A> v{};
    if (row >= 0 && column >= 0 && row < t.window.height && column < t.window.width) {
      v = load_four(image + (row * t.window.width + column) * t.channels + c);
      LT_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (mean) v.v[i] = (v.v[i] - mean[first + c + i]) * inv_std[first + c + i];
        if (relu && v.v[i] < A(0)) v.v[i] = A(0);
      }
    }
    keep_four(a + pixel * count + c, v);
  }
}

// A depthwise convolution from one array of pixels in shared memory.
struct Correlation {
  int pitch;          // of the array read, pixels a row
  int channels;       // of both
  int rows, columns;  // outputs; columns % 8 == 0
  int kernel, stride, dilation;

  // Outputs a thread takes together lie so far apart.
  LT_HOST_DEVICE int apart() const { return stride == 1 && dilation == 2 ? 2 : 1; }
  LT_HOST_DEVICE int groups() const { return columns / 4; }
  LT_HOST_DEVICE int first_column(int group) const { return apart() == 2 ? group / 2 * 8 + group % 2 : group * 4; }
};

LT_HOST_DEVICE Correlation over_tile(const DepthwiseTiles& t, int channels) {
  const Window& w = t.window;
  return {t.in_pitch(), channels, t.height, t.width, w.kernel, w.stride, w.dilation};
}

// Kernel and shift at compile time let a thread read every pixel once for its four outputs; shift is how many taps
// further the next output begins: 2 for stride 2 without dilation, else 1. Kernel 0: any, read tap by tap.
LT_HOST_DEVICE int shift_of(int stride, int dilation) { return stride == 2 && dilation == 1 ? 2 : 1; }

// store(row, column, channel, Σ_taps w · in); w is (taps, ·), `between` elements from tap to tap. flip: from the last tap.
template <int K, int Shift, class T, class Store>
LT_HOST_DEVICE void depthwise_thread(const Correlation& g, const accumulate_t<T>* in, const T* w, int between,
                                     bool flip, int thread, const Store& store) {
  using A = accumulate_t<T>;
  const int last = g.kernel * g.kernel - 1;
  if constexpr (K == 0) {
    for (int item = thread; item < g.rows * g.columns * g.channels; item += kThreads) {
      const int c = item % g.channels, pixel = item / g.channels, row = pixel / g.columns, column = pixel % g.columns;
      A sum = A(0);
      for (int ky = 0; ky < g.kernel; ++ky)
        for (int kx = 0; kx < g.kernel; ++kx) {
          const int tap = ky * g.kernel + kx;
          const int at = (row * g.stride + ky * g.dilation) * g.pitch + column * g.stride + kx * g.dilation;
          sum += widen(w[(flip ? last - tap : tap) * between + c]) * in[at * g.channels + c];
        }
      store(row, column, c, sum);
    }
  } else {
    for (int item = thread; item < g.rows * g.groups() * g.channels; item += kThreads) {
      const int c = item % g.channels, rest = item / g.channels, row = rest % g.rows;
      const int column = g.first_column(rest / g.rows);
      A sum[4] = {};
      LT_UNROLL
      for (int ky = 0; ky < K; ++ky) {
        const int at = (row * g.stride + ky * g.dilation) * g.pitch + column * g.stride;
        A v[3 * Shift + K];
        LT_UNROLL
        for (int j = 0; j < 3 * Shift + K; ++j) v[j] = in[(at + j * g.dilation) * g.channels + c];
        LT_UNROLL
        for (int kx = 0; kx < K; ++kx) {
          const int tap = ky * K + kx;
          const A weight = widen(w[(flip ? last - tap : tap) * between + c]);
          LT_UNROLL
          for (int i = 0; i < 4; ++i) sum[i] += weight * v[i * Shift + kx];
        }
      }
      LT_UNROLL
      for (int i = 0; i < 4; ++i) store(row, column + i * g.apart(), c, sum[i]);
    }
  }
}

// Into how many slices of rows the weights' gradient is cut, so that all threads have work.
template <int K>
LT_HOST_DEVICE int correlate_slices(int kernel, int channels) {
  const int items = K == 0 ? kernel * kernel * channels : kernel * channels;
  return items < kThreads ? kThreads / items : 1;
}

// Numbers that hold all slices, for any K: at most kThreads items, each a row of taps.
LT_HOST_DEVICE int correlate_elements(int kernel, int channels) {
  const int least = kernel * kernel * channels;
  return least > kThreads * kMaxKernel ? least : kThreads * kMaxKernel;
}

// sums (slices, taps, channels): Σ over a slice's rows of du · in; du is an array of pixels, du_pitch a row.
template <int K, int Shift, class A>
LT_HOST_DEVICE void correlate_thread(const Correlation& g, const A* in, const A* du, int du_pitch, int thread,
                                     A* sums) {
  const int slices = correlate_slices<K>(g.kernel, g.channels), taps = g.kernel * g.kernel;
  if constexpr (K == 0) {
    for (int item = thread; item < taps * g.channels * slices; item += kThreads) {
      const int c = item % g.channels, tap = item / g.channels % taps, slice = item / (g.channels * taps);
      A sum = A(0);
      for (int row = slice; row < g.rows; row += slices)
        for (int column = 0; column < g.columns; ++column) {
          const int at = (row * g.stride + tap / g.kernel * g.dilation) * g.pitch + column * g.stride +
                         tap % g.kernel * g.dilation;
          sum += du[(row * du_pitch + column) * g.channels + c] * in[at * g.channels + c];
        }
      sums[(slice * taps + tap) * g.channels + c] = sum;
    }
  } else {
    for (int item = thread; item < K * g.channels * slices; item += kThreads) {
      const int c = item % g.channels, ky = item / g.channels % K, slice = item / (g.channels * K);
      A sum[K] = {};
      for (int row = slice; row < g.rows; row += slices)
        for (int group = 0; group < g.groups(); ++group) {
          const int column = g.first_column(group);
          const int at = (row * g.stride + ky * g.dilation) * g.pitch + column * g.stride;
          A d[4], v[3 * Shift + K];
          LT_UNROLL
          for (int i = 0; i < 4; ++i) d[i] = du[(row * du_pitch + column + i * g.apart()) * g.channels + c];
          LT_UNROLL
          for (int j = 0; j < 3 * Shift + K; ++j) v[j] = in[(at + j * g.dilation) * g.channels + c];
          LT_UNROLL
          for (int kx = 0; kx < K; ++kx) LT_UNROLL
          for (int i = 0; i < 4; ++i) sum[kx] += d[i] * v[i * Shift + kx];
        }
      LT_UNROLL
      for (int kx = 0; kx < K; ++kx) sums[(slice * taps + ky * K + kx) * g.channels + c] = sum[kx];
    }
  }
}

// g (own inputs, channels) += or = what du gives each input of the tile.
template <int K, class T>
LT_HOST_DEVICE void gather_thread(const DepthwiseTiles& t, const accumulate_t<T>* du, int channels, const T* w,
                                  bool add, int thread, accumulate_t<T>* g) {
  using A = accumulate_t<T>;
  const Window& window = t.window;
  const int width = t.own_width();
  const auto put = [&](int row, int column, int c, A sum) {
    A& to = g[(row * width + column) * channels + c];
    to = add ? to + sum : sum;
  };
  if (window.stride == 1) {
    const Correlation all{t.du_pitch(), channels, t.height, t.width, window.kernel, 1, window.dilation};
    return depthwise_thread<K, 1>(all, du, w, t.channels, true, thread, put);
  }
  // Input S r + a takes from output r + (a + p − k D) / S wherever that is whole.
  const int S = window.stride, padding = static_cast<int>(window.padding()), before = t.before();
  for (int item = thread; item < t.own_height() * width * channels; item += kThreads) {
    const int c = item % channels, pixel = item / channels, row = pixel / width, column = pixel % width;
    A sum = A(0);
    for (int ky = 0; ky < window.kernel; ++ky) {
      const int y = row + padding - ky * window.dilation;
      if (y % S != 0) continue;
      for (int kx = 0; kx < window.kernel; ++kx) {
        const int x = column + padding - kx * window.dilation;
        if (x % S != 0) continue;
        const int at = (y / S + before) * t.du_pitch() + x / S + before;
        sum += widen(w[(ky * window.kernel + kx) * t.channels + c]) * du[at * channels + c];
      }
    }
    put(row, column, c, sum);
  }
}

// The tile's dx where the ReLU let x pass, and the sums over its pixels of dx and of dx · a, for each thread: sums is
// (kThreads, 8), or nullptr. Without relu everything passes.
template <class T>
LT_HOST_DEVICE void mask_thread(const DepthwiseTiles& t, const Place& place, const accumulate_t<T>* a,
                                const accumulate_t<T>* g, int first, int count, bool relu, int thread, T* dx,
                                accumulate_t<T>* sums) {
  using A = accumulate_t<T>;
  const int fours = count / 4, active = kThreads / fours * fours, padding = static_cast<int>(t.window.padding());
  if (thread >= active) return;
  const int c = thread % fours * 4;
  T* const image = dx + place.image * t.in_image() + first + c;
  A sum[4] = {}, along[4] = {};
  for (int pixel = thread / fours; pixel < t.own_height() * t.own_width(); pixel += active / fours) {
    const int row = pixel / t.own_width(), column = pixel % t.own_width();
    const int64_t y = place.row * t.window.stride + row, x = place.column * t.window.stride + column;
    if (y >= t.window.height || x >= t.window.width) continue;
    const Four<A> passed = load_four(a + ((row + padding) * t.in_pitch() + column + padding) * count + c);
    Four<A> v = load_four(g + pixel * count + c);
    LT_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (relu && passed.v[i] == A(0)) v.v[i] = A(0);
      sum[i] += v.v[i];
      along[i] += v.v[i] * passed.v[i];
    }
    store_four(image + (y * t.window.width + x) * t.channels, v);
  }
  if (!sums) return;
  LT_UNROLL
  for (int i = 0; i < 4; ++i) {
    sums[thread * 8 + i] = sum[i];
    sums[thread * 8 + 4 + i] = along[i];
  }
}

// After mask_thread's barrier: to (2, ·)[0 .. count) the tile's sums, `between` elements from row to row.
template <class A>
LT_HOST_DEVICE void mask_sums_thread(const A* sums, int count, int between, bool add, int thread, A* to) {
  const int fours = count / 4, active = kThreads / fours * fours;
  for (int item = thread; item < 2 * count; item += kThreads) {
    const int c = item % count, row = item / count;
    A total = A(0);
    for (int from = c / 4; from < active; from += fours) total += sums[from * 8 + row * 4 + c % 4];
    A& place = to[row * between + c];
    place = add ? place + total : total;
  }
}

// ---- launches, on the host

// Blocks of a launch that keep the largest devices busy. A constant, so that no sum depends on the device's size.
constexpr int64_t kBusyBlocks = 512;

// What a block of a launch takes of shared memory; the launch says how many numbers of which type.
template <class Launch>
int64_t shared_bytes(const Launch& launch) {
  return launch.shared_elements() * static_cast<int64_t>(sizeof(typename Launch::A));
}

// The largest tiles, at most kThreads outputs, with which a block of `launch` takes at most `most` bytes; with the
// smallest it may take more.
template <class Launch>
DepthwiseTiles choose_tiles(Launch launch, const Window& window, int64_t channels, int64_t chunk, int64_t most) {
  const auto least = [](int64_t a, int64_t b) { return static_cast<int>(std::min(a, b)); };
  DepthwiseTiles& t = launch.tiles;
  t.window = window;
  t.channels = static_cast<int>(channels);
  t.chunk = least(channels, chunk);
  t.width = least(32, (window.out_width() + 7) / 8 * 8);
  t.height = std::max(1, least(kThreads / t.width, window.out_height()));
  while (shared_bytes(launch) > most && t.height > 1) t.height = (t.height + 1) / 2;
  while (shared_bytes(launch) > most && t.width > 8) t.width = t.width / 2 / 8 * 8;
  return t;
}

// f(kernel, shift) as compile-time constants: 3 and 5 in float32 and bfloat16, everything else by the general kernel 0.
template <class T, class F>
void with_kernel(const Window& window, const F& f) {
  const int shift = shift_of(window.stride, window.dilation);
  using std::integral_constant;
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, BFloat16>) {
    if (window.kernel == 3 && shift == 1) return f(integral_constant<int, 3>{}, integral_constant<int, 1>{});
    if (window.kernel == 3) return f(integral_constant<int, 3>{}, integral_constant<int, 2>{});
    if (window.kernel == 5 && shift == 1) return f(integral_constant<int, 5>{}, integral_constant<int, 1>{});
    if (window.kernel == 5) return f(integral_constant<int, 5>{}, integral_constant<int, 2>{});
  }
  f(integral_constant<int, 0>{}, integral_constant<int, 1>{});
}

}  // namespace lt
