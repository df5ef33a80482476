// The bodies of the CUDA kernels of sep_unit as functions of (block, thread), one phase between two barriers each, so
// that a host build can run them thread by thread (python_tests/host_bodies). No PyTorch header.
//
// Forward: a block takes a tile of an image and a group of edges. The rectified input stays in shared memory for all of
// them; per edge it makes the depthwise output (in shared memory), z (stored) and z's moments over the tile.
// Backward: a block takes some tiles, a group of edges and a chunk of the input's channels, by which everything but dz
// falls apart. Per edge it makes du = dz · pointwise on the tile and its margin, the depthwise output again, both weight
// gradients, and the edge's share of dx, which stays in shared memory for all edges of the group.
#pragma once

#include "../common/depthwise_tile.h"
#include "../common/tensor_core.h"

namespace lt::sep_unit {

constexpr int kMaxEdges = 64;
constexpr int kMaxOutChannels = 4 * kThreads;
// What a thread leaves of its pixels of z: means and squares of four channels, and their count.
constexpr int kOwn = 9;

// O is the type in which the products with pointwise take their factors: that of sums, or one of tensor cores.
template <class T, class O>
constexpr bool kOnTensorCores = !std::is_same_v<O, accumulate_t<T>>;

// Elements from pixel to pixel of u. On tensor cores an odd multiple of four words: the eight pixels × four words that a
// warp reads at once then lie in 32 different banks, as do the four (twice four) × eight of the pointwise gradient in 16
// bits; in TF32 its last four words meet the first.
template <class T, class O>
LT_HOST_DEVICE int u_pitch(int channels) {
  if constexpr (!kOnTensorCores<T, O>) return channels;
  constexpr int depth = 32 / sizeof(O);
  return (channels + depth / 2 - 1) / depth * depth + depth / 2;
}

// What u takes of shared memory, in numbers of the type of sums.
template <class T, class O>
LT_HOST_DEVICE int u_elements(const DepthwiseTiles& t) {
  return t.pixels() * u_pitch<T, O>(t.chunk) * static_cast<int>(sizeof(O)) / static_cast<int>(sizeof(accumulate_t<T>));
}

// Travels to the device by value. Edges of one group share x, or a group is one edge.
template <class T, class O = accumulate_t<T>>
struct UnitForward {
  using A = accumulate_t<T>;
  DepthwiseTiles tiles;
  int out_channels, edges, edges_a_group;
  int64_t count;  // of tiles
  bool shared;    // x[0], and its mean and inv_std, serve all edges
  const T* x[kMaxEdges];
  T* z[kMaxEdges];
  const A* mean;  // (edges or 1, C), or nullptr: no batch norm before the ReLU
  const A* inv_std;
  const T* depthwise;  // (edges, taps, C)
  const T* pointwise;  // (edges, C', C)
  A* moments;          // (tiles, edges, 2, C'): mean, and sum of squared distances to it, over a tile

