// One step of the Scheduler: stage a batch, run it, hand out what came of it.
#include <algorithm>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "engine/sched_active.h"
#include "engine/scheduler.h"

namespace ds4 {

namespace {

// A prompt is read in pieces of at least this many tokens, whatever the step's target.
constexpr std::uint32_t kPrefillTokensMin = 16;
// Prompts that wait get one in so many rows, however many answers are being decoded.
constexpr std::size_t kPromptShare = 4;
constexpr double kKeepRate = 0.8;  // weight of the past in the moving average of seconds per row

double seconds_since(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

}  // namespace

void Scheduler::step() {
  rows_.clear();
  staged_.clear();
  ++turn_;
  stage_decodes();
  stage_prefills();
  if (rows_.empty()) return;
  run_batch();
  commit_batch();
}

void Scheduler::stage_decodes() {
  std::size_t rows_max = engine_.executor().info().rows_max;
  const bool prompts_wait = std::any_of(active_.begin(), active_.end(), [](const auto& active) {
    return active->phase == Active::Phase::kPrefill;
  });
  if (prompts_wait) rows_max -= std::max<std::size_t>(rows_max / kPromptShare, 1);
  // Where a batch does not hold all of them, each step begins with another one.
  const std::size_t first = active_.size() > rows_max ? turn_ % active_.size() : 0;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    const auto& active = active_[(first + i) % active_.size()];
    if (active->phase != Active::Phase::kDecode || rows_.size() >= rows_max) continue;
    if (!active->client->ready()) continue;
    if (active->slot.session().length() >= options_.context) {
      finish(*active, EndReason::kLength);
      continue;
    }
    const std::span<const TokenId> token(&active->pending, 1);
    active->slot.session().stage(token, true, rows_);
    staged_.push_back({active.get(), token, true});
  }
}

// Prompt tokens that this step may read.
std::uint32_t Scheduler::prefill_budget() const {
  const std::uint32_t rows_max = engine_.executor().info().rows_max;
  const auto room = static_cast<std::uint32_t>(rows_max - rows_.size());
  if (rows_.empty() || seconds_per_row_ <= 0) return room;
  const double target = std::chrono::duration<double>(options_.step_target).count();
  const auto wanted = static_cast<std::uint32_t>(std::min(target / seconds_per_row_, 1e6));
  return std::min(room, std::max(wanted, kPrefillTokensMin));
}

void Scheduler::stage_prefills() {
  std::vector<Active*> waiting;
  for (const auto& active : active_)
    if (active->phase == Active::Phase::kPrefill) waiting.push_back(active.get());
  std::stable_sort(waiting.begin(), waiting.end(), [](const Active* a, const Active* b) {
    if (a->request.priority != b->request.priority)
      return a->request.priority > b->request.priority;
    return a->served_turn < b->served_turn;
  });
  std::uint32_t budget = prefill_budget();
  for (Active* active : waiting) {
    if (budget == 0) break;
    Session& session = active->slot.session();
    const std::uint32_t length = session.length();
    const auto left = static_cast<std::uint32_t>(active->whole.size()) - length;
    // Chunks end where checkpoints are due.
    const std::uint32_t to_checkpoint =
        options_.checkpoint_interval - length % options_.checkpoint_interval;
    std::uint32_t count = std::min({left, to_checkpoint, budget});
    // And where the store wants a copy.
    if (length < active->cold_length) count = std::min(count, active->cold_length - length);
    const std::span<const TokenId> tokens(active->whole.data() + length, count);
    session.stage(tokens, count == left, rows_);
    staged_.push_back({active, tokens, count == left});
    active->served_turn = turn_;
    budget -= count;
  }
}

// Whole rows of logits, or what the draws depend on where the executor keeps the rows; log
// probabilities need whole rows.
BatchOutputs Scheduler::outputs_for(std::size_t logit_rows) {
  draws_from_candidates_ =
      logit_rows > 0 && logit_rows <= engine_.executor().info().candidate_rows_max &&
      std::none_of(staged_.begin(), staged_.end(), [](const Staged& staged) {
        return staged.wants_logits && staged.active->request.top_logprobs.has_value();
      });
  if (logit_rows == 0) return {};
  if (!draws_from_candidates_)
    return {.logits = Rows(logits_.data(), {logit_rows, engine_.config().vocab_size})};
  queries_.clear();
  for (const Staged& staged : staged_)
    if (staged.wants_logits) queries_.push_back({.options = staged.active->request.sampling});
  return {.queries = queries_, .candidates = std::span(candidates_).first(logit_rows)};
}

void Scheduler::run_batch() {
  std::size_t logit_rows = 0;
  for (const Staged& staged : staged_)
    logit_rows += staged.wants_logits ? 1 : 0;
  const BatchOutputs outputs = outputs_for(logit_rows);
  Throttle& throttle = engine_.throttle();
  const auto began = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    step_began_ = began;
  }
  throttle.start();
  const bool split = throttle.percent() < 100 && rows_.size() > slots_.size();
  engine_.executor().set_layer_hook(
      split ? [](void* context) { static_cast<Throttle*>(context)->pause(); }
            : Executor::LayerHook{},
      &throttle);
  engine_.executor().run({rows_}, outputs);
  throttle.pause();
  const double seconds = seconds_since(began);
  const double per_row = seconds / static_cast<double>(rows_.size());
  // Only batches with prompts say what a prompt token costs.
  if (rows_.size() > staged_.size()) {
    seconds_per_row_ =
        seconds_per_row_ <= 0 ? per_row : kKeepRate * seconds_per_row_ + (1 - kKeepRate) * per_row;
  }
  const std::lock_guard lock(mutex_);
  ++stats_.steps;
  longest_step_seconds_ = std::max(longest_step_seconds_, seconds);
  step_began_ = {};
}

