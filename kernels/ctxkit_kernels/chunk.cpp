// Attention of many queries per head over gathered tokens (attention/reference.py says what is computed). C ABI.
//
// Queries are lanes: a tile of kTile of them, heads side by side, with transposed logits [tokens][queries] and transposed
// sums [value dims][queries]. Both products are then a broadcast number of a key or value, as it lies there, times
// vectors of queries: nothing is packed but the queries, once per tile, and the softmax has no horizontal sums. Each
// token is seen by a range of queries; blocks of tokens are cut to what the tile sees, and masked only where they differ.

#ifndef CTXKIT_PASS

#include <cmath>
#include <initializer_list>
#include <limits>

#include "numbers.h"
#include "paths.h"
#include "threads.h"

namespace {

constexpr int kTile = 64;                            // queries, all heads counted
constexpr int kTokens = 48;                          // in a block
constexpr int64_t kWorthAThread = int64_t(1) << 23;  // multiplications: what takes longer than a thread's start

struct Span {  // the queries that see a token: begin <= query < end
  int32_t begin, end;
};

struct Layout {  // as attention/native.py writes it: addresses, and then sizes and strides
  const float *q, *keys, *values;
  const int64_t *positions, *reach;
  const float* bias;
  int64_t rows, heads, queries, dims, tokens, value_dims, positions_stride, reach_stride, bias_row, bias_head;
  int64_t first_position;
};

struct Job : Layout {
  float scale, softcap;
  std::vector<Span> spans;  // [rows or 1][tokens]
  int64_t spans_stride;
  int64_t lanes() const { return heads * queries; }
};

Span span_of(int64_t position, int64_t reach, int64_t first_position, int64_t queries) {
  if (position < 0 || reach <= 0) return {int32_t(queries), 0};
  int64_t end;
  if (__builtin_add_overflow(position - first_position, reach, &end)) end = queries;
  const auto within = [&](int64_t at) { return int32_t(std::max<int64_t>(0, std::min(at, queries))); };
  return {within(position - first_position), within(end)};
}

struct Room {  // of one thread
  std::vector<float> query, logits, sums;  // [dims][kTile], [kTokens][kTile], [value dims][kTile]
  float peak[kTile], sum[kTile], shrunk[kTile];
  int32_t place[kTile];  // which query a lane is
  explicit Room(const Job& job)
      : query(size_t(job.dims) * kTile), logits(size_t(kTokens) * kTile), sums(size_t(job.value_dims) * kTile) {}
};

// Lanes count heads within queries, so that the queries of a tile stand close together.
void fill_tile(const Job& job, int64_t row, int64_t first, int lanes, Room& room) {
  std::fill(room.query.begin(), room.query.end(), 0.0f);
  std::fill(room.sums.begin(), room.sums.end(), 0.0f);
  std::fill(room.peak, room.peak + kTile, -std::numeric_limits<float>::infinity());
  std::fill(room.sum, room.sum + kTile, 0.0f);
  for (int lane = 0; lane < kTile; ++lane) {
    const int64_t query = (first + std::min(lane, lanes - 1)) / job.heads, head = (first + lane) % job.heads;
    room.place[lane] = int32_t(query);
    const float* const from = job.q + ((row * job.heads + head) * job.queries + query) * job.dims;
    for (int64_t d = 0; lane < lanes && d < job.dims; ++d) room.query[d * kTile + lane] = from[d] * job.scale;
  }
}

void write_tile(const Job& job, int64_t row, int64_t first, int lanes, const Room& room, float* out, float* lse) {
  for (int lane = 0; lane < lanes; ++lane) {
    const int64_t at = (row * job.heads + (first + lane) % job.heads) * job.queries + (first + lane) / job.heads;
    const float share = room.sum[lane] == 0 ? 0.0f : 1 / room.sum[lane];
    for (int64_t d = 0; d < job.value_dims; ++d) out[at * job.value_dims + d] = room.sums[d * kTile + lane] * share;
    lse[at] = room.peak[lane] + std::log(room.sum[lane]);
  }
}

}  // namespace

#define CTXKIT_FILE "chunk.cpp"
#include "each_path.h"

