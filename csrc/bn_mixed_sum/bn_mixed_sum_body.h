// The bodies of the CUDA kernels of bn_mixed_sum as functions of (block, thread), one phase between two barriers each,
// so that a host build can run them thread by thread (python_tests/host_bodies). No PyTorch header.
//
// Every sum over pixels is taken per tile of a size that the shape alone decides, then over the tiles in order.
#pragma once

#include "../mixed_sum/mixed_sum_body.h"

namespace lt::bn_mixed_sum {

using mixed_sum::Gates;
using mixed_sum::kMaxCandidates;

// A thread holds W channels of each of its pixels, W · sizeof(T) bytes in one load. A block's threads lie side by side
// over at most kMaxUnits such packs of a pixel, and over as many pixels as are left to them.
constexpr int kMaxUnits = 16;

// Pixels a thread takes of each candidate, all in flight together: 128 bytes of sums; half of that where all candidates
// are one block's, so that small images still give every multiprocessor a block.
template <class T, int W>
constexpr int kPixels = 128 / (W * int(sizeof(accumulate_t<T>)));
template <class T, int W>
constexpr int kForwardPixels = kPixels<T, W> / 2;
// Candidates of one block of the backward kernels, which read dy (from cache) once a group: what 32 KB of shared memory
// hold of their threads' sums.
template <class T, int W>
constexpr int kGroup = kPixels<T, W>;

// How the images are cut: the same for every kernel.
struct Grid {
  int64_t pixels, channels;
  int channel_blocks;
  int units;  // packs of a pixel that a block takes
  int lanes;  // pixels that a block takes at a time
};

inline Grid grid_of(int64_t pixels, int64_t channels, int width) {
  const int64_t packs = channels / width;
  const int64_t blocks = (packs + kMaxUnits - 1) / kMaxUnits;
  const int units = static_cast<int>((packs + blocks - 1) / blocks);
  return {pixels, channels, static_cast<int>(blocks), units, kThreads / units};
}

inline int64_t tiles_of(const Grid& g, int pixels_a_thread) {
  const int64_t step = int64_t{g.lanes} * pixels_a_thread;
  return (g.pixels + step - 1) / step;
}

// Travels to the device by value: no copy, so a captured graph holds everything.
struct Launch {
  int slot[kMaxCandidates];
  bool batch[kMaxCandidates];  // the statistics are the candidate's own: it has shift and slope
  int count;
};

template <class T>
struct Candidates : Launch {
  const T* x[kMaxCandidates];
  T* dx[kMaxCandidates];
};

// Candidates [first, last) of one of `groups` groups, which differ by one candidate at most.
struct Group {
  int first, last;

  LT_HOST_DEVICE Group(int count, int groups, unsigned int group)
      : first(static_cast<int>(group) * count / groups), last((static_cast<int>(group) + 1) * count / groups) {}
};

template <class T, int W>
inline int groups_of(int count) {
  return (count + kGroup<T, W> - 1) / kGroup<T, W>;
}

// W numbers of neighbouring channels.
template <class A, int W>
struct Numbers {
  A v[W];
};

template <class T, int W>
LT_HOST_DEVICE Numbers<accumulate_t<T>, W> load(const T* p) {
  Numbers<accumulate_t<T>, W> n;
  if constexpr (W * sizeof(T) == 8) {
    alignas(8) T raw[W];
#if defined(__CUDA_ARCH__)
    *reinterpret_cast<uint2*>(raw) = *reinterpret_cast<const uint2*>(p);
#else
    std::memcpy(raw, p, sizeof raw);
#endif
    LT_UNROLL
    for (int i = 0; i < W; ++i) n.v[i] = widen(raw[i]);
  } else {
    LT_UNROLL
    for (int k = 0; k < W / kPack<T>; ++k) {
      const Pack<T> pack = load_pack(p + k * kPack<T>);
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) n.v[k * kPack<T> + i] = widen(pack.v[i]);
    }
  }
  return n;
}

