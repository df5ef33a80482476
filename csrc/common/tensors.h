// What the launch wrappers of every operator need from a tensor: its type as the kernels name it, its layout as the
// first candidate's, and errors that name the argument.
#pragma once

// ATen/ATen.h would triple the time each file takes to compile.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_strided.h>

#include <vector>

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

inline at::Tensor channels_last(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

inline std::vector<at::Tensor> channels_last(at::TensorList x) {
  std::vector<at::Tensor> converted;
  for (const at::Tensor& t : x) converted.push_back(channels_last(t));
  return converted;
}

template <class T>
std::vector<const T*> pointers(const std::vector<at::Tensor>& tensors) {
  std::vector<const T*> p;
  for (const at::Tensor& t : tensors) p.push_back(static_cast<const T*>(t.const_data_ptr()));
  return p;
}

template <class T>
std::vector<T*> mutable_pointers(const std::vector<at::Tensor>& tensors) {
  std::vector<T*> p;
  for (const at::Tensor& t : tensors) p.push_back(static_cast<T*>(t.mutable_data_ptr()));
  return p;
}

// f(float{}) or f(double{}), for kernels that know only these.
template <class F>
void with_float_type(at::ScalarType type, const char* argument, const F& f) {
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble, argument, ": got ", type, "; wanted float32 or float64");
  type == at::kFloat ? f(float{}) : f(double{});
}

}  // namespace lt
