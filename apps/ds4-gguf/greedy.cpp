// ds4-gguf greedy: what greedy decoding would choose, over many token lists in one process.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "commands.h"
#include "runtime/open.h"

namespace {

using Json = nlohmann::json;

struct Options {
  ds4::OpenOptions open;
  std::string input;
  std::string output;
  std::uint32_t chunk = 512;
  std::int32_t stop = 1;
};

// One line of the input: tokens `ids`, and either spans [first, last) whose choices are wanted or
// the number of tokens to go on with.
struct Item {  // NOLINT(bugprone-exception-escape): a JSON value moves without throwing
  Json id;
  std::vector<ds4::TokenId> tokens;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> spans;
  std::uint32_t limit = 0;
};

Item parse_item(const std::string& path, std::size_t number, const std::string& line) {
  Item item;
  try {
    const Json value = Json::parse(line);
    item.id = value.at("id");
    for (const auto& id : value.at("ids").get<std::vector<std::int32_t>>())
      item.tokens.push_back(ds4::TokenId{id});
    item.spans = value.value("spans", item.spans);
    item.limit = value.value("limit", 0U);
  } catch (const Json::exception& error) {
    throw ds4::Error(ds4::ErrorCode::kBadFormat,
                     fmt::format("{} line {}: {}", path, number, error.what()));
  }
  std::uint32_t before = 1;
  for (const auto& [first, last] : item.spans) {
    if (first < before || last <= first || last > item.tokens.size()) {
      throw ds4::Error(
          ds4::ErrorCode::kBadFormat,
          fmt::format("{} line {}: spans must ascend within 1..{} and hold a token each", path,
                      number, item.tokens.size()));
    }
    before = last;
  }
  if (item.tokens.empty())
    throw ds4::Error(ds4::ErrorCode::kBadFormat, fmt::format("{} line {}: no ids", path, number));
  return item;
}

std::int32_t best_of(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Runs items over one executor, a sequence each.
class Runner {
 public:
  Runner(ds4::Executor& executor, const Options& options)
      : executor_(executor),
        vocab_(executor.config().vocab_size),
        chunk_(std::min(options.chunk, executor.info().rows_max)),
        stop_(options.stop) {}

  Json answer(const Item& item) {
    const auto count = static_cast<std::uint32_t>(item.tokens.size());
    sequence_ = executor_.open_sequence(std::max(2U, count + item.limit));
    Json out{{"id", item.id}};
    std::uint32_t at = 0;
    for (const auto& [first, last] : item.spans) {
      feed(item, at, first - 1, nullptr);
      Json choices = Json::array();
      Json drafts = Json::array();
      Lists lists{choices, drafts};
      feed(item, first - 1, last - 1, &lists);
      at = last - 1;
      out["choices"].push_back(std::move(choices));
      out["drafts"].push_back(std::move(drafts));
    }
    if (item.limit > 0) out["tokens"] = go_on(item, at);
    executor_.close_sequence(sequence_);
    return out;
  }

 private:
  // Choices of the main model after each row; the MTP block's guesses at the same tokens, null
  // where it cannot guess.
  struct Lists {
    Json& choices;
    Json& drafts;
  };

  // Runs the tokens [first, last), with what they choose appended to `lists` unless it is null.
  void feed(const Item& item, std::uint32_t first, std::uint32_t last, Lists* lists) {
    for (std::uint32_t from = first; from < last; from += chunk_) {
      rows_.clear();
      for (std::uint32_t p = from; p < std::min(last, from + chunk_); ++p)
        rows_.push_back({item.tokens[p], ds4::Position{p}, sequence_, lists != nullptr});
      if (lists == nullptr) {
        executor_.run({rows_}, {});
      } else {
        run_wanted(from, *lists);
      }
    }
  }

  void run_wanted(std::uint32_t from, Lists& lists) {
    const std::size_t skipped = from == 0 ? 1 : 0;  // the first token completes no MTP entry
    const std::size_t guesses = executor_.info().has_mtp ? rows_.size() - skipped : 0;
    logits_.resize(rows_.size() * vocab_);
    guesses_.resize(guesses * vocab_);
    ds4::BatchOutputs outputs{.logits = ds4::Rows(logits_.data(), {rows_.size(), vocab_})};
    if (guesses > 0) outputs.mtp_logits = ds4::Rows(guesses_.data(), {guesses, vocab_});
    executor_.run({rows_}, outputs);
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      lists.choices.push_back(best_of(std::span(logits_).subspan(row * vocab_, vocab_)));
      const bool guessed = guesses > 0 && row >= skipped;
      lists.drafts.push_back(
          guessed ? Json(best_of(std::span(guesses_).subspan((row - skipped) * vocab_, vocab_)))
                  : Json(nullptr));
    }
  }

  Json go_on(const Item& item, std::uint32_t at) {
    const auto count = static_cast<std::uint32_t>(item.tokens.size());
    feed(item, at, count - 1, nullptr);
    Json tokens = Json::array();
    logits_.resize(vocab_);
    ds4::TokenId next = item.tokens.back();
    for (std::uint32_t p = count - 1; p < count - 1 + item.limit; ++p) {
      const ds4::BatchRow row{next, ds4::Position{p}, sequence_, true};
      executor_.run({std::span(&row, 1)}, {.logits = ds4::Rows(logits_.data(), {1, vocab_})});
      const std::int32_t token = best_of(logits_);
      tokens.push_back(token);
      if (token == stop_) break;
      next = ds4::TokenId{token};
    }
    return tokens;
  }

  ds4::Executor& executor_;
  std::size_t vocab_;
  std::uint32_t chunk_;
  std::int32_t stop_;
  ds4::SequenceId sequence_{};
  std::vector<ds4::BatchRow> rows_;
  std::vector<float> logits_;
  std::vector<float> guesses_;
};

void write_choices(Options options) {
  std::ifstream input(options.input);
  if (!input)
    throw ds4::Error(ds4::ErrorCode::kNotFound, fmt::format("{}: cannot be read", options.input));
  options.open.rows_max = options.chunk;
  const ds4::OpenedExecutor opened = ds4::open_executor(options.open);
  Runner runner(*opened.executor, options);
  std::ofstream output(options.output);
  std::string line;
  for (std::size_t number = 1; std::getline(input, line); ++number)
    output << runner.answer(parse_item(options.input, number, line)).dump() << '\n';
  output.flush();
  if (!output)
    throw ds4::Error(ds4::ErrorCode::kIo, fmt::format("{}: cannot be written", options.output));
}

}  // namespace

void add_greedy_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "greedy",
      "Greedy choices over many token lists: one JSON object a line, {\"id\", \"ids\"} with "
      "\"spans\" [[first, last], ...] to compare with, or a \"limit\" of tokens to go on");
  command->add_option("-m,--model", options->open.model, "model file")->required();
  command->add_option("--in", options->input, "JSON lines")->required();
  command->add_option("--out", options->output, "JSON lines: choices and drafts, or tokens")
      ->required();
  command->add_option("--stop", options->stop, "token that ends a continuation (default: 1)");
  command->add_option("--backend", options->open.backend, "backend (default: auto)");
  command->add_option("--threads", options->open.thread_count, "threads (default: physical cores)");
  command->add_option("--chunk", options->chunk, "tokens of one batch (default: 512)")
      ->check(CLI::Range(1U, 65536U));
  command->callback([options] { write_choices(*options); });
}
