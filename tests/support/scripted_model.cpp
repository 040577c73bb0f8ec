#include "tests/support/scripted_model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/markers.h"
#include "tokenizer/vocabulary.h"

namespace ds4::test {

namespace {

using tokenizer::Tokenizer;

constexpr std::uint32_t kRowTokens = 128;

// Its state is its history, which its rows spell out: a compressed row the ids of its 128 tokens,
// any other row the id of its own.
class ScriptedExecutor final : public Executor {
 public:
  ScriptedExecutor(ScriptedOptions options,
                   std::shared_ptr<const Tokenizer> tokenizer,
                   std::shared_ptr<ScriptLog> log)
      : options_(std::move(options)),
        tokenizer_(std::move(tokenizer)),
        log_(std::move(log)),
        config_(config_of(*tokenizer_)),
        layout_(config_, RowCodec::kExact, false) {
    info_.backend = "scripted";
    info_.device = "none";
    info_.rows_max = options_.rows_max;
    info_.rewind_max = 1;
    otherwise_ = tokenizer_->encode_with_special(options_.otherwise);
    for (const ScriptRule& rule : options_.rules)
      scripts_.push_back(tokenizer_->encode_with_special(rule.answer));
    info_.candidate_rows_max = options_.keeps_logits ? 32 : 0;
    kept_logits_.resize(std::size_t{info_.candidate_rows_max} * config_.vocab_size);
  }

  const ExecutorInfo& info() const override { return info_; }
  const ModelConfig& config() const override { return config_; }
  const StateLayout& layout() const override { return layout_; }

  SequenceId open_sequence(std::uint32_t context) override {
    const SequenceId id{next_++};
    histories_[id].reserve(context);
    return id;
  }
  void close_sequence(SequenceId sequence) override { histories_.erase(sequence); }
  std::uint32_t length(SequenceId sequence) const override {
    return static_cast<std::uint32_t>(histories_.at(sequence).size());
  }

  void run(const Batch& batch, const BatchOutputs& outputs) override {
    check_device();
    std::size_t out = 0;
    std::uint32_t sequences = 0;
    const bool keeps = !outputs.candidates.empty();
    const SequenceId* last = nullptr;
    for (const BatchRow& row : batch.rows) {
      std::vector<TokenId>& history = histories_.at(row.sequence);
      DS4_CHECK(row.position.value() == history.size());
      history.push_back(row.token);
      if (last == nullptr || *last != row.sequence) ++sequences;
      last = &row.sequence;
      if (!row.wants_logits) continue;
      float* logits =
          (keeps ? kept_logits_.data() : outputs.logits.data()) + out * config_.vocab_size;
      std::fill_n(logits, config_.vocab_size, 0.0F);
      logits[next_token(history).value()] = 100.0F;
      if (keeps) fill(outputs.candidates[out], next_token(history));
      ++out;
    }
    if (log_) log_->add(static_cast<std::uint32_t>(batch.rows.size()), sequences);
    std::this_thread::sleep_for(options_.per_run + options_.per_row * batch.rows.size());
  }

  void read_logits(std::size_t index, std::span<float> logits) override {
    check_device();
    std::copy_n(kept_logits_.begin() + static_cast<std::ptrdiff_t>(index * config_.vocab_size),
                config_.vocab_size, logits.begin());
  }
  void draft(SequenceId, TokenId, std::uint32_t, std::span<float>) override { DS4_CHECK(false); }
  void truncate(SequenceId sequence, std::uint32_t length) override {
    histories_.at(sequence).resize(length);
  }
  std::uint32_t shortest_truncation(SequenceId) const override { return 0; }
  void read_state(SequenceId sequence,
                  const StateSection& section,
                  std::span<std::byte> out) const override {
    const std::vector<TokenId>& history = histories_.at(sequence);
    const std::uint32_t tokens = tokens_of(section);
    for (std::uint32_t row = 0; row < section.count; ++row) {
      std::memset(out.data() + row * section.row_bytes, 0, section.row_bytes);
      std::memcpy(out.data() + row * section.row_bytes,
                  history.data() + std::size_t{section.first + row} * tokens,
                  tokens * sizeof(TokenId));
    }
  }
  void begin_restore(SequenceId sequence, std::uint32_t length) override {
    histories_.at(sequence).assign(length, TokenId{0});
  }
  void write_state(SequenceId sequence,
                   const StateSection& section,
                   std::span<const std::byte> in) override {
    std::vector<TokenId>& history = histories_.at(sequence);
    const std::uint32_t tokens = tokens_of(section);
    for (std::uint32_t row = 0; row < section.count; ++row) {
      std::memcpy(history.data() + std::size_t{section.first + row} * tokens,
                  in.data() + row * section.row_bytes, tokens * sizeof(TokenId));
    }
  }
  void set_steering(const Steering&) override {}
  void set_layer_hook(LayerHook, void*) override {}
  std::vector<MemoryItem> memory() const override { return {}; }

