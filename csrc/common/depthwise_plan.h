// Where everything stands in the padded images of a thread's scratch memory, for operators that contain a depthwise
// convolution on a CPU.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "taps.h"

namespace lt {

// Whole blocks of pixels are read; what lies beyond an image is zeros.
constexpr int64_t kBlockPixels = 8;

inline int64_t whole_blocks(int64_t pixels) { return (pixels + kBlockPixels - 1) / kBlockPixels * kBlockPixels; }

struct DepthwisePlan {
  Window window;
  int64_t channels;

  // The input, with zeros around it.
  int64_t tile_height, tile_width;
  Taps forward;  // from the output's grid into the tile

  // The gradient with respect to depthwise's output, with zeros around it.
  int64_t du_margin, du_height, du_width;
  // Every input pixel takes the taps of its phase: one for stride 1, stride² else.
  struct Phase {
    int64_t row, column;  // of its first pixel
    int64_t rows, columns;
    Taps taps;  // from the phase's grid into du
  };
  std::vector<Phase> phases;

  DepthwisePlan(const Window& w, int64_t channels_) : window(w), channels(channels_) {
    const int64_t K = w.kernel, S = w.stride, D = w.dilation, p = w.padding();
    const int64_t span = (K - 1) * D + 1;
    tile_height = std::max(w.height + p, (w.out_height() - 1) * S + span);
    tile_width = std::max(w.width + p, (whole_blocks(w.out_width()) - 1) * S + span);
    for (int64_t ky = 0; ky < K; ++ky)
      for (int64_t kx = 0; kx < K; ++kx) {
        forward.index[forward.count] = static_cast<int>(ky * K + kx);
        forward.offset[forward.count++] = (ky * tile_width + kx) * D * channels;
      }
    forward.columns = w.kernel;
    forward.spacing = w.dilation;
    // Input pixel S r + a takes from output pixel r + (a + p − k D) / S wherever that is whole.
    du_margin = (p + S - 1) / S;
    du_height = du_margin + std::max(w.out_height(), (w.height - 1 + p) / S + 1);
    du_width = 0;
    for (int64_t a = 0; a < S; ++a) {
      const int64_t columns = (w.width - a + S - 1) / S;
      du_width = std::max({du_width, du_margin + w.out_width(), du_margin + whole_blocks(columns) + (a + p) / S});
    }
    for (int64_t a = 0; a < S; ++a)
      for (int64_t b = 0; b < S; ++b) {
        Phase phase{a, b, (w.height - a + S - 1) / S, (w.width - b + S - 1) / S, {}};
        Taps& taps = phase.taps;
        int64_t before = 0;
        // From the last weight to the first: the offsets rise.
        for (int64_t ky = K - 1; ky >= 0; --ky)
          for (int64_t kx = K - 1; kx >= 0; --kx) {
            const int64_t y = a + p - ky * D, x = b + p - kx * D;
            if (y % S || x % S) continue;
            taps.index[taps.count] = static_cast<int>(ky * K + kx);
            taps.offset[taps.count++] = ((du_margin + y / S) * du_width + du_margin + x / S) * channels;
            if (taps.count == 2) taps.spacing = static_cast<int>(x / S - before);
            before = x / S;
          }
        for (int64_t kx = 0; kx < K; ++kx) taps.columns += (b + p - kx * D) % S == 0;
        if (taps.columns == 1) taps.spacing = 1;
        phases.push_back(phase);
      }
  }

  int64_t taps() const { return int64_t{window.kernel} * window.kernel; }
  int64_t out_width() const { return window.out_width(); }
  int64_t out_pixels() const { return window.out_height() * window.out_width(); }
  int64_t in_pixels() const { return window.height * window.width; }
  int64_t tile_elements() const { return tile_height * tile_width * channels; }
  int64_t du_elements() const { return du_height * du_width * channels; }
};

}  // namespace lt
