#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/executor.h"
#include "backend/forward.h"
#include "backend/machine.h"

namespace ds4 {

// The Executor over one Machine: keeps the lengths of sequences, checks batches, and runs the
// forward pass.  Confined to one thread.
class GraphExecutor : public Executor {
 public:
  // `slice` is what the machine's weights hold.
  GraphExecutor(const ModelConfig& config,
                const StateLayout& layout,
                LayerSlice slice,
                std::unique_ptr<Machine> machine);

  const ExecutorInfo& info() const override { return machine_->info(); }
  const ModelConfig& config() const override { return config_; }
  const StateLayout& layout() const override { return layout_; }

  SequenceId open_sequence(std::uint32_t context) override;
  void close_sequence(SequenceId sequence) override;
  std::uint32_t length(SequenceId sequence) const override;
  void run(const Batch& batch, const BatchOutputs& outputs) override;
  void read_logits(std::size_t index, std::span<float> logits) override;
  void draft(SequenceId sequence,
             TokenId next,
             std::uint32_t depth,
             std::span<float> logits) override;
  TokenId draft_token(SequenceId sequence, TokenId next, std::uint32_t depth) override;
  void truncate(SequenceId sequence, std::uint32_t length) override;
  std::uint32_t shortest_truncation(SequenceId sequence) const override;
  void read_state(SequenceId sequence,
                  const StateSection& section,
                  std::span<std::byte> out) const override;
  void begin_restore(SequenceId sequence, std::uint32_t length) override;
  void write_state(SequenceId sequence,
                   const StateSection& section,
                   std::span<const std::byte> bytes) override;
  void set_steering(const Steering& steering) override;
  void set_layer_hook(LayerHook hook, void* context) override;
  std::vector<MemoryItem> memory() const override { return machine_->memory(); }

 private:
  struct Sequence {
    bool open = false;
    std::uint32_t context = 0;
    std::uint32_t length = 0;
    std::uint32_t written = 0;  // most tokens ever written since the last reset: rings remember it
    std::uint32_t floor = 0;    // a restored sequence has no ring rows from before its restore
  };

  const Sequence& sequence(SequenceId id) const;
  Sequence& sequence(SequenceId id);
  void check_batch(const Batch& batch, const BatchOutputs& outputs) const;
  void split_runs(std::span<const BatchRow> rows, std::vector<RowRun>& runs) const;
  void run_mtp(const Batch& batch, const BatchOutputs& outputs);
  void run_draft(SequenceId id, TokenId next, std::uint32_t depth);
  void begin(std::span<const BatchRow> rows, std::vector<RowRun>& runs);

  const ModelConfig config_;
  const StateLayout layout_;
  std::unique_ptr<Machine> machine_;
  ForwardOptions options_;
  std::vector<Sequence> sequences_;
  // Scratch of run() and draft(), reserved once for rows_max.
  std::vector<RowRun> runs_;
  std::vector<RowRun> mtp_runs_;
  std::vector<BatchRow> mtp_rows_;
  std::vector<std::uint32_t> logit_rows_;
  sample::CandidateSet draft_;
};

}  // namespace ds4
