// Zeroed memory of one thread, on a cache line.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace lt {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <class A>
std::unique_ptr<A[], Free> zeroed_scratch(int64_t elements) {
  const size_t bytes = (elements * sizeof(A) + 63) / 64 * 64;
  void* const p = std::aligned_alloc(64, bytes ? bytes : 64);
  if (!p) throw std::bad_alloc();
  std::memset(p, 0, bytes);
  return std::unique_ptr<A[], Free>(static_cast<A*>(p));
}

}  // namespace lt
