// ds4: one answer, or a chat in the terminal.
#include <fmt/format.h>

#include "base/error.h"
#include "common/command_line.h"
#include "common/fence.h"
#include "common/instance_lock.h"
#include "common/load_progress.h"
#include "common/terminal.h"
#include "options.h"
#include "run.h"

namespace ds4::app {
namespace {

int run_with_model(const Options& options, const Terminal& notes) {
  const auto engine = open_engine(options.open);
  engine->throttle().set_percent(options.power_percent);
  const std::uint32_t context =
      options.open.context == 0 ? default_context(engine->config()) : options.open.context;
  if (options.think != chat::fitting_think_mode(options.think, context)) {
    log(options.open.log, LogLevel::kWarning,
        fmt::format("--think-max needs a context of {} tokens; with {} it is --think",
                    chat::kMaxEffortContextTokens, context));
  }
  Run run{.options = options,
          .engine = *engine,
          .context = context,
          .output = Terminal::standard_output(),
          .notes = notes};
  switch (options.mode) {
    case Mode::kChat:
      return run_chat(run);
    case Mode::kOneShot:
      return run_one_shot(run);
    case Mode::kDumpLogprobs:
    case Mode::kDumpLogits:
      return run_dump(run);
    case Mode::kPerplexity:
      return run_perplexity(run);
    case Mode::kPlan:
    case Mode::kInspect:
    case Mode::kDumpTokens:
      break;
  }
  DS4_CHECK(false);
  return kExitFailure;
}

int run_mode(Options options, const Terminal& notes) {
  options.open.log =
      log_to_standard_error(notes, options.verbose ? Verbosity::kVerbose : Verbosity::kNormal);
  options.open.load_progress = show_loading(notes);
  if (options.open.model.empty()) options.open.model = default_model_path();
  if (options.mode == Mode::kPlan) return run_plan(options);
  if (options.mode == Mode::kInspect) return run_inspect(options);
  if (options.mode == Mode::kDumpTokens) return run_dump_tokens(options);
  const InstanceLock lock(InstanceLock::default_path());
  return run_with_model(options, notes);
}

int run(int argc, char** argv) {
  const ParseResult parsed = parse_options(argc, argv);
  if (!parsed.options) return end_early(parsed.text, parsed.exit_code);
  return run_mode(*parsed.options, Terminal::standard_error());
}

}  // namespace
}  // namespace ds4::app

int main(int argc, char** argv) {
  return ds4::app::run_fenced("ds4", ds4::ErrorCode::kBusy,
                              [&] { return ds4::app::run(argc, argv); });
}
