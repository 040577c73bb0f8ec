#pragma once
#include <atomic>
#include <chrono>

namespace ds4 {

// Duty cycle of the machine: after work that took w, sleeps w * (100 - percent) / percent.  Results
// never depend on it.  set_percent() may be called from any thread; the rest is confined to the
// engine's.
class Throttle {
 public:
  // percent in [1, 100]; 100 never sleeps.  Throws Error(kInvalidArgument) outside.
  void set_percent(int percent);
  int percent() const { return percent_.load(std::memory_order_relaxed); }

  // Marks the start of work.
  void start() { last_ = Clock::now(); }
  // Sleeps for the work since start() or the last pause(), and starts the next stretch.
  void pause();

 private:
  using Clock = std::chrono::steady_clock;
  std::atomic<int> percent_{100};
  Clock::time_point last_{};
  double work_seconds_ = 0;  // moving average, so that one slow layer does not stall the next
};

}  // namespace ds4
