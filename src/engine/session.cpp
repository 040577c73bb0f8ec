#include "engine/session.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "engine/snapshot.h"
#include "sample/sampler.h"

namespace ds4 {

Session::Session(Engine& engine, const SessionOptions& options)
    : engine_(engine),
      executor_(engine.executor()),
      options_(options),
      sequence_(executor_.open_sequence(options.context)),
      logits_(engine.config().vocab_size),
      checkpoints_(executor_, sequence_, options.checkpoint_interval, options.checkpoint_count) {
  tokens_.reserve(options_.context);
  rows_.reserve(executor_.info().rows_max);
  if (executor_.info().candidate_rows_max != 0) candidates_.reserve();
  if (!executor_.info().has_mtp) return;
  const std::size_t rows = executor_.info().rewind_max;
  accepted_.reserve(rows);
  if (rows > executor_.info().candidate_rows_max) {
    verify_logits_.resize(rows * engine.config().vocab_size);
    return;
  }
  verify_queries_.assign(rows, {.options = sample::SamplingOptions::greedy()});
  verify_sets_.resize(rows);
  for (sample::CandidateSet& set : verify_sets_)
    set.reserve();
}

std::uint64_t Session::planned_bytes(const ModelConfig& config,
                                     const StateLayout& layout,
                                     const ExecutorInfo& info,
                                     const SessionOptions& options) {
  constexpr std::uint64_t kCandidates =
      sample::kCandidatesMax * sizeof(sample::CandidateSet::Entry);
  const std::uint64_t logits = config.vocab_size * sizeof(float);
  const bool keeps_candidates = info.candidate_rows_max != 0;
  std::uint64_t total =
      logits + options.context * sizeof(TokenId) + info.rows_max * sizeof(BatchRow) +
      (keeps_candidates ? kCandidates : 0) +
      Checkpoints::planned_bytes(layout, config.window, options.checkpoint_interval,
                                 options.checkpoint_count);
  if (!info.has_mtp) return total;
  const bool verifies_logits = info.rewind_max > info.candidate_rows_max;
  return total + info.rewind_max * (verifies_logits ? logits : kCandidates);
}

Session::~Session() {
  executor_.close_sequence(sequence_);
}

void Session::check_room(std::size_t token_count) const {
  if (token_count <= options_.context) return;
  throw Error(ErrorCode::kContextOverflow,
              fmt::format("{} tokens do not fit the context of {}; shorten the prompt or choose a "
                          "larger context",
                          token_count, options_.context));
}

std::uint32_t Session::common_prefix(std::span<const TokenId> prompt) const {
  const auto [mine, theirs] =
      std::mismatch(tokens_.begin(), tokens_.end(), prompt.begin(), prompt.end());
  return static_cast<std::uint32_t>(mine - tokens_.begin());
}

SyncResult Session::sync(std::span<const TokenId> prompt, const SyncOptions& options) {
  if (prompt.empty()) throw Error(ErrorCode::kInvalidArgument, "the prompt is empty");
  check_room(prompt.size() + 1);
  const std::uint32_t common = common_prefix(prompt);
  SyncResult result;
  if (common == prompt.size() && common == length() && logits_valid_) {
    result.reused = common;
    return result;
  }
  // The last token must run again when its logits are not those kept.
  const auto keep = std::min(common, static_cast<std::uint32_t>(prompt.size() - 1));
  const std::uint32_t before = length();
  if (keep < before) {
    rewind(keep);
    // A rewind may stop at a checkpoint before `keep`; the tokens in between were replayed.
  }
  result.reused = keep;
  prefill(prompt.subspan(keep), options, result);
  return result;
}

void Session::prefill(std::span<const TokenId> suffix,
                      const SyncOptions& options,
                      SyncResult& result) {
  const std::uint32_t rows_max = executor_.info().rows_max;
  const auto total = static_cast<std::uint32_t>(suffix.size());
  while (!suffix.empty()) {
    if (options.stop.stop_requested()) throw Error(ErrorCode::kCancelled, "stopped while reading");
    // Chunks end at absolute multiples, so that checkpoints fall on the same lengths however a
    // session got there.
    const std::uint32_t room = rows_max - length() % rows_max;
    const std::size_t count = std::min<std::size_t>(room, suffix.size());
    run_chunk(suffix.first(count), count == suffix.size() ? logit_output() : BatchOutputs{});
    suffix = suffix.subspan(count);
    result.evaluated += static_cast<std::uint32_t>(count);
    if (options.progress) options.progress(result.evaluated, total);
  }
}

void Session::stage(std::span<const TokenId> tokens,
                    bool wants_logits,
                    std::vector<BatchRow>& rows) const {
  check_room(tokens_.size() + tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    rows.push_back({.token = tokens[i],
                    .position = Position{static_cast<std::uint32_t>(tokens_.size() + i)},
                    .sequence = sequence_,
                    .wants_logits = wants_logits && i + 1 == tokens.size()});
  }
}

void Session::commit(std::span<const TokenId> tokens, std::span<const float> logits) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  DS4_CHECK(executor_.length(sequence_) == tokens_.size());
  candidates_valid_ = false;
  logits_valid_ = !logits.empty();
  if (logits_valid_ && logits.data() != logits_.data())
    std::copy(logits.begin(), logits.end(), logits_.begin());
  save_checkpoint_if_due();
}

