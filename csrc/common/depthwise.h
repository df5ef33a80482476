// Rows of a depthwise convolution, of its two gradients, and of a pointwise one, on channels_last images in the
// accumulation type. Included by a kernel file inside each of its per-ISA passes (per_isa.h), after vec.h.
// Deliberately without include guard; needs depthwise_plan.h before. Channels are whole registers: C % lanes<A> == 0.

// Pixels whose sums are held in registers together: as many chains as hide the latency of a multiply-add.
constexpr int kPixels = 8;

// acc[i] += Σ_t weights[t] x[at_t + i step], one register of channels.
template <class A>
inline void sum_taps(const A* x, int64_t step, const A* weights, const Taps& taps, int64_t channels, Vec<A>* acc) {
  for (int t = 0; t < taps.count; ++t) {
    const A* const from = x + taps.offset[t];
    const Vec<A> w = load(weights + taps.index[t] * channels);
#pragma GCC unroll 8
    for (int i = 0; i < kPixels; ++i) acc[i] += w * load(from + i * step);
  }
}

// The same where the shape of a row is known: every pixel of x is loaded once for all the outputs that it reaches.
template <int Columns, int Spacing, int Step, class A>
inline void sum_rows_of_taps(const A* x, const A* weights, const Taps& taps, int64_t channels, Vec<A>* acc) {
  for (int row = 0; row < taps.count; row += Columns) {
    const A* from = x + taps.offset[row];
    Vec<A> w[Columns];
#pragma GCC unroll 8
    for (int k = 0; k < Columns; ++k) w[k] = load(weights + taps.index[row + k] * channels);
#pragma GCC unroll 32
    for (int j = 0; j < (kPixels - 1) * Step + (Columns - 1) * Spacing + 1; ++j, from += channels) {
      const Vec<A> v = load(from);
#pragma GCC unroll 8
      for (int k = 0; k < Columns; ++k) {
        const int i = j - k * Spacing;
        if (i >= 0 && i % Step == 0 && i / Step < kPixels) acc[i / Step] += w[k] * v;
      }
    }
  }
}

// A row of y: y[i] (+)= Σ_t weights[t] x[at_t + i step], for `pixels` pixels that lie y_step apart. x must be readable
// for whole blocks of kPixels.
template <bool Add, class A, class Sum>
void depthwise_row_by(const A* x, int64_t step, const A* weights, const Taps& taps, int64_t channels, int64_t pixels,
                      A* y, int64_t y_step, const Sum& sum) {
  for (int64_t first = 0; first < pixels; first += kPixels) {
    const int64_t n = pixels - first < kPixels ? pixels - first : kPixels;
    for (int64_t c = 0; c < channels; c += lanes<A>) {
      Vec<A> acc[kPixels] = {};
      sum(x + first * step + c, weights + c, acc);
      A* const to = y + first * y_step + c;
      if (n == kPixels) {
#pragma GCC unroll 8
        for (int i = 0; i < kPixels; ++i) {
          if (Add) acc[i] += load(to + i * y_step);
          store<false>(to + i * y_step, acc[i]);
        }
      } else {
        for (int i = 0; i < n; ++i) {
          if (Add) acc[i] += load(to + i * y_step);
          store<false>(to + i * y_step, acc[i]);
        }
      }
    }
  }
}

template <bool Add, int Columns, int Spacing, int Step, class A>
void depthwise_row_of(const A* x, const A* weights, const Taps& taps, int64_t channels, int64_t pixels, A* y,
                      int64_t y_step) {
  depthwise_row_by<Add>(x, Step * channels, weights, taps, channels, pixels, y, y_step,
                        [&](const A* from, const A* w, Vec<A>* acc) {
                          sum_rows_of_taps<Columns, Spacing, Step>(from, w, taps, channels, acc);
                        });
}

