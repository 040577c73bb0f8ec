#pragma once
#include <string>
#include <string_view>

namespace CLI {  // NOLINT(readability-identifier-naming): the library's own name
class App;
class ParseError;
}  // namespace CLI

namespace ds4::app {

// Why a program ends before it has done anything: help that was asked for, or wrong usage.
struct EarlyEnd {
  std::string text;
  int exit_code = 0;
};

// What CLI11 says about an error of its parser, with the exit codes of fence.h.
EarlyEnd early_end(const CLI::App& app, const CLI::ParseError& error);
// Prints help to standard output and wrong usage to standard error; returns `exit_code`.
int end_early(std::string_view text, int exit_code);

// The body of a program of commands: parses, and so runs the one that was named.  Returns the exit
// code; what the command throws passes through.
int run_commands(CLI::App& app, int argc, const char* const* argv);

}  // namespace ds4::app
