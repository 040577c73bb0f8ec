#pragma once
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>

#include "base/thread_pool.h"

namespace ds4::convert {

// ThreadPool::run for tasks that may throw: the first exception is rethrown to the caller once
// every task has ended; tasks that had not started by then are skipped.
template <class Task>
void run_throwing(ThreadPool& pool, std::size_t task_count, const Task& task) {
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr first;
  pool.run(task_count, [&](std::size_t index) {
    if (failed.load(std::memory_order_relaxed)) return;
    try {
      task(index);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
      failed = true;
    }
  });
  if (first) std::rethrow_exception(first);
}

}  // namespace ds4::convert
