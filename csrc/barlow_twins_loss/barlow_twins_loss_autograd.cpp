// Gradients of barlow_twins_loss, first and second, and its autocast rule.
//
// Backward is an operator of its own; where its result is differentiated again (create_graph=True), the same formulas
// are written with differentiable operators, so any order works.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../common/tensors.h"
#include "barlow_twins_loss_op.h"

namespace lt::barlow_twins_loss {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class BarlowTwinsLoss : public torch::autograd::Function<BarlowTwinsLoss> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& za, const Tensor& zb, double lambd, double scale,
                               double eps, bool gram) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["lambd"] = lambd;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["gram"] = gram;
    auto [loss, products] = call(za, zb, lambd, scale, eps, gram);
    ctx->save_for_backward({za, zb, products});
    ctx->mark_non_differentiable({products});
    ctx->set_materialize_grads(false);
    return {loss, products};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list result(6);  // za, zb, lambd, scale, eps, gram
    if (!grads[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    std::tie(result[0], result[1]) = call_backward(
        grads[0], saved[0], saved[1], saved[2], ctx->saved_data["lambd"].toDouble(),
        ctx->saved_data["scale"].toDouble(), ctx->saved_data["eps"].toDouble(), ctx->saved_data["gram"].toBool());
    return result;
  }
};

TwoTensors loss_autograd(const Tensor& za, const Tensor& zb, double lambd, double scale, double eps, bool gram) {
  const variable_list out = BarlowTwinsLoss::apply(za, zb, lambd, scale, eps, gram);
  return {out[0], out[1]};
}

struct Normalized {
  Tensor x;
  Tensor inv_std;

  Normalized(const Tensor& z, double eps) {
    const Tensor centred = z - z.mean(0);
    inv_std = (centred.square().mean(0) + eps).rsqrt();
    x = centred * inv_std;
  }

  // dz from dx.
  Tensor backward(const Tensor& dx) const { return inv_std * (dx - dx.mean(0) - x * (dx * x).mean(0)); }
};

// The formulas of barlow_twins_loss.h, with operators that autograd knows.
TwoTensors differentiable_backward(const Tensor& grad, const Tensor& za, const Tensor& zb, double lambd, double scale,
                                   double eps, bool gram) {
  const at::ScalarType computed = accumulate_type(za.scalar_type());
  const double n = static_cast<double>(za.size(0));
  const Normalized a(za.to(computed), eps), b(zb.to(computed), eps);
  Tensor p_a, p_b;
  if (gram) {
    p_a = at::mm(at::mm(b.x, b.x.t()), a.x);
    p_b = at::mm(at::mm(a.x, a.x.t()), b.x);
  } else {
    const Tensor c = at::mm(a.x.t(), b.x);
    p_a = at::mm(b.x, c.t());
    p_b = at::mm(a.x, c);
  }
  const Tensor diagonal = (a.x * b.x).mean(0);
  const Tensor weight = grad.to(computed) * (2 * scale * lambd / (n * n));
  const Tensor e = grad.to(computed) * (-2 * scale / n) * (1 - diagonal + lambd * diagonal);
  return {a.backward(weight * p_a + e * b.x).to(za.scalar_type()),
          b.backward(weight * p_b + e * a.x).to(zb.scalar_type())};
}

TwoTensors backward_autograd(const Tensor& grad, const Tensor& za, const Tensor& zb, const Tensor& products,
                             double lambd, double scale, double eps, bool gram) {
  if (at::GradMode::is_enabled() && (grad.requires_grad() || za.requires_grad() || zb.requires_grad())) {
    c10::impl::ExcludeDispatchKeyGuard no_autocast(
        c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA}));
    return differentiable_backward(grad, za, zb, lambd, scale, eps, gram);
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return call_backward(grad, za, zb, products, lambd, scale, eps, gram);
}

// Float32 inside an autocast region: the kernels widen half-precision embeddings themselves, so only views of two types
// are brought to one.
template <c10::DispatchKey autocast>
TwoTensors loss_autocast(const Tensor& za, const Tensor& zb, double lambd, double scale, double eps, bool gram) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(autocast);
  if (za.scalar_type() == zb.scalar_type()) return call(za, zb, lambd, scale, eps, gram);
  const at::ScalarType widest = at::promote_types(at::promote_types(za.scalar_type(), zb.scalar_type()), at::kFloat);
  return call(za.to(widest), zb.to(widest), lambd, scale, eps, gram);
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, Autograd, m) {
  m.impl("barlow_twins_loss", loss_autograd);
  m.impl("barlow_twins_loss_backward", backward_autograd);
}

TORCH_LIBRARY_IMPL(lt_nas_ext, AutocastCPU, m) {
  m.impl("barlow_twins_loss", loss_autocast<c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(lt_nas_ext, AutocastCUDA, m) {
  m.impl("barlow_twins_loss", loss_autocast<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace lt::barlow_twins_loss