 private:
  static ModelConfig config_of(const Tokenizer& tokenizer) {
    ModelConfig config;
    config.name = "scripted";
    config.vocab_size = static_cast<std::uint32_t>(tokenizer.size());
    config.context_max = 1U << 20;
    config.window = kRowTokens;
    config.head_dim = kRowTokens;
    config.layer_count = 1;
    config.layers = {LayerPlan{.ratio = kRowTokens}};
    return config;
  }

  static std::uint32_t tokens_of(const StateSection& section) {
    return section.part == StatePart::kCompressed ? kRowTokens : 1;
  }

  TokenId next_token(const std::vector<TokenId>& history) const {
    const TokenId assistant = tokenizer_->marker(tokenizer::kAssistantMarker);
    const auto last = std::find(history.rbegin(), history.rend(), assistant);
    const auto opener = static_cast<std::size_t>(history.rend() - last);  // behind the marker
    const std::string before = tokenizer_->decode(std::span(history).first(opener));
    const std::vector<TokenId>* script = &otherwise_;
    std::size_t latest = 0;
    for (std::size_t i = 0; i < options_.rules.size(); ++i) {
      const std::size_t at = before.rfind(options_.rules[i].trigger);
      if (at == std::string::npos || at < latest) continue;
      latest = at;
      script = &scripts_[i];
    }
    // One token behind the marker opens or closes the reasoning.
    const std::size_t said = history.size() - std::min(history.size(), opener + 1);
    return said < script->size() ? (*script)[said] : tokenizer_->eos();
  }

  void check_device() {
    if (options_.lost_at_run == 0 || ++runs_ < options_.lost_at_run) return;
    if (options_.lost != nullptr) *options_.lost = true;
    throw Error(ErrorCode::kDevice, kLostDeviceMessage);
  }

  // Only the next token weighs anything: e^-100 of the others is below every cut.
  static void fill(sample::CandidateSet& set, TokenId next) {
    set.entries.assign(1, {next, 100.0F});
    set.total = 1;
    set.complete = true;
    set.holds_min_p = true;
  }

  ScriptedOptions options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<ScriptLog> log_;
  std::vector<TokenId> otherwise_;
  std::vector<std::vector<TokenId>> scripts_;  // of the rules' answers
  std::uint64_t runs_ = 0;
  std::vector<float> kept_logits_;  // [candidate_rows_max, vocab_size]
  ModelConfig config_;
  ExecutorInfo info_;
  StateLayout layout_;
  std::map<SequenceId, std::vector<TokenId>> histories_;
  std::uint32_t next_ = 0;
};

}  // namespace

void ScriptLog::add(std::uint32_t rows, std::uint32_t sequences) {
  const std::lock_guard lock(mutex_);
  rows_ += rows;
  ++runs_;
  sequences_max_ = std::max(sequences_max_, sequences);
}

std::uint64_t ScriptLog::rows() const {
  const std::lock_guard lock(mutex_);
  return rows_;
}

std::uint64_t ScriptLog::runs() const {
  const std::lock_guard lock(mutex_);
  return runs_;
}

std::uint32_t ScriptLog::sequences_max() const {
  const std::lock_guard lock(mutex_);
  return sequences_max_;
}

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  tokenizer::Vocabulary vocabulary;
  const auto add = [&](std::string token, tokenizer::TokenKind kind) {
    vocabulary.tokens.push_back(std::move(token));
    vocabulary.kinds.push_back(kind);
  };
  for (int byte = 0; byte < 256; ++byte)
    add(tokenizer::bytes_to_alphabet(std::string(1, static_cast<char>(byte))),
        tokenizer::TokenKind::kText);
  for (const std::string_view name :
       {tokenizer::kBosMarker, tokenizer::kEosMarker, tokenizer::kPadMarker})
    add(std::string(name), tokenizer::TokenKind::kControl);
  for (const std::string_view name :
       {tokenizer::kUserMarker, tokenizer::kAssistantMarker, tokenizer::kThinkMarker,
        tokenizer::kThinkEndMarker, tokenizer::kDsmlMarker, tokenizer::kLatestReminderMarker,
        tokenizer::kActionMarker, tokenizer::kQueryMarker, tokenizer::kAuthorityMarker,
        tokenizer::kDomainMarker, tokenizer::kTitleMarker, tokenizer::kReadUrlMarker})
    add(std::string(name), tokenizer::TokenKind::kAdded);
  return std::make_shared<const Tokenizer>(vocabulary);
}

std::unique_ptr<Engine> scripted_engine(const ScriptedOptions& options,
                                        std::shared_ptr<ScriptLog> log) {
  auto tokenizer = byte_tokenizer();
  ModelInfo info;
  info.path = "scripted";
  info.name = "scripted";
  info.quantisation = "none";
  return std::make_unique<Engine>(
      info, std::make_unique<ScriptedExecutor>(options, tokenizer, std::move(log)), tokenizer,
      nullptr);
}

}  // namespace ds4::test