template <class T, int W>
LT_HOST_DEVICE void store(T* p, const Numbers<accumulate_t<T>, W>& n) {
  if constexpr (W * sizeof(T) == 8) {
    alignas(8) T raw[W];
    LT_UNROLL
    for (int i = 0; i < W; ++i) raw[i] = narrow<T>(n.v[i]);
#if defined(__CUDA_ARCH__)
    detail::store_raw(p, *reinterpret_cast<const uint2*>(raw));
#else
    std::memcpy(p, raw, sizeof raw);
#endif
  } else {
    LT_UNROLL
    for (int k = 0; k < W / kPack<T>; ++k) {
      Pack<T> pack;
      LT_UNROLL
      for (int i = 0; i < kPack<T>; ++i) pack.v[i] = narrow<T>(n.v[k * kPack<T> + i]);
      store_pack(p + k * kPack<T>, pack);
    }
  }
}

// A thread's channels and its pixels within a tile: `count` of them, `step` numbers apart, from number `first` on.
template <int W, int Pixels>
struct Place {
  int64_t tile, channel, first, step;
  int count;

  // `block` counts the channel blocks of a tile, tile by tile.
  LT_HOST_DEVICE Place(const Grid& g, unsigned int block, int thread) {
    tile = block / g.channel_blocks;
    channel = (int64_t{block % g.channel_blocks} * g.units + thread % g.units) * W;
    const int lane = thread / g.units;
    const int64_t pixel = tile * (int64_t{g.lanes} * Pixels) + lane;
    step = g.lanes * g.channels;
    first = pixel * g.channels + channel;
    const int64_t left = g.pixels - pixel;
    count = left >= int64_t{g.lanes} * Pixels ? Pixels : (static_cast<int>(left) + g.lanes - 1) / g.lanes;
    if (lane >= g.lanes || channel >= g.channels || left <= 0) count = 0;
  }

  // Pixels past the last read as zero.
  template <class T>
  LT_HOST_DEVICE void load_all(const T* p, Numbers<accumulate_t<T>, W> (&to)[Pixels]) const {
    LT_UNROLL
    for (int l = 0; l < Pixels; ++l)
      to[l] = l < count ? load<T, W>(p + first + l * step) : Numbers<accumulate_t<T>, W>{};
  }
};

// One number of every thread of a block and channel of its pack, for sums over the lanes.
template <class A, int W>
using Shares = A[kThreads * W];

template <class A, int W>
LT_HOST_DEVICE void put(Shares<A, W>& shares, int thread, const Numbers<A, W>& n) {
  LT_UNROLL
  for (int i = 0; i < W; ++i) shares[thread * W + i] = n.v[i];
}

// First lane first. `column` counts the block's channels.
template <class D, class A, int W>
LT_HOST_DEVICE D lane_sum(const Shares<A, W>& shares, const Grid& g, int column) {
  D total = D(0);
  LT_UNROLL_4
  for (int lane = 0; lane < g.lanes; ++lane) total += shares[lane * g.units * W + column];
  return total;
}

// ---- forward --------------------------------------------------------------------------------------------------------

template <class T>
struct ForwardPass {
  Candidates<T> c;
  Gates<accumulate_t<T>> gates;
  Grid grid;
  const accumulate_t<T>* mean;     // (P, C)
  const accumulate_t<T>* inv_std;  // (P, C)
  T* y;
  bool add;  // a later launch of a chain
};

