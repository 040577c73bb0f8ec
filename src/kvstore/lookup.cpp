#include "kvstore/lookup.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>

namespace ds4::kvstore {

namespace {

constexpr std::size_t kCandidatesMax = 4;
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
    add_aliases();
    while (!queue_.empty()) {
      const Candidate candidate = queue_.top();
      queue_.pop();
      if (candidate.is_alias) {
        try_alias(aliases_[candidate.child]);
        continue;
      }
      const ChildRow child = children_[candidate.child];
      if (key_at(child.byte_end) != child.key) continue;
      matched_.push_back({child.id, candidate.parent});
      const std::size_t node = matched_.size() - 1;
      if (is_better(child)) {
        best_ = node;
        best_child_ = child;
      }
      if (child.kind != EntryKind::kChunk) continue;
      if (deepest_ == kNone || child.token_end > deepest_child_.token_end) {
        deepest_ = node;
        deepest_child_ = child;
      }
      add_children(node, child.id, child.byte_end);
    }
    if (alias_hit_ && (best_ == kNone || alias_hit_->byte_count > best_child_.byte_end))
      return alias_hit_;
    return best_ == kNone ? std::nullopt : std::optional(hit());
  }

  // The end of the last chunk that agrees, and what hangs on it.
  Agreement agreement() {
    run();
    Agreement agreement;
    EntryId deepest = space_.root();
    if (deepest_ != kNone) {
      deepest = matched_[deepest_].id;
      agreement.token_count = deepest_child_.token_end;
      agreement.byte_count = deepest_child_.byte_end;
    }
    agreement.candidates = catalogue_.recent_children(deepest, kCandidatesMax);
    return agreement;
  }

 private:
  struct Candidate {
    std::uint64_t byte_end;
    std::size_t child;   // in children_, or in aliases_
    std::size_t parent;  // in matched_, or kNone
    bool is_alias = false;
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

  void add_aliases() {
    // What follows an alias is at least the marker of an answer: one that is all of the prompt is
    // of no use.
    if (text_.empty()) return;
    catalogue_.aliases(space_.root(), text_.size() - 1, LastBytes(text_, space_.context().salt, 0),
                       aliases_);
    for (std::size_t i = 0; i < aliases_.size(); ++i)
      queue_.push({aliases_[i].record.byte_end, i, kNone, true});
  }

  void try_alias(const AliasRow& alias) {
    if (key_at(alias.record.byte_end) != alias.record.key) return;
    std::optional<Hit> hit = hit_of_entry(catalogue_, alias.tail);
    if (!hit || hit->token_count < limits_.tokens_min || hit->token_count > limits_.tokens_max)
      return;
    hit->byte_count = alias.record.byte_end;
    hit->by_alias = true;
    hit->bridge = alias.record.bridge;
    alias_hit_ = std::move(hit);
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
            .kind = best_child_.kind,
            .role = EntryRole::kContinued};
    if (const auto row = catalogue_.find(matched_[best_].id)) hit.role = row->role;
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
  std::vector<AliasRow> aliases_;
  std::optional<Hit> alias_hit_;
  std::size_t deepest_ = kNone;  // in matched_: the last chunk that agrees
  ChildRow deepest_child_;
};

}  // namespace

std::optional<Hit> hit_of_entry(Catalogue& catalogue, const EntryId& id) {
  std::optional<EntryRow> row = catalogue.find(id);
  if (!row || !row->has_state) return std::nullopt;
  Hit hit{.chain = {id},
          .token_count = row->token_end,
          .byte_count = row->byte_end,
          .has_logits = row->has_logits,
          .kind = row->kind,
          .role = row->role};
  while (row->token_begin > 0) {
    row = catalogue.find(row->parent);
    if (!row) return std::nullopt;
    hit.chain.push_back(row->id);
  }
  std::reverse(hit.chain.begin(), hit.chain.end());
  return hit;
}

Agreement find_agreement(Catalogue& catalogue,
                         const KeySpace& space,
                         std::span<const std::byte> text) {
  const LookupLimits limits;
  return Walk(catalogue, space, text, limits).agreement();
}

std::optional<Hit> find_longest(Catalogue& catalogue,
                                const KeySpace& space,
                                std::span<const std::byte> text,
                                const LookupLimits& limits) {
  return Walk(catalogue, space, text, limits).run();
}

}  // namespace ds4::kvstore
