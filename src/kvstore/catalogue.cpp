#include "kvstore/catalogue.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"

namespace ds4::kvstore {

namespace {

constexpr std::int64_t kSchemaVersion = 2;
constexpr std::string_view kEntryColumns =
    "id, parent, key, kind, role, has_state, has_logits, token_begin, token_end, byte_end, "
    "text_check, file_bytes, created_s, used_s, hits, recompute_ms, name_space, model";

constexpr const char* kTables = R"sql(
CREATE TABLE IF NOT EXISTS setting(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry(
  id BLOB PRIMARY KEY, parent BLOB NOT NULL, key BLOB NOT NULL, kind INTEGER NOT NULL,
  role INTEGER NOT NULL, has_state INTEGER NOT NULL, has_logits INTEGER NOT NULL,
  token_begin INTEGER NOT NULL, token_end INTEGER NOT NULL, byte_end INTEGER NOT NULL,
  text_check INTEGER NOT NULL, file_bytes INTEGER NOT NULL, created_s INTEGER NOT NULL,
  used_s INTEGER NOT NULL, hits REAL NOT NULL, recompute_ms REAL NOT NULL,
  name_space TEXT NOT NULL, model TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_children
  ON entry(parent, byte_end, text_check, key, kind, has_state, has_logits, token_end);
CREATE TABLE IF NOT EXISTS alias(root BLOB NOT NULL, byte_end INTEGER NOT NULL,
  text_check INTEGER NOT NULL, key BLOB NOT NULL, tail BLOB NOT NULL, bridge BLOB NOT NULL,
  PRIMARY KEY(root, byte_end, text_check, key, tail)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alias_tail ON alias(tail);
CREATE TABLE IF NOT EXISTS lease(number INTEGER PRIMARY KEY, entry BLOB NOT NULL,
  owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pin(entry BLOB NOT NULL, label TEXT NOT NULL,
  PRIMARY KEY(entry, label)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reference(session TEXT PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reference_entry ON reference(entry);
CREATE TABLE IF NOT EXISTS written(day INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
)sql";

// SQLite makes its files with the process's mask; the store's are for their owner alone.  The WAL
// and its index take the mode of the main file.
const std::filesystem::path& private_file(const std::filesystem::path& path, DatabaseMode mode) {
  if (mode == DatabaseMode::kReadOnly) return path;
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) throw_errno("cannot open", path.string());
  ::close(descriptor);
  return path;
}

EntryRow read_row(const Statement& from) {
  EntryRow row;
  row.id.digest = from.digest(0);
  row.parent.digest = from.digest(1);
  row.key = from.digest(2);
  row.kind = from.integer(3) == 1 ? EntryKind::kChunk : EntryKind::kTail;
  row.role = static_cast<EntryRole>(std::clamp<std::int64_t>(from.integer(4), 0, 3));
  row.has_state = from.integer(5) != 0;
  row.has_logits = from.integer(6) != 0;
  row.token_begin = static_cast<std::uint64_t>(from.integer(7));
  row.token_end = static_cast<std::uint64_t>(from.integer(8));
  row.byte_end = static_cast<std::uint64_t>(from.integer(9));
  row.text_check = static_cast<std::uint64_t>(from.integer(10));
  row.file_bytes = static_cast<std::uint64_t>(from.integer(11));
  row.created_s = from.integer(12);
  row.used_s = from.integer(13);
  row.hits = from.real(14);
  row.recompute_ms = from.real(15);
  row.name_space = from.text(16);
  row.model = from.text(17);
  return row;
}

}  // namespace

struct Catalogue::Statements {
  explicit Statements(const Database& database)
      : find(database, fmt::format("SELECT {} FROM entry WHERE id=?1", kEntryColumns)),
        contains(database, "SELECT 1 FROM entry WHERE id=?1"),
        children(database,
                 "SELECT id, key, kind, has_state, has_logits, token_end, byte_end, text_check "
                 "FROM entry WHERE parent=?1 AND byte_end<=?2 ORDER BY byte_end"),
        aliases(database,
                "SELECT key, byte_end, text_check, tail, bridge FROM alias "
                "WHERE root=?1 AND byte_end<=?2 ORDER BY byte_end"),
        has_children(database, "SELECT 1 FROM entry WHERE parent=?1 LIMIT 1"),
        insert(database,
               fmt::format("INSERT OR IGNORE INTO entry({}) VALUES(?1,?2,?3,?4,?5,?6,?7,"
                           "?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)",
                           kEntryColumns)),
        remove(database, "DELETE FROM entry WHERE id=?1"),
        add_alias(database, "INSERT OR REPLACE INTO alias VALUES(?1,?2,?3,?4,?5,?6)"),
        remove_aliases(database, "DELETE FROM alias WHERE tail=?1"),
        use_of(database, "SELECT used_s, hits FROM entry WHERE id=?1"),
        set_use(database, "UPDATE entry SET used_s=?2, hits=?3 WHERE id=?1"),
        total(database, "SELECT coalesce(sum(file_bytes),0), count(*) FROM entry"),
        add_lease(database, "INSERT INTO lease(entry, owner) VALUES(?1,?2)"),
        remove_lease(database, "DELETE FROM lease WHERE number=?1") {}

  Statement find, contains, children, aliases, has_children, insert, remove, add_alias,
      remove_aliases, use_of, set_use, total, add_lease, remove_lease;
};

EntryRow row_of(const EntryHeader& header) {
  EntryRow row;
  row.id = header.id;
  row.parent = header.parent;
  row.key = header.key;
  row.kind = header.kind;
  row.role = header.role;
  row.has_state = header.has_state;
  row.has_logits = header.has_logits;
  row.token_begin = header.token_begin;
  row.token_end = header.token_end;
  row.byte_end = header.byte_end;
  row.text_check = header.text_check;
  row.file_bytes = header.file_bytes;
  row.created_s = header.created_s;
  row.used_s = header.created_s;
  row.hits = 1.0;
  row.recompute_ms = static_cast<double>(header.recompute_us) / 1000.0;
  row.name_space = header.name_space;
  row.model = header.model;
  return row;
}

Catalogue::Catalogue(const std::filesystem::path& path, DatabaseMode mode)
    : database_(private_file(path, mode), mode) {
  if (mode == DatabaseMode::kShared) create_tables();
  const std::optional<std::string> version = setting("schema");
  if (version != std::to_string(kSchemaVersion)) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("catalogue {} is not of version {}", path.string(), kSchemaVersion));
  }
  statements_ = std::make_unique<Statements>(database_);
}

Catalogue::~Catalogue() = default;

void Catalogue::create_tables() {
  Statement present(database_, "SELECT 1 FROM sqlite_master WHERE name='written'");
  const bool complete = present.step();
  present.reset();
  if (complete) return;
  Transaction transaction(database_);
  database_.execute(kTables);
  Statement(database_, "INSERT OR IGNORE INTO setting(name, value) VALUES('schema', ?1)")
      .bind(1, std::string_view(std::to_string(kSchemaVersion)))
      .run();
  transaction.commit();
}

std::optional<EntryRow> Catalogue::find(const EntryId& id) {
  Statement& find = statements_->find;
  find.bind(1, id);
  if (!find.step()) return std::nullopt;
  EntryRow row = read_row(find);
  find.reset();
  return row;
}

bool Catalogue::contains(const EntryId& id) {
  const bool found = statements_->contains.bind(1, id).step();
  statements_->contains.reset();
  return found;
}

void Catalogue::children(const EntryId& parent,
                         std::uint64_t byte_end_max,
                         const ChildFilter& filter,
                         std::vector<ChildRow>& out) {
  Statement& from = statements_->children;
  from.bind(1, parent).bind(2, static_cast<std::int64_t>(byte_end_max));
  while (from.step()) {
    const auto byte_end = static_cast<std::uint64_t>(from.integer(6));
    const auto text_check = static_cast<std::uint64_t>(from.integer(7));
    if (!filter.wants(byte_end, text_check)) continue;
    ChildRow& row = out.emplace_back();
    row.id.digest = from.digest(0);
    row.key = from.digest(1);
    row.kind = from.integer(2) == 1 ? EntryKind::kChunk : EntryKind::kTail;
    row.has_state = from.integer(3) != 0;
    row.has_logits = from.integer(4) != 0;
    row.token_end = static_cast<std::uint64_t>(from.integer(5));
    row.byte_end = byte_end;
    row.text_check = text_check;
  }
}

void Catalogue::aliases(const EntryId& root,
                        std::uint64_t byte_end_max,
                        const ChildFilter& filter,
                        std::vector<AliasRow>& out) {
  Statement& from = statements_->aliases;
  from.bind(1, root).bind(2, static_cast<std::int64_t>(byte_end_max));
  while (from.step()) {
    const auto byte_end = static_cast<std::uint64_t>(from.integer(1));
    const auto text_check = static_cast<std::uint64_t>(from.integer(2));
    if (!filter.wants(byte_end, text_check)) continue;
    AliasRow& row = out.emplace_back();
    row.record.key = from.digest(0);
    row.record.byte_end = byte_end;
    row.record.text_check = text_check;
    row.tail.digest = from.digest(3);
    const std::vector<std::byte> bridge = from.blob(4);
    row.record.bridge.resize(bridge.size() / sizeof(TokenId));
    if (!bridge.empty())
      std::memcpy(row.record.bridge.data(), bridge.data(),
                  row.record.bridge.size() * sizeof(TokenId));
  }
}

std::vector<EntryRow> Catalogue::recent_children(const EntryId& parent, std::size_t count_max) {
  // Of the very many that may hang on a root only some are looked at.
  Statement from(database_, fmt::format("SELECT {0} FROM (SELECT {0} FROM entry WHERE parent=?1 "
                                        "LIMIT 256) ORDER BY used_s DESC LIMIT ?2",
                                        kEntryColumns));
  from.bind(1, parent).bind(2, static_cast<std::int64_t>(count_max));
  std::vector<EntryRow> rows;
  while (from.step())
    rows.push_back(read_row(from));
  return rows;
}

bool Catalogue::has_children(const EntryId& id) {
  const bool found = statements_->has_children.bind(1, id).step();
  statements_->has_children.reset();
  return found;
}

std::vector<EntryRow> Catalogue::all() {
  std::vector<EntryRow> rows;
  Statement from(database_, fmt::format("SELECT {} FROM entry", kEntryColumns));
  while (from.step())
    rows.push_back(read_row(from));
  return rows;
}

std::uint64_t Catalogue::total_bytes() {
  statements_->total.step();
  const auto bytes = static_cast<std::uint64_t>(statements_->total.integer(0));
  statements_->total.reset();
  return bytes;
}

std::uint64_t Catalogue::entry_count() {
  statements_->total.step();
  const auto count = static_cast<std::uint64_t>(statements_->total.integer(1));
  statements_->total.reset();
  return count;
}

bool Catalogue::insert(const EntryRow& row) {
  Statement& insert = statements_->insert;
  insert.bind(1, row.id).bind(2, row.parent).bind(3, row.key);
  insert.bind(4, static_cast<std::int64_t>(row.kind));
  insert.bind(5, static_cast<std::int64_t>(row.role));
  insert.bind(6, std::int64_t{row.has_state}).bind(7, std::int64_t{row.has_logits});
  insert.bind(8, static_cast<std::int64_t>(row.token_begin));
  insert.bind(9, static_cast<std::int64_t>(row.token_end));
  insert.bind(10, static_cast<std::int64_t>(row.byte_end));
  insert.bind(11, static_cast<std::int64_t>(row.text_check));
  insert.bind(12, static_cast<std::int64_t>(row.file_bytes));
  insert.bind(13, row.created_s).bind(14, row.used_s);
  insert.bind(15, row.hits).bind(16, row.recompute_ms);
  insert.bind(17, std::string_view(row.name_space)).bind(18, std::string_view(row.model));
  insert.run();
  const bool is_new = database_.changes() > 0;
  for (const AliasRecord& alias : row.aliases) {
    statements_->add_alias.bind(1, row.root)
        .bind(2, static_cast<std::int64_t>(alias.byte_end))
        .bind(3, static_cast<std::int64_t>(alias.text_check))
        .bind(4, alias.key)
        .bind(5, row.id)
        .bind_blob(6, std::as_bytes(std::span(alias.bridge)))
        .run();
  }
  return is_new;
}

void Catalogue::remove(const EntryId& id) {
  statements_->remove.bind(1, id).run();
  statements_->remove_aliases.bind(1, id).run();
}

void Catalogue::mark_used(std::span<const EntryId> ids, std::int64_t now_s, double half_life_s) {
  for (const EntryId& id : ids) {
    Statement& use = statements_->use_of;
    if (!use.bind(1, id).step()) continue;
    // A clock that went back makes an age negative: no decay then.
    const double age_s = static_cast<double>(std::max<std::int64_t>(0, now_s - use.integer(0)));
    const double hits = use.real(1) * std::exp2(-age_s / half_life_s) + 1.0;
    use.reset();
    statements_->set_use.bind(1, id).bind(2, now_s).bind(3, hits).run();
  }
}

void Catalogue::clear_entries() {
  database_.execute("DELETE FROM entry; DELETE FROM alias; DELETE FROM reference;");
}

void Catalogue::clear_all() {
  database_.execute(
      "DELETE FROM entry; DELETE FROM alias; DELETE FROM reference; DELETE FROM pin; DELETE FROM "
      "lease; "
      "DELETE FROM written;");
}

std::int64_t Catalogue::add_lease(const EntryId& id, std::string_view owner) {
  statements_->add_lease.bind(1, id).bind(2, owner).run();
  return database_.last_row();
}

void Catalogue::remove_lease(std::int64_t lease) {
  statements_->remove_lease.bind(1, lease).run();
}

void Catalogue::remove_leases_of(std::string_view owner) {
  Statement(database_, "DELETE FROM lease WHERE owner=?1").bind(1, owner).run();
}

void Catalogue::add_pin(const EntryId& id, std::string_view label) {
  Statement(database_, "INSERT OR IGNORE INTO pin(entry, label) VALUES(?1,?2)")
      .bind(1, id)
      .bind(2, label)
      .run();
}

void Catalogue::remove_pin(const EntryId& id, std::string_view label) {
  Statement(database_, "DELETE FROM pin WHERE entry=?1 AND label=?2")
      .bind(1, id)
      .bind(2, label)
      .run();
}

std::unordered_set<EntryId> Catalogue::held() {
  std::unordered_set<EntryId> ids;
  Statement from(database_, "SELECT entry FROM lease UNION SELECT entry FROM pin");
  while (from.step())
    ids.insert(EntryId{from.digest(0)});
  return ids;
}

std::unordered_set<EntryId> Catalogue::pinned() {
  std::unordered_set<EntryId> ids;
  Statement from(database_, "SELECT DISTINCT entry FROM pin");
  while (from.step())
    ids.insert(EntryId{from.digest(0)});
  return ids;
}

void Catalogue::set_reference(std::string_view session, const EntryId& id) {
  Statement(database_, "INSERT OR REPLACE INTO reference(session, entry) VALUES(?1,?2)")
      .bind(1, session)
      .bind(2, id)
      .run();
}

void Catalogue::remove_reference(std::string_view session) {
  Statement(database_, "DELETE FROM reference WHERE session=?1").bind(1, session).run();
}

bool Catalogue::is_referenced(const EntryId& id) {
  Statement from(database_, "SELECT 1 FROM reference WHERE entry=?1 LIMIT 1");
  return from.bind(1, id).step();
}

std::unordered_set<EntryId> Catalogue::referenced() {
  std::unordered_set<EntryId> ids;
  Statement from(database_, "SELECT DISTINCT entry FROM reference");
  while (from.step())
    ids.insert(EntryId{from.digest(0)});
  return ids;
}

std::uint64_t Catalogue::written_bytes(std::int64_t day) {
  Statement from(database_, "SELECT bytes FROM written WHERE day=?1");
  return from.bind(1, day).step() ? static_cast<std::uint64_t>(from.integer(0)) : 0;
}

void Catalogue::add_written_bytes(std::int64_t day, std::uint64_t bytes) {
  Statement(database_,
            "INSERT INTO written(day, bytes) VALUES(?1,?2) "
            "ON CONFLICT(day) DO UPDATE SET bytes=bytes+?2")
      .bind(1, day)
      .bind(2, static_cast<std::int64_t>(bytes))
      .run();
}

std::optional<std::string> Catalogue::setting(std::string_view name) {
  Statement from(database_, "SELECT value FROM setting WHERE name=?1");
  if (!from.bind(1, name).step()) return std::nullopt;
  return from.text(0);
}

void Catalogue::set_setting(std::string_view name, std::string_view value) {
  Statement(database_, "INSERT OR REPLACE INTO setting(name, value) VALUES(?1,?2)")
      .bind(1, name)
      .bind(2, value)
      .run();
}

}  // namespace ds4::kvstore
