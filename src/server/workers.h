#pragma once
#include <cstddef>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

#include "base/bounded_queue.h"
#include "base/log.h"

namespace ds4::server {

// A few threads for what takes long: reading a large body and tokenising a long prompt must not
// hold up the network's threads, on which other clients' streams run.  Synchronised.
class Workers {
 public:
  Workers(std::size_t thread_count, std::size_t queue_max, LogSink log);
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() { stop(); }

  // Runs `task` soon, unless the queue is full or stopped; false then.
  bool submit(std::function<void()> task);
  // Waits for the running tasks; those that wait are dropped.  May be called again.
  void stop();

 private:
  void work(const std::stop_token& stop);

  BoundedQueue<std::function<void()>> queue_;
  const LogSink log_;
  std::vector<std::jthread> threads_;
};

}  // namespace ds4::server
