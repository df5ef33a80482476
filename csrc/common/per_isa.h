// Compiles one kernel file once for each instruction set: the file defines LT_KERNEL as its own path, seen from
// here, and includes this.
// Each inclusion sees LT_ISA (the namespace to be in) and LT_VECTOR_BYTES, and is compiled for that set alone, so no
// flag such as -march=native is needed and one wheel serves every machine. The kernel file must have included every
// header before (a header first seen here would be compiled for that set and could leak out of it through the linker).
// No include guard: one inclusion per kernel file.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // 64-byte vectors never cross a translation unit
#endif

#define LT_ISA baseline
#define LT_VECTOR_BYTES 16
#include LT_KERNEL
#undef LT_ISA
#undef LT_VECTOR_BYTES

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define LT_ISA avx2
#define LT_VECTOR_BYTES 32
#include LT_KERNEL
#undef LT_ISA
#undef LT_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define LT_ISA avx512
#define LT_VECTOR_BYTES 64
#include LT_KERNEL
#undef LT_ISA
#undef LT_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

// LT_DISPATCH_ISA_OF(isa, f): the version of lt::<isa>::f for an instruction set, as a function pointer;
// LT_DISPATCH_ISA(f): for the active one.
#if defined(__x86_64__)
#define LT_DISPATCH_ISA_OF(isa, ...)                 \
  ((isa) == ::lt::Isa::avx512 ? &avx512::__VA_ARGS__ \
   : (isa) == ::lt::Isa::avx2 ? &avx2::__VA_ARGS__   \
                              : &baseline::__VA_ARGS__)
#else
#define LT_DISPATCH_ISA_OF(isa, ...) (&baseline::__VA_ARGS__)
#endif
#define LT_DISPATCH_ISA(...) LT_DISPATCH_ISA_OF(::lt::active_isa(), __VA_ARGS__)
