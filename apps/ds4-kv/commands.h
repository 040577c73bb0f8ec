#pragma once
#include <memory>
#include <string>

#include "kvstore/store.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's own name
class App;
}  // namespace CLI

// What every command takes.
struct CommonOptions {
  std::string directory;
  std::string key_file;
  std::uint64_t bytes_max = 0;  // 0: no limit
  std::uint32_t chunk_tokens = 1024;
};

// Opens the directory, which must exist.  Throws ds4::Error.
ds4::kvstore::Store open_store(const CommonOptions& common);

// Each adds its subcommands to `app`; the work is done in their callbacks, which throw ds4::Error
// when they fail.
void add_entry_commands(CLI::App& app, const std::shared_ptr<CommonOptions>& common);
void add_session_commands(CLI::App& app, const std::shared_ptr<CommonOptions>& common);

// "2026-01-31 12:00" in local time.
std::string time_text(std::int64_t unix_s);
// "12.3 MiB".
std::string bytes_text(std::uint64_t bytes);
// One line of at most `characters_max`, control characters as spaces.
std::string one_line(std::string_view text, std::size_t characters_max);
