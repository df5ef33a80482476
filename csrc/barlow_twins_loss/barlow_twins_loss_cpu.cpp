// barlow_twins_loss on a CPU: threads and partitions around the raw loops of barlow_twins_loss_kernel.cpp.
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>

#include "barlow_twins_loss.h"

namespace lt::barlow_twins_loss::cpu {
namespace {

// Chunks a thread takes at least, so that small embeddings are not spread over threads that cost more than they do.
template <class A>
int64_t grain(int64_t rows) {
  return std::max<int64_t>(1, 32768 / (rows * kColumns<A>));
}

template <class A>
int64_t column_chunks(int64_t columns) {
  return (columns + kColumns<A> - 1) / kColumns<A>;
}

}  // namespace

// A column belongs to one chunk and is summed by one thread, row by row: threads never change a result.
template <class T>
void standardize(const Standardize<T>& s) {
  using A = accumulate_t<T>;
  const auto kernel = standardize_chunk<T>();
  at::parallel_for(0, column_chunks<A>(s.columns), grain<A>(s.rows), [&](int64_t first, int64_t last) {
    const std::unique_ptr<A[]> scratch(new A[2 * s.rows * kColumns<A>]);
    for (int64_t chunk = first; chunk < last; ++chunk) kernel(s, chunk * kColumns<A>, scratch.get());
  });
}

template <class T>
void combine(const Combine<T>& c) {
  using A = accumulate_t<T>;
  const auto kernel = combine_chunk<T>();
  at::parallel_for(0, column_chunks<A>(c.columns), grain<A>(c.rows), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) kernel(c, chunk * kColumns<A>);
  });
}

template <class A>
void loss(const Loss<A>& l) {
  const auto kernel = dot_chunk<A>();
  const int64_t chunks = chunks_of(l.elements);
  at::parallel_for(0, chunks, 16, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kDotChunk;
      l.partial[chunk] = kernel(l.x + begin, l.y + begin, std::min(kDotChunk, l.elements - begin));
    }
  });
  double off = 0, on = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) off += l.partial[chunk];
  for (int64_t i = 0; i < l.columns; ++i) on += diagonal_share(l, i);
  *l.loss = static_cast<A>(l.scale * (l.lambda * off / (l.rows * l.rows) + on));
}

template void standardize(const Standardize<float>&);
template void standardize(const Standardize<double>&);
template void standardize(const Standardize<BFloat16>&);
template void standardize(const Standardize<Half>&);
template void combine(const Combine<float>&);
template void combine(const Combine<double>&);
template void combine(const Combine<BFloat16>&);
template void combine(const Combine<Half>&);
template void loss(const Loss<float>&);
template void loss(const Loss<double>&);

}  // namespace lt::barlow_twins_loss::cpu
