#include "base/thread_pool.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <sched.h>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ds4 {

namespace {

// A region usually follows the last within this many polls (about 20 microseconds).
constexpr int kSpinPolls = 4000;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: polls first, then sleeps in the kernel.
template <class T>
void wait_while_equal(const std::atomic<T>& value, T old) {
  for (int poll = 0; poll < kSpinPolls; ++poll) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

std::size_t physical_core_count() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
    return std::max(1U, std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = std::to_string(cpu);
    cores.insert(siblings);
  }
  return std::max<std::size_t>(1, cores.size());
}

ThreadPool::ThreadPool(std::size_t thread_count, std::vector<CpuList> nodes)
    : nodes_(std::move(nodes)),
      node_count_(std::clamp<std::size_t>(nodes_.size(), 1, kNodesMax)) {
  if (thread_count == 0) thread_count = physical_core_count();
  if (node_count_ > 1) {
    node_of_cpu_.resize(CPU_SETSIZE);
    for (std::size_t n = 0; n < node_count_; ++n)
      for (const int cpu : nodes_[n])
        node_of_cpu_[static_cast<std::size_t>(cpu)] = n;
  }
  workers_.reserve(thread_count - 1);
  for (std::size_t i = 1; i < thread_count; ++i)
    workers_.emplace_back(
        [this, node = i * node_count_ / thread_count](std::stop_token stop) { work(stop, node); });
}

ThreadPool::~ThreadPool() {
  for (std::jthread& worker : workers_)
    worker.request_stop();
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
}

std::size_t ThreadPool::caller_node() const {
  if (node_count_ == 1) return 0;
  const int cpu = ::sched_getcpu();
  return cpu < 0 || cpu >= CPU_SETSIZE ? 0 : node_of_cpu_[static_cast<std::size_t>(cpu)];
}

// Takes tasks while there are any.  Whoever takes one holds the region open until it is counted as
// done, so the region's fields are valid then, even for a worker that comes late from an earlier
// one.
void ThreadPool::drain(std::size_t node) {
  std::size_t done = 0;
  for (std::size_t n = 0; n < node_count_; ++n) {
    Queue& queue = queues_[(node + n) % node_count_];
    std::size_t left = queue.left.load(std::memory_order_relaxed);
    while (left != 0) {
      if (!queue.left.compare_exchange_weak(left, left - 1, std::memory_order_acquire,
                                            std::memory_order_relaxed))
        continue;
      invoke_(context_, queue.first + left - 1);
      ++done;
      left = queue.left.load(std::memory_order_relaxed);
    }
  }
  if (done == 0) return;
  tasks_done_.fetch_add(done, std::memory_order_release);
  tasks_done_.notify_all();
}

// A worker that the system has not scheduled is not waited for: only taken tasks are.
void ThreadPool::run_erased(std::span<const std::size_t> first,
                            const void* context,
                            Invoke invoke) {
  const std::size_t task_count = first.back();
  if (workers_.empty() || task_count <= 1) {
    for (std::size_t i = 0; i < task_count; ++i)
      invoke(context, i);
    return;
  }
  context_ = context;
  invoke_ = invoke;
  tasks_done_.store(0, std::memory_order_relaxed);
  for (std::size_t n = 0; n < node_count_; ++n)
    queues_[n].first = first[n];
  for (std::size_t n = 0; n < node_count_; ++n)
    queues_[n].left.store(first[n + 1] - first[n], std::memory_order_release);
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
  drain(caller_node());
  for (std::size_t done = tasks_done_.load(std::memory_order_acquire); done != task_count;
       done = tasks_done_.load(std::memory_order_acquire)) {
    wait_while_equal(tasks_done_, done);
  }
}

void ThreadPool::work(std::stop_token stop, std::size_t node) {
  if (node_count_ > 1) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (const int cpu : nodes_[node])
      CPU_SET(static_cast<std::size_t>(cpu), &cpus);
    // Refused for CPUs that are not there; the thread then runs anywhere.
    static_cast<void>(::sched_setaffinity(0, sizeof(cpus), &cpus));
  }
  std::uint32_t seen = 0;
  for (;;) {
    wait_while_equal(region_, seen);
    seen = region_.load(std::memory_order_acquire);
    if (stop.stop_requested()) return;
    drain(node);
  }
}

}  // namespace ds4
