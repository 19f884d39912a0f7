// Late interaction over int8 centroids and 2- or 4-bit residuals, one thread, one query at a time. C ABI, no dependency.
//
// This file is compiled three times in one go: it includes itself once per instruction set (CTXKIT_PASS), so that one
// binary holds every path and the processor chooses at run time. reference.py says what each function computes; all
// integers are the same on every path, floats differ in the last bits.
//
// Layout of a query: `count` rows of int8 become lanes. Lanes are padded to a multiple of 16 ("stride"); four dimensions
// of one lane lie side by side: packed[dims / 4][stride][4]. A document row is then read four bytes at a time, each
// four broadcast against all lanes: no horizontal sums, no gathers. int8 values are in [-127, 127].

#ifndef CTXKIT_PASS

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "numbers.h"
#include "paths.h"

namespace {

constexpr int kBlock = 16;  // centroids that share one row of peaks
constexpr int kRows = 4;    // document rows that are multiplied together
constexpr int kAhead = 64;  // tokens of the next document that are fetched ahead
constexpr int kLanes = 16;  // lanes are padded to a multiple of this

using Lanes = int16_t __attribute__((vector_size(2 * kLanes)));  // the scores of 16 lanes

struct Packed {  // a query, as the file comment says, and room to work in: the loops below allocate nothing
  int count, stride, quads;
  std::vector<int8_t> values_of, rows_of;
  std::vector<int32_t> offsets_of, products_of;
  std::vector<float> best_of;
  std::vector<int32_t> tokens_of;
  const int8_t* values;    // [quads][stride][4]
  const int32_t* offsets;  // [stride]: 128 * sum of a lane, what unsigned rows add too much
  int8_t* rows;            // [kRows][quads * 4]
  int32_t* products;       // [stride / 16][kRows][16]
  float* best;             // [stride]: the highest score of a lane so far
  int32_t* tokens;         // [stride]: the token of the document that has it

  Packed(const int8_t* from, int count_, int dims, int padded)
      : count(count_),
        stride(std::max(kLanes, (count_ + kLanes - 1) / kLanes * kLanes)),
        quads(padded / 4),
        values_of(size_t(quads) * stride * 4),
        rows_of(size_t(kRows) * padded),
        offsets_of(stride),
        products_of(size_t(kRows) * stride),
        best_of(stride),
        tokens_of(stride) {
    for (int lane = 0; lane < count; ++lane)
      for (int d = 0; d < dims; ++d) {
        const int8_t value = from[size_t(lane) * dims + d];
        values_of[(size_t(d / 4) * stride + lane) * 4 + d % 4] = value;
        offsets_of[lane] += 128 * value;
      }
    values = values_of.data();
    offsets = offsets_of.data();
    rows = rows_of.data();
    products = products_of.data();
    best = best_of.data();
    tokens = tokens_of.data();
  }
};

using Key = uint64_t;  // score, descending, and then number, ascending: one integer, larger is better

inline Key key_of(int32_t score, int64_t number) {
  return Key(uint32_t(score) ^ 0x80000000u) << 32 | (0xffffffffu - uint32_t(number));
}
inline int32_t score_of(Key key) { return int32_t(uint32_t(key >> 32) ^ 0x80000000u); }
inline int32_t number_of(Key key) { return int32_t(0xffffffffu - uint32_t(key)); }

struct Found {  // per lane, the rows that may be among its best: keys[lane * capacity ...]
  Key* keys;
  int64_t capacity;
  int64_t* counts;
};

struct Cell {  // what the accumulation knows of one document
  int32_t sum;
  uint32_t stamp;  // the (query, token) that last added to it
};

struct Codes {  // of all tokens; 16 bits where the centroids are few enough
  const void* data;
  bool wide;
  int64_t operator[](int64_t token) const {
    return wide ? int64_t(static_cast<const uint32_t*>(data)[token]) : static_cast<const uint16_t*>(data)[token];
  }
};

struct Residuals {
  const uint8_t* codes;   // [tokens, width]
  const uint16_t* norms;  // float16 [tokens]
  const int8_t* levels;   // [2^bits]
  int bits, width;
};

struct Scales {  // how residuals are written
  float unit;              // of a centroid
  const float* steepness;  // [dims]: a residual times this is what the cuts are for
  const float* sizes;      // [dims]: a level times this is a residual
  const float* cuts;       // [2^bits - 1], ascending
  const int8_t* levels;    // [2^bits]
  int bits;
};

struct Documents {
  const int32_t* ids;  // which ones, or null for all
  int64_t count;
  const int64_t* offsets;
  int64_t id(int64_t i) const { return ids ? ids[i] : i; }
};

}  // namespace

