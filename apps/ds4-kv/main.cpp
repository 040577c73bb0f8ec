// ds4-kv: looks after a directory of stored states and sessions.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "commands.h"

namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

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
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const ds4::Error& error) {
    std::fprintf(stderr, "ds4-kv: %s\n", error.what());
    return error.code() == ds4::ErrorCode::kInvalidArgument ? kExitUsage : kExitFailure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ds4-kv: internal error: %s\n", error.what());
    return kExitFailure;
  }
}
