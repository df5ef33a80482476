// The Barlow Twins loss of two N×D embeddings, and its gradient, in two forms that differ only in their matrix products.
//
// With Â, B̂ the embeddings normalised over the batch, C = ÂᵀB̂ / N, c_i = C_ii and r = the sum of C_ij² off the diagonal:
//   L  = s (Σ_i (1 − c_i)² + λ r)
//   dÂ = (2 s λ / N²) P_A + diag(e) B̂,  dB̂ = (2 s λ / N²) P_B + diag(e) Â
// gram:  G_A = ÂÂᵀ, G_B = B̂B̂ᵀ;  r = ⟨G_A, G_B⟩ / N² − Σ c_i²;  P_A = G_B Â,  P_B = G_A B̂;  e_i = −(2 s / N)(1 − c_i + λ c_i)
// cross: C̃ = N C without its diagonal;  r = ‖C̃‖² / N²;  P_A = B̂ C̃ᵀ,  P_B = Â C̃;  e_i = −(2 s / N)(1 − c_i)
// and through the normalisation, whose column means of dÂ vanish because every term is a combination of B̂'s rows of
// zero mean:  dz_A = inv_std_A (dÂ − Â · mean_n(dÂ ⊙ Â)).
//
// Floor of the Gram form: 4 N² D multiply-adds (the vendor's library), 2 N² numbers kept for backward. On a CPU it runs
// by blocks of columns (barlow_twins_loss_blocks.h), whose normalised copies and products never leave the caches: z is
// read once forward, read once and dz written once backward. The cross form: 3 N D² multiply-adds, D² numbers kept.
// Reached at N = 256, D = 8192, float32, one core of an AVX-512 Xeon at 2.5 GHz: 66 ms forward and backward, 40 of them in
// the products. Embeddings are normalised again in backward, 6 ms; keeping them would cost 4 ms of copies and 16 MB.
#pragma once

#include <cstdint>

#include "../common/scalar.h"

namespace lt::barlow_twins_loss {

// Columns that are normalised together: whole cache lines of every row, and enough of them to pay for the page.
template <class A>
constexpr int kColumns = 256 / sizeof(A);

// Elements of a matrix whose products are summed together before the ordered pass over these partial sums.
constexpr int64_t kDotChunk = 4096;

// One block of columns of both sides (0: A, 1: B). All pointers are to the block's first column; sides share strides.
template <class T>
struct Standardize {
  const T* z[2];
  int64_t z_stride[2];  // elements from row to row
  accumulate_t<T>* normalized[2];
  int64_t stride;
  accumulate_t<T>* inv_std[2];
  accumulate_t<T>* diagonal;  // c_i
  int64_t rows;
  int64_t columns;
  double eps;
};

// dz of one block of columns from its P, Â, B̂.
template <class T>
struct Combine {
  const accumulate_t<T>* products[2];  // P_A, P_B
  const accumulate_t<T>* normalized[2];
  int64_t stride;  // of both
  const accumulate_t<T>* inv_std[2];
  const accumulate_t<T>* diagonal;
  const accumulate_t<T>* grad;  // dL, one number
  T* dz[2];
  int64_t dz_stride;
  int64_t rows;
  int64_t columns;
  double product_weight;   // 2 s λ / N²
  double diagonal_weight;  // −2 s / N
  double lambda_diagonal;  // λ where P contains the diagonal's share (gram), else 0
  bool stream;             // dz is larger than the caches of a CPU hold: write around them
};

// r's share of λ r in the loss, from the elements of two matrices; the diagonal's from D numbers.
template <class A>
struct Loss {
  const A* x;
  const A* y;
  int64_t elements;
  double* partial;  // one a chunk of kDotChunk
  const A* diagonal;
  int64_t columns;
  double scale;
  double lambda;
  double lambda_diagonal;  // as above
  double rows;
  A* loss;
};

LT_HOST_DEVICE int64_t chunks_of(int64_t elements) { return (elements + kDotChunk - 1) / kDotChunk; }

// (1 − c_i)², less λ c_i² where ⟨x, y⟩ contains it.
template <class A>
LT_HOST_DEVICE double diagonal_share(const Loss<A>& l, int64_t i) {
  const double c = static_cast<double>(l.diagonal[i]);
  return (1 - c) * (1 - c) - l.lambda_diagonal * c * c;
}

// Raw loops for the active instruction set, over one chunk: columns [begin, begin + kColumns), of which `columns` end
// the block; `scratch` holds 2 · rows · kColumns sums for standardize.
template <class T>
using StandardizeChunk = void (*)(const Standardize<T>&, int64_t begin, accumulate_t<T>* scratch);
template <class T>
using CombineChunk = void (*)(const Combine<T>&, int64_t begin);
template <class A>
using DotChunk = double (*)(const A* x, const A* y, int64_t n);

template <class T>
StandardizeChunk<T> standardize_chunk();
template <class T>
CombineChunk<T> combine_chunk();
template <class A>
DotChunk<A> dot_chunk();

// A whole block on the device that holds it; CUDA launches go to the current stream.
namespace cpu {
template <class T>
void standardize(const Standardize<T>&);
template <class T>
void combine(const Combine<T>&);
template <class A>
void loss(const Loss<A>&);
}  // namespace cpu

namespace cuda {
template <class T>
void standardize(const Standardize<T>&);
template <class T>
void combine(const Combine<T>&);
template <class A>
void loss(const Loss<A>&);
}  // namespace cuda

}  // namespace lt::barlow_twins_loss