CTXKIT_API int ctxkit_chunk(int path, const Layout* layout, float scale, float softcap, int threads, float* out,
                            float* lse) {
  return guarded([&] {
    Job job{*layout, scale, softcap, {}, 0};
    const bool shared = !job.positions_stride && !job.reach_stride;
    job.spans_stride = shared ? 0 : job.tokens;
    for (int64_t row = 0; row < (shared ? std::min<int64_t>(job.rows, 1) : job.rows); ++row)
      for (int64_t t = 0; t < job.tokens; ++t)
        job.spans.push_back(span_of(job.positions[row * job.positions_stride + t], job.reach[row * job.reach_stride + t],
                                    job.first_position, job.queries));
    const int64_t tiles = (job.lanes() + kTile - 1) / kTile, work = job.rows * job.lanes() * job.tokens;
    const int workers = worthwhile(threads, work * (job.dims + job.value_dims), kWorthAThread, job.rows * tiles);
    std::vector<Room> rooms(workers, Room(job));
    share(workers, job.rows * tiles, [&](int worker, int64_t task) {
      CTXKIT_CALL(path, attend(job, task / tiles, task % tiles * kTile, rooms[worker], out, lse));
    });
  });
}

#else  // CTXKIT_PASS: the loops whose code depends on the instruction set

#include "lanes.h"

