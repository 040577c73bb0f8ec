#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "engine/sched_request.h"
#include "engine/sched_slot.h"

namespace ds4 {

// A state on its way from a store into a slot's session, a piece at a time.  Whoever destroys one
// that is not done has an empty session.
class StateLoad {
 public:
  enum class Progress { kMore, kDone, kFailed };

  StateLoad() = default;
  StateLoad(const StateLoad&) = delete;
  StateLoad& operator=(const StateLoad&) = delete;
  virtual ~StateLoad() = default;

  // Takes over what has come, and waits for more until `deadline` at most.  After kDone the slot is
  // that of the stored conversation; after kFailed it is to be cleared.
  virtual Progress advance(std::chrono::steady_clock::time_point deadline) = 0;
};

// What a store holds for a prompt, and why not more.
struct StoredPrefix {
  std::uint32_t token_count = 0;  // of the state that load() would bring; 0: nothing
  ExplainMiss explain = {};       // may be empty
};

// Counts since the start, and what is there now.
struct PrefixStoreStats {
  std::uint64_t saves = 0;          // that wrote something
  std::uint64_t save_failures = 0;  // the disk's, and copies dropped because it was too slow
  std::uint64_t loads = 0;
  std::uint64_t load_failures = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t pending_bytes = 0;  // copied and not written yet
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;  // of the entries
};

// Where states go that leave memory, and come from.  All but stats() is called on the engine's
// thread alone, between steps: no method waits for a disk.
class PrefixStore {
 public:
  enum class Moment {
    kCold,       // a prompt that nothing was known of has been read up to cold_length()
    kContinued,  // a conversation has grown across a multiple of continued_interval()
    kEvict,      // a slot is about to be given to another conversation
    kShutdown,   // the engine ends: the one call that may wait
  };

  PrefixStore() = default;
  PrefixStore(const PrefixStore&) = delete;
  PrefixStore& operator=(const PrefixStore&) = delete;
  virtual ~PrefixStore() = default;

  // The longest prefix of `prompt` that can be loaded.
  virtual StoredPrefix lookup(const PromptView& prompt) = 0;
  // Begins to fill the slot's session with it.  Nothing when it is gone.
  virtual std::unique_ptr<StateLoad> load(const PromptView& prompt, Slot& slot) = 0;
  // Copies what is needed and returns; writing happens elsewhere.
  virtual void save(Slot& slot, Moment moment) = 0;
  // The length at which a prompt that is to be read, but for its first `reused` tokens, should be
  // saved, so that others may begin like it; 0: nowhere.
  virtual std::uint32_t cold_length(std::span<const TokenId> prompt,
                                    std::uint32_t reused) const = 0;
  // Tokens; 0: never.
  virtual std::uint32_t continued_interval() const = 0;
  // Fewer tokens than these, more than memory has, are not worth a load.
  virtual std::uint32_t gain_min() const = 0;
  // From any thread; may wait for a disk.
  virtual PrefixStoreStats stats() = 0;
};

}  // namespace ds4
