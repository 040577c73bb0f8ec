// list, show, verify, gc, purge and rebuild.
#include "commands.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "common/output.h"
#include "kvstore/session_store.h"

namespace kv = ds4::kvstore;
using ds4::app::write_out;

ds4::kvstore::Store open_store(const CommonOptions& common) {
  // A tool that looks after a directory must not make one of a misspelt name.
  if (!std::filesystem::is_directory(common.directory))
    throw ds4::Error(ds4::ErrorCode::kNotFound,
                     fmt::format("{} is not a directory", common.directory));
  kv::StoreOptions options;
  options.directory = common.directory;
  options.bytes_max = common.bytes_max;
  options.key_file = common.key_file;
  options.chunk_tokens = common.chunk_tokens;
  options.key_policy = kv::KeyPolicy::kMayBeAbsent;
  options.log = [](ds4::LogLevel level, std::string_view message) {
    if (level >= ds4::LogLevel::kWarning) ds4::app::write_note(fmt::format("{}\n", message));
  };
  return kv::Store(std::move(options));
}

std::string time_text(std::int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm fields{};
  if (::localtime_r(&time, &fields) == nullptr) return "?";
  char text[32];
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", &fields));
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string one_line(std::string_view text, std::size_t characters_max) {
  std::string line(text.substr(0, characters_max));
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return line;
}

namespace {

std::string entry_line(const kv::EntryRow& row) {
  return fmt::format("{}  {:<5}  {:>8}-{:<8}  {:>10}  {:<9}  {}{}  {}  {}\n",
                     row.id.hex().substr(0, 16),
                     row.kind == kv::EntryKind::kChunk ? "chunk" : "tail", row.token_begin,
                     row.token_end, bytes_text(row.file_bytes), kv::entry_role_name(row.role),
                     row.has_state ? 'S' : '-', row.has_logits ? 'L' : '-', time_text(row.used_s),
                     row.name_space.empty() ? row.model : row.model + "/" + row.name_space);
}

void list(const CommonOptions& common, bool entries) {
  kv::Store store = open_store(common);
  kv::SessionStore sessions(store);
  for (const kv::SessionInfo& info : sessions.list()) {
    write_out(fmt::format("{}  {}  {:>8} tokens  {}  {:<20}  {}\n", info.id.substr(0, 12),
                          time_text(info.updated_s), info.token_count,
                          info.tail ? "state" : "text ", one_line(info.model, 20),
                          one_line(info.title, 70)));
  }
  if (entries) {
    std::vector<kv::EntryRow> rows = store.entries();
    std::sort(rows.begin(), rows.end(), [](const kv::EntryRow& a, const kv::EntryRow& b) {
      return a.used_s != b.used_s ? a.used_s > b.used_s : a.id < b.id;
    });
    for (const kv::EntryRow& row : rows)
      write_out(entry_line(row));
  }
  const kv::StoreStats stats = store.stats();
  write_out(fmt::format("{} entries, {}; {} written today\n", stats.entries,
                        bytes_text(stats.bytes), bytes_text(stats.bytes_written_today)));
}

void show_session(kv::Store& store, const std::string& id, bool text) {
  kv::SessionStore sessions(store);
  const kv::SessionContent content = sessions.read(id);
  const kv::SessionInfo& info = content.info;
  write_out(
      fmt::format("session    {}\ntitle      {}\nmodel      {}\ncreated    {}\n"
                  "updated    {}\ntokens     {}\ntext       {}\nstate      {}\n",
                  info.id, one_line(info.title, 512), info.model, time_text(info.created_s),
                  time_text(info.updated_s), info.token_count, bytes_text(info.text_bytes),
                  info.tail ? info.tail->hex() : "none: it is computed again when needed"));
  if (text) write_out(content.text + "\n");
}

void show_entry(kv::Store& store, const CommonOptions& common, const kv::EntryId& id, bool text) {
  const std::vector<kv::EntryRow> rows = store.entries();
  const auto row = std::find_if(rows.begin(), rows.end(),
                                [&](const kv::EntryRow& entry) { return entry.id == id; });
  if (row == rows.end())
    throw ds4::Error(ds4::ErrorCode::kNotFound, fmt::format("no entry {}", id.hex()));
  std::optional<kv::Cipher> cipher;
  if (!common.key_file.empty()) cipher = kv::Cipher::from_key_file(common.key_file);
  const kv::EntryReader reader(store.path_of(*row), cipher ? &*cipher : nullptr);
  const kv::EntryHeader& header = reader.header();
  write_out(fmt::format(
      "entry      {}\nkind       {}\nmodel      {}\nnamespace  {}\ncodec      {}, layout {}\n"
      "after      {}\ntokens     {} to {}\ntext       bytes {} to {}\nfile       {}{}\n"
      "created    {}, {}\nused       {}, {:.2f} times\nrecompute  {:.1f} s\n",
      id.hex(), header.kind == kv::EntryKind::kChunk ? "chunk" : "tail", header.model,
      header.name_space.empty() ? "-" : header.name_space, header.codec, header.layout_version,
      header.parent.hex(), header.token_begin, header.token_end, header.byte_begin, header.byte_end,
      bytes_text(header.file_bytes), header.encrypted ? ", encrypted" : "",
      time_text(header.created_s), kv::entry_role_name(header.role), time_text(row->used_s),
      row->hits, row->recompute_ms / 1000));
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> by_kind;
  for (const kv::Section& section : reader.info().sections) {
    auto& [rows_sum, bytes_sum] = by_kind[std::string(kv::section_kind_name(section.kind))];
    rows_sum += section.bytes / section.row_bytes;
    bytes_sum += section.bytes;
  }
  for (const auto& [kind, sums] : by_kind)
    write_out(fmt::format("  {:<24} {:>10} rows  {}\n", kind, sums.first, bytes_text(sums.second)));
  if (!text) return;
  const std::vector<std::byte> bytes = reader.section(1);
  write_out(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) + "\n");
}

void show(const CommonOptions& common, const std::string& id, bool text) {
  kv::Store store = open_store(common);
  kv::SessionStore sessions(store);
  std::vector<std::string> session_ids;
  for (const kv::SessionInfo& info : sessions.list())
    if (info.id.starts_with(id)) session_ids.push_back(info.id);
  const std::vector<kv::EntryId> entries = store.ids_with_prefix(id);
  if (session_ids.size() + entries.size() > 1)
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     fmt::format("several ids start with '{}'; give more of it", id));
  if (!session_ids.empty()) return show_session(store, session_ids[0], text);
  if (!entries.empty()) return show_entry(store, common, entries[0], text);
  throw ds4::Error(ds4::ErrorCode::kNotFound,
                   fmt::format("no session and no entry starts with '{}'", id));
}

