#pragma once
#include <memory>

#include "answer.h"
#include "answer_printer.h"
#include "chat/render.h"
#include "common/fence.h"
#include "common/terminal.h"
#include "engine/engine.h"
#include "options.h"

namespace ds4::app {

inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells count

// What every mode that loads the model shares.  Made once, lives as long as the program.
struct Run {
  const Options& options;
  Engine& engine;
  std::uint32_t context;  // of the sessions
  Terminal output;
  Terminal notes;
};

// Each does its mode and returns the exit code; throws Error.
int run_plan(const Options& options);
int run_inspect(const Options& options);
int run_dump_tokens(const Options& options);
int run_one_shot(Run& run);
int run_dump(Run& run);
int run_perplexity(Run& run);
int run_chat(Run& run);

// A seed of its own for a run that names none.
std::uint64_t seed_of(const Options& options);

// How the prompt is rendered for this model in a context.
chat::RenderOptions render_options(const Options& options,
                                   std::string_view model_name,
                                   std::uint64_t context);

// Says on standard error what was allocated for the context.
void note_memory(const Run& run);

// Makes one answer with progress and timing on standard error and its text on standard output.
// `make` runs it with the callbacks that it is given.
AnswerResult show_answer(const Run& run,
                         const PrinterOptions& printer_options,
                         const std::function<AnswerResult(const AnswerCallbacks&)>& make);

}  // namespace ds4::app