#define CTXKIT_FILE "multivector.cpp"
#include "each_path.h"

namespace {

struct Picks {
  int32_t *ids, *counts, *floors;
};

// Room for keys, one per thread. Not cleared: most of it is never touched.
Key* room_for(int64_t count) {
  thread_local std::unique_ptr<Key[]> keys;
  thread_local int64_t room = 0;
  if (room < count) {
    room = 0;
    keys.reset(new Key[count]);
    room = count;
  }
  return keys.get();
}

// WARP_SELECT: the score of the row with which the rows, best first, hold `t_prime` tokens; else of the last row.
int32_t floor_of(Key* keys, int64_t count, const int32_t* sizes, int64_t t_prime) {
  Key *first = keys, *last = keys + count;
  int64_t covered = 0;  // by the rows before `first`, all better than those from there on
  while (last - first > 1) {
    Key* const middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, std::greater<Key>());
    int64_t here = 0;
    for (const Key* at = first; at != middle; ++at) here += sizes[number_of(*at)];
    if (covered + here >= t_prime) {
      last = middle;
    } else {
      covered += here;
      first = middle;
    }
  }
  return score_of(*first);
}

void pick(Key* keys, int64_t count, int64_t probes, int64_t bound, const int32_t* sizes, int64_t t_prime, int lane,
          Picks out) {
  Key* const kept = keys + std::min(bound, count);
  Key* const best = keys + std::min(probes, count);
  if (kept != keys + count) std::nth_element(keys, kept, keys + count, std::greater<Key>());
  out.floors[lane] = kept != keys && t_prime > 0 ? floor_of(keys, kept - keys, sizes, t_prime) : 0;
  if (best < kept) std::nth_element(keys, best, kept, std::greater<Key>());
  std::sort(keys, best, std::greater<Key>());
  out.counts[lane] = int32_t(best - keys);
  for (const Key* at = keys; at != best; ++at) out.ids[int64_t(lane) * probes + (at - keys)] = number_of(*at);
}

int64_t accumulate(const int16_t* scores, int count, int stride, const Picks picks, int64_t probes,
                   const int64_t* offsets, const int32_t* postings, const uint8_t* mask, Cell* cells, uint32_t base,
                   int32_t* touched) {
  int64_t n = 0;
  for (int lane = 0; lane < count; ++lane) {
    const uint32_t stamp = base + 1 + lane;
    const int64_t last = picks.counts[lane];
    for (int64_t p = 0; p < last; ++p) {
      const int32_t id = picks.ids[int64_t(lane) * probes + p];
      const int32_t gain = int32_t(scores[int64_t(id) * stride + lane]) - picks.floors[lane];
      if (gain < 0) break;
      if (p + 1 < last) prefetch(postings + offsets[picks.ids[int64_t(lane) * probes + p + 1]], 128);
      for (int64_t at = offsets[id]; at < offsets[id + 1]; ++at) {
        const int32_t document = postings[at];
        Cell& cell = cells[document];
        const bool fresh = cell.stamp <= base;
        touched[n] = document;
        n += fresh & (mask == nullptr || mask[document] != 0);
        cell.sum = (fresh ? 0 : cell.sum) + (cell.stamp == stamp ? 0 : gain);
        cell.stamp = stamp;
      }
    }
  }
  return n;
}

void shortlist(const int32_t* ids, const int32_t* values, int64_t count, int64_t keep, int32_t* out) {
  std::vector<Key> keys(count);
  for (int64_t i = 0; i < count; ++i) keys[i] = key_of(values[i], ids[i]);
  const auto kept = keys.begin() + std::min(keep, count);
  if (kept != keys.end()) std::nth_element(keys.begin(), kept, keys.end(), std::greater<Key>());
  std::sort(keys.begin(), kept, std::greater<Key>());
  for (auto at = keys.begin(); at != kept; ++at) *out++ = number_of(*at);
}

}  // namespace

