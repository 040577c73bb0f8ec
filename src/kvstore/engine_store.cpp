#include "kvstore/engine_store.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "engine/prompt_key.h"
#include "tokenizer/markers.h"

namespace ds4::kvstore {

namespace {

constexpr std::uint32_t kGainTokensMax = 128;
constexpr std::size_t kSpareBuffersMax = 2;
constexpr std::uint64_t kSpareBytesMax = std::uint64_t{256} << 20;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

EntryRole role_of(PrefixStore::Moment moment, bool whole_prompt) {
  switch (moment) {
    case PrefixStore::Moment::kCold:
      return whole_prompt ? EntryRole::kContinued : EntryRole::kAnchor;
    case PrefixStore::Moment::kContinued:
      return EntryRole::kContinued;
    case PrefixStore::Moment::kEvict:
    case PrefixStore::Moment::kShutdown:
      return EntryRole::kEvicted;
  }
  return EntryRole::kContinued;
}

const char* moment_name(PrefixStore::Moment moment) {
  switch (moment) {
    case PrefixStore::Moment::kCold:
      return "cold";
    case PrefixStore::Moment::kContinued:
      return "continued";
    case PrefixStore::Moment::kEvict:
      return "evict";
    case PrefixStore::Moment::kShutdown:
      return "shutdown";
  }
  return "unknown";
}

MissNote note_of(const Difference& difference, std::uint64_t agreed_tokens) {
  MissNote note;
  if (difference.reason != MissReason::kNone)
    note.reason = std::string(miss_reason_name(difference.reason));
  note.agreed_tokens = agreed_tokens;
  note.first_difference = difference.offset;
  note.saved = difference.saved;
  return note;
}

}  // namespace

std::string stored_name_space(std::string_view name) {
  try {
    check_name_space(name);
    return std::string(name);
  } catch (const Error&) {
    Sha256 hash;
    hash.update(bytes_of(name));
    return "sha256-" + to_hex(hash.finish()).substr(0, 48);
  }
}

// A copy of a conversation on its way to the disk.
struct EngineStore::Job {
  const KeySpace& space;
  const Slot* slot;
  Moment moment;
  EntryRole role;
  SaveExtent extent;
  std::vector<TokenId> tokens;
  std::vector<std::uint32_t> token_bytes;
  std::string text;
  std::vector<VisibleTurn> turns;  // each with the whole bridge from the saved tokens on
  std::unique_ptr<StateSnapshot> state;

  std::vector<TailAlias> aliases() const {
    std::vector<TailAlias> aliases;
    for (const VisibleTurn& turn : turns)
      aliases.push_back({turn.key, turn.bridge});
    return aliases;
  }
  SaveRequest request(std::span<const TailAlias> its_aliases, double ms_per_token) const {
    return {.space = space,
            .tokens = tokens,
            .token_bytes = token_bytes,
            .text = bytes_of(text),
            .role = role,
            .extent = extent,
            .urgency = SaveUrgency::kOpportunistic,
            .prefill_ms_per_token = ms_per_token,
            .replaces = std::nullopt,
            .aliases = its_aliases};
  }
};

class EngineStore::Load final : public StateLoad {
 public:
  Load(EngineStore& owner, const KeySpace& space, const PromptView& prompt, Hit hit, Slot& slot)
      : owner_(owner),
        slot_(slot),
        name_space_(prompt.name_space),
        visible_(hit.by_alias ? prompt.key.substr(0, hit.byte_count) : std::string_view()),
        sink_(std::make_unique<SessionSink>(slot.session(), owner.identity_.layout)),
        work_(owner.store_.begin_restore(space, std::move(hit), *sink_)) {}
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  ~Load() override {
    // Its thread may be waiting for a disk: the store's own waits for it.
    sink_.reset();
    owner_.post([work = std::shared_ptr<Restoration>(std::move(work_)), &owner = owner_,
                 slot = &slot_, done = done_] {
      if (!done) return;
      owner.store_.mark_used(work->hit());
      owner.note_tail(slot, work->hit());
    });
  }

  Progress advance(std::chrono::steady_clock::time_point deadline) override {
    try {
      if (!work_->advance(deadline)) return Progress::kMore;
    } catch (const Error& error) {
      log(owner_.options_.store.log, LogLevel::kWarning,
          fmt::format("kv: not loaded: {}", error.what()));
      const std::lock_guard lock(owner_.mutex_);
      ++owner_.stats_.load_failures;
      return Progress::kFailed;
    }
    sink_->finish(work_->result().tokens);
    slot_.adopt(name_space_);
    const Hit& hit = work_->hit();
    if (hit.by_alias) slot_.remember({{.key = std::move(visible_), .bridge = hit.bridge}});
    done_ = true;
    const std::lock_guard lock(owner_.mutex_);
    ++owner_.stats_.loads;
    owner_.stats_.bytes_read += work_->result().bytes_read;
    return Progress::kDone;
  }

