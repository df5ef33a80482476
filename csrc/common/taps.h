// The geometry of a depthwise convolution, shared by every operator that contains one and by every device.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace lt {

constexpr int kMaxKernel = 7;

// Which weights reach an output, and where from: output (r, i) of a grid takes x[r · row + i · step + offset[t]] times
// weight index[t] of the kernel: rows · columns taps, row by row, those of a row `spacing` pixels apart.
struct Taps {
  int count = 0;
  int columns = 0;
  int spacing = 0;
  int index[kMaxKernel * kMaxKernel];
  int64_t offset[kMaxKernel * kMaxKernel];
};

// A square kernel of odd size over an image, padded so that only the stride shrinks it: ⌈H / stride⌉ × ⌈W / stride⌉.
struct Window {
  int64_t height, width;  // of the input
  int kernel, stride, dilation;

  LT_HOST_DEVICE int64_t padding() const { return int64_t{dilation} * (kernel / 2); }
  LT_HOST_DEVICE int64_t out_height() const { return (height + stride - 1) / stride; }
  LT_HOST_DEVICE int64_t out_width() const { return (width + stride - 1) / stride; }
};

}  // namespace lt
