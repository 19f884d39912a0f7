// Attention of one query per head over pages (attention/reference.py says what is computed). C ABI, no dependency.
//
// A row's tokens are taken in blocks, whatever runs they come from: a block is pointers to keys and values, and while it
// is computed, the next one is fetched. The heads of a group share each key that is read. Where a run's turn differs from
// the last one's, the query is turned, not the keys.

#ifndef CTXKIT_PASS

#include <cmath>
#include <initializer_list>
#include <limits>

#include "numbers.h"
#include "paged.h"
#include "paths.h"
#include "threads.h"

namespace {

constexpr int64_t kWorthAThread = int64_t(3) << 19;  // bytes: reading them takes longer than starting a thread
constexpr int kTasksPerThread = 4;                  // so that a thread that is held up does not hold up the others

struct State {  // of one row, or of a part of its runs: a maximum, a sum and weighted values per head
  float *peak, *sum, *values;  // [heads], [heads], [heads][padded value dims]
};

struct Room {  // of one thread
  std::vector<float> query, logits;
  Block blocks[2];
  int32_t turn;  // that `query` has; -1: none yet
  explicit Room(const Job& job)
      : query(size_t(job.heads) * padded(job.pages.keys.dims)), logits(size_t(job.heads) * (kBlock + 4)) {}
};

void turn_query(const Job& job, int64_t row, int32_t turn, int padded_dims, float* out) {
  const int dims = job.pages.keys.dims, pairs = job.turns.pairs;
  const float* const cos = job.turns.cos + int64_t(turn) * pairs;
  const float* const sin = job.turns.sin + int64_t(turn) * pairs;
  for (int head = 0; head < job.heads; ++head) {
    const float* const q = job.q + (row * job.heads + head) * dims;
    float* const to = out + int64_t(head) * padded_dims;
    for (int j = 0; j < pairs; ++j) {
      to[j] = (q[j] * cos[j] - q[j + pairs] * sin[j]) * job.scale;
      to[j + pairs] = (q[j + pairs] * cos[j] + q[j] * sin[j]) * job.scale;
    }
    for (int j = 2 * pairs; j < dims; ++j) to[j] = q[j] * job.scale;
  }
}

}  // namespace

#define CTXKIT_FILE "attention.cpp"
#include "each_path.h"

namespace {

struct Partial {  // states of the parts of all rows
  int64_t parts;  // per row
  int heads, stride;
  std::vector<float> peaks, sums, values;
  Partial(int64_t rows, int64_t parts_, int heads_, int stride_)
      : parts(parts_),
        heads(heads_),
        stride(stride_),
        peaks(size_t(rows) * parts * heads),
        sums(peaks.size()),
        values(peaks.size() * stride) {}
  State state(int64_t part) {
    const int64_t at = part * heads;
    return {peaks.data() + at, sums.data() + at, values.data() + at * stride};
  }
};

// The parts of a row become its output: each was weighted against its own maximum.
void merge(Partial& partial, int64_t row, int dims, float* out, float* lse) {
  for (int head = 0; head < partial.heads; ++head, out += dims, ++lse) {
    float peak = -std::numeric_limits<float>::infinity(), sum = 0;
    for (int64_t p = 0; p < partial.parts; ++p) peak = std::max(peak, partial.state(row * partial.parts + p).peak[head]);
    const float from = std::max(peak, -std::numeric_limits<float>::max());
    std::fill(out, out + dims, 0.0f);
    for (int64_t p = 0; p < partial.parts; ++p) {
      const State state = partial.state(row * partial.parts + p);
      const float weight = std::exp(state.peak[head] - from);
      const float* const values = state.values + int64_t(head) * partial.stride;
      sum += weight * state.sum[head];
      for (int d = 0; d < dims; ++d) out[d] += weight * values[d];
    }
    const float share = sum == 0 ? 0.0f : 1 / sum;
    for (int d = 0; d < dims; ++d) out[d] *= share;
    *lse = peak + std::log(sum);
  }
}

// Runs `body(job, tokens)`; the caller sees 0, 1 where memory ran out, 2 where the table names what is not there.
template <class Body>
int checked(const Layout* layout, float scale, float softcap, Body body) {
  bool is_sound = false;
  const int status = guarded([&] {
    const Job job = job_of(*layout, scale, softcap);
    int64_t tokens;
    is_sound = sound(job, &tokens);
    if (is_sound) body(job, tokens);
  });
  return status ? status : is_sound ? 0 : 2;
}

// The rows, each cut into as many parts of its runs as keep the threads busy.
struct Shares {
  int workers;
  int64_t rows, runs, parts;

