// Mean and variance of every channel of a whole batch, from those of its parts.
#pragma once

#include <cstdint>
#include <vector>

namespace lt {

// Part i has pixels[i] pixels, and at parts + i · stride its means and its sums of squared distances to them, (2, C).
template <class A>
void combine_moments(const double* parts, int64_t stride, const std::vector<int64_t>& pixels, int64_t channels, A* mean,
                     A* variance) {
  double total = 0;
  for (const int64_t n : pixels) total += static_cast<double>(n);
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < pixels.size(); ++i) sum += static_cast<double>(pixels[i]) * parts[i * stride + c];
    const double centre = sum / total;
    for (size_t i = 0; i < pixels.size(); ++i) {
      const double distance = parts[i * stride + c] - centre;
      squares += parts[i * stride + channels + c] + static_cast<double>(pixels[i]) * distance * distance;
    }
    mean[c] = static_cast<A>(centre);
    variance[c] = static_cast<A>(squares / total);
  }
}

}  // namespace lt
