// z_e = pointwise_e(depthwise_e(a)) for all E edges that leave one state, a = relu(x) or relu((x − mean) inv_std), with
// the mean and variance of every z_e, and the gradients.
//
// Floor, N H W C numbers a pass: forward 1 read and E writes (E and E where every edge has its own x); backward E reads
// of dz, 1 read of x and 1 write of dx (E and E). Multiply-adds per edge and number: forward K² + C, backward
// K² + C (depthwise again, for the pointwise gradient) + C + 2 K². What is between depthwise and pointwise never leaves
// the cache, and neither do the edges' shares of dx.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/taps.h"

namespace lt::sep_unit {

// Rows of z taken together, so that they and the rows of x under them stay in the first-level cache.
constexpr int64_t kStripPixels = 128;
// Whole blocks of pixels are read; what lies beyond an image is zeros.
constexpr int64_t kBlockPixels = 8;

inline int64_t whole_blocks(int64_t pixels) { return (pixels + kBlockPixels - 1) / kBlockPixels * kBlockPixels; }

// Where everything stands in the padded images of a thread's scratch memory.
struct Plan {
  Window window;
  int64_t channels, out_channels;

  // a, with zeros around it.
  int64_t tile_height, tile_width;
  Taps forward;  // from z's grid into the tile

  // The gradient with respect to depthwise's output, with zeros around it.
  int64_t du_margin, du_height, du_width;
  // Every input pixel takes the taps of its phase: one for stride 1, stride² else.
  struct Phase {
    int64_t row, column;  // of its first pixel
    int64_t rows, columns;
    Taps taps;  // from the phase's grid into du
  };
  std::vector<Phase> phases;

  Plan(const Window& w, int64_t channels_, int64_t out_channels_)
      : window(w), channels(channels_), out_channels(out_channels_) {
    const int64_t K = w.kernel, S = w.stride, D = w.dilation, p = w.padding();
    const int64_t span = (K - 1) * D + 1;
    tile_height = std::max(w.height + p, (w.out_height() - 1) * S + span);
    tile_width = std::max(w.width + p, (whole_blocks(w.out_width()) - 1) * S + span);
    for (int64_t ky = 0; ky < K; ++ky)
      for (int64_t kx = 0; kx < K; ++kx) {
        forward.index[forward.count] = static_cast<int>(ky * K + kx);
        forward.offset[forward.count++] = (ky * tile_width + kx) * D * channels;
      }
    forward.columns = w.kernel;
    forward.spacing = w.dilation;
    // Input pixel S r + a takes from output pixel r + (a + p − k D) / S wherever that is whole.
    du_margin = (p + S - 1) / S;
    du_height = du_margin + std::max(w.out_height(), (w.height - 1 + p) / S + 1);
    du_width = 0;
    for (int64_t a = 0; a < S; ++a) {
      const int64_t columns = (w.width - a + S - 1) / S;
      du_width = std::max({du_width, du_margin + w.out_width(), du_margin + whole_blocks(columns) + (a + p) / S});
    }
    for (int64_t a = 0; a < S; ++a)
      for (int64_t b = 0; b < S; ++b) {
        Phase phase{a, b, (w.height - a + S - 1) / S, (w.width - b + S - 1) / S, {}};
        Taps& taps = phase.taps;
        int64_t before = 0;
        // From the last weight to the first: the offsets rise.
        for (int64_t ky = K - 1; ky >= 0; --ky)
          for (int64_t kx = K - 1; kx >= 0; --kx) {
            const int64_t y = a + p - ky * D, x = b + p - kx * D;
            if (y % S || x % S) continue;
            taps.index[taps.count] = static_cast<int>(ky * K + kx);
            taps.offset[taps.count++] = ((du_margin + y / S) * du_width + du_margin + x / S) * channels;
            if (taps.count == 2) taps.spacing = static_cast<int>(x / S - before);
            before = x / S;
          }
        for (int64_t kx = 0; kx < K; ++kx) taps.columns += (b + p - kx * D) % S == 0;
        if (taps.columns == 1) taps.spacing = 1;
        phases.push_back(phase);
      }
  }

  int64_t taps() const { return int64_t{window.kernel} * window.kernel; }
  int64_t out_width() const { return window.out_width(); }
  int64_t out_pixels() const { return window.out_height() * window.out_width(); }
  int64_t in_pixels() const { return window.height * window.width; }
  int64_t strip_rows() const { return std::max<int64_t>(1, kStripPixels / std::max<int64_t>(1, out_width())); }
  int64_t tile_elements() const { return tile_height * tile_width * channels; }
  int64_t du_elements() const { return du_height * du_width * channels; }
  int64_t strip_elements() const { return strip_rows() * out_width() * channels; }

  int64_t forward_scratch() const { return tile_elements() + strip_elements(); }
  int64_t backward_scratch() const {
    return tile_elements() + du_elements() + strip_elements() + in_pixels() * channels;
  }
};

// One image, `edges` edges. All images are channels_last, dense.
template <class A>
struct Forward {
  const Plan* plan;
  int edges;
  bool shared;        // x[0] and its mean and inv_std serve all edges
  const A* const* x;  // per edge, the image's first pixel
  const A* mean;      // (edges, C), or nullptr: no batch norm before the ReLU
  const A* inv_std;
  const A* depthwise;  // (edges, taps, C)
  const A* pointwise;  // (edges, C, C'): transposed
  A* const* z;
  double* moments;  // (edges, 2, C'): mean and sum of squared distances to it, of this image
};

template <class A>
struct Backward {
  const Plan* plan;
  int edges;
  bool shared;
  const A* const* x;
  const A* mean;
  const A* inv_std;
  const A* depthwise;
  const A* pointwise;  // (edges, C', C): as given
  const A* const* dz;
  A* const* dx;   // the gradient with respect to the batch norm's output, or to x where there is none; or null
  A* ddepthwise;  // (edges, taps, C), added to; nullptr: not wanted
  A* dpointwise;  // (edges, C', C)
  double* sums;   // (edges, 2, C): Σ dx and Σ dx · normalised x, added to, where there is a batch norm and dx
};

// The kernels of the active instruction set; `scratch` is zeroed once before the first image of a thread.
template <class A>
using ForwardImage = void (*)(const Forward<A>&, A* scratch);
template <class A>
using BackwardImage = void (*)(const Backward<A>&, A* scratch);
// g = inv_std (g − mean_g − (x − mean) of_x) over some pixels, in place: back through a batch norm by its statistics.
template <class A>
struct Finish {
  const A* x;
  const A* mean;
  const A* inv_std;
  const A* mean_g;
  const A* of_x;  // inv_std · mean of g · normalised x
  int64_t channels;
  int64_t pixels;
  A* g;
};
template <class A>
using FinishPixels = void (*)(const Finish<A>&);

template <class A>
ForwardImage<A> forward_image(int64_t channels);
template <class A>
BackwardImage<A> backward_image(int64_t channels);
template <class A>
FinishPixels<A> finish_pixels(int64_t channels);

}  // namespace lt::sep_unit