  Shares(const Job& job, int64_t bytes, int threads) : rows(job.runs.rows), runs(job.runs.runs) {
    workers = worthwhile(threads, bytes, kWorthAThread, rows * runs);
    const int64_t wanted = workers > 1 ? (int64_t(kTasksPerThread) * workers + rows - 1) / rows : 1;
    parts = std::max<int64_t>(1, std::min(wanted, runs));
  }

  // body(room, task, row, begin, end): the runs of one part.
  template <class Body>
  void each(const Job& job, Body body) const {
    std::vector<Room> rooms(workers, Room(job));
    share(workers, rows * parts, [&](int worker, int64_t task) {
      const int64_t part = task % parts;
      body(rooms[worker], task, task / parts, runs * part / parts, runs * (part + 1) / parts);
    });
  }
};

}  // namespace

CTXKIT_API int ctxkit_attend(int path, const Layout* layout, float scale, float softcap, int threads, float* out,
                             float* lse) {
  return checked(layout, scale, softcap, [&](const Job& job, int64_t tokens) {
    const Shares shares(job, bytes_of(job, tokens), threads);
    const int dims = job.pages.values.dims;
    Partial partial(shares.rows, shares.parts, job.heads, padded(dims));
    shares.each(job, [&](Room& room, int64_t task, int64_t row, int64_t begin, int64_t end) {
      CTXKIT_CALL(path, attend(job, row, begin, end, room, partial.state(task)));
    });
    for (int64_t row = 0, at = 0; row < shares.rows; ++row, at += job.heads)
      merge(partial, row, dims, out + at * dims, lse + at);
  });
}

CTXKIT_API int ctxkit_logits(int path, const Layout* layout, float scale, float softcap, int threads, float* out) {
  return checked(layout, scale, softcap, [&](const Job& job, int64_t tokens) {
    const int64_t width = job.heads * job.runs.runs * job.pages.page;
    const Shares shares(job, tokens * job.pages.keys.token_bytes, threads);
    shares.each(job, [&](Room& room, int64_t, int64_t row, int64_t begin, int64_t end) {
      CTXKIT_CALL(path, logits(job, row, begin, end, room, out + row * width));
    });
  });
}

CTXKIT_API int ctxkit_gather(int path, const Layout* layout, int64_t length, int threads, float* keys, float* values) {
  return checked(layout, 1, 0, [&](const Job& job, int64_t tokens) {
    const int key_dims = job.pages.keys.dims, value_dims = job.pages.values.dims;
    const int workers = worthwhile(threads, bytes_of(job, tokens), kWorthAThread, job.runs.rows);
    share(workers, job.runs.rows, [&](int, int64_t row) {
      CTXKIT_CALL(path, gather(job, row, length, keys + row * length * key_dims, values + row * length * value_dims));
    });
  });
}

CTXKIT_API int ctxkit_stream(int path, const float* data, int64_t count, int threads, float* out) {
  return guarded([&] {
    std::vector<float> sums(threads);
    share(threads, threads, [&](int, int64_t task) {
      const int64_t begin = count * task / threads, end = count * (task + 1) / threads;
      sums[task] = CTXKIT_CALL(path, stream(data + begin, end - begin));
    });
    *out = 0;
    for (float sum : sums) *out += sum;
  });
}

#else  // CTXKIT_PASS: the loops whose code depends on the instruction set

#include "lanes.h"

