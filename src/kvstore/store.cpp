#include "kvstore/store.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/error.h"
#include "kvstore/lookup.h"
#include "kvstore/store_context.h"

namespace ds4::kvstore {

namespace {

constexpr const char* kCatalogueName = "catalogue.sqlite";

void check_options(const StoreOptions& options) {
  const auto require = [](bool condition, std::string_view what) {
    if (!condition) throw Error(ErrorCode::kInvalidArgument, fmt::format("kv store: {}", what));
  };
  require(!options.directory.empty(), "no directory was given");
  require(options.chunk_tokens > 0 && options.chunk_tokens % 128 == 0,
          "chunk_tokens must be a multiple of 128");
  require(options.state_stride_chunks > 0, "state_stride_chunks must be at least 1");
  require(options.half_life_s > 0, "half_life_s must be positive");
}

void make_directories(StoreContext& context) {
  make_private_directory(context.options.directory);
  context.read_only = !is_writable_directory(context.options.directory);
  if (context.read_only) {
    context.say(LogLevel::kWarning, fmt::format("kv: {} cannot be written; it is opened read-only",
                                                context.options.directory.string()));
    return;
  }
  for (const auto& directory :
       {context.chunk_directory, context.tail_directory, context.session_directory,
        context.quarantine_directory, context.temporary_directory, context.owner_directory})
    make_private_directory(directory);
  struct stat info {};
  if (::stat(context.options.directory.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
    context.say(
        LogLevel::kWarning,
        fmt::format("kv: {} holds prompts and can be read by others; run: chmod 700 {}",
                    context.options.directory.string(), context.options.directory.string()));
  }
}

bool has_entry_files(const StoreContext& context) {
  for (const auto& directory : {context.chunk_directory, context.tail_directory}) {
    if (std::filesystem::directory_iterator(directory) != std::filesystem::directory_iterator())
      return true;
  }
  return false;
}

// Opens the catalogue; a damaged one is put aside.  True when it has to be filled from the files.
bool open_catalogue(StoreContext& context) {
  const std::filesystem::path path = context.options.directory / kCatalogueName;
  if (context.read_only) {
    context.catalogue = std::make_unique<Catalogue>(path, DatabaseMode::kReadOnly);
    context.reader = std::make_unique<Catalogue>(path, DatabaseMode::kReadOnly);
    return false;
  }
  const bool existed = std::filesystem::exists(path);
  try {
    context.catalogue = std::make_unique<Catalogue>(path, DatabaseMode::kShared);
    context.reader = std::make_unique<Catalogue>(path, DatabaseMode::kReader);
    return !existed && has_entry_files(context);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kBadFormat) throw;
    context.say(LogLevel::kWarning,
                fmt::format("kv: {}; it is rebuilt from the files", error.what()));
  }
  context.catalogue.reset();
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::path file = path;
    file += suffix;
    if (std::filesystem::exists(file)) context.quarantine_file(file, "a damaged catalogue");
  }
  context.catalogue = std::make_unique<Catalogue>(path, DatabaseMode::kShared);
  context.reader = std::make_unique<Catalogue>(path, DatabaseMode::kReader);
  return true;
}

// A directory is of one key, or of none: mixing them would hide entries without a word.
void check_key(StoreContext& context) {
  const std::string given =
      std::to_string(context.cipher ? context.cipher->key_id() : std::uint64_t{0});
  const std::optional<std::string> stored = context.catalogue->setting("key_id");
  if (!stored) {
    if (!context.read_only) context.catalogue->set_setting("key_id", given);
    return;
  }
  if (*stored == given) return;
  const std::string directory = context.options.directory.string();
  if (!context.cipher && context.options.key_policy == KeyPolicy::kMayBeAbsent) {
    context.key_missing = true;
    return;
  }
  if (!context.cipher)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the kv directory {} is encrypted; give its key file", directory));
  if (*stored == "0") {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("the kv directory {} is not encrypted; use another directory with a "
                            "key file, or purge this one",
                            directory));
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("the kv directory {} is encrypted with another key", directory));
}

}  // namespace

KeySpace::KeySpace(ModelIdentity model, KeyContext context)
    : model_(std::move(model)),
      context_(std::move(context)),
      root_(root_id(context_)) {}

Lease::Lease(Lease&& other) noexcept
    : context_(std::move(other.context_)),
      number_(std::exchange(other.number_, 0)) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(number_, other.number_);
  return *this;
}

Lease::~Lease() {
  if (!context_ || number_ == 0) return;
  try {
    const std::lock_guard lock(context_->catalogue_mutex);
    context_->catalogue->remove_lease(number_);
  } catch (const std::exception& error) {
    // It dies with this process's mark.
    context_->say(LogLevel::kWarning, fmt::format("kv: lease not returned: {}", error.what()));
  }
}

Store::Store(StoreOptions options) {
  check_options(options);
  context_ = std::make_shared<StoreContext>(std::move(options));
  StoreContext& context = *context_;
  if (!context.options.key_file.empty())
    context.cipher = Cipher::from_key_file(context.options.key_file);
  make_directories(context);
  if (context.read_only) {
    open_catalogue(context);
    check_key(context);
    return;
  }
  const FileLock opening(context.options.directory / "lock");
  const bool rebuild = open_catalogue(context);
  check_key(context);
  context.owner.emplace(context.owner_directory);
  const bool unclean = clear_after_dead_owners(context);
  if (rebuild)
    rebuild_catalogue(context);
  else if (unclean)
    reconcile(context);
}

Store::~Store() = default;

