#include "engine/sched_queue.h"

#include <algorithm>
#include <iterator>

namespace ds4 {

std::optional<QueuedGeneration> GenerationQueue::pop() {
  if (items_.empty()) return std::nullopt;
  const auto due = [](const QueuedGeneration& item) {
    return item.arrived - item.request.priority * kPriorityStep;
  };
  const auto next = std::min_element(
      items_.begin(), items_.end(),
      [&](const QueuedGeneration& a, const QueuedGeneration& b) { return due(a) < due(b); });
  QueuedGeneration item = std::move(*next);
  items_.erase(next);
  return item;
}

std::vector<QueuedGeneration> GenerationQueue::take_cancelled() {
  const auto first = std::stable_partition(
      items_.begin(), items_.end(),
      [](const QueuedGeneration& item) { return !item.request.stop.stop_requested(); });
  std::vector<QueuedGeneration> taken(std::make_move_iterator(first),
                                      std::make_move_iterator(items_.end()));
  items_.erase(first, items_.end());
  return taken;
}

}  // namespace ds4
