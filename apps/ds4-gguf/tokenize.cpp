// ds4-gguf tokenize: text to token ids, line by line.
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "commands.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace {

struct Options {
  std::string tokenizer;
  bool with_special = false;
};

std::string text_of(const std::string& line, std::size_t number) {
  try {
    return nlohmann::json::parse(line).get<std::string>();
  } catch (const nlohmann::json::exception&) {
    throw ds4::Error(ds4::ErrorCode::kBadFormat,
                     fmt::format("line {} of standard input is not a JSON string", number));
  }
}

void tokenize(const Options& options) {
  const ds4::tokenizer::Tokenizer tokenizer(ds4::tokenizer::load_vocabulary(options.tokenizer));
  std::size_t number = 0;
  std::string out;
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = text_of(line, ++number);
    const auto ids =
        options.with_special ? tokenizer.encode_with_special(text) : tokenizer.encode_text(text);
    out = "[";
    for (const ds4::TokenId id : ids)
      out += fmt::format("{}{}", out.size() == 1 ? "" : ",", id.value());
    out += "]\n";
    if (std::fwrite(out.data(), 1, out.size(), stdout) != out.size())
      ds4::throw_errno("cannot write", "standard output");
  }
  if (std::fflush(stdout) != 0) ds4::throw_errno("cannot write", "standard output");
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "tokenize", "Read JSON strings, one a line, and print a list of token ids for each");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "vocabulary: a GGUF file, tokenizer.json or tokenizer.json.gz")
      ->required();
  command->add_flag("--special", options->with_special,
                    "recognise marker tokens in the text (never for text from users)");
  command->callback([options] { tokenize(*options); });
}
