#include "backend/graph_executor.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "sample/sampler.h"

namespace ds4 {

GraphExecutor::GraphExecutor(const ModelConfig& config,
                             const StateLayout& layout,
                             LayerSlice slice,
                             std::unique_ptr<Machine> machine)
    : config_(config),
      layout_(layout),
      machine_(std::move(machine)) {
  options_.slice = slice;
  const std::size_t rows_max = machine_->info().rows_max;
  runs_.reserve(rows_max);
  mtp_runs_.reserve(rows_max);
  mtp_rows_.reserve(rows_max);
  logit_rows_.reserve(rows_max);
  if (machine_->info().candidate_rows_max > 0) draft_.reserve();
}

const GraphExecutor::Sequence& GraphExecutor::sequence(SequenceId id) const {
  DS4_CHECK(id.value() < sequences_.size() && sequences_[id.value()].open);
  return sequences_[id.value()];
}

GraphExecutor::Sequence& GraphExecutor::sequence(SequenceId id) {
  return const_cast<Sequence&>(std::as_const(*this).sequence(id));
}

SequenceId GraphExecutor::open_sequence(std::uint32_t context) {
  std::size_t slot = 0;
  while (slot < sequences_.size() && sequences_[slot].open)
    ++slot;
  const SequenceId id{static_cast<std::uint32_t>(slot)};
  machine_->open_sequence(id, context);
  if (slot == sequences_.size()) sequences_.emplace_back();
  sequences_[slot] = Sequence{.open = true, .context = context};
  return id;
}

void GraphExecutor::close_sequence(SequenceId id) {
  sequence(id).open = false;
  machine_->close_sequence(id);
}

std::uint32_t GraphExecutor::length(SequenceId id) const {
  return sequence(id).length;
}

void GraphExecutor::check_batch(const Batch& batch, const BatchOutputs& outputs) const {
  DS4_CHECK(!batch.rows.empty() && batch.rows.size() <= info().rows_max);
  std::size_t logit_rows = 0;
  for (const BatchRow& row : batch.rows) {
    const Sequence& s = sequence(row.sequence);
    if (row.position.value() >= s.context) {
      throw Error(ErrorCode::kContextOverflow,
                  fmt::format("token {} does not fit the context of {} tokens",
                              row.position.value() + 1, s.context));
    }
    const auto token = row.token.value();
    if (token < 0 || static_cast<std::uint32_t>(token) >= config_.vocab_size) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("token id {} is outside the vocabulary of {}", token, config_.vocab_size));
    }
    logit_rows += row.wants_logits ? 1 : 0;
  }
  DS4_CHECK(outputs.logits.size() == 0 || outputs.logits.extent(0) >= logit_rows);
  DS4_CHECK(outputs.candidates.empty() ||
            (outputs.candidates.size() == logit_rows && outputs.queries.size() == logit_rows &&
             logit_rows <= info().candidate_rows_max));
}

void GraphExecutor::split_runs(std::span<const BatchRow> rows, std::vector<RowRun>& runs) const {
  runs.clear();
  for (std::uint32_t r = 0; r < rows.size(); ++r) {
    const BatchRow& row = rows[r];
    if (!runs.empty() && runs.back().sequence == row.sequence) {
      DS4_CHECK(row.position.value() == runs.back().first_position.value() + runs.back().count);
      ++runs.back().count;
    } else {
      runs.push_back({row.sequence, r, 1, row.position});
    }
  }
}

void GraphExecutor::begin(std::span<const BatchRow> rows, std::vector<RowRun>& runs) {
  split_runs(rows, runs);
  machine_->begin({rows, runs});
}

void GraphExecutor::run(const Batch& batch, const BatchOutputs& outputs) {
  check_batch(batch, outputs);
  begin(batch.rows, runs_);
  for (const RowRun& run : runs_)
    DS4_CHECK(run.first_position.value() == sequence(run.sequence).length);

  if (machine_->begin_pass(options_.layer_hook == nullptr)) {
    machine_->embed();
    run_layers(*machine_, config_, options_);
  }
  machine_->end_pass();

  logit_rows_.clear();
  for (std::uint32_t r = 0; r < batch.rows.size(); ++r)
    if (batch.rows[r].wants_logits) logit_rows_.push_back(r);
  if (!outputs.candidates.empty()) {
    machine_->head_candidates(HeadKind::kMain, logit_rows_, outputs.queries, outputs.candidates);
  } else if (!logit_rows_.empty()) {
    machine_->head(HeadKind::kMain, logit_rows_, outputs.logits);
  }
  if (outputs.hidden.size() != 0) machine_->read_streams(outputs.hidden);

  if (info().has_mtp) run_mtp(batch, outputs);

  for (const RowRun& run : runs_) {
    Sequence& s = sequence(run.sequence);
    s.length = run.first_position.value() + run.count;
    s.written = std::max(s.written, s.length);
  }
}