// Phase 1, after the weights: y (+)= Σ_p w_p inv_std_p (x_p − mean_p). The mean goes first: where it is large against
// the spread, an offset Σ_p w_p inv_std_p mean_p taken at the end would cost the digits.
template <class T, int W>
LT_HOST_DEVICE void forward_thread(const ForwardPass<T>& f, const accumulate_t<T>* weights, unsigned int block,
                                   int thread) {
  using A = accumulate_t<T>;
  constexpr int kMine = kForwardPixels<T, W>;
  const Place<W, kMine> at(f.grid, block, thread);
  if (at.count == 0) return;
  Numbers<A, W> sum[kMine] = {};
  if (f.add) at.load_all(f.y, sum);
  LT_UNROLL_4
  for (int p = 0; p < f.c.count; ++p) {
    Numbers<A, W> x[kMine];
    at.load_all(f.c.x[p], x);
    const int64_t row = p * f.grid.channels + at.channel;
    const Numbers<A, W> mean = load<A, W>(f.mean + row), inv_std = load<A, W>(f.inv_std + row);
    const A w = weights[f.c.slot[p]];
    LT_UNROLL
    for (int i = 0; i < W; ++i) {
      const A scale = w * inv_std.v[i];
      LT_UNROLL
      for (int l = 0; l < kMine; ++l) sum[l].v[i] += scale * (x[l].v[i] - mean.v[i]);
    }
  }
  LT_UNROLL
  for (int l = 0; l < kMine; ++l)
    if (l < at.count) store<T, W>(f.y + at.first + l * at.step, sum[l]);
}

// ---- sums of backward -----------------------------------------------------------------------------------------------

template <class T>
struct SumsPass {
  Candidates<T> c;
  Grid grid;
  int groups;
  const T* dy;
  const accumulate_t<T>* mean;  // (P, C)
  int64_t tiles;
  accumulate_t<T>* partial;  // (P + 1, tiles, C): Σ dy (x_p − mean_p) of every candidate, then Σ dy
};

template <class T, int W>
struct SumsShared {
  Shares<accumulate_t<T>, W> along[kGroup<T, W>], dy;
};

// Phase 1: this thread's share of the sums. `block` counts the groups of a channel block, so that blocks that read the
// same dy run together.
template <class T, int W>
LT_HOST_DEVICE void sums_thread(const SumsPass<T>& s, unsigned int block, int thread, SumsShared<T, W>& shared) {
  using A = accumulate_t<T>;
  constexpr int kMine = kPixels<T, W>;
  const Group group(s.c.count, s.groups, block % s.groups);
  const Place<W, kMine> at(s.grid, block / s.groups, thread);
  Numbers<A, W> dy[kMine], total{};
  at.load_all(s.dy, dy);
  LT_UNROLL
  for (int l = 0; l < kMine; ++l) LT_UNROLL
  for (int i = 0; i < W; ++i) total.v[i] += dy[l].v[i];
  put(shared.dy, thread, total);
  for (int p = group.first; p < group.last; ++p) {
    Numbers<A, W> along{};
    if (at.count > 0) {
      Numbers<A, W> x[kMine];
      at.load_all(s.c.x[p], x);
      const Numbers<A, W> mean = load<A, W>(s.mean + p * s.grid.channels + at.channel);
      LT_UNROLL
      for (int l = 0; l < kMine; ++l) LT_UNROLL
      for (int i = 0; i < W; ++i) along.v[i] += dy[l].v[i] * (x[l].v[i] - mean.v[i]);
    }
    put(shared.along[p - group.first], thread, along);
  }
}

// Phase 2: the block's sums to `partial`; those of dy by the first group.
template <class T, int W>
LT_HOST_DEVICE void partial_thread(const SumsPass<T>& s, unsigned int block, int thread,
                                   const SumsShared<T, W>& shared) {
  using A = accumulate_t<T>;
  const Group group(s.c.count, s.groups, block % s.groups);
  const Place<W, kPixels<T, W>> first(s.grid, block / s.groups, 0);
  const int columns = s.grid.units * W, rows = group.last - group.first, with_dy = rows + (group.first == 0);
  for (int i = thread; i < with_dy * columns; i += kThreads) {
    const int row = i / columns, column = i % columns;
    const int64_t channel = first.channel + column;
    if (channel >= s.grid.channels) continue;
    const bool is_dy = row == rows;
    const A sum = lane_sum<A, A, W>(is_dy ? shared.dy : shared.along[row], s.grid, column);
    const int64_t to = is_dy ? s.c.count : group.first + row;
    s.partial[(to * s.tiles + first.tile) * s.grid.channels + channel] = sum;
  }
}

