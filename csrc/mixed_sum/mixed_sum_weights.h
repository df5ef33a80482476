// The weights that α give, on a CPU, and the gradient of α from the dot products of the candidates.
#pragma once

#include <ATen/ops/empty.h>

#include <vector>

#include "../common/gate.h"
#include "../common/tensors.h"

namespace lt::mixed_sum {

// The gate's weights of all rows of α, and those of the candidates present.
template <class A>
struct Weights {
  Gate gate;
  int64_t K;
  std::vector<A> all;
  std::vector<A> present;

  Weights(const at::Tensor& alpha, at::IntArrayRef slots, Gate gate_) : gate(gate_), K(alpha.size(-1)) {
    const at::Tensor values = alpha.to(c10::CppTypeToScalarType<A>::value).contiguous();
    all.resize(values.numel());
    for (int64_t row = 0; row < values.numel(); row += K)
      gate_row(gate, values.const_data_ptr<A>() + row, static_cast<int>(K), all.data() + row);
    for (int64_t slot : slots) present.push_back(all[slot]);
  }

  // dα of α's type from the dot products of the candidates present; those of absent ones are zero.
  at::Tensor gradient(const at::Tensor& alpha, at::IntArrayRef slots, const std::vector<double>& dots) const {
    std::vector<double> by_slot(all.size(), 0.0);
    for (size_t p = 0; p < slots.size(); ++p) by_slot[slots[p]] += dots[p];
    at::Tensor grad = at::empty(alpha.sizes(), alpha.options().dtype(at::kDouble));
    for (size_t row = 0; row < all.size(); row += K)
      gate_row_backward(gate, all.data() + row, by_slot.data() + row, static_cast<int>(K),
                        grad.mutable_data_ptr<double>() + row);
    return grad.to(alpha.scalar_type());
  }
};

}  // namespace lt::mixed_sum
