#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "kvstore/catalogue.h"
#include "kvstore/disk.h"
#include "kvstore/entry_file.h"
#include "kvstore/key_chain.h"
#include "kvstore/state_io.h"
#include "tensor/strong.h"

// Sequences' states on disk.  A prefix is a chain of immutable chunks; a tail resumes at an exact
// token; sequences that share a prefix share its files.  Files are docs/formats/kv-chunk.md.
namespace ds4::kvstore {

struct StoreContext;

enum class KeyPolicy {
  kMustMatch,    // the directory's entries must be readable with the key given (or with none)
  kMayBeAbsent,  // for tools that only list, check and remove
};

struct StoreOptions {
  std::filesystem::path directory;
  std::uint64_t bytes_max = std::uint64_t{64} << 30;  // of all entries; 0: no limit
  std::uint64_t bytes_written_per_day_max = 0;        // 0: no limit
  // The tokens of a chunk, and every how many chunks one carries a resume state.  Directories with
  // different numbers of tokens a chunk share nothing; docs/formats/kv-chunk.md has the choice.
  std::uint32_t chunk_tokens = 1024;
  std::uint32_t state_stride_chunks = 8;
  double half_life_s = 86400.0;         // in which the chance of reuse halves
  std::filesystem::path key_file = {};  // empty: entries are not encrypted
  KeyPolicy key_policy = KeyPolicy::kMustMatch;
  LogSink log = {};
  std::function<std::int64_t()> clock_s = {};  // Unix time; empty: the system's
  StepHook step_hook = {};                     // for tests
};

// One model's entries in one namespace: states of different key spaces never meet.  Immutable.
class KeySpace {
 public:
  const ModelIdentity& model() const { return model_; }
  const KeyContext& context() const { return context_; }
  const EntryId& root() const { return root_; }

 private:
  friend class Store;
  KeySpace(ModelIdentity model, KeyContext context);

