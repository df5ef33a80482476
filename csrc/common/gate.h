// Gate mathematics, one header for host and device: how K architecture parameters of an edge become K weights, and how
// a gradient of the weights becomes a gradient of the parameters.
#pragma once

#include "scalar.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <cmath>
#endif

namespace lt {

enum class Gate : int { softmax, sigmoid, identity };

namespace detail {
LT_HOST_DEVICE float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  return std::exp(x);
#endif
}
LT_HOST_DEVICE double exponential(double x) {
#if defined(__CUDA_ARCH__)
  return exp(x);
#else
  return std::exp(x);
#endif
}
}  // namespace detail

template <class A>
LT_HOST_DEVICE A sigmoid(A x) {
  // Both branches keep exp() in (0, 1]: no overflow at either end.
  if (x >= A(0)) return A(1) / (A(1) + detail::exponential(-x));
  const A e = detail::exponential(x);
  return e / (A(1) + e);
}

// weights[k] of one edge from its alpha[0..K).
template <class A>
LT_HOST_DEVICE void gate_row(Gate gate, const A* alpha, int K, A* weights) {
  if (gate == Gate::softmax) {
    A largest = alpha[0];
    for (int k = 1; k < K; ++k) largest = alpha[k] > largest ? alpha[k] : largest;
    A total = A(0);
    for (int k = 0; k < K; ++k) total += weights[k] = detail::exponential(alpha[k] - largest);
    for (int k = 0; k < K; ++k) weights[k] /= total;
  } else {
    for (int k = 0; k < K; ++k) weights[k] = gate == Gate::sigmoid ? sigmoid(alpha[k]) : alpha[k];
  }
}

// grad_alpha[k] of one edge from its weights and the gradient with respect to them: the gate's Jacobian, transposed
// (that of the softmax and of the sigmoid is symmetric, so this is its product with a tangent too).
template <class A, class D>
LT_HOST_DEVICE void gate_row_backward(Gate gate, const A* weights, const D* grad_weights, int K, D* grad_alpha) {
  D mean = D(0);
  if (gate == Gate::softmax)
    for (int k = 0; k < K; ++k) mean += D(weights[k]) * grad_weights[k];
  for (int k = 0; k < K; ++k) {
    const D w = D(weights[k]);
    if (gate == Gate::softmax)
      grad_alpha[k] = w * (grad_weights[k] - mean);
    else
      grad_alpha[k] = gate == Gate::sigmoid ? w * (D(1) - w) * grad_weights[k] : grad_weights[k];
  }
}

}  // namespace lt
