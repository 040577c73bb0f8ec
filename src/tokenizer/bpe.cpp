#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

namespace ds4::tokenizer {
namespace {

// Below this the lowest rank is found by looking at all of them.
constexpr std::size_t kScanMax = 32;

std::size_t merge_by_scan(const MergeTable& merges, std::vector<std::uint32_t>& ids) {
  MergeTable::Merge pair[kScanMax];  // [i] merges ids[i] and ids[i + 1]
  std::size_t count = ids.size();
  std::size_t lookups = count - 1;
  for (std::size_t i = 0; i + 1 < count; ++i)
    pair[i] = merges.find(ids[i], ids[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pair[i].rank < pair[best].rank) best = i;
    }
    if (pair[best].rank == MergeTable::kNoMerge) break;
    ids[best] = pair[best].product;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      pair[i - 1] = pair[i];
    }
    --count;
    if (best > 0) pair[best - 1] = merges.find(ids[best - 1], ids[best]);
    if (best + 1 < count) pair[best] = merges.find(ids[best], ids[best + 1]);
    lookups += 2;
  }
  ids.resize(count);
  return lookups;
}

constexpr std::uint32_t kNone = 0xFFFFFFFFu;

struct Node {
  std::uint32_t id;  // kNone once merged into the node on its left
  std::uint32_t previous;
  std::uint32_t next;
};

// A merge that was possible when it was queued; stale when either side has changed since.
struct Candidate {
  std::uint32_t rank;
  std::uint32_t at;  // the left node
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t product;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

class QueueMerger {
 public:
  QueueMerger(const MergeTable& merges, const std::vector<std::uint32_t>& ids) : merges_(merges) {
    const auto count = static_cast<std::uint32_t>(ids.size());
    nodes_.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      nodes_.push_back({ids[i], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1});
    }
    std::vector<Candidate> first;
    first.reserve(count);
    for (std::uint32_t i = 0; i + 1 < count; ++i) {
      if (const auto c = candidate(i); c.rank != MergeTable::kNoMerge) first.push_back(c);
    }
    queue_ = Queue(std::greater<>(), std::move(first));
  }

  std::size_t run(std::vector<std::uint32_t>& ids) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Node& left = nodes_[top.at];
      if (left.id != top.left || left.next == kNone || nodes_[left.next].id != top.right) continue;
      merge(top);
    }
    ids.clear();
    for (std::uint32_t i = 0; i != kNone; i = nodes_[i].next)
      ids.push_back(nodes_[i].id);
    return lookups_;
  }

 private:
  using Queue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

  Candidate candidate(std::uint32_t at) {
    ++lookups_;
    const std::uint32_t left = nodes_[at].id;
    const std::uint32_t right = nodes_[nodes_[at].next].id;
    const MergeTable::Merge merge = merges_.find(left, right);
    return {merge.rank, at, left, right, merge.product};
  }

  void push(std::uint32_t at) {
    if (const auto c = candidate(at); c.rank != MergeTable::kNoMerge) queue_.push(c);
  }

  void merge(const Candidate& c) {
    Node& left = nodes_[c.at];
    Node& right = nodes_[left.next];
    left.id = c.product;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) {
      nodes_[left.next].previous = c.at;
      push(c.at);
    }
    if (left.previous != kNone) push(left.previous);
  }

  const MergeTable& merges_;
  std::vector<Node> nodes_;
  Queue queue_;
  std::size_t lookups_ = 0;
};

}  // namespace

MergeTable::MergeTable(std::size_t merge_count)
    : slots_(std::bit_ceil(std::max<std::size_t>(merge_count * 2, 16))),
      mask_(slots_.size() - 1) {}

std::size_t MergeTable::slot_of(std::uint32_t left, std::uint32_t right) const {
  std::uint64_t key = (std::uint64_t{left} << 32) | right;
  key ^= key >> 31;
  key *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio: spreads neighbouring ids
  std::size_t slot = (key >> 32) & mask_;
  while (slots_[slot].left != kEmpty &&
         (slots_[slot].left != left || slots_[slot].right != right)) {
    slot = (slot + 1) & mask_;
  }
  return slot;
}

void MergeTable::add(std::uint32_t left, std::uint32_t right, Merge merge) {
  Slot& slot = slots_[slot_of(left, right)];
  if (slot.left != kEmpty) return;
  slot = {left, right, merge};
}

MergeTable::Merge MergeTable::find(std::uint32_t left, std::uint32_t right) const {
  return slots_[slot_of(left, right)].merge;
}

std::size_t merge_piece(const MergeTable& merges, std::vector<std::uint32_t>& ids) {
  if (ids.size() < 2) return 0;
  if (ids.size() <= kScanMax) return merge_by_scan(merges, ids);
  return QueueMerger(merges, ids).run(ids);
}

}  // namespace ds4::tokenizer
