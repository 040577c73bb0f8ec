#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "kvstore/entry_file.h"
#include "kvstore/sqlite.h"

// The index of a store's files, in SQLite.  It holds nothing that cannot be found again in the
// files, but use counts and pins; no text and no titles.
namespace ds4::kvstore {

struct EntryRow {
  EntryId id;
  EntryId parent;
  Sha256Digest key{};
  EntryKind kind = EntryKind::kChunk;
  EntryRole role = EntryRole::kContinued;
  bool has_state = false;
  bool has_logits = false;
  std::uint64_t token_begin = 0;
  std::uint64_t token_end = 0;
  std::uint64_t byte_end = 0;
  std::uint64_t text_check = 0;
  std::uint64_t file_bytes = 0;
  std::int64_t created_s = 0;
  std::int64_t used_s = 0;
  double hits = 0.0;        // decays; counted at used_s
  double recompute_ms = 0;  // for its own tokens
  std::string name_space;
  std::string model;
  // Taken in by insert() alone.
  EntryId root;                      // of its key space; needed with aliases
  std::vector<AliasRecord> aliases;  // by which it is found besides
};

// What lookup needs of an entry that hangs on another one.
struct ChildRow {
  EntryId id;
  Sha256Digest key{};
  EntryKind kind = EntryKind::kChunk;
  bool has_state = false;
  bool has_logits = false;
  std::uint64_t token_end = 0;
  std::uint64_t byte_end = 0;
  std::uint64_t text_check = 0;
};

EntryRow row_of(const EntryHeader& header);

// An alias and the tail that it leads to.
struct AliasRow {
  AliasRecord record;
  EntryId tail;
};

// Which entries of many that hang on one are worth a closer look.
class ChildFilter {
 public:
  virtual ~ChildFilter() = default;
  virtual bool wants(std::uint64_t byte_end, std::uint64_t text_check) const = 0;
};

// Confined to one thread at a time; several processes may each have one on the same file.
class Catalogue {
 public:
  // Creates the file (0600) and its tables when absent.  Throws Error(kBadFormat) when it is
  // damaged or of another version.
  Catalogue(const std::filesystem::path& path, DatabaseMode mode);
  Catalogue(const Catalogue&) = delete;
  Catalogue& operator=(const Catalogue&) = delete;
  ~Catalogue();

  Database& database() { return database_; }

  std::optional<EntryRow> find(const EntryId& id);
  bool contains(const EntryId& id);
  // Appends the entries that hang on `parent`, end at most at `byte_end_max` and are wanted,
  // shortest first.
  void children(const EntryId& parent,
                std::uint64_t byte_end_max,
                const ChildFilter& filter,
                std::vector<ChildRow>& out);
  // The same for aliases of tails in the key space of `root`.
  void aliases(const EntryId& root,
               std::uint64_t byte_end_max,
               const ChildFilter& filter,
               std::vector<AliasRow>& out);
  // Of the entries that hang on `parent`, a few of those used last.
  std::vector<EntryRow> recent_children(const EntryId& parent, std::size_t count_max);
  bool has_children(const EntryId& id);
  std::vector<EntryRow> all();
  std::uint64_t entry_count();
  std::uint64_t total_bytes();

  // False when it is there already.
  bool insert(const EntryRow& row);
  void remove(const EntryId& id);
  // Marks a use: hits decay by `half_life_s` since the last use, then grow by one.
  void mark_used(std::span<const EntryId> ids, std::int64_t now_s, double half_life_s);
  // Forgets every entry and reference; pins, days and settings stay.
  void clear_entries();
  // Forgets everything.
  void clear_all();

  // A lease keeps an entry from eviction as long as its owner's mark lives.
  std::int64_t add_lease(const EntryId& id, std::string_view owner);
  void remove_lease(std::int64_t lease);
  void remove_leases_of(std::string_view owner);
  // Pins keep an entry from eviction until they are taken away.
  void add_pin(const EntryId& id, std::string_view label);
  void remove_pin(const EntryId& id, std::string_view label);
  // Everything leased or pinned.
  std::unordered_set<EntryId> held();
  std::unordered_set<EntryId> pinned();

  // Which tail a named session resumes from; replaces the session's earlier reference.
  void set_reference(std::string_view session, const EntryId& id);
  void remove_reference(std::string_view session);
  bool is_referenced(const EntryId& id);
  std::unordered_set<EntryId> referenced();

  std::uint64_t written_bytes(std::int64_t day);
  void add_written_bytes(std::int64_t day, std::uint64_t bytes);

  std::optional<std::string> setting(std::string_view name);
  void set_setting(std::string_view name, std::string_view value);

 private:
  struct Statements;

  void create_tables();

  Database database_;
  std::unique_ptr<Statements> statements_;
};

}  // namespace ds4::kvstore