  LT_HOST_DEVICE int source(int edge) const { return shared ? 0 : edge; }
  LT_HOST_DEVICE int groups() const { return (edges + edges_a_group - 1) / edges_a_group; }
  // Elements from pixel to pixel of z: even with 32 channels the rows of a fragment do not all begin in one bank.
  LT_HOST_DEVICE int z_pitch() const {
    return kOnTensorCores<T, O> && out_channels % 32 == 0 ? out_channels + 8 : out_channels;
  }
  LT_HOST_DEVICE int z_elements() const {
    return kOnTensorCores<T, O> || tiles.chunks() > 1 ? tiles.pixels() * z_pitch() : 0;
  }
  // On tensor cores u is done with when a thread leaves its moments, and they take its place.
  LT_HOST_DEVICE int u_and_own_elements() const {
    const int u = u_elements<T, O>(tiles), own = kThreads * kOwn;
    if constexpr (kOnTensorCores<T, O>) return u > own ? u : own;
    return u + own;
  }
  // Sums of every part of every channel.
  LT_HOST_DEVICE int part_elements() const { return out_channels > kThreads ? out_channels : kThreads; }
  LT_HOST_DEVICE int shared_elements() const {
    return tiles.in_elements() + z_elements() + u_and_own_elements() + 2 * part_elements();
  }
};

template <class A, class O>
struct ForwardShared {
  A *a, *z;
  O* u;
  A *own, *sums, *squares;
};

template <class T, class O>
LT_HOST_DEVICE ForwardShared<accumulate_t<T>, O> forward_shared(const UnitForward<T, O>& f, accumulate_t<T>* base) {
  ForwardShared<accumulate_t<T>, O> s;
  s.a = base;
  s.z = s.a + f.tiles.in_elements();
  accumulate_t<T>* const u = s.z + f.z_elements();
  s.u = reinterpret_cast<O*>(u);
  s.sums = u + f.u_and_own_elements();
  s.own = s.sums - kThreads * kOwn;
  s.squares = s.sums + f.part_elements();
  return s;
}

// Phase: u = the depthwise output of an edge, channels [first, first + count).
template <int K, int Shift, class T, class O>
LT_HOST_DEVICE void between_thread(const DepthwiseTiles& t, const T* depthwise, int edge, int first, int count,
                                   const accumulate_t<T>* a, int thread, O* u) {
  const T* const w = depthwise + int64_t{edge} * t.taps() * t.channels + first;
  const int pitch = u_pitch<T, O>(count);
  depthwise_thread<K, Shift>(over_tile(t, count), a, w, t.channels, false, thread,
                             [&](int row, int column, int c, accumulate_t<T> sum) {
                               u[(row * t.width + column) * pitch + c] = tensor_core::factor<O>(sum);
                             });
}

// Mean and squares of four channels over the pixels that a thread takes of z.
template <class A>
struct OwnMoments {
  A shift[4] = {}, sum[4] = {}, squares[4] = {};
  int counted = 0;

  LT_HOST_DEVICE void take(const Four<A>& z) {
    LT_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (counted == 0) shift[j] = z.v[j];
      const A distance = z.v[j] - shift[j];
      sum[j] += distance;
      squares[j] += distance * distance;
    }
    ++counted;
  }

  // own: kOwn numbers.
  LT_HOST_DEVICE void keep(A* own) const {
    const A n = counted > 0 ? A(counted) : A(1);
    own[8] = A(counted);
    LT_UNROLL
    for (int j = 0; j < 4; ++j) {
      own[j] = shift[j] + sum[j] / n;
      own[4 + j] = squares[j] - sum[j] * sum[j] / n;
    }
  }
};

// Threads at work where each keeps four channels of C': a multiple of the groups of four.
LT_HOST_DEVICE int threads_by_fours(int channels) { return kThreads / (channels / 4) * (channels / 4); }

// Phase: z += pointwise · u over a chunk of channels; after the last chunk z is stored, and this thread's count, means
// and squares of its pixels.
template <class T>
LT_HOST_DEVICE void pointwise_thread(const UnitForward<T>& f, const Place& place, int edge, int first, int count,
                                     const ForwardShared<accumulate_t<T>, accumulate_t<T>>& s, int thread) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = f.tiles;
  const int fours = f.out_channels / 4, active = threads_by_fours(f.out_channels);
  if (thread >= active) return;
  const int o = thread % fours * 4;
  const bool begins = first == 0, ends = first + count == t.channels;
  const T* const w = f.pointwise + (int64_t{edge} * f.out_channels + o) * t.channels + first;
  T* const image = f.z[edge] + place.image * t.out_pixels() * f.out_channels + o;
  OwnMoments<A> own;
  for (int group = thread / fours; group < t.pixels() / 4; group += active / fours) {
    Four<A> z[4] = {};
    if (!begins) {
      LT_UNROLL
      for (int i = 0; i < 4; ++i) z[i] = load_four(s.z + (group * 4 + i) * f.out_channels + o);
    }
    for (int k = 0; k < count; k += 4) {
      Four<A> u[4];
      LT_UNROLL
      for (int i = 0; i < 4; ++i) u[i] = load_four(s.u + (group * 4 + i) * count + k);
      LT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const Four<A> row = load_four(w + j * t.channels + k);
        LT_UNROLL
        for (int i = 0; i < 4; ++i) LT_UNROLL
        for (int l = 0; l < 4; ++l) z[i].v[j] += u[i].v[l] * row.v[l];
      }
    }
    if (!ends) {
      LT_UNROLL
      for (int i = 0; i < 4; ++i) keep_four(s.z + (group * 4 + i) * f.out_channels + o, z[i]);
      continue;
    }
    const int row = group * 4 / t.width, column = group * 4 % t.width;
    LT_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (!inside(t, place, row, column + i)) continue;
      store_four<T>(image + out_pixel(t, place, row, column + i) * f.out_channels, z[i]);
      own.take(z[i]);
    }
  }
  if (ends) own.keep(s.own + thread * kOwn);
}

