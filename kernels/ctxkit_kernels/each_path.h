// Includes CTXKIT_FILE once per instruction set of this architecture: see paths.h. No include guard, each source does it.

#define CTXKIT_PASS 0
#define CTXKIT_PATH scalar
#include CTXKIT_FILE
#undef CTXKIT_PASS
#undef CTXKIT_PATH

#if CTXKIT_X86
CTXKIT_BEGIN_AVX2
#define CTXKIT_PASS 1
#define CTXKIT_PATH avx2
#include CTXKIT_FILE
#undef CTXKIT_PASS
#undef CTXKIT_PATH
CTXKIT_END
CTXKIT_BEGIN_AVX512
#define CTXKIT_PASS 2
#define CTXKIT_PATH avx512
#include CTXKIT_FILE
#undef CTXKIT_PASS
#undef CTXKIT_PATH
CTXKIT_END
#endif

#if CTXKIT_ARM
CTXKIT_BEGIN_NEON
#define CTXKIT_PASS 3
#define CTXKIT_PATH neon
#include CTXKIT_FILE
#undef CTXKIT_PASS
#undef CTXKIT_PATH
CTXKIT_END
#endif

#undef CTXKIT_FILE