// `outputs` say what is wanted of the last token.
void Session::run_chunk(std::span<const TokenId> chunk, BatchOutputs outputs) {
  const bool wants_logits = outputs.logits.size() != 0;
  rows_.clear();
  stage(chunk, wants_logits || !outputs.candidates.empty(), rows_);
  forget_logits();
  Throttle& throttle = engine_.throttle();
  throttle.start();
  // Only long work is split: a decode step sleeps once, after itself.
  const bool split = throttle.percent() < 100 && chunk.size() > 1;
  executor_.set_layer_hook(split ? [](void* context) { static_cast<Throttle*>(context)->pause(); }
                                 : Executor::LayerHook{},
                           &throttle);
  executor_.run({rows_}, outputs);
  throttle.pause();
  commit(chunk, wants_logits ? std::span<const float>(logits_) : std::span<const float>{});
}

void Session::forget_logits() {
  logits_valid_ = false;
  candidates_valid_ = false;
}

void Session::save_checkpoint_if_due() {
  if (length() % options_.checkpoint_interval == 0) checkpoints_.save();
}

void Session::eval(TokenId token) {
  check_room(std::size_t{length()} + 1);
  run_chunk({&token, 1}, logit_output());
}

void Session::eval_for_draw(TokenId token, const sample::SamplingOptions& options) {
  if (executor_.info().candidate_rows_max == 0) return eval(token);
  check_room(std::size_t{length()} + 1);
  const sample::CandidateQuery query{.options = options};
  run_chunk({&token, 1}, {.queries = {&query, 1}, .candidates = {&candidates_, 1}});
  candidate_row_ = 0;
  candidates_valid_ = true;
}

TokenId Session::draw(sample::Sampler& sampler,
                      const sample::SamplingOptions& options,
                      const sample::TokenSet* allowed) {
  if (candidates_valid_ && allowed == nullptr)
    if (const auto token = sampler.sample(candidates_, options)) return *token;
  fetch_logits();
  return sampler.sample(logits_, options, allowed);
}

void Session::fetch_logits() {
  if (logits_valid_) return;
  DS4_CHECK(candidates_valid_);
  executor_.read_logits(candidate_row_, logits_);
  logits_valid_ = true;
}

std::span<const TokenId> Session::eval_speculative(TokenId first,
                                                   std::uint32_t draft_count,
                                                   TokenId stop) {
  accepted_.clear();
  const std::uint32_t room = options_.context - length();
  const ExecutorInfo& info = executor_.info();
  // One more row is that of `first`; more than that would be rounded otherwise than without drafts.
  const std::uint32_t drafts_max =
      std::min({info.rewind_max / 2, info.rows_max - 1, info.decode_rows_max - 1});
  draft_count = std::min({draft_count, drafts_max, room == 0 ? 0 : room - 1});
  if (!info.has_mtp || length() == 0) draft_count = 0;
  if (draft_count == 0 || first == stop) {
    eval(first);
    accepted_.push_back(first);
    return accepted_;
  }
  const std::uint32_t before = length();
  // Drafts, each from the one before it.
  rows_.clear();
  rows_.push_back({first, Position{before}, sequence_, true});
  for (std::uint32_t depth = 0; depth < draft_count && rows_.back().token != stop; ++depth) {
    const TokenId draft = draft_after(rows_.back().token, depth);
    rows_.push_back({draft, Position{before + depth + 1}, sequence_, true});
  }
  // One pass over all of them; a draft stands when it is what the row before it would choose.
  forget_logits();
  Throttle& throttle = engine_.throttle();
  throttle.start();
  executor_.set_layer_hook(nullptr, nullptr);
  executor_.run({rows_}, verify_outputs());
  throttle.pause();
  std::size_t accepted = 1;
  while (accepted < rows_.size() && verified_choice(accepted - 1) == rows_[accepted].token)
    ++accepted;
  for (std::size_t i = 0; i < accepted; ++i)
    accepted_.push_back(rows_[i].token);
  executor_.truncate(sequence_, before + static_cast<std::uint32_t>(accepted));
  tokens_.insert(tokens_.end(), accepted_.begin(), accepted_.end());
  adopt_verified(accepted - 1);
  save_checkpoint_if_due();
  return accepted_;
}

