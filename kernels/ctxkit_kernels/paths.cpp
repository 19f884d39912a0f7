// Which instruction sets this processor and system have.

#include "paths.h"

#if CTXKIT_X86
#include <cpuid.h>
#elif CTXKIT_ARM && defined(__linux__)
#include <sys/auxv.h>
#endif

#if CTXKIT_X86
namespace {

// Whether processor and system have AVX2 with FMA and F16C, or the AVX-512 that the code uses. Asked of the processor
// itself: what the compilers' own libraries answer is not the same everywhere.
bool x86_has(bool avx512) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  const bool fma = c >> 12 & 1, f16c = c >> 29 & 1, saves = c >> 27 & 1;
  if (!saves || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  unsigned kept, high;
  __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
  if (!avx512) return (kept & 0x06) == 0x06 && fma && f16c && (b >> 5 & 1);
  const bool f = b >> 16 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  return (kept & 0xe6) == 0xe6 && f && bw && vl && vnni;
}

}  // namespace
#endif

// The numbers are those of CTXKIT_PASS.
CTXKIT_API int ctxkit_path_available(int path) {
  if (path == 0) return 1;
#if CTXKIT_X86
  if (path == 1) return x86_has(false);
  if (path == 2) return x86_has(false) && x86_has(true);
#elif CTXKIT_ARM
#if defined(__APPLE__)
  if (path == 3) return 1;
#elif defined(__linux__)
  if (path == 3) return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
#endif
#endif
  return 0;
}
