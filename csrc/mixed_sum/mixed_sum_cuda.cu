// mixed_sum on CUDA.
//
// Floor: forward (P + 1) N elements of traffic, backward (2P + 1) N, at the device's copy bandwidth; the partial sums
// add P floats a tile of 8 KB. Expected from the traffic: within 15 % of the floor beyond the last-level cache.
// Not yet timed on a device: compiled for it, and its bodies run on the host (python_tests/host_bodies).
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "mixed_sum_body.h"
#include "mixed_sum_device_gates.h"
#include "mixed_sum_op.h"

namespace lt::mixed_sum {
namespace {

template <class A>
__device__ A* shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<A*>(bytes);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ Candidates<T> c, const __grid_constant__ Gates<T> gates, T* y, bool add,
                   bool aligned, int64_t n) {
  auto* weights = shared<accumulate_t<T>>();
  weights_thread(gates, threadIdx.x, kThreads, weights);
  __syncthreads();
  forward_thread(c, weights, y, add, aligned, n, blockIdx.x, threadIdx.x);
}

template <class T, bool Dots>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const __grid_constant__ Candidates<T> c, const __grid_constant__ Gates<T> gates, const T* grad,
                    bool aligned, int64_t n, accumulate_t<T>* partial) {
  using A = accumulate_t<T>;
  __shared__ A warp_dots[kWarps * kMaxCandidates];
  A* weights = shared<A>();
  weights_thread(gates, threadIdx.x, kThreads, weights);
  __syncthreads();
  const int64_t base = int64_t{blockIdx.x} * kTileElements<T>;
  const bool packs = aligned && whole_tile<T>(base, n);
  const Tile<T> dy = load_tile(grad, base, n, threadIdx.x, packs);
  for (int first = 0; first < c.count; first += kTogether) {
    A dots[kTogether];
    backward_thread<T, Dots>(c, weights, dy, first, packs, base, n, threadIdx.x, dots);
    if (Dots) {
      LT_UNROLL
      for (int g = 0; g < kTogether; ++g) {
        const A sum = warp_sum(dots[g]);
        if (threadIdx.x % kWarp == 0 && first + g < c.count)
          warp_dots[threadIdx.x / kWarp * kMaxCandidates + first + g] = sum;
      }
    }
  }
  if (Dots) {
    __syncthreads();
    partial_thread<T>(c.count, warp_dots, blockIdx.x, gridDim.x, threadIdx.x, partial);
  }
}

constexpr int kFinishThreads = 1024;

// One block: sums the partial sums of the launch's candidates into dots[slot]; the chain's last launch makes dα.
template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const __grid_constant__ Candidates<T> c, const __grid_constant__ Gates<T> gates,
                  const accumulate_t<T>* partial, int64_t blocks, bool first, bool last, double* dots,
                  double* grad_alpha) {
  const int slots = gates.rows * gates.K;
  if (first)
    for (int slot = threadIdx.x; slot < slots; slot += kFinishThreads) dots[slot] = 0;
  auto* weights = shared<accumulate_t<T>>();
  if (last) weights_thread(gates, threadIdx.x, kFinishThreads, weights);
  __syncthreads();
  for (int p = threadIdx.x / kWarp; p < c.count; p += kFinishThreads / kWarp) {
    const double sum = warp_sum(dots_lane(partial + p * blocks, blocks, threadIdx.x % kWarp));
    if (threadIdx.x % kWarp == 0) dots[c.slot[p]] += sum;
  }
  __syncthreads();
  if (last) alpha_thread(gates, weights, dots, threadIdx.x, kFinishThreads, grad_alpha);
}

bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

