// What the launch wrappers of every operator need from a tensor: its type as the kernels name it, its layout as the
// first candidate's, and errors that name the argument.
#pragma once

// ATen/ATen.h would triple the time each file takes to compile.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_strided.h>

#include "scalar.h"

namespace lt {

// f(T{}) with T the kernels' element type for `type`; f takes it as `auto` and uses its type alone.
template <class F>
auto with_element_type(at::ScalarType type, const char* argument, F&& f) {
  switch (type) {
    case at::kFloat: return f(float{});
    case at::kDouble: return f(double{});
    case at::kBFloat16: return f(BFloat16{});
    case at::kHalf: return f(Half{});
    default: TORCH_CHECK_TYPE(false, argument, ": got ", type, "; wanted float32, float64, bfloat16 or float16");
  }
}

// The type of sums of elements of `type`.
inline at::ScalarType accumulate_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

// `x` in exactly the strides of `layout` (dense, same shape): itself where they agree, else a copy.
inline at::Tensor in_layout_of(const at::Tensor& layout, const at::Tensor& x) {
  if (x.strides() == layout.strides()) return x;
  return at::empty_strided(layout.sizes(), layout.strides(), x.options()).copy_(x);
}

// `x` itself where its elements fill its storage without gaps, in whatever order; else a contiguous copy.
inline at::Tensor dense(const at::Tensor& x) { return x.is_non_overlapping_and_dense() ? x : x.contiguous(); }

}  // namespace lt
