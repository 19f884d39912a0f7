// Tasks shared out to threads that live for one call: nothing idles between calls, and nothing is lost in a fork.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

// How many threads are worth starting: each has to have `least` units of work.
inline int worthwhile(int threads, int64_t work, int64_t least, int64_t tasks) {
  const int64_t most = std::min<int64_t>({threads, work / least, tasks});
  return int(std::max<int64_t>(1, most));
}

// body(worker, task) for each task below `tasks`, on `workers` threads, this one among them. `body` must not throw.
template <class Body>
void share(int workers, int64_t tasks, Body body) {
  std::atomic<int64_t> next{0};
  const auto work = [&](int worker) noexcept {
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) body(worker, task);
  };
  std::vector<std::thread> others;
  others.reserve(workers - 1);
  try {
    for (int worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
  } catch (const std::system_error&) {
    // no more threads to be had: those that run do all of it
  }
  work(0);
  for (std::thread& other : others) other.join();
}

}  // namespace
