#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvstore/catalogue.h"
#include "kvstore/cipher.h"
#include "kvstore/disk.h"
#include "kvstore/store.h"

// What the parts of a store share.  Internal to this module.
//
// Invariants, which the order of writes keeps whoever dies when:
//  1. A file under its final name is complete and synced.
//  2. A row is inserted after its file has its name, and a file is removed in the transaction that
//     deletes its row, both under the catalogue's write lock: a name is never taken and given up at
//     once.  A row without a file is a miss; a file without a row is adopted.
//  3. An entry is removed only when nothing hangs on it.
namespace ds4::kvstore {

struct StoreContext {
  explicit StoreContext(StoreOptions store_options);

  StoreOptions options;
  std::filesystem::path chunk_directory;
  std::filesystem::path tail_directory;
  std::filesystem::path session_directory;
  std::filesystem::path quarantine_directory;
  std::filesystem::path temporary_directory;
  std::filesystem::path owner_directory;
  bool read_only = false;
  bool key_missing = false;  // encrypted, and opened without its key
  std::optional<Cipher> cipher;
  std::optional<OwnerMark> owner;  // absent when read-only

  std::mutex save_mutex;       // taken before catalogue_mutex
  std::mutex catalogue_mutex;  // guards `catalogue`
  std::unique_ptr<Catalogue> catalogue;
  // Lookups go by a connection of their own, so that they never wait for a disk that another
  // thread is syncing to.  Taken after catalogue_mutex where both are.
  std::mutex reader_mutex;  // guards `reader`
  std::unique_ptr<Catalogue> reader;
  std::atomic<std::uint64_t> next_temporary{0};

  const Cipher* cipher_or_null() const { return cipher ? &*cipher : nullptr; }
  Sha256Digest prefix_salt() const { return cipher ? cipher->prefix_salt() : Sha256Digest{}; }
  std::int64_t now_s() const;
  std::int64_t today() const { return now_s() / 86400; }
  void say(LogLevel level, std::string_view message) const { log(options.log, level, message); }
  // Throws Error(kIo) when the directory cannot be written.
  void require_writable() const;
  // Throws Error(kInvalidArgument) when the directory is encrypted and its key was not given.
  void require_key() const;

  std::filesystem::path directory_of(EntryKind kind) const {
    return kind == EntryKind::kChunk ? chunk_directory : tail_directory;
  }
  std::filesystem::path path_of(EntryKind kind, const EntryId& id) const;
  // The key space of an entry of this directory.
  KeyContext key_context_of(const EntryHeader& header) const;
  // The row of an entry with all that its file says.
  EntryRow full_row_of(const EntryReader& entry) const;
  std::filesystem::path temporary_path();
  std::filesystem::path session_path(std::string_view session) const;

  // Moves a damaged file out of the way and forgets it, or forgets it when it is gone.  Does
  // nothing when the file is another one than `seen_file_number` by now: someone wrote it again.
  // Never throws.
  void quarantine(EntryKind kind,
                  const EntryId& id,
                  std::uint64_t seen_file_number,
                  std::string_view reason) noexcept;
  void quarantine_file(const std::filesystem::path& path, std::string_view reason);

  // Removes entries, rows and files together.  Returns the bytes freed.  The caller holds
  // catalogue_mutex.
  std::uint64_t remove_entries(std::span<const EntryId> ids);
  // Removes a tail, unless it is held or a session resumes from it.  The caller holds
  // catalogue_mutex.
  bool remove_tail(const EntryId& id);
  // Evicts until `bytes` more fit into the budget.  False when they cannot.
  bool make_room(std::uint64_t bytes);
};

// What open, rebuild and collect do with the files that lie in the directory.

// Reads which tails the named sessions resume from.
void refresh_references(StoreContext& context);
// Reads the headers of all entry files; damaged ones go to quarantine.
std::vector<EntryRow> scan_entries(StoreContext& context);
// Adopts complete files without a row and drops rows without a file.
CollectReport reconcile(StoreContext& context);
std::uint64_t rebuild_catalogue(StoreContext& context);
// Removes temporary files and leases of processes that died.  True when there were any.
bool clear_after_dead_owners(StoreContext& context);

}  // namespace ds4::kvstore
