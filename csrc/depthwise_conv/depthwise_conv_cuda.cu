// depthwise_conv on CUDA.
//
// Floor, N H W C numbers a pass: forward 1 read and 1 write, backward reads of dy and x and a write of dx, at the
// device's copy bandwidth; the halo of a tile comes from the last-level cache. Expected: within 30 % of the floor.
// Not yet timed on a device: compiled for it, and its bodies run on the host (python_tests/host_bodies).
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/relu.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../common/depthwise_launch.cuh"
#include "../common/sum_rows.cuh"
#include "depthwise_conv_body.h"
#include "depthwise_conv_op.h"

namespace lt::depthwise_conv {
namespace {

using at::Tensor;

template <class A>
__device__ A* shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<A*>(bytes);
}

template <class T, int K, int Shift>
__global__ void __launch_bounds__(kThreads) forward_kernel(const ConvForward<T> f) {
  using A = accumulate_t<T>;
  A* const a = shared<A>();
  const Place place = place_of(f.tiles, blockIdx.x);
  const int first = blockIdx.y * f.tiles.chunk, count = f.tiles.chunk_channels(first);
  fill_thread<T>(f.tiles, place, f.x, first, count, nullptr, nullptr, f.relu, threadIdx.x, a);
  __syncthreads();
  convolve_thread<K, Shift>(f, place, first, count, a, threadIdx.x);
}

template <class T, int K, int Shift>
__global__ void __launch_bounds__(kThreads) backward_kernel(const ConvBackward<T> b) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  const ConvShared<A> s = conv_shared(b, shared<A>());
  const int64_t slot = blockIdx.x, last = min(b.count, (slot + 1) * b.tiles_a_block);
  const int first = blockIdx.y * t.chunk, count = t.chunk_channels(first);
  for (int64_t tile = slot * b.tiles_a_block; tile < last; ++tile) {
    const Place place = place_of(t, tile);
    __syncthreads();
    fill_thread<T>(t, place, b.x, first, count, nullptr, nullptr, b.relu, threadIdx.x, s.a);
    load_dy_thread(b, place, first, count, threadIdx.x, s.dy);
    __syncthreads();
    if (b.need_weight)
      correlate_thread<K, Shift>(over_tile(t, count), s.a, s.dy + (t.before() * t.du_pitch() + t.before()) * count,
                                 t.du_pitch(), threadIdx.x, s.correlated);
    if (b.need_x) gather_thread<K>(t, s.dy, count, b.weight + first, false, threadIdx.x, s.g);
    __syncthreads();
    if (b.need_weight)
      weight_thread<K>(b, slot, first, count, tile > slot * b.tiles_a_block, s.correlated, threadIdx.x);
    if (b.need_x) mask_thread<T>(t, place, s.a, s.g, first, count, b.relu, threadIdx.x, b.dx, nullptr);
  }
}

Window window_of(const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation) {
  TORCH_CHECK_VALUE(x.size(1) % 4 == 0, "x: got ", x.size(1), " channels; the kernel takes multiples of 4");
  return {x.size(2), x.size(3), static_cast<int>(weight.size(2)), static_cast<int>(stride), static_cast<int>(dilation)};
}

// (C, 1, K, K) as the kernels read it: (K · K, C).
Tensor taps_first(const Tensor& weight) { return weight.reshape({weight.size(0), -1}).t().contiguous(); }

template <class T>
const T* elements(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
Tensor forward_of(const Tensor& x, const Tensor& weight, const Window& window, bool relu) {
  const Tensor y = at::empty({x.size(0), x.size(1), window.out_height(), window.out_width()}, x.options(),
                             at::MemoryFormat::ChannelsLast);
  const Tensor taps = taps_first(weight);
  ConvForward<T> f{};
  f.relu = relu;
  f.x = elements<T>(x);
  f.weight = elements<T>(taps);
  f.y = static_cast<T*>(y.mutable_data_ptr());
  plan_launch(f, window, x.size(1), x.size(0), most_shared_bytes());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  with_kernel<T>(window, [&](auto kernel, auto shift) {
    const auto launched = forward_kernel<T, decltype(kernel)::value, decltype(shift)::value>;
    allow_shared(launched, shared_bytes(f));
    launched<<<dim3(f.count, f.tiles.chunks()), kThreads, shared_bytes(f), stream>>>(f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return y;
}

Tensor forward_cuda(const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation, bool relu) {
  check(x, weight, stride, dilation);
  const Window window = window_of(x, weight, stride, dilation);
  const c10::cuda::CUDAGuard guard(x.device());
  if (!x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return at::conv2d(relu ? at::relu(x) : x, weight, {}, stride, window.padding(), dilation, x.size(1));
  Tensor y;
  with_element_type(x.scalar_type(), "x",
                    [&](auto element) { y = forward_of<decltype(element)>(on_fours(x), weight, window, relu); });
  return y;
}

template <class T>
Gradients backward_of(const Tensor& dy, const Tensor& x, const Tensor& weight, const Window& window, bool relu,
                      bool need_x, bool need_weight) {
  using A = accumulate_t<T>;
  const Tensor dx = need_x ? at::empty_like(x) : at::empty({0}, x.options()), taps = taps_first(weight);
  const auto table = x.options().dtype(c10::CppTypeToScalarType<A>::value);
  ConvBackward<T> b{};
  b.relu = relu;
  b.need_x = need_x;
  b.need_weight = need_weight;
  b.x = elements<T>(x);
  b.weight = elements<T>(taps);
  b.dy = elements<T>(dy);
  b.dx = need_x ? static_cast<T*>(dx.mutable_data_ptr()) : nullptr;
  plan_launch(b, window, x.size(1), x.size(0), most_shared_bytes());
  const int64_t numbers = b.tiles.taps() * x.size(1);
  const Tensor parts = at::empty({need_weight ? b.slots() : 0, numbers}, table);
  b.dweight = parts.mutable_data_ptr<A>();
  const auto stream = c10::cuda::getCurrentCUDAStream();
  with_kernel<T>(window, [&](auto kernel, auto shift) {
    const auto launched = backward_kernel<T, decltype(kernel)::value, decltype(shift)::value>;
    allow_shared(launched, shared_bytes(b));
    launched<<<dim3(b.slots(), b.tiles.chunks()), kThreads, shared_bytes(b), stream>>>(b);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  if (!need_weight) return {dx, at::empty({0}, x.options())};
  const Tensor total = at::empty({b.tiles.taps(), x.size(1)}, table);
  sum_rows(b.dweight, b.slots(), numbers, total.mutable_data_ptr<A>(), stream);
  return {dx, total.t().to(x.options()).contiguous().view(weight.sizes())};
}

Gradients backward_cuda(const Tensor& dy, const Tensor& x, const Tensor& weight, int64_t stride, int64_t dilation,
                        bool relu, bool need_x, bool need_weight) {
  check(x, weight, stride, dilation);
  const Window window = window_of(x, weight, stride, dilation);
  check_dy(dy, x, window.out_height(), window.out_width());
  const c10::cuda::CUDAGuard guard(x.device());
  Gradients gradients;
  with_element_type(x.scalar_type(), "x", [&](auto element) {
    gradients = backward_of<decltype(element)>(on_fours(channels_last(dy)), on_fours(channels_last(x)), weight, window,
                                               relu, need_x, need_weight);
  });
  return gradients;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CUDA, m) {
  m.impl("depthwise_conv", forward_cuda);
  m.impl("depthwise_conv_backward", backward_cuda);
}

}  // namespace lt::depthwise_conv
