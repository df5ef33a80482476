// Raw loops of sep_unit on a CPU, one pass of this file per instruction set (common/per_isa.h).
#ifndef LT_ISA

#include "sep_unit.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../common/isa.h"

#define LT_KERNEL "../sep_unit/sep_unit_kernel.cpp"
#include "../common/per_isa.h"

namespace lt::sep_unit {

template <class A>
ForwardImage<A> forward_image(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), forward<A>);
}
template <class A>
BackwardImage<A> backward_image(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), backward<A>);
}
template <class A>
FinishPixels<A> finish_pixels(int64_t channels) {
  return LT_DISPATCH_ISA_OF(isa_filled_by(channels * sizeof(A)), finish<A>);
}

template ForwardImage<float> forward_image(int64_t);
template ForwardImage<double> forward_image(int64_t);
template BackwardImage<float> backward_image(int64_t);
template BackwardImage<double> backward_image(int64_t);
template FinishPixels<float> finish_pixels(int64_t);
template FinishPixels<double> finish_pixels(int64_t);

}  // namespace lt::sep_unit

#else

namespace lt::sep_unit::LT_ISA {

#include "../common/vec.h"
// (vec.h first)
#include "../common/depthwise.h"
#include "../common/moments.h"

// Depthwise's output over rows [first, first + rows) of z's grid, dense.
template <class A>
void depthwise_strip(const Plan& plan, const A* tile, const A* weights, int64_t first, int64_t rows, A* u) {
  const int64_t C = plan.channels, S = plan.window.stride, width = plan.out_width();
  for (int64_t row = 0; row < rows; ++row)
    depthwise_row<false>(tile + (first + row) * S * plan.tile_width * C, S, weights, plan.forward, C, width,
                         u + row * width * C, C);
}

// f(first row, rows) over strips of z's rows.
template <class F>
void for_each_strip(const Plan& plan, const F& f) {
  const int64_t rows = plan.window.out_height(), strip = plan.strip_rows();
  for (int64_t first = 0; first < rows; first += strip) f(first, first + strip < rows ? strip : rows - first);
}

template <class A>
void forward(const Forward<A>& f, A* scratch) {
  const Plan& plan = *f.plan;
  const int64_t C = plan.channels, width = plan.out_channels;
  A* const tile = scratch;
  A* const u = tile + plan.tile_elements();
  for (int e = 0; e < f.edges; ++e) {
    const int64_t own = f.shared ? 0 : e;
    if (e == 0 || !f.shared)
      fill_tile<true>(plan, f.x[e], f.mean ? f.mean + own * C : nullptr, f.mean ? f.inv_std + own * C : nullptr, tile);
    double* const moments = f.moments + e * 2 * width;
    for (int64_t i = 0; i < 2 * width; ++i) moments[i] = 0;
    for_each_strip(plan, [&](int64_t first, int64_t rows) {
      const int64_t pixels = rows * plan.out_width();
      depthwise_strip(plan, tile, f.depthwise + e * plan.taps() * C, first, rows, u);
      A* const z = f.z[e] + first * plan.out_width() * width;
      multiply(u, pixels, C, f.pointwise + e * C * width, width, z);
      add_moments(z, f.z[e], width, pixels, moments);
    });
    centre_moments(f.z[e], width, plan.out_pixels(), moments);
  }
}

template <class A>
void backward(const Backward<A>& b, A* scratch) {
  const Plan& plan = *b.plan;
  const int64_t C = plan.channels, out = plan.out_channels, S = plan.window.stride, width = plan.out_width();
  A* const tile = scratch;
  A* const du = tile + plan.tile_elements();
  A* const u = du + plan.du_elements();
  A* const g = u + plan.strip_elements();
  for (int e = 0; e < b.edges; ++e) {
    const int64_t own = b.shared ? 0 : e;
    const A* const depthwise = b.depthwise + e * plan.taps() * C;
    if (e == 0 || !b.shared) {
      fill_tile<true>(plan, b.x[e], b.mean ? b.mean + own * C : nullptr, b.mean ? b.inv_std + own * C : nullptr, tile);
      if (b.dx) std::memset(g, 0, plan.in_pixels() * C * sizeof(A));
    }
    for_each_strip(plan, [&](int64_t first, int64_t rows) {
      const A* const dz = b.dz[e] + first * width * out;
      A* const du_rows = du + ((plan.du_margin + first) * plan.du_width + plan.du_margin) * C;
      for (int64_t row = 0; row < rows; ++row)
        multiply(dz + row * width * out, width, out, b.pointwise + e * out * C, C, du_rows + row * plan.du_width * C);
      if (!b.ddepthwise) return;
      depthwise_strip(plan, tile, depthwise, first, rows, u);
      outer(dz, out, u, C, rows * width, b.dpointwise + e * out * C);
      correlate(tile + first * S * plan.tile_width * C, S * plan.tile_width * C, S * C, du_rows, plan.du_width * C,
                rows, width, plan.forward, C, b.ddepthwise + e * plan.taps() * C);
    });
    if (!b.dx) continue;
    for (const Plan::Phase& phase : plan.phases)
      for (int64_t row = 0; row < phase.rows && phase.taps.count; ++row)
        depthwise_row<true>(du + row * plan.du_width * C, 1, depthwise, phase.taps, C, phase.columns,
                            g + ((S * row + phase.row) * plan.window.width + phase.column) * C, S * C);
    if (!b.shared || e + 1 == b.edges)
      mask(plan, tile, g, b.dx[own], b.mean && b.sums ? b.sums + own * 2 * C : nullptr);
  }
}

template <class A>
void finish(const Finish<A>& f) {
  for (int64_t c = 0; c < f.channels; c += lanes<A>) {
    const Vec<A> mean = load(f.mean + c), inv_std = load(f.inv_std + c), mean_g = load(f.mean_g + c);
    const Vec<A> of_x = load(f.of_x + c);
    for (int64_t i = c; i < f.pixels * f.channels; i += f.channels)
      store<false>(f.g + i, inv_std * (load(f.g + i) - mean_g - (load(f.x + i) - mean) * of_x));
  }
}

}  // namespace lt::sep_unit::LT_ISA

#endif
