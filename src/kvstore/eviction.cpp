#include "kvstore/eviction.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <unordered_map>
#include <utility>

namespace ds4::kvstore {

namespace {

// How much likelier than a plain conversation's end an entry is to be asked for again.
double role_weight(const EntryRow& row, bool referenced) {
  if (referenced) return 4.0;
  switch (row.role) {
    case EntryRole::kContinued:
      return 1.0;
    case EntryRole::kAnchor:
      return 4.0;
    case EntryRole::kSession:
      return 0.5;  // a session that resumes from elsewhere by now
    case EntryRole::kEvicted:
      return 1.0;
  }
  return 1.0;
}

class Victims {
 public:
  explicit Victims(const EvictionInput& input) : input_(input), children_(input.rows.size(), 0) {
    for (std::size_t i = 0; i < input.rows.size(); ++i)
      index_of_.emplace(input.rows[i].id, i);
    for (const EntryRow& row : input.rows) {
      const auto parent = index_of_.find(row.parent);
      if (parent != index_of_.end()) ++children_[parent->second];
    }
    for (std::size_t i = 0; i < input.rows.size(); ++i)
      offer(i);
  }

  std::vector<EntryId> choose() {
    std::vector<EntryId> victims;
    std::uint64_t freed = 0;
    while (freed < input_.bytes_to_free && !candidates_.empty()) {
      const std::size_t index = candidates_.top().second;
      candidates_.pop();
      victims.push_back(input_.rows[index].id);
      freed += input_.rows[index].file_bytes;
      const auto parent = index_of_.find(input_.rows[index].parent);
      if (parent == index_of_.end()) continue;
      --children_[parent->second];
      offer(parent->second);
    }
    return victims;
  }

 private:
  void offer(std::size_t index) {
    const EntryRow& row = input_.rows[index];
    if (children_[index] == 0 && !input_.held.contains(row.id))
      candidates_.emplace(worth(row), index);
  }

  double worth(const EntryRow& row) const {
    const bool reachable = row.token_begin == 0 || index_of_.contains(row.parent);
    if (!row.has_state || !reachable) return 0.0;
    double saved_ms = row.recompute_ms;
    auto busy_bytes = static_cast<double>(row.file_bytes);
    bool alone = true;
    const EntryRow* entry = &row;
    for (;;) {
      const auto parent = index_of_.find(entry->parent);
      if (parent == index_of_.end()) break;
      entry = &input_.rows[parent->second];
      if (entry->has_state) break;
      saved_ms += entry->recompute_ms;
      alone = alone && children_[parent->second] == 1;
      if (alone) busy_bytes += static_cast<double>(entry->file_bytes);
    }
    // A clock that went back makes an age negative: no decay then.
    const double age_s = static_cast<double>(std::max<std::int64_t>(0, input_.now_s - row.used_s));
    const double uses = row.hits * std::exp2(-age_s / input_.half_life_s);
    return saved_ms * uses * role_weight(row, input_.referenced.contains(row.id)) / busy_bytes;
  }

  // Least worth first; equal worth in the order of rows, so that the choice is repeatable.
  using Candidate = std::pair<double, std::size_t>;

  const EvictionInput& input_;
  std::unordered_map<EntryId, std::size_t> index_of_;
  std::vector<std::size_t> children_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates_;
};

}  // namespace

std::vector<EntryId> choose_victims(const EvictionInput& input) {
  return Victims(input).choose();
}

}  // namespace ds4::kvstore
