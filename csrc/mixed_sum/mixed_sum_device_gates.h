// α as the CUDA kernels take it, and what their launches need to know of it.
#pragma once

#include <ATen/core/Tensor.h>

#include "mixed_sum_body.h"
#include "mixed_sum_op.h"

namespace lt::mixed_sum {

// α in the type of sums, kept alive while its pointer is in use.
template <class T>
struct DeviceGates {
  at::Tensor alpha;
  Gates<T> gates;
  size_t shared_bytes;

  DeviceGates(const at::Tensor& alpha_, c10::string_view gate)
      : alpha(alpha_.to(accumulate_type(c10::CppTypeToScalarType<accumulate_t<T>>::value)).contiguous()),
        gates{alpha.const_data_ptr<accumulate_t<T>>(), static_cast<int>(alpha.numel() / alpha.size(-1)),
              static_cast<int>(alpha.size(-1)), parse_gate(gate)},
        shared_bytes(alpha.numel() * sizeof(accumulate_t<T>)) {
    TORCH_CHECK_VALUE(shared_bytes <= 40 * 1024, "alpha: got ", alpha.numel(),
                      " elements; the CUDA kernel takes at most ", 40 * 1024 / sizeof(accumulate_t<T>));
  }
};

}  // namespace lt::mixed_sum
