#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "engine/prompt_key.h"
#include "engine/sched_active.h"

namespace ds4 {

namespace {

// Fewer shared tokens are not worth a copy between slots.
constexpr std::uint32_t kForkTokensMin = 128;
// In which the chance that a conversation comes back falls to 1/e.
constexpr double kReuseSeconds = 1800;

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Scheduler::Scheduler(Engine& engine, const SchedulerOptions& options, PrefixStore* store)
    : engine_(engine),
      options_(options),
      store_(store),
      batch_(engine, options.slot_count) {
  const SessionOptions session{.context = options.context,
                               .checkpoint_interval = options.checkpoint_interval,
                               .checkpoint_count = options.checkpoint_count};
  for (std::uint32_t i = 0; i < options.slot_count; ++i)
    slots_.push_back(std::make_unique<Slot>(engine, session));
  staged_.reserve(options.slot_count);
  stats_.by_source.resize(static_cast<std::size_t>(ReuseSource::kDisk) + 1);
  stats_.slot_tokens.resize(options.slot_count);
  thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

Scheduler::~Scheduler() {
  thread_.request_stop();
  wake();
  if (thread_.joinable()) thread_.join();
}

void Scheduler::submit(GenerationRequest request, std::shared_ptr<GenerationClient> client) {
  DS4_CHECK(!request.tokens.empty() && request.tokens_max > 0);
  if (request.tokens.size() >= options_.context) {
    throw Error(ErrorCode::kContextOverflow,
                fmt::format("the prompt has {} tokens and the context {}", request.tokens.size(),
                            options_.context));
  }
  const std::lock_guard lock(mutex_);
  if (draining_ || dead_) throw Error(ErrorCode::kCancelled, "the server is shutting down");
  if (waiting_ >= options_.queue_max) {
    ++stats_.rejected;
    throw Error(ErrorCode::kBusy,
                fmt::format("{} requests are waiting already; try again later", waiting_));
  }
  ++waiting_;
  ++stats_.requests;
  inbox_.push_back({std::move(request), std::move(client), Clock::now()});
  wake_ = true;
  wakened_.notify_all();
}

void Scheduler::remember(const SlotTicket& ticket, std::vector<VisibleTurn> turns) {
  const std::lock_guard lock(mutex_);
  remembered_.push_back({ticket, std::move(turns)});
}

void Scheduler::wake() {
  const std::lock_guard lock(mutex_);
  wake_ = true;
  wakened_.notify_all();
}

SchedulerStats Scheduler::stats() {
  std::optional<PrefixStoreStats> store;
  if (store_ != nullptr) store = store_->stats();
  const std::lock_guard lock(mutex_);
  SchedulerStats stats = stats_;
  stats.store = store;
  stats.device_failed = dead_;
  stats.queued = static_cast<std::uint32_t>(waiting_);
  if (step_began_ != Clock::time_point{})
    stats.seconds_in_step = seconds_between(step_began_, Clock::now());
  return stats;
}

double Scheduler::take_longest_step_seconds() {
  const std::lock_guard lock(mutex_);
  return std::exchange(longest_step_seconds_, 0);
}

void Scheduler::drain(Clock::time_point deadline) {
  if (!thread_.joinable()) return;
  {
    std::unique_lock lock(mutex_);
    draining_ = true;
    wakened_.wait_until(lock, deadline,
                        [&] { return (stats_.active == 0 && waiting_ == 0) || dead_; });
  }
  thread_.request_stop();
  wake();
  thread_.join();
}

// --- the engine's thread ---

void Scheduler::run(std::stop_token stop) {
  try {
    while (wait_for_work(stop)) {
      take_inbox();
      reap_cancelled();
      admit();
      advance_loads();
      publish();
      step();
      remove_finished();
      publish();
    }
    take_inbox();
    fail_all(ErrorCode::kCancelled, "the server is shutting down");
    save_slots();
  } catch (const std::exception& error) {
    // A lost device, or a defect: what is in memory can't be trusted any more.
    dead_ = true;
    const auto* known = dynamic_cast<const Error*>(&error);
    log(options_.log, LogLevel::kError, fmt::format("the engine stopped: {}", error.what()));
    take_inbox();
    fail_all(known != nullptr ? known->code() : ErrorCode::kInternal, error.what());
    if (options_.on_device_failure) options_.on_device_failure(error.what());
  }
}

bool Scheduler::is_runnable() const {
  if (queue_.size() > 0 && active_.size() < slots_.size()) return true;
  return std::any_of(active_.begin(), active_.end(), [](const std::unique_ptr<Active>& active) {
    return active->phase == Active::Phase::kLoad || active->phase == Active::Phase::kPrefill ||
           active->client->ready() || active->request.stop.stop_requested();
  });
}

bool Scheduler::wait_for_work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  if (!is_runnable()) wakened_.wait(lock, stop, [&] { return wake_; });
  wake_ = false;
  return !stop.stop_requested();
}

void Scheduler::take_inbox() {
  std::vector<QueuedGeneration> arrived;
  std::vector<Remembered> remembered;
  {
    const std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
    remembered.swap(remembered_);
  }
  for (Remembered& item : remembered) {
    Slot& slot = *slots_[item.ticket.slot];
    if (!slot.busy && slot.serial == item.ticket.serial) slot.remember(std::move(item.turns));
  }
  for (QueuedGeneration& item : arrived)
    queue_.push(std::move(item));
}

void Scheduler::reap_cancelled() {
  for (QueuedGeneration& item : queue_.take_cancelled())
    refuse(item, EndReason::kCancelled);
  for (const auto& active : active_)
    if (active->request.stop.stop_requested()) finish(*active, EndReason::kCancelled);
  remove_finished();
}

void Scheduler::refuse(QueuedGeneration& item, EndReason reason) {
  GenerationResult result;
  result.reason = reason;
  result.error = ErrorCode::kCancelled;
  result.message = "cancelled before it began";
  result.prompt_tokens = static_cast<std::uint32_t>(item.request.tokens.size());
  result.queue_seconds = seconds_between(item.arrived, Clock::now());
  item.client->on_finish(result);
}

// --- slots ---

void Scheduler::admit() {
  while (active_.size() < slots_.size()) {
    std::optional<QueuedGeneration> item = queue_.pop();
    if (!item) break;
    const std::string key = prompt_key(item->request.prompt);
    Beginning beginning = choose_slot(view_of(item->request, key));
    Slot& slot = *beginning.slot;
    Active& active = occupy(std::move(*item), slot);
    active.report = std::move(beginning.report);
    if (beginning.from_disk) {
      active.phase = Active::Phase::kLoad;
      active.load = store_->load(view_of(active.request, key), slot);
      if (active.load == nullptr) end_load(active, false);
    } else {
      start(active, beginning.match);
    }
  }
}

// Shows other threads what is there now.
void Scheduler::publish() {
  const std::lock_guard lock(mutex_);
  waiting_ = queue_.size() + inbox_.size();
  stats_.active = static_cast<std::uint32_t>(active_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i)
    stats_.slot_tokens[i] = slots_[i]->live_tokens();
  wakened_.notify_all();  // drain() may be waiting
}

// The idle slot whose conversation the prompt continues or branches from, by most tokens kept.
Slot* Scheduler::best_continuation(const PromptView& prompt, SlotMatch& match) {
  Slot* best = nullptr;
  for (const auto& slot : slots_) {
    if (slot->busy) continue;
    SlotMatch candidate = slot->match(prompt);
    const bool continues = candidate.source != ReuseSource::kCold &&
                           (candidate.source != ReuseSource::kRewind ||
                            slot->is_same_conversation(candidate.kept_tokens));
    if (!continues || (best != nullptr && candidate.kept_tokens <= match.kept_tokens)) continue;
    best = slot.get();
    match = std::move(candidate);
  }
  return best;
}

// The idle slot that is least missed: long unused, cheap to compute again.
Slot* Scheduler::cheapest_victim() {
  Slot* victim = nullptr;
  double least = 0;
  for (const auto& slot : slots_) {
    if (slot->busy) continue;
    const double age = seconds_between(slot->used, Clock::now());
    const double cost = slot->empty() ? -1 : slot->live_tokens() * std::exp(-age / kReuseSeconds);
    if (victim == nullptr || cost < least) {
      victim = slot.get();
      least = cost;
    }
  }
  return victim;
}

Scheduler::Beginning Scheduler::choose_slot(const PromptView& prompt) {
  Beginning beginning;
  SlotMatch& match = beginning.match;
  if (Slot* slot = best_continuation(prompt, match)) {
    beginning.slot = slot;
    if (slot->live_tokens() <= match.kept_tokens) return beginning;
    diagnose(prompt, beginning.report);
    if (store_ != nullptr) store_->save(*slot, PrefixStore::Moment::kEvict);
    beginning.from_disk = try_disk(prompt, beginning);
    return beginning;
  }
  diagnose(prompt, beginning.report);
  Slot* slot = cheapest_victim();
  DS4_CHECK(slot != nullptr);
  beginning.slot = slot;
  match = slot->match(prompt);
  if (!slot->empty()) {
    if (store_ != nullptr) store_->save(*slot, PrefixStore::Moment::kEvict);
    const std::lock_guard lock(mutex_);
    ++stats_.evictions;
  }
  try_fork(prompt, *slot, match);
  beginning.from_disk = try_disk(prompt, beginning);
  return beginning;
}

void Scheduler::try_fork(const PromptView& prompt, Slot& slot, SlotMatch& match) {
  Slot* source = nullptr;
  std::uint32_t most = match.kept_tokens + kForkTokensMin - 1;
  for (const auto& other : slots_) {
    if (other.get() == &slot) continue;
    const SlotMatch candidate = other->match(prompt);
    const std::uint32_t kept = std::min(candidate.kept_tokens, other->session().length());
    if (candidate.source == ReuseSource::kVisible || kept <= most) continue;
    most = kept;
    source = other.get();
  }
  if (source == nullptr) return;
  // A checkpoint may lie far before the common end; then nothing is gained.
  const std::vector<std::uint32_t> lengths = source->session().checkpoints().lengths();
  const auto beyond = std::upper_bound(lengths.begin(), lengths.end(), most);
  if (beyond == lengths.begin() || *(beyond - 1) < match.kept_tokens + kForkTokensMin) return;
  slot.fork(*source, most);
  match = slot.match(prompt);
  match.source = ReuseSource::kFork;
}

// Gives the slot to a request.
Scheduler::Active& Scheduler::occupy(QueuedGeneration item, Slot& slot) {
  active_.push_back(std::make_unique<Active>(std::move(item), slot, engine_.config().vocab_size));
  Active& active = *active_.back();
  slot.busy = true;
  slot.serial = ++serial_;
  active.ticket = {static_cast<std::uint32_t>(
                       std::find_if(slots_.begin(), slots_.end(),
                                    [&](const auto& other) { return other.get() == &slot; }) -
                       slots_.begin()),
                   slot.serial};
  active.started = Clock::now();
  return active;
}

void Scheduler::start(Active& active, const SlotMatch& match) {
  const std::string key = prompt_key(active.request.prompt);
  const PromptView prompt = view_of(active.request, key);
  Slot& slot = active.slot;
  ReuseReport& report = active.report;
  report.source = match.source;
  if (report.reason.empty()) report.first_difference = match.first_difference;
  const std::uint32_t live = slot.live_tokens();
  active.phase = Active::Phase::kPrefill;
  active.whole = slot.begin(prompt, match);
  // What the bridge and the rest need may exceed what the prompt alone did.
  const bool fits = active.whole.size() < options_.context;
  active.prompt_tokens = static_cast<std::uint32_t>(active.whole.size());
  active.reused_tokens = slot.session().length();
  active.saved_tokens = active.reused_tokens;
  if (store_ != nullptr)
    active.cold_length = store_->cold_length(active.whole, active.reused_tokens);
  if (active.reused_tokens == 0) report.source = ReuseSource::kCold;
  report.slot = active.ticket.slot;
  report.prompt_tokens = active.prompt_tokens;
  report.reused_tokens = active.reused_tokens;
  report.lost_tokens = live > match.kept_tokens ? live - match.kept_tokens : 0;
  {
    const std::lock_guard lock(mutex_);
    stats_.reused_tokens += active.reused_tokens;
    ++stats_.by_source[static_cast<std::size_t>(report.source)];
  }
  active.client->on_start(report);
  if (!fits) {
    slot.clear();
    active.error = ErrorCode::kContextOverflow;
    active.message = "the conversation does not fit the context";
    finish(active, EndReason::kFailed);
  }
}

}  // namespace ds4
