// Gradients of sep_unit. The first is an operator of its own (sep_unit_backward); where a graph of it is asked for, it
// is taken through the same unit in ATen's operators, which are differentiable any number of times.
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../common/apart.h"
#include "../common/batch_norm.h"
#include "sep_unit_op.h"

namespace lt::sep_unit {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Optional optional(const Tensor& t) { return t.defined() ? Optional(t) : std::nullopt; }

struct Numbers {
  int64_t stride, dilation;
  bool batch, tf32;
};

// z of every edge in ATen's operators.
variable_list unit(at::TensorList x, const Tensor& depthwise, const Tensor& pointwise, const Numbers& numbers,
                   const Tensor& mean, const Tensor& inv_std) {
  const int64_t edges = edges_of(depthwise, pointwise), padding = numbers.dilation * (depthwise.size(2) / 2);
  const variable_list taps = depthwise.chunk(edges), mixing = pointwise.chunk(edges);
  variable_list z;
  for (int64_t e = 0; e < edges; ++e) {
    const int64_t own = x.size() == 1 ? 0 : e;
    Tensor a = x[own];
    if (mean.defined()) a = normalized(a, mean[own], inv_std[own], numbers.batch).to(a.scalar_type());
    const Tensor u = at::conv2d(at::relu(a), taps[e], {}, numbers.stride, padding, numbers.dilation, a.size(1));
    z.push_back(at::conv2d(u, mixing[e]));
  }
  return z;
}

class SepUnit : public torch::autograd::Function<SepUnit> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList x, const Tensor& depthwise, const Tensor& pointwise,
                               int64_t stride, int64_t dilation, const Optional& mean, const Optional& inv_std,
                               bool batch, bool tf32) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->set_materialize_grads(false);
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["dilation"] = dilation;
    ctx->saved_data["batch"] = batch;
    ctx->saved_data["tf32"] = tf32;
    variable_list saved{depthwise, pointwise, mean.value_or(Tensor()), inv_std.value_or(Tensor())};
    saved.insert(saved.end(), x.begin(), x.end());
    ctx->save_for_backward(std::move(saved));
    auto [z, moments] = call(x, depthwise, pointwise, stride, dilation, mean, inv_std, batch, tf32);
    ctx->mark_non_differentiable({moments});
    z.push_back(moments);
    return z;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &depthwise = saved[0], &pointwise = saved[1], &mean = saved[2], &inv_std = saved[3];
    const at::TensorList x = at::TensorList(saved).slice(4);
    const Numbers numbers{ctx->saved_data["stride"].toInt(), ctx->saved_data["dilation"].toInt(),
                          ctx->saved_data["batch"].toBool(), ctx->saved_data["tf32"].toBool()};
    const size_t inputs = x.size();
    variable_list result(inputs + 8);  // x, depthwise, pointwise, stride, dilation, mean, inv_std, batch, tf32
    const size_t edges = edges_of(depthwise, pointwise);
    variable_list dz(grads.begin(), grads.begin() + edges);
    Tensor given;
    for (const Tensor& t : dz)
      if (t.defined()) given = t;
    if (!given.defined()) return result;
    for (Tensor& t : dz)
      if (!t.defined()) t = at::zeros(given.sizes(), given.options());

    bool need_x = false;
    for (size_t i = 0; i < inputs; ++i) need_x = need_x || ctx->needs_input_grad(i);
    const bool need_weights = ctx->needs_input_grad(inputs) || ctx->needs_input_grad(inputs + 1);
    if (at::GradMode::is_enabled()) return differentiable(ctx, x, saved, numbers, dz);
    auto [dx, ddepthwise, dpointwise] =
        call_backward(dz, x, depthwise, pointwise, numbers.stride, numbers.dilation, optional(mean), optional(inv_std),
                      numbers.batch, numbers.tf32, need_x, need_weights);
    for (size_t i = 0; i < inputs && need_x; ++i) result[i] = dx[i];
    if (need_weights) {
      result[inputs] = ddepthwise;
      result[inputs + 1] = dpointwise;
    }
    return result;
  }

 private:
  static variable_list differentiable(AutogradContext* ctx, at::TensorList x, const variable_list& saved,
                                      const Numbers& numbers, const variable_list& dz) {
    const size_t inputs = x.size();
    variable_list result(inputs + 8), own = apart(x), wanted;
    own.insert(own.end(), {at::alias(saved[0]), at::alias(saved[1])});
    std::vector<size_t> places;
    for (size_t i = 0; i < inputs + 2; ++i) {
      if (!ctx->needs_input_grad(i)) continue;
      wanted.push_back(own[i]);
      places.push_back(i);
    }
    const at::TensorList images = at::TensorList(own).slice(0, inputs);
    const variable_list z = unit(images, own[inputs], own[inputs + 1], numbers, saved[2], saved[3]);
    const variable_list found = torch::autograd::grad(z, wanted, dz, /*retain_graph=*/true, /*create_graph=*/true);
    for (size_t i = 0; i < places.size(); ++i) result[places[i]] = found[i];
    return result;
  }
};

Outputs sep_unit_autograd(at::TensorList x, const Tensor& depthwise, const Tensor& pointwise, int64_t stride,
                          int64_t dilation, const Optional& mean, const Optional& inv_std, bool batch, bool tf32) {
  variable_list z = SepUnit::apply(x, depthwise, pointwise, stride, dilation, mean, inv_std, batch, tf32);
  Tensor moments = z.back();
  z.pop_back();
  return {std::move(z), std::move(moments)};
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, Autograd, m) { m.impl("sep_unit", sep_unit_autograd); }

}  // namespace lt::sep_unit
