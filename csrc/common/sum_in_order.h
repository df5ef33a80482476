// Partial results of threads into one, in an order that does not depend on the threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace lt {

// The sum of equally shaped partial results, in their order.
template <class P>
void sum_in_order(const P* partial, int64_t count, int64_t elements, P* total) {
  constexpr int64_t kBlock = 256;
  at::parallel_for(0, (elements + kBlock - 1) / kBlock, 16, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kBlock, n = std::min(kBlock, elements - begin);
      double sum[kBlock] = {};
      for (int64_t p = 0; p < count; ++p)
        for (int64_t i = 0; i < n; ++i) sum[i] += partial[p * elements + begin + i];
      for (int64_t i = 0; i < n; ++i) total[begin + i] = static_cast<P>(sum[i]);
    }
  });
}

}  // namespace lt
