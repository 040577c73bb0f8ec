#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/session_file.h"
#include "kvstore/store.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

// Files of one of the two entry directories, with the id that each is named after.
std::vector<std::pair<EntryId, std::filesystem::path>> entry_files(const StoreContext& context,
                                                                   EntryKind kind) {
  std::vector<std::pair<EntryId, std::filesystem::path>> files;
  for (const auto& file : std::filesystem::directory_iterator(context.directory_of(kind))) {
    const std::optional<EntryId> id = EntryId::from_hex(file.path().stem().string());
    if (id && file.path() == context.path_of(kind, *id)) files.emplace_back(*id, file.path());
  }
  return files;
}

// The row of a file whose header is sound; a damaged one goes to quarantine.  A name is given only
// to complete files, so the header is enough here; sections are checked whenever they are used.
std::optional<EntryRow> read_row(StoreContext& context,
                                 EntryKind kind,
                                 const EntryId& id,
                                 const std::filesystem::path& path) {
  try {
    const EntryReader reader(path, context.cipher_or_null());
    if (reader.header().id == id && reader.header().kind == kind)
      return context.full_row_of(reader);
    context.quarantine_file(path, "it is another entry than its name says");
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBadFormat)
      context.quarantine_file(path, error.what());
    else
      context.say(LogLevel::kWarning,
                  fmt::format("kv: {} left alone: {}", path.string(), error.what()));
  }
  return std::nullopt;
}

std::uint64_t remove_all_files(const std::filesystem::path& directory, const StepHook& hook) {
  std::uint64_t removed = 0;
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(directory))
    files.push_back(file.path());
  for (const auto& file : files)
    removed += remove_file(file, hook) ? 1 : 0;
  return removed;
}

// Sessions of one namespace, or all; those that cannot be read go with all alone.
std::uint64_t remove_sessions(StoreContext& context, const std::optional<std::string>& name_space) {
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(context.session_directory)) {
    try {
      if (!name_space ||
          read_session(file.path(), context.cipher_or_null()).content.info.name_space ==
              *name_space)
        files.push_back(file.path());
    } catch (const Error& error) {
      context.say(LogLevel::kWarning,
                  fmt::format("kv: session {} stays: {}", file.path().string(), error.what()));
    }
  }
  for (const auto& file : files) {
    context.catalogue->remove_reference(file.stem().string());
    remove_file(file, context.options.step_hook);
  }
  return files.size();
}

// Session files stay where they are: what is sound of them is still worth having.
void check_session_files(StoreContext& context, VerifyReport& report) {
  std::error_code failure;
  for (const auto& file : std::filesystem::directory_iterator(context.session_directory, failure)) {
    try {
      const SessionRead read = read_session(file.path(), context.cipher_or_null());
      report.bytes_checked += read.sound_bytes;
      if (read.sound_bytes < read.file_bytes) {
        report.problems.push_back(
            fmt::format("{}: {} bytes at its end are not sound; what was saved before them is",
                        file.path().string(), read.file_bytes - read.sound_bytes));
      }
    } catch (const Error& error) {
      if (context.key_missing && error.code() == ErrorCode::kInvalidArgument) continue;
      report.problems.push_back(fmt::format("{}: {}", file.path().string(), error.what()));
    }
  }
}

}  // namespace

std::vector<EntryRow> scan_entries(StoreContext& context) {
  std::vector<EntryRow> rows;
  for (const EntryKind kind : {EntryKind::kChunk, EntryKind::kTail}) {
    for (const auto& [id, path] : entry_files(context, kind)) {
      if (std::optional<EntryRow> row = read_row(context, kind, id, path))
        rows.push_back(std::move(*row));
    }
  }
  return rows;
}

void refresh_references(StoreContext& context) {
  std::error_code failure;
  for (const auto& file : std::filesystem::directory_iterator(context.session_directory, failure)) {
    try {
      const SessionInfo info = read_session(file.path(), context.cipher_or_null()).content.info;
      const std::lock_guard lock(context.catalogue_mutex);
      if (info.tail) context.catalogue->set_reference(info.id, *info.tail);
    } catch (const Error& error) {
      context.say(LogLevel::kWarning,
                  fmt::format("kv: session {}: {}", file.path().string(), error.what()));
    }
  }
}

CollectReport reconcile(StoreContext& context) {
  refresh_references(context);
  CollectReport report;
  const std::lock_guard lock(context.catalogue_mutex);
  Catalogue& catalogue = *context.catalogue;
  Transaction transaction(catalogue.database());
  for (const EntryKind kind : {EntryKind::kChunk, EntryKind::kTail}) {
    for (const auto& [id, path] : entry_files(context, kind)) {
      if (catalogue.contains(id)) continue;
      const std::optional<EntryRow> row = read_row(context, kind, id, path);
      if (row && catalogue.insert(*row)) ++report.adopted;
    }
  }
  for (const EntryRow& row : catalogue.all()) {
    if (std::filesystem::exists(context.path_of(row.kind, row.id))) continue;
    catalogue.remove(row.id);
    ++report.vanished;
  }
  transaction.commit();
  if (report.adopted + report.vanished > 0)
    context.say(LogLevel::kInfo,
                fmt::format("kv: {} files adopted, {} gone", report.adopted, report.vanished));
  return report;
}

