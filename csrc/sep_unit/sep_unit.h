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

#include "../common/depthwise_plan.h"

namespace lt::sep_unit {

// Rows of z taken together, so that they and the rows of x under them stay in the first-level cache.
constexpr int64_t kStripPixels = 128;

// One image of a unit.
struct Plan : DepthwisePlan {
  int64_t out_channels;

  Plan(const Window& w, int64_t channels_, int64_t out_channels_)
      : DepthwisePlan(w, channels_), out_channels(out_channels_) {}

  int64_t strip_rows() const { return std::max<int64_t>(1, kStripPixels / std::max<int64_t>(1, out_width())); }
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