CTXKIT_API int ctxkit_score_rows(int path, const int8_t* rows, int64_t count, int dims, int padded, const int8_t* query,
                                 int query_count, int shift, int16_t* scores, int16_t* peaks) {
  return guarded([&] {
    const Packed packed(query, query_count, dims, padded);
    CTXKIT_CALL(path, score_rows(rows, count, packed, shift, scores, peaks));
  });
}

CTXKIT_API int ctxkit_select(int path, const int16_t* scores, const int16_t* peaks, int64_t count, int query_count,
                             int stride, const int32_t* sizes, int64_t probes, int64_t bound, int64_t t_prime, int32_t* ids,
                             int32_t* counts, int32_t* floors) {
  return guarded([&] {
    std::vector<int64_t> lengths(query_count);
    const Found found{room_for(count * query_count), count, lengths.data()};
    CTXKIT_CALL(path, collect(scores, peaks, count, query_count, stride, bound, found));
    for (int lane = 0; lane < query_count; ++lane)
      pick(found.keys + lane * count, lengths[lane], probes, bound, sizes, t_prime, lane, Picks{ids, counts, floors});
  });
}

CTXKIT_API int64_t ctxkit_accumulate(const int16_t* scores, int query_count, int stride, int32_t* ids, int32_t* counts,
                                     int32_t* floors, int64_t probes, const int64_t* offsets,
                                     const int32_t* postings, const uint8_t* mask, void* cells, uint32_t base,
                                     int32_t* touched, int32_t* sums) {
  Cell* const of = static_cast<Cell*>(cells);
  const int64_t n = accumulate(scores, query_count, stride, Picks{ids, counts, floors}, probes, offsets, postings,
                               mask, of, base, touched);
  for (int64_t i = 0; i < n; ++i) sums[i] = of[touched[i]].sum;
  return n;
}

CTXKIT_API int ctxkit_shortlist(const int32_t* ids, const int32_t* values, int64_t count, int64_t keep, int32_t* out) {
  return guarded([&] { shortlist(ids, values, count, keep, out); });
}

CTXKIT_API int ctxkit_coarse(int path, const int16_t* scores, int query_count, int stride, const int32_t* ids,
                             int64_t count, const int64_t* offsets, const void* codes, int wide, int32_t* out) {
  return guarded([&] {
    const Documents documents{ids, count, offsets};
    const Codes of{codes, wide != 0};
    CTXKIT_CALL(path, coarse(scores, query_count, stride, documents, of, out));
  });
}

CTXKIT_API int ctxkit_rerank(int path, const int16_t* scores, const int8_t* query, int query_count, int dims, int padded,
                             float unit_score, float unit_residual, const int32_t* ids, int64_t count,
                             const int64_t* offsets, const void* codes, int wide, const uint8_t* residuals,
                             const uint16_t* norms, const int8_t* levels, int bits, float* out, int64_t* evidence) {
  return guarded([&] {
    const Packed packed(query, query_count, dims, padded);
    const Documents documents{ids, count, offsets};
    const Codes of{codes, wide != 0};
    const Residuals parts{residuals, norms, levels, bits, padded * bits / 8};
    CTXKIT_CALL(path, rerank(scores, packed, unit_score, unit_residual, documents, of, parts, out, evidence));
  });
}

CTXKIT_API int ctxkit_scan(int path, const int8_t* rows, const float* scales, int dims, int padded, const int8_t* query,
                           int query_count, float unit, const int32_t* ids, int64_t count, const int64_t* offsets,
                           float* out, int64_t* evidence) {
  return guarded([&] {
    const Packed packed(query, query_count, dims, padded);
    const Documents documents{ids, count, offsets};
    CTXKIT_CALL(path, scan(rows, scales, packed, unit, documents, out, evidence));
  });
}

CTXKIT_API int ctxkit_encode(int path, const float* values, int64_t count, int dims, const void* codes, int wide,
                             const int8_t* centroids, int centroid_width, float unit, const float* steepness,
                             const float* sizes, const float* cuts, const int8_t* levels, int bits, int padded,
                             uint8_t* residuals, float* norms) {
  return guarded([&] {
    std::vector<float> rebuilt(dims);
    std::vector<uint8_t> chosen(padded);
    const Codes of{codes, wide != 0};
    const Scales scales{unit, steepness, sizes, cuts, levels, bits};
    CTXKIT_CALL(path, encode(values, count, dims, of, centroids, centroid_width, scales, padded * bits / 8,
                             rebuilt.data(), chosen.data(), residuals, norms));
  });
}