 private:
  EngineStore& owner_;
  Slot& slot_;
  const std::string name_space_;
  std::string visible_;  // the part of the prompt's key that an alias stands for
  std::unique_ptr<SessionSink> sink_;
  std::unique_ptr<Restoration> work_;
  bool done_ = false;
};

EngineStore::EngineStore(Engine& engine, EngineStoreOptions options)
    : options_(std::move(options)),
      store_(options_.store),
      identity_(identity_of(engine)),
      user_marker_(engine.tokenizer().marker(tokenizer::kUserMarker)),
      assistant_marker_(engine.tokenizer().marker(tokenizer::kAssistantMarker)) {
  space_of("");  // an identity that does not fit is refused now
  thread_ = std::jthread([this] { run(); });
}

EngineStore::~EngineStore() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

const KeySpace& EngineStore::space_of(const std::string& name_space) {
  const auto found = spaces_.find(name_space);
  if (found != spaces_.end()) return found->second;
  return spaces_.emplace(name_space, store_.key_space(identity_, stored_name_space(name_space)))
      .first->second;
}

std::uint32_t EngineStore::gain_min() const {
  return std::min(options_.tokens_min, kGainTokensMax);
}

// --- the engine's thread ---

StoredPrefix EngineStore::lookup(const PromptView& prompt) {
  const KeySpace& space = space_of(std::string(prompt.name_space));
  const LookupLimits limits{.tokens_min = options_.tokens_min, .whole_match = WholeMatch::kAny};
  StoredPrefix stored;
  try {
    const std::optional<Hit> hit = store_.lookup(space, bytes_of(prompt.key), limits);
    if (hit) stored.token_count = static_cast<std::uint32_t>(hit->token_count);
    // Found by an alias, it is all that there is.
    if (hit && hit->by_alias) return stored;
    Agreement agreement = store_.agreement(space, bytes_of(prompt.key));
    stored.explain = [this, agreement = std::move(agreement),
                      found = stored.token_count](std::string_view key) {
      return note_of(store_.explain(agreement, bytes_of(key), found), agreement.token_count);
    };
  } catch (const Error& error) {
    log(options_.store.log, LogLevel::kWarning,
        fmt::format("kv: nothing looked up: {}", error.what()));
  }
  return stored;
}

std::unique_ptr<StateLoad> EngineStore::load(const PromptView& prompt, Slot& slot) {
  const KeySpace& space = space_of(std::string(prompt.name_space));
  const LookupLimits limits{.tokens_min = options_.tokens_min,
                            .tokens_max = slot.session().context() - 1,
                            .whole_match = WholeMatch::kAny};
  std::optional<Hit> hit = store_.lookup(space, bytes_of(prompt.key), limits);
  if (!hit) return nullptr;
  return std::make_unique<Load>(*this, space, prompt, std::move(*hit), slot);
}

std::uint32_t EngineStore::cold_length(std::span<const TokenId> prompt,
                                       std::uint32_t reused) const {
  if (options_.cold_tokens_max == 0) return 0;
  // What stands before the first question is what other conversations begin with too.
  const auto answer = std::find(prompt.begin(), prompt.end(), assistant_marker_);
  std::uint32_t anchor = 0;
  for (auto at = prompt.begin(); at != answer; ++at)
    if (*at == user_marker_) anchor = static_cast<std::uint32_t>(at - prompt.begin());
  const std::uint32_t least = std::max(options_.tokens_min, reused + gain_min());
  if (anchor >= least && anchor <= options_.cold_tokens_max) return anchor;
  const auto whole = static_cast<std::uint32_t>(prompt.size());
  const bool is_new = reused < options_.tokens_min && anchor < options_.tokens_min;
  return is_new && whole >= least && whole <= options_.cold_tokens_max ? whole : 0;
}

std::vector<std::byte> EngineStore::take_storage() {
  const std::lock_guard lock(mutex_);
  if (spare_.empty()) return {};
  std::vector<std::byte> storage = std::move(spare_.back());
  spare_.pop_back();
  return storage;
}

// False when the disk is so far behind that the copy is not worth its memory.
bool EngineStore::wait_for_room(std::uint64_t bytes, Moment moment) {
  std::unique_lock lock(mutex_);
  const auto fits = [&] {
    return pending_bytes_ == 0 || pending_bytes_ + bytes <= options_.pending_bytes_max;
  };
  if (moment == Moment::kShutdown) changed_.wait(lock, fits);
  if (fits()) return true;
  ++stats_.save_failures;
  log(options_.store.log, LogLevel::kWarning,
      fmt::format("kv: {} tokens' state not saved ({}): the disk is {} MB behind", bytes,
                  moment_name(moment), pending_bytes_ >> 20));
  return false;
}

void EngineStore::save(Slot& slot, Moment moment) {
  Session& session = slot.session();
  const std::uint32_t length = session.length();
  if (length < options_.tokens_min) return;
  try {
    const auto transcript = slot.transcript();
    const auto ends = slot.key_ends();
    const bool whole = length == transcript.size();
    auto job = std::make_shared<Job>(Job{
        .space = space_of(slot.name_space()),
        .slot = &slot,
        .moment = moment,
        .role = role_of(moment, whole),
        .extent = moment == Moment::kContinued ? SaveExtent::kChunks : SaveExtent::kChunksAndTail,
        .tokens = {},
        .token_bytes = {},
        .text = std::string(slot.key().substr(0, ends[length - 1])),
        .turns = {},
        .state = nullptr});
    job->tokens.assign(transcript.begin(), transcript.begin() + length);
    job->token_bytes.reserve(length);
    for (std::uint32_t i = 0; i < length; ++i)
      job->token_bytes.push_back(ends[i] - (i == 0 ? 0 : ends[i - 1]));
    for (VisibleTurn turn : slot.visible_turns()) {
      turn.bridge.insert(turn.bridge.begin(), transcript.begin() + length, transcript.end());
      job->turns.push_back(std::move(turn));
    }
    SessionSource live(session, identity_.layout);
    const SaveNeeds needs = store_.needs(job->request({}, 1.0), live);
    if (needs.nothing) return;
    const std::uint64_t bytes = rows_bytes(identity_.layout, needs.token_begin, length);
    if (!wait_for_room(bytes, moment)) return;
    job->state =
        std::make_unique<StateSnapshot>(identity_.layout, live, needs, length, take_storage());
    {
      const std::lock_guard lock(mutex_);
      pending_bytes_ += job->state->bytes();
    }
    post([this, job] { write(*job); });
  } catch (const Error& error) {
    log(options_.store.log, LogLevel::kWarning,
        fmt::format("kv: not saved ({}): {}", moment_name(moment), error.what()));
  }
}

void EngineStore::post(std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(work));
  changed_.notify_all();
}