  ModelIdentity model_;
  KeyContext context_;
  EntryId root_;
};

// A prompt that ends exactly where an entry does needs no further token; whether it is a hit
// depends on the next-token logits being there.
enum class WholeMatch { kNeedsLogits, kAny };

struct LookupLimits {
  std::uint64_t tokens_min = 1;
  std::uint64_t tokens_max = std::numeric_limits<std::uint64_t>::max();
  WholeMatch whole_match = WholeMatch::kNeedsLogits;
};

// The longest prefix of a prompt that can be resumed.
struct Hit {
  std::vector<EntryId> chain;  // from the first chunk to the entry that carries the state
  std::uint64_t token_count = 0;
  std::uint64_t byte_count = 0;  // of the prompt's rendered bytes; only what follows is tokenised
  bool has_logits = false;
  EntryKind kind = EntryKind::kTail;  // of the last of the chain
  EntryRole role = EntryRole::kContinued;
  bool by_alias = false;  // the prompt's first byte_count bytes are not the tokens' own
  std::vector<TokenId> bridge =
      {};  // by_alias: tokens between the state's and what follows these bytes
};

struct Restored {
  std::vector<TokenId> tokens;  // the exact ids that the state is of
  std::uint64_t byte_count = 0;
  bool has_logits = false;
  std::uint64_t bytes_read = 0;
};

enum class SaveExtent {
  kChunks,         // whole chunks alone
  kChunksAndTail,  // and a tail that resumes at the last token
};

enum class SaveUrgency {
  kOpportunistic,  // skipped when the day's bytes are spent
  kAsked,          // someone asked for it: only the budget stops it
};

// Another text whose reader may go on from the tail: the conversation without its hidden parts.
struct TailAlias {
  std::string_view text;
  std::span<const TokenId> bridge;  // tokens between the tail's and what follows `text`
};

struct SaveRequest {
  const KeySpace& space;
  std::span<const TokenId> tokens;             // [tokens]
  std::span<const std::uint32_t> token_bytes;  // [tokens] rendered bytes of each
  std::span<const std::byte> text;             // rendered bytes of all; sum of token_bytes
  EntryRole role = EntryRole::kContinued;
  SaveExtent extent = SaveExtent::kChunksAndTail;
  SaveUrgency urgency = SaveUrgency::kOpportunistic;
  double prefill_ms_per_token = 1.0;  // what recomputing costs here
  // A tail of the same conversation that the new one makes useless; removed once the new one is
  // safe, unless it is held or a named session resumes from it.
  std::optional<EntryId> replaces;
  std::span<const TailAlias> aliases =
      {};  // at most kAliasesMax; a tail that is there keeps its own
};

// What a save would have to read from its source, so that the state can be copied and saved later.
struct SaveNeeds {
  bool nothing = true;
  std::uint64_t token_begin = 0;             // rows of the tokens from here on
  std::vector<std::uint64_t> carry_lengths;  // lengths whose carry arrays are needed
};

enum class SaveStatus {
  kSaved,
  kSkippedOverBudget,    // larger than bytes_max, or what is there cannot be evicted
  kSkippedOverDayLimit,  // bytes_written_per_day_max
};

struct SaveOutcome {
  SaveStatus status = SaveStatus::kSaved;
  std::optional<EntryId> tail;
  std::uint64_t bytes_written = 0;
  std::uint64_t chunks_written = 0;
  std::uint64_t chunks_reused = 0;
};

struct StoreStats {
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bytes_written_today = 0;
};

struct VerifyReport {
  std::uint64_t entries_checked = 0;
  std::uint64_t bytes_checked = 0;
  std::vector<std::string> problems;  // one line each; the files are in quarantine
};

struct CollectReport {
  std::uint64_t adopted = 0;   // complete files that the catalogue did not know
  std::uint64_t vanished = 0;  // rows whose file is gone
  std::uint64_t evicted = 0;
  std::uint64_t bytes_freed = 0;
};

// Why the store holds no more of a prompt than it does.
enum class MissReason {
  kNone,      // it holds all that it could
  kNothing,   // nothing is saved in this key space
  kDiffers,   // the closest saved text differs from the prompt
  kNoState,   // saved bytes agree further than the last resume state
  kReadOnly,  // nothing is saved there, and nothing can be
};
std::string_view miss_reason_name(MissReason reason);

// How far a prompt agrees with what is saved, by the catalogue.
struct Agreement {
  std::uint64_t token_count = 0;  // of chunks whose bytes agree, with a resume state or without
  std::uint64_t byte_count = 0;
  std::vector<EntryRow> candidates;  // entries that follow there and do not agree
};

// The first place where a prompt and the closest saved text part.
struct Difference {
  MissReason reason = MissReason::kNone;
  std::uint64_t offset = 0;  // bytes
  std::string saved = {};    // what the store has round there; prompt text, for private eyes
};

// Keeps an entry, and so the whole chain before it, from eviction while it lives.  Move-only.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease();

 private:
  friend class Store;
  Lease(std::shared_ptr<StoreContext> context, std::int64_t number)
      : context_(std::move(context)),
        number_(number) {}

  std::shared_ptr<StoreContext> context_;
  std::int64_t number_ = 0;
};

// A hit being read, piece by piece, for whoever cannot wait for a disk.  A thread of its own reads
// ahead; the rest is confined to the caller's.  The destructor waits for that thread.
class Restoration {
 public:
  Restoration(const Restoration&) = delete;
  Restoration& operator=(const Restoration&) = delete;
  ~Restoration();

  // Hands to the sink what has come from the disk and waits for more until `deadline`.  True when
  // all of it is there.  Throws as Store::restore does.
  bool advance(std::chrono::steady_clock::time_point deadline);
  // Once advance() said true.
  const Restored& result() const;
  const Hit& hit() const;

 private:
  friend class Store;
  class Work;
  explicit Restoration(std::unique_ptr<Work> work);

  std::unique_ptr<Work> work_;
};

