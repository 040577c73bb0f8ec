#include "kvstore/store_context.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "kvstore/eviction.h"

namespace ds4::kvstore {

namespace {
constexpr std::size_t kQuarantineFilesMax = 16;

// Keeps quarantine from growing without bound: the oldest files go.
void trim_quarantine(const std::filesystem::path& directory) {
  std::vector<std::pair<std::filesystem::file_time_type, std::filesystem::path>> files;
  for (const auto& file : std::filesystem::directory_iterator(directory))
    files.emplace_back(file.last_write_time(), file.path());
  std::sort(files.begin(), files.end());
  for (std::size_t i = 0; i + kQuarantineFilesMax < files.size(); ++i)
    std::filesystem::remove(files[i].second);
}
}  // namespace

StoreContext::StoreContext(StoreOptions store_options)
    : options(std::move(store_options)),
      chunk_directory(options.directory / "chunks"),
      tail_directory(options.directory / "tails"),
      session_directory(options.directory / "sessions"),
      quarantine_directory(options.directory / "quarantine"),
      temporary_directory(options.directory / "tmp"),
      owner_directory(options.directory / "owners") {}

std::int64_t StoreContext::now_s() const {
  return options.clock_s ? options.clock_s() : static_cast<std::int64_t>(std::time(nullptr));
}

void StoreContext::require_writable() const {
  if (read_only) {
    throw Error(ErrorCode::kIo,
                fmt::format("the kv directory {} cannot be written; nothing is saved there",
                            options.directory.string()));
  }
}

void StoreContext::require_key() const {
  if (key_missing) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the kv directory {} is encrypted; give its key file to save into it",
                            options.directory.string()));
  }
}

std::filesystem::path StoreContext::path_of(EntryKind kind, const EntryId& id) const {
  return directory_of(kind) / (id.hex() + (kind == EntryKind::kChunk ? ".chunk" : ".tail"));
}

KeyContext StoreContext::key_context_of(const EntryHeader& header) const {
  return {.fingerprint = header.fingerprint,
          .layout_digest = header.layout_digest,
          .salt = prefix_salt(),
          .chunk_tokens = header.chunk_tokens,
          .name_space = header.name_space};
}

EntryRow StoreContext::full_row_of(const EntryReader& entry) const {
  EntryRow row = row_of(entry.header());
  row.aliases = entry.aliases();
  if (!row.aliases.empty()) row.root = root_id(key_context_of(entry.header()));
  return row;
}

std::filesystem::path StoreContext::temporary_path() {
  return temporary_directory / fmt::format("{}-{}.tmp", owner->name(), next_temporary.fetch_add(1));
}

std::filesystem::path StoreContext::session_path(std::string_view session) const {
  return session_directory / fmt::format("{}.session", session);
}

void StoreContext::quarantine_file(const std::filesystem::path& path, std::string_view reason) {
  say(LogLevel::kWarning, fmt::format("kv: {} put into quarantine: {}", path.string(), reason));
  if (read_only) return;
  std::error_code failure;
  std::filesystem::rename(
      path, quarantine_directory / fmt::format("{}.{}", path.filename().string(), random_hex(4)),
      failure);
  // A file that cannot be moved must not be found again either.
  if (failure) std::filesystem::remove(path, failure);
  trim_quarantine(quarantine_directory);
}

void StoreContext::quarantine(EntryKind kind,
                              const EntryId& id,
                              std::uint64_t seen_file_number,
                              std::string_view reason) noexcept {
  try {
    const std::filesystem::path path = path_of(kind, id);
    if (read_only) {
      say(LogLevel::kWarning, fmt::format("kv: {} is not used: {}", path.string(), reason));
      return;
    }
    const std::lock_guard lock(catalogue_mutex);
    // Names are given and taken under the catalogue's write lock.
    Transaction transaction(catalogue->database());
    const std::uint64_t number = file_number(path);
    if (number != seen_file_number) return;
    catalogue->remove(id);
    if (number != 0)
      quarantine_file(path, reason);
    else
      say(LogLevel::kInfo, fmt::format("kv: {} is gone", path.string()));
    transaction.commit();
  } catch (const std::exception& error) {
    say(LogLevel::kError, fmt::format("kv: quarantine failed: {}", error.what()));
  }
}

std::uint64_t StoreContext::remove_entries(std::span<const EntryId> ids) {
  std::uint64_t freed = 0;
  Transaction transaction(catalogue->database());
  for (const EntryId& id : ids) {
    const std::optional<EntryRow> row = catalogue->find(id);
    if (!row) continue;
    catalogue->remove(id);
    remove_file(path_of(row->kind, id), options.step_hook);
    freed += row->file_bytes;
  }
  reach(options.step_hook, WriteStep::kCatalogue, options.directory);
  transaction.commit();
  return freed;
}

bool StoreContext::remove_tail(const EntryId& id) {
  const std::optional<EntryRow> row = catalogue->find(id);
  if (!row || row->kind != EntryKind::kTail || catalogue->is_referenced(id) ||
      catalogue->held().contains(id))
    return false;
  remove_entries(std::span(&id, 1));
  return true;
}

bool StoreContext::make_room(std::uint64_t bytes) {
  if (options.bytes_max == 0) return true;
  if (bytes > options.bytes_max) return false;
  const std::lock_guard lock(catalogue_mutex);
  const std::uint64_t total = catalogue->total_bytes();
  if (total + bytes <= options.bytes_max) return true;
  EvictionInput input{.rows = catalogue->all(),
                      .held = catalogue->held(),
                      .referenced = catalogue->referenced(),
                      .bytes_to_free = total + bytes - options.bytes_max,
                      .now_s = now_s(),
                      .half_life_s = options.half_life_s};
  const std::vector<EntryId> victims = choose_victims(input);
  const std::uint64_t freed = remove_entries(victims);
  say(LogLevel::kInfo, fmt::format("kv: evicted {} entries, {} bytes", victims.size(), freed));
  return freed >= input.bytes_to_free;
}

}  // namespace ds4::kvstore