std::uint64_t rebuild_catalogue(StoreContext& context) {
  const std::vector<EntryRow> rows = scan_entries(context);
  {
    const std::lock_guard lock(context.catalogue_mutex);
    Catalogue& catalogue = *context.catalogue;
    std::unordered_map<EntryId, EntryRow> known;
    for (EntryRow& row : catalogue.all())
      known.emplace(row.id, std::move(row));
    Transaction transaction(catalogue.database());
    catalogue.clear_entries();
    for (EntryRow row : rows) {
      // Use counts are all that the files do not hold.
      if (const auto old = known.find(row.id); old != known.end()) {
        row.hits = old->second.hits;
        row.used_s = old->second.used_s;
      }
      catalogue.insert(row);
    }
    transaction.commit();
  }
  reconcile(context);  // what others wrote meanwhile
  const std::lock_guard lock(context.catalogue_mutex);
  return context.catalogue->entry_count();
}

bool clear_after_dead_owners(StoreContext& context) {
  const std::vector<std::string> dead = OwnerMark::dead_owners(context.owner_directory);
  for (const std::string& owner : dead) {
    std::vector<std::filesystem::path> left;
    for (const auto& file : std::filesystem::directory_iterator(context.temporary_directory))
      if (file.path().filename().string().starts_with(owner + "-")) left.push_back(file.path());
    for (const auto& file : left)
      remove_file(file, context.options.step_hook);
    {
      const std::lock_guard lock(context.catalogue_mutex);
      context.catalogue->remove_leases_of(owner);
    }
    OwnerMark::forget(context.owner_directory, owner);
  }
  return !dead.empty();
}

VerifyReport Store::verify() {
  VerifyReport report;
  for (const EntryRow& row : entries()) {
    const std::filesystem::path path = path_of(row);
    const std::uint64_t number = file_number(path);
    try {
      const EntryReader reader(path, context_->cipher_or_null());
      if (reader.header().id != row.id)
        throw Error(ErrorCode::kBadFormat, "it is another entry than its name says");
      reader.check_all();
      report.bytes_checked += row.file_bytes;
    } catch (const Error& error) {
      report.problems.push_back(fmt::format("{}: {}", path.string(), error.what()));
      if (error.code() != ErrorCode::kIo && error.code() != ErrorCode::kInvalidArgument)
        context_->quarantine(row.kind, row.id, number, error.what());
    }
    ++report.entries_checked;
  }
  check_session_files(*context_, report);
  return report;
}

CollectReport Store::collect() {
  context_->require_writable();
  clear_after_dead_owners(*context_);
  CollectReport report = reconcile(*context_);
  const StoreStats before = stats();
  context_->make_room(0);
  const StoreStats after = stats();
  report.evicted = before.entries - std::min(before.entries, after.entries);
  report.bytes_freed = before.bytes - std::min(before.bytes, after.bytes);
  remove_all_files(context_->quarantine_directory, context_->options.step_hook);
  const std::lock_guard lock(context_->catalogue_mutex);
  context_->catalogue->database().execute("PRAGMA wal_checkpoint(TRUNCATE)");
  return report;
}

std::uint64_t Store::rebuild() {
  context_->require_writable();
  const FileLock lock(context_->options.directory / "lock");
  return rebuild_catalogue(*context_);
}

std::uint64_t Store::purge(const std::optional<std::string>& name_space) {
  context_->require_writable();
  const StepHook& hook = context_->options.step_hook;
  const std::lock_guard save_lock(context_->save_mutex);
  const std::lock_guard lock(context_->catalogue_mutex);
  Catalogue& catalogue = *context_->catalogue;
  std::uint64_t removed = remove_all_files(context_->quarantine_directory, hook);
  Transaction transaction(catalogue.database());
  removed += remove_sessions(*context_, name_space);
  for (const EntryRow& row : catalogue.all()) {
    if (name_space && row.name_space != *name_space) continue;
    catalogue.remove(row.id);
    removed += remove_file(context_->path_of(row.kind, row.id), hook) ? 1 : 0;
  }
  if (!name_space) {
    catalogue.clear_all();
    for (const auto& directory :
         {context_->chunk_directory, context_->tail_directory, context_->session_directory})
      removed += remove_all_files(directory, hook);
  }
  transaction.commit();
  try {
    // Keys of prompts are no text, but they need not stay either.
    catalogue.database().execute("PRAGMA wal_checkpoint(TRUNCATE); VACUUM;");
  } catch (const Error& error) {
    context_->say(LogLevel::kWarning, fmt::format("kv: catalogue not compacted: {}", error.what()));
  }
  return removed;
}

}  // namespace ds4::kvstore