void EngineStore::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return jobs_.empty() && !busy_; });
}

PrefixStoreStats EngineStore::stats() {
  StoreStats store;
  try {
    store = store_.stats();
  } catch (const Error&) {
    // What the disk holds is not known then; the rest is.
  }
  const std::lock_guard lock(mutex_);
  PrefixStoreStats stats = stats_;
  stats.pending_bytes = pending_bytes_;
  stats.entries = store.entries;
  stats.bytes = store.bytes;
  return stats;
}

// --- the thread that writes ---

void EngineStore::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return !jobs_.empty() || closing_; });
    if (jobs_.empty()) return;
    std::function<void()> work = std::move(jobs_.front());
    jobs_.pop_front();
    busy_ = true;
    lock.unlock();
    work();
    work = nullptr;  // what it held may wait for a disk too
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

std::optional<EntryId> EngineStore::replaced_by(const Job& job,
                                                std::span<const std::byte> text) const {
  const auto last = last_tails_.find(job.slot);
  if (last == last_tails_.end() || last->second.byte_end > text.size()) return std::nullopt;
  KeyChain chain(job.space.context());
  chain.append(text.first(last->second.byte_end));
  if (chain.key() != last->second.key) return std::nullopt;
  return last->second.id;
}

// A beginning that others share, a named session's, or one with texts of its own stays.
void EngineStore::note_tail(const Slot* slot, const Hit& hit) {
  last_tails_.erase(slot);
  if (hit.kind != EntryKind::kTail || hit.by_alias) return;
  const std::optional<EntryRow> row = store_.find(hit.chain.back());
  if (!row || row->role == EntryRole::kAnchor || row->role == EntryRole::kSession) return;
  last_tails_[slot] = {row->id, row->key, row->byte_end};
}

void EngineStore::write(Job& job) {
  const std::uint64_t pending = job.state->bytes();
  bool failed = false;
  SaveOutcome outcome;
  const auto began = std::chrono::steady_clock::now();
  try {
    const std::vector<TailAlias> aliases = job.aliases();
    SaveRequest request = job.request(aliases, 1.0);
    request.replaces = replaced_by(job, request.text);
    outcome = store_.save(request, *job.state);
    if (outcome.tail && job.role != EntryRole::kAnchor && aliases.empty())
      note_tail(job.slot, {.chain = {*outcome.tail}});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    if (outcome.status == SaveStatus::kSaved) {
      log(options_.store.log, LogLevel::kDebug,
          fmt::format("kv: saved ({}) {} tokens: {} new chunks, {} bytes in {:.3f} s",
                      moment_name(job.moment), job.tokens.size(), outcome.chunks_written,
                      outcome.bytes_written, took.count()));
    }
  } catch (const std::exception& error) {
    failed = true;
    log(options_.store.log, LogLevel::kWarning,
        fmt::format("kv: not saved ({}): {}", moment_name(job.moment), error.what()));
  }
  std::vector<std::byte> storage = job.state->take_storage();
  job.state.reset();
  const std::lock_guard lock(mutex_);
  pending_bytes_ -= pending;
  stats_.saves += outcome.bytes_written > 0 ? 1 : 0;
  stats_.save_failures += failed ? 1 : 0;
  stats_.bytes_written += outcome.bytes_written;
  if (spare_.size() < kSpareBuffersMax && storage.capacity() <= kSpareBytesMax)
    spare_.push_back(std::move(storage));
  changed_.notify_all();
}

}  // namespace ds4::kvstore
