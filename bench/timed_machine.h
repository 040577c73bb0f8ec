#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backend/machine.h"

namespace ds4::bench {

// Groups of stages that are timed together.
enum class Phase {
  kStreams,
  kProjections,
  kSelection,
  kAttention,
  kOutput,
  kExperts,
  kHead,
  kCount
};

inline constexpr std::size_t kPhaseCount = static_cast<std::size_t>(Phase::kCount);
inline constexpr std::array<const char*, kPhaseCount> kPhaseNames = {
    "streams", "projections", "selection", "attention", "output", "experts", "head"};

// Forwards every call to another machine and adds up the time spent in each phase.  The cost is two
// readings of the clock a stage.
class TimedMachine final : public Machine {
 public:
  using Seconds = std::array<double, kPhaseCount>;

  // `seconds` must outlive the machine.
  TimedMachine(std::unique_ptr<Machine> inner, Seconds& seconds)
      : inner_(std::move(inner)),
        seconds_(seconds) {}

  const ExecutorInfo& info() const override { return inner_->info(); }
  void open_sequence(SequenceId s, std::uint32_t context) override {
    inner_->open_sequence(s, context);
  }
  void close_sequence(SequenceId s) override { inner_->close_sequence(s); }
  void read_state(SequenceId s,
                  const StateSection& section,
                  std::span<std::byte> out) const override {
    inner_->read_state(s, section, out);
  }
  void write_state(SequenceId s,
                   const StateSection& section,
                   std::span<const std::byte> bytes) override {
    inner_->write_state(s, section, bytes);
  }
  void set_steering(const Steering& steering) override { inner_->set_steering(steering); }
  bool begin_pass(bool recordable) override { return inner_->begin_pass(recordable); }
  void end_pass() override { inner_->end_pass(); }
  std::vector<MemoryItem> memory() const override { return inner_->memory(); }

  void begin(const StepRows& step) override {
    timed(Phase::kStreams, [&] { inner_->begin(step); });
  }
  void embed() override {
    timed(Phase::kStreams, [&] { inner_->embed(); });
  }
  void load_streams(ConstRows hidden) override { inner_->load_streams(hidden); }
  void read_streams(Rows hidden) override { inner_->read_streams(hidden); }
  void reduce_streams(LayerIndex l, Sublayer s) override { inner_->reduce_streams(l, s); }
  void normalize(LayerIndex l, Sublayer s) override { inner_->normalize(l, s); }
  void reduce_and_normalize(LayerIndex l, Sublayer s) override {
    timed(Phase::kStreams, [&] { inner_->reduce_and_normalize(l, s); });
  }
  void expand_streams(LayerIndex l, Sublayer s) override {
    timed(Phase::kStreams, [&] { inner_->expand_streams(l, s); });
  }
  void steer(LayerIndex l, Sublayer s) override { inner_->steer(l, s); }
  void project_query(LayerIndex l) override { inner_->project_query(l); }
  void project_key_value(LayerIndex l) override { inner_->project_key_value(l); }
  void compress(LayerIndex l) override { inner_->compress(l); }
  void project_attention(LayerIndex l, bool compresses) override {
    timed(Phase::kProjections, [&] { inner_->project_attention(l, compresses); });
  }
  void select_rows(LayerIndex l) override {
    timed(Phase::kSelection, [&] { inner_->select_rows(l); });
  }
  void attend(LayerIndex l) override {
    timed(Phase::kAttention, [&] { inner_->attend(l); });
  }
  void store_window(LayerIndex l) override {
    timed(Phase::kAttention, [&] { inner_->store_window(l); });
  }
  void project_out(LayerIndex l) override {
    timed(Phase::kOutput, [&] { inner_->project_out(l); });
  }
  void route(LayerIndex l) override {
    timed(Phase::kExperts, [&] { inner_->route(l); });
  }
  void experts(LayerIndex l) override {
    timed(Phase::kExperts, [&] { inner_->experts(l); });
  }
  void store_streams() override { inner_->store_streams(); }
  void recall_streams(const StepRows& step) override { inner_->recall_streams(step); }
  void reuse_streams() override { inner_->reuse_streams(); }
  void combine_mtp() override { inner_->combine_mtp(); }
  void head(HeadKind kind, std::span<const std::uint32_t> rows, Rows logits) override {
    timed(Phase::kHead, [&] { inner_->head(kind, rows, logits); });
  }

 private:
  template <class Call>
  void timed(Phase phase, const Call& call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    seconds_[static_cast<std::size_t>(phase)] += spent.count();
  }

  std::unique_ptr<Machine> inner_;
  Seconds& seconds_;
};

}  // namespace ds4::bench
