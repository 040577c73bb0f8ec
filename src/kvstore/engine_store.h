#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/prefix_store.h"
#include "kvstore/engine_state.h"
#include "kvstore/state_snapshot.h"
#include "kvstore/store.h"

// A Store as the engine's scheduler uses it: saves are copied on the engine's thread and written by
// a thread of this class, loads come in pieces, lookups wait for nobody who writes.
namespace ds4::kvstore {

struct EngineStoreOptions {
  StoreOptions store;
  // Conversations shorter than this are not kept, and no load gives less.
  std::uint32_t tokens_min = 512;
  std::uint32_t cold_tokens_max = 30000;    // of a prompt kept when it was read; 0: none
  std::uint32_t continued_interval = 8192;  // a multiple of the stride of states; 0: never
  std::uint64_t pending_bytes_max = std::uint64_t{2} << 30;  // copied and not yet written
};

// The methods of PrefixStore are confined to the engine's thread; stats() may be called from any.
class EngineStore final : public PrefixStore {
 public:
  // Opens the directory, for the states of `engine`'s slots.  Throws what Store throws.
  EngineStore(Engine& engine, EngineStoreOptions options);
  EngineStore(const EngineStore&) = delete;
  EngineStore& operator=(const EngineStore&) = delete;
  // Writes what is pending.
  ~EngineStore() override;

  StoredPrefix lookup(const PromptView& prompt) override;
  std::unique_ptr<StateLoad> load(const PromptView& prompt, Slot& slot) override;
  void save(Slot& slot, Moment moment) override;
  std::uint32_t cold_length(std::span<const TokenId> prompt, std::uint32_t reused) const override;
  std::uint32_t continued_interval() const override { return options_.continued_interval; }
  std::uint32_t gain_min() const override;

  // Waits until everything that was handed over is written.
  void flush();
  PrefixStoreStats stats() override;
  Store& store() { return store_; }

 private:
  class Load;
  struct Job;
  // The tail that a slot's conversation was last saved as: it is of no use once a longer one is
  // safe.
  struct LastTail {
    EntryId id;
    Sha256Digest key{};
    std::uint64_t byte_end = 0;
  };

  const KeySpace& space_of(const std::string& name_space);
  void post(std::function<void()> work);
  void run();
  void write(Job& job);
  std::optional<EntryId> replaced_by(const Job& job, std::span<const std::byte> text) const;
  void note_tail(const Slot* slot, const Hit& hit);
  std::vector<std::byte> take_storage();
  bool wait_for_room(std::uint64_t bytes, Moment moment);

  const EngineStoreOptions options_;
  Store store_;
  const ModelIdentity identity_;
  std::map<std::string, KeySpace> spaces_;  // the engine's thread alone adds
  const TokenId user_marker_;
  const TokenId assistant_marker_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool busy_ = false;  // a job is being done
  bool closing_ = false;
  std::uint64_t pending_bytes_ = 0;
  std::vector<std::vector<std::byte>> spare_;
  PrefixStoreStats stats_;
  std::map<const Slot*, LastTail> last_tails_;  // the writing thread's alone
  std::jthread thread_;                         // last: it uses everything above
};

// A namespace that names files' contents may hold letters, digits, '.', '_' and '-', at most 63;
// any other name becomes a hash of itself.
std::string stored_name_space(std::string_view name);

}  // namespace ds4::kvstore
