// The schemas of every operator, and the few functions of the module lt_nas_ext._C itself. Nothing else.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>
#include <torch/version.h>

#include "common/isa.h"

TORCH_LIBRARY(lt_nas_ext, m) {
  m.def("mixed_sum(Tensor[] candidates, Tensor alpha, int[] slots, str gate) -> Tensor");
  m.def(
      "mixed_sum_backward(Tensor grad, Tensor[] candidates, Tensor alpha, int[] slots, str gate, bool[] need_x, "
      "bool need_alpha) -> (Tensor[], Tensor)");
  m.def(
      "barlow_twins_loss(Tensor za, Tensor zb, float lambd, float scale, float eps, bool gram) -> "
      "(Tensor loss, Tensor products)");
  m.def(
      "barlow_twins_loss_backward(Tensor grad, Tensor za, Tensor zb, Tensor products, float lambd, float scale, "
      "float eps, bool gram) -> (Tensor, Tensor)");
  m.def(
      "bn_mixed_sum(Tensor[] candidates, Tensor alpha, int[] slots, str gate, Tensor mean, Tensor inv_std, "
      "bool[] batch) -> Tensor");
  m.def(
      "bn_mixed_sum_backward(Tensor grad, Tensor[] candidates, Tensor alpha, int[] slots, str gate, Tensor mean, "
      "Tensor inv_std, bool[] batch, bool[] need_x, bool need_alpha) -> (Tensor[], Tensor)");
  m.def("channel_moments(Tensor x) -> Tensor");
  m.def("depthwise_conv(Tensor x, Tensor weight, int stride, int dilation, bool relu) -> Tensor");
  m.def(
      "depthwise_conv_backward(Tensor dy, Tensor x, Tensor weight, int stride, int dilation, bool relu, bool need_x, "
      "bool need_weight) -> (Tensor, Tensor)");
  m.def(
      "sep_unit(Tensor[] x, Tensor depthwise, Tensor pointwise, int stride, int dilation, Tensor? mean, "
      "Tensor? inv_std, bool batch, bool tf32) -> (Tensor[] z, Tensor moments)");
  m.def(
      "sep_unit_backward(Tensor[] dz, Tensor[] x, Tensor depthwise, Tensor pointwise, int stride, int dilation, "
      "Tensor? mean, Tensor? inv_std, bool batch, bool tf32, bool need_x, bool need_weights) -> "
      "(Tensor[], Tensor, Tensor)");
}

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["compiler"] = __VERSION__;
  info["torch"] = TORCH_VERSION;
#ifdef LT_NAS_EXT_CUDA
  info["cuda_kernels"] = true;
#else
  info["cuda_kernels"] = false;
#endif
  info["isas"] = lt::supported_isas();
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of lt_nas_ext; they are reached as torch.ops.lt_nas_ext.*";
  m.def("build_info", &build_info, "Compiler, PyTorch built against, instruction sets this machine runs.");
  m.def("isa", [] { return lt::isa_name(lt::active_isa()); }, "The instruction set in use on the CPU.");
  m.def("set_isa", &lt::set_isa, pybind11::arg("name"), "Force an instruction set; '' returns to the best.");
}
