// The Scheduler and its store: what comes from it, what goes to it, and why memory was not enough.
#include <algorithm>
#include <utility>

#include "engine/prompt_key.h"
#include "engine/sched_active.h"
#include "engine/scheduler.h"

namespace ds4 {

namespace {

constexpr std::size_t kShownBytes = 40;  // on either side of a difference
// How long a step may wait for a store when there is nothing else to do.
constexpr std::chrono::milliseconds kLoadWait{5};
constexpr std::uint32_t kLoadAttemptsMax = 8;

}  // namespace

// Says which conversation in memory is closest to the prompt and where it parts from it.
void Scheduler::diagnose(const PromptView& prompt, ReuseReport& report) const {
  const Slot* closest = nullptr;
  for (const auto& slot : slots_) {
    if (slot->empty() || slot->name_space() != prompt.name_space) continue;
    const std::size_t common = common_prefix_bytes(slot->key(), prompt.key);
    if (closest != nullptr && common <= report.first_difference) continue;
    closest = slot.get();
    report.first_difference = common;
  }
  if (closest == nullptr) {
    report.reason = "nothing-in-memory";
    return;
  }
  const std::size_t at = report.first_difference;
  if (at == prompt.key.size())
    report.reason = "ends-inside";
  else if (at < closest->key().size())
    report.reason = "differs";
  else
    report.reason = "busy";
  const std::size_t from = at - std::min(at, kShownBytes);
  report.expected = closest->key().substr(from, 2 * kShownBytes);
  report.found = prompt.key.substr(from, 2 * kShownBytes);
}

// True when the store has so much more of the prompt than the chosen slot that it is worth a load;
// the slot is then empty.
bool Scheduler::try_disk(const PromptView& prompt, Beginning& beginning) {
  if (store_ == nullptr) return false;
  StoredPrefix stored = store_->lookup(prompt);
  beginning.report.explain_store = std::move(stored.explain);
  if (stored.token_count < beginning.match.kept_tokens + std::max(store_->gain_min(), 1U))
    return false;
  beginning.slot->clear();
  return true;
}

void Scheduler::advance_loads() {
  const bool alone =
      std::none_of(active_.begin(), active_.end(), [](const std::unique_ptr<Active>& active) {
        return active->phase == Active::Phase::kPrefill ||
               (active->phase == Active::Phase::kDecode && active->client->ready());
      });
  for (std::size_t i = 0; i < active_.size(); ++i) {
    Active& active = *active_[i];
    if (active.phase != Active::Phase::kLoad) continue;
    const auto now = Clock::now();
    const StateLoad::Progress progress = active.load->advance(alone ? now + kLoadWait : now);
    if (progress != StateLoad::Progress::kMore)
      end_load(active, progress == StateLoad::Progress::kDone);
  }
}

void Scheduler::end_load(Active& active, bool loaded) {
  active.load.reset();
  const std::string key = prompt_key(active.request.prompt);
  if (!loaded) {
    active.slot.clear();
    // What failed is found no more: something shorter may be.
    const PromptView prompt = view_of(active.request, key);
    if (++active.failed_loads < kLoadAttemptsMax &&
        store_->lookup(prompt).token_count >= std::max(store_->gain_min(), 1U))
      active.load = store_->load(prompt, active.slot);
    if (active.load != nullptr) return;
  }
  SlotMatch match = active.slot.match(view_of(active.request, key));
  if (loaded && match.source != ReuseSource::kCold) match.source = ReuseSource::kDisk;
  start(active, match);
}

void Scheduler::save_if_due(Active& active) {
  if (store_ == nullptr) return;
  const std::uint32_t length = active.slot.session().length();
  const std::uint32_t interval = store_->continued_interval();
  if (length == active.cold_length) {
    store_->save(active.slot, PrefixStore::Moment::kCold);
  } else if (interval > 0 && length / interval > active.saved_tokens / interval) {
    store_->save(active.slot, PrefixStore::Moment::kContinued);
    active.saved_tokens = length;
  }
}

void Scheduler::save_slots() {
  if (store_ == nullptr) return;
  for (const auto& slot : slots_)
    if (!slot->empty()) store_->save(*slot, PrefixStore::Moment::kShutdown);
}

}  // namespace ds4
