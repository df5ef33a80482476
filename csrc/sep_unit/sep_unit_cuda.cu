// sep_unit on CUDA.
//
// Floor, N H W C numbers a pass: forward 1 read and E writes, backward E reads of dz, 1 read of x and 1 write of dx, at
// the device's copy bandwidth; the halo of a tile and dz, once for each chunk of 16 channels, come from the last-level
// cache. Multiply-adds as in sep_unit.h, but du is made on a tile's margin too: (8 + 4)(32 + 4) / (8 · 32) = 1.7 times
// for a 5×5 kernel. Expected: arithmetic bounds it, not traffic; a third of the device's float32 rate.
//
// On tensor cores (sm_80 and later; bfloat16 and float16 always, float32 where TF32 is allowed) the float32 units keep
// K² multiply-adds forward and 3 K² backward per edge and number, and lose C and (1.7 + 1) C: for a 5×5 kernel 25 of 41
// and 75 of 118 are left where C = C' = 16, 25 of 89 and 75 of 248 where it is 64. A warp's fragments of 16 pixels × 16
// channels by 16 cost a lane 8 loads and 2 instructions forward, 12 and 16 loads and 2 each backward (TF32: 16, 16 and
// 16, and 4), beside 200 multiply-adds of the depthwise convolution. Expected: those of the depthwise passes bound it,
// and the shared memory that feeds them, not the products; at best 1.6 times as fast as float32 where C = 16, 3.3 times
// where C = 64.
// Not yet timed on a device: compiled for it, and its bodies run on the host (python_tests/host_bodies).
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../common/depthwise_launch.cuh"
#include "../common/sum_rows.cuh"
#include "sep_unit_op.h"
#include "sep_unit_warp.h"

namespace lt::sep_unit {
namespace {

using at::Tensor;

template <class A>
__device__ A* shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<A*>(bytes);
}

// What there is for an architecture: with tensor cores bfloat16 and float16 have no other way.
template <class T, class O>
__device__ constexpr bool built() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return !kOnTensorCores<T, O>;
#else
  return kOnTensorCores<T, O> || sizeof(T) >= 4;
#endif
}

// A block for each (tile, group of edges).
template <class T, class O, int K, int Shift>
__device__ void forward_block(const UnitForward<T, O>& f) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = f.tiles;
  const ForwardShared<A, O> s = forward_shared(f, shared<A>());
  const int64_t tile = blockIdx.x;
  const Place place = place_of(t, tile);
  const int begin = blockIdx.y * f.edges_a_group, end = min(f.edges, begin + f.edges_a_group);
  for (int edge = begin; edge < end; ++edge) {
    for (int first = 0; first < t.channels; first += t.chunk) {
      const int count = t.chunk_channels(first), own = f.source(edge) * t.channels;
      if (edge == begin || !f.shared || t.chunks() > 1)
        fill_thread(t, place, f.x[f.source(edge)], first, count, f.mean ? f.mean + own : nullptr,
                    f.mean ? f.inv_std + own : nullptr, true, threadIdx.x, s.a);
      __syncthreads();
      between_thread<K, Shift>(t, f.depthwise, edge, first, count, s.a, threadIdx.x, s.u);
      __syncthreads();
      if constexpr (kOnTensorCores<T, O>)
        pointwise_warp(f, edge, first, count, s, threadIdx.x);
      else
        pointwise_thread(f, place, edge, first, count, s, threadIdx.x);
    }
    __syncthreads();
    if constexpr (kOnTensorCores<T, O>) {
      store_z_thread(f, place, edge, s, threadIdx.x);
      __syncthreads();
    }
    sum_moments_thread(f, s, threadIdx.x);
    __syncthreads();
    square_moments_thread(f, place, s, threadIdx.x);
    __syncthreads();
    store_moments_thread(f, place, tile, edge, s, threadIdx.x);
  }
}

