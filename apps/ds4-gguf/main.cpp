// ds4-gguf: looks into GGUF files and makes them.
#include <CLI/CLI.hpp>

#include "commands.h"
#include "common/command_line.h"
#include "common/fence.h"

namespace {

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
  return ds4::app::run_commands(app, argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  return ds4::app::run_fenced("ds4-gguf", ds4::ErrorCode::kInvalidArgument,
                              [&] { return run(argc, argv); });
}