// ---- tables of backward ---------------------------------------------------------------------------------------------

// Blocks that sum over tiles: a sector of neighbouring channels, many lanes to hide the latency.
constexpr int kTableColumns = 8;
constexpr int kTableLanes = 64;
constexpr int kTableThreads = kTableColumns * kTableLanes;

// dx_p = scale_p dy + shift_p + slope_p (x_p − mean_p).
template <class A>
struct TablesPass {
  Launch c;
  Gates<A> gates;
  int64_t pixels, channels, tiles;
  const A* partial;  // nullptr: nobody asks for shift, slope or ⟨dy, x̂_p⟩
  const A* inv_std;  // each (P, C)
  A *scale, *shift, *slope;
  double* share;  // of a channel in ⟨dy, x̂_p⟩
};

struct TablesShared {
  double along[kTableThreads], dy[kTableThreads];
};

LT_HOST_DEVICE int64_t table_blocks(int64_t channels) { return (channels + kTableColumns - 1) / kTableColumns; }

LT_HOST_DEVICE int64_t table_column(int64_t block, int thread) {
  return block * kTableColumns + thread % kTableColumns;
}

// This thread's share of a sum over the tiles, in double.
template <class P>
LT_HOST_DEVICE double over_tiles(const P* partial, int64_t tiles, int64_t stride, int thread) {
  double sum = 0;
  LT_UNROLL_4
  for (int64_t tile = thread / kTableColumns; tile < tiles; tile += kTableLanes) sum += double(partial[tile * stride]);
  return sum;
}

LT_HOST_DEVICE double column_sum(const double (&shares)[kTableThreads], int thread) {
  double total = 0;
  LT_UNROLL_4
  for (int lane = 0; lane < kTableLanes; ++lane) total += shares[lane * kTableColumns + thread % kTableColumns];
  return total;
}

// Phase 1, beside the weights: a block has some channels of one candidate.
template <class A>
LT_HOST_DEVICE void totals_thread(const TablesPass<A>& t, unsigned int block, int thread, TablesShared& shared) {
  const unsigned int blocks = static_cast<unsigned int>(table_blocks(t.channels));
  const int64_t channel = table_column(block % blocks, thread), p = block / blocks;
  if (t.partial == nullptr || channel >= t.channels) return;
  const int64_t rows = t.tiles * t.channels;
  shared.along[thread] = over_tiles(t.partial + p * rows + channel, t.tiles, t.channels, thread);
  shared.dy[thread] = over_tiles(t.partial + t.c.count * rows + channel, t.tiles, t.channels, thread);
}

// Phase 2.
template <class A>
LT_HOST_DEVICE void tables_thread(const TablesPass<A>& t, const A* weights, unsigned int block, int thread,
                                  const TablesShared& shared) {
  const unsigned int blocks = static_cast<unsigned int>(table_blocks(t.channels));
  const int64_t channel = table_column(block % blocks, thread), p = block / blocks;
  if (thread >= kTableColumns || channel >= t.channels) return;
  const int64_t at = p * t.channels + channel;
  const double w = weights[t.c.slot[p]], inv_std = t.inv_std[at];
  t.scale[at] = static_cast<A>(w * inv_std);
  if (t.partial == nullptr) return;
  const double along = column_sum(shared.along, thread), dy = column_sum(shared.dy, thread);
  t.share[at] = inv_std * along;
  if (!t.c.batch[p]) return;
  const double pixels = static_cast<double>(t.pixels);
  t.shift[at] = static_cast<A>(-w * inv_std * dy / pixels);
  t.slope[at] = static_cast<A>(-w * inv_std * inv_std * inv_std * along / pixels);
}

// ---- the gradient of α ----------------------------------------------------------------------------------------------

constexpr int kAlphaThreads = 1024;

