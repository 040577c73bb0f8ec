#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ds4::tokenizer {

// The merge rules of a vocabulary: pairs of token ids to their rank and product, in a flat
// open-addressing table.  Filled once, then immutable.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoMerge = 0xFFFFFFFFu;
  struct Merge {
    std::uint32_t rank = kNoMerge;  // lower is merged first
    std::uint32_t product = 0;
  };

  explicit MergeTable(std::size_t merge_count);
  // The first rule for a pair wins.
  void add(std::uint32_t left, std::uint32_t right, Merge merge);
  Merge find(std::uint32_t left, std::uint32_t right) const;
  // Memory that it holds.
  std::size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    std::uint32_t left = kEmpty;
    std::uint32_t right = 0;
    Merge merge;
  };
  static constexpr std::uint32_t kEmpty = 0xFFFFFFFFu;
  std::size_t slot_of(std::uint32_t left, std::uint32_t right) const;

  std::vector<Slot> slots_;
  std::size_t mask_;
};

// Merges one piece: `ids` holds one token a byte and is replaced by the tokens that remain when no
// adjacent pair has a rule; always the lowest rank first, the leftmost on ties.  Returns the number
// of pair look-ups: at most 3 * ids.size(), which is what makes the time linear (times a logarithm
// for the queue).
std::size_t merge_piece(const MergeTable& merges, std::vector<std::uint32_t>& ids);

}  // namespace ds4::tokenizer
