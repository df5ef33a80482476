// Gradients of mixed_sum, first and second, and its autocast rule.
//
// Forward y = Σ_p w_p x_p with w = gate(α). Backward dx_p = w_p dy and dα = J(α) ⟨dy, x_p⟩ is an operator of its own
// (mixed_sum_backward); its gradient is written with differentiable operators, so any order works.
#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "mixed_sum_op.h"

namespace lt::mixed_sum {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor gate_weights(const Tensor& alpha, Gate gate) {
  if (gate == Gate::softmax) return at::softmax(alpha, -1);
  return gate == Gate::sigmoid ? at::sigmoid(alpha) : alpha;
}

// J(α) v for the gate's Jacobian J, which is symmetric for all three gates.
Tensor gate_jacobian_product(const Tensor& w, const Tensor& v, Gate gate) {
  if (gate == Gate::softmax) return w * (v - (w * v).sum(-1, /*keepdim=*/true));
  return gate == Gate::sigmoid ? w * (1 - w) * v : v;
}

// ⟨a_p, b⟩ by slot, zero where no candidate is, in the type of sums and the shape of α.
Tensor dots_by_slot(at::TensorList a, const Tensor& b, at::IntArrayRef slots, const Tensor& alpha) {
  const at::ScalarType type = accumulate_type(b.scalar_type());
  const Tensor zero = at::zeros({}, b.options().dtype(type));
  // Under symbolic tracing the number of candidates becomes a constant of the graph.
  std::vector<Tensor> by_slot(alpha.sym_numel().guard_int(__FILE__, __LINE__), zero);
  for (size_t p = 0; p < slots.size(); ++p) by_slot[slots[p]] = by_slot[slots[p]] + (a[p].to(type) * b.to(type)).sum();
  return at::stack(by_slot).view_symint(alpha.sym_sizes());
}

class MixedSumBackward : public torch::autograd::Function<MixedSumBackward> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& grad, at::TensorList candidates, const Tensor& alpha,
                               std::vector<int64_t> slots, std::string gate, c10::List<bool> need_x, bool need_alpha) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->set_materialize_grads(false);
    ctx->saved_data["slots"] = slots;
    ctx->saved_data["gate"] = gate;
    ctx->saved_data["need_x"] = need_x;
    ctx->saved_data["need_alpha"] = need_alpha;
    variable_list saved{grad, alpha};
    saved.insert(saved.end(), candidates.begin(), candidates.end());
    ctx->save_for_backward(std::move(saved));
    auto [dx, dalpha] = call_backward(grad, candidates, alpha, slots, gate, need_x, need_alpha);
    dx.push_back(dalpha);
    return dx;
  }

  // With tangents ddx_p of dx_p and ddα of dα, u = J(α) ddα:  L = Σ_p w_p ⟨dy, ddx_p⟩ + Σ_p u_p ⟨dy, x_p⟩.
  // Its gradients with respect to dy, x_p and α.
  static variable_list backward(AutogradContext* ctx, const variable_list& tangents) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dy = saved[0], &alpha = saved[1];
    const auto candidates = at::TensorList(saved).slice(2);
    const auto slots = ctx->saved_data["slots"].toIntVector();
    const auto need_x = ctx->saved_data["need_x"].toBoolList();
    const Gate gate = parse_gate(ctx->saved_data["gate"].toStringRef());
    const at::ScalarType type = accumulate_type(dy.scalar_type());

    std::vector<Tensor> ddx;
    std::vector<int64_t> ddx_slots;
    for (size_t p = 0, given = 0; p < slots.size(); ++p) {
      if (!need_x.get(p)) continue;
      const Tensor& tangent = tangents[given++];
      if (!tangent.defined()) continue;
      ddx.push_back(tangent);
      ddx_slots.push_back(slots[p]);
    }
    const Tensor& ddalpha = tangents.back();
    const bool with_alpha = ctx->saved_data["need_alpha"].toBool() && ddalpha.defined();

    const Tensor w = gate_weights(alpha.to(type), gate);
    Tensor grad_dy, grad_alpha, q;
    std::vector<Tensor> grad_x(candidates.size());
    auto add = [](const Tensor& sum, const Tensor& term) { return sum.defined() ? sum + term : term; };

    if (!ddx.empty()) {
      grad_dy = call(ddx, w, ddx_slots, "identity");
      q = dots_by_slot(ddx, dy, ddx_slots, alpha);
    }
    if (with_alpha) {
      const Tensor v = ddalpha.to(type);
      const Tensor u = gate_jacobian_product(w, v, gate);
      grad_dy = add(grad_dy, call(candidates, u, slots, "identity"));
      const Tensor flat = u.flatten();
      for (size_t p = 0; p < slots.size(); ++p) grad_x[p] = (flat[slots[p]] * dy.to(type)).to(dy.scalar_type());
      // ∂/∂w of Σ_k u_k d_k, d = ⟨dy, x⟩.
      const Tensor d = dots_by_slot(candidates, dy, slots, alpha);
      if (gate == Gate::softmax)
        q = add(q, v * d - v * (w * d).sum(-1, true) - d * (w * v).sum(-1, true));
      else if (gate == Gate::sigmoid)
        q = add(q, (1 - 2 * w) * v * d);
    }
    if (q.defined()) grad_alpha = gate_jacobian_product(w, q, gate).to(alpha.scalar_type());

    variable_list grads{grad_dy};
    grads.insert(grads.end(), grad_x.begin(), grad_x.end());
    grads.push_back(grad_alpha);
    grads.resize(grads.size() + 4);  // slots, gate, need_x, need_alpha
    return grads;
  }
};

