// What the sources share: which instruction sets there are, and how the C ABI is written.
//
// A source that has code per instruction set includes each_path.h, which includes the source itself once per set, with
// CTXKIT_PASS set (0 scalar, 1 AVX2 with FMA, 2 AVX-512 with VNNI, 3 NEON with dot product) and CTXKIT_PATH naming the
// namespace. One binary then holds every path, and CTXKIT_CALL(path, f(x)) calls the f of one of them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#if defined(__x86_64__) || defined(_M_X64)
#define CTXKIT_X86 1
#include <immintrin.h>
#elif defined(__aarch64__)
#define CTXKIT_ARM 1
#include <arm_neon.h>
#endif

#if defined(_WIN32)
#define CTXKIT_API extern "C" __declspec(dllexport)
#else
#define CTXKIT_API extern "C" __attribute__((visibility("default")))
#endif

#if CTXKIT_X86
#if defined(__clang__)
#define CTXKIT_BEGIN_AVX2 _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c\"))), apply_to = function)")
#define CTXKIT_BEGIN_AVX512 _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni\"))), apply_to = function)")
#define CTXKIT_END _Pragma("clang attribute pop")
#else
#define CTXKIT_BEGIN_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma,f16c\")")
#define CTXKIT_BEGIN_AVX512 \
  _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,prefer-vector-width=512\")")
#define CTXKIT_END _Pragma("GCC pop_options")
#endif
#elif CTXKIT_ARM
#if defined(__clang__)
#define CTXKIT_BEGIN_NEON _Pragma("clang attribute push(__attribute__((target(\"dotprod\"))), apply_to = function)")
#define CTXKIT_END _Pragma("clang attribute pop")
#else
#define CTXKIT_BEGIN_NEON _Pragma("GCC push_options") _Pragma("GCC target(\"+dotprod\")")
#define CTXKIT_END _Pragma("GCC pop_options")
#endif
#endif

#if CTXKIT_X86
#define CTXKIT_CALL(path, call) \
  ((path) == 2 ? avx512::call : (path) == 1 ? avx2::call : scalar::call)
#elif CTXKIT_ARM
#define CTXKIT_CALL(path, call) ((path) == 3 ? neon::call : scalar::call)
#else
#define CTXKIT_CALL(path, call) (scalar::call)
#endif

namespace {

constexpr int kWidest = 16;  // floats in the widest register of any path

constexpr int padded(int count) { return (count + kWidest - 1) / kWidest * kWidest; }

// Runs `body`; the caller of the C ABI sees 0, or 1 where memory ran out.
template <class Body>
int guarded(Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

inline void prefetch(const void* place, size_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(place) + at);
#endif
}

// Into the second level of the cache.
inline void prefetch_far(const void* place, size_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(place) + at, 0, 2);
#endif
}

}  // namespace
