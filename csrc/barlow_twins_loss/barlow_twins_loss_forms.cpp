// The two forms of barlow_twins_loss, once for every device: which products are taken (by the vendor's library, through
// ATen), which are kept, and in which blocks. The passes between them are the device's own (cpu::, cuda::).
#include <torch/library.h>

#include "../common/isa.h"
#include "../common/tensors.h"
#include "barlow_twins_loss.h"
#include "barlow_twins_loss_blocks.h"
#include "barlow_twins_loss_op.h"

#ifdef LT_NAS_EXT_CUDA
#include <c10/cuda/CUDAGuard.h>
#endif

namespace lt::barlow_twins_loss {
namespace {

using at::Tensor;

// The device that holds the embeddings, made current.
struct Device {
  bool is_cuda;
#ifdef LT_NAS_EXT_CUDA
  c10::cuda::OptionalCUDAGuard guard;
#endif

  explicit Device(const Tensor& z) : is_cuda(z.is_cuda()) {
#ifdef LT_NAS_EXT_CUDA
    if (is_cuda) guard.set_device(z.device());
#endif
  }

  template <class T>
  void standardize(const Standardize<T>& s) const {
#ifdef LT_NAS_EXT_CUDA
    if (is_cuda) return cuda::standardize(s);
#endif
    cpu::standardize(s);
  }
  template <class T>
  void combine(const Combine<T>& c) const {
#ifdef LT_NAS_EXT_CUDA
    if (is_cuda) return cuda::combine(c);
#endif
    cpu::combine(c);
  }
  template <class A>
  void loss(const Loss<A>& l) const {
#ifdef LT_NAS_EXT_CUDA
    if (is_cuda) return cuda::loss(l);
#endif
    cpu::loss(l);
  }
};

// Plain products on plain tensors: no graph is recorded and no autocast region lowers their type.
struct PlainProducts {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{
      c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA})};
};

void check(const Tensor& za, const Tensor& zb) {
  TORCH_CHECK_VALUE(za.dim() == 2 && za.size(0) >= 2 && za.size(1) >= 1, "za: got shape ", za.sizes(),
                    "; wanted (N, D) with N at least 2");
  TORCH_CHECK_VALUE(zb.sizes() == za.sizes(), "zb: got shape ", zb.sizes(), "; wanted ", za.sizes(), ", as za");
  TORCH_CHECK_TYPE(zb.scalar_type() == za.scalar_type(), "zb: got ", zb.scalar_type(), "; wanted ", za.scalar_type(),
                   ", as za");
  TORCH_CHECK_VALUE(zb.device() == za.device(), "zb: got device ", zb.device(), "; wanted ", za.device(), ", as za");
}

// Rows may lie apart (a slice, an expanded row), the numbers of a row may not.
Tensor with_dense_rows(const Tensor& z) { return z.size(1) == 1 || z.stride(1) == 1 ? z : z.contiguous(); }

// Normalised embeddings of one block of columns at a time.
template <class T>
struct Embeddings {
  using A = accumulate_t<T>;

  Tensor z[2];
  double eps;
  Tensor inv_std;   // (2, D)
  Tensor diagonal;  // (D,)

  Embeddings(const Tensor& za, const Tensor& zb, double eps_) : z{with_dense_rows(za), with_dense_rows(zb)}, eps(eps_) {
    inv_std = at::empty({2, columns()}, options());
    diagonal = at::empty({columns()}, options());
  }

  int64_t rows() const { return z[0].size(0); }
  int64_t columns() const { return z[0].size(1); }
  at::TensorOptions options() const { return z[0].options().dtype(accumulate_type(z[0].scalar_type())); }

  // Columns [begin, begin + to[0].size(1)) into to[0] (of A) and to[1] (of B), which share their strides.
  void standardize(const Device& device, int64_t begin, const Tensor& to_a, const Tensor& to_b) const {
    const auto from = [&](int side) { return static_cast<const T*>(z[side].const_data_ptr()) + begin; };
    A* const std = inv_std.mutable_data_ptr<A>() + begin;
    device.standardize(Standardize<T>{{from(0), from(1)},
                                      {z[0].stride(0), z[1].stride(0)},
                                      {to_a.mutable_data_ptr<A>(), to_b.mutable_data_ptr<A>()},
                                      to_a.stride(0),
                                      {std, std + columns()},
                                      diagonal.mutable_data_ptr<A>() + begin,
                                      rows(),
                                      to_a.size(1),
                                      eps});
  }
};

struct Numbers {
  double lambda, scale, eps;
  bool gram;
  double lambda_diagonal() const { return gram ? lambda : 0; }
};

// G_A and G_B, summed over the blocks of each group in order, then over the groups in order.
template <class T>
Tensor gram_products(const Device& device, const Embeddings<T>& z) {
  const Blocks blocks = Blocks::of(device.is_cuda, z.rows(), z.columns());
  const Tensor of_groups = at::empty({blocks.groups, 2, z.rows(), z.rows()}, z.options());
  blocks.for_each_group([&](int64_t group, int64_t first, int64_t last) {
    const Tensor normalized = at::empty({2, z.rows(), blocks.width}, z.options());
    Tensor g = of_groups[group];
    for (int64_t block = first; block < last; ++block) {
      const Tensor x = normalized.narrow(2, 0, blocks.width_of(block));
      z.standardize(device, blocks.begin(block), x[0], x[1]);
      if (block == first)
        at::bmm_out(g, x, x.mT());
      else
        at::baddbmm_out(g, g, x, x.mT());
    }
  });
  return blocks.groups == 1 ? of_groups[0] : of_groups.sum(0);
}