class MixedSum : public torch::autograd::Function<MixedSum> {
 public:
  static Tensor forward(AutogradContext* ctx, at::TensorList candidates, const Tensor& alpha,
                        std::vector<int64_t> slots, std::string gate) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->set_materialize_grads(false);
    ctx->saved_data["slots"] = slots;
    ctx->saved_data["gate"] = gate;
    // With α frozen only dx_p = w_p dy is ever asked for: no candidate is kept.
    variable_list saved{alpha};
    if (alpha.requires_grad()) saved.insert(saved.end(), candidates.begin(), candidates.end());
    ctx->save_for_backward(std::move(saved));
    return call(candidates, alpha, slots, gate);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto slots = ctx->saved_data["slots"].toIntVector();
    variable_list result(slots.size() + 3);  // candidates, alpha, slots, gate
    if (!grads[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    c10::List<bool> need_x;
    for (size_t p = 0; p < slots.size(); ++p) need_x.push_back(ctx->needs_input_grad(p));
    const bool need_alpha = ctx->needs_input_grad(slots.size());
    auto [dx, dalpha] = call_backward(grads[0], at::TensorList(saved).slice(1), saved[0], slots,
                                      ctx->saved_data["gate"].toStringRef(), need_x, need_alpha);
    for (size_t p = 0, given = 0; p < slots.size(); ++p)
      if (need_x.get(p)) result[p] = dx[given++];
    if (need_alpha) result[slots.size()] = dalpha;
    return result;
  }
};

Tensor mixed_sum_autograd(at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots,
                          c10::string_view gate) {
  return MixedSum::apply(candidates, alpha, slots.vec(), std::string(gate));
}

Gradients mixed_sum_backward_autograd(const Tensor& grad, at::TensorList candidates, const Tensor& alpha,
                                      at::IntArrayRef slots, c10::string_view gate, c10::List<bool> need_x,
                                      bool need_alpha) {
  variable_list out =
      MixedSumBackward::apply(grad, candidates, alpha, slots.vec(), std::string(gate), std::move(need_x), need_alpha);
  Tensor dalpha = out.back();
  out.pop_back();
  return {std::move(out), std::move(dalpha)};
}

// Under autocast candidates may come in different types (a convolution's and a skip's): they are summed in the widest.
// Gates are computed in float32 whatever the candidates are.
template <c10::DispatchKey autocast>
Tensor mixed_sum_autocast(at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots,
                          c10::string_view gate) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(autocast);
  TORCH_CHECK_VALUE(!candidates.empty(), "candidates: got none; wanted at least one tensor");
  at::ScalarType widest = candidates[0].scalar_type();
  for (const Tensor& x : candidates) widest = at::promote_types(widest, x.scalar_type());
  std::vector<Tensor> x;
  for (const Tensor& candidate : candidates) x.push_back(candidate.to(widest));
  return call(x, alpha, slots, gate);
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, Autograd, m) {
  m.impl("mixed_sum", mixed_sum_autograd);
  m.impl("mixed_sum_backward", mixed_sum_backward_autograd);
}

TORCH_LIBRARY_IMPL(lt_nas_ext, AutocastCPU, m) {
  m.impl("mixed_sum", mixed_sum_autocast<c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(lt_nas_ext, AutocastCUDA, m) {
  m.impl("mixed_sum", mixed_sum_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace lt::mixed_sum