#else  // CTXKIT_PASS: the loops whose code depends on the instruction set

namespace CTXKIT_PATH {
namespace {

constexpr int kWide = CTXKIT_PASS == 2 ? 16 : 8;  // lanes of which floats fit a register, or two
using Shorts = int16_t __attribute__((vector_size(2 * kWide)));
using Ints = int32_t __attribute__((vector_size(4 * kWide)));
using Floats = float __attribute__((vector_size(4 * kWide)));

// out[at / 16][kRows][16] = products of four rows of int8 with the lanes of the query from `at` on; returns how many
// lanes that made, a multiple of 16. Lanes beyond the query's last are zero, or left as they were: zero.
#if CTXKIT_PASS == 2
template <int kFull, bool kHalf>  // lanes: 16 in each full register, and 8 more
static inline int multiply_lanes(const int8_t* const* rows, const Packed& query, int at, int32_t* out) {
  const __m512i flip = _mm512_set1_epi8(-128);
  __m512i full[kRows][kFull + 1];
  __m256i half[kRows];
  for (int r = 0; r < kRows; ++r) {
    for (int f = 0; f < kFull; ++f) full[r][f] = _mm512_setzero_si512();
    half[r] = _mm256_setzero_si256();
  }
  const int8_t* lanes = query.values + size_t(at) * 4;
#if defined(__clang__)
#pragma clang loop unroll_count(4)
#else
#pragma GCC unroll 4
#endif
  for (int d = 0; d < query.quads; ++d, lanes += size_t(query.stride) * 4) {
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, rows[r] + 4 * d, 4);
      const __m512i row = _mm512_xor_si512(_mm512_set1_epi32(four), flip);
      for (int f = 0; f < kFull; ++f)
        full[r][f] = _mm512_dpbusd_epi32(full[r][f], row, _mm512_loadu_si512(lanes + 64 * f));
      if (kHalf)
        half[r] = _mm256_dpbusd_epi32(half[r], _mm512_castsi512_si256(row),
                                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes + 64 * kFull)));
    }
  }
  const int32_t* bias = query.offsets + at;
  for (int r = 0; r < kRows; ++r) {
    for (int f = 0; f < kFull; ++f)
      _mm512_storeu_si512(out + (size_t(at) + 16 * f) * kRows + 16 * r,
                          _mm512_sub_epi32(full[r][f], _mm512_loadu_si512(bias + 16 * f)));
    if (kHalf)
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(out + (size_t(at) + 16 * kFull) * kRows + 16 * r),
          _mm256_sub_epi32(half[r], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bias + 16 * kFull))));
  }
  return 16 * (kFull + kHalf);
}

static inline int multiply(const int8_t* const* rows, const Packed& query, int at, int32_t* out) {
  const int left = query.count - at;
  if (left > 24) return multiply_lanes<2, false>(rows, query, at, out);
  if (left > 16) return multiply_lanes<1, true>(rows, query, at, out);
  if (left > 8) return multiply_lanes<1, false>(rows, query, at, out);
  return multiply_lanes<0, true>(rows, query, at, out);
}
#else
static inline int multiply(const int8_t* const* rows, const Packed& packed, int at, int32_t* products) {
  const int quads = packed.quads, stride = packed.stride;
  const int8_t* const query = packed.values + size_t(at) * 4;
  int32_t* const out = products + size_t(at) * kRows;
#if CTXKIT_PASS == 1
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[kRows][2];
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (int d = 0; d < quads; ++d) {
    const __m256i* lanes = reinterpret_cast<const __m256i*>(query + size_t(d) * stride * 4);
    const __m256i low = _mm256_loadu_si256(lanes), high = _mm256_loadu_si256(lanes + 1);
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, rows[r] + 4 * d, 4);
      const __m256i row = _mm256_set1_epi32(four), size = _mm256_abs_epi8(row);  // 2 * 127 * 127 fits 16 bits
      const __m256i a = _mm256_maddubs_epi16(size, _mm256_sign_epi8(low, row));
      const __m256i b = _mm256_maddubs_epi16(size, _mm256_sign_epi8(high, row));
      sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(a, ones));
      sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(b, ones));
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int h = 0; h < 2; ++h) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * kLanes + 8 * h), sums[r][h]);
#elif CTXKIT_PASS == 3
  int32x4_t sums[kRows][4];
  for (int r = 0; r < kRows; ++r)
    for (int h = 0; h < 4; ++h) sums[r][h] = vdupq_n_s32(0);
  for (int d = 0; d < quads; ++d) {
    const int8_t* lanes = query + size_t(d) * stride * 4;
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, rows[r] + 4 * d, 4);
      const int8x16_t row = vreinterpretq_s8_s32(vdupq_n_s32(four));
      for (int h = 0; h < 4; ++h) sums[r][h] = vdotq_s32(sums[r][h], row, vld1q_s8(lanes + 16 * h));
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int h = 0; h < 4; ++h) vst1q_s32(out + r * kLanes + 4 * h, sums[r][h]);
#else
  for (int i = 0; i < kRows * kLanes; ++i) out[i] = 0;
  for (int d = 0; d < quads; ++d)
    for (int r = 0; r < kRows; ++r)
      for (int l = 0; l < kLanes; ++l)
        for (int i = 0; i < 4; ++i)
          out[r * kLanes + l] += int32_t(rows[r][4 * d + i]) * query[(size_t(d) * stride + l) * 4 + i];
