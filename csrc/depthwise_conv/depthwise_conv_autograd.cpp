// Gradients of depthwise_conv. The first is an operator of its own (depthwise_conv_backward); where a graph of it is
// asked for, it is taken through the same convolution in ATen's operators, which are differentiable any number of times.
#include <ATen/ops/conv2d.h>
#include <ATen/ops/relu.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../common/apart.h"
#include "depthwise_conv_op.h"

namespace lt::depthwise_conv {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class DepthwiseConv : public torch::autograd::Function<DepthwiseConv> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation,
                        bool relu) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["dilation"] = dilation;
    ctx->saved_data["relu"] = relu;
    ctx->save_for_backward({x, weight});
    return call(x, weight, stride, dilation, relu);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    const int64_t stride = ctx->saved_data["stride"].toInt(), dilation = ctx->saved_data["dilation"].toInt();
    const bool relu = ctx->saved_data["relu"].toBool();
    const bool need_x = ctx->needs_input_grad(0), need_weight = ctx->needs_input_grad(1);
    variable_list result(5);  // x, weight, stride, dilation, relu
    if (at::GradMode::is_enabled()) {
      const variable_list own = apart({x, weight});
      variable_list wanted;
      if (need_x) wanted.push_back(own[0]);
      if (need_weight) wanted.push_back(own[1]);
      const Tensor y = at::conv2d(relu ? at::relu(own[0]) : own[0], own[1], {}, stride, dilation * (weight.size(2) / 2),
                                  dilation, x.size(1));
      const variable_list found = torch::autograd::grad({y}, wanted, grads, /*retain_graph=*/true,
                                                        /*create_graph=*/true);
      if (need_x) result[0] = found.front();
      if (need_weight) result[1] = found.back();
      return result;
    }
    auto [dx, dweight] = call_backward(grads[0], x, weight, stride, dilation, relu, need_x, need_weight);
    if (need_x) result[0] = dx;
    if (need_weight) result[1] = dweight;
    return result;
  }
};

Tensor depthwise_conv_autograd(const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation, bool relu) {
  return DepthwiseConv::apply(x, weight, stride, dilation, relu);
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, Autograd, m) { m.impl("depthwise_conv", depthwise_conv_autograd); }

}  // namespace lt::depthwise_conv
