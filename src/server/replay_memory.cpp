#include "server/replay_memory.h"

#include <utility>

namespace ds4::server {

namespace {
std::string key_of(std::string_view name_space, std::string_view id) {
  return std::string(name_space) + '\0' + std::string(id);
}

std::size_t bytes_of(const ReplayMemory::Turn& turn) {
  return turn.block.size() + turn.reasoning.size();
}
}  // namespace

void ReplayMemory::remember(std::string_view name_space,
                            const std::vector<std::string>& ids,
                            Turn turn) {
  if (ids.empty() || ids.size() > ids_max_ || turn.block.empty()) return;
  const std::lock_guard lock(mutex_);
  auto entry = std::make_shared<Block>();
  for (const std::string& id : ids)
    entry->keys.push_back(key_of(name_space, id));
  entry->turn = std::move(turn);
  bytes_ += bytes_of(entry->turn);
  blocks_.push_front(entry);
  for (const std::string& key : entry->keys)
    by_key_[key] = blocks_.begin();
  while (blocks_.size() > 1 && (by_key_.size() > ids_max_ || bytes_ > bytes_max_))
    forget_oldest();
}

void ReplayMemory::forget_oldest() {
  const std::shared_ptr<Block> oldest = blocks_.back();
  for (const std::string& key : oldest->keys)
    by_key_.erase(key);
  bytes_ -= bytes_of(oldest->turn);
  blocks_.pop_back();
}

ReplayMemory::Counts ReplayMemory::apply(std::string_view name_space,
                                         std::vector<chat::Message>& messages) {
  Counts counts;
  const std::lock_guard lock(mutex_);
  for (chat::Message& message : messages) {
    if (message.tool_calls.empty()) continue;
    const auto found = by_key_.find(key_of(name_space, message.tool_calls.front().id));
    bool exact = found != by_key_.end();
    if (exact) {
      const Block& block = **found->second;
      exact = block.keys.size() == message.tool_calls.size();
      for (std::size_t i = 0; exact && i < block.keys.size(); ++i)
        exact = block.keys[i] == key_of(name_space, message.tool_calls[i].id);
    }
    if (!exact) {
      ++counts.canonical;
      continue;
    }
    ++counts.exact;
    message.exact_tool_block = (*found->second)->turn.block;
    message.reasoning = (*found->second)->turn.reasoning;
    blocks_.splice(blocks_.begin(), blocks_, found->second);
  }
  return counts;
}

}  // namespace ds4::server