#endif
  return kLanes;
}
#endif

static inline void multiply_all(const int8_t* const* rows, const Packed& query) {
  for (int at = 0; at < query.stride;) at += multiply(rows, query, at, query.products);
}

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

template <class Vector>
static inline Vector larger(const Vector& a, const Vector& b) {
  return a > b ? a : b;
}

// The products of row `row` with the lanes from `at` on.
static inline const int32_t* product_of(const Packed& query, int at, int row) {
  return query.products + (size_t(at / kLanes) * kRows + row) * kLanes + at % kLanes;
}

static inline Lanes narrow(const int32_t* from, int32_t half, int shift) {
#if CTXKIT_PASS == 2
  const __m512i sums = _mm512_add_epi32(_mm512_loadu_si512(from), _mm512_set1_epi32(half));
  return (Lanes)_mm512_cvtsepi32_epi16(_mm512_sra_epi32(sums, _mm_cvtsi32_si128(shift)));
#else
  Lanes narrowed;
  for (int at = 0; at < kLanes; at += kWide) {
    const Ints rounded = (load<Ints>(from + at) + half) >> shift;
    const Ints low = rounded < -32768 ? Ints{} - 32768 : rounded;
    const Shorts part = __builtin_convertvector(low > 32767 ? Ints{} + 32767 : low, Shorts);
    __builtin_memcpy(reinterpret_cast<int16_t*>(&narrowed) + at, &part, sizeof part);
  }
  return narrowed;
#endif
}

void score_rows(const int8_t* rows, int64_t count, const Packed& query, int shift, int16_t* scores, int16_t* peaks) {
  const int stride = query.stride;
  const size_t width = size_t(query.quads) * 4;
  const int32_t half = shift > 0 ? 1 << (shift - 1) : 0;
  for (int64_t first = 0; first < count; first += kRows) {
    const int here = count - first < kRows ? int(count - first) : kRows;
    const int8_t* four[kRows];
    for (int r = 0; r < kRows; ++r) four[r] = rows + size_t(first + (r < here ? r : here - 1)) * width;
    multiply_all(four, query);
    for (int at = 0; at < stride; at += kLanes) {
      int16_t* const peak = peaks + first / kBlock * stride + at;
      Lanes best = first % kBlock ? load<Lanes>(peak) : Lanes{} - int16_t(32767) - int16_t(1);
      for (int r = 0; r < here; ++r) {
        const Lanes one = narrow(product_of(query, at, r), half, shift);
        store(scores + size_t(first + r) * stride + at, one);
        best = larger(best, one);
      }
      store(peak, best);
    }
  }
}

static inline uint64_t reaching(const int16_t* row, const int16_t* lows) {  // bit l: row[l] >= lows[l], of 16 lanes
#if CTXKIT_PASS == 2
  return _mm256_cmpge_epi16_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)),
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lows)));
#elif CTXKIT_PASS == 1
  const __m256i under = _mm256_cmpgt_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(lows)),
                                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)));
  return uint16_t(~_mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(under), _mm256_extracti128_si256(under, 1))));
#else
  uint64_t bits = 0;
  for (int l = 0; l < kLanes; ++l) bits |= uint64_t(row[l] >= lows[l]) << l;
  return bits;
#endif
}

