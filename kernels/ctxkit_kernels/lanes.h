// Vectors of floats as wide as a register of the instruction set that is being compiled. No include guard: once per path.

namespace CTXKIT_PATH {
namespace {

constexpr int kWide = CTXKIT_PASS == 2 ? 16 : CTXKIT_PASS == 1 ? 8 : 4;      // floats in a register
constexpr int kRegisters = CTXKIT_PASS == 2 || CTXKIT_PASS == 3 ? 32 : 16;  // how many there are
using Floats = float __attribute__((vector_size(4 * kWide)));
using Ints = int32_t __attribute__((vector_size(4 * kWide)));

template <class Vector, class Value>
static inline Vector load(const Value* from) {
  Vector lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <class Vector, class Value>
static inline void store(Value* to, const Vector& lanes) {
  __builtin_memcpy(to, &lanes, sizeof lanes);
}

static inline Floats splat(float value) { return value - Floats{}; }  // x - 0 is x, also for -0: no addition is made

// All of them 0. (An initialiser `= {}` of an array would go through memory.)
template <int kRows, int kColumns>
static inline void clear(Floats (&lanes)[kRows][kColumns]) {
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c) lanes[r][c] = Floats{};
}

// a * b + c, rounded once where the processor can.
static inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
#if CTXKIT_PASS == 2
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif CTXKIT_PASS == 1
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif CTXKIT_PASS == 3
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// kWide numbers of any kind, as floats.
static inline Floats widened(const float* from) { return load<Floats>(from); }

static inline Floats widened(const Bfloat16* from) {
#if CTXKIT_PASS == 2
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
#elif CTXKIT_PASS == 1
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
#else
  Floats lanes;
  for (int i = 0; i < kWide; ++i) {
    const uint32_t bits = uint32_t(from[i].bits) << 16;
    __builtin_memcpy(reinterpret_cast<char*>(&lanes) + 4 * i, &bits, 4);
  }
  return lanes;
#endif
}

static inline Floats widened(const Half* from) {
#if CTXKIT_PASS == 2
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif CTXKIT_PASS == 1
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif CTXKIT_PASS == 3
  return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits)));
#else
  Floats lanes;
  for (int i = 0; i < kWide; ++i) lanes[i] = half_to_float(from[i].bits);
  return lanes;
#endif
}

static inline Floats widened(const int8_t* from) {
#if CTXKIT_PASS == 2
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif CTXKIT_PASS == 1
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  Floats lanes;
  for (int i = 0; i < kWide; ++i) lanes[i] = from[i];
  return lanes;
#endif
}

// The first `count` of them, and zeros: nothing behind them is read.
template <class Element>
static inline Floats widened_part(const Element* from, int count) {
  Element some[kWide] = {};
  __builtin_memcpy(some, from, sizeof(Element) * count);
  return widened(some);
}

static inline Floats larger(const Floats& a, const Floats& b) { return a > b ? a : b; }

static inline float largest(const Floats& lanes) {
  float most = lanes[0];
  for (int i = 1; i < kWide; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

static inline float sum_of(const Floats& lanes) {
  float sum = 0;
  for (int i = 0; i < kWide; ++i) sum += lanes[i];
  return sum;
}

// out[i] = sum of lanes[i], for four of them.
static inline void store_sums(float* out, const Floats (&lanes)[4]) {
#if CTXKIT_PASS == 1 || CTXKIT_PASS == 2
#if CTXKIT_PASS == 2
  const __m512 a = (__m512)lanes[0], b = (__m512)lanes[1], c = (__m512)lanes[2], d = (__m512)lanes[3];
  const __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
  const __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
  const __m512d low = _mm512_unpacklo_pd(ab, cd), rest = _mm512_unpackhi_pd(ab, cd);
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(rest));
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), high);
#else
  const __m256 a = (__m256)lanes[0], b = (__m256)lanes[1], c = (__m256)lanes[2], d = (__m256)lanes[3];
  const __m256d ab = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)));
  const __m256d cd = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)));
  const __m256d low = _mm256_unpacklo_pd(ab, cd), rest = _mm256_unpackhi_pd(ab, cd);
  const __m256 half = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(rest));
#endif
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  for (int i = 0; i < 4; ++i) out[i] = sum_of(lanes[i]);
#endif
}

// e^x for x <= 0 (0 below -87), to 2 units of the last place: 2^n * e^r with |r| <= ln 2 / 2, a Taylor sum of degree 7.
static inline Floats exponential(const Floats& x) {
  const Floats kept = x < splat(-87.0f) ? splat(-87.0f) : x;
  const Floats magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, which its low bits then hold
  const Floats shifted = multiply_add(kept, splat(1.44269504f), magic), n = shifted - magic;
  const Floats r = multiply_add(n, splat(2.12194440e-4f), multiply_add(n, splat(-0.693359375f), kept));  // ln 2 in two parts
  Floats e = splat(1.0f / 5040);
  for (float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) e = multiply_add(e, r, splat(term));
  const Ints power = ((Ints)shifted + 127) << 23;
  return x < splat(-87.0f) ? Floats{} : e * (Floats)power;
}

// cap * tanh(x / cap); the quotient of exponentials is exact to a unit of 1, so small ones take the series.
static inline Floats capped(const Floats& x, float cap) {
  const Floats y = x / cap, size = y < Floats{} ? -y : y, square = y * y;
  const Floats e = exponential(size * -2.0f), large = (1.0f - e) / (1.0f + e);
  const Floats series = y * (1.0f + square * (square * (2.0f / 15) - 1.0f / 3));
  return cap * (size < splat(0.05f) ? series : y < Floats{} ? -large : large);
}

}  // namespace
}  // namespace CTXKIT_PATH