// The moments of a tile from those of its threads, in three phases; thread (channel, part) takes every parts-th of the
// threads that hold its channel. More channels than threads: one part, several channels a thread.
LT_HOST_DEVICE int parts_of(int channels) { return channels < kThreads ? kThreads / channels : 1; }

// f(channel, part, the threads that hold it: first, step, end)
template <class F>
LT_HOST_DEVICE void for_each_part(int channels, int thread, const F& f) {
  const int parts = parts_of(channels), fours = channels / 4, active = threads_by_fours(channels);
  for (int item = thread; item < channels * parts; item += kThreads) {
    const int channel = item % channels, part = item / channels;
    f(channel, part, channel / 4 + part * fours, parts * fours, active);
  }
}

template <class T, class O>
LT_HOST_DEVICE void sum_moments_thread(const UnitForward<T, O>& f, const ForwardShared<accumulate_t<T>, O>& s,
                                       int thread) {
  for_each_part(f.out_channels, thread, [&](int channel, int part, int first, int step, int end) {
    accumulate_t<T> sum = 0;
    for (int from = first; from < end; from += step) sum += s.own[from * kOwn + 8] * s.own[from * kOwn + channel % 4];
    s.sums[part * f.out_channels + channel] = sum;
  });
}

// The mean of a channel over the tile, once the sums of its parts are there.
template <class T, class O>
LT_HOST_DEVICE accumulate_t<T> tile_mean(const UnitForward<T, O>& f, const Place& place,
                                         const ForwardShared<accumulate_t<T>, O>& s, int channel) {
  accumulate_t<T> sum = 0;
  for (int part = 0; part < parts_of(f.out_channels); ++part) sum += s.sums[part * f.out_channels + channel];
  return sum / accumulate_t<T>(pixels_at(f.tiles, place));
}

template <class T, class O>
LT_HOST_DEVICE void square_moments_thread(const UnitForward<T, O>& f, const Place& place,
                                          const ForwardShared<accumulate_t<T>, O>& s, int thread) {
  for_each_part(f.out_channels, thread, [&](int channel, int part, int first, int step, int end) {
    const accumulate_t<T> mean = tile_mean(f, place, s, channel);
    accumulate_t<T> squares = 0;
    for (int from = first; from < end; from += step) {
      const accumulate_t<T>* const own = s.own + from * kOwn;
      const accumulate_t<T> distance = own[channel % 4] - mean;
      squares += own[4 + channel % 4] + own[8] * distance * distance;
    }
    s.squares[part * f.out_channels + channel] = squares;
  });
}

template <class T, class O>
LT_HOST_DEVICE void store_moments_thread(const UnitForward<T, O>& f, const Place& place, int64_t tile, int edge,
                                         const ForwardShared<accumulate_t<T>, O>& s, int thread) {
  accumulate_t<T>* const to = f.moments + (tile * f.edges + edge) * 2 * f.out_channels;
  for (int channel = thread; channel < f.out_channels; channel += kThreads) {
    accumulate_t<T> squares = 0;
    for (int part = 0; part < parts_of(f.out_channels); ++part) squares += s.squares[part * f.out_channels + channel];
    to[channel] = tile_mean(f, place, s, channel);
    to[f.out_channels + channel] = squares;
  }
}

// Mean and variance of every channel of every edge over all tiles; a block takes 32 of the edges · C' channels.
template <class T>
struct CombineMoments {
  DepthwiseTiles tiles;
  int64_t count;    // of tiles
  int64_t columns;  // edges · C'
  int out_channels;
  const accumulate_t<T>* moments;
  accumulate_t<T>* total;  // (2, edges, C')

  LT_HOST_DEVICE const accumulate_t<T>* of(int64_t tile, int64_t column) const {
    return moments + tile * 2 * columns + column / out_channels * 2 * out_channels + column % out_channels;
  }
};

