// depthwise_conv on a CPU: tensors, threads and partial sums around the raw loops of depthwise_conv_kernel.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../common/scratch.h"
#include "../common/sum_in_order.h"
#include "../common/tensors.h"
#include "depthwise_conv.h"
#include "depthwise_conv_op.h"

namespace lt::depthwise_conv {
namespace {

using at::Tensor;

// Images whose weight gradients are summed together, one group after the other: the same bits for any thread count.
constexpr int64_t kGroups = 16;

DepthwisePlan plan_of(const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation) {
  TORCH_CHECK_VALUE(x.size(1) % 4 == 0, "x: got ", x.size(1), " channels; the kernel takes multiples of 4");
  const Window window{x.size(2), x.size(3), static_cast<int>(weight.size(2)), static_cast<int>(stride),
                      static_cast<int>(dilation)};
  return DepthwisePlan(window, x.size(1));
}

// (C, 1, K, K) as the kernels read it: (K · K, C).
Tensor taps_first(const Tensor& weight) { return weight.reshape({weight.size(0), -1}).t().contiguous(); }

template <class A>
Tensor forward_of(const Tensor& x, const Tensor& weight, const DepthwisePlan& plan, bool relu) {
  const int64_t C = plan.channels;
  const Tensor y = at::empty({x.size(0), C, plan.window.out_height(), plan.out_width()}, x.options(),
                             at::MemoryFormat::ChannelsLast);
  const Tensor taps = taps_first(weight);
  const A *const from = x.const_data_ptr<A>(), *const w = taps.const_data_ptr<A>();
  A* const to = y.mutable_data_ptr<A>();
  const auto kernel = forward_image<A>(C);
  at::parallel_for(0, x.size(0), 1, [&](int64_t first, int64_t last) {
    const auto scratch = zeroed_scratch<A>(forward_scratch(plan));
    for (int64_t n = first; n < last; ++n)
      kernel(Forward<A>{&plan, from + n * plan.in_pixels() * C, w, relu, to + n * plan.out_pixels() * C},
             scratch.get());
  });
  return y;
}

Tensor forward_cpu(const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation, bool relu) {
  check(x, weight, stride, dilation);
  const DepthwisePlan plan = plan_of(x, weight, stride, dilation);
  // PyTorch's own forward pass over contiguous images is faster than a conversion to channels_last and back.
  if (!x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return at::conv2d(relu ? at::relu(x) : x, weight, {}, stride, plan.window.padding(), dilation, x.size(1));
  Tensor y;
  with_float_type(x.scalar_type(), "x",
                  [&](auto element) { y = forward_of<decltype(element)>(x, weight, plan, relu); });
  return y;
}

template <class A>
Gradients backward_of(const Tensor& dy, const Tensor& x, const Tensor& weight, const DepthwisePlan& plan, bool relu,
                      bool need_x, bool need_weight) {
  const int64_t C = plan.channels, images = x.size(0), groups = std::min(images, kGroups);
  const int64_t elements = plan.taps() * C;
  const Tensor dx = need_x ? at::empty_like(x) : at::empty({0}, x.options());
  const Tensor taps = taps_first(weight), parts = at::zeros({need_weight ? groups : 0, elements}, x.options());
  const A *const grad = dy.const_data_ptr<A>(), *const from = x.const_data_ptr<A>(),
                 *const w = taps.const_data_ptr<A>();
  A* const to = need_x ? dx.mutable_data_ptr<A>() : nullptr;
  A* const dweight = need_weight ? parts.mutable_data_ptr<A>() : nullptr;
  const auto kernel = backward_image<A>(C);
  at::parallel_for(0, groups, 1, [&](int64_t first, int64_t last) {
    const auto scratch = zeroed_scratch<A>(backward_scratch(plan));
    for (int64_t group = first; group < last; ++group)
      for (int64_t n = group * images / groups; n < (group + 1) * images / groups; ++n) {
        const int64_t in = n * plan.in_pixels() * C;
        kernel(Backward<A>{&plan, from + in, w, grad + n * plan.out_pixels() * C, relu, to ? to + in : nullptr,
                           dweight ? dweight + group * elements : nullptr},
               scratch.get());
      }
  });
  if (!need_weight) return {dx, at::empty({0}, x.options())};
  const Tensor total = at::empty({plan.taps(), C}, x.options());
  sum_in_order(parts.const_data_ptr<A>(), groups, elements, total.mutable_data_ptr<A>());
  return {dx, total.t().contiguous().view(weight.sizes())};
}

Gradients backward_cpu(const Tensor& dy, const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation,
                       bool relu, bool need_x, bool need_weight) {
  check(x, weight, stride, dilation);
  const DepthwisePlan plan = plan_of(x, weight, stride, dilation);
  check_dy(dy, x, plan.window.out_height(), plan.out_width());
  Gradients gradients;
  with_float_type(x.scalar_type(), "x", [&](auto element) {
    gradients =
        backward_of<decltype(element)>(channels_last(dy), channels_last(x), weight, plan, relu, need_x, need_weight);
  });
  return gradients;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CPU, m) {
  m.impl("depthwise_conv", forward_cpu);
  m.impl("depthwise_conv_backward", backward_cpu);
}

}  // namespace lt::depthwise_conv