void Scheduler::commit_batch() {
  const std::size_t vocab = engine_.config().vocab_size;
  std::size_t logit_row = 0;
  std::uint64_t prefilled = 0;
  std::uint64_t decoded = 0;
  for (const Staged& staged : staged_) {
    Active& active = *staged.active;
    std::span<const float> logits;
    if (staged.wants_logits) {
      active.logit_row = logit_row++;
      if (!draws_from_candidates_)
        logits = std::span(logits_).subspan(active.logit_row * vocab, vocab);
    }
    active.slot.session().commit(staged.tokens, logits);
    save_if_due(active);
    if (active.phase == Active::Phase::kPrefill) {
      prefilled += staged.tokens.size();
      if (active.generated_tokens == 0)
        active.client->on_prefill(active.slot.session().length(), active.prompt_tokens);
      if (!staged.wants_logits) continue;
      active.phase = Active::Phase::kDecode;
      if (active.generated_tokens == 0) active.decoding = Clock::now();
    } else {
      ++decoded;
    }
    choose_next(active);
  }
  const std::lock_guard lock(mutex_);
  stats_.prefill_tokens += prefilled;
  stats_.decode_tokens += decoded;
}

// From the step's candidates, else from the session's logits, which a mask needs.
TokenId Scheduler::draw(Active& active, const TokenChoice& choice) {
  const sample::SamplingOptions options =
      choice.greedy ? sample::SamplingOptions::greedy() : active.request.sampling;
  if (!draws_from_candidates_)
    return active.sampler.sample(active.slot.session().logits(), options, choice.allowed);
  if (choice.allowed == nullptr)
    if (const auto token = active.sampler.sample(candidates_[active.logit_row], options))
      return *token;
  const std::span<float> logits = std::span(logits_).first(engine_.config().vocab_size);
  engine_.executor().read_logits(active.logit_row, logits);
  return active.sampler.sample(logits, options, choice.allowed);
}

// What goes wrong in taking one answer ends that answer alone; a lost device ends all.
void Scheduler::choose_next(Active& active) {
  try {
    draw_next(active);
  } catch (const std::exception& error) {
    const auto* known = dynamic_cast<const Error*>(&error);
    if (known != nullptr && known->code() == ErrorCode::kDevice) throw;  // ends all of them
    log(options_.log, LogLevel::kError, fmt::format("an answer failed: {}", error.what()));
    active.error = ErrorCode::kInternal;
    active.message = "internal error";
    finish(active, EndReason::kFailed);
  }
}