// slices: (kWarps, kWarp). Two phases for the mean, two for the variance.
template <class T>
LT_HOST_DEVICE void combine_sums_thread(const CombineMoments<T>& m, int64_t block, int thread, double* slices) {
  const int64_t column = block * kWarp + thread % kWarp;
  double sum = 0;
  if (column < m.columns)
    for (int64_t tile = thread / kWarp; tile < m.count; tile += kWarps)
      sum += double(pixels_at(m.tiles, place_of(m.tiles, tile))) * double(*m.of(tile, column));
  slices[thread] = sum;
}

template <class T>
LT_HOST_DEVICE double combined_mean(const CombineMoments<T>& m, int thread, const double* slices) {
  double sum = 0;
  for (int slice = 0; slice < kWarps; ++slice) sum += slices[slice * kWarp + thread % kWarp];
  return sum / double(m.count / m.tiles.tiles_an_image() * m.tiles.out_pixels());
}

template <class T>
LT_HOST_DEVICE void combine_squares_thread(const CombineMoments<T>& m, int64_t block, int thread, const double* sums,
                                           double* slices) {
  const int64_t column = block * kWarp + thread % kWarp;
  const double mean = combined_mean(m, thread, sums);
  double squares = 0;
  if (column < m.columns)
    for (int64_t tile = thread / kWarp; tile < m.count; tile += kWarps) {
      const double distance = double(*m.of(tile, column)) - mean;
      squares += double(*(m.of(tile, column) + m.out_channels)) +
                 double(pixels_at(m.tiles, place_of(m.tiles, tile))) * distance * distance;
    }
  slices[thread] = squares;
}

template <class T>
LT_HOST_DEVICE void combine_store_thread(const CombineMoments<T>& m, int64_t block, int thread, const double* sums,
                                         const double* squares) {
  const int64_t column = block * kWarp + thread;
  if (thread >= kWarp || column >= m.columns) return;
  m.total[column] = accumulate_t<T>(combined_mean(m, thread, sums));
  m.total[m.columns + column] = accumulate_t<T>(combined_mean(m, thread, squares));
}

template <class T, class O = accumulate_t<T>>
struct UnitBackward {
  using A = accumulate_t<T>;
  DepthwiseTiles tiles;
  int out_channels, edges, edges_a_group;
  bool shared, need_weights, need_x, need_sums;
  int64_t count;  // of tiles
  int tiles_a_block;
  const T* x[kMaxEdges];
  const T* dz[kMaxEdges];
  const A* mean;
  const A* inv_std;
  const T* depthwise;  // (edges, taps, C)
  const T* pointwise;  // (edges, C', C)
  T* dx;               // where nothing is to be done after: else
  A* staged;           // (groups, images, H, W, C): each group's dx where the ReLU let x pass
  A* weights;          // (slots, edges, taps + C', C): a block's share of both weights' gradients
  A* sums;             // (slots, groups, 2, C): Σ dx and Σ dx · normalised x

  LT_HOST_DEVICE int source(int edge) const { return shared ? 0 : edge; }
  LT_HOST_DEVICE int groups() const { return (edges + edges_a_group - 1) / edges_a_group; }
  LT_HOST_DEVICE int64_t slots() const { return (count + tiles_a_block - 1) / tiles_a_block; }
  // Slices of pixels for the pointwise gradient: a thread makes 4 × 4 numbers, on tensor cores a warp 16 × 16.
  LT_HOST_DEVICE int outer_slices() const {
    constexpr int side = kOnTensorCores<T, O> ? 16 : 4, workers = kOnTensorCores<T, O> ? kWarps : kThreads;
    const int items = (out_channels + side - 1) / side * ((tiles.chunk + side - 1) / side);
    return items < workers ? workers / items : 1;
  }
  LT_HOST_DEVICE int outer_elements() const { return outer_slices() * out_channels * tiles.chunk; }
  LT_HOST_DEVICE int scratch_elements() const {
    const int of_weights = need_weights ? outer_elements() + correlate_elements(tiles.window.kernel, tiles.chunk) : 0;
    const int of_sums = need_sums ? kThreads * 8 : 0;
    return of_weights > of_sums ? of_weights : of_sums;
  }
  LT_HOST_DEVICE int shared_elements() const {
    return tiles.in_elements() + tiles.du_elements() + (need_weights ? u_elements<T, O>(tiles) : 0) +
           (need_x ? tiles.own_elements() : 0) + scratch_elements();
  }
};

