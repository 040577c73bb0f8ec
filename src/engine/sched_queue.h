#pragma once
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/sched_request.h"

namespace ds4 {

// A request with who takes its answer and the time it came.
struct QueuedGeneration {
  GenerationRequest request;
  std::shared_ptr<GenerationClient> client;
  std::chrono::steady_clock::time_point arrived;
};

// A level of priority is worth this much waiting, so that nobody waits for ever.
inline constexpr std::chrono::seconds kPriorityStep{30};

// Requests that wait for a slot, the next one first: by priority, then by arrival.  Confined to one
// thread.
class GenerationQueue {
 public:
  void push(QueuedGeneration item) { items_.push_back(std::move(item)); }
  // The next one, or nothing.
  std::optional<QueuedGeneration> pop();
  // Puts back what pop() gave: it keeps its place by its arrival.
  void put_back(QueuedGeneration item) { items_.push_back(std::move(item)); }
  // Takes out those whose stop was requested.
  std::vector<QueuedGeneration> take_cancelled();
  std::vector<QueuedGeneration> take_all() { return std::exchange(items_, {}); }
  std::size_t size() const { return items_.size(); }

 private:
  std::vector<QueuedGeneration> items_;
};

}  // namespace ds4
