// mixed_sum on a CPU: tensors, threads and partitions around the raw loops of mixed_sum_kernel.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/library.h>

#include "../common/isa.h"
#include "mixed_sum.h"
#include "mixed_sum_op.h"
#include "mixed_sum_weights.h"

namespace lt::mixed_sum {
namespace {

int64_t chunks_of(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

// f(chunk, begin, end) over all chunks; which thread takes which never changes a result.
template <class F>
void for_each_chunk(int64_t elements, const F& f) {
  at::parallel_for(0, chunks_of(elements), 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk)
      f(chunk, chunk * kChunk, std::min(elements, (chunk + 1) * kChunk));
  });
}

// A result this large would push everything else out of the last-level cache: write around it.
bool bypass_cache(int64_t bytes) { return bytes > last_level_cache_bytes() / 4; }

at::Tensor forward_cpu(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots,
                       c10::string_view gate) {
  check_forward(candidates, alpha, slots);
  const at::Tensor first = dense(candidates[0]);
  std::vector<at::Tensor> x;
  for (const at::Tensor& candidate : candidates) x.push_back(in_layout_of(first, candidate));
  at::Tensor y = at::empty_strided(first.sizes(), first.strides(), first.options());
  with_element_type(y.scalar_type(), "candidates", [&](auto element) {
    using T = decltype(element);
    const Weights<accumulate_t<T>> weights(alpha, slots, parse_gate(gate));
    const std::vector<const T*> from = pointers<T>(x);
    const Forward<T> f{from.data(), weights.present.data(), static_cast<int>(from.size()),
                       static_cast<T*>(y.mutable_data_ptr()), bypass_cache(y.nbytes())};
    const auto kernel = forward_chunk<T>();
    for_each_chunk(y.numel(), [&](int64_t, int64_t begin, int64_t end) { kernel(f, begin, end); });
  });
  return y;
}

// One sweep over dy for the candidates `which`, writing dx where they have one and their dot products.
template <class T>
void sweep(const at::Tensor& dy, const std::vector<const T*>& x, const std::vector<accumulate_t<T>>& weights,
           const std::vector<T*>& dx, std::vector<double>& dots, const std::vector<size_t>& which) {
  if (which.empty()) return;
  const bool with_dots = !x.empty(), with_dx = dx[which[0]] != nullptr;
  if (!with_dots && !with_dx) return;
  std::vector<const T*> from;
  std::vector<T*> to;
  std::vector<accumulate_t<T>> w;
  for (size_t p : which) {
    if (with_dots) from.push_back(x[p]);
    if (with_dx) to.push_back(dx[p]);
    w.push_back(weights[p]);
  }
  const Backward<T> b{static_cast<const T*>(dy.const_data_ptr()),
                      with_dots ? from.data() : nullptr,
                      w.data(),
                      static_cast<int>(which.size()),
                      with_dx ? to.data() : nullptr,
                      bypass_cache(dy.nbytes() * static_cast<int64_t>(to.size()))};
  const auto kernel = backward_chunk<T>();
  const int64_t chunks = chunks_of(dy.numel());
  std::vector<double> partial(with_dots ? chunks * which.size() : 0);
  for_each_chunk(dy.numel(), [&](int64_t chunk, int64_t begin, int64_t end) {
    kernel(b, begin, end, partial.data() + (with_dots ? chunk * which.size() : 0));
  });
  if (with_dots)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (size_t i = 0; i < which.size(); ++i) dots[which[i]] += partial[chunk * which.size() + i];
}

Gradients backward_cpu(const at::Tensor& grad, at::TensorList candidates, const at::Tensor& alpha,
                       at::IntArrayRef slots, c10::string_view gate, c10::List<bool> need_x, bool need_alpha) {
  check_backward(grad, candidates, alpha, slots, need_alpha);
  const at::Tensor dy = dense(grad);
  std::vector<at::Tensor> x, dx;
  if (need_alpha)
    for (const at::Tensor& candidate : candidates) x.push_back(in_layout_of(dy, candidate));
  at::Tensor grad_alpha = at::empty({0}, alpha.options());
  with_element_type(dy.scalar_type(), "grad", [&](auto element) {
    using T = decltype(element);
    const Weights<accumulate_t<T>> weights(alpha, slots, parse_gate(gate));
    std::vector<T*> to(slots.size(), nullptr);
    std::vector<size_t> with_dx, without_dx;
    for (size_t p = 0; p < slots.size(); ++p) {
      if (!need_x.get(p)) {
        without_dx.push_back(p);
        continue;
      }
      dx.push_back(at::empty_strided(dy.sizes(), dy.strides(), dy.options()));
      to[p] = static_cast<T*>(dx.back().mutable_data_ptr());
      with_dx.push_back(p);
    }
    const std::vector<const T*> from = pointers<T>(x);
    std::vector<double> dots(slots.size(), 0.0);
    sweep<T>(dy, from, weights.present, to, dots, with_dx);
    sweep<T>(dy, from, weights.present, to, dots, without_dx);
    if (need_alpha) grad_alpha = weights.gradient(alpha, slots, dots);
  });
  return {dx, grad_alpha};
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CPU, m) {
  m.impl("mixed_sum", forward_cpu);
  m.impl("mixed_sum_backward", backward_cpu);
}

}  // namespace lt::mixed_sum