// Phase 2, after ⟨dy, x̂_p⟩ of the launch's candidates (mixed_sum's dots_lane over the channels): into dots[slot].
LT_HOST_DEVICE void dots_thread(const Launch& c, const double* by_candidate, int slots, bool first, int thread,
                                double* dots) {
  for (int slot = thread; slot < slots; slot += kAlphaThreads) {
    double sum = first ? 0 : dots[slot];
    for (int p = 0; p < c.count; ++p)
      if (c.slot[p] == slot) sum += by_candidate[p];
    dots[slot] = sum;
  }
}

// ---- gradients of the candidates ------------------------------------------------------------------------------------

template <class T>
struct GradientPass {
  Candidates<T> c;
  Grid grid;
  int groups;
  const T* dy;
  const accumulate_t<T>* mean;  // each (P, C)
  const accumulate_t<T>* scale;
  const accumulate_t<T>* shift;
  const accumulate_t<T>* slope;
};

template <class T, int W>
LT_HOST_DEVICE void gradient_thread(const GradientPass<T>& g, unsigned int block, int thread) {
  using A = accumulate_t<T>;
  constexpr int kMine = kPixels<T, W>;
  const Group group(g.c.count, g.groups, block % g.groups);
  const Place<W, kMine> at(g.grid, block / g.groups, thread);
  if (at.count == 0) return;
  Numbers<A, W> dy[kMine];
  at.load_all(g.dy, dy);
  for (int p = group.first; p < group.last; ++p) {
    T* const dx = g.c.dx[p];
    if (dx == nullptr) continue;
    const int64_t row = p * g.grid.channels + at.channel;
    const Numbers<A, W> scale = load<A, W>(g.scale + row);
    Numbers<A, W> x[kMine] = {}, mean{}, shift{}, slope{};
    if (g.c.batch[p]) {
      at.load_all(g.c.x[p], x);
      mean = load<A, W>(g.mean + row), shift = load<A, W>(g.shift + row), slope = load<A, W>(g.slope + row);
    }
    LT_UNROLL
    for (int l = 0; l < kMine; ++l) {
      if (l >= at.count) continue;
      Numbers<A, W> to;
      LT_UNROLL
      for (int i = 0; i < W; ++i)
        to.v[i] = scale.v[i] * dy[l].v[i] + (shift.v[i] + slope.v[i] * (x[l].v[i] - mean.v[i]));
      store<T, W>(dx + at.first + l * at.step, to);
    }
  }
}

// ---- moments --------------------------------------------------------------------------------------------------------

template <class T>
struct MomentsPass {
  const T* x;
  Grid grid;
  int64_t tiles;
  double* partial;           // (tiles, 2, C): mean, and sum of squared distances to it
  accumulate_t<T>* moments;  // (2, C): mean and variance
};

template <class T, int W>
struct MomentsShared {
  Shares<accumulate_t<T>, W> sum, squares;
};

// Pixels of one tile.
template <class T, int W>
LT_HOST_DEVICE int64_t tile_pixels(const Grid& g, int64_t tile) {
  const int64_t step = int64_t{g.lanes} * kPixels<T, W>, left = g.pixels - tile * step;
  return left < step ? left : step;
}

// Phase 1: Σ (x − k) and Σ (x − k)² with k the tile's first pixel: what is near it loses no digits.
template <class T, int W>
LT_HOST_DEVICE void squares_thread(const MomentsPass<T>& m, unsigned int block, int thread,
                                   MomentsShared<T, W>& shared) {
  using A = accumulate_t<T>;
  constexpr int kMine = kPixels<T, W>;
  const Place<W, kMine> at(m.grid, block, thread);
  Numbers<A, W> sum{}, squares{};
  if (at.count > 0) {
    Numbers<A, W> x[kMine];
    at.load_all(m.x, x);
    const int64_t first = at.tile * (int64_t{m.grid.lanes} * kMine) * m.grid.channels + at.channel;
    const Numbers<A, W> shift = load<T, W>(m.x + first);
    LT_UNROLL
    for (int l = 0; l < kMine; ++l) {
      if (l >= at.count) continue;
      LT_UNROLL
      for (int i = 0; i < W; ++i) {
        const A d = x[l].v[i] - shift.v[i];
        sum.v[i] += d;
        squares.v[i] += d * d;
      }
    }
  }
  put(shared.sum, thread, sum);
  put(shared.squares, thread, squares);
}