// Per lane, the largest score that at least `bound` peaks reach, and so at least `bound` rows; the smallest there is
// where the blocks are fewer. By bisection, all 16 lanes at once.
static inline Lanes threshold(const int16_t* peaks, int64_t blocks, int stride, int64_t bound) {
  int32_t low[kLanes], high[kLanes], middle[kLanes], seen[kLanes];
  for (int l = 0; l < kLanes; ++l) low[l] = -32768, high[l] = 32767;
  for (int step = 0; step < 16; ++step) {
    Lanes at;
    for (int l = 0; l < kLanes; ++l) {
      middle[l] = low[l] + (high[l] - low[l] + 1) / 2;
      at[l] = int16_t(middle[l]);
      seen[l] = 0;
    }
    for (int64_t first = 0; first < blocks; first += 1 << 14) {
      const int64_t last = first + (1 << 14) < blocks ? first + (1 << 14) : blocks;
      Lanes here = at ^ at;
      for (int64_t b = first; b < last; ++b) here -= load<Lanes>(peaks + b * stride) >= at;  // a true lane is -1
      for (int l = 0; l < kLanes; ++l) seen[l] += here[l];
    }
    for (int l = 0; l < kLanes; ++l) {
      low[l] = seen[l] >= bound ? middle[l] : low[l];
      high[l] = seen[l] >= bound ? high[l] : middle[l] - 1;
    }
  }
  Lanes found;
  for (int l = 0; l < kLanes; ++l) found[l] = int16_t(low[l]);
  return found;
}

void collect(const int16_t* scores, const int16_t* peaks, int64_t count, int lanes, int stride, int64_t bound,
             Found found) {
  for (int at = 0; at < stride; at += kLanes) {
    const Lanes least = threshold(peaks + at, (count + kBlock - 1) / kBlock, stride, bound);
    int16_t lows[kLanes];
    __builtin_memcpy(lows, &least, sizeof lows);
    const uint64_t used = lanes - at < kLanes ? (1u << (lanes - at)) - 1 : 0xffffu;
    for (int64_t row = 0; row < count; ++row) {
      if (row % kBlock == 0 && !(reaching(peaks + row / kBlock * stride + at, lows) & used)) {
        row += kBlock - 1;  // none of this block
        continue;
      }
      const int16_t* here = scores + row * stride + at;
      for (uint64_t bits = reaching(here, lows) & used; bits; bits &= bits - 1) {
        const int lane = __builtin_ctzll(bits);
        found.keys[(at + lane) * found.capacity + found.counts[at + lane]++] = key_of(here[lane], row);
      }
    }
  }
}

template <int kGroups>  // of 16 lanes
static inline void coarse_lanes(const int16_t* scores, int lanes, int stride, Documents documents, Codes codes, int at,
                                int32_t* out) {
  for (int64_t i = 0; i < documents.count; ++i) {
    const int64_t id = documents.id(i), first = documents.offsets[id], last = documents.offsets[id + 1];
    if (first == last) continue;
    Lanes best[kGroups];
    for (int g = 0; g < kGroups; ++g) best[g] = load<Lanes>(scores + codes[first] * stride + at + g * kLanes);
    for (int64_t token = first + 1; token < last; ++token) {
      const int16_t* row = scores + codes[token] * stride + at;
      for (int g = 0; g < kGroups; ++g) best[g] = larger(best[g], load<Lanes>(row + g * kLanes));
    }
    for (int l = 0; l < kGroups * kLanes && l < lanes - at; ++l) out[i] += best[l / kLanes][l % kLanes];
  }
}

void coarse(const int16_t* scores, int lanes, int stride, Documents documents, Codes codes, int32_t* out) {
  for (int64_t i = 0; i < documents.count; ++i) out[i] = 0;
  for (int at = 0; at < stride; at += 2 * kLanes) {
    if (stride - at > kLanes) coarse_lanes<2>(scores, lanes, stride, documents, codes, at, out);
    else coarse_lanes<1>(scores, lanes, stride, documents, codes, at, out);
  }
}