template <class A, class O>
struct BackwardShared {
  A *a, *du;
  O* u;
  A *g, *correlated, *outer;
};

template <class T, class O>
LT_HOST_DEVICE BackwardShared<accumulate_t<T>, O> backward_shared(const UnitBackward<T, O>& b, accumulate_t<T>* base) {
  BackwardShared<accumulate_t<T>, O> s;
  s.a = base;
  s.du = s.a + b.tiles.in_elements();
  accumulate_t<T>* const u = s.du + b.tiles.du_elements();
  s.u = reinterpret_cast<O*>(u);
  s.g = u + (b.need_weights ? u_elements<T, O>(b.tiles) : 0);
  s.correlated = s.g + (b.need_x ? b.tiles.own_elements() : 0);
  s.outer = s.correlated + correlate_elements(b.tiles.window.kernel, b.tiles.chunk);
  return s;
}

// Phase: du = dz · pointwise on the tile, and on its margin where dx is wanted.
template <class T>
LT_HOST_DEVICE void through_pointwise_thread(const UnitBackward<T>& b, const Place& place, int edge, int first,
                                             int count, int thread, accumulate_t<T>* du) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  const int fours = count / 4, quads = (t.du_width() + 3) / 4, pitch = t.du_pitch();
  const T* const image = b.dz[edge] + place.image * t.out_pixels() * b.out_channels;
  const T* const w = b.pointwise + int64_t{edge} * b.out_channels * t.channels + first;
  for (int item = thread; item < t.du_height() * quads * fours; item += kThreads) {
    const int c = item % fours * 4, quad = item / fours;
    const int row = quad / quads, column = quad % quads * 4;
    const T* from[4];
    LT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const bool there = inside(t, place, row - t.before(), column + i - t.before());
      from[i] =
          there ? image + out_pixel(t, place, row - t.before(), column + i - t.before()) * b.out_channels : nullptr;
    }
    Four<A> sum[4] = {};
    for (int o = 0; o < b.out_channels; o += 4) {
      Four<A> dz[4] = {};
      LT_UNROLL
      for (int i = 0; i < 4; ++i)
        if (from[i]) dz[i] = load_four(from[i] + o);
      LT_UNROLL
      for (int j = 0; j < 4; ++j) {
        const Four<A> row_of_w = load_four(w + (o + j) * t.channels + c);
        LT_UNROLL
        for (int i = 0; i < 4; ++i) LT_UNROLL
        for (int l = 0; l < 4; ++l) sum[i].v[l] += dz[i].v[j] * row_of_w.v[l];
      }
    }
    LT_UNROLL
    for (int i = 0; i < 4; ++i)
      if (column + i < t.du_width()) keep_four(du + (row * pitch + column + i) * count + c, sum[i]);
  }
}

// Phase: the tile's Σ dz ⊗ u over slices of its pixels, to (slices, C', count).
template <class T>
LT_HOST_DEVICE void outer_thread(const UnitBackward<T>& b, const Place& place, int edge, int count,
                                 const accumulate_t<T>* u, int thread, accumulate_t<T>* sums) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  const int columns = count / 4, rows = b.out_channels / 4, slices = b.outer_slices();
  const T* const image = b.dz[edge] + place.image * t.out_pixels() * b.out_channels;
  for (int item = thread; item < rows * columns * slices; item += kThreads) {
    const int c = item % columns * 4, o = item / columns % rows * 4, slice = item / (columns * rows);
    Four<A> sum[4] = {};
    for (int pixel = slice; pixel < t.pixels(); pixel += slices) {
      const int row = pixel / t.width, column = pixel % t.width;
      if (!inside(t, place, row, column)) continue;
      const Four<A> dz = load_four(image + out_pixel(t, place, row, column) * b.out_channels + o);
      const Four<A> v = load_four(u + pixel * count + c);
      LT_UNROLL
      for (int j = 0; j < 4; ++j) LT_UNROLL
      for (int l = 0; l < 4; ++l) sum[j].v[l] += dz.v[j] * v.v[l];
    }
    LT_UNROLL
    for (int j = 0; j < 4; ++j) keep_four(sums + (slice * b.out_channels + o + j) * count + c, sum[j]);
  }
}

