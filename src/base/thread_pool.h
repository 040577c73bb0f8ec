#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/topology.h"

namespace ds4 {

// Physical cores that this process may run on (its affinity mask), at least 1.  Hyper-threads of
// one core count once: a second one per core slows bandwidth-bound work down.
std::size_t physical_core_count();

// A fixed team of threads for short data-parallel regions: run() calls a function once per task and
// returns when all are done.  Workers spin for a few microseconds between regions and then sleep,
// so an idle pool burns nothing.  run() is for one caller thread at a time; it allocates nothing.
// A task must not throw and must not call run().
//
// On a machine with several memory nodes the workers are spread over the nodes and stay on theirs.
// Tasks are given in one list a node; a thread takes those of its own node first, then helps
// others.
class ThreadPool {
 public:
  // `thread_count` includes the calling thread; 0 means physical_core_count().
  // `nodes` are the CPUs of each memory node; with one or none nothing is bound to any.
  explicit ThreadPool(std::size_t thread_count, std::vector<CpuList> nodes = {});
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  std::size_t thread_count() const { return workers_.size() + 1; }
  // At least 1, at most kNodesMax.
  std::size_t node_count() const { return node_count_; }
  static constexpr std::size_t kNodesMax = 16;

  // Calls `task(index)` for every index in [0, task_count), each once, on any thread, in any order.
  // Which thread runs an index must not matter to the result.
  template <class Task>
  void run(std::size_t task_count, const Task& task) {
    std::array<std::size_t, kNodesMax + 1> first;  // NOLINT: filled before use
    for (std::size_t n = 0; n <= node_count_; ++n)
      first[n] = task_count * n / node_count_;
    run_by_node(std::span(first).first(node_count_ + 1), task);
  }

  // The same with tasks [first[n], first[n + 1]) for node n: node_count() + 1 numbers from 0 up.
  template <class Task>
  void run_by_node(std::span<const std::size_t> first, const Task& task) {
    run_erased(first, &task, [](const void* context, std::size_t index) {
      (*static_cast<const Task*>(context))(index);
    });
  }

 private:
  using Invoke = void (*)(const void* context, std::size_t index);

  // The tasks of one node that nobody has taken.  Own cache lines: each is written by every thread.
  struct alignas(64) Queue {
    std::atomic<std::size_t> left{0};
    std::size_t first = 0;  // the next task is first + left - 1
  };

  void run_erased(std::span<const std::size_t> first, const void* context, Invoke invoke);
  void work(std::stop_token stop, std::size_t node);
  void drain(std::size_t node);
  std::size_t caller_node() const;

  // Of the current region; read only by a thread that holds one of its tasks.
  const void* context_ = nullptr;
  Invoke invoke_ = nullptr;
  const std::vector<CpuList> nodes_;
  const std::size_t node_count_;
  std::vector<std::size_t> node_of_cpu_;
  std::array<Queue, kNodesMax> queues_;
  alignas(64) std::atomic<std::size_t> tasks_done_{0};  // of the current region
  alignas(64) std::atomic<std::uint32_t> region_{0};    // counts regions; workers wait for a change
  std::vector<std::jthread> workers_;
};

}  // namespace ds4