// C̃ = ÂᵀB̂ with zeros on its diagonal, so that the sum of its squares loses no digits to it.
template <class T>
Tensor cross_products(const Device& device, const Embeddings<T>& z) {
  const Tensor x = at::empty({2, z.rows(), z.columns()}, z.options());
  z.standardize(device, 0, x[0], x[1]);
  Tensor c = at::mm(x[0].t(), x[1]);
  c.diagonal().zero_();
  return c;
}

template <class T>
TwoTensors forward_of(const Tensor& za, const Tensor& zb, const Numbers& numbers) {
  using A = accumulate_t<T>;
  const Device device(za);
  const Embeddings<T> z(za, zb, numbers.eps);
  const Tensor products = numbers.gram ? gram_products(device, z) : cross_products(device, z);
  const int64_t elements = numbers.gram ? z.rows() * z.rows() : products.numel();
  const Tensor partial = at::empty({chunks_of(elements)}, z.options().dtype(at::kDouble));
  const Tensor loss = at::empty({}, z.options());
  const A* const x = products.const_data_ptr<A>();
  device.loss(Loss<A>{x, numbers.gram ? x + elements : x, elements, partial.mutable_data_ptr<double>(),
                      z.diagonal.template const_data_ptr<A>(), z.columns(), numbers.scale, numbers.lambda,
                      numbers.lambda_diagonal(), static_cast<double>(z.rows()), loss.mutable_data_ptr<A>()});
  return {loss, products};
}

template <class T>
TwoTensors backward_of(const Tensor& grad, const Tensor& za, const Tensor& zb, const Tensor& products,
                       const Numbers& numbers) {
  using A = accumulate_t<T>;
  const Device device(za);
  const Embeddings<T> z(za, zb, numbers.eps);
  const int64_t rows = z.rows(), columns = z.columns();
  const double n = static_cast<double>(rows);
  const Tensor dz[2] = {at::empty({rows, columns}, za.options()), at::empty({rows, columns}, za.options())};
  const Blocks blocks = numbers.gram ? Blocks::of(device.is_cuda, rows, columns) : Blocks{columns, columns};
  const bool stream = 2 * dz[0].nbytes() > static_cast<size_t>(last_level_cache_bytes() / 4);
  blocks.for_each_group([&](int64_t, int64_t first, int64_t last) {
    const Tensor normalized = at::empty({2, rows, blocks.width}, z.options()), p = at::empty_like(normalized);
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = blocks.begin(block), width = blocks.width_of(block);
      // B̂ before Â, so that one batched product with (G_A, G_B) gives (P_B, P_A).
      const Tensor x = normalized.narrow(2, 0, width), b = x[0], a = x[1];
      Tensor of_x = p.narrow(2, 0, width), of_b = of_x[0], of_a = of_x[1];
      z.standardize(device, begin, a, b);
      if (numbers.gram) {
        at::bmm_out(of_x, products, x);
      } else {
        at::mm_out(of_a, b, products.t());
        at::mm_out(of_b, a, products);
      }
      const auto to = [&](int side) { return static_cast<T*>(dz[side].mutable_data_ptr()) + begin; };
      const A* const std = z.inv_std.template const_data_ptr<A>() + begin;
      device.combine(Combine<T>{{of_a.const_data_ptr<A>(), of_b.const_data_ptr<A>()},
                                {a.const_data_ptr<A>(), b.const_data_ptr<A>()},
                                x.stride(1),
                                {std, std + columns},
                                z.diagonal.template const_data_ptr<A>() + begin,
                                grad.const_data_ptr<A>(),
                                {to(0), to(1)},
                                columns,
                                rows,
                                width,
                                2 * numbers.scale * numbers.lambda / (n * n),
                                -2 * numbers.scale / n,
                                numbers.lambda_diagonal(),
                                stream});
    }
  });
  return {dz[0], dz[1]};
}

TwoTensors forward(const Tensor& za, const Tensor& zb, double lambd, double scale, double eps, bool gram) {
  check(za, zb);
  const PlainProducts plain;
  return with_element_type(za.scalar_type(), "za", [&](auto element) {
    return forward_of<decltype(element)>(za, zb, {lambd, scale, eps, gram});
  });
}

TwoTensors backward(const Tensor& grad, const Tensor& za, const Tensor& zb, const Tensor& products, double lambd,
                    double scale, double eps, bool gram) {
  check(za, zb);
  const at::ScalarType computed = accumulate_type(za.scalar_type());
  const int64_t n = za.size(0), d = za.size(1);
  const auto wanted = gram ? std::vector<int64_t>{2, n, n} : std::vector<int64_t>{d, d};
  TORCH_CHECK_VALUE(products.sizes() == wanted && products.scalar_type() == computed &&
                        products.device() == za.device() && products.is_contiguous(),
                    "products: got ", products.sizes(), " of ", products.scalar_type(), " on ", products.device(),
                    "; wanted those of forward: ", at::IntArrayRef(wanted), " of ", computed);
  TORCH_CHECK_VALUE(grad.numel() == 1 && grad.device() == za.device(), "grad: got shape ", grad.sizes(), " on ",
                    grad.device(), "; wanted one number on ", za.device());
  const PlainProducts plain;
  return with_element_type(za.scalar_type(), "za", [&](auto element) {
    return backward_of<decltype(element)>(grad.to(computed), za, zb, products, {lambd, scale, eps, gram});
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(lt_nas_ext, CPU, m) {
  m.impl("barlow_twins_loss", forward);
  m.impl("barlow_twins_loss_backward", backward);
}

#ifdef LT_NAS_EXT_CUDA
TORCH_LIBRARY_IMPL(lt_nas_ext, CUDA, m) {
  m.impl("barlow_twins_loss", forward);
  m.impl("barlow_twins_loss_backward", backward);
}
#endif

}  // namespace lt::barlow_twins_loss