void verify(const CommonOptions& common) {
  kv::Store store = open_store(common);
  const kv::VerifyReport report = store.verify();
  for (const std::string& problem : report.problems)
    write_out(problem + "\n");
  write_out(fmt::format("{} entries, {} checked; {} problems\n", report.entries_checked,
                        bytes_text(report.bytes_checked), report.problems.size()));
  if (!report.problems.empty()) throw CLI::RuntimeError(1);
}

void collect(const CommonOptions& common) {
  kv::Store store = open_store(common);
  const kv::CollectReport report = store.collect();
  write_out(fmt::format("{} adopted, {} gone, {} evicted, {} freed\n", report.adopted,
                        report.vanished, report.evicted, bytes_text(report.bytes_freed)));
}

void purge(const CommonOptions& common, const std::optional<std::string>& name_space, bool sure) {
  if (!sure)
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     "this removes stored prompts, states and sessions for good; add --yes");
  kv::Store store = open_store(common);
  write_out(fmt::format("{} files removed\n", store.purge(name_space)));
}

}  // namespace

void add_entry_commands(CLI::App& app, const std::shared_ptr<CommonOptions>& common) {
  struct Options {
    bool entries = false;
    bool text = false;
    bool sure = false;
    std::string id;
    std::optional<std::string> name_space;
  };
  const auto options = std::make_shared<Options>();

  CLI::App* list_command = app.add_subcommand("list", "Sessions, latest first, and totals");
  list_command->add_flag("--entries", options->entries,
                         "chunks and tails too; S: resumes there, L: with logits");
  list_command->callback([=] { list(*common, options->entries); });

  CLI::App* show_command = app.add_subcommand("show", "One session or entry");
  show_command->add_option("ID", options->id, "the start of an id")->required();
  show_command->add_flag("--text", options->text, "print the text that it holds");
  show_command->callback([=] { show(*common, options->id, options->text); });

  app.add_subcommand("verify", "Check every byte; damaged entries go to quarantine")->callback([=] {
    verify(*common);
  });

  CLI::App* collect_command =
      app.add_subcommand("gc", "Bring catalogue and files together; evict down to --max-bytes");
  collect_command->add_option("--max-bytes", common->bytes_max, "of all entries; 0: no limit")
      ->transform(CLI::AsSizeValue(false));
  collect_command->callback([=] { collect(*common); });

  CLI::App* purge_command = app.add_subcommand("purge", "Remove everything, or one namespace");
  purge_command->add_option("--namespace", options->name_space, "of this namespace alone");
  purge_command->add_flag("--yes", options->sure, "really");
  purge_command->callback([=] { purge(*common, options->name_space, options->sure); });

  app.add_subcommand("rebuild", "Make the catalogue again from the files")->callback([=] {
    kv::Store store = open_store(*common);
    write_out(fmt::format("{} entries\n", store.rebuild()));
  });
}
