// The blocks of columns in which the Gram form runs, and the threads that take them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>

#include <algorithm>

namespace lt::barlow_twins_loss {

// A group is a run of blocks that one thread takes from normalisation to the last product: nothing that it writes leaves
// its cache, and threads meet once a call rather than three times a block. One group: the blocks follow each other, and
// the threads share each pass and each product.
struct Blocks {
  int64_t columns;
  int64_t width;
  int64_t groups = 1;

  static Blocks of(bool is_cuda, int64_t rows, int64_t columns) {
    if (is_cuda) return {columns, columns};  // a GPU takes all at once
    const int64_t threads = at::get_num_threads();
    const auto in_cache = [&](int64_t elements) { return std::max<int64_t>(256, elements / rows / 64 * 64); };
    // A group has its own G_A and G_B: together they shall not outgrow the embeddings. A megaflop is not worth a thread.
    const int64_t groups = rows * rows * columns < (1 << 20) ? 1 : std::min(threads, columns / rows);
    if (threads > 1 && groups > 1 && 2 * groups >= threads) {
      const int64_t share = (columns + groups - 1) / groups;
      const Blocks blocks{columns, std::min(in_cache(1 << 16), (share + 63) / 64 * 64)};
      return {columns, blocks.width, std::min(groups, blocks.count())};
    }
    return {columns, std::min(columns, std::max(in_cache(1 << 17), 64 * threads))};
  }

  int64_t count() const { return (columns + width - 1) / width; }

  // f(group, first block, past the last) for every group.
  template <class F>
  void for_each_group(const F& f) const {
    if (groups == 1) return f(0, 0, count());
    const at::ThreadLocalState state;
    at::parallel_for(0, groups, 1, [&](int64_t first, int64_t last) {
      const at::ThreadLocalStateGuard guard(state);
      for (int64_t group = first; group < last; ++group)
        f(group, group * count() / groups, (group + 1) * count() / groups);
    });
  }

  int64_t begin(int64_t block) const { return block * width; }
  int64_t width_of(int64_t block) const { return std::min(width, columns - begin(block)); }
};

}  // namespace lt::barlow_twins_loss
