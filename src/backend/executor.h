#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/batch.h"
#include "backend/state.h"
#include "base/error.h"
#include "model/config.h"

namespace ds4 {

// One line of a memory plan.
struct MemoryItem {
  std::string name;  // e.g. "weights", "scratch"
  std::uint64_t bytes = 0;
  bool mapped = false;  // backed by the model file's pages, not allocated
};

// What an executor is and what it holds.
struct ExecutorInfo {
  std::string backend;           // "cpu", "cuda"
  std::string device;            // for people: processor or card
  std::uint32_t rows_max = 0;    // most rows of one batch
  std::uint32_t rewind_max = 0;  // tokens that truncate() can always take back after run()
  bool has_mtp = false;
  // Rows of one batch up to which every row's result is, to the bit, what it would be alone.
  std::uint32_t decode_rows_max = UINT32_MAX;
  // Rows of one batch whose logits can stay on the device, replaced by candidates; 0: the logits
  // are in host memory anyway.
  std::uint32_t candidate_rows_max = 0;
};

// Drafting options and live controls are few; everything else is fixed when an executor is made.
struct Steering {
  // [layer_count, width] f32 unit vectors; empty: no steering.  (docs/model.md, steering)
  std::vector<float> directions;
  float attention_scale = 0;
  float ffn_scale = 0;
};

// A machine that can run the graph: the coarse seam between the engine and the backends.  It runs
// batches over sequences whose state it holds, and gives that state in and out as portable rows.
// Confined to one thread at a time.
class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  virtual const ExecutorInfo& info() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const StateLayout& layout() const = 0;

  // Allocates the state of one sequence of at most `context` tokens.  Throws Error(kOutOfMemory).
  virtual SequenceId open_sequence(std::uint32_t context) = 0;
  virtual void close_sequence(SequenceId sequence) = 0;

  // Tokens whose state the sequence holds.
  virtual std::uint32_t length(SequenceId sequence) const = 0;

  // Runs the rows through the layers and extends their sequences.  Throws Error(kContextOverflow)
  // before any work when a row does not fit, Error(kDevice) when the device failed.
  // Results of a row do not depend on which other rows share its batch.
  virtual void run(const Batch& batch, const BatchOutputs& outputs) = 0;

  // The logits of the `index`-th row with wants_logits of the last run(), which asked for
  // candidates instead; until the next run() or draft().  logits: [vocab_size]
  virtual void read_logits(std::size_t index, std::span<float> logits) {
    DS4_CHECK(index >= info().candidate_rows_max && logits.empty());
  }

  // Drafts with the MTP block: given the token that follows the sequence's last one, writes the
  // logits of the token after it.  `depth` 0 reads the main model's streams, `depth` d the streams
  // of the draft of depth d - 1, which must have been the call before.  Does not change length().
  virtual void draft(SequenceId sequence,
                     TokenId next,
                     std::uint32_t depth,
                     std::span<float> logits) = 0;

  // The most likely draft alone, from an executor that keeps logits.
  virtual TokenId draft_token(SequenceId sequence, TokenId next, std::uint32_t depth) {
    DS4_CHECK(length(sequence) < depth && "this executor keeps no logits");
    return next;
  }

  // Forgets the tokens from `length` on.  Exact for length 0 and from shortest_truncation() on.
  virtual void truncate(SequenceId sequence, std::uint32_t length) = 0;
  virtual std::uint32_t shortest_truncation(SequenceId sequence) const = 0;

  // Copies rows out of, or into, the sequence's state in the portable layout.
  virtual void read_state(SequenceId sequence,
                          const StateSection& section,
                          std::span<std::byte> out) const = 0;
  // Sets the length that following write_state() calls fill; what they leave out must already be
  // there (a live sequence's append-only rows) or is undefined.
  virtual void begin_restore(SequenceId sequence, std::uint32_t length) = 0;
  virtual void write_state(SequenceId sequence,
                           const StateSection& section,
                           std::span<const std::byte> bytes) = 0;

  // Applies to every later row.  Scales of 0 give bit for bit the unsteered result.
  virtual void set_steering(const Steering& steering) = 0;

  // Called between layers with the work done so far in the batch, for throttling; may be null.
  // Rows and results do not depend on it.
  using LayerHook = void (*)(void* context);
  virtual void set_layer_hook(LayerHook hook, void* context) = 0;

  // What is allocated now, for comparison with the plan.
  virtual std::vector<MemoryItem> memory() const = 0;
};

}  // namespace ds4
