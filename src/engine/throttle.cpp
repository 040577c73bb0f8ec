#include "engine/throttle.h"

#include <cerrno>
#include <ctime>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4 {

namespace {
constexpr double kKeep = 0.875;  // weight of the past in the moving average of work time
}  // namespace

void Throttle::set_percent(int percent) {
  if (percent < 1 || percent > 100) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("power is {} percent; expected 1 to 100", percent));
  }
  percent_.store(percent, std::memory_order_relaxed);
}

void Throttle::pause() {
  const int percent = this->percent();
  if (percent == 100) return;
  const double work = std::chrono::duration<double>(Clock::now() - last_).count();
  work_seconds_ = work_seconds_ == 0 ? work : kKeep * work_seconds_ + (1 - kKeep) * work;
  const double sleep = work_seconds_ * (100 - percent) / percent;
  timespec request{};
  request.tv_sec = static_cast<time_t>(sleep);
  request.tv_nsec = static_cast<long>((sleep - static_cast<double>(request.tv_sec)) * 1e9);
  // Not restarted after a signal: an interrupt should be answered at once.
  static_cast<void>(::nanosleep(&request, nullptr));
  last_ = Clock::now();
}

}  // namespace ds4
