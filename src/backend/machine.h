#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/executor.h"
#include "backend/stages.h"

namespace ds4 {

// What a backend gives to GraphExecutor: the stages, and storage for the state of sequences.
// Lengths and validity are the executor's business; a machine only stores rows by number.
class Machine : public Stages {
 public:
  virtual const ExecutorInfo& info() const = 0;

  // Allocates storage for `context` tokens under the given id, which is free.
  virtual void open_sequence(SequenceId sequence, std::uint32_t context) = 0;
  virtual void close_sequence(SequenceId sequence) = 0;

  virtual void read_state(SequenceId sequence,
                          const StateSection& section,
                          std::span<std::byte> out) const = 0;
  virtual void write_state(SequenceId sequence,
                           const StateSection& section,
                           std::span<const std::byte> bytes) = 0;

  virtual void set_steering(const Steering& steering) = 0;
  virtual std::vector<MemoryItem> memory() const = 0;
};

}  // namespace ds4
