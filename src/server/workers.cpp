#include "server/workers.h"

#include <exception>
#include <utility>

#include <fmt/format.h>

namespace ds4::server {

Workers::Workers(std::size_t thread_count, std::size_t queue_max, LogSink its_log)
    : queue_(queue_max),
      log_(std::move(its_log)) {
  for (std::size_t i = 0; i < thread_count; ++i)
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

void Workers::work(const std::stop_token& stop) {
  while (const auto task = queue_.pop(stop)) {
    try {
      if (!stop.stop_requested()) (*task)();
    } catch (const std::exception& error) {
      log(log_, LogLevel::kError, fmt::format("a request failed: {}", error.what()));
    }
  }
}

bool Workers::submit(std::function<void()> task) {
  return queue_.try_push(task);
}

void Workers::stop() {
  for (std::jthread& thread : threads_)
    thread.request_stop();
  threads_.clear();
  queue_.close();
  while (queue_.try_pop()) {
  }
}

}  // namespace ds4::server
