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

  // Bracket a pass: a sequence of stage calls that follows from the rows of the last begin() and
  // the steering alone.  A machine may keep what a pass did and repeat it: begin_pass() then
  // returns false, and the caller makes none of the calls.  A pass that is not `recordable` does
  // more than call stages and always runs.
  virtual bool begin_pass(bool recordable) {
    static_cast<void>(recordable);
    return true;
  }
  virtual void end_pass() {}

  virtual std::vector<MemoryItem> memory() const = 0;
};

}  // namespace ds4
