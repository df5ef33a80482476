// y = depthwise(a), a = x or relu(x), every channel with a kernel of its own, and its gradients.
//
// Floor, with N numbers in x and M in y: forward N reads and M writes; backward M + N reads and N writes. Multiply-adds
// K² per number of y forward, 2 K² backward. The padded copy of an image stays in the cache.
#pragma once

#include <cstdint>

#include "../common/depthwise_plan.h"

namespace lt::depthwise_conv {

// One image, channels_last, dense.
template <class A>
struct Forward {
  const DepthwisePlan* plan;
  const A* x;
  const A* weight;  // (taps, C)
  bool relu;
  A* y;
};

template <class A>
struct Backward {
  const DepthwisePlan* plan;
  const A* x;
  const A* weight;
  const A* dy;
  bool relu;
  A* dx;       // or nullptr
  A* dweight;  // (taps, C), added to, or nullptr
};

inline int64_t forward_scratch(const DepthwisePlan& plan) { return plan.tile_elements(); }
inline int64_t backward_scratch(const DepthwisePlan& plan) { return plan.tile_elements() + plan.du_elements(); }

// The kernels of the active instruction set; `scratch` is zeroed once before the first image of a thread.
template <class A>
using ForwardImage = void (*)(const Forward<A>&, A* scratch);
template <class A>
using BackwardImage = void (*)(const Backward<A>&, A* scratch);

template <class A>
ForwardImage<A> forward_image(int64_t channels);
template <class A>
BackwardImage<A> backward_image(int64_t channels);

}  // namespace lt::depthwise_conv
