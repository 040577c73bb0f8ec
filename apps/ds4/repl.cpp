#include "repl.h"

#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "common/environment.h"
#include "common/interrupt.h"
#include "common/output.h"
#include "prompt.h"

namespace ds4::app {

namespace {

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// A failure of the machine ends the program; everything else ends a turn.
bool ends_program(const Error& error) {
  return error.code() == ErrorCode::kDevice;
}

std::filesystem::path history_path() {
  const char* const home = environment("HOME");
  if (home == nullptr || *home == '\0') return {};
  return std::filesystem::path(home) / ".ds4_history";
}

}  // namespace

Repl::Repl(const Run& run, Conversation& conversation, LineReader& reader, KeptChats chats)
    : run_(run),
      conversation_(conversation),
      reader_(reader),
      chats_(std::move(chats)) {}

void Repl::loop() {
  for (;;) {
    InterruptGuard::reset();
    const Line line = reader_.read();
    if (line.kind == LineKind::kEnd) return;
    if (line.kind == LineKind::kInterrupt) continue;
    if (!handle(line.text)) return;
  }
}

bool Repl::handle(std::string_view line) {
  if (trim(line).empty()) return true;
  try {
    if (line.front() == '/')
      run_command(line);
    else
      submit(line);
  } catch (const Error& error) {
    if (ends_program(error)) throw;
    say(paint(run_.notes, Style::kError, error.what()));
  } catch (const std::bad_alloc&) {
    say(paint(run_.notes, Style::kError, "out of memory"));
  }
  return !leaving_;
}

void Repl::say(const std::string& text) const {
  write_note(text + "\n");
}

void Repl::submit(std::string_view text) {
  InterruptGuard::reset();
  const bool reasons = chat::is_thinking(conversation_.think());
  const AnswerResult result = show_answer(
      run_,
      {.starts_in_reasoning = reasons,
       .shows_reasoning = !run_.options.answer_only,
       .parses_markup = true},
      [&](const AnswerCallbacks& callbacks) { return conversation_.ask(text, callbacks); });
  if (result.finish) return;
  say(result.tokens.empty() ? "stopped; the question is not part of the conversation"
                            : "stopped; what was said is kept");
}

int run_chat(Run& run) {
  const Options& options = run.options;
  Conversation conversation(run.engine, {.context = run.context,
                                         .system = options.system,
                                         .prefix = read_prefix(options),
                                         .think = options.think,
                                         .sampling = options.sampling,
                                         .seed = seed_of(options),
                                         .token_max = options.token_max,
                                         .draft_count = options.draft_count});
  note_memory(run);
  const InterruptGuard guard(InterruptGuard::Repeated::kIgnored);
  const bool is_typed = ::isatty(STDIN_FILENO) == 1;
  const auto reader = is_typed ? make_line_editor("ds4> ", history_path()) : make_pipe_reader();
  if (is_typed) write_note(fmt::format("{}; /help lists the commands\n", run.engine.info().name));
  KeptChats chats(KeptChats::default_directory(), options.open.log);
  Repl(run, conversation, *reader, std::move(chats)).loop();
  return kExitDone;
}

}  // namespace ds4::app
