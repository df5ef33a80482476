// Raw loops of depthwise_conv on a CPU, one pass of this file per instruction set (common/per_isa.h).
#ifndef LT_ISA

#include "depthwise_conv.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/isa.h"

#define LT_KERNEL "../depthwise_conv/depthwise_conv_kernel.cpp"
#include "../common/per_isa.h"

namespace lt::depthwise_conv {

template <class A>
ForwardImage<A> forward_image(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), forward<A>);
}
template <class A>
BackwardImage<A> backward_image(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), backward<A>);
}

template ForwardImage<float> forward_image(int64_t);
template ForwardImage<double> forward_image(int64_t);
template BackwardImage<float> backward_image(int64_t);
template BackwardImage<double> backward_image(int64_t);

}  // namespace lt::depthwise_conv

#else

namespace lt::depthwise_conv::LT_ISA {

#include "../common/vec.h"
// (vec.h first)
#include "../common/depthwise.h"

template <class A>
void fill(const DepthwisePlan& plan, const A* x, bool relu, A* tile) {
  relu ? fill_tile<true, A>(plan, x, nullptr, nullptr, tile) : fill_tile<false, A>(plan, x, nullptr, nullptr, tile);
}

template <class A>
void forward(const Forward<A>& f, A* tile) {
  const DepthwisePlan& plan = *f.plan;
  const int64_t C = plan.channels, S = plan.window.stride, width = plan.out_width();
  fill(plan, f.x, f.relu, tile);
  for (int64_t row = 0; row < plan.window.out_height(); ++row)
    depthwise_row<false>(tile + row * S * plan.tile_width * C, S, f.weight, plan.forward, C, width,
                         f.y + row * width * C, C);
}

template <class A>
void backward(const Backward<A>& b, A* scratch) {
  const DepthwisePlan& plan = *b.plan;
  const int64_t C = plan.channels, S = plan.window.stride, width = plan.out_width();
  A* const tile = scratch;
  A* const dy = tile + plan.tile_elements();
  if (b.dweight || b.relu) fill(plan, b.x, b.relu, tile);
  for (int64_t row = 0; row < plan.window.out_height(); ++row) {
    const A* const from = b.dy + row * width * C;
    if (b.dx)
      std::memcpy(dy + ((plan.du_margin + row) * plan.du_width + plan.du_margin) * C, from, width * C * sizeof(A));
    if (b.dweight)
      correlate(tile + row * S * plan.tile_width * C, S * plan.tile_width * C, S * C, from, width * C, 1, width,
                plan.forward, C, b.dweight);
  }
  if (!b.dx) return;
  for (const DepthwisePlan::Phase& phase : plan.phases)
    for (int64_t row = 0; row < phase.rows; ++row)
      depthwise_row<false>(dy + row * plan.du_width * C, 1, b.weight, phase.taps, C, phase.columns,
                           b.dx + ((S * row + phase.row) * plan.window.width + phase.column) * C, S * C);
  if (b.relu) mask<A>(plan, tile, b.dx, b.dx, nullptr);
}

}  // namespace lt::depthwise_conv::LT_ISA

#endif
