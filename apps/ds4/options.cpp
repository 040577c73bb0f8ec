#include "options.h"

#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "common/fence.h"

namespace ds4::app {

namespace {

constexpr std::uint32_t kDraftMax = 16;
constexpr float kMtpMarginMax = 1000.0F;
constexpr float kSteeringMax = 100.0F;

// What CLI11 fills in before it becomes Options: switches and alternatives.
struct Arguments {
  Options options;
  std::string prompt;
  std::string kv = "packed";
  bool cpu = false, cuda = false;
  bool think = false, think_max = false, no_think = false;
  bool plan = false, inspect = false, dump_tokens = false;
  std::filesystem::path logprobs_file, logits_file;
  std::uint64_t seed = 0;
  float mtp_margin = 3;  // read and range-checked, then dropped
};

void add_model_flags(CLI::App& app, Arguments& a) {
  const char* const group = "Model";
  OpenOptions& open = a.options.open;
  app.add_option("-m,--model", open.model,
                 "Model file; default: ds4flash.gguf here, else the small model that comes along")
      ->group(group);
  app.add_option(
         "-c,--ctx", open.context,
         "Context in tokens, prompt and answer together; default: 32768, or the model's own "
         "when that is smaller")
      ->check(CLI::Range(2U, UINT32_MAX))
      ->group(group);
  app.add_option("-t,--threads", open.thread_count, "Threads; default: one a physical core")
      ->check(CLI::Range(1U, 4096U))
      ->group(group);
  auto* backend =
      app.add_option("--backend", open.backend, "auto, cpu, or another one of this build")
          ->group(group);
  auto* cpu = app.add_flag("--cpu", a.cpu, "Same as --backend cpu")->group(group);
  auto* cuda = app.add_flag("--cuda", a.cuda, "Same as --backend cuda")->group(group);
  backend->excludes(cpu)->excludes(cuda);
  cpu->excludes(cuda);
  app.add_option("--kv", a.kv, "Rows of the past: packed, or exact (f32, for comparisons)")
      ->check(CLI::IsMember({"packed", "exact"}))
      ->group(group);
  app.add_option("--prefill-chunk", open.rows_max,
                 "Tokens of one prefill step; default: the backend's")
      ->check(CLI::Range(1U, 65536U))
      ->group(group);
  app.add_option("--mtp", open.mtp, "File with the drafting block; default: the model's own")
      ->group(group);
  app.add_option("--mtp-draft", a.options.draft_count,
                 "Tokens drafted ahead in greedy generation, 0 to 16; the answer is the same")
      ->check(CLI::Range(0U, kDraftMax))
      ->capture_default_str()
      ->group(group);
  app.add_option("--mtp-margin", a.mtp_margin,
                 "Accepted, 0 to 1000, and of no effect: a margin decides which drafts to believe, "
                 "and here every draft is checked by the whole model")
      ->check(CLI::Range(0.0F, kMtpMarginMax))
      ->group(group);
  app.add_flag("--warm-weights", open.warm_weights, "Read all weights before the first use")
      ->group(group);
  app.add_flag(
         "--quality", open.quality,
         "Read prompts by the kernels of decoding, a few tokens at a time: slower, and free of "
         "the f16 inputs of large batches (cuda); on the cpu all batches are that exact")
      ->group(group);
  app.add_option("--power", a.options.power_percent,
                 "Share of the time that the machine works, 1 to 100")
      ->check(CLI::Range(1, 100))
      ->capture_default_str()
      ->group(group);
}

void add_prompt_flags(CLI::App& app, Arguments& a) {
  const char* const group = "Prompt";
  auto* prompt =
      app.add_option("-p,--prompt", a.prompt, "Answer this and exit; without a prompt: a chat")
          ->group(group);
  app.add_option("--prompt-file", a.options.prompt_file,
                 "The same from a file; - is standard input")
      ->excludes(prompt)
      ->group(group);
  app.add_option("--system", a.options.system, "System text; empty: none")
      ->capture_default_str()
      ->group(group);
  auto* raw = app.add_flag("--raw,--raw-prompt", a.options.raw_prompt,
                           "Take the prompt as it is, markers included; nothing is added")
                  ->group(group);
  app.add_option("--prefix-file", a.options.prefix_file,
                 "Turns before the conversation: USER: and ASSISTANT: at line starts")
      ->excludes(raw)
      ->group(group);
  auto* think = app.add_flag("--think", a.think, "Reason before answering (default)")->group(group);
  auto* think_max =
      app.add_flag("--think-max", a.think_max, "Reason as long as it takes")->group(group);
  auto* no_think = app.add_flag("--nothink", a.no_think, "Answer without reasoning")->group(group);
  think->excludes(think_max)->excludes(no_think);
  think_max->excludes(no_think);
  app.add_flag("--answer-only", a.options.answer_only, "Leave the reasoning out of the output")
      ->group(group);
}

void add_sampling_flags(CLI::App& app, Arguments& a) {
  const char* const group = "Sampling";
  sample::SamplingOptions& s = a.options.sampling;
  app.add_option("-n,--tokens", a.options.token_max, "Most tokens of an answer")
      ->check(CLI::Range(1U, UINT32_MAX))
      ->capture_default_str()
      ->group(group);
  app.add_option("--temp", s.temperature, "Temperature, 0 to 100; 0 is greedy")
      ->check(CLI::Range(0.0F, 100.0F))
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-p", s.top_p, "Smallest set of tokens with this probability, 0 to 1")
      ->check(CLI::Range(0.0F, 1.0F))
      ->capture_default_str()
      ->group(group);
  app.add_option("--top-k", s.top_k, "The likeliest tokens alone; 0: all")
      ->check(CLI::Range(0, sample::kTopKMax))
      ->capture_default_str()
      ->group(group);
  app.add_option("--min-p", s.min_p, "Least probability, as a share of the likeliest token's")
      ->check(CLI::Range(0.0F, 1.0F))
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", a.seed, "Seed of the sampler, above 0; default: a new one each run")
      ->check(CLI::Range(std::uint64_t{1}, UINT64_MAX))
      ->group(group);
}

void add_steering_flags(CLI::App& app, Arguments& a) {
  const char* const group = "Steering";
  OpenOptions& open = a.options.open;
  auto* file = app.add_option("--dir-steering-file", open.steering,
                              "Directions: little-endian f32 [layers, width]")
                   ->group(group);
  app.add_option("--dir-steering-ffn", open.steering_ffn_scale,
                 "Scale at FFN outputs, -100 to 100; default: 1 with a file and no scale, else 0")
      ->check(CLI::Range(-kSteeringMax, kSteeringMax))
      ->needs(file)
      ->group(group);
  app.add_option("--dir-steering-attn", open.steering_attention_scale,
                 "Scale at attention outputs, -100 to 100; default: 0")
      ->check(CLI::Range(-kSteeringMax, kSteeringMax))
      ->needs(file)
      ->group(group);
}

void add_mode_flags(CLI::App& app, Arguments& a) {
  const char* const group = "Instead of answering";
  const std::vector<CLI::Option*> modes = {
      app.add_flag("--plan", a.plan, "Print what memory loading would take"),
      app.add_flag("--inspect", a.inspect, "Print what the model file holds"),
      app.add_flag("--dump-tokens", a.dump_tokens, "Print the prompt's tokens"),
      app.add_option("--dump-logprobs", a.logprobs_file,
                     "Write the greedy answer with its likeliest tokens as JSON"),
      app.add_option("--dump-logits", a.logits_file, "Write the logits behind the prompt as JSON"),
      app.add_option("--perplexity-file", a.options.perplexity_file, "Score a text"),
  };
  for (CLI::Option* mode : modes) {
    mode->group(group);
    for (CLI::Option* other : modes)
      if (other != mode) mode->excludes(other);
  }
  for (const char* prompt : {"--prompt", "--prompt-file"})
    modes.back()->excludes(app.get_option(prompt));
  app.add_option("--logprobs-top-k", a.options.logprobs_top_k, "Tokens of each step, 1 to 128")
      ->check(CLI::Range(1U, 1000000U))
      ->capture_default_str()
      ->group(group);
  app.add_flag("--verbose", a.options.verbose, "Tell every step of loading");
}

Mode chosen_mode(const Arguments& a, bool has_prompt) {
  if (a.plan) return Mode::kPlan;
  if (a.inspect) return Mode::kInspect;
  if (a.dump_tokens) return Mode::kDumpTokens;
  if (!a.logprobs_file.empty()) return Mode::kDumpLogprobs;
  if (!a.logits_file.empty()) return Mode::kDumpLogits;
  if (!a.options.perplexity_file.empty()) return Mode::kPerplexity;
  return has_prompt ? Mode::kOneShot : Mode::kChat;
}

bool needs_prompt(Mode mode) {
  return mode == Mode::kDumpTokens || mode == Mode::kDumpLogprobs || mode == Mode::kDumpLogits;
}

// From what was written to what it means; throws what CLI11 throws for what it cannot check itself.
Options to_options(const CLI::App& app, Arguments a) {
  constexpr std::uint32_t kTopLogprobsMax = 128;
  Options& o = a.options;
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  if (given("--prompt")) o.prompt = a.prompt;
  const bool has_prompt = o.prompt || given("--prompt-file");
  if (o.prompt && o.prompt->empty()) throw CLI::ValidationError("--prompt", "the prompt is empty");
  o.mode = chosen_mode(a, has_prompt);
  if (needs_prompt(o.mode) && !has_prompt)
    throw CLI::ValidationError("a dump needs a prompt: give -p TEXT or --prompt-file FILE");
  if (o.raw_prompt && !has_prompt)
    throw CLI::ValidationError("--raw needs a prompt: give -p TEXT or --prompt-file FILE");
  if (a.cpu) o.open.backend = "cpu";
  if (a.cuda) o.open.backend = "cuda";
  if (!given("--ctx")) o.open.context = 0;
  if (given("--seed")) o.seed = a.seed;
  o.open.codec = a.kv == "exact" ? RowCodec::kExact : RowCodec::kPacked;
  if (a.no_think) o.think = chat::ThinkMode::kNone;
  if (a.think_max) o.think = chat::ThinkMode::kMax;
  // The drafting block costs memory, so it is left out where nothing can use it.
  o.open.use_mtp = o.draft_count > 0;
  if (!o.open.steering.empty() && !given("--dir-steering-ffn") && !given("--dir-steering-attn"))
    o.open.steering_ffn_scale = 1;
  if (!(o.sampling.top_p > 0)) o.sampling.top_p = 1;
  o.logprobs_top_k = std::min(o.logprobs_top_k, kTopLogprobsMax);
  o.dump_file = o.mode == Mode::kDumpLogits ? a.logits_file : a.logprobs_file;
  return std::move(o);
}

constexpr const char* kFooter =
    "\nWithout a prompt the program is a chat: /help lists its commands.\n"
    "Standard output carries the generated text alone; everything else goes to standard error.\n"
    "Exit codes: 0 done, 1 it failed, 2 wrong usage or another instance is running, "
    "3 the device failed, 130 Ctrl-C.\n"
    "Environment: DS4_LOCK_FILE (the instance lock; empty: none), NO_COLOR.\n";

}  // namespace

ParseResult parse_options(int argc, const char* const* argv) {
  CLI::App app{"Runs DeepSeek V4 models: one answer, or a chat in the terminal.", "ds4"};
  Arguments arguments;
  app.set_version_flag("--version", DS4_VERSION);
  add_prompt_flags(app, arguments);
  add_model_flags(app, arguments);
  add_sampling_flags(app, arguments);
  add_steering_flags(app, arguments);
  add_mode_flags(app, arguments);
  app.footer(kFooter);
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i) {
    // The one short flag of three letters, kept for those who know it.
    words.emplace_back(std::string_view(argv[i]) == "-sys" ? "--system" : argv[i]);
  }
  try {
    app.parse(words);
    return {.options = to_options(app, std::move(arguments)), .exit_code = 0, .text = {}};
  } catch (const CLI::CallForHelp&) {
    return {.options = {}, .exit_code = 0, .text = app.help()};
  } catch (const CLI::CallForVersion&) {
    return {.options = {}, .exit_code = 0, .text = fmt::format("ds4 {}\n", DS4_VERSION)};
  } catch (const CLI::ParseError& error) {
    return {.options = {},
            .exit_code = kExitUsage,
            .text = fmt::format("ds4: {}\n\nusage: ds4 [-m MODEL] [-p TEXT | --prompt-file FILE] "
                                "[options]; ds4 --help lists them\n",
                                error.what())};
  }
}

}  // namespace ds4::app