namespace CTXKIT_PATH {
namespace {

constexpr int kMost = kRegisters == 32 ? 4 : 2;  // vectors of queries multiplied together
constexpr int kRows = 4;                         // keys, or value dims, multiplied together

// sums[r][v] = sum over k of a[r * row + k * step] * b[k][v]: kCount numbers times kVectors vectors.
template <int kCount, int kVectors>
static inline void multiply(const float* a, int64_t row, int64_t step, const float* b, int64_t depth,
                            Floats (&sums)[kCount][kVectors]) {
  for (int64_t k = 0; k < depth; ++k) {
    Floats lanes[kVectors];
    for (int v = 0; v < kVectors; ++v) lanes[v] = load<Floats>(b + k * kTile + v * kWide);
    for (int r = 0; r < kCount; ++r) {
      const Floats number = splat(a[r * row + k * step]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = multiply_add(number, lanes[v], sums[r][v]);
    }
  }
}

// out[r] = (shrunk ? out[r] * shrunk : 0) + a[r] . b for `rows` rows, in columns of kVectors vectors.
template <int kVectors>
static inline void product(const float* a, int64_t row, int64_t step, int64_t rows, const float* b, int64_t depth,
                           const float* shrunk, float* out) {
  const auto keep = [&](float* to, const Floats& sum, int v) {
    store(to, shrunk ? multiply_add(load<Floats>(to), load<Floats>(shrunk + v * kWide), sum) : sum);
  };
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    Floats sums[kRows][kVectors];
    clear(sums);
    multiply<kRows, kVectors>(a + r * row, row, step, b, depth, sums);
    for (int i = 0; i < kRows; ++i)
      for (int v = 0; v < kVectors; ++v) keep(out + (r + i) * kTile + v * kWide, sums[i][v], v);
  }
  for (; r < rows; ++r) {
    Floats sums[1][kVectors];
    clear(sums);
    multiply<1, kVectors>(a + r * row, row, step, b, depth, sums);
    for (int v = 0; v < kVectors; ++v) keep(out + r * kTile + v * kWide, sums[0][v], v);
  }
}

static inline void product_of(int lanes, const float* a, int64_t row, int64_t step, int64_t rows, const float* b,
                              int64_t depth, const float* shrunk, float* out) {
  int at = 0;
  const auto from = [&](const float* of) { return of ? of + at : nullptr; };
  for (; lanes - at > (kMost - 1) * kWide; at += kMost * kWide)
    product<kMost>(a, row, step, rows, b + at, depth, from(shrunk), out + at);
  for (; lanes - at > kWide; at += 2 * kWide) product<2>(a, row, step, rows, b + at, depth, from(shrunk), out + at);
  for (; lanes > at; at += kWide) product<1>(a, row, step, rows, b + at, depth, from(shrunk), out + at);
}

struct Seen {  // tokens that some query of a tile sees, one after the other
  int64_t begin;
  int count;
  bool by_all;
};

// Cuts a block of tokens to what queries first to last see.
static inline Seen seen_of(const Span* spans, int64_t begin, int64_t end, int32_t first, int32_t last) {
  const auto some = [&](int64_t t) { return spans[t].begin <= last && spans[t].end > first; };
  while (begin < end && !some(begin)) ++begin;
  while (begin < end && !some(end - 1)) --end;
  bool by_all = true;
  for (int64_t t = begin; t < end; ++t) by_all &= spans[t].begin <= first && spans[t].end > last;
  return {begin, int(end - begin), by_all};
}

static inline void finish_logits(const Job& job, int64_t row, int64_t first, int lanes, const Seen& seen, Room& room) {
  const Span* const spans = job.spans.data() + row * job.spans_stride + seen.begin;
  const float* const bias = job.bias ? job.bias + row * job.bias_row + seen.begin : nullptr;
  for (int t = 0; t < seen.count; ++t) {
    float* const logits = room.logits.data() + size_t(t) * kTile;
    if (job.softcap > 0)
      for (int at = 0; at < lanes; at += kWide) store(logits + at, capped(load<Floats>(logits + at), job.softcap));
    if (bias)
      for (int lane = 0; lane < lanes; ++lane) logits[lane] += bias[(first + lane) % job.heads * job.bias_head + t];
    if (seen.by_all) continue;
    for (int at = 0; at < lanes; at += kWide) {
      const Ints place = load<Ints>(room.place + at), inside = (place >= spans[t].begin) & (place < spans[t].end);
      store(logits + at, inside ? load<Floats>(logits + at) : splat(-std::numeric_limits<float>::infinity()));
    }
  }
}

// Logits become weights; `shrunk` is what the sums so far are multiplied by.
static inline void to_weights(int lanes, int tokens, Room& room) {
  const float low = -std::numeric_limits<float>::max();
  for (int at = 0; at < lanes; at += kWide) {
    float* const logits = room.logits.data() + at;
    const Floats before = load<Floats>(room.peak + at);
    Floats peak = before, sum = {};
    for (int t = 0; t < tokens; ++t) peak = larger(load<Floats>(logits + size_t(t) * kTile), peak);
    const Floats from = larger(peak, splat(low));  // -inf where all are: their weights are 0
    for (int t = 0; t < tokens; ++t) {
      const Floats weights = exponential(load<Floats>(logits + size_t(t) * kTile) - from);
      sum += weights;
      store(logits + size_t(t) * kTile, weights);
    }
    const Floats shrunk = exponential(before - from);
    store(room.peak + at, peak);
    store(room.sum + at, multiply_add(load<Floats>(room.sum + at), shrunk, sum));
    store(room.shrunk + at, shrunk);
  }
}

void attend(const Job& job, int64_t row, int64_t first, Room& room, float* out, float* lse) {
  const int lanes = int(std::min<int64_t>(kTile, job.lanes() - first));
  fill_tile(job, row, first, lanes, room);
  const Span* const spans = job.spans.data() + row * job.spans_stride;
  const float* const keys = job.keys + row * job.tokens * job.dims;
  const float* const values = job.values + row * job.tokens * job.value_dims;
  for (int64_t at = 0; at < job.tokens; at += kTokens) {
    const int64_t end = std::min(at + kTokens, job.tokens);
    const Seen seen = seen_of(spans, at, end, room.place[0], room.place[lanes - 1]);
    if (!seen.count) continue;
    const float *key = keys + seen.begin * job.dims, *value = values + seen.begin * job.value_dims;
    product_of(lanes, key, job.dims, 1, seen.count, room.query.data(), job.dims, nullptr, room.logits.data());
    finish_logits(job, row, first, lanes, seen, room);
    to_weights(lanes, seen.count, room);
    product_of(lanes, value, 1, job.value_dims, job.value_dims, room.logits.data(), seen.count, room.shrunk,
               room.sums.data());
  }
  write_tile(job, row, first, lanes, room, out, lse);
}

}  // namespace
}  // namespace CTXKIT_PATH

#endif