// out[width * 8 / bits] = the residual of one token: byte j holds dimensions j, j + width, ... from its low bits up.
static inline void unpack(const uint8_t* packed, int width, int bits, const int8_t* levels, int8_t* out) {
  int j = 0;
#if CTXKIT_PASS == 2
  if (bits == 4) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    const __m512i low = _mm512_set1_epi8(15);
    for (; j < width; j += 64) {
      const __mmask64 some = width - j >= 64 ? ~0ull : (1ull << (width - j)) - 1;
      const __m512i bytes = _mm512_maskz_loadu_epi8(some, packed + j);
      _mm512_mask_storeu_epi8(out + j, some, _mm512_shuffle_epi8(table, _mm512_and_si512(bytes, low)));
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
      _mm512_mask_storeu_epi8(out + width + j, some, _mm512_shuffle_epi8(table, high));
    }
    return;
  }
#elif CTXKIT_PASS == 1
  if (bits == 4) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    const __m256i low = _mm256_set1_epi8(15);
    for (; j + 32 <= width; j += 32) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + j));
      __m256i* to = reinterpret_cast<__m256i*>(out + j);
      _mm256_storeu_si256(to, _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, low)));
      to = reinterpret_cast<__m256i*>(out + width + j);
      _mm256_storeu_si256(to, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)));
    }
  }
#elif CTXKIT_PASS == 3
  if (bits == 4) {
    const int8x16_t table = vld1q_s8(levels);
    for (; j + 16 <= width; j += 16) {
      const uint8x16_t bytes = vld1q_u8(packed + j);
      vst1q_s8(out + j, vqtbl1q_s8(table, vandq_u8(bytes, vdupq_n_u8(15))));
      vst1q_s8(out + width + j, vqtbl1q_s8(table, vshrq_n_u8(bytes, 4)));
    }
  }
#endif
  for (; j < width; ++j)
    for (int part = 0; part < 8 / bits; ++part)
      out[part * width + j] = levels[packed[j] >> (part * bits) & ((1 << bits) - 1)];
}

static inline float to_float(uint16_t half) {
#if CTXKIT_X86 && CTXKIT_PASS > 0
  return _cvtsh_ss(half);
#else
  return half_to_float(half);
#endif
}

static inline void clear(const Packed& query) {
  for (int l = 0; l < query.stride; ++l) query.best[l] = -3.0e38f, query.tokens[l] = -1;
}

// The larger of what lanes have and what token `token` gives them; the lanes that take it are noted in `tokens`.
template <bool kEvidence>
static inline Floats noted(const Floats& best, const Floats& values, int32_t token, Ints& tokens) {
  if (kEvidence) tokens = values > best ? Ints{} + token : tokens;
  return larger(values, best);
}

static inline float total(const Packed& query, bool any, int64_t* evidence) {
  double sum = 0;
  for (int l = 0; any && l < query.count; ++l) sum += query.best[l];
  for (int l = 0; evidence && l < query.count; ++l) evidence[l] = query.tokens[l];
  return float(sum);
}

template <bool kEvidence>
void rerank_as(const int16_t* scores, const Packed& query, float unit_score, float unit_residual, Documents documents,
               Codes codes, const Residuals& parts, float* out, int64_t* evidence) {
  const int stride = query.stride, dims = query.quads * 4;
  const int8_t* four[kRows];
  for (int r = 0; r < kRows; ++r) four[r] = query.rows + size_t(r) * dims;
  for (int64_t i = 0; i < documents.count; ++i) {
    const int64_t id = documents.id(i), begin = documents.offsets[id], end = documents.offsets[id + 1];
    if (i + 1 < documents.count) {
      const int64_t id_next = documents.id(i + 1), next = documents.offsets[id_next];
      const int64_t tokens = documents.offsets[id_next + 1] - next;
      prefetch(parts.codes + next * parts.width, size_t(tokens < kAhead ? tokens : kAhead) * parts.width);
    }
    clear(query);
    for (int64_t first = begin; first < end; first += kRows) {
      const int here = end - first < kRows ? int(end - first) : kRows;
      for (int r = 0; r < here; ++r)
        unpack(parts.codes + (first + r) * parts.width, parts.width, parts.bits, parts.levels, query.rows + size_t(r) * dims);
      multiply_all(four, query);
      for (int at = 0; at < stride; at += kWide) {
        Floats best = load<Floats>(query.best + at);
        Ints winners = load<Ints>(query.tokens + at);
        for (int r = 0; r < here; ++r) {
          const int16_t* centroid = scores + codes[first + r] * stride + at;
          const Floats near = __builtin_convertvector(__builtin_convertvector(load<Shorts>(centroid), Ints), Floats);
          const Ints residual = load<Ints>(product_of(query, at, r));
          const Floats whole = near * unit_score + __builtin_convertvector(residual, Floats) * unit_residual;
          const Floats values = whole * to_float(parts.norms[first + r]);
          best = noted<kEvidence>(best, values, int32_t(first + r - begin), winners);
        }
        store(query.best + at, best);
        if (kEvidence) store(query.tokens + at, winners);
      }
    }
    out[i] = total(query, begin < end, evidence ? evidence + i * query.count : nullptr);
  }
}

