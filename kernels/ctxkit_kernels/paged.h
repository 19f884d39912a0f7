// Pages of keys and values, the table of the runs that each row sees, and the walk over a row's tokens, block by block.

#pragma once

#include <algorithm>
#include <cstdint>

#include "paths.h"

namespace {

constexpr int kBlock = 128;  // tokens
constexpr int kStreams = 8;  // pages read at once

enum Kind { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kInt8 = 3 };

struct Store {  // keys or values
  const char* data;
  int64_t page_bytes;   // from one page to the next
  const float* scales;  // null, or [pages][page]
  int dims, token_bytes;
  const char* at(int64_t page, int64_t token) const { return data + page * page_bytes + token * token_bytes; }
};

struct Pages {
  Store keys, values;
  Kind kind;
  int64_t count;
  int page;
};

struct Runs {  // a table; a stride of 0 where all rows share
  const int32_t *pages, *first, *count, *turn;
  const float* bias;
  int64_t rows, runs, first_stride, count_stride, turn_stride, bias_row, bias_head;
};

struct Turns {
  const float *cos, *sin;  // [count][pairs]
  int64_t count;
  int pairs;
};

struct Job {
  const float* q;  // [rows][heads][dims]
  int heads;
  Pages pages;
  Runs runs;
  Turns turns;
  float scale, softcap;
};

struct Token {
  const char *key, *value;
  int32_t run, place;  // `place` is counted from the run's first token
};

struct Block {
  int count = 0;
  Token tokens[kBlock];
};

// Walks the tokens of a row from run `run` to `end`.
struct Cursor {
  const Job& job;
  const int32_t *pages, *first, *count, *turn;
  int64_t run, end;
  int place = 0;

  Cursor(const Job& job_, int64_t row, int64_t begin, int64_t end_)
      : job(job_),
        pages(job.runs.pages + row * job.runs.runs),
        first(job.runs.first + row * job.runs.first_stride),
        count(job.runs.count + row * job.runs.count_stride),
        turn(job.runs.turn + row * job.runs.turn_stride),
        run(begin),
        end(end_) {}

  // Of int8 numbers, what the numbers of this token are multiplied by.
  float scale(const float* scales, const Token& token) const {
    return scales[int64_t(pages[token.run]) * job.pages.page + first[token.run] + token.place];
  }

  // Whether as many tokens as a block holds come, all of one turn.
  bool even() const {
    int64_t sum = -place, at = run;
    for (; at < end && sum < kBlock && (count[at] <= 0 || turn[at] == turn[run]); ++at) sum += std::max(count[at], 0);
    return sum >= kBlock;
  }

  // The next tokens. Where the order is free and there are enough of them, neighbours are kBlock / kStreams apart, and so
  // of different pages: from several pages at once the memory gives twice what it gives from one after the other, each of
  // them too short for the processor to read ahead in it.
  void fill(Block& block, bool any_order) {
    const Store &keys = job.pages.keys, &values = job.pages.values;
    const bool spreads = any_order && even();
    const int step = spreads ? kStreams : 1;
    int n = 0, slot = 0;
    while (n < kBlock && run < end) {
      const int some = std::min(count[run] - place, kBlock - n);
      if (some <= 0) {
        ++run;
        place = 0;
        continue;
      }
      const int64_t page = pages[run], at = first[run] + place;
      const char *key = keys.at(page, at), *value = values.at(page, at);
      for (int i = 0; i < some; ++i, key += keys.token_bytes, value += values.token_bytes) {
        block.tokens[slot] = {key, value, int32_t(run), place + i};
        slot += step;
        if (slot >= kBlock) slot -= kBlock - 1;
      }
      n += some;
      place += some;
    }
    block.count = n;
  }
};

// Fetches what nothing before it could.
inline void prefetch_first(const Job& job, const Block& block) {
  for (int t = 0; t < block.count; ++t) {
    prefetch_far(block.tokens[t].key, job.pages.keys.token_bytes);
    prefetch_far(block.tokens[t].value, job.pages.values.token_bytes);
  }
}

struct Layout {  // as native.py writes it: addresses, and then sizes and strides
  const void *q, *keys, *values, *key_scales, *value_scales, *run_pages, *first, *count, *turn, *bias, *cos, *sin;
  int64_t heads, key_dims, value_dims, kind, pages, page, key_page, value_page, rows, runs;
  int64_t first_stride, count_stride, turn_stride, bias_row, bias_head, turns, pairs;
};

Job job_of(const Layout& of, float scale, float softcap) {
  static const int kBytes[] = {4, 2, 2, 1};
  const int bytes = kBytes[of.kind];
  const auto store = [&](const void* data, const void* scales, int64_t dims, int64_t page) {
    const float* const of_tokens = static_cast<const float*>(scales);
    return Store{static_cast<const char*>(data), page * bytes, of_tokens, int(dims), int(dims) * bytes};
  };
  const auto ints = [](const void* data) { return static_cast<const int32_t*>(data); };
  const auto floats = [](const void* data) { return static_cast<const float*>(data); };
  return Job{floats(of.q), int(of.heads),
             Pages{store(of.keys, of.key_scales, of.key_dims, of.key_page),
                   store(of.values, of.value_scales, of.value_dims, of.value_page), Kind(of.kind), of.pages, int(of.page)},
             Runs{ints(of.run_pages), ints(of.first), ints(of.count), ints(of.turn), floats(of.bias), of.rows, of.runs,
                  of.first_stride, of.count_stride, of.turn_stride, of.bias_row, of.bias_head},
             Turns{floats(of.cos), floats(of.sin), of.turns, int(of.pairs)}, scale, softcap};
}

// False where a run names a page, a token or a turn that is not there.
bool sound(const Job& job, int64_t* tokens) {
  const Runs& runs = job.runs;
  *tokens = 0;
  for (int64_t row = 0; row < runs.rows; ++row)
    for (int64_t run = 0; run < runs.runs; ++run) {
      const int64_t count = runs.count[row * runs.count_stride + run];
      if (count <= 0) continue;
      const int64_t page = runs.pages[row * runs.runs + run], first = runs.first[row * runs.first_stride + run];
      const int64_t turn = runs.turn[row * runs.turn_stride + run];
      if (page < 0 || page >= job.pages.count || first < 0 || first + count > job.pages.page) return false;
      if (turn < 0 || turn >= job.turns.count) return false;
      *tokens += count;
    }
  return true;
}

int64_t bytes_of(const Job& job, int64_t tokens) {
  return tokens * (job.pages.keys.token_bytes + job.pages.values.token_bytes);
}

}  // namespace
