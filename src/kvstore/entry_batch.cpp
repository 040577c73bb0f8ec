#include "kvstore/entry_batch.h"

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::kvstore {

namespace {
constexpr std::size_t kBatchFilesMax = 16;
constexpr std::uint64_t kBatchBytesMax = std::uint64_t{64} << 20;
}  // namespace

EntryBatch::~EntryBatch() {
  drop_leases();
}

void EntryBatch::hold(const EntryId& id) {
  leases_.push_back(context_.catalogue->add_lease(id, context_.owner->name()));
}

void EntryBatch::add(const EntryHeader& header,
                     std::span<const std::byte> file,
                     std::span<const AliasRecord> aliases) {
  TemporaryFile temporary(context_.temporary_path(), context_.options.step_hook);
  temporary.write(file);
  EntryRow row = row_of(header);
  row.aliases.assign(aliases.begin(), aliases.end());
  if (!aliases.empty()) row.root = root_id(context_.key_context_of(header));
  files_.push_back({std::move(row), std::move(temporary)});
  files_bytes_ += file.size();
  if (files_.size() >= kBatchFilesMax || files_bytes_ >= kBatchBytesMax) publish();
}

// Names a synced file.  When the name is taken, by a process that saves the same prefix or by one
// that died before it could say so, the file that is there is used if it is sound.
void EntryBatch::publish_one(Written& written) {
  const std::filesystem::path path = context_.path_of(written.row.kind, written.row.id);
  if (written.file.publish_new(path)) return;
  try {
    const EntryReader reader(path, context_.cipher_or_null());
    reader.check_all();
    if (reader.header().id == written.row.id) {
      written.row = context_.full_row_of(reader);
      return;
    }
  } catch (const Error&) {
    // Falls through: not an entry.
  }
  context_.quarantine_file(path, "a damaged file under the name of a new one");
  written.file.publish_over(path);
}

void EntryBatch::publish() {
  if (files_.empty()) return;
  for (Written& written : files_)
    written.file.sync();
  const std::lock_guard lock(context_.catalogue_mutex);
  Catalogue& catalogue = *context_.catalogue;
  Transaction transaction(catalogue.database());
  bool chunks = false;
  bool tails = false;
  for (Written& written : files_) {
    publish_one(written);
    (written.row.kind == EntryKind::kChunk ? chunks : tails) = true;
  }
  if (chunks) sync_directory(context_.chunk_directory, context_.options.step_hook);
  if (tails) sync_directory(context_.tail_directory, context_.options.step_hook);
  for (const Written& written : files_)
    catalogue.insert(written.row);
  hold(files_.back().row.id);
  catalogue.add_written_bytes(context_.today(), files_bytes_);
  reach(context_.options.step_hook, WriteStep::kCatalogue, context_.options.directory);
  transaction.commit();
  bytes_written_ += files_bytes_;
  files_bytes_ = 0;
  files_.clear();
}

void EntryBatch::drop_leases() noexcept {
  if (leases_.empty()) return;
  try {
    const std::lock_guard lock(context_.catalogue_mutex);
    Transaction transaction(context_.catalogue->database());
    for (const std::int64_t lease : leases_)
      context_.catalogue->remove_lease(lease);
    transaction.commit();
  } catch (const std::exception& error) {
    // They die with this process's mark.
    context_.say(LogLevel::kWarning, fmt::format("kv: leases not returned: {}", error.what()));
  }
}

}  // namespace ds4::kvstore
