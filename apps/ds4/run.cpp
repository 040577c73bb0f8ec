#include "run.h"

#include <cmath>
#include <random>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "common/interrupt.h"
#include "common/output.h"
#include "dumps.h"
#include "gguf/reader.h"
#include "inspect.h"
#include "model/config.h"
#include "perplexity.h"
#include "prompt.h"
#include "tokenizer/tokenizer.h"

namespace ds4::app {

std::uint64_t seed_of(const Options& options) {
  if (options.seed) return *options.seed;
  std::random_device device;
  const std::uint64_t seed = (std::uint64_t{device()} << 32) ^ device();
  return seed == 0 ? 1 : seed;
}

chat::RenderOptions render_options(const Options& options,
                                   std::string_view model_name,
                                   std::uint64_t context) {
  return {.think = chat::fitting_think_mode(options.think, context),
          .ladder = effort_ladder(model_name)};
}

void note_memory(const Run& run) {
  std::uint64_t bytes = 0;
  for (const MemoryItem& item : run.engine.executor().memory())
    bytes += item.mapped ? 0 : item.bytes;
  const ExecutorInfo& info = run.engine.executor().info();
  write_note(
      fmt::format("ds4: {:.1f} MiB allocated for {} tokens of context on {}; prefill chunk "
                  "{}, window {}\n",
                  static_cast<double>(bytes) / (1024.0 * 1024.0), run.context, info.backend,
                  info.rows_max, run.engine.config().window));
}

int run_plan(const Options& options) {
  write_out(plan_memory(options.open).text());
  return kExitDone;
}

int run_inspect(const Options& options) {
  write_out(inspect_text(options.open.model));
  return kExitDone;
}

int run_dump_tokens(const Options& options) {
  const gguf::Reader file(options.open.model);
  const ModelConfig config = read_config(file, options.open.log);
  const tokenizer::Tokenizer tokenizer(tokenizer::read_gguf_vocabulary(file));
  const std::uint32_t context =
      options.open.context == 0 ? default_context(config) : options.open.context;
  const Prompt prompt =
      make_prompt(options, tokenizer, render_options(options, config.name, context));
  write_out(token_dump(tokenizer, prompt.tokens));
  return kExitDone;
}

AnswerResult show_answer(const Run& run,
                         const PrinterOptions& printer_options,
                         const std::function<AnswerResult(const AnswerCallbacks&)>& make) {
  ProgressLine progress(run.notes, "prefill");
  AnswerPrinter printer(run.output, printer_options, [&](std::string_view text) {
    progress.clear();
    write_out(text);
  });
  AnswerResult result = make(
      {.prefill = [&](std::uint32_t done, std::uint32_t total) { progress.update(done, total); },
       .token = [&](std::string_view bytes) { printer.feed(bytes); },
       .stop_requested = [] { return InterruptGuard::requested(); }});
  progress.clear();
  const bool ended = result.finish == FinishReason::kStop;
  if (!result.tokens.empty())
    printer.finish(ended ? chat::FinishCause::kEndOfTurn : chat::FinishCause::kCut);
  write_note(paint(run.notes, Style::kProgress, "ds4: " + result.timing()) + "\n");
  const auto warn = [&](const std::string& text) {
    write_note(paint(run.notes, Style::kWarning, "ds4: " + text) + "\n");
  };
  if (result.finish == FinishReason::kContext)
    warn(fmt::format("the context of {} tokens is full; choose a larger one", run.context));
  if (result.finish == FinishReason::kLength)
    warn(fmt::format("stopped at the limit of {} tokens", run.options.token_max));
  if (result.finish && result.in_reasoning)
    warn("it ended inside the reasoning: there is no answer yet");
  return result;
}

namespace {

// Asks before the first token costs anything: a prompt that fills the context is refused.
void check_prompt(const Prompt& prompt, std::uint32_t context) {
  if (prompt.tokens.size() < context) return;
  throw Error(ErrorCode::kContextOverflow,
              fmt::format("the prompt has {} tokens; the context of {} must be larger than that: "
                          "choose one with -c, or shorten the prompt",
                          prompt.tokens.size(), context));
}

}  // namespace

int run_one_shot(Run& run) {
  const Options& options = run.options;
  const auto& tokenizer = run.engine.tokenizer();
  const Prompt prompt =
      make_prompt(options, tokenizer, render_options(options, run.engine.info().name, run.context));
  check_prompt(prompt, run.context);
  Session session(run.engine, {.context = run.context});
  note_memory(run);
  sample::Sampler sampler(run.engine.config().vocab_size, seed_of(options));
  GenerateOptions generate{.sampling = options.sampling,
                           .token_max = options.token_max,
                           .draft_count = options.draft_count,
                           .stop = tokenizer.eos(),
                           .reasoning_end = {}};
  if (prompt.opens_reasoning) generate.reasoning_end = tokenizer.marker("</think>");
  const InterruptGuard guard(InterruptGuard::Repeated::kEndProcess);
  const AnswerResult result =
      show_answer(run,
                  {.starts_in_reasoning = prompt.opens_reasoning,
                   .shows_reasoning = !options.answer_only,
                   .parses_markup = !options.raw_prompt},
                  [&](const AnswerCallbacks& callbacks) {
                    return answer(session, sampler, prompt.tokens, generate, callbacks);
                  });
  return result.finish ? kExitDone : kExitInterrupted;
}

int run_dump(Run& run) {
  const Options& options = run.options;
  const Prompt prompt = make_prompt(options, run.engine.tokenizer(),
                                    render_options(options, run.engine.info().name, run.context));
  check_prompt(prompt, run.context);
  Session session(run.engine, {.context = run.context});
  ProgressLine progress(run.notes, "prefill");
  session.sync(
      prompt.tokens,
      {.progress = [&](std::uint32_t done, std::uint32_t total) { progress.update(done, total); },
       .stop = {}});
  progress.clear();
  if (options.mode == Mode::kDumpLogits) {
    dump_logits(options.dump_file, session);
  } else {
    dump_logprobs(options.dump_file, session,
                  {.token_max = options.token_max, .top_k = options.logprobs_top_k});
  }
  return kExitDone;
}

int run_perplexity(Run& run) {
  constexpr std::size_t kTextBytesMax = std::size_t{1} << 30;
  const std::string text = read_text_file(run.options.perplexity_file, kTextBytesMax);
  const auto tokens = run.engine.tokenizer().encode_text(text);
  ProgressLine progress(run.notes, "scored");
  const Perplexity result = measure_perplexity(
      run.engine, run.context, tokens,
      [&](std::uint32_t done, std::uint32_t total) { progress.update(done, total); });
  progress.clear();
  write_out(fmt::format("tokens={} scored={} nll={:.6f} avg_nll={:.9f} ppl={:.6f}\n",
                        result.token_count, result.scored_count, result.nll, result.mean(),
                        std::exp(result.mean())));
  return kExitDone;
}

}  // namespace ds4::app