// As depthwise_row_by, `step` in pixels.
template <bool Add, class A>
void depthwise_row(const A* x, int64_t step, const A* weights, const Taps& taps, int64_t channels, int64_t pixels, A* y,
                   int64_t y_step) {
  switch (step * 100 + taps.spacing * 10 + taps.columns) {
    case 111: return depthwise_row_of<Add, 1, 1, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 112: return depthwise_row_of<Add, 2, 1, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 113: return depthwise_row_of<Add, 3, 1, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 115: return depthwise_row_of<Add, 5, 1, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 123: return depthwise_row_of<Add, 3, 2, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 125: return depthwise_row_of<Add, 5, 2, 1>(x, weights, taps, channels, pixels, y, y_step);
    case 213: return depthwise_row_of<Add, 3, 1, 2>(x, weights, taps, channels, pixels, y, y_step);
    case 215: return depthwise_row_of<Add, 5, 1, 2>(x, weights, taps, channels, pixels, y, y_step);
    case 223: return depthwise_row_of<Add, 3, 2, 2>(x, weights, taps, channels, pixels, y, y_step);
    case 225: return depthwise_row_of<Add, 5, 2, 2>(x, weights, taps, channels, pixels, y, y_step);
    default:
      depthwise_row_by<Add>(
          x, step * channels, weights, taps, channels, pixels, y, y_step,
          [&](const A* from, const A* w, Vec<A>* acc) { sum_taps(from, step * channels, w, taps, channels, acc); });
  }
}

// dweights[t] += Σ over rows and pixels of dy · x[at_t + …], for taps [first, first + G) and one register of channels.
template <int G, class A>
void correlate_taps(const A* x, int64_t x_row, int64_t step, const A* dy, int64_t dy_row, int64_t rows, int64_t pixels,
                    const Taps& taps, int first, int64_t channels, A* dweights) {
  Vec<A> acc[G];
  int64_t at[G];
#pragma GCC unroll 10
  for (int g = 0; g < G; ++g) {
    acc[g] = load(dweights + taps.index[first + g] * channels);
    at[g] = taps.offset[first + g];
  }
  for (int64_t row = 0; row < rows; ++row) {
    const A* from[G];
#pragma GCC unroll 10
    for (int g = 0; g < G; ++g) from[g] = x + row * x_row + at[g];
    const A* const d = dy + row * dy_row;
    for (int64_t i = 0; i < pixels; ++i) {
      const Vec<A> v = load(d + i * channels);
#pragma GCC unroll 10
      for (int g = 0; g < G; ++g) acc[g] += v * load(from[g] + i * step);
    }
  }
#pragma GCC unroll 10
  for (int g = 0; g < G; ++g) store<false>(dweights + taps.index[first + g] * channels, acc[g]);
}

constexpr int kTapsTogether = 10;

template <class A, int G = kTapsTogether>
void correlate_group(int count, const A* x, int64_t x_row, int64_t step, const A* dy, int64_t dy_row, int64_t rows,
                     int64_t pixels, const Taps& taps, int first, int64_t channels, A* dweights) {
  if constexpr (G > 0) {
    if (count == G)
      correlate_taps<G>(x, x_row, step, dy, dy_row, rows, pixels, taps, first, channels, dweights);
    else
      correlate_group<A, G - 1>(count, x, x_row, step, dy, dy_row, rows, pixels, taps, first, channels, dweights);
  }
}

// dweights (taps × channels) += the correlation of dy with x over some rows, taps in even groups.
template <class A>
void correlate(const A* x, int64_t x_row, int64_t step, const A* dy, int64_t dy_row, int64_t rows, int64_t pixels,
               const Taps& taps, int64_t channels, A* dweights) {
  const int groups = (taps.count + kTapsTogether - 1) / kTapsTogether;
  for (int64_t c = 0; c < channels; c += lanes<A>)
    for (int g = 0; g < groups; ++g) {
      const int first = taps.count * g / groups, last = taps.count * (g + 1) / groups;
      correlate_group<A>(last - first, x + c, x_row, step, dy + c, dy_row, rows, pixels, taps, first, channels,
                         dweights + c);
    }
}

// y[i][o .. o + O registers) = Σ_k x[i][k] w[k][o …] for P pixels.
template <int P, int O, class A>
inline void multiply_block(const A* x, int64_t depth, const A* w, int64_t width, A* y) {
  Vec<A> acc[P][O] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vec<A> row[O];
#pragma GCC unroll 2
    for (int o = 0; o < O; ++o) row[o] = load(w + k * width + o * lanes<A>);
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
      const A value = x[i * depth + k];
#pragma GCC unroll 2
      for (int o = 0; o < O; ++o) acc[i][o] += value * row[o];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 2
    for (int o = 0; o < O; ++o) store<false>(y + i * width + o * lanes<A>, acc[i][o]);
}

