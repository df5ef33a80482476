// bn_mixed_sum on CUDA.
//
// Floor (passes of N elements of traffic, at the device's copy bandwidth): forward P + 1; backward 3P + 2, the sums P + 1
// and the gradients 2P + 1; moments 1. Beside it: partial sums, at most 1/128 of a candidate each (1/32 in 16-bit types),
// written and read once; and dy, read again from cache for every eighth candidate of a launch (fourth in 16-bit types).
// Not yet timed on a device: compiled for it, and its bodies run on the host (python_tests/host_bodies).
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../mixed_sum/mixed_sum_device_gates.h"
#include "bn_mixed_sum_body.h"
#include "bn_mixed_sum_op.h"

namespace lt::bn_mixed_sum {
namespace {

using at::Tensor;
using mixed_sum::DeviceGates;

template <class A>
__device__ A* shared_weights() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<A*>(bytes);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ ForwardPass<T> f) {
  auto* weights = shared_weights<accumulate_t<T>>();
  mixed_sum::weights_thread(f.gates, threadIdx.x, kThreads, weights);
  __syncthreads();
  forward_thread<T, W>(f, weights, blockIdx.x, threadIdx.x);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) sums_kernel(const __grid_constant__ SumsPass<T> s) {
  __shared__ __align__(16) SumsShared<T, W> shared;
  sums_thread(s, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  partial_thread(s, blockIdx.x, threadIdx.x, shared);
}

template <class A>
__global__ void __launch_bounds__(kTableThreads) tables_kernel(const __grid_constant__ TablesPass<A> t) {
  __shared__ TablesShared shared;
  A* weights = shared_weights<A>();
  mixed_sum::weights_thread(t.gates, threadIdx.x, kTableThreads, weights);
  totals_thread(t, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  tables_thread(t, weights, blockIdx.x, threadIdx.x, shared);
}

// One block: ⟨dy, x̂_p⟩ of the launch's candidates into dots[slot]; the chain's last launch makes dα.
template <class A>
__global__ void __launch_bounds__(kAlphaThreads)
    alpha_kernel(const __grid_constant__ Launch c, const __grid_constant__ Gates<A> gates, const double* share,
                 int64_t channels, bool first, bool last, double* dots, double* grad_alpha) {
  __shared__ double by_candidate[kMaxCandidates];
  A* weights = shared_weights<A>();
  if (last) mixed_sum::weights_thread(gates, threadIdx.x, kAlphaThreads, weights);
  for (int p = threadIdx.x / kWarp; p < c.count; p += kAlphaThreads / kWarp) {
    const double sum = warp_sum(mixed_sum::dots_lane(share + p * channels, channels, threadIdx.x % kWarp));
    if (threadIdx.x % kWarp == 0) by_candidate[p] = sum;
  }
  __syncthreads();
  dots_thread(c, by_candidate, gates.rows * gates.K, first, threadIdx.x, dots);
  __syncthreads();
  if (last) mixed_sum::alpha_thread(gates, weights, dots, threadIdx.x, kAlphaThreads, grad_alpha);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) gradient_kernel(const __grid_constant__ GradientPass<T> g) {
  gradient_thread<T, W>(g, blockIdx.x, threadIdx.x);
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) moments_kernel(const __grid_constant__ MomentsPass<T> m) {
  __shared__ __align__(16) MomentsShared<T, W> shared;
  squares_thread(m, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  centre_thread(m, blockIdx.x, threadIdx.x, shared);
}

template <class T, int W>
__global__ void __launch_bounds__(kTableThreads) combine_kernel(const __grid_constant__ MomentsPass<T> m) {
  __shared__ CombineShared shared;
  means_thread<T, W>(m, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  distances_thread<T, W>(m, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  moments_thread(m, blockIdx.x, threadIdx.x, shared);
}

// Kernels load 16 bytes at a time: what does not begin on such a boundary is copied.
Tensor aligned(const Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0 ? x : x.clone(); }

Tensor prepared(const Tensor& x) { return aligned(channels_last(x)); }

std::vector<Tensor> prepared(at::TensorList x) {
  std::vector<Tensor> converted;
  for (const Tensor& t : x) converted.push_back(prepared(t));
  return converted;
}

// f(T{}, W) with T the elements' type and W, a constant, how many neighbouring channels a load takes.
template <class F>
void with_pack(const Tensor& x, const char* argument, const F& f) {
  with_element_type(x.scalar_type(), argument, [&](auto element) {
    using T = decltype(element);
    if constexpr (kPack<T> > 4) {
      if (x.size(1) % kPack<T> != 0) return f(element, std::integral_constant<int, 4>{});
    }
    f(element, std::integral_constant<int, kPack<T>>{});
  });
}

unsigned int as_blocks(int64_t blocks) {
  TORCH_CHECK_VALUE(blocks < (int64_t{1} << 31), "candidates: got images of ", blocks,
                    " blocks; the CUDA kernel takes fewer than 2^31");
  return static_cast<unsigned int>(blocks);
}

// Candidates of the launch that begins with the p-th.
template <class T>
Candidates<T> launch_of(const std::vector<Tensor>& x, at::IntArrayRef slots, const c10::List<bool>& batch, size_t p) {
  Candidates<T> c{};
  for (; c.count < kMaxCandidates && p + c.count < x.size(); ++c.count) {
    c.x[c.count] = static_cast<const T*>(x[p + c.count].const_data_ptr());
    c.slot[c.count] = static_cast<int>(slots[p + c.count]);
    c.batch[c.count] = batch.get(p + c.count);
  }
  return c;
}

Tensor forward_cuda(at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots, c10::string_view gate,
                    const Tensor& mean, const Tensor& inv_std, c10::List<bool> batch) {
  check(candidates, alpha, slots, mean, inv_std, batch);
  const c10::cuda::CUDAGuard guard(candidates[0].device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const std::vector<Tensor> x = prepared(candidates);
  const Tensor m = aligned(mean.contiguous()), s = aligned(inv_std.contiguous());
  const Tensor y = at::empty_like(x[0]);
  with_pack(y, "candidates", [&](auto element, auto width) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    constexpr int W = decltype(width)::value;
    const DeviceGates<A> device_gates(alpha, gate);
    const int64_t C = y.size(1);
    const Grid grid = grid_of(y.numel() / C, C, W);
    const unsigned int blocks = as_blocks(tiles_of(grid, kForwardPixels<T, W>) * grid.channel_blocks);
    for (size_t p = 0; p < x.size(); p += kMaxCandidates) {
      const ForwardPass<T> f{launch_of<T>(x, slots, batch, p),
                             device_gates.gates,
                             grid,
                             m.const_data_ptr<A>() + p * C,
                             s.const_data_ptr<A>() + p * C,
                             static_cast<T*>(y.mutable_data_ptr()),
                             p > 0};
      forward_kernel<T, W><<<blocks, kThreads, device_gates.shared_bytes, stream>>>(f);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  });
  return y;
}

Gradients backward_cuda(const Tensor& grad, at::TensorList candidates, const Tensor& alpha, at::IntArrayRef slots,
                        c10::string_view gate, const Tensor& mean, const Tensor& inv_std, c10::List<bool> batch,
                        c10::List<bool> need_x, bool need_alpha) {
  check(candidates, alpha, slots, mean, inv_std, batch);
  mixed_sum::check_backward(grad, candidates, alpha, slots, /*need_alpha=*/true);
  TORCH_CHECK_VALUE(need_x.size() == slots.size(), "need_x: got ", need_x.size(), "; wanted ", slots.size());
  const c10::cuda::CUDAGuard guard(grad.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const Tensor dy = prepared(grad), m = aligned(mean.contiguous()), s = aligned(inv_std.contiguous());
  const std::vector<Tensor> x = prepared(candidates);
  bool need_sums = need_alpha, need_any = false;
  for (size_t p = 0; p < x.size(); ++p) {
    need_any = need_any || need_x.get(p);
    need_sums = need_sums || (batch.get(p) && need_x.get(p));
  }
  std::vector<Tensor> dx;
  Tensor grad_alpha = at::empty({0}, alpha.options());
  if (!need_any && !need_alpha) return {dx, grad_alpha};
  with_pack(dy, "grad", [&](auto element, auto width) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    constexpr int W = decltype(width)::value;
    const DeviceGates<A> device_gates(alpha, gate);
    const int64_t C = dy.size(1), count = static_cast<int64_t>(x.size());
    const Grid grid = grid_of(dy.numel() / C, C, W);
    const int64_t tiles = tiles_of(grid, kPixels<T, W>);
    const auto sums = dy.options().dtype(c10::CppTypeToScalarType<A>::value), exact = dy.options().dtype(at::kDouble);
    const Tensor tables = at::empty({3, count, C}, sums);
    Tensor partial, share, dots, exact_alpha;
    if (need_sums) {
      partial = at::empty({std::min<int64_t>(count, kMaxCandidates) + 1, tiles, C}, sums);
      share = at::empty({count, C}, exact);
    }
    if (need_alpha) dots = at::empty({alpha.numel()}, exact), exact_alpha = at::empty(alpha.sizes(), exact);
    const T* const from = static_cast<const T*>(dy.const_data_ptr());
    A* const table = tables.mutable_data_ptr<A>();
    for (size_t p = 0; p < x.size(); p += kMaxCandidates) {
      Candidates<T> c = launch_of<T>(x, slots, batch, p);
      bool writes = false;
      for (int k = 0; k < c.count; ++k) {
        if (!need_x.get(p + k)) continue;
        dx.push_back(at::empty_like(dy));
        c.dx[k] = static_cast<T*>(dx.back().mutable_data_ptr());
        writes = true;
      }
      const int groups = groups_of<T, W>(c.count);
      const unsigned int blocks = as_blocks(tiles * grid.channel_blocks * groups);
      const int64_t row = p * C;
      A* const to = need_sums ? partial.mutable_data_ptr<A>() : nullptr;
      double* const shares = need_sums ? share.mutable_data_ptr<double>() + row : nullptr;
      if (need_sums) {
        const SumsPass<T> pass{c, grid, groups, from, m.const_data_ptr<A>() + row, tiles, to};
        sums_kernel<T, W><<<blocks, kThreads, 0, stream>>>(pass);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
      const TablesPass<A> pass{c,
                               device_gates.gates,
                               grid.pixels,
                               C,
                               tiles,
                               to,
                               s.const_data_ptr<A>() + row,
                               table + row,
                               table + count * C + row,
                               table + 2 * count * C + row,
                               shares};
      tables_kernel<<<as_blocks(c.count * table_blocks(C)), kTableThreads, device_gates.shared_bytes, stream>>>(pass);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      if (need_alpha) {
        alpha_kernel<A><<<1, kAlphaThreads, device_gates.shared_bytes, stream>>>(
            c, device_gates.gates, shares, C, p == 0, p + kMaxCandidates >= x.size(), dots.mutable_data_ptr<double>(),
            exact_alpha.mutable_data_ptr<double>());
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
      if (writes) {
        const GradientPass<T> gradients{c,          grid,       groups,    from, m.const_data_ptr<A>() + row,
                                        pass.scale, pass.shift, pass.slope};
        gradient_kernel<T, W><<<blocks, kThreads, 0, stream>>>(gradients);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    }
    if (need_alpha) grad_alpha = exact_alpha.to(alpha.scalar_type());
  });
  return {dx, grad_alpha};
}

Tensor moments_cuda(const Tensor& images) {
  check_images(images, "x");
  const c10::cuda::CUDAGuard guard(images.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const Tensor x = prepared(images);
  Tensor moments;
  with_pack(x, "x", [&](auto element, auto width) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    constexpr int W = decltype(width)::value;
    const int64_t C = x.size(1);
    const Grid grid = grid_of(x.numel() / C, C, W);
    const int64_t tiles = tiles_of(grid, kPixels<T, W>);
    moments = at::empty({2, C}, x.options().dtype(c10::CppTypeToScalarType<A>::value));
    const Tensor partial = at::empty({tiles, 2, C}, x.options().dtype(at::kDouble));
    const MomentsPass<T> m{static_cast<const T*>(x.const_data_ptr()), grid, tiles, partial.mutable_data_ptr<double>(),
                           moments.mutable_data_ptr<A>()};
    moments_kernel<T, W><<<as_blocks(tiles * grid.channel_blocks), kThreads, 0, stream>>>(m);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    combine_kernel<T, W><<<as_blocks(table_blocks(C)), kTableThreads, 0, stream>>>(m);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return moments;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CUDA, m) {
  m.impl("bn_mixed_sum", forward_cuda);
  m.impl("bn_mixed_sum_backward", backward_cuda);
  m.impl("channel_moments", moments_cuda);
}

}  // namespace lt::bn_mixed_sum
