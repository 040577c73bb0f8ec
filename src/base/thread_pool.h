#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <thread>
#include <vector>

namespace ds4 {

// Physical cores that this process may run on (its affinity mask), at least 1.  Hyper-threads of
// one core count once: a second one per core slows bandwidth-bound work down.
std::size_t physical_core_count();

// A fixed team of threads for short data-parallel regions: run() calls a function once per task and
// returns when all are done.  Workers spin for a few microseconds between regions and then sleep,
// so an idle pool burns nothing.  run() is for one caller thread at a time; it allocates nothing.
// A task must not throw and must not call run().
class ThreadPool {
 public:
  // `thread_count` includes the calling thread; 0 means physical_core_count().
  explicit ThreadPool(std::size_t thread_count);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  std::size_t thread_count() const { return workers_.size() + 1; }

  // Calls `task(index)` for every index in [0, task_count), each once, on any thread, in any order.
  // Which thread runs an index must not matter to the result.
  template <class Task>
  void run(std::size_t task_count, const Task& task) {
    run_erased(task_count, &task, [](const void* context, std::size_t index) {
      (*static_cast<const Task*>(context))(index);
    });
  }

 private:
  using Invoke = void (*)(const void* context, std::size_t index);

  void run_erased(std::size_t task_count, const void* context, Invoke invoke);
  void work(std::stop_token stop);
  void drain();

  // Of the current region; read only by a thread that holds one of its tasks.
  const void* context_ = nullptr;
  Invoke invoke_ = nullptr;
  // Own cache lines: each is written by every thread.
  alignas(64) std::atomic<std::size_t> tasks_left_{0};  // not yet taken; the next index plus one
  alignas(64) std::atomic<std::size_t> tasks_done_{0};  // of the current region
  alignas(64) std::atomic<std::uint32_t> region_{0};    // counts regions; workers wait for a change
  std::vector<std::jthread> workers_;
};

}  // namespace ds4
