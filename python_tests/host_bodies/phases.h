// How the drivers run a kernel: its memory poisoned before it is written, every phase thread by thread.
#pragma once

#include <cstring>
#include <vector>

#include "../../csrc/common/sum_rows_body.h"

namespace lt::host {

// Nothing that a sum could hide: NaNs, also where narrower types lie in the memory.
template <class A>
std::vector<A> poisoned(int64_t elements) {
  std::vector<A> memory(elements);
  if (elements > 0) std::memset(memory.data(), 0xff, elements * sizeof(A));
  return memory;
}

template <class F>
void phase(const F& of_thread) {
  for (int thread = 0; thread < kThreads; ++thread) of_thread(thread);
}

template <class A>
void sum_rows(const A* x, int64_t rows, int64_t columns, A* total) {
  for (int64_t block = 0; block < sum_rows_blocks(columns); ++block) {
    auto slices = poisoned<double>(kThreads);
    phase([&](int thread) { sum_slice_thread(x, rows, columns, block, thread, slices.data()); });
    phase([&](int thread) { sum_slices_thread(slices.data(), columns, block, thread, total); });
  }
}

}  // namespace lt::host
