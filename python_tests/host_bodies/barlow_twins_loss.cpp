// Runs the bodies of the CUDA kernels of barlow_twins_loss on the host: block by block, phase by phase, thread by
// thread. Built and called by test_ops_barlow_twins_loss_bodies.py through ctypes.
#include <memory>

#include "../../csrc/barlow_twins_loss/barlow_twins_loss_body.h"

namespace {

using namespace lt;
using namespace lt::barlow_twins_loss;

int64_t blocks_for(int64_t columns) { return (columns + kBlockColumns - 1) / kBlockColumns; }

// What shared memory holds before a kernel writes it: nothing that a sum could hide.
template <class Shared>
std::unique_ptr<Shared> poisoned() {
  auto shared = std::make_unique<Shared>();
  std::memset(shared.get(), 0xff, sizeof(Shared));
  return shared;
}

template <class T>
void run_standardize(const Standardize<T>& s) {
  for (int64_t block = 0; block < blocks_for(s.columns); ++block) {
    const auto shared = poisoned<StandardizeShared<accumulate_t<T>>>();
    for (int thread = 0; thread < kBlockThreads; ++thread) sum_thread(s, block, thread, *shared);
    for (int thread = 0; thread < kBlockThreads; ++thread) squares_thread(s, block, thread, *shared);
    for (int thread = 0; thread < kBlockThreads; ++thread) normalize_thread(s, block, thread, *shared);
    for (int thread = 0; thread < kBlockThreads; ++thread) diagonal_thread(s, block, thread, *shared);
  }
}

template <class T>
void run_combine(const Combine<T>& c) {
  for (int64_t block = 0; block < blocks_for(c.columns); ++block) {
    const auto shared = poisoned<CombineShared<accumulate_t<T>>>();
    for (int thread = 0; thread < kBlockThreads; ++thread) along_thread(c, block, thread, *shared);
    for (int thread = 0; thread < kBlockThreads; ++thread) combine_thread(c, block, thread, *shared);
  }
}

template <class F>
double block_sum(const F& of_thread) {
  double warps[kWarps];
  for (int warp = 0; warp < kWarps; ++warp) {
    double lanes[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = of_thread(warp * kWarp + lane);
    warps[warp] = warp_sum_on_host(lanes);
  }
  return sum_of_warps(warps, 1);
}

template <class A>
void run_loss(const Loss<A>& l) {
  for (int64_t chunk = 0; chunk < chunks_of(l.elements); ++chunk)
    l.partial[chunk] = block_sum([&](int thread) { return dot_thread(l, chunk, thread); });
  *l.loss = static_cast<A>(block_sum([&](int thread) { return loss_thread(l, thread); }));
}

}  // namespace

#define LT_HOST_RUN(name, T)                                                                                           \
  extern "C" void standardize_##name(const T* za, const T* zb, int64_t za_stride, int64_t zb_stride,                   \
                                     accumulate_t<T>* a, accumulate_t<T>* b, int64_t stride, accumulate_t<T>* inv_std, \
                                     accumulate_t<T>* diagonal, int64_t rows, int64_t columns, double eps) {           \
    run_standardize<T>({{za, zb},                                                                                      \
                        {za_stride, zb_stride},                                                                        \
                        {a, b},                                                                                        \
                        stride,                                                                                        \
                        {inv_std, inv_std + columns},                                                                  \
                        diagonal,                                                                                      \
                        rows,                                                                                          \
                        columns,                                                                                       \
                        eps});                                                                                         \
  }                                                                                                                    \
  extern "C" void combine_##name(const accumulate_t<T>* pa, const accumulate_t<T>* pb, const accumulate_t<T>* a,       \
                                 const accumulate_t<T>* b, int64_t stride, const accumulate_t<T>* inv_std,             \
                                 const accumulate_t<T>* diagonal, const accumulate_t<T>* grad, T* dza, T* dzb,         \
                                 int64_t dz_stride, int64_t rows, int64_t columns, double product_weight,              \
                                 double diagonal_weight, double lambda_diagonal) {                                     \
    run_combine<T>({{pa, pb},                                                                                          \
                    {a, b},                                                                                            \
                    stride,                                                                                            \
                    {inv_std, inv_std + columns},                                                                      \
                    diagonal,                                                                                          \
                    grad,                                                                                              \
                    {dza, dzb},                                                                                        \
                    dz_stride,                                                                                         \
                    rows,                                                                                              \
                    columns,                                                                                           \
                    product_weight,                                                                                    \
                    diagonal_weight,                                                                                   \
                    lambda_diagonal});                                                                                 \
  }
LT_HOST_RUN(float, float)
LT_HOST_RUN(double, double)
LT_HOST_RUN(bfloat16, BFloat16)
LT_HOST_RUN(half, Half)

#define LT_HOST_LOSS(name, A)                                                                                    \
  extern "C" void loss_##name(const A* x, const A* y, int64_t elements, double* partial, const A* diagonal,      \
                              int64_t columns, double scale, double lambda, double lambda_diagonal, double rows, \
                              A* loss) {                                                                         \
    run_loss<A>({x, y, elements, partial, diagonal, columns, scale, lambda, lambda_diagonal, rows, loss});       \
  }
LT_HOST_LOSS(float, float)
LT_HOST_LOSS(double, double)
