#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvstore/key_chain.h"

struct sqlite3;
struct sqlite3_stmt;

// A thin owner of SQLite's handles that speaks in ds4::Error.  Confined to one thread at a time.
namespace ds4::kvstore {

enum class DatabaseMode {
  kShared,    // read and write, WAL, other processes may do the same
  kReader,    // beside a shared one of this process: never waits for who writes
  kReadOnly,  // a directory that cannot be written: the file as it lies there
};

class Database {
 public:
  // Throws Error(kBadFormat) when the file is not a database, Error(kIo) when it cannot be opened.
  Database(const std::filesystem::path& path, DatabaseMode mode);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database();

  void execute(const char* sql);
  std::int64_t last_row() const;
  std::int64_t changes() const;
  sqlite3* handle() const { return handle_; }

 private:
  sqlite3* handle_ = nullptr;
};

// A prepared statement.  Bind from 1, step until false, read columns from 0.
class Statement {
 public:
  Statement(const Database& database, std::string_view sql);
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();

  Statement& bind(int index, std::int64_t value);
  Statement& bind(int index, double value);
  Statement& bind(int index, std::string_view text);
  Statement& bind(int index, const Sha256Digest& digest);
  Statement& bind(int index, const EntryId& id) { return bind(index, id.digest); }
  Statement& bind_blob(int index, std::span<const std::byte> bytes);

  // True: a row is there.  False: done, and the statement can be bound and run again.
  bool step();
  // Runs a statement that gives no rows.
  void run();
  // Ends a row loop early, so that the statement can be bound and run again.
  void reset();

  std::int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  // Throws Error(kBadFormat) unless the column is a blob of 32 bytes.
  Sha256Digest digest(int column) const;
  std::vector<std::byte> blob(int column) const;

 private:
  sqlite3* database_;
  sqlite3_stmt* handle_ = nullptr;
};

// BEGIN IMMEDIATE now; rolled back by the destructor unless committed.
class Transaction {
 public:
  explicit Transaction(Database& database);
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace ds4::kvstore
