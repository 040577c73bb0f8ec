// export, import, rename, strip and delete: what is done to a session by its name.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "commands.h"
#include "common/output.h"
#include "kvstore/session_store.h"

namespace kv = ds4::kvstore;
using ds4::app::write_out;

namespace {

struct Options {
  std::string id;
  std::string file;
  std::string title;
  std::string name_space;
};

// Runs `action` with the session whose id starts with `id_prefix`.
template <class Action>
void with_session(const CommonOptions& common, const std::string& id_prefix, const Action& action) {
  kv::Store store = open_store(common);
  kv::SessionStore sessions(store);
  action(sessions, sessions.find(id_prefix));
}

void add_export(CLI::App& app,
                const std::shared_ptr<CommonOptions>& common,
                const std::shared_ptr<Options>& options) {
  CLI::App* command =
      app.add_subcommand("export", "Write a session and its state to one file, not encrypted");
  command->add_option("ID", options->id, "the start of the session's id")->required();
  command->add_option("FILE", options->file, "the file to write")->required();
  command->callback([=] {
    with_session(
        *common, options->id, [&](kv::SessionStore& sessions, const kv::SessionInfo& info) {
          sessions.export_file(info.id, options->file);
          write_out(fmt::format("{} written; it holds the whole conversation in the clear\n",
                                options->file));
        });
  });
}

void add_import(CLI::App& app,
                const std::shared_ptr<CommonOptions>& common,
                const std::shared_ptr<Options>& options) {
  CLI::App* command = app.add_subcommand(
      "import", "Take in an exported session; use files of people you trust alone");
  command->add_option("FILE", options->file, "the file to read")->required();
  command->add_option("--namespace", options->name_space, "where to put it");
  command->add_option("--chunk-tokens", common->chunk_tokens, "tokens a chunk in this directory");
  command->callback([=] {
    kv::Store store = open_store(*common);
    kv::SessionStore sessions(store);
    const kv::SessionInfo info = sessions.import_file(options->file, options->name_space);
    write_out(
        fmt::format("{}  {} tokens  {}\n", info.id, info.token_count, one_line(info.title, 70)));
  });
}

}  // namespace

void add_session_commands(CLI::App& app, const std::shared_ptr<CommonOptions>& common) {
  const auto options = std::make_shared<Options>();
  add_export(app, common, options);
  add_import(app, common, options);

  CLI::App* rename = app.add_subcommand("rename", "Give a session another title");
  rename->add_option("ID", options->id, "the start of the session's id")->required();
  rename->add_option("TITLE", options->title, "the new title")->required();
  rename->callback([=] {
    with_session(*common, options->id,
                 [&](kv::SessionStore& sessions, const kv::SessionInfo& info) {
                   sessions.rename(info.id, options->title);
                 });
  });

  CLI::App* strip = app.add_subcommand("strip", "Drop a session's state and keep its text");
  strip->add_option("ID", options->id, "the start of the session's id")->required();
  strip->callback([=] {
    with_session(*common, options->id, [](kv::SessionStore& sessions, const kv::SessionInfo& info) {
      sessions.strip(info.id);
    });
  });

  CLI::App* remove = app.add_subcommand("delete", "Remove a session and what only it needs");
  remove->add_option("ID", options->id, "the start of the session's id")->required();
  remove->callback([=] {
    with_session(*common, options->id, [](kv::SessionStore& sessions, const kv::SessionInfo& info) {
      sessions.remove(info.id);
    });
  });
}
