#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kvstore/store_context.h"

namespace ds4::kvstore {

// New entries on their way to the disk and into the catalogue.  Files of one batch are written,
// then synced, then named, so that the disk always has work and a directory is synced once for all.
// Nothing that it has published or was told to hold is evicted while it lives.  Confined to one
// thread.
class EntryBatch {
 public:
  explicit EntryBatch(StoreContext& context) : context_(context) {}
  EntryBatch(const EntryBatch&) = delete;
  EntryBatch& operator=(const EntryBatch&) = delete;
  // Drops what was not published.
  ~EntryBatch();

  // Writes a whole file under a temporary name; publishes when the batch is full.  `aliases` are
  // those in the file.
  void add(const EntryHeader& header,
           std::span<const std::byte> file,
           std::span<const AliasRecord> aliases = {});
  // Syncs and names the files, then enters them into the catalogue in one transaction.
  void publish();
  // Keeps an entry that is there.  The caller holds catalogue_mutex.
  void hold(const EntryId& id);
  std::uint64_t bytes_written() const { return bytes_written_; }

 private:
  struct Written {
    EntryRow row;
    TemporaryFile file;
  };

  void publish_one(Written& written);
  void drop_leases() noexcept;

  StoreContext& context_;
  std::vector<Written> files_;
  std::uint64_t files_bytes_ = 0;
  std::uint64_t bytes_written_ = 0;
  std::vector<std::int64_t> leases_;
};

}  // namespace ds4::kvstore
