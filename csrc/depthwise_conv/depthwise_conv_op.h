// The operator's two entry points as the dispatcher knows them, and what every device checks before it launches.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <tuple>
#include <vector>

namespace lt::depthwise_conv {

using Gradients = std::tuple<at::Tensor, at::Tensor>;  // dx, dweight; empty where not needed

// Kernels trust their arguments; this is where trust is earned. The Python side says the same in more words.
inline void check(const at::Tensor& x, const at::Tensor& weight, int64_t stride, int64_t dilation) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.numel() > 0, "x: got shape ", x.sizes(), "; wanted images (N, C, H, W)");
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(0) == x.size(1) && weight.size(1) == 1 &&
                        weight.size(2) == weight.size(3) && weight.size(2) % 2 == 1 && weight.size(2) <= 7,
                    "weight: got shape ", weight.sizes(), "; wanted (", x.size(1), ", 1, K, K), K one of 1, 3, 5, 7");
  TORCH_CHECK_TYPE(weight.scalar_type() == x.scalar_type(), "weight: got ", weight.scalar_type(), "; wanted ",
                   x.scalar_type(), ", as x");
  TORCH_CHECK_VALUE(weight.device() == x.device(), "weight: got device ", weight.device(), "; wanted ", x.device());
  TORCH_CHECK_VALUE(stride == 1 || stride == 2, "stride: got ", stride, "; wanted 1 or 2");
  TORCH_CHECK_VALUE(dilation == 1 || dilation == 2, "dilation: got ", dilation, "; wanted 1 or 2");
}

inline void check_dy(const at::Tensor& dy, const at::Tensor& x, int64_t out_height, int64_t out_width) {
  const std::vector<int64_t> shape{x.size(0), x.size(1), out_height, out_width};
  TORCH_CHECK_VALUE(dy.sizes() == shape && dy.scalar_type() == x.scalar_type() && dy.device() == x.device(), "dy: got ",
                    dy.scalar_type(), " of ", dy.sizes(), " on ", dy.device(), "; wanted ", x.scalar_type(), " of ",
                    at::IntArrayRef(shape), " on ", x.device());
}

// Calls through the dispatcher, so that every key above (autograd, tracing) sees them.
inline at::Tensor call(const at::Tensor& x, const at::Tensor& weight, int64_t stride, int64_t dilation, bool relu) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::depthwise_conv", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t, int64_t, bool)>();
  return op.call(x, weight, stride, dilation, relu);
}

inline Gradients call_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight, int64_t stride,
                               int64_t dilation, bool relu, bool need_x, bool need_weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::depthwise_conv_backward", "")
                             .typed<Gradients(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                                              bool, bool, bool)>();
  return op.call(dy, x, weight, stride, dilation, relu, need_x, need_weight);
}

}  // namespace lt::depthwise_conv
