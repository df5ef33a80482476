// The passes of barlow_twins_loss on CUDA, around the vendor's matrix products (barlow_twins_loss_forms.cpp).
//
// Floor at N = 256, D = 8192, float32: 4.3 GFLOP of products and 11 passes of 8 MB that stay in a 50 MB cache; the
// products rule. Not yet timed on a device: compiled for it, and its bodies run on the host.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "barlow_twins_loss_body.h"

namespace lt::barlow_twins_loss {
namespace {

template <class T>
__global__ void __launch_bounds__(kBlockThreads) standardize_kernel(const __grid_constant__ Standardize<T> s) {
  __shared__ StandardizeShared<accumulate_t<T>> shared;
  sum_thread(s, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  squares_thread(s, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  normalize_thread(s, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  diagonal_thread(s, blockIdx.x, threadIdx.x, shared);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads) combine_kernel(const __grid_constant__ Combine<T> c) {
  __shared__ CombineShared<accumulate_t<T>> shared;
  along_thread(c, blockIdx.x, threadIdx.x, shared);
  __syncthreads();
  combine_thread(c, blockIdx.x, threadIdx.x, shared);
}

// The sum of the block's values, in its first thread.
__device__ double block_sum(double value) {
  __shared__ double warps[kWarps];
  const double sum = warp_sum(value);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = sum;
  __syncthreads();
  return threadIdx.x == 0 ? sum_of_warps(warps, 1) : 0;
}

template <class A>
__global__ void __launch_bounds__(kThreads) dot_kernel(const __grid_constant__ Loss<A> l) {
  const double sum = block_sum(dot_thread(l, blockIdx.x, threadIdx.x));
  if (threadIdx.x == 0) l.partial[blockIdx.x] = sum;
}

template <class A>
__global__ void __launch_bounds__(kThreads) loss_kernel(const __grid_constant__ Loss<A> l) {
  const double sum = block_sum(loss_thread(l, threadIdx.x));
  if (threadIdx.x == 0) *l.loss = static_cast<A>(sum);
}

unsigned int blocks_for(int64_t columns) {
  return static_cast<unsigned int>((columns + kBlockColumns - 1) / kBlockColumns);
}

}  // namespace

namespace cuda {

template <class T>
void standardize(const Standardize<T>& s) {
  standardize_kernel<<<blocks_for(s.columns), kBlockThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(s);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class T>
void combine(const Combine<T>& c) {
  combine_kernel<<<blocks_for(c.columns), kBlockThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(c);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <class A>
void loss(const Loss<A>& l) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  dot_kernel<<<static_cast<unsigned int>(chunks_of(l.elements)), kThreads, 0, stream>>>(l);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  loss_kernel<<<1, kThreads, 0, stream>>>(l);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
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

}  // namespace cuda
}  // namespace lt::barlow_twins_loss