template <class T, class O, int K, int Shift>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ UnitForward<T, O> f) {
  if constexpr (built<T, O>()) forward_block<T, O, K, Shift>(f);
}

template <class T>
__global__ void __launch_bounds__(kThreads) combine_kernel(const CombineMoments<T> m) {
  __shared__ double sums[kThreads], squares[kThreads];
  combine_sums_thread(m, blockIdx.x, threadIdx.x, sums);
  __syncthreads();
  combine_squares_thread(m, blockIdx.x, threadIdx.x, sums, squares);
  __syncthreads();
  combine_store_thread(m, blockIdx.x, threadIdx.x, sums, squares);
}

// A block for each (slot of tiles, group of edges, chunk of channels).
template <class T, class O, int K, int Shift>
__device__ void backward_block(const UnitBackward<T, O>& b) {
  using A = accumulate_t<T>;
  const DepthwiseTiles& t = b.tiles;
  const BackwardShared<A, O> s = backward_shared(b, shared<A>());
  const int64_t slot = blockIdx.x, group = blockIdx.y;
  const int first = blockIdx.z * t.chunk, count = t.chunk_channels(first);
  const int begin = blockIdx.y * b.edges_a_group, end = min(b.edges, begin + b.edges_a_group);
  const int own = b.source(begin) * t.channels;
  const int64_t images = b.count / t.tiles_an_image(), last = min(b.count, (slot + 1) * b.tiles_a_block);
  for (int64_t tile = slot * b.tiles_a_block; tile < last; ++tile) {
    const Place place = place_of(t, tile);
    const bool add = tile > slot * b.tiles_a_block;
    __syncthreads();
    fill_thread(t, place, b.x[b.source(begin)], first, count, b.mean ? b.mean + own : nullptr,
                b.mean ? b.inv_std + own : nullptr, true, threadIdx.x, s.a);
    for (int edge = begin; edge < end; ++edge) {
      __syncthreads();
      if constexpr (kOnTensorCores<T, O>)
        through_pointwise_warp(b, place, edge, first, count, threadIdx.x, s.du);
      else
        through_pointwise_thread(b, place, edge, first, count, threadIdx.x, s.du);
      if (b.need_weights) between_thread<K, Shift>(t, b.depthwise, edge, first, count, s.a, threadIdx.x, s.u);
      __syncthreads();
      if (b.need_weights) {
        correlate_thread<K, Shift>(over_tile(t, count), s.a, s.du + (t.before() * t.du_pitch() + t.before()) * count,
                                   t.du_pitch(), threadIdx.x, s.correlated);
        if constexpr (kOnTensorCores<T, O>)
          outer_warp(b, place, edge, count, s.u, threadIdx.x, s.outer);
        else
          outer_thread(b, place, edge, count, s.u, threadIdx.x, s.outer);
      }
      if (b.need_x)
        gather_thread<K>(t, s.du, count, b.depthwise + int64_t{edge} * t.taps() * t.channels + first, edge > begin,
                         threadIdx.x, s.g);
      __syncthreads();
      if (b.need_weights) weights_thread<K>(b, slot, edge, first, count, add, s, threadIdx.x);
    }
    if (!b.need_x) continue;
    __syncthreads();
    A* const sums = b.need_sums ? s.correlated : nullptr;
    if (b.dx)
      mask_thread(t, place, s.a, s.g, first, count, true, threadIdx.x, b.dx, sums);
    else
      mask_thread(t, place, s.a, s.g, first, count, true, threadIdx.x, b.staged + group * images * t.in_image(), sums);
    if (!sums) continue;
    __syncthreads();
    mask_sums_thread(sums, count, t.channels, add, threadIdx.x,
                     b.sums + (slot * b.groups() + group) * 2 * t.channels + first);
  }
}

template <class T, class O, int K, int Shift>
__global__ void __launch_bounds__(kThreads) backward_kernel(const __grid_constant__ UnitBackward<T, O> b) {
  if constexpr (built<T, O>()) backward_block<T, O, K, Shift>(b);
}

