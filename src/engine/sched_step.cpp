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
  batch_.clear();
  staged_.clear();
  ++turn_;
  stage_decodes();
  stage_prefills();
  if (batch_.empty()) return;
  run_batch();
  commit_batch();
}

void Scheduler::stage(Active& active, std::span<const TokenId> tokens, bool wants_result) {
  const StepBatch::Wanted wanted{.sampling = active.request.sampling,
                                 .needs_logits = active.request.top_logprobs.has_value()};
  batch_.add(active.slot.session(), tokens, wants_result ? &wanted : nullptr);
  staged_.push_back({&active, tokens, wants_result});
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
    if (active->phase != Active::Phase::kDecode || batch_.row_count() >= rows_max) continue;
    if (!active->client->ready()) continue;
    if (active->slot.session().length() >= options_.context) {
      finish(*active, EndReason::kLength);
      continue;
    }
    stage(*active, std::span(&active->pending, 1), true);
  }
}

// Prompt tokens that this step may read.
std::uint32_t Scheduler::prefill_budget() const {
  const auto room = static_cast<std::uint32_t>(batch_.row_room());
  if (batch_.empty() || seconds_per_row_ <= 0) return room;
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
    const std::uint32_t length = active->slot.session().length();
    const auto left = static_cast<std::uint32_t>(active->whole.size()) - length;
    // Chunks end where checkpoints are due.
    const std::uint32_t to_checkpoint =
        options_.checkpoint_interval - length % options_.checkpoint_interval;
    std::uint32_t count = std::min({left, to_checkpoint, budget});
    // And where the store wants a copy.
    if (length < active->cold_length) count = std::min(count, active->cold_length - length);
    stage(*active, std::span(active->whole).subspan(length, count), count == left);
    active->served_turn = turn_;
    budget -= count;
  }
}

void Scheduler::run_batch() {
  const auto began = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    step_began_ = began;
  }
  batch_.run(batch_.row_count() > slots_.size());
  const double seconds = seconds_since(began);
  const double per_row = seconds / static_cast<double>(batch_.row_count());
  // Only batches with prompts say what a prompt token costs.
  if (batch_.row_count() > staged_.size()) {
    seconds_per_row_ =
        seconds_per_row_ <= 0 ? per_row : kKeepRate * seconds_per_row_ + (1 - kKeepRate) * per_row;
  }
  const std::lock_guard lock(mutex_);
  ++stats_.steps;
  longest_step_seconds_ = std::max(longest_step_seconds_, seconds);
  step_began_ = {};
}

void Scheduler::commit_batch() {
  std::size_t result = 0;
  std::uint64_t prefilled = 0;
  std::uint64_t decoded = 0;
  for (const Staged& staged : staged_) {
    Active& active = *staged.active;
    std::span<const float> logits;
    if (staged.wants_result) {
      active.result = result++;
      logits = batch_.logits(active.result);
    }
    active.slot.session().commit(staged.tokens, logits);
    save_if_due(active);
    if (active.phase == Active::Phase::kPrefill) {
      prefilled += staged.tokens.size();
      if (active.generated_tokens == 0)
        active.client->on_prefill(active.slot.session().length(), active.prompt_tokens);
      if (!staged.wants_result) continue;
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
  const TokenChoice choice = active.client->choice();
  GeneratedToken drawn;
  drawn.token = batch_.draw(
      active.result, active.sampler,
      choice.greedy ? sample::SamplingOptions::greedy() : active.request.sampling, choice.allowed);
  drawn.is_end = drawn.token == engine_.tokenizer().eos();
  if (active.request.top_logprobs) {
    const std::span<const float> logits = batch_.logits(active.result);
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
