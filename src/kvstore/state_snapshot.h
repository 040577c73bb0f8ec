#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvstore/state_io.h"
#include "kvstore/store.h"

namespace ds4::kvstore {

// A copy of what one save needs of a live state, so that the save can run elsewhere while the state
// goes on.  Made on the thread that owns the state; then confined to the one that saves.
class StateSnapshot final : public StateSource {
 public:
  // Copies the rows of tokens [needs.token_begin, token_count) and the carry arrays of
  // needs.carry_lengths.  `storage` is memory to be used again; `layout` must outlive this.
  StateSnapshot(const StateLayout& layout,
                StateSource& live,
                const SaveNeeds& needs,
                std::uint64_t token_count,
                std::vector<std::byte> storage);

  // Throws Error(kNotFound) for rows that were not copied.
  void read_rows(std::size_t array_index,
                 std::uint64_t row_begin,
                 std::span<std::byte> out) override;
  bool has_carry(std::uint64_t token_count) const override;
  bool has_logits(std::uint64_t token_count) const override;
  void read_carry(std::size_t array_index,
                  std::uint64_t token_count,
                  std::span<std::byte> out) override;

  std::size_t bytes() const { return storage_.size(); }
  // The memory, for the next one.
  std::vector<std::byte> take_storage() { return std::move(storage_); }

 private:
  struct Carry {
    std::uint64_t token_count = 0;
    bool has_logits = false;
    std::size_t offset = 0;  // in storage_: the arrays end to end
  };

  const Carry* find(std::uint64_t token_count) const;
  CarryPlace place_of(const Carry& carry) const {
    return carry.has_logits ? CarryPlace::kTailOnly : CarryPlace::kEveryState;
  }

  const StateLayout& layout_;
  std::uint64_t token_begin_;
  std::uint64_t token_count_;
  std::vector<std::size_t> row_offsets_;  // [rows] in storage_
  std::vector<Carry> carries_;
  std::vector<std::byte> storage_;
};

}  // namespace ds4::kvstore