// Synchronised: any thread may call; saves are taken one at a time, loads run beside them.  Several
// processes may open one directory.  A directory that cannot be written is opened read-only: hits
// are served, saves throw Error(kIo).
class Store {
 public:
  // Creates the directory (0700) when absent, removes what a dead process left half-written, and
  // rebuilds the catalogue when it is missing or damaged.  Throws Error(kIo | kInvalidArgument).
  explicit Store(StoreOptions options);
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  // Throws Error(kInvalidArgument) for a layout that does not fit chunks or a bad namespace.
  KeySpace key_space(const ModelIdentity& model, std::string_view name_space = "") const;

  // Walks the chain along `text`, the rendered bytes of a prompt.  Reads the catalogue alone, and
  // waits for nobody who writes.
  std::optional<Hit> lookup(const KeySpace& space,
                            std::span<const std::byte> text,
                            const LookupLimits& limits = {});
  // Reads and checks a hit's chain, files ahead of use.  Throws Error(kNotFound | kBadFormat |
  // kIo) when an entry is gone or damaged, which is then in quarantine and not found again: look up
  // anew.
  Restored restore(const KeySpace& space, const Hit& hit, StateSink& sink);
  // The same in pieces; `space` and `sink` must outlive it.  Does not count the use.
  std::unique_ptr<Restoration> begin_restore(const KeySpace& space, Hit hit, StateSink& sink);
  // Counts a use of the hit's entries, if that can be written down.
  void mark_used(const Hit& hit);
  // How far `text` agrees with what is saved.  Reads the catalogue alone.
  Agreement agreement(const KeySpace& space, std::span<const std::byte> text);
  // Where the closest candidate's text parts from `text`; `state_tokens` is what lookup() found.
  // Reads some files' text.
  Difference explain(const Agreement& agreement,
                     std::span<const std::byte> text,
                     std::uint64_t state_tokens);
  // lookup() and restore() until one succeeds; empty when nothing does.  The sink's begin() is
  // called anew for every attempt.
  std::optional<Restored> resume(const KeySpace& space,
                                 std::span<const std::byte> text,
                                 StateSink& sink,
                                 const LookupLimits& limits = {});
  // The chain of one entry, for whoever remembers its id.  Empty when it, or a chunk it hangs on,
  // is not there.
  std::optional<Hit> hit_of(const EntryId& id);

  // Writes what is not there yet.  Makes room first.  Throws Error(kIo) when the disk fails; what
  // was complete before the failure stays.
  SaveOutcome save(const SaveRequest& request, StateSource& source);
  // What save() would read now.  Reads the catalogue alone.
  SaveNeeds needs(const SaveRequest& request, StateSource& source);

  Lease hold(const Hit& hit);
  void pin(const EntryId& id, std::string_view label);
  void unpin(const EntryId& id, std::string_view label);
  // For an entry that passes every check and still cannot be used: puts it in quarantine.
  void reject(const EntryId& id, std::string_view reason);
  // Removes a tail, unless it is held or a session resumes from it.
  bool remove_tail(const EntryId& id);
  // Removes a tail and those chunks before it that nothing else needs.
  std::uint64_t remove_branch(const EntryId& id);

  bool contains(const EntryId& id);
  std::optional<EntryRow> find(const EntryId& id);
  StoreStats stats();
  std::vector<EntryRow> entries();
  std::filesystem::path path_of(const EntryRow& row) const;
  // Ids whose hexadecimal form starts with `prefix`.
  std::vector<EntryId> ids_with_prefix(std::string_view prefix);

  // Reads every file and checks every byte; damaged ones go to quarantine.
  VerifyReport verify();
  // Brings catalogue and files together, evicts down to the budget, empties old quarantine.
  CollectReport collect();
  // Forgets the catalogue and reads it again from the files.  Returns the number of entries.
  std::uint64_t rebuild();
  // Removes every entry, of one namespace when given; quarantine and, without a namespace, sessions
  // too.  Returns the number of files removed.
  std::uint64_t purge(const std::optional<std::string>& name_space = std::nullopt);

  // For the other classes of this module.
  StoreContext& context() const { return *context_; }

 private:
  std::shared_ptr<StoreContext> context_;
};

}  // namespace ds4::kvstore
