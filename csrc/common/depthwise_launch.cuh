// What launches of kernels with a depthwise convolution share: how much shared memory they get, and tensors as they read
// them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>

#include <algorithm>

#include "depthwise_tile.h"
#include "tensors.h"

namespace lt {

// Shared memory of a block: two of them then share a multiprocessor of the larger devices. Smaller ones (sm_75) give less.
inline int64_t most_shared_bytes() {
  int device = 0, most = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return std::min(most, 96 * 1024);
}

template <class Kernel>
void allow_shared(Kernel kernel, int64_t bytes) {
  if (bytes > 48 * 1024)
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

// `x`, or a copy where it does not begin on a group of four: kernels move four channels at a time.
inline at::Tensor on_fours(const at::Tensor& x) {
  const auto size = static_cast<uintptr_t>(std::min<int64_t>(16, 4 * x.element_size()));
  return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % size == 0 ? x : x.clone();
}

}  // namespace lt
