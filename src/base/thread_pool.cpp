#include "base/thread_pool.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

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

ThreadPool::ThreadPool(std::size_t thread_count) {
  if (thread_count == 0) thread_count = physical_core_count();
  workers_.reserve(thread_count - 1);
  for (std::size_t i = 1; i < thread_count; ++i)
    workers_.emplace_back([this](std::stop_token stop) { work(stop); });
}

ThreadPool::~ThreadPool() {
  for (std::jthread& worker : workers_)
    worker.request_stop();
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
}

void ThreadPool::drain() {
  for (;;) {
    const std::size_t index = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (index >= task_count_) return;
    invoke_(context_, index);
  }
}

void ThreadPool::run_erased(std::size_t task_count, const void* context, Invoke invoke) {
  if (task_count == 0) return;
  if (workers_.empty() || task_count == 1) {
    for (std::size_t i = 0; i < task_count; ++i)
      invoke(context, i);
    return;
  }
  context_ = context;
  invoke_ = invoke;
  task_count_ = task_count;
  next_task_.store(0, std::memory_order_relaxed);
  workers_busy_.store(workers_.size(), std::memory_order_relaxed);
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
  drain();
  // Every worker passes through each region, so none can still read the fields of this one later.
  for (std::size_t busy = workers_busy_.load(std::memory_order_acquire); busy != 0;
       busy = workers_busy_.load(std::memory_order_acquire)) {
    wait_while_equal(workers_busy_, busy);
  }
}

void ThreadPool::work(std::stop_token stop) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while_equal(region_, seen);
    seen = region_.load(std::memory_order_acquire);
    if (stop.stop_requested()) return;
    drain();
    if (workers_busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) workers_busy_.notify_all();
  }
}

}  // namespace ds4