template <int O, class A>
inline void multiply_columns(const A* x, int64_t pixels, int64_t depth, const A* w, int64_t width, int64_t o, A* y) {
  constexpr int P = 8 / O;
  int64_t i = 0;
  for (; i + P <= pixels; i += P) multiply_block<P, O>(x + i * depth, depth, w + o, width, y + i * width + o);
  for (; i < pixels; ++i) multiply_block<1, O>(x + i * depth, depth, w + o, width, y + i * width + o);
}

// y (pixels × width) = x (pixels × depth) · w (depth × width).
template <class A>
void multiply(const A* x, int64_t pixels, int64_t depth, const A* w, int64_t width, A* y) {
  int64_t o = 0;
  for (; o + 2 * lanes<A> <= width; o += 2 * lanes<A>) multiply_columns<2>(x, pixels, depth, w, width, o, y);
  for (; o < width; o += lanes<A>) multiply_columns<1>(x, pixels, depth, w, width, o, y);
}

template <int R, int O, class A>
inline void outer_block(const A* x, int64_t rows, const A* y, int64_t width, int64_t pixels, A* sum) {
  Vec<A> acc[R][O];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int o = 0; o < O; ++o) acc[r][o] = load(sum + r * width + o * lanes<A>);
  for (int64_t i = 0; i < pixels; ++i) {
    Vec<A> row[O];
#pragma GCC unroll 2
    for (int o = 0; o < O; ++o) row[o] = load(y + i * width + o * lanes<A>);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const A value = x[i * rows + r];
#pragma GCC unroll 2
      for (int o = 0; o < O; ++o) acc[r][o] += value * row[o];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int o = 0; o < O; ++o) store<false>(sum + r * width + o * lanes<A>, acc[r][o]);
}

// sum (rows × width) += xᵀ y over pixels; x is pixels × rows, y is pixels × width. Both are whole registers.
template <class A>
void outer(const A* x, int64_t rows, const A* y, int64_t width, int64_t pixels, A* sum) {
  constexpr int R = 4;
  for (int64_t r = 0; r < rows; r += R) {
    int64_t o = 0;
    for (; o + 2 * lanes<A> <= width; o += 2 * lanes<A>)
      outer_block<R, 2>(x + r, rows, y + o, width, pixels, sum + r * width + o);
    for (; o < width; o += lanes<A>) outer_block<R, 1>(x + r, rows, y + o, width, pixels, sum + r * width + o);
  }
}

// The image, normalised where it is to be and, with Relu, without its negative numbers, into the middle of the tile. A
// NaN stays.
template <bool Relu, class A>
void fill_tile(const DepthwisePlan& plan, const A* x, const A* mean, const A* inv_std, A* tile) {
  const int64_t C = plan.channels, width = plan.window.width, p = plan.window.padding();
  for (int64_t row = 0; row < plan.window.height; ++row) {
    const A* const from = x + row * width * C;
    A* const to = tile + ((row + p) * plan.tile_width + p) * C;
    for (int64_t c = 0; c < C; c += lanes<A>) {
      const Vec<A> m = mean ? load(mean + c) : Vec<A>{};
      const Vec<A> s = mean ? load(inv_std + c) : Vec<A>{} + A(1);
      for (int64_t i = c; i < width * C; i += C) {
        const Vec<A> v = (load(from + i) - m) * s;
        store<false>(to + i, Relu ? (v < A(0) ? Vec<A>{} : v) : v);
      }
    }
  }
}

// dx where the ReLU let x pass, and its sums with 1 and with the normalised x that passed.
template <class A>
void mask(const DepthwisePlan& plan, const A* tile, const A* g, A* dx, double* sums) {
  const int64_t C = plan.channels, width = plan.window.width, p = plan.window.padding();
  for (int64_t row = 0; row < plan.window.height; ++row) {
    const A* const a = tile + ((row + p) * plan.tile_width + p) * C;
    const int64_t at = row * width * C;
    for (int64_t c = 0; c < C; c += lanes<A>) {
      Vec<A> sum = {}, along = {};
      for (int64_t i = c; i < width * C; i += C) {
        const Vec<A> passed = load(a + i);
        const Vec<A> v = passed == A(0) ? Vec<A>{} : load(g + at + i);
        sum += v;
        along += v * passed;
        store<false>(dx + at + i, v);
      }
      if (!sums) continue;
      for (int l = 0; l < lanes<A>; ++l) {
        sums[c + l] += sum[l];
        sums[C + c + l] += along[l];
      }
    }
  }
}
