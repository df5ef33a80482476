// One vector register's worth of elements, widened to the accumulation type: load, store, sum, for every element type.
// Included by a kernel file inside each of its per-ISA passes (per_isa.h), within `namespace lt { namespace LT_ISA {`.
// Deliberately without include guard; needs <immintrin.h> (x86), <cstring> and scalar.h before.

template <class A>
struct VecOf {
  typedef A type __attribute__((vector_size(LT_VECTOR_BYTES)));
};
template <class A>
using Vec = typename VecOf<A>::type;

template <class A>
constexpr int lanes = LT_VECTOR_BYTES / sizeof(A);

// One cache line of accumulators, the step of every streaming loop: full lines leave write-combining buffers at once.
constexpr int kLineBytes = 64;
template <class A>
constexpr int line = kLineBytes / sizeof(A);
template <class A>
constexpr int line_vecs = line<A> / lanes<A>;

typedef uint32_t U32Vec __attribute__((vector_size(LT_VECTOR_BYTES)));
typedef uint16_t U16Vec __attribute__((vector_size(LT_VECTOR_BYTES / 2)));

inline Vec<float> load(const float* p) {
  Vec<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<double> load(const double* p) {
  Vec<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<float> load(const BFloat16* p) {
  U16Vec raw;
  std::memcpy(&raw, p, sizeof raw);
  const U32Vec wide = __builtin_convertvector(raw, U32Vec) << 16;
  return (Vec<float>)wide;
}
// Out of line: unrolled into every loop, these two would be most of the object file.
[[gnu::noinline, maybe_unused]] static Vec<float> load_half_by_lane(const Half* p) {
  Vec<float> v;
  for (int i = 0; i < lanes<float>; ++i) v[i] = widen(p[i]);
  return v;
}
[[gnu::noinline, maybe_unused]] static U16Vec round_to_half_by_lane(Vec<float> v) {
  U16Vec raw;
  for (int i = 0; i < lanes<float>; ++i) raw[i] = narrow<Half>(v[i]).bits;
  return raw;
}

inline Vec<float> load(const Half* p) {
#if defined(__x86_64__) && LT_VECTOR_BYTES == 64
  // The zero-masked form with a full mask: GCC warns of an uninitialised register inside the plain one.
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__x86_64__) && LT_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  return load_half_by_lane(p);
#endif
}

inline U16Vec round_to_bfloat16(Vec<float> v) {
  const U32Vec bits = (U32Vec)v;
  const U32Vec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32Vec is_nan = (U32Vec)((bits & 0x7fffffffu) > 0x7f800000u);
  return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), U16Vec);
}

#if defined(__x86_64__) && LT_VECTOR_BYTES == 64
inline __m256i round_to_half(Vec<float> v) {
  return _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__x86_64__) && LT_VECTOR_BYTES == 32
inline __m128i round_to_half(Vec<float> v) {
  return _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
inline U16Vec round_to_half(Vec<float> v) { return round_to_half_by_lane(v); }
#endif

// Bypassing store of a whole register where the machine has one; `p` aligned to the register's size in memory.
template <class V>
inline void stream_bytes(void* p, V v) {
#if defined(__x86_64__)
  if constexpr (sizeof(V) == 64) {
#if LT_VECTOR_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#endif
  } else if constexpr (sizeof(V) == 32) {
#if LT_VECTOR_BYTES >= 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#endif
  } else if constexpr (sizeof(V) == 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
  } else {
    std::memcpy(p, &v, sizeof v);
  }
#else
  std::memcpy(p, &v, sizeof v);
#endif
}

template <bool Stream, class V>
inline void store_bytes(void* p, V v) {
  if constexpr (Stream)
    stream_bytes(p, v);
  else
    std::memcpy(p, &v, sizeof v);
}

template <bool Stream>
inline void store(float* p, Vec<float> v) {
  store_bytes<Stream>(p, v);
}
template <bool Stream>
inline void store(double* p, Vec<double> v) {
  store_bytes<Stream>(p, v);
}
template <bool Stream>
inline void store(BFloat16* p, Vec<float> v) {
  store_bytes<Stream>(p, round_to_bfloat16(v));
}
template <bool Stream>
inline void store(Half* p, Vec<float> v) {
  store_bytes<Stream>(p, round_to_half(v));
}

// Sum of the lanes in double, first lane first: the same bits whatever the neighbouring code.
template <class A>
inline double lane_sum(Vec<A> v) {
  double sum = 0;
  for (int i = 0; i < lanes<A>; ++i) sum += v[i];
  return sum;
}

// Bypassing stores are weakly ordered: call once after the last one of a thread.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}
