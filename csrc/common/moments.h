// Mean and variance of every channel of channels_last images. Included by a kernel file inside each of its per-ISA passes
// (per_isa.h), after vec.h. Deliberately without include guard. Channels are whole registers: C % lanes<A> == 0.

// moments[c] += Σ (z − shift), moments[C' + c] += Σ (z − shift)²: what is near a pixel of the image loses no digits.
template <class A>
void add_moments(const A* z, const A* shift, int64_t channels, int64_t pixels, double* moments) {
  constexpr int kChains = 4;
  for (int64_t c = 0; c < channels; c += lanes<A>) {
    const Vec<A> k = load(shift + c);
    Vec<A> sum[kChains] = {}, squares[kChains] = {};
    int64_t i = 0;
    for (; i + kChains <= pixels; i += kChains) {
#pragma GCC unroll 4
      for (int j = 0; j < kChains; ++j) {
        const Vec<A> d = load(z + (i + j) * channels + c) - k;
        sum[j] += d;
        squares[j] += d * d;
      }
    }
    for (; i < pixels; ++i) {
      const Vec<A> d = load(z + i * channels + c) - k;
      sum[0] += d;
      squares[0] += d * d;
    }
    const Vec<A> s = (sum[0] + sum[1]) + (sum[2] + sum[3]), q = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    for (int l = 0; l < lanes<A>; ++l) {
      moments[c + l] += s[l];
      moments[channels + c + l] += q[l];
    }
  }
}

// From the sums about a shift to the mean and the sum of squared distances to it.
template <class A>
void centre_moments(const A* shift, int64_t channels, int64_t pixels, double* moments) {
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = moments[c] / static_cast<double>(pixels);
    moments[channels + c] -= moments[c] * mean;
    moments[c] = static_cast<double>(shift[c]) + mean;
  }
}
