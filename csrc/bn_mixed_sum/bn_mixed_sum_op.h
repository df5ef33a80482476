// The operator's entry points as the dispatcher knows them, and what every device checks before it launches.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <tuple>
#include <vector>

#include "../mixed_sum/mixed_sum_op.h"

namespace lt::bn_mixed_sum {

using Gradients = std::tuple<std::vector<at::Tensor>, at::Tensor>;

inline void check_images(const at::Tensor& x, const char* argument) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.numel() > 0, argument, ": got shape ", x.sizes(),
                    "; wanted images (N, C, H, W), not empty");
  TORCH_CHECK_VALUE(x.size(1) % 4 == 0, argument, ": got ", x.size(1), " channels; the kernel takes multiples of 4");
}

// `mean` and `inv_std` are in the type of sums.
inline void check(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots, const at::Tensor& mean,
                  const at::Tensor& inv_std, const c10::List<bool>& batch) {
  mixed_sum::check_forward(candidates, alpha, slots);
  check_images(candidates[0], "candidates");
  const int64_t count = static_cast<int64_t>(candidates.size());
  const at::ScalarType type = accumulate_type(candidates[0].scalar_type());
  for (const at::Tensor& t : {mean, inv_std})
    TORCH_CHECK_VALUE(t.dim() == 2 && t.size(0) == count && t.size(1) == candidates[0].size(1) &&
                          t.scalar_type() == type && t.device() == candidates[0].device(),
                      "mean and inv_std: got ", t.scalar_type(), " of shape ", t.sizes(), " on ", t.device(),
                      "; wanted ", type, " of (", count, ", ", candidates[0].size(1), ") on ", candidates[0].device());
  TORCH_CHECK_VALUE(static_cast<int64_t>(batch.size()) == count, "batch: got ", batch.size(), "; wanted ", count);
}

// Calls through the dispatcher, so that every key above (autograd, tracing) sees them.
inline at::Tensor call(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots, c10::string_view gate,
                       const at::Tensor& mean, const at::Tensor& inv_std, c10::List<bool> batch) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::bn_mixed_sum", "")
                             .typed<at::Tensor(at::TensorList, const at::Tensor&, at::IntArrayRef, c10::string_view,
                                               const at::Tensor&, const at::Tensor&, c10::List<bool>)>();
  return op.call(candidates, alpha, slots, gate, mean, inv_std, std::move(batch));
}

// dx_p for each p with need_x[p], in order, and dα (empty where not needed).
inline Gradients call_backward(const at::Tensor& grad, at::TensorList candidates, const at::Tensor& alpha,
                               at::IntArrayRef slots, c10::string_view gate, const at::Tensor& mean,
                               const at::Tensor& inv_std, c10::List<bool> batch, c10::List<bool> need_x,
                               bool need_alpha) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lt_nas_ext::bn_mixed_sum_backward", "")
          .typed<Gradients(const at::Tensor&, at::TensorList, const at::Tensor&, at::IntArrayRef, c10::string_view,
                           const at::Tensor&, const at::Tensor&, c10::List<bool>, c10::List<bool>, bool)>();
  return op.call(grad, candidates, alpha, slots, gate, mean, inv_std, std::move(batch), std::move(need_x), need_alpha);
}

}  // namespace lt::bn_mixed_sum
