// sep_unit on a CPU: tensors, threads and partial sums around the raw loops of sep_unit_kernel.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <numeric>

#include "../common/combine_moments.h"
#include "../common/scratch.h"
#include "../common/sum_in_order.h"
#include "../common/tensors.h"
#include "sep_unit.h"
#include "sep_unit_op.h"

namespace lt::sep_unit {
namespace {

using at::Tensor;

// Images whose weight gradients are summed together, one group after the other: the same bits for any thread count.
constexpr int64_t kGroups = 16;

template <class P>
std::vector<P> advance(std::vector<P> p, int64_t elements) {
  for (P& each : p)
    if (each) each += elements;
  return p;
}

Plan plan_of(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise, int64_t stride, int64_t dilation) {
  const Window window{x.size(2), x.size(3), static_cast<int>(depthwise.size(2)), static_cast<int>(stride),
                      static_cast<int>(dilation)};
  return Plan(window, x.size(1), pointwise.size(0) / edges_of(depthwise, pointwise));
}

// (E · C, 1, K, K) as the kernels read it: (E, K · K, C).
Tensor taps_first(const Tensor& depthwise, const Plan& plan) {
  return depthwise.reshape({-1, plan.channels, plan.taps()}).transpose(1, 2).contiguous();
}

void check_covered(const Plan& plan) {
  TORCH_CHECK_VALUE(plan.channels % 4 == 0 && plan.out_channels % 4 == 0, "x: got ", plan.channels, " channels, and ",
                    plan.out_channels, " out; the kernel takes multiples of 4");
}

// f(first, last, apart): item i is image i / apart and edge i % apart; all edges of an image together where they share x.
template <class F>
void for_each_item(int64_t images, int64_t edges, bool one, const F& f) {
  const int64_t apart = one ? 1 : edges;
  at::parallel_for(0, images * apart, 1, [&](int64_t first, int64_t last) { f(first, last, apart); });
}

template <class A>
Outputs forward_of(const std::vector<Tensor>& x, const Tensor& depthwise, const Tensor& pointwise, const Plan& plan,
                   const Optional& mean, const Optional& inv_std) {
  const int64_t images = x[0].size(0), edges = edges_of(depthwise, pointwise), C = plan.channels,
                out = plan.out_channels;
  const bool one = x.size() == 1;
  std::vector<Tensor> z;
  for (int64_t e = 0; e < edges; ++e)
    z.push_back(at::empty({images, out, plan.window.out_height(), plan.out_width()}, x[0].options(),
                          at::MemoryFormat::ChannelsLast));
  const Tensor weights = taps_first(depthwise, plan), transposed = pointwise.reshape({edges, out, C}).mT().contiguous();
  const Tensor m = mean ? mean->contiguous() : Tensor(), s = inv_std ? inv_std->contiguous() : Tensor();
  auto from = pointers<A>(x);
  from.resize(edges, from[0]);
  const auto to = mutable_pointers<A>(z);
  std::vector<double> moments(images * edges * 2 * out);
  const auto kernel = forward_image<A>(std::gcd(C, out));
  for_each_item(images, edges, one, [&](int64_t first, int64_t last, int64_t apart) {
    const auto scratch = zeroed_scratch<A>(plan.forward_scratch());
    for (int64_t item = first; item < last; ++item) {
      const int64_t n = item / apart, e = item % apart;
      const auto x_n = advance(from, n * plan.in_pixels() * C);
      const auto z_n = advance(to, n * plan.out_pixels() * out);
      kernel(Forward<A>{&plan, static_cast<int>(one ? edges : 1), one, x_n.data() + e,
                        m.defined() ? m.const_data_ptr<A>() + e * C : nullptr,
                        s.defined() ? s.const_data_ptr<A>() + e * C : nullptr,
                        weights.const_data_ptr<A>() + e * plan.taps() * C, transposed.const_data_ptr<A>() + e * C * out,
                        z_n.data() + e, moments.data() + (n * edges + e) * 2 * out},
             scratch.get());
    }
  });
  const Tensor total = at::empty({2, edges, out}, x[0].options());
  A* const mean_to = total.mutable_data_ptr<A>();
  for (int64_t e = 0; e < edges; ++e)
    combine_moments(moments.data() + e * 2 * out, edges * 2 * out, std::vector<int64_t>(images, plan.out_pixels()), out,
                    mean_to + e * out, mean_to + (edges + e) * out);
  return {z, total};
}

Outputs forward_cpu(at::TensorList x, const Tensor& depthwise, const Tensor& pointwise, int64_t stride,
                    int64_t dilation, const Optional& mean, const Optional& inv_std, bool, bool) {
  check(x, depthwise, pointwise, stride, dilation, mean, inv_std);
  const Plan plan = plan_of(x[0], depthwise, pointwise, stride, dilation);
  check_covered(plan);
  Outputs outputs;
  with_float_type(x[0].scalar_type(), "x", [&](auto element) {
    outputs = forward_of<decltype(element)>(channels_last(x), depthwise, pointwise, plan, mean, inv_std);
  });
  return outputs;
}

// dx of one edge, from the gradient with respect to the batch norm's output and its sums.
template <class A>
void through_batch_norm(const Tensor& x, const A* mean, const A* inv_std, const double* sums, bool batch,
                        const Plan& plan, const Tensor& dx) {
  const int64_t C = plan.channels, pixels = plan.in_pixels();
  const double count = static_cast<double>(x.size(0) * pixels);
  std::vector<A> mean_g(C, A(0)), of_x(C, A(0));
  for (int64_t c = 0; c < C && batch; ++c) {
    mean_g[c] = static_cast<A>(sums[c] / count);
    of_x[c] = static_cast<A>(inv_std[c] * sums[C + c] / count);
  }
  const auto kernel = finish_pixels<A>(C);
  const A* const from = x.const_data_ptr<A>();
  A* const g = dx.mutable_data_ptr<A>();
  at::parallel_for(0, x.size(0), 1, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n)
      kernel(
          Finish<A>{from + n * pixels * C, mean, inv_std, mean_g.data(), of_x.data(), C, pixels, g + n * pixels * C});
  });
}