KeySpace Store::key_space(const ModelIdentity& model, std::string_view name_space) const {
  check_layout(model.layout, context_->options.chunk_tokens);
  check_name_space(name_space);
  if (model.name.size() > 63)
    throw Error(ErrorCode::kInvalidArgument, "the model's name is longer than 63 bytes");
  return KeySpace(model, KeyContext{.fingerprint = model.fingerprint,
                                    .layout_digest = layout_digest(model.layout),
                                    .salt = context_->prefix_salt(),
                                    .chunk_tokens = context_->options.chunk_tokens,
                                    .name_space = std::string(name_space)});
}

std::optional<Hit> Store::lookup(const KeySpace& space,
                                 std::span<const std::byte> text,
                                 const LookupLimits& limits) {
  const std::lock_guard lock(context_->reader_mutex);
  return find_longest(*context_->reader, space, text, limits);
}

std::optional<Hit> Store::hit_of(const EntryId& id) {
  const std::lock_guard lock(context_->reader_mutex);
  return hit_of_entry(*context_->reader, id);
}

Agreement Store::agreement(const KeySpace& space, std::span<const std::byte> text) {
  const std::lock_guard lock(context_->reader_mutex);
  return find_agreement(*context_->reader, space, text);
}

void Store::mark_used(const Hit& hit) {
  if (context_->read_only) return;
  try {
    const std::lock_guard lock(context_->catalogue_mutex);
    Transaction transaction(context_->catalogue->database());
    context_->catalogue->mark_used(hit.chain, context_->now_s(), context_->options.half_life_s);
    transaction.commit();
  } catch (const Error& error) {
    context_->say(LogLevel::kWarning, fmt::format("kv: use not counted: {}", error.what()));
  }
}

Lease Store::hold(const Hit& hit) {
  if (context_->read_only || hit.chain.empty()) return {};
  const std::lock_guard lock(context_->catalogue_mutex);
  return Lease(context_, context_->catalogue->add_lease(hit.chain.back(), context_->owner->name()));
}

void Store::pin(const EntryId& id, std::string_view label) {
  context_->require_writable();
  const std::lock_guard lock(context_->catalogue_mutex);
  if (!context_->catalogue->contains(id))
    throw Error(ErrorCode::kNotFound, fmt::format("no kv entry {}", id.hex()));
  context_->catalogue->add_pin(id, label);
}

void Store::unpin(const EntryId& id, std::string_view label) {
  context_->require_writable();
  const std::lock_guard lock(context_->catalogue_mutex);
  context_->catalogue->remove_pin(id, label);
}

void Store::reject(const EntryId& id, std::string_view reason) {
  EntryKind kind = EntryKind::kTail;
  {
    const std::lock_guard lock(context_->catalogue_mutex);
    const std::optional<EntryRow> row = context_->catalogue->find(id);
    if (!row) return;
    kind = row->kind;
  }
  context_->quarantine(kind, id, file_number(context_->path_of(kind, id)), reason);
}

bool Store::remove_tail(const EntryId& id) {
  context_->require_writable();
  const std::lock_guard lock(context_->catalogue_mutex);
  return context_->remove_tail(id);
}

std::uint64_t Store::remove_branch(const EntryId& id) {
  context_->require_writable();
  const std::lock_guard lock(context_->catalogue_mutex);
  Catalogue& catalogue = *context_->catalogue;
  const auto held = catalogue.held();
  std::uint64_t freed = 0;
  std::optional<EntryRow> row = catalogue.find(id);
  while (row && !held.contains(row->id) && !catalogue.has_children(row->id) &&
         !catalogue.is_referenced(row->id)) {
    freed += context_->remove_entries(std::span(&row->id, 1));
    row = catalogue.find(row->parent);
  }
  return freed;
}

bool Store::contains(const EntryId& id) {
  const std::lock_guard lock(context_->reader_mutex);
  return context_->reader->contains(id);
}

std::optional<EntryRow> Store::find(const EntryId& id) {
  const std::lock_guard lock(context_->reader_mutex);
  return context_->reader->find(id);
}

StoreStats Store::stats() {
  const std::lock_guard lock(context_->catalogue_mutex);
  return {.entries = context_->catalogue->entry_count(),
          .bytes = context_->catalogue->total_bytes(),
          .bytes_written_today = context_->catalogue->written_bytes(context_->today())};
}

std::vector<EntryRow> Store::entries() {
  const std::lock_guard lock(context_->catalogue_mutex);
  return context_->catalogue->all();
}

std::filesystem::path Store::path_of(const EntryRow& row) const {
  return context_->path_of(row.kind, row.id);
}

std::vector<EntryId> Store::ids_with_prefix(std::string_view prefix) {
  std::vector<EntryId> ids;
  for (const EntryRow& row : entries())
    if (row.id.hex().starts_with(prefix)) ids.push_back(row.id);
  return ids;
}

std::optional<Restored> Store::resume(const KeySpace& space,
                                      std::span<const std::byte> text,
                                      StateSink& sink,
                                      const LookupLimits& limits) {
  // Every failure forgets an entry, unless someone has written it again meanwhile.
  constexpr int kAttemptsMax = 100;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    const std::optional<Hit> hit = lookup(space, text, limits);
    if (!hit) return std::nullopt;
    try {
      return restore(space, *hit, sink);
    } catch (const Error& error) {
      // A damaged or missing entry is out of the catalogue by now, so that the next lookup differs.
      const bool forgotten =
          error.code() == ErrorCode::kBadFormat || error.code() == ErrorCode::kNotFound;
      if (!forgotten && error.code() != ErrorCode::kIo) throw;
      if (forgotten && !context_->read_only) continue;
      context_->say(LogLevel::kWarning, fmt::format("kv: not resumed: {}", error.what()));
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace ds4::kvstore