// Phase 2: the tile's mean and sum of squared distances to it.
template <class T, int W>
LT_HOST_DEVICE void centre_thread(const MomentsPass<T>& m, unsigned int block, int thread,
                                  const MomentsShared<T, W>& shared) {
  using A = accumulate_t<T>;
  constexpr int kMine = kPixels<T, W>;
  const Place<W, kMine> first(m.grid, block, 0);
  for (int column = thread; column < m.grid.units * W; column += kThreads) {
    const int64_t channel = first.channel + column;
    if (channel >= m.grid.channels) continue;
    const double pixels = static_cast<double>(tile_pixels<T, W>(m.grid, first.tile));
    const double sum = lane_sum<double, A, W>(shared.sum, m.grid, column), mean = sum / pixels;
    const double squares = lane_sum<double, A, W>(shared.squares, m.grid, column);
    const double shift = widen(m.x[first.tile * (int64_t{m.grid.lanes} * kMine) * m.grid.channels + channel]);
    double* const to = m.partial + first.tile * 2 * m.grid.channels + channel;
    to[0] = shift + mean;
    to[m.grid.channels] = squares - sum * mean;
  }
}

struct CombineShared {
  double sum[kTableThreads], squares[kTableThreads];
};

// Then, in blocks of kTableThreads, over the tiles. Phase 1: Σ n_i mean_i.
template <class T, int W>
LT_HOST_DEVICE void means_thread(const MomentsPass<T>& m, int64_t block, int thread, CombineShared& shared) {
  const int64_t channel = table_column(block, thread);
  if (channel >= m.grid.channels) return;
  double sum = 0;
  LT_UNROLL_4
  for (int64_t tile = thread / kTableColumns; tile < m.tiles; tile += kTableLanes)
    sum += static_cast<double>(tile_pixels<T, W>(m.grid, tile)) * m.partial[tile * 2 * m.grid.channels + channel];
  shared.sum[thread] = sum;
}

// Phase 2: Σ of the tiles' squared distances and of n_i (mean_i − centre)².
template <class T, int W>
LT_HOST_DEVICE void distances_thread(const MomentsPass<T>& m, int64_t block, int thread, CombineShared& shared) {
  const int64_t channel = table_column(block, thread), C = m.grid.channels;
  if (channel >= C) return;
  const double centre = column_sum(shared.sum, thread) / static_cast<double>(m.grid.pixels);
  double squares = 0;
  LT_UNROLL_4
  for (int64_t tile = thread / kTableColumns; tile < m.tiles; tile += kTableLanes) {
    const double distance = m.partial[tile * 2 * C + channel] - centre;
    squares += m.partial[(tile * 2 + 1) * C + channel] +
               static_cast<double>(tile_pixels<T, W>(m.grid, tile)) * distance * distance;
  }
  shared.squares[thread] = squares;
}

// Phase 3: mean and variance.
template <class T>
LT_HOST_DEVICE void moments_thread(const MomentsPass<T>& m, int64_t block, int thread, const CombineShared& shared) {
  using A = accumulate_t<T>;
  const int64_t channel = table_column(block, thread);
  if (thread >= kTableColumns || channel >= m.grid.channels) return;
  const double pixels = static_cast<double>(m.grid.pixels);
  m.moments[channel] = static_cast<A>(column_sum(shared.sum, thread) / pixels);
  m.moments[m.grid.channels + channel] = static_cast<A>(column_sum(shared.squares, thread) / pixels);
}

}  // namespace lt::bn_mixed_sum