template <bool kEvidence>
void scan_as(const int8_t* rows, const float* scales, const Packed& query, float unit, Documents documents, float* out,
             int64_t* evidence) {
  const int stride = query.stride;
  const size_t width = size_t(query.quads) * 4;
  for (int64_t i = 0; i < documents.count; ++i) {
    const int64_t id = documents.id(i), begin = documents.offsets[id], end = documents.offsets[id + 1];
    clear(query);
    for (int64_t first = begin; first < end; first += kRows) {
      const int here = end - first < kRows ? int(end - first) : kRows;
      const int8_t* four[kRows];
      for (int r = 0; r < kRows; ++r) four[r] = rows + size_t(first + (r < here ? r : here - 1)) * width;
      multiply_all(four, query);
      for (int at = 0; at < stride; at += kWide) {
        Floats best = load<Floats>(query.best + at);
        Ints winners = load<Ints>(query.tokens + at);
        for (int r = 0; r < here; ++r) {
          const Ints product = load<Ints>(product_of(query, at, r));
          const Floats values = __builtin_convertvector(product, Floats) * (scales[first + r] * unit);
          best = noted<kEvidence>(best, values, int32_t(first + r - begin), winners);
        }
        store(query.best + at, best);
        if (kEvidence) store(query.tokens + at, winners);
      }
    }
    out[i] = total(query, begin < end, evidence ? evidence + i * query.count : nullptr);
  }
}

void rerank(const int16_t* scores, const Packed& query, float unit_score, float unit_residual, Documents documents,
            Codes codes, const Residuals& parts, float* out, int64_t* evidence) {
  if (evidence) rerank_as<true>(scores, query, unit_score, unit_residual, documents, codes, parts, out, evidence);
  else rerank_as<false>(scores, query, unit_score, unit_residual, documents, codes, parts, out, evidence);
}

void scan(const int8_t* rows, const float* scales, const Packed& query, float unit, Documents documents, float* out,
          int64_t* evidence) {
  if (evidence) scan_as<true>(rows, scales, query, unit, documents, out, evidence);
  else scan_as<false>(rows, scales, query, unit, documents, out, evidence);
}

// Residuals of float rows from their int8 centroids, and what makes the decoded rows as long as the rows were.
void encode(const float* values, int64_t count, int dims, Codes codes, const int8_t* centroids, int centroid_width,
            const Scales& scales, int width, float* rebuilt, uint8_t* chosen, uint8_t* residuals, float* norms) {
  const int parts = 8 / scales.bits, cuts = (1 << scales.bits) - 1;
  for (int64_t i = 0; i < count; ++i) {
    const float* row = values + i * dims;
    const int8_t* centroid = centroids + codes[i] * centroid_width;
    for (int d = 0; d < dims; ++d) {
      rebuilt[d] = float(centroid[d]) * scales.unit;
      const float residual = (row[d] - rebuilt[d]) * scales.steepness[d];
      uint8_t code = 0;
      for (int c = 0; c < cuts; ++c) code += residual > scales.cuts[c];
      chosen[d] = code;
    }
    for (int d = 0; d < dims; ++d) rebuilt[d] += float(scales.levels[chosen[d]]) * scales.sizes[d];
    double before = 0, after = 0;
    for (int d = 0; d < dims; ++d) {
      before += double(row[d]) * row[d];
      after += double(rebuilt[d]) * rebuilt[d];
    }
    norms[i] = after > 0 ? float(__builtin_sqrt(before / after)) : 0.0f;
    uint8_t* out = residuals + i * width;
    for (int j = 0; j < width; ++j) {
      int byte = 0;
      for (int p = 0; p < parts; ++p) byte |= chosen[p * width + j] << (p * scales.bits);
      out[j] = uint8_t(byte);
    }
  }
}

}  // namespace
}  // namespace CTXKIT_PATH

#endif
