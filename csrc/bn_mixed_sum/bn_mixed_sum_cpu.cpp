// bn_mixed_sum on a CPU: tensors, threads and partial sums around the raw loops of bn_mixed_sum_kernel.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "../common/combine_moments.h"
#include "../mixed_sum/mixed_sum_weights.h"
#include "bn_mixed_sum.h"
#include "bn_mixed_sum_op.h"

namespace lt::bn_mixed_sum {
namespace {

using at::Tensor;

// f(chunk, begin, end) over chunks of pixels; which thread takes which never changes a result.
template <class F>
void for_each_chunk(int64_t pixels, int64_t channels, const F& f) {
  const int64_t step = chunk_pixels(channels);
  at::parallel_for(0, (pixels + step - 1) / step, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) f(chunk, chunk * step, std::min(pixels, (chunk + 1) * step));
  });
}

int64_t chunks_of(int64_t pixels, int64_t channels) {
  const int64_t step = chunk_pixels(channels);
  return (pixels + step - 1) / step;
}

template <class A>
Tensor forward_of(const std::vector<Tensor>& x, const mixed_sum::Weights<A>& weights, const Tensor& mean,
                  const Tensor& inv_std) {
  const int64_t C = x[0].size(1), pixels = x[0].numel() / C, count = static_cast<int64_t>(x.size());
  const A *const m = mean.const_data_ptr<A>(), *const s = inv_std.const_data_ptr<A>();
  std::vector<A> scale(count * C), offset(C);
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0;
    for (int64_t p = 0; p < count; ++p) {
      scale[p * C + c] = weights.present[p] * s[p * C + c];
      sum -= static_cast<double>(scale[p * C + c]) * m[p * C + c];
    }
    offset[c] = static_cast<A>(sum);
  }
  const Tensor y = at::empty_like(x[0]);
  const auto from = pointers<A>(x);
  const Forward<A> f{from.data(), scale.data(), offset.data(), static_cast<int>(count), C, y.mutable_data_ptr<A>()};
  const auto kernel = forward_chunk<A>(C);
  for_each_chunk(pixels, C, [&](int64_t, int64_t begin, int64_t end) { kernel(f, begin, end); });
  return y;
}

Tensor forward_cpu(at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots, c10::string_view gate,
                   const Tensor& mean, const Tensor& inv_std, c10::List<bool> batch) {
  check(candidates, alpha, slots, mean, inv_std, batch);
  Tensor y;
  with_float_type(candidates[0].scalar_type(), "candidates", [&](auto element) {
    using A = decltype(element);
    const mixed_sum::Weights<A> weights(alpha, slots, mixed_sum::parse_gate(gate));
    y = forward_of<A>(channels_last(candidates), weights, mean.contiguous(), inv_std.contiguous());
  });
  return y;
}

// Σ dy (x_p − mean_p) of every candidate and channel, and Σ dy of every channel, over all pixels.
struct Totals {
  std::vector<double> along, dy;
};

template <class A>
Totals totals(const Tensor& dy, const std::vector<const A*>& x, const Tensor& mean) {
  const int64_t C = dy.size(1), pixels = dy.numel() / C, count = static_cast<int64_t>(x.size());
  const Sums<A> s{dy.const_data_ptr<A>(), x.data(), mean.const_data_ptr<A>(), static_cast<int>(count), C};
  const int64_t chunks = chunks_of(pixels, C), numbers = (count + 1) * C;
  std::vector<double> partial(chunks * numbers);
  const auto kernel = sums_chunk<A>(C);
  for_each_chunk(pixels, C, [&](int64_t chunk, int64_t begin, int64_t end) {
    double* const to = partial.data() + chunk * numbers;
    kernel(s, begin, end, to, to + count * C);
  });
  Totals total{std::vector<double>(count * C, 0.0), std::vector<double>(C, 0.0)};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const double* const from = partial.data() + chunk * numbers;
    for (int64_t i = 0; i < count * C; ++i) total.along[i] += from[i];
    for (int64_t c = 0; c < C; ++c) total.dy[c] += from[count * C + c];
  }
  return total;
}

