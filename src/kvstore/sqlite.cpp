#include "kvstore/sqlite.h"

#include <cstring>

#include <fmt/format.h>
#include <sqlite3.h>

#include "base/error.h"

namespace ds4::kvstore {

namespace {

constexpr int kBusyTimeoutMs = 10000;

ErrorCode error_code(int result) {
  switch (result & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::kBusy;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::kBadFormat;
    case SQLITE_NOMEM:
      return ErrorCode::kOutOfMemory;
    case SQLITE_ERROR:
    case SQLITE_SCHEMA:
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
      return ErrorCode::kBadFormat;
    default:
      return ErrorCode::kIo;
  }
}

[[noreturn]] void fail(sqlite3* handle, int result) {
  const char* path = handle != nullptr ? sqlite3_db_filename(handle, "main") : nullptr;
  throw Error(error_code(result),
              fmt::format("catalogue {}: {}", path != nullptr ? path : "",
                          handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(result)));
}

// SQLite reads '?', '#' and '%' of a URI; a path may hold any of them.
std::string file_uri(const std::filesystem::path& path, std::string_view query) {
  std::string uri = "file:";
  for (const char c : std::filesystem::absolute(path).string()) {
    if (c == '?' || c == '#' || c == '%')
      uri += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    else
      uri += c;
  }
  return uri + std::string(query);
}

}  // namespace

Database::Database(const std::filesystem::path& path, DatabaseMode mode) {
  const bool shared = mode == DatabaseMode::kShared;
  const std::string_view query = shared                          ? "?mode=rwc"
                                 : mode == DatabaseMode::kReader ? "?mode=ro"
                                                                 : "?mode=ro&immutable=1";
  const std::string uri = file_uri(path, query);
  const int flags = SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX |
                    (shared ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
  const int result = sqlite3_open_v2(uri.c_str(), &handle_, flags, nullptr);
  try {
    if (result != SQLITE_OK) fail(handle_, result);
    sqlite3_extended_result_codes(handle_, 1);
    sqlite3_busy_timeout(handle_, kBusyTimeoutMs);
    if (shared) {
      // Commits survive a crash of the process at once and a crash of the machine up to the last
      // checkpoint; what that loses is found again in the files.
      execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;");
    }
    execute("PRAGMA temp_store=MEMORY; SELECT count(*) FROM sqlite_master;");
  } catch (...) {
    sqlite3_close(handle_);
    throw;
  }
}

Database::~Database() {
  sqlite3_close(handle_);
}

void Database::execute(const char* sql) {
  const int result = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) fail(handle_, result);
}

std::int64_t Database::last_row() const {
  return sqlite3_last_insert_rowid(handle_);
}

std::int64_t Database::changes() const {
  return sqlite3_changes64(handle_);
}

Statement::Statement(const Database& database, std::string_view sql)
    : database_(database.handle()) {
  const int result = sqlite3_prepare_v3(database_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
  if (result != SQLITE_OK) fail(database_, result);
}

Statement::~Statement() {
  sqlite3_finalize(handle_);
}

Statement& Statement::bind(int index, std::int64_t value) {
  DS4_CHECK(sqlite3_bind_int64(handle_, index, value) == SQLITE_OK);
  return *this;
}

Statement& Statement::bind(int index, double value) {
  DS4_CHECK(sqlite3_bind_double(handle_, index, value) == SQLITE_OK);
  return *this;
}

Statement& Statement::bind(int index, std::string_view text) {
  DS4_CHECK(sqlite3_bind_text64(handle_, index, text.data(), text.size(), SQLITE_TRANSIENT,
                                SQLITE_UTF8) == SQLITE_OK);
  return *this;
}

Statement& Statement::bind(int index, const Sha256Digest& digest) {
  DS4_CHECK(sqlite3_bind_blob64(handle_, index, digest.data(), digest.size(), SQLITE_TRANSIENT) ==
            SQLITE_OK);
  return *this;
}

Statement& Statement::bind_blob(int index, std::span<const std::byte> bytes) {
  // A null pointer would be NULL instead of a blob without bytes.
  if (bytes.empty()) {
    DS4_CHECK(sqlite3_bind_zeroblob(handle_, index, 0) == SQLITE_OK);
    return *this;
  }
  DS4_CHECK(sqlite3_bind_blob64(handle_, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT) ==
            SQLITE_OK);
  return *this;
}

bool Statement::step() {
  const int result = sqlite3_step(handle_);
  if (result == SQLITE_ROW) return true;
  sqlite3_reset(handle_);
  if (result != SQLITE_DONE) fail(database_, result);
  return false;
}

void Statement::run() {
  while (step()) {
  }
}

void Statement::reset() {
  sqlite3_reset(handle_);
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(handle_, column);
}

double Statement::real(int column) const {
  return sqlite3_column_double(handle_, column);
}

std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(handle_, column));
  if (text == nullptr) return {};
  return std::string(text, static_cast<std::size_t>(sqlite3_column_bytes(handle_, column)));
}

Sha256Digest Statement::digest(int column) const {
  Sha256Digest digest{};
  const void* blob = sqlite3_column_blob(handle_, column);
  if (blob == nullptr ||
      static_cast<std::size_t>(sqlite3_column_bytes(handle_, column)) != digest.size())
    throw Error(ErrorCode::kBadFormat, "the catalogue holds a damaged id; run: ds4-kv rebuild");
  std::memcpy(digest.data(), blob, digest.size());
  return digest;
}

std::vector<std::byte> Statement::blob(int column) const {
  const auto* bytes = static_cast<const std::byte*>(sqlite3_column_blob(handle_, column));
  if (bytes == nullptr) return {};
  return {bytes, bytes + sqlite3_column_bytes(handle_, column)};
}

Transaction::Transaction(Database& database) : database_(database) {
  database_.execute("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.execute("ROLLBACK");
  } catch (const Error&) {
    // SQLite has already rolled back by itself.
  }
}

void Transaction::commit() {
  database_.execute("COMMIT");
  open_ = false;
}

}  // namespace ds4::kvstore