namespace CTXKIT_PATH {
namespace {

constexpr int kHeads = kRegisters == 32 ? 4 : 2;  // heads computed together: 4 sums each
constexpr int kTile = 4;                          // vectors of value dims computed together

// Logits of tokens `from` to `to` of a block for kCount heads; up to 3 numbers behind them are overwritten besides.
template <class Element, int kCount, bool kPart>
static inline void dot_products_as(const Block& block, int from, int to, const float* query, int stride, int dims,
                                float* logits, const Block* ahead, int bytes) {
  const int whole = dims / kWide * kWide;
  for (int t = from; t < to; t += 4) {
    const Element* keys[4];
    for (int i = 0; i < 4; ++i) keys[i] = reinterpret_cast<const Element*>(block.tokens[std::min(t + i, to - 1)].key);
    if (ahead)
      for (int i = t; i < std::min(t + 4, to); ++i) prefetch_far(ahead->tokens[i].key, i < ahead->count ? bytes : 0);
    Floats sums[kCount][4];
    clear(sums);
    for (int j = 0; j < whole; j += kWide) {
      const Floats key[4] = {widened(keys[0] + j), widened(keys[1] + j), widened(keys[2] + j), widened(keys[3] + j)};
      for (int h = 0; h < kCount; ++h) {
        const Floats q = load<Floats>(query + h * stride + j);
        for (int i = 0; i < 4; ++i) sums[h][i] = multiply_add(q, key[i], sums[h][i]);
      }
    }
    if (kPart)
      for (int i = 0; i < 4; ++i) {
        const Floats key = widened_part(keys[i] + whole, dims - whole);
        for (int h = 0; h < kCount; ++h)
          sums[h][i] = multiply_add(load<Floats>(query + h * stride + whole), key, sums[h][i]);
      }
    for (int h = 0; h < kCount; ++h) store_sums(logits + h * (kBlock + 4) + t, sums[h]);
  }
}

template <class Element, int kCount>
static inline void dot_products(const Block& block, int from, int to, const float* query, int stride, int dims,
                                float* logits, const Block* ahead, int bytes) {
  if (dims % kWide) dot_products_as<Element, kCount, true>(block, from, to, query, stride, dims, logits, ahead, bytes);
  else dot_products_as<Element, kCount, false>(block, from, to, query, stride, dims, logits, ahead, bytes);
}

// sums = sums * shrunk + weights . values, for kCount heads.
template <class Element, int kCount, int kVectors, bool kPart>
static inline void add_values(const Block& block, const float* weights, const float* shrunk, int at, int dims, float* sums,
                              int stride, const Block* ahead, int bytes) {
  Floats added[kCount][kVectors];
  clear(added);
  for (int t = 0; t < block.count; ++t) {
    const Element* const value = reinterpret_cast<const Element*>(block.tokens[t].value) + at;
    if (ahead) prefetch_far(ahead->tokens[t].value, t < ahead->count ? bytes : 0);
    Floats lanes[kVectors];
    for (int v = 0; v < kVectors; ++v) lanes[v] = kPart ? widened_part(value, dims - at) : widened(value + v * kWide);
    for (int h = 0; h < kCount; ++h) {
      const Floats weight = splat(weights[h * (kBlock + 4) + t]);
      for (int v = 0; v < kVectors; ++v) added[h][v] = multiply_add(weight, lanes[v], added[h][v]);
    }
  }
  for (int h = 0; h < kCount; ++h)
    for (int v = 0; v < kVectors; ++v) {
      float* const to = sums + int64_t(h) * stride + at + v * kWide;
      store(to, multiply_add(load<Floats>(to), splat(shrunk[h]), added[h][v]));
    }
}

template <class Element, int kCount>
static inline void add_all_values(const Job& job, const Block& block, const float* weights, const float* shrunk, float* sums,
                                  const Block* ahead) {
  const int dims = job.pages.values.dims, stride = padded(dims), bytes = job.pages.values.token_bytes;
  int at = 0;
  for (; at + kTile * kWide <= dims; at += kTile * kWide, ahead = nullptr)
    add_values<Element, kCount, kTile, false>(block, weights, shrunk, at, dims, sums, stride, ahead, bytes);
  for (; at + kWide <= dims; at += kWide, ahead = nullptr)
    add_values<Element, kCount, 1, false>(block, weights, shrunk, at, dims, sums, stride, ahead, bytes);
  if (at < dims) add_values<Element, kCount, 1, true>(block, weights, shrunk, at, dims, sums, stride, ahead, bytes);
}

// The numbers of one head's logits: scales, softcap, bias; -inf behind the last one up to a whole vector.
static inline void finish_logits(int64_t row, int head, const Block& block, const Cursor& cursor, float* logits) {
  const Job& job = cursor.job;
  const int whole = padded(block.count);
  if (job.pages.keys.scales)
    for (int t = 0; t < block.count; ++t) logits[t] *= cursor.scale(job.pages.keys.scales, block.tokens[t]);
  if (job.softcap > 0)
    for (int t = 0; t < whole; t += kWide) store(logits + t, capped(load<Floats>(logits + t), job.softcap));
  if (job.runs.bias) {
    const float* const bias = job.runs.bias + row * job.runs.bias_row + head * job.runs.bias_head;
    for (int t = 0; t < block.count; ++t) logits[t] += bias[block.tokens[t].run];
  }
  for (int t = block.count; t < whole; ++t) logits[t] = -std::numeric_limits<float>::infinity();
}

template <class Element>
void all_logits(int64_t row, const Block& block, const Cursor& cursor, Room& room, const Block* ahead) {
  const Job& job = cursor.job;
  const int dims = job.pages.keys.dims, stride = padded(dims), bytes = job.pages.keys.token_bytes;
  for (int from = 0, to; from < block.count; from = to) {
    const int32_t turn = cursor.turn[block.tokens[from].run];
    for (to = from + 1; to < block.count && cursor.turn[block.tokens[to].run] == turn;) ++to;
    if (turn != room.turn) turn_query(job, row, turn, stride, room.query.data());
    room.turn = turn;
    for (int head = 0; head < job.heads;) {
      const float* const query = room.query.data() + int64_t(head) * stride;
      float* const logits = room.logits.data() + int64_t(head) * (kBlock + 4);
      const int left = std::min(job.heads - head, kHeads);
      const Block* const next = head == 0 ? ahead : nullptr;
      if (left == 4) dot_products<Element, kHeads>(block, from, to, query, stride, dims, logits, next, bytes);
      else if (left == 3) dot_products<Element, kHeads - 1>(block, from, to, query, stride, dims, logits, next, bytes);
      else if (left == 2) dot_products<Element, 2>(block, from, to, query, stride, dims, logits, next, bytes);
      else dot_products<Element, 1>(block, from, to, query, stride, dims, logits, next, bytes);
      head += left;
    }
  }
  for (int head = 0; head < job.heads; ++head)
    finish_logits(row, head, block, cursor, room.logits.data() + int64_t(head) * (kBlock + 4));
}

// Logits become weights (times the values' scales); returns what the sums so far shrink by.
static inline float to_weights(const Block& block, const Cursor& cursor, float* logits, float* peak, float* sum) {
  const int whole = padded(block.count);
  Floats most = load<Floats>(logits);
  for (int t = kWide; t < whole; t += kWide) most = larger(load<Floats>(logits + t), most);
  const float top = std::max(*peak, largest(most));
  const float from = std::max(top, -std::numeric_limits<float>::max());  // -inf where all are: their weights are 0
  Floats total = {};
  for (int t = 0; t < whole; t += kWide) {
    const Floats weights = exponential(load<Floats>(logits + t) - from);
    total += weights;
    store(logits + t, weights);
  }
  const float shrunk = std::exp(*peak - from);
  *sum = *sum * shrunk + sum_of(total);
  *peak = top;
  if (const float* const scales = cursor.job.pages.values.scales)
    for (int t = 0; t < block.count; ++t) logits[t] *= cursor.scale(scales, block.tokens[t]);
  return shrunk;
}

template <class Element>
void attend_as(const Job& job, int64_t row, int64_t begin, int64_t end, Room& room, State state) {
  const int stride = padded(job.pages.values.dims);
  std::fill(state.values, state.values + int64_t(job.heads) * stride, 0.0f);
  std::fill(state.sum, state.sum + job.heads, 0.0f);
  std::fill(state.peak, state.peak + job.heads, -std::numeric_limits<float>::infinity());
  room.turn = -1;
  Cursor cursor(job, row, begin, end);
  cursor.fill(room.blocks[0], true);
  prefetch_first(job, room.blocks[0]);
  for (int now = 0; room.blocks[now].count; now ^= 1) {
    const Block &block = room.blocks[now], *ahead = &room.blocks[now ^ 1];
    cursor.fill(room.blocks[now ^ 1], true);
    all_logits<Element>(row, block, cursor, room, ahead);
    for (int head = 0; head < job.heads;) {
      const int left = std::min(job.heads - head, kHeads);
      float* const weights = room.logits.data() + int64_t(head) * (kBlock + 4);
      float* const sums = state.values + int64_t(head) * stride;
      float shrunk[kHeads];
      for (int h = 0; h < left; ++h)
        shrunk[h] = to_weights(block, cursor, weights + h * (kBlock + 4), state.peak + head + h, state.sum + head + h);
      const Block* const next = head == 0 ? ahead : nullptr;
      if (left == 4) add_all_values<Element, kHeads>(job, block, weights, shrunk, sums, next);
      else if (left == 3) add_all_values<Element, kHeads - 1>(job, block, weights, shrunk, sums, next);
      else if (left == 2) add_all_values<Element, 2>(job, block, weights, shrunk, sums, next);
      else add_all_values<Element, 1>(job, block, weights, shrunk, sums, next);
      head += left;
    }
  }
}

template <class Element>
void logits_as(const Job& job, int64_t row, int64_t begin, int64_t end, Room& room, float* out) {
  const int64_t page = job.pages.page, width = job.runs.runs * page;
  for (int head = 0; head < job.heads; ++head)
    std::fill(out + head * width + begin * page, out + head * width + end * page, -std::numeric_limits<float>::infinity());
  room.turn = -1;
  Cursor cursor(job, row, begin, end);
  cursor.fill(room.blocks[0], true);
  for (int now = 0; room.blocks[now].count; now ^= 1) {
    const Block& block = room.blocks[now];
    cursor.fill(room.blocks[now ^ 1], true);
    all_logits<Element>(row, block, cursor, room, &room.blocks[now ^ 1]);
    for (int head = 0; head < job.heads; ++head)
      for (int t = 0; t < block.count; ++t)
        out[head * width + block.tokens[t].run * page + block.tokens[t].place] = room.logits[size_t(head) * (kBlock + 4) + t];
  }
}

// Runs of a row side by side, keys turned back.
template <class Element>
void gather_as(const Job& job, int64_t row, int64_t length, float* keys, float* values) {
  const Store &from = job.pages.keys, &of = job.pages.values;
  const int pairs = job.turns.pairs;
  Block block;
  Cursor cursor(job, row, 0, job.runs.runs);
  int64_t at = 0;
  for (cursor.fill(block, false); block.count; cursor.fill(block, false))
    for (int t = 0; t < block.count && at < length; ++t, ++at) {
      const Element* const key = reinterpret_cast<const Element*>(block.tokens[t].key);
      const Element* const value = reinterpret_cast<const Element*>(block.tokens[t].value);
      const float key_scale = from.scales ? cursor.scale(from.scales, block.tokens[t]) : 1.0f;
      const float value_scale = of.scales ? cursor.scale(of.scales, block.tokens[t]) : 1.0f;
      const float* const cos = job.turns.cos + int64_t(cursor.turn[block.tokens[t].run]) * pairs;
      const float* const sin = job.turns.sin + int64_t(cursor.turn[block.tokens[t].run]) * pairs;
      float* const to = keys + at * from.dims;
      for (int j = 0; j < pairs; ++j) {
        const float one = to_float(key[j]) * key_scale, two = to_float(key[j + pairs]) * key_scale;
        to[j] = one * cos[j] + two * sin[j];
        to[j + pairs] = two * cos[j] - one * sin[j];
      }
      for (int j = 2 * pairs; j < from.dims; ++j) to[j] = to_float(key[j]) * key_scale;
      for (int j = 0; j < of.dims; ++j) values[at * of.dims + j] = to_float(value[j]) * value_scale;
    }
  std::fill(keys + at * from.dims, keys + length * from.dims, 0.0f);
  std::fill(values + at * of.dims, values + length * of.dims, 0.0f);
}

template <class Body>
static void with_element(Kind kind, Body body) {
  switch (kind) {
    case kFloat32: return body(float());
    case kBfloat16: return body(Bfloat16());
    case kFloat16: return body(Half());
    case kInt8: return body(int8_t());
  }
}

void attend(const Job& job, int64_t row, int64_t begin, int64_t end, Room& room, State state) {
  with_element(job.pages.kind, [&](auto one) { attend_as<decltype(one)>(job, row, begin, end, room, state); });
}

void logits(const Job& job, int64_t row, int64_t begin, int64_t end, Room& room, float* out) {
  with_element(job.pages.kind, [&](auto one) { logits_as<decltype(one)>(job, row, begin, end, room, out); });
}

void gather(const Job& job, int64_t row, int64_t length, float* keys, float* values) {
  with_element(job.pages.kind, [&](auto one) { gather_as<decltype(one)>(job, row, length, keys, values); });
}

// The sum of a buffer: what the memory gives to a reader that does nothing else.
float stream(const float* data, int64_t count) {
  Floats sums[8] = {};
  for (int64_t at = 0; at + 8 * kWide <= count; at += 8 * kWide)
    for (int i = 0; i < 8; ++i) sums[i] += load<Floats>(data + at + i * kWide);
  for (int i = 1; i < 8; ++i) sums[0] += sums[i];
  return sum_of(sums[0]);
}

}  // namespace
}  // namespace CTXKIT_PATH

#endif