// Entry e of the MTP block joins the streams of token e with the embedding of token e + 1, so the
// rows of this batch complete the entries one position before them.
void GraphExecutor::run_mtp(const Batch& batch, const BatchOutputs& outputs) {
  mtp_rows_.clear();
  for (const BatchRow& row : batch.rows) {
    if (row.position.value() == 0) continue;
    BatchRow entry = row;
    entry.position = Position{row.position.value() - 1};
    mtp_rows_.push_back(entry);
  }
  machine_->recall_streams({batch.rows, runs_});
  machine_->store_streams();
  if (mtp_rows_.empty()) return;
  begin(mtp_rows_, mtp_runs_);
  run_mtp_block(*machine_, config_);
  if (outputs.mtp_logits.size() == 0) return;
  logit_rows_.clear();
  for (std::uint32_t r = 0; r < mtp_rows_.size(); ++r)
    logit_rows_.push_back(r);
  machine_->head(HeadKind::kMtp, logit_rows_, outputs.mtp_logits);
}

void GraphExecutor::read_logits(std::size_t index, std::span<float> logits) {
  machine_->read_logits(index, logits);
}

// Runs the MTP block on the one row of a draft.
void GraphExecutor::run_draft(SequenceId id, TokenId next, std::uint32_t depth) {
  const Sequence& s = sequence(id);
  DS4_CHECK(info().has_mtp && s.length > 0 && depth < info().rewind_max);
  // Entry length - 1 + depth; its token is the one that follows.
  const BatchRow token{next, Position{s.length + depth}, id};
  const BatchRow entry{next, Position{s.length + depth - 1}, id};
  const std::span<const BatchRow> token_rows(&token, 1);
  begin(token_rows, runs_);
  if (depth == 0) {
    machine_->recall_streams({token_rows, runs_});
  } else {
    machine_->reuse_streams();
  }
  const std::span<const BatchRow> entry_rows(&entry, 1);
  begin(entry_rows, runs_);
  run_mtp_block(*machine_, config_);
}

void GraphExecutor::draft(SequenceId id,
                          TokenId next,
                          std::uint32_t depth,
                          std::span<float> logits) {
  run_draft(id, next, depth);
  const std::uint32_t first = 0;
  machine_->head(HeadKind::kMtp, {&first, 1}, Rows(logits.data(), {1, logits.size()}));
}

TokenId GraphExecutor::draft_token(SequenceId id, TokenId next, std::uint32_t depth) {
  run_draft(id, next, depth);
  const std::uint32_t first = 0;
  const sample::CandidateQuery greedy{.options = sample::SamplingOptions::greedy()};
  machine_->head_candidates(HeadKind::kMtp, {&first, 1}, {&greedy, 1}, {&draft_, 1});
  return sample::argmax(draft_);
}

void GraphExecutor::truncate(SequenceId id, std::uint32_t length) {
  Sequence& s = sequence(id);
  DS4_CHECK(length <= s.length && (length == 0 || length >= shortest_truncation(id)));
  s.length = length;
  if (length == 0) {
    s.written = 0;
    s.floor = 0;
  }
}

std::uint32_t GraphExecutor::shortest_truncation(SequenceId id) const {
  const Sequence& s = sequence(id);
  const std::uint32_t reach = s.written - std::min(s.written, info().rewind_max);
  return std::min(s.length, std::max(s.floor, reach));
}

void GraphExecutor::read_state(SequenceId id,
                               const StateSection& section,
                               std::span<std::byte> out) const {
  DS4_CHECK(out.size() == section.bytes());
  static_cast<void>(sequence(id));
  machine_->read_state(id, section, out);
}

void GraphExecutor::begin_restore(SequenceId id, std::uint32_t length) {
  Sequence& s = sequence(id);
  if (length > s.context) {
    throw Error(
        ErrorCode::kContextOverflow,
        fmt::format("a state of {} tokens does not fit the context of {}", length, s.context));
  }
  s.length = length;
  s.written = length;
  s.floor = length;
}

void GraphExecutor::write_state(SequenceId id,
                                const StateSection& section,
                                std::span<const std::byte> bytes) {
  DS4_CHECK(bytes.size() == section.bytes());
  static_cast<void>(sequence(id));
  machine_->write_state(id, section, bytes);
}

void GraphExecutor::set_steering(const Steering& steering) {
  const bool loaded = !steering.directions.empty();
  options_.steer_attention = loaded && steering.attention_scale != 0;
  options_.steer_ffn = loaded && steering.ffn_scale != 0;
  machine_->set_steering(steering);
}

void GraphExecutor::set_layer_hook(LayerHook hook, void* context) {
  options_.layer_hook = hook;
  options_.layer_hook_context = context;
}

}  // namespace ds4
