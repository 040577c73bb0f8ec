#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "backend/executor.h"

namespace ds4 {

// Copies of one sequence's overwritten state (window rows and compressor frontiers) at some of its
// lengths.  Append-only rows stay in the sequence, so a checkpoint is small and going back to one
// is a copy.  Keeps at most `count_max`: when full, drops the one that leaves the least relative
// gap, so that recent lengths stay dense and old ones sparse.  Buffers are reused, not freed.
// Confined to the engine's thread.
class Checkpoints {
 public:
  // Reserves for `count_max` copies at multiples of `interval`, so that save() allocates nothing.
  Checkpoints(Executor& executor,
              SequenceId sequence,
              std::uint32_t interval,
              std::uint32_t count_max);

  // What the constructor reserves.
  static std::uint64_t planned_bytes(const StateLayout& layout,
                                     std::uint32_t window,
                                     std::uint32_t interval,
                                     std::uint32_t count_max);

  // Copies the state at the sequence's current length, unless that length is kept already.
  void save();
  // Sets the sequence to the largest kept length at or below `length` and returns it; drops the
  // checkpoints beyond.  Nothing when none is kept there.
  std::optional<std::uint32_t> restore(std::uint32_t length);
  // Forgets the checkpoints beyond `length`, whose tokens are gone.
  void drop_beyond(std::uint32_t length);

  // Kept lengths, ascending.
  std::vector<std::uint32_t> lengths() const;
  // The kept state at exactly `length`: its sections in StateLayout::frontier_sections() order, end
  // to end.  Nothing when not kept.
  const std::vector<std::byte>* find(std::uint32_t length) const;

 private:
  struct Checkpoint {
    std::uint32_t length;
    std::vector<std::byte> bytes;
  };

  std::vector<std::byte> take_buffer();

  Executor& executor_;
  SequenceId sequence_;
  std::size_t count_max_;
  std::vector<Checkpoint> kept_;  // ascending by length
  std::vector<std::vector<std::byte>> spare_;
  std::vector<StateSection> sections_;  // scratch of save()
};

}  // namespace ds4
