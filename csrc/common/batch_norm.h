// Batch norm without weight and bias in ATen's operators, for gradients of gradients: differentiable any number of times.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/var.h>

namespace lt {

// (x − mean) inv_std per channel. `batch`: the statistics are x's own, and their share of the gradient counts; then they
// are taken from x again, with the eps that inv_std = (var + eps)^-½ was made with.
inline at::Tensor normalized(const at::Tensor& x, at::Tensor mean, at::Tensor inv_std, bool batch) {
  if (batch) {
    const at::Tensor var = at::var(x, at::IntArrayRef{0, 2, 3}, /*unbiased=*/false);
    const at::Tensor eps = (inv_std.pow(-2) - var).detach();
    mean = x.mean({0, 2, 3});
    inv_std = (var + eps).pow(-0.5);
  }
  const auto by_channel = [](const at::Tensor& t) { return t.view({1, -1, 1, 1}); };
  return (x - by_channel(mean)) * by_channel(inv_std);
}

}  // namespace lt
