// ds4-kv: looks after a directory of stored states and sessions.
#include <CLI/CLI.hpp>

#include "commands.h"
#include "common/command_line.h"
#include "common/fence.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Looks after a directory of stored model states and sessions.", "ds4-kv"};
  app.require_subcommand(1);
  app.fallthrough();
  const auto common = std::make_shared<CommonOptions>();
  app.add_option("--dir", common->directory, "the directory")->required();
  app.add_option("--key-file", common->key_file,
                 "the key of an encrypted directory: 32 bytes or 64 hexadecimal digits");
  add_entry_commands(app, common);
  add_session_commands(app, common);
  return ds4::app::run_commands(app, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  return ds4::app::run_fenced("ds4-kv", ds4::ErrorCode::kInvalidArgument,
                              [&] { return run(argc, argv); });
}