// Phase: both weights' gradients of a tile from their slices, added to the block's share after its first tile.
template <int K, class T, class O>
LT_HOST_DEVICE void weights_thread(const UnitBackward<T, O>& b, int64_t slot, int edge, int first, int count, bool add,
                                   const BackwardShared<accumulate_t<T>, O>& s, int thread) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  A* const to = b.weights + (slot * b.edges + edge) * (t.taps() + b.out_channels) * t.channels + first;
  const int correlate = correlate_slices<K>(t.window.kernel, count), outer = b.outer_slices();
  for (int item = thread; item < (t.taps() + b.out_channels) * count; item += kThreads) {
    const int c = item % count, row = item / count;
    const bool tap = row < t.taps();
    const int rows = tap ? t.taps() : b.out_channels, slices = tap ? correlate : outer;
    const A* const from = tap ? s.correlated + row * count + c : s.outer + (row - t.taps()) * count + c;
    A sum = A(0);
    for (int slice = 0; slice < slices; ++slice) sum += from[slice * rows * count];
    A& place = to[row * t.channels + c];
    place = add ? place + sum : sum;
  }
}

// dx of one input from what its groups staged, and back through its batch norm where there is one.
template <class T>
struct UnitFinish {
  using A = accumulate_t<T>;
  int64_t elements;  // N H W C
  int channels, groups;
  bool batch;     // mean and inv_std are x's own
  const T* x;     // nullptr: no batch norm
  const A* mean;  // (C,)
  const A* inv_std;
  const A* sums;    // (2, C)
  const A* staged;  // (groups, elements)
  T* dx;
};

template <class T>
LT_HOST_DEVICE void finish_thread(const UnitFinish<T>& f, int64_t block, int thread) {
  using A = accumulate_t<T>;
  const int64_t at = (block * kThreads + thread) * 4;
  if (at >= f.elements) return;
  const int c = static_cast<int>(at % f.channels);
  Four<A> g = load_four(f.staged + at);
  for (int group = 1; group < f.groups; ++group) {
    const Four<A> more = load_four(f.staged + group * f.elements + at);
    LT_UNROLL
    for (int i = 0; i < 4; ++i) g.v[i] += more.v[i];
  }
  if (f.x) {
    const Four<A> x = load_four(f.x + at);
    const A count = A(f.elements / f.channels);
    LT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const A inv_std = f.inv_std[c + i];
      if (f.batch) {
        const A along = inv_std * f.sums[f.channels + c + i] / count;
        g.v[i] -= f.sums[c + i] / count + (x.v[i] - f.mean[c + i]) * along;
      }
      g.v[i] *= inv_std;
    }
  }
  store_four(f.dx + at, g);
}

// ---- launches, on the host: tiles and groups are functions of the sizes, and of what shared memory a block gets

// As many edges a block as leave blocks enough to keep a device busy.
inline int edges_a_group(bool shared, int64_t edges, int64_t blocks) {
  return shared ? static_cast<int>(std::clamp<int64_t>(edges * blocks / kBusyBlocks, 1, edges)) : 1;
}

// Channels of x that a block holds at a time, where it can not hold all.
constexpr int64_t kChunk = 16;

template <class T, class O>
void plan_launch(UnitForward<T, O>& f, const Window& window, int64_t channels, int64_t images, int64_t most) {
  // All channels at once, so that edges share what was read.
  f.tiles = choose_tiles(f, window, channels, channels, most);
  if (shared_bytes(f) > most) f.tiles = choose_tiles(f, window, channels, kChunk, most);
  f.count = images * f.tiles.tiles_an_image();
  f.edges_a_group = edges_a_group(f.shared, f.edges, f.count);
}

template <class T, class O>
void plan_launch(UnitBackward<T, O>& b, const Window& window, int64_t channels, int64_t images, int64_t most) {
  b.tiles = choose_tiles(b, window, channels, kChunk, most);
  b.count = images * b.tiles.tiles_an_image();
  b.edges_a_group = edges_a_group(b.shared, b.edges, b.count * b.tiles.chunks());
  const int64_t blocks = b.count * b.groups() * b.tiles.chunks();
  b.tiles_a_block = static_cast<int>(std::max<int64_t>(1, blocks / (2 * kBusyBlocks)));
}

}  // namespace lt::sep_unit