template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const UnitFinish<T> f) {
  finish_thread(f, blockIdx.x, threadIdx.x);
}

Window window_of(const Tensor& x, const Tensor& depthwise, int64_t stride, int64_t dilation) {
  return {x.size(2), x.size(3), static_cast<int>(depthwise.size(2)), static_cast<int>(stride),
          static_cast<int>(dilation)};
}

void check_covered(const Tensor& x, const Tensor& depthwise, const Tensor& pointwise) {
  const int64_t edges = edges_of(depthwise, pointwise), out = pointwise.size(0) / edges;
  TORCH_CHECK_VALUE(x.numel() > 0, "x: got shape ", x.sizes(), "; wanted at least one image");
  TORCH_CHECK_VALUE(x.size(1) % 4 == 0 && out % 4 == 0 && out <= kMaxOutChannels && edges <= kMaxEdges, "x: got ",
                    x.size(1), " channels, ", out, " out and ", edges,
                    " edges; the kernel takes multiples of 4, at most ", kMaxOutChannels, " out and ", kMaxEdges,
                    " edges");
}

// (E · C, 1, K, K) as the kernels read it: (E, K · K, C).
Tensor taps_first(const Tensor& depthwise, const Tensor& x) {
  return depthwise.reshape({-1, x.size(1), depthwise.size(2) * depthwise.size(3)}).transpose(1, 2).contiguous();
}

std::vector<Tensor> images_of(at::TensorList x) {
  std::vector<Tensor> images = channels_last(x);
  for (Tensor& t : images) t = on_fours(t);
  return images;
}

Tensor table_of(const Optional& table) { return table ? table->contiguous() : Tensor(); }

template <class A>
const A* data(const Tensor& t) {
  return t.defined() ? t.const_data_ptr<A>() : nullptr;
}

