// The operator's two entry points as the dispatcher knows them, and what every device checks before it launches.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../common/tensors.h"

namespace lt::sep_unit {

using Outputs = std::tuple<std::vector<at::Tensor>, at::Tensor>;                // z of every edge, their moments
using Gradients = std::tuple<std::vector<at::Tensor>, at::Tensor, at::Tensor>;  // dx, d depthwise, d pointwise
using Optional = std::optional<at::Tensor>;

// E, from depthwise (E · C, 1, K, K) and pointwise (E · C', C, 1, 1): as grouped convolutions keep their weights.
inline int64_t edges_of(const at::Tensor& depthwise, const at::Tensor& pointwise) {
  return depthwise.size(0) / pointwise.size(1);
}

// Kernels trust their arguments; this is where trust is earned. The Python side says the same in more words.
inline void check(at::TensorList x, const at::Tensor& depthwise, const at::Tensor& pointwise, int64_t stride,
                  int64_t dilation, const Optional& mean, const Optional& inv_std) {
  TORCH_CHECK_VALUE(!x.empty() && x[0].dim() == 4, "x: got ", x.size(), " tensors; wanted images (N, C, H, W)");
  const int64_t channels = x[0].size(1);
  TORCH_CHECK_VALUE(
      depthwise.dim() == 4 && depthwise.size(0) > 0 && depthwise.size(0) % channels == 0 && depthwise.size(1) == 1 &&
          depthwise.size(2) == depthwise.size(3) && depthwise.size(2) % 2 == 1 && depthwise.size(2) <= 7,
      "depthwise: got shape ", depthwise.sizes(), "; wanted (E · ", channels, ", 1, K, K), K one of 1, 3, 5, 7");
  const int64_t edges = depthwise.size(0) / channels;
  TORCH_CHECK_VALUE(pointwise.dim() == 4 && pointwise.size(0) > 0 && pointwise.size(0) % edges == 0 &&
                        pointwise.size(1) == channels && pointwise.size(2) == 1 && pointwise.size(3) == 1,
                    "pointwise: got shape ", pointwise.sizes(), "; wanted (", edges, " · C', ", channels, ", 1, 1)");
  TORCH_CHECK_VALUE(x.size() == 1 || static_cast<int64_t>(x.size()) == edges, "x: got ", x.size(),
                    " tensors; wanted one, or one for each of ", edges, " edges");
  TORCH_CHECK_VALUE(stride == 1 || stride == 2, "stride: got ", stride, "; wanted 1 or 2");
  TORCH_CHECK_VALUE(dilation == 1 || dilation == 2, "dilation: got ", dilation, "; wanted 1 or 2");
  TORCH_CHECK_VALUE(mean.has_value() == inv_std.has_value(), "mean and inv_std: wanted both or neither");
  const auto same = [&](const char* name, const at::Tensor& t) {
    TORCH_CHECK_TYPE(t.scalar_type() == x[0].scalar_type(), name, ": got ", t.scalar_type(), "; wanted ",
                     x[0].scalar_type(), ", as x");
    TORCH_CHECK_VALUE(t.device() == x[0].device(), name, ": got device ", t.device(), "; wanted ", x[0].device(),
                      ", as x");
  };
  for (const at::Tensor& t : x) {
    same("x", t);
    TORCH_CHECK_VALUE(t.sizes() == x[0].sizes() && t.size(1) == channels, "x: got shape ", t.sizes(), "; wanted (",
                      x[0].size(0), ", ", channels, ", …), all of one shape");
  }
  same("depthwise", depthwise);
  same("pointwise", pointwise);
  for (const Optional& t : {mean, inv_std}) {
    if (!t) continue;
    TORCH_CHECK_TYPE(t->scalar_type() == accumulate_type(x[0].scalar_type()) && t->device() == x[0].device(),
                     "mean and inv_std: got ", t->scalar_type(), " on ", t->device(), "; wanted ",
                     accumulate_type(x[0].scalar_type()), " on ", x[0].device());
    TORCH_CHECK_VALUE(t->dim() == 2 && t->size(0) == static_cast<int64_t>(x.size()) && t->size(1) == channels,
                      "mean and inv_std: got shape ", t->sizes(), "; wanted (", x.size(), ", ", channels, ")");
  }
}

inline void check_dz(at::TensorList dz, const at::Tensor& x, const at::Tensor& depthwise, const at::Tensor& pointwise,
                     int64_t out_height, int64_t out_width) {
  const int64_t edges = edges_of(depthwise, pointwise);
  const std::vector<int64_t> shape{x.size(0), pointwise.size(0) / edges, out_height, out_width};
  TORCH_CHECK_VALUE(static_cast<int64_t>(dz.size()) == edges, "dz: got ", dz.size(), "; wanted ", edges);
  for (const at::Tensor& t : dz)
    TORCH_CHECK_VALUE(t.sizes() == shape && t.scalar_type() == x.scalar_type() && t.device() == x.device(), "dz: got ",
                      t.sizes(), " of ", t.scalar_type(), " on ", t.device(), "; wanted ", at::IntArrayRef(shape),
                      " of ", x.scalar_type(), " on ", x.device());
}

// Calls through the dispatcher, so that every key above (autograd, tracing) sees them. tf32: CUDA may round the factors
// of float32 products to 10 bits; an argument, so that backward takes the choice of its forward pass.
inline Outputs call(at::TensorList x, const at::Tensor& depthwise, const at::Tensor& pointwise, int64_t stride,
                    int64_t dilation, const Optional& mean, const Optional& inv_std, bool batch, bool tf32) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::sep_unit", "")
                             .typed<Outputs(at::TensorList, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                                            const Optional&, const Optional&, bool, bool)>();
  return op.call(x, depthwise, pointwise, stride, dilation, mean, inv_std, batch, tf32);
}

inline Gradients call_backward(at::TensorList dz, at::TensorList x, const at::Tensor& depthwise,
                               const at::Tensor& pointwise, int64_t stride, int64_t dilation, const Optional& mean,
                               const Optional& inv_std, bool batch, bool tf32, bool need_x, bool need_weights) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lt_nas_ext::sep_unit_backward", "")
          .typed<Gradients(at::TensorList, at::TensorList, const at::Tensor&, const at::Tensor&, int64_t, int64_t,
                           const Optional&, const Optional&, bool, bool, bool, bool)>();
  return op.call(dz, x, depthwise, pointwise, stride, dilation, mean, inv_std, batch, tf32, need_x, need_weights);
}

}  // namespace lt::sep_unit
