// Launches the sum over rows of a matrix in one fixed order (sum_rows_body.h).
#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "sum_rows_body.h"

namespace lt {

template <class A>
__global__ void __launch_bounds__(kThreads) sum_rows_kernel(const A* x, int64_t rows, int64_t columns, A* total) {
  __shared__ double slices[kThreads];
  sum_slice_thread(x, rows, columns, blockIdx.x, threadIdx.x, slices);
  __syncthreads();
  sum_slices_thread(slices, columns, blockIdx.x, threadIdx.x, total);
}

// total[column] = Σ_rows x[row, column]
template <class A>
void sum_rows(const A* x, int64_t rows, int64_t columns, A* total, const c10::cuda::CUDAStream& stream) {
  sum_rows_kernel<<<sum_rows_blocks(columns), kThreads, 0, stream>>>(x, rows, columns, total);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace lt
