#include "options.h"

#include <algorithm>
#include <string_view>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "common/command_line.h"
#include "common/fence.h"

namespace ds4::bench {

namespace {

constexpr std::uint32_t kUsersMax = 256;
constexpr std::uint32_t kContextMax = std::uint32_t{1} << 24;

void add_model_flags(CLI::App& app, Options& o) {
  app.add_option("-m,--model", o.open.model, "Model file")->group("Model");
  app.add_option("--backend", o.open.backend, "auto, cpu or cuda")->group("Model");
  app.add_option("-t,--threads", o.open.thread_count, "Threads; default: one a physical core")
      ->check(CLI::Range(1U, 4096U))
      ->group("Model");
  app.add_option("--chunk,--prefill-chunk", o.open.rows_max,
                 "Tokens of one prefill step; default: the backend's")
      ->check(CLI::Range(1U, 65536U))
      ->group("Model");
  app.add_option("--power", o.power_percent, "Share of the time that the machine works, 1 to 100")
      ->check(CLI::Range(1, 100))
      ->capture_default_str()
      ->group("Model");
  app.add_flag("--warm-weights", o.warm_weights,
               "Read the whole file first, so that the load is timed from memory")
      ->group("Model");
  app.add_flag("--quality", o.open.quality,
               "Read prompts by the kernels of decoding, a few tokens at a time")
      ->group("Model");
  app.add_option("--stage-times", o.open.stage_times,
                 "Seconds by stage into this file (cuda); every launch waits, so the run is slower")
      ->group("Model");
}

void add_sweep_flags(CLI::App& app, Options& o) {
  const CLI::Range context(1U, kContextMax);
  app.add_option("--ctx-start", o.sweep.start, "First context to measure at")
      ->capture_default_str()
      ->check(context)
      ->group("Contexts");
  app.add_option("--ctx-max", o.sweep.last, "Last context to measure at")
      ->capture_default_str()
      ->check(context)
      ->group("Contexts");
  app.add_option("--step-incr", o.sweep.increment, "Tokens from one context to the next")
      ->capture_default_str()
      ->group("Contexts");
  app.add_option("--step-mul", o.sweep.factor, "Times the one before instead, when more than 1")
      ->capture_default_str()
      ->group("Contexts");
  app.add_option("--frontiers", o.frontiers, "These contexts instead, e.g. 2048,8192,32768")
      ->delimiter(',')
      ->check(context)
      ->group("Contexts");
  app.add_option("--ctx-alloc", o.context,
                 "Context to make room for; default: what the last one needs")
      ->group("Contexts");
}

void add_work_flags(CLI::App& app, Options& o) {
  app.add_option("-n,--gen-tokens,--tokens", o.decode_tokens,
                 "Tokens to decode at each context; 0: prompts alone")
      ->capture_default_str()
      ->group("Work");
  app.add_option("--batch", o.batches, "Users that decode together; several: one after the other")
      ->delimiter(',')
      ->check(CLI::Range(1U, kUsersMax))
      ->group("Work");
  app.add_option("--runs", o.runs, "Runs of each phase; the table has their medians")
      ->capture_default_str()
      ->check(CLI::Range(1U, 1000U))
      ->group("Work");
  app.add_option("--run-seconds", o.run_seconds_max,
                 "A phase that takes longer than this is not repeated")
      ->capture_default_str()
      ->group("Work");
  auto* raw =
      app.add_option("--prompt-file", o.prompt_file,
                     "Text to read; default: pseudo-random tokens, which need no vocabulary")
          ->check(CLI::ExistingFile)
          ->group("Work");
  auto* chat = app.add_option("--chat-prompt-file", o.chat_prompt_file,
                              "The same as one message of a chat without reasoning")
                   ->check(CLI::ExistingFile)
                   ->excludes(raw)
                   ->group("Work");
  app.add_option("--system", o.system, "System text of that chat, also as -sys; default: none")
      ->needs(chat)
      ->group("Work");
  app.add_option("--end-token", o.end_token, "Token that greedy decoding never takes")
      ->capture_default_str()
      ->group("Work");
  app.add_flag("--teacher-forced-decode", o.teacher_forced,
               "Decode the prompt's own continuation instead of the likeliest tokens")
      ->group("Work");
}

void add_result_flags(CLI::App& app, Options& o) {
  app.add_option("--csv", o.csv, "Also write the table to this file")->group("Results");
  app.add_option("--plot", o.plot, "Draw the table into this SVG file")->group("Results");
  app.add_option("--title", o.title, "Title of the plot; default: the model")->group("Results");
  app.add_option("--dump-frontier-logits-dir", o.logits_directory,
                 "Write the first user's logits at every context to this folder, as JSON")
      ->check(CLI::ExistingDirectory)
      ->group("Results");
  app.add_option("--compare", o.compare, "Show the ratios of two tables A B; measure nothing")
      ->expected(2)
      ->check(CLI::ExistingFile)
      ->group("Results");
}

// What CLI11 does not check.  Fills in what follows from other options.
void settle(Options& o) {
  if (!o.compare.empty()) return;
  if (o.open.model.empty()) o.open.model = default_model_path();
  if (o.frontiers.empty()) o.frontiers = frontiers_of(o.sweep);
  std::sort(o.frontiers.begin(), o.frontiers.end());
  o.frontiers.erase(std::unique(o.frontiers.begin(), o.frontiers.end()), o.frontiers.end());
  const std::uint32_t needed = o.frontiers.back() + o.decode_tokens + 1;
  if (o.context == 0) o.context = needed;
  if (o.context < needed) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--ctx-alloc {} is too small: {} tokens of prompt and {} to decode "
                            "need {}",
                            o.context, o.frontiers.back(), o.decode_tokens, needed));
  }
  o.open.context = o.context;
  o.open.session_count = *std::max_element(o.batches.begin(), o.batches.end());
}

}  // namespace

ParseResult parse_options(int argc, const char* const* argv) {
  Options options;
  CLI::App app{
      "Measures how fast a model reads prompts and decodes, at growing contexts.  The table that "
      "it prints is explained in docs/performance.md.",
      "ds4-bench"};
  add_model_flags(app, options);
  add_sweep_flags(app, options);
  add_work_flags(app, options);
  add_result_flags(app, options);
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i)
    words.emplace_back(std::string_view(argv[i]) == "-sys" ? "--system" : argv[i]);
  try {
    app.parse(words);
    settle(options);
  } catch (const CLI::ParseError& error) {
    const app::EarlyEnd end = app::early_end(app, error);
    return {.options = {}, .text = end.text, .exit_code = end.exit_code};
  } catch (const Error& error) {
    return {.options = {},
            .text = fmt::format("ds4-bench: {}\n", error.what()),
            .exit_code = app::kExitUsage};
  }
  return {.options = std::move(options), .text = {}, .exit_code = 0};
}

}  // namespace ds4::bench
