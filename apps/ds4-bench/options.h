#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "frontiers.h"
#include "runtime/open.h"

namespace ds4::bench {

// What the program was asked to do.
struct Options {
  OpenOptions open;
  Sweep sweep;
  std::vector<std::uint32_t> frontiers;  // empty: those of `sweep`
  std::uint32_t context = 0;             // 0: what the largest frontier needs
  std::uint32_t decode_tokens = 128;
  std::vector<std::uint32_t> batches = {1};  // numbers of users, one table part each
  std::uint32_t runs = 3;
  double run_seconds_max = 20;
  std::int32_t end_token = 1;
  bool teacher_forced = false;
  bool warm_weights = false;               // read the file before the load is timed
  std::filesystem::path prompt_file;       // raw text
  std::filesystem::path chat_prompt_file;  // or one user message, answered without reasoning
  std::string system;                      // of the chat; empty: none
  int power_percent = 100;
  std::filesystem::path logits_directory;
  std::filesystem::path csv;
  std::filesystem::path plot;
  std::string title;
  std::vector<std::filesystem::path> compare;  // two tables, or none: measure
};

// Either options, or the text to show and the exit status to end with.
struct ParseResult {
  std::optional<Options> options;
  std::string text;
  int exit_code = 0;
};

ParseResult parse_options(int argc, const char* const* argv);

}  // namespace ds4::bench
