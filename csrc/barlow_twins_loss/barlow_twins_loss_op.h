// The operator's two entry points as the dispatcher knows them.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <tuple>

namespace lt::barlow_twins_loss {

using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

// The loss, and the products that backward takes: G_A and G_B as one (2, N, N) tensor, or C̃ (D, D).
inline TwoTensors call(const at::Tensor& za, const at::Tensor& zb, double lambd, double scale, double eps, bool gram) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::barlow_twins_loss", "")
                             .typed<TwoTensors(const at::Tensor&, const at::Tensor&, double, double, double, bool)>();
  return op.call(za, zb, lambd, scale, eps, gram);
}

// dz_A and dz_B.
inline TwoTensors call_backward(const at::Tensor& grad, const at::Tensor& za, const at::Tensor& zb,
                                const at::Tensor& products, double lambd, double scale, double eps, bool gram) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lt_nas_ext::barlow_twins_loss_backward", "")
                             .typed<TwoTensors(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, double, double, double, bool)>();
  return op.call(grad, za, zb, products, lambd, scale, eps, gram);
}

}  // namespace lt::barlow_twins_loss
