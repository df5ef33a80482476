// Inputs of an operator as separate inputs of a graph, for gradients of gradients.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/alias.h>

namespace lt {

// Aliases of tensors. One input may have been made of another (a pool of a state beside the state itself): a gradient
// by the tensors themselves would follow the graph between them and count that way too; by the aliases it does not.
inline std::vector<at::Tensor> apart(at::TensorList tensors) {
  std::vector<at::Tensor> aliases;
  for (const at::Tensor& t : tensors) aliases.push_back(t.defined() ? at::alias(t) : t);
  return aliases;
}

}  // namespace lt