TokenId Session::draft_after(TokenId token, std::uint32_t depth) {
  if (!verify_sets_.empty()) return executor_.draft_token(sequence_, token, depth);
  const std::span<float> logits = std::span(verify_logits_).first(logits_.size());
  executor_.draft(sequence_, token, depth, logits);
  return sample::argmax(logits);
}

BatchOutputs Session::verify_outputs() {
  if (verify_sets_.empty())
    return {.logits = Rows(verify_logits_.data(), {rows_.size(), logits_.size()})};
  return {.queries = std::span(verify_queries_).first(rows_.size()),
          .candidates = std::span(verify_sets_).first(rows_.size())};
}

// What row `index` of the verified ones would choose.
TokenId Session::verified_choice(std::size_t index) const {
  if (!verify_sets_.empty()) return sample::argmax(verify_sets_[index]);
  return sample::argmax(std::span(verify_logits_).subspan(index * logits_.size(), logits_.size()));
}

// Makes the results of that row the session's.
void Session::adopt_verified(std::size_t index) {
  if (verify_sets_.empty()) {
    const std::size_t vocab = logits_.size();
    std::copy_n(verify_logits_.begin() + static_cast<std::ptrdiff_t>(index * vocab), vocab,
                logits_.begin());
    logits_valid_ = true;
    return;
  }
  std::swap(candidates_, verify_sets_[index]);
  candidate_row_ = index;
  candidates_valid_ = true;
}

std::uint32_t Session::cut_back(std::uint32_t target) {
  DS4_CHECK(target <= length());
  if (target == length()) return target;
  forget_logits();
  if (target > 0 && target >= executor_.shortest_truncation(sequence_)) {
    executor_.truncate(sequence_, target);
    checkpoints_.drop_beyond(target);
    tokens_.resize(target);
    return target;
  }
  const std::optional<std::uint32_t> restored =
      target == 0 ? std::nullopt : checkpoints_.restore(target);
  if (restored) {
    tokens_.resize(*restored);
  } else {
    clear();
  }
  return length();
}

void Session::rewind(std::uint32_t target) {
  DS4_CHECK(target <= length());
  if (target == length()) return;
  const std::vector<TokenId> kept(tokens_.begin(), tokens_.begin() + target);
  const std::uint32_t restored = cut_back(target);
  SyncResult ignored;
  prefill(std::span(kept).subspan(restored), {}, ignored);
  forget_logits();
}

void Session::clear() {
  executor_.truncate(sequence_, 0);
  checkpoints_.drop_beyond(0);
  tokens_.clear();
  forget_logits();
}

void Session::adopt(std::span<const TokenId> tokens, std::span<const float> logits) {
  DS4_CHECK(executor_.length(sequence_) == tokens.size());
  tokens_.assign(tokens.begin(), tokens.end());
  checkpoints_.drop_beyond(0);
  candidates_valid_ = false;
  logits_valid_ = !logits.empty();
  if (logits_valid_) std::copy(logits.begin(), logits.end(), logits_.begin());
  if (!tokens_.empty()) checkpoints_.save();
}

std::vector<std::byte> Session::export_state() const {
  return write_snapshot(
      {.fingerprint = engine_.info().fingerprint,
       .tokens = tokens_,
       .logits = logits_valid_ ? std::span<const float>(logits_) : std::span<const float>{}},
      executor_, sequence_);
}

void Session::import_state(std::span<const std::byte> bytes) {
  const Snapshot snapshot(bytes, engine_.info().fingerprint, executor_, options_.context);
  clear();
  snapshot.restore(executor_, sequence_);
  adopt(snapshot.tokens(), snapshot.logits());
}

}  // namespace ds4