at::Tensor forward_cuda(at::TensorList candidates, const at::Tensor& alpha, at::IntArrayRef slots,
                        c10::string_view gate) {
  check_forward(candidates, alpha, slots);
  const c10::cuda::CUDAGuard guard(candidates[0].device());
  const at::Tensor first = dense(candidates[0]);
  std::vector<at::Tensor> x;
  for (const at::Tensor& candidate : candidates) x.push_back(in_layout_of(first, candidate));
  at::Tensor y = at::empty_strided(first.sizes(), first.strides(), first.options());
  if (y.numel() == 0) return y;
  const auto stream = c10::cuda::getCurrentCUDAStream();
  with_element_type(y.scalar_type(), "candidates", [&](auto element) {
    using T = decltype(element);
    const DeviceGates<T> device_gates(alpha, gate);
    T* to = static_cast<T*>(y.mutable_data_ptr());
    const int64_t blocks = (y.numel() + kTileElements<T> - 1) / kTileElements<T>;
    for (size_t p = 0; p < x.size(); p += kMaxCandidates) {
      Candidates<T> c{};
      bool aligned = aligned16(to);
      for (; c.count < kMaxCandidates && p + c.count < x.size(); ++c.count) {
        c.x[c.count] = static_cast<const T*>(x[p + c.count].const_data_ptr());
        c.slot[c.count] = static_cast<int>(slots[p + c.count]);
        aligned = aligned && aligned16(c.x[c.count]);
      }
      forward_kernel<T><<<blocks, kThreads, device_gates.shared_bytes, stream>>>(c, device_gates.gates, to, p > 0,
                                                                                 aligned, y.numel());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  });
  return y;
}

Gradients backward_cuda(const at::Tensor& grad, at::TensorList candidates, const at::Tensor& alpha,
                        at::IntArrayRef slots, c10::string_view gate, c10::List<bool> need_x, bool need_alpha) {
  check_backward(grad, candidates, alpha, slots, need_alpha);
  const c10::cuda::CUDAGuard guard(grad.device());
  const at::Tensor dy = dense(grad);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  std::vector<at::Tensor> x, dx;
  if (need_alpha)
    for (const at::Tensor& candidate : candidates) x.push_back(in_layout_of(dy, candidate));
  at::Tensor grad_alpha = at::empty({0}, alpha.options());
  with_element_type(dy.scalar_type(), "grad", [&](auto element) {
    using T = decltype(element);
    using A = accumulate_t<T>;
    const DeviceGates<T> device_gates(alpha, gate);
    const auto options = dy.options();
    const int64_t n = dy.numel(), blocks = (n + kTileElements<T> - 1) / kTileElements<T>;
    at::Tensor partial, dots, exact;
    if (need_alpha) {
      partial = at::empty({kMaxCandidates * blocks}, options.dtype(c10::CppTypeToScalarType<A>::value));
      dots = at::empty({alpha.numel()}, options.dtype(at::kDouble));
      exact = at::empty(alpha.sizes(), options.dtype(at::kDouble));
    }
    for (size_t p = 0; p < slots.size(); p += kMaxCandidates) {
      Candidates<T> c{};
      bool aligned = aligned16(dy.const_data_ptr());
      for (; c.count < kMaxCandidates && p + c.count < slots.size(); ++c.count) {
        const size_t at = p + c.count;
        c.slot[c.count] = static_cast<int>(slots[at]);
        if (need_alpha) c.x[c.count] = static_cast<const T*>(x[at].const_data_ptr());
        if (need_x.get(at)) {
          dx.push_back(at::empty_strided(dy.sizes(), dy.strides(), options));
          c.dx[c.count] = static_cast<T*>(dx.back().mutable_data_ptr());
        }
        aligned = aligned && aligned16(c.x[c.count]) && aligned16(c.dx[c.count]);
      }
      const T* from = static_cast<const T*>(dy.const_data_ptr());
      if (!need_alpha) {
        if (n > 0) {
          backward_kernel<T, false><<<blocks, kThreads, device_gates.shared_bytes, stream>>>(c, device_gates.gates,
                                                                                             from, aligned, n, nullptr);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
        }
        continue;
      }
      A* sums = partial.mutable_data_ptr<A>();
      if (n > 0) {
        backward_kernel<T, true>
            <<<blocks, kThreads, device_gates.shared_bytes, stream>>>(c, device_gates.gates, from, aligned, n, sums);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
      finish_kernel<T><<<1, kFinishThreads, device_gates.shared_bytes, stream>>>(
          c, device_gates.gates, sums, blocks, p == 0, p + kMaxCandidates >= slots.size(),
          dots.mutable_data_ptr<double>(), exact.mutable_data_ptr<double>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (need_alpha) grad_alpha = exact.to(alpha.scalar_type());
  });
  return {dx, grad_alpha};
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CUDA, m) {
  m.impl("mixed_sum", forward_cuda);
  m.impl("mixed_sum_backward", backward_cuda);
}

}  // namespace lt::mixed_sum