void Scheduler::draw_next(Active& active) {
  const std::span<const float> logits = active.slot.session().logits();
  const TokenChoice choice = active.client->choice();
  GeneratedToken drawn;
  drawn.token = draw(active, choice);
  drawn.is_end = drawn.token == engine_.tokenizer().eos();
  if (active.request.top_logprobs) {
    drawn.logprob = sample::token_logprob(logits, drawn.token);
    drawn.top = active.sampler.top_logprobs(logits, *active.request.top_logprobs);
  }
  ++active.generated_tokens;
  active.slot.push(drawn.token);
  active.pending = drawn.token;
  switch (active.client->on_token(drawn)) {
    case TokenVerdict::kInsert:
      insert(active);
      return;
    case TokenVerdict::kFinish:
      finish(active, EndReason::kClient);
      return;
    case TokenVerdict::kContinue:
      break;
  }
  if (drawn.is_end) {
    finish(active, EndReason::kEndOfTurn);
  } else if (active.generated_tokens >= active.request.tokens_max ||
             active.slot.live_tokens() >= options_.context) {
    finish(active, EndReason::kLength);
  }
}

void Scheduler::insert(Active& active) {
  const TokenInsertion insertion = active.client->insertion();
  if (insertion.drops_token) {
    active.slot.pop();
    --active.generated_tokens;
  }
  for (const TokenId token : insertion.tokens)
    active.slot.push(token);
  active.generated_tokens += static_cast<std::uint32_t>(insertion.tokens.size());
  if (active.generated_tokens >= active.request.tokens_max ||
      active.slot.live_tokens() >= options_.context) {
    finish(active, EndReason::kLength);
    return;
  }
  const std::span<const TokenId> transcript = active.slot.transcript();
  active.whole.assign(transcript.begin(), transcript.end());
  // Nothing to evaluate: draw again from the same logits.
  if (active.slot.session().length() == active.whole.size()) {
    choose_next(active);
    return;
  }
  active.phase = Active::Phase::kPrefill;
}

void Scheduler::finish(Active& active, EndReason reason) {
  if (active.phase == Active::Phase::kDone) return;
  if (active.phase == Active::Phase::kPrefill) active.slot.drop_unevaluated();
  if (active.phase == Active::Phase::kLoad) {
    active.load.reset();
    active.slot.clear();
  }
  const bool decoded = active.decoding != Clock::time_point{};
  active.phase = Active::Phase::kDone;
  active.slot.busy = false;
  active.slot.used = Clock::now();
  GenerationResult result;
  result.reason = reason;
  result.error = active.error;
  result.message = active.message;
  result.prompt_tokens = active.prompt_tokens;
  result.reused_tokens = active.reused_tokens;
  result.generated_tokens = active.generated_tokens;
  result.queue_seconds = std::chrono::duration<double>(active.started - active.arrived).count();
  const auto prefill_end = decoded ? active.decoding : active.slot.used;
  result.prefill_seconds = std::chrono::duration<double>(prefill_end - active.started).count();
  if (decoded) result.decode_seconds = seconds_since(active.decoding);
  result.ticket = active.ticket;
  active.client->on_finish(result);
  const std::lock_guard lock(mutex_);
  if (reason == EndReason::kCancelled) ++stats_.cancelled;
  if (reason == EndReason::kFailed) ++stats_.failed;
}

void Scheduler::remove_finished() {
  std::erase_if(active_, [](const std::unique_ptr<Active>& active) {
    return active->phase == Active::Phase::kDone;
  });
}

void Scheduler::fail_all(ErrorCode code, const std::string& message) {
  for (const auto& active : active_) {
    active->error = code;
    active->message = message;
    finish(*active, code == ErrorCode::kCancelled ? EndReason::kCancelled : EndReason::kFailed);
  }
  remove_finished();
  for (QueuedGeneration& item : queue_.take_all())
    refuse(item, EndReason::kCancelled);
  const std::lock_guard lock(mutex_);
  waiting_ = 0;
  stats_.active = 0;
  wakened_.notify_all();
}

}  // namespace ds4
