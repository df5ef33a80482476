// The sum over rows of a matrix in one fixed order: the second stage of every two-stage sum on CUDA. A block takes 32
// columns, kWarps slices of the rows.
#pragma once

#include "tile.h"

namespace lt {

LT_HOST_DEVICE int64_t sum_rows_blocks(int64_t columns) { return (columns + kWarp - 1) / kWarp; }

// slices: (kWarps, kWarp) in shared memory.
template <class A>
LT_HOST_DEVICE void sum_slice_thread(const A* x, int64_t rows, int64_t columns, int64_t block, int thread,
                                     double* slices) {
  const int64_t column = block * kWarp + thread % kWarp;
  double sum = 0;
  if (column < columns)
    for (int64_t row = thread / kWarp; row < rows; row += kWarps) sum += double(x[row * columns + column]);
  slices[thread] = sum;
}

template <class A>
LT_HOST_DEVICE void sum_slices_thread(const double* slices, int64_t columns, int64_t block, int thread, A* total) {
  const int64_t column = block * kWarp + thread;
  if (thread >= kWarp || column >= columns) return;
  double sum = 0;
  for (int slice = 0; slice < kWarps; ++slice) sum += slices[slice * kWarp + thread];
  total[column] = A(sum);
}

}  // namespace lt