template <class A>
Gradients backward_of(const std::vector<Tensor>& dz, const std::vector<Tensor>& x, const Tensor& depthwise,
                      const Tensor& pointwise, const Plan& plan, const Optional& mean, const Optional& inv_std,
                      bool batch, bool need_x, bool need_weights) {
  const int64_t images = x[0].size(0), edges = edges_of(depthwise, pointwise), inputs = static_cast<int64_t>(x.size());
  const int64_t C = plan.channels, out = plan.out_channels, taps = plan.taps();
  const bool one = inputs == 1;
  std::vector<Tensor> dx;
  if (need_x)
    for (const Tensor& t : x) dx.push_back(at::empty_like(t, at::MemoryFormat::ChannelsLast));
  const Tensor weights = taps_first(depthwise, plan), dense = pointwise.contiguous();
  const Tensor m = mean ? mean->contiguous() : Tensor(), s = inv_std ? inv_std->contiguous() : Tensor();
  auto from = pointers<A>(x);
  from.resize(edges, from[0]);
  const auto grad = pointers<A>(dz);
  auto to = mutable_pointers<A>(dx);
  to.resize(edges, nullptr);

  const int64_t groups = std::min(images, kGroups);
  const int64_t of_depthwise = edges * taps * C, of_pointwise = edges * out * C, of_sums = inputs * 2 * C;
  const auto options = x[0].options();
  const Tensor ddepthwise = at::zeros({need_weights ? groups : 0, of_depthwise}, options);
  const Tensor dpointwise = at::zeros({need_weights ? groups : 0, of_pointwise}, options);
  std::vector<double> sums(m.defined() ? groups * of_sums : 0, 0.0);
  const auto kernel = backward_image<A>(std::gcd(C, out));
  for_each_item(groups, edges, one, [&](int64_t first, int64_t last, int64_t apart) {
    const auto scratch = zeroed_scratch<A>(plan.backward_scratch());
    for (int64_t item = first; item < last; ++item) {
      const int64_t group = item / apart, e = item % apart;
      for (int64_t n = group * images / groups; n < (group + 1) * images / groups; ++n) {
        const auto x_n = advance(from, n * plan.in_pixels() * C);
        const auto dz_n = advance(grad, n * plan.out_pixels() * out);
        const auto dx_n = advance(to, n * plan.in_pixels() * C);
        kernel(
            Backward<A>{&plan, static_cast<int>(one ? edges : 1), one, x_n.data() + e,
                        m.defined() ? m.const_data_ptr<A>() + e * C : nullptr,
                        s.defined() ? s.const_data_ptr<A>() + e * C : nullptr,
                        weights.const_data_ptr<A>() + e * taps * C, dense.const_data_ptr<A>() + e * out * C,
                        dz_n.data() + e, need_x ? dx_n.data() + e : nullptr,
                        need_weights ? ddepthwise.mutable_data_ptr<A>() + group * of_depthwise + e * taps * C : nullptr,
                        need_weights ? dpointwise.mutable_data_ptr<A>() + group * of_pointwise + e * out * C : nullptr,
                        m.defined() ? sums.data() + group * of_sums + e * 2 * C : nullptr},
            scratch.get());
      }
    }
  });
  if (need_x && m.defined()) {
    std::vector<double> total(of_sums);
    sum_in_order(sums.data(), groups, of_sums, total.data());
    for (int64_t i = 0; i < inputs; ++i)
      through_batch_norm(x[i], m.const_data_ptr<A>() + i * C, s.const_data_ptr<A>() + i * C, total.data() + i * 2 * C,
                         batch, plan, dx[i]);
  }
  if (!need_weights) return {dx, at::empty({0}, options), at::empty({0}, options)};
  const Tensor total_depthwise = at::empty({edges, taps, C}, options);
  const Tensor total_pointwise = at::empty(pointwise.sizes(), options);
  sum_in_order(ddepthwise.const_data_ptr<A>(), groups, of_depthwise, total_depthwise.mutable_data_ptr<A>());
  sum_in_order(dpointwise.const_data_ptr<A>(), groups, of_pointwise, total_pointwise.mutable_data_ptr<A>());
  return {dx, total_depthwise.transpose(1, 2).contiguous().view(depthwise.sizes()), total_pointwise};
}

Gradients backward_cpu(at::TensorList dz, at::TensorList x, const Tensor& depthwise, const Tensor& pointwise,
                       int64_t stride, int64_t dilation, const Optional& mean, const Optional& inv_std, bool batch,
                       bool, bool need_x, bool need_weights) {
  check(x, depthwise, pointwise, stride, dilation, mean, inv_std);
  const Plan plan = plan_of(x[0], depthwise, pointwise, stride, dilation);
  check_covered(plan);
  check_dz(dz, x[0], depthwise, pointwise, plan.window.out_height(), plan.window.out_width());
  Gradients gradients;
  with_float_type(x[0].scalar_type(), "x", [&](auto element) {
    gradients = backward_of<decltype(element)>(channels_last(dz), channels_last(x), depthwise, pointwise, plan, mean,
                                               inv_std, batch, need_x, need_weights);
  });
  return gradients;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CPU, m) {
  m.impl("sep_unit", forward_cpu);
  m.impl("sep_unit_backward", backward_cpu);
}

}  // namespace lt::sep_unit
