#include "kvstore/lookup.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>

namespace ds4::kvstore {

namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

// Wants the entries whose last bytes are those of the prompt at the place where they end.
class LastBytes final : public ChildFilter {
 public:
  LastBytes(std::span<const std::byte> text, const Sha256Digest& salt, std::uint64_t byte_begin)
      : text_(text),
        salt_(salt),
        byte_begin_(byte_begin) {}

  bool wants(std::uint64_t byte_end, std::uint64_t check) const override {
    if (byte_end < byte_begin_) return false;
    if (byte_end != known_end_) {
      known_end_ = byte_end;
      known_check_ = text_check(salt_, text_.subspan(byte_begin_, byte_end - byte_begin_));
    }
    return check == known_check_;
  }

 private:
  std::span<const std::byte> text_;
  const Sha256Digest& salt_;
  std::uint64_t byte_begin_;
  // Entries come by their ends, and many end alike.
  mutable std::uint64_t known_end_ = std::numeric_limits<std::uint64_t>::max();
  mutable std::uint64_t known_check_ = 0;
};

// Entries are tried in the order in which they end, so that one hash runs along the prompt once,
// however many tokenisations of the same bytes branch off.
class Walk {
 public:
  Walk(Catalogue& catalogue,
       const KeySpace& space,
       std::span<const std::byte> text,
       const LookupLimits& limits)
      : catalogue_(catalogue),
        space_(space),
        text_(text),
        limits_(limits),
        chain_(space.context()) {}

  std::optional<Hit> run() {
    add_children(kNone, space_.root(), 0);
    while (!queue_.empty()) {
      const Candidate candidate = queue_.top();
      queue_.pop();
      const ChildRow child = children_[candidate.child];
      if (key_at(child.byte_end) != child.key) continue;
      matched_.push_back({child.id, candidate.parent});
      const std::size_t node = matched_.size() - 1;
      if (is_better(child)) {
        best_ = node;
        best_child_ = child;
      }
      if (child.kind == EntryKind::kChunk) add_children(node, child.id, child.byte_end);
    }
    return best_ == kNone ? std::nullopt : std::optional(hit());
  }

 private:
  struct Candidate {
    std::uint64_t byte_end;
    std::size_t child;   // in children_
    std::size_t parent;  // in matched_, or kNone
    bool operator>(const Candidate& other) const { return byte_end > other.byte_end; }
  };
  struct Node {
    EntryId id;
    std::size_t parent;
  };

  void add_children(std::size_t node, const EntryId& id, std::uint64_t byte_begin) {
    const std::size_t first = children_.size();
    catalogue_.children(id, text_.size(), LastBytes(text_, space_.context().salt, byte_begin),
                        children_);
    for (std::size_t i = first; i < children_.size(); ++i)
      if (children_[i].token_end <= limits_.tokens_max)
        queue_.push({children_[i].byte_end, i, node});
  }

  const Sha256Digest& key_at(std::uint64_t byte_end) {
    if (byte_end != key_end_) {
      chain_.append(text_.subspan(hashed_, byte_end - hashed_));
      hashed_ = byte_end;
      key_ = chain_.key();
      key_end_ = byte_end;
    }
    return key_;
  }

  bool is_better(const ChildRow& child) const {
    if (!child.has_state || child.token_end < limits_.tokens_min) return false;
    const bool whole = child.byte_end == text_.size();
    if (whole && !child.has_logits && limits_.whole_match == WholeMatch::kNeedsLogits) return false;
    if (best_ == kNone || child.byte_end > best_child_.byte_end) return true;
    return child.byte_end == best_child_.byte_end && child.has_logits && !best_child_.has_logits;
  }

  Hit hit() const {
    Hit hit{.chain = {},
            .token_count = best_child_.token_end,
            .byte_count = best_child_.byte_end,
            .has_logits = best_child_.has_logits,
            .kind = best_child_.kind};
    for (std::size_t node = best_; node != kNone; node = matched_[node].parent)
      hit.chain.push_back(matched_[node].id);
    std::reverse(hit.chain.begin(), hit.chain.end());
    return hit;
  }

  Catalogue& catalogue_;
  const KeySpace& space_;
  std::span<const std::byte> text_;
  const LookupLimits& limits_;
  KeyChain chain_;
  std::uint64_t hashed_ = 0;
  std::uint64_t key_end_ = std::numeric_limits<std::uint64_t>::max();
  Sha256Digest key_{};
  std::vector<ChildRow> children_;
  std::vector<Node> matched_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue_;
  std::size_t best_ = kNone;
  ChildRow best_child_;
};

}  // namespace

std::optional<Hit> find_longest(Catalogue& catalogue,
                                const KeySpace& space,
                                std::span<const std::byte> text,
                                const LookupLimits& limits) {
  return Walk(catalogue, space, text, limits).run();
}

}  // namespace ds4::kvstore
