// ds4-gguf: looks into GGUF files and makes them.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "commands.h"

namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

int run(int argc, char** argv) {
  CLI::App app{"Looks into GGUF model files and makes them.", "ds4-gguf"};
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Print the help of all commands and exit");
  add_inspect_command(app);
  add_convert_command(app);
  add_synth_command(app);
  add_tokenize_command(app);
  add_logits_command(app);
  add_greedy_command(app);
  try {
    app.parse(argc, argv);
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
    std::fprintf(stderr, "ds4-gguf: %s\n", error.what());
    return error.code() == ds4::ErrorCode::kInvalidArgument ? kExitUsage : kExitFailure;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ds4-gguf: internal error: %s\n", error.what());
    return kExitFailure;
  }
}
