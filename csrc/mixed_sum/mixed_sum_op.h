// The operator's two entry points as the dispatcher knows them, and what every device checks before it launches.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <tuple>
#include <vector>

#include "../common/gate.h"
#include "../common/tensors.h"

namespace lt::mixed_sum {

using Gradients = std::tuple<std::vector<at::Tensor>, at::Tensor>;

inline Gate parse_gate(c10::string_view gate) {
  if (gate == "softmax") return Gate::softmax;
  if (gate == "sigmoid") return Gate::sigmoid;
  TORCH_CHECK_VALUE(gate == "identity", "gate: got '", gate, "'; wanted 'softmax', 'sigmoid' or 'identity'");
  return Gate::identity;
}

// Kernels trust their arguments; this is where trust is earned. The Python side says the same in more words.
inline void check(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots) {
  TORCH_CHECK_VALUE(alpha.dim() == 1 || alpha.dim() == 2, "alpha: got shape ", alpha.sizes(),
                    "; wanted (K,) or (E, K)");
  TORCH_CHECK_VALUE(alpha.is_floating_point(), "alpha: got ", alpha.scalar_type(), "; wanted a floating-point type");
  for (int64_t slot : slots)
    TORCH_CHECK_VALUE(slot >= 0 && slot < alpha.numel(), "slots: got ", slot, " for alpha of ", alpha.numel(),
                      " elements");
  for (const at::Tensor& x : candidates) {
    TORCH_CHECK_VALUE(x.sizes() == candidates[0].sizes(), "candidates: got shapes ", candidates[0].sizes(), " and ",
                      x.sizes(), "; wanted one shape");
    TORCH_CHECK_TYPE(x.scalar_type() == candidates[0].scalar_type(), "candidates: got ", candidates[0].scalar_type(),
                     " and ", x.scalar_type(), "; wanted one type");
    TORCH_CHECK_VALUE(x.device() == alpha.device(), "candidates: got device ", x.device(), " beside alpha on ",
                      alpha.device());
  }
}

inline void check_forward(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots) {
  TORCH_CHECK_VALUE(!candidates.empty(), "candidates: got none; wanted at least one tensor");
  TORCH_CHECK_VALUE(candidates.size() == slots.size(), "slots: got ", slots.size(), " for ", candidates.size(),
                    " candidates");
  check(candidates, alpha, slots);
}

inline void check_backward(const at::Tensor& grad, at::TensorList candidates, const at::Tensor& alpha,
                           at::IntArrayRef slots, bool need_alpha) {
  TORCH_CHECK_VALUE(!need_alpha || candidates.size() == slots.size(), "candidates: got ", candidates.size(), " for ",
                    slots.size(), " slots; the gradient of alpha needs them all");
  check(candidates, alpha, slots);
  TORCH_CHECK_VALUE(grad.device() == alpha.device(), "grad: got device ", grad.device(), " beside alpha on ",
                    alpha.device());
  for (const at::Tensor& x : candidates)
    TORCH_CHECK_VALUE(x.sizes() == grad.sizes() && x.scalar_type() == grad.scalar_type(), "grad: got ", grad.sizes(),
                      " of ", grad.scalar_type(), "; wanted ", x.sizes(), " of ", x.scalar_type());
}

// Calls through the dispatcher, so that every key above (autograd, autocast, tracing) sees them.
inline at::Tensor call(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots,
                       c10::string_view gate) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::mixed_sum", "")
                             .typed<at::Tensor(at::TensorList, const at::Tensor&, at::IntArrayRef, c10::string_view)>();
  return op.call(candidates, alpha, slots, gate);
}

// dx_p for each p with need_x[p], in order, and dα (empty where not needed). `candidates` may be empty where α is not.
inline Gradients call_backward(const at::Tensor& grad, at::TensorList candidates, const at::Tensor& alpha,
                               at::IntArrayRef slots, c10::string_view gate, c10::List<bool> need_x, bool need_alpha) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::mixed_sum_backward", "")
                             .typed<Gradients(const at::Tensor&, at::TensorList, const at::Tensor&, at::IntArrayRef,
                                              c10::string_view, c10::List<bool>, bool)>();
  return op.call(grad, candidates, alpha, slots, gate, std::move(need_x), need_alpha);
}

}  // namespace lt::mixed_sum
