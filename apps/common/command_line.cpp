#include "common/command_line.h"

#include <sstream>

#include <CLI/CLI.hpp>

#include "common/fence.h"
#include "common/output.h"

namespace ds4::app {

EarlyEnd early_end(const CLI::App& app, const CLI::ParseError& error) {
  std::ostringstream help;
  std::ostringstream problem;
  const int code = app.exit(error, help, problem);
  return {.text = help.str() + problem.str(), .exit_code = code == 0 ? kExitDone : kExitUsage};
}

int end_early(std::string_view text, int exit_code) {
  if (exit_code == kExitDone) {
    write_out(text);
  } else {
    write_note(text);
  }
  return exit_code;
}

int run_commands(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();  // a command's own
  } catch (const CLI::ParseError& error) {
    const EarlyEnd end = early_end(app, error);
    return end_early(end.text, end.exit_code);
  }
  return kExitDone;
}

}  // namespace ds4::app