template <class A>
Gradients backward_of(const Tensor& dy, const std::vector<Tensor>& x, const mixed_sum::Weights<A>& weights,
                      const Tensor& alpha, at::IntArrayRef slots, const Tensor& mean, const Tensor& inv_std,
                      const c10::List<bool>& batch, const c10::List<bool>& need_x, bool need_alpha) {
  const int64_t C = dy.size(1), pixels = dy.numel() / C, count = static_cast<int64_t>(x.size());
  const double M = static_cast<double>(pixels);
  const auto from = pointers<A>(x);
  bool need_sums = need_alpha;
  for (int64_t p = 0; p < count; ++p) need_sums = need_sums || (batch.get(p) && need_x.get(p));
  const Totals total = need_sums ? totals<A>(dy, from, mean) : Totals{};

  std::vector<A> scale(count * C), shift(count * C, A(0)), slope(count * C, A(0));
  std::vector<double> dots(count, 0.0);
  const std::unique_ptr<bool[]> affine(new bool[count]);
  std::vector<Tensor> dx;
  std::vector<A*> to(count, nullptr);
  const A* const s = inv_std.const_data_ptr<A>();
  for (int64_t p = 0; p < count; ++p) {
    affine[p] = batch.get(p);
    for (int64_t c = 0; c < C; ++c) {
      const int64_t at = p * C + c;
      const double w = weights.present[p], std = s[at];
      scale[at] = static_cast<A>(w * std);
      if (!need_sums) continue;
      dots[p] += std * total.along[at];
      if (!affine[p]) continue;
      shift[at] = static_cast<A>(-w * std * total.dy[c] / M);
      slope[at] = static_cast<A>(-w * std * std * std * total.along[at] / M);
    }
    if (!need_x.get(p)) continue;
    dx.push_back(at::empty_like(dy));
    to[p] = dx.back().mutable_data_ptr<A>();
  }
  const Gradient<A> g{dy.const_data_ptr<A>(),
                      from.data(),
                      mean.const_data_ptr<A>(),
                      scale.data(),
                      shift.data(),
                      slope.data(),
                      affine.get(),
                      static_cast<int>(count),
                      C,
                      to.data()};
  const auto kernel = gradient_chunk<A>(C);
  if (!dx.empty()) for_each_chunk(pixels, C, [&](int64_t, int64_t begin, int64_t end) { kernel(g, begin, end); });
  return {dx, need_alpha ? weights.gradient(alpha, slots, dots) : at::empty({0}, alpha.options())};
}

Gradients backward_cpu(const Tensor& grad, at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots,
                       c10::string_view gate, const Tensor& mean, const Tensor& inv_std, c10::List<bool> batch,
                       c10::List<bool> need_x, bool need_alpha) {
  check(candidates, alpha, slots, mean, inv_std, batch);
  mixed_sum::check_backward(grad, candidates, alpha, slots, /*need_alpha=*/true);
  Gradients gradients;
  with_float_type(grad.scalar_type(), "grad", [&](auto element) {
    using A = decltype(element);
    const mixed_sum::Weights<A> weights(alpha, slots, mixed_sum::parse_gate(gate));
    gradients = backward_of<A>(channels_last(grad), channels_last(candidates), weights, alpha, slots, mean.contiguous(),
                               inv_std.contiguous(), batch, need_x, need_alpha);
  });
  return gradients;
}

template <class A>
Tensor moments_of(const Tensor& x) {
  const int64_t C = x.size(1), pixels = x.numel() / C;
  const A* const from = x.const_data_ptr<A>();
  const Tensor moments = at::empty({2, C}, x.options());
  std::vector<double> parts(chunks_of(pixels, C) * 2 * C);
  std::vector<int64_t> counts(chunks_of(pixels, C));
  const auto kernel = moments_chunk<A>(C);
  for_each_chunk(pixels, C, [&](int64_t chunk, int64_t begin, int64_t end) {
    counts[chunk] = end - begin;
    kernel(from + begin * C, C, end - begin, parts.data() + chunk * 2 * C);
  });
  A* const to = moments.mutable_data_ptr<A>();
  combine_moments(parts.data(), 2 * C, counts, C, to, to + C);
  return moments;
}

Tensor moments_cpu(const Tensor& x) {
  check_images(x, "x");
  Tensor moments;
  with_float_type(x.scalar_type(), "x",
                  [&](auto element) { moments = moments_of<decltype(element)>(channels_last(x)); });
  return moments;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CPU, m) {
  m.impl("bn_mixed_sum", forward_cpu);
  m.impl("bn_mixed_sum_backward", backward_cpu);
  m.impl("channel_moments", moments_cpu);
}

}  // namespace lt::bn_mixed_sum
