// Gradients of bn_mixed_sum. The first is an operator of its own (bn_mixed_sum_backward); where a graph of it is asked
// for, it is taken through the same sum in ATen's operators, which are differentiable any number of times.
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../common/apart.h"
#include "../common/batch_norm.h"
#include "bn_mixed_sum_op.h"

namespace lt::bn_mixed_sum {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The sum in ATen's operators, in the type of sums.
Tensor sum(at::TensorList x, const Tensor& alpha, at::IntArrayRef slots, const std::string& gate, const Tensor& mean,
           const Tensor& inv_std, const c10::List<bool>& batch) {
  const at::ScalarType type = accumulate_type(x[0].scalar_type());
  const Tensor wide = alpha.to(type);
  Tensor w = wide;
  if (gate != "identity") w = gate == "softmax" ? at::softmax(wide, -1) : at::sigmoid(wide);
  w = w.flatten();
  Tensor y;
  for (size_t p = 0; p < x.size(); ++p) {
    const Tensor term = w[slots[p]] * normalized(x[p].to(type), mean[p], inv_std[p], batch.get(p));
    y = y.defined() ? y + term : term;
  }
  return y.to(x[0].scalar_type());
}

class BnMixedSum : public torch::autograd::Function<BnMixedSum> {
 public:
  static Tensor forward(AutogradContext* ctx, at::TensorList candidates, const Tensor& alpha,
                        std::vector<int64_t> slots, std::string gate, const Tensor& mean, const Tensor& inv_std,
                        c10::List<bool> batch) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->set_materialize_grads(false);
    ctx->saved_data["slots"] = slots;
    ctx->saved_data["gate"] = gate;
    ctx->saved_data["batch"] = batch;
    variable_list saved{alpha, mean, inv_std};
    saved.insert(saved.end(), candidates.begin(), candidates.end());
    ctx->save_for_backward(std::move(saved));
    return call(candidates, alpha, slots, gate, mean, inv_std, batch);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto slots = ctx->saved_data["slots"].toIntVector();
    const auto batch = ctx->saved_data["batch"].toBoolList();
    const std::string gate = ctx->saved_data["gate"].toStringRef();
    const size_t count = slots.size();
    variable_list result(count + 6);  // candidates, alpha, slots, gate, mean, inv_std, batch
    if (!grads[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &alpha = saved[0], &mean = saved[1], &inv_std = saved[2];
    const at::TensorList x = at::TensorList(saved).slice(3);
    if (at::GradMode::is_enabled()) {
      variable_list inputs = apart(x), wanted;
      inputs.push_back(at::alias(alpha));
      std::vector<size_t> places;
      for (size_t i = 0; i < count + 1; ++i) {
        if (!ctx->needs_input_grad(i)) continue;
        wanted.push_back(inputs[i]);
        places.push_back(i);
      }
      const Tensor y = sum(at::TensorList(inputs).slice(0, count), inputs[count], slots, gate, mean, inv_std, batch);
      const variable_list found = torch::autograd::grad({y}, wanted, grads, /*retain_graph=*/true,
                                                        /*create_graph=*/true);
      for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
      return result;
    }
    c10::List<bool> need_x;
    for (size_t p = 0; p < count; ++p) need_x.push_back(ctx->needs_input_grad(p));
    const bool need_alpha = ctx->needs_input_grad(count);
    auto [dx, dalpha] = call_backward(grads[0], x, alpha, slots, gate, mean, inv_std, batch, need_x, need_alpha);
    for (size_t p = 0, given = 0; p < count; ++p)
      if (need_x.get(p)) result[p] = dx[given++];
    if (need_alpha) result[count] = dalpha;
    return result;
  }
};

Tensor bn_mixed_sum_autograd(at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots,
                             c10::string_view gate, const Tensor& mean, const Tensor& inv_std, c10::List<bool> batch) {
  return BnMixedSum::apply(candidates, alpha, slots.vec(), std::string(gate), mean, inv_std, batch);
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, Autograd, m) { m.impl("bn_mixed_sum", bn_mixed_sum_autograd); }

}  // namespace lt::bn_mixed_sum