template <class T>
const T* elements(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

// Whether what this device runs was built for tensor cores: it may be older code than the device.
bool on_tensor_cores() {
  cudaFuncAttributes found;
  C10_CUDA_CHECK(cudaFuncGetAttributes(&found, combine_kernel<float>));
  return found.ptxVersion >= 80;
}

// f(O{}) with O the type in which the products take their factors.
template <class T, class F>
void with_factors(bool tf32, const F& f) {
  constexpr bool wide = std::is_same_v<T, float>;
  if constexpr (!std::is_same_v<T, double>) {
    if ((tf32 || !wide) && on_tensor_cores()) return f(std::conditional_t<wide, tensor_core::Tf32, T>{});
  }
  f(accumulate_t<T>{});
}

template <class T, class O>
Outputs forward_of(const std::vector<Tensor>& x, const Tensor& depthwise, const Tensor& pointwise, const Window& window,
                   const Tensor& mean, const Tensor& inv_std) {
  using A = accumulate_t<T>;
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = x[0].size(0), edges = edges_of(depthwise, pointwise);
  const auto table = x[0].options().dtype(c10::CppTypeToScalarType<A>::value);
  UnitForward<T, O> f{};
  f.out_channels = static_cast<int>(pointwise.size(0) / edges);
  f.edges = static_cast<int>(edges);
  f.shared = x.size() == 1;
  plan_launch(f, window, x[0].size(1), images, most_shared_bytes());

  const Tensor taps = taps_first(depthwise, x[0]), mixing = on_fours(pointwise.contiguous());
  const Tensor moments = at::empty({f.count, edges, 2, f.out_channels}, table);
  const Tensor total = at::empty({2, edges, f.out_channels}, table);
  std::vector<Tensor> z;
  for (int64_t e = 0; e < edges; ++e) {
    z.push_back(at::empty({images, f.out_channels, window.out_height(), window.out_width()}, x[0].options(),
                          at::MemoryFormat::ChannelsLast));
    f.z[e] = static_cast<T*>(z.back().mutable_data_ptr());
  }
  for (size_t i = 0; i < x.size(); ++i) f.x[i] = elements<T>(x[i]);
  f.mean = data<A>(mean);
  f.inv_std = data<A>(inv_std);
  f.depthwise = elements<T>(taps);
  f.pointwise = elements<T>(mixing);
  f.moments = moments.mutable_data_ptr<A>();
  const dim3 grid(f.count, f.groups());
  with_kernel<T>(window, [&](auto kernel, auto shift) {
    const auto launched = forward_kernel<T, O, decltype(kernel)::value, decltype(shift)::value>;
    allow_shared(launched, shared_bytes(f));
    launched<<<grid, kThreads, shared_bytes(f), stream>>>(f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  const CombineMoments<T> combine{f.tiles,        f.count,   edges * f.out_channels,
                                  f.out_channels, f.moments, total.mutable_data_ptr<A>()};
  combine_kernel<T><<<sum_rows_blocks(combine.columns), kThreads, 0, stream>>>(combine);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {z, total};
}

Outputs forward_cuda(at::TensorList x, const Tensor& depthwise, const Tensor& pointwise, int64_t stride,
                     int64_t dilation, const Optional& mean, const Optional& inv_std, bool, bool tf32) {
  check(x, depthwise, pointwise, stride, dilation, mean, inv_std);
  check_covered(x[0], depthwise, pointwise);
  const c10::cuda::CUDAGuard guard(x[0].device());
  Outputs outputs;
  with_element_type(x[0].scalar_type(), "x", [&](auto element) {
    using T = decltype(element);
    with_factors<T>(tf32, [&](auto factor) {
      outputs = forward_of<T, decltype(factor)>(images_of(x), depthwise, pointwise,
                                                window_of(x[0], depthwise, stride, dilation), table_of(mean),
                                                table_of(inv_std));
    });
  });
  return outputs;
}

template <class T, class O>
Gradients backward_of(const std::vector<Tensor>& dz, const std::vector<Tensor>& x, const Tensor& depthwise,
                      const Tensor& pointwise, const Window& window, const Tensor& mean, const Tensor& inv_std,
                      bool batch, bool need_x, bool need_weights) {
  using A = accumulate_t<T>;
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const int64_t images = x[0].size(0), C = x[0].size(1), edges = edges_of(depthwise, pointwise);
  const auto options = x[0].options(), table = options.dtype(c10::CppTypeToScalarType<A>::value);
  const Tensor taps = taps_first(depthwise, x[0]), mixing = on_fours(pointwise.contiguous());
  UnitBackward<T, O> b{};
  b.out_channels = static_cast<int>(pointwise.size(0) / edges);
  b.edges = static_cast<int>(edges);
  b.shared = x.size() == 1;
  b.need_weights = need_weights;
  b.need_x = need_x;
  const bool normed = mean.defined();
  b.need_sums = normed && need_x;
  plan_launch(b, window, C, images, most_shared_bytes());

  for (size_t i = 0; i < x.size(); ++i) b.x[i] = elements<T>(x[i]);
  for (int64_t e = 0; e < edges; ++e) b.dz[e] = elements<T>(dz[e]);
  b.mean = data<A>(mean);
  b.inv_std = data<A>(inv_std);
  b.depthwise = elements<T>(taps);
  b.pointwise = elements<T>(mixing);
  std::vector<Tensor> dx;
  if (need_x)
    for (const Tensor& t : x) dx.push_back(at::empty_like(t, at::MemoryFormat::ChannelsLast));
  const bool direct = !normed && b.shared && b.groups() == 1;  // nothing is left to do after the kernel
  const int64_t numbers = edges * (b.tiles.taps() + b.out_channels) * C;
  const Tensor staged = at::empty({need_x && !direct ? b.groups() : 0, x[0].numel()}, table);
  const Tensor weights = at::empty({need_weights ? b.slots() : 0, numbers}, table);
  const Tensor sums = at::empty({b.need_sums ? b.slots() : 0, b.groups(), 2, C}, table);
  if (need_x && direct) b.dx = static_cast<T*>(dx[0].mutable_data_ptr());
  b.staged = staged.mutable_data_ptr<A>();
  b.weights = weights.mutable_data_ptr<A>();
  b.sums = sums.mutable_data_ptr<A>();
  const dim3 grid(b.slots(), b.groups(), b.tiles.chunks());
  with_kernel<T>(window, [&](auto kernel, auto shift) {
    const auto launched = backward_kernel<T, O, decltype(kernel)::value, decltype(shift)::value>;
    allow_shared(launched, shared_bytes(b));
    launched<<<grid, kThreads, shared_bytes(b), stream>>>(b);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });

  const int64_t inputs = static_cast<int64_t>(x.size());
  const Tensor total_sums = at::empty({b.need_sums ? inputs : 0, 2, C}, table);
  if (b.need_sums)
    sum_rows(b.sums, b.slots() * b.groups() / inputs, inputs * 2 * C, total_sums.mutable_data_ptr<A>(), stream);
  if (need_x && !direct) {
    const int groups = b.groups() / static_cast<int>(inputs);
    for (int64_t i = 0; i < inputs; ++i) {
      const UnitFinish<T> f{x[i].numel(),
                            static_cast<int>(C),
                            groups,
                            batch,
                            normed ? elements<T>(x[i]) : nullptr,
                            normed ? b.mean + i * C : nullptr,
                            normed ? b.inv_std + i * C : nullptr,
                            b.need_sums ? total_sums.const_data_ptr<A>() + i * 2 * C : nullptr,
                            b.staged + i * groups * x[i].numel(),
                            static_cast<T*>(dx[i].mutable_data_ptr())};
      finish_kernel<T><<<(x[i].numel() / 4 + kThreads - 1) / kThreads, kThreads, 0, stream>>>(f);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }
  if (!need_weights) return {dx, at::empty({0}, options), at::empty({0}, options)};
  const Tensor total = at::empty({edges, b.tiles.taps() + b.out_channels, C}, table);
  sum_rows(b.weights, b.slots(), numbers, total.mutable_data_ptr<A>(), stream);
  const Tensor of_depthwise = total.narrow(1, 0, b.tiles.taps()).transpose(1, 2);
  const Tensor of_pointwise = total.narrow(1, b.tiles.taps(), b.out_channels);
  return {dx, of_depthwise.to(options).contiguous().view(depthwise.sizes()),
          of_pointwise.to(options).contiguous().view(pointwise.sizes())};
}

Gradients backward_cuda(at::TensorList dz, at::TensorList x, const Tensor& depthwise, const Tensor& pointwise,
                        int64_t stride, int64_t dilation, const Optional& mean, const Optional& inv_std, bool batch,
                        bool tf32, bool need_x, bool need_weights) {
  check(x, depthwise, pointwise, stride, dilation, mean, inv_std);
  check_covered(x[0], depthwise, pointwise);
  const Window window = window_of(x[0], depthwise, stride, dilation);
  check_dz(dz, x[0], depthwise, pointwise, window.out_height(), window.out_width());
  const c10::cuda::CUDAGuard guard(x[0].device());
  Gradients gradients;
  with_element_type(x[0].scalar_type(), "x", [&](auto element) {
    using T = decltype(element);
    with_factors<T>(tf32, [&](auto factor) {
      gradients = backward_of<T, decltype(factor)>(images_of(dz), images_of(x), depthwise, pointwise, window,
                                                   table_of(mean), table_of(inv_std), batch, need_x, need_weights);
    });
  });
  return gradients;
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CUDA, m) {
  m.impl("sep_unit", forward_cuda);
  m.impl("sep_unit_backward", backward_cuda);
}

}  // namespace lt::sep_unit
