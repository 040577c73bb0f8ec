// The slash commands of the chat.
#include <charconv>
#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "repl.h"
#include "runtime/open.h"

namespace ds4::app {

namespace {

constexpr std::size_t kReadBytesMax = std::size_t{64} << 20;

// The whole of `text` as a number.  Throws Error(kInvalidArgument) saying what was expected.
template <class Number>
Number parse_number(std::string_view text, std::string_view expected) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}'; expected {}", text, expected));
  return value;
}

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

double mebibytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / (1024.0 * 1024.0);
}

}  // namespace

const Repl::Command Repl::kCommands[] = {
    {"help", "", "this list", &Repl::help},
    {"read", "FILE", "ask with the content of a file", &Repl::read_file},
    {"think", "", "reason before answering", &Repl::think},
    {"think-max", "", "reason as long as it takes", &Repl::think_max},
    {"nothink", "", "answer without reasoning", &Repl::no_think},
    {"ctx", "N", "continue in a context of N tokens", &Repl::context},
    {"power", "N", "let the machine work N percent of the time", &Repl::power},
    {"steer", "F", "scale of the steering directions at FFN outputs", &Repl::steer},
    {"status", "", "model, context and settings", &Repl::status},
    {"save", "NAME", "keep this conversation", &Repl::save},
    {"load", "NAME", "continue a kept conversation", &Repl::load},
    {"list", "", "the kept conversations", &Repl::list},
    {"switch", "NAME", "keep this conversation if it has a name, and continue another",
     &Repl::switch_to},
    {"del", "NAME", "remove a kept conversation", &Repl::remove},
    {"strip", "NAME", "keep its words alone: it is read again when continued", &Repl::strip},
    {"quit", "", "leave; so do /exit and Ctrl-D", &Repl::leave},
    {"exit", "", "", &Repl::leave},
};

const Repl::Command* Repl::find_command(std::string_view name) {
  for (const Command& command : kCommands)
    if (command.name == name) return &command;
  return nullptr;
}

void Repl::run_command(std::string_view line) {
  const std::size_t end = std::min(line.find_first_of(" \t\r\n"), line.size());
  const std::string_view name = line.substr(1, end - 1);
  const std::string_view argument = trim(line.substr(end));
  const Command* const command = find_command(name);
  if (command == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("unknown command /{}; /help lists them", name));
  }
  if (command->argument.empty() != argument.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                command->argument.empty() ? fmt::format("/{} takes no argument", name)
                                          : fmt::format("usage: /{} {}", name, command->argument));
  }
  (this->*command->action)(argument);
}

void Repl::help(std::string_view) {
  std::string text;
  for (const Command& command : kCommands) {
    if (command.help.empty()) continue;
    text += fmt::format("  {:<16} {}\n", fmt::format("/{} {}", command.name, command.argument),
                        command.help);
  }
  say(text + "  Ctrl-C stops an answer; a line that ends in \\ goes on in the next one");
}

void Repl::read_file(std::string_view argument) {
  const std::string text = read_text_file(std::string(argument), kReadBytesMax);
  if (trim(text).empty())
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is empty", argument));
  submit(text);
}

void Repl::context(std::string_view argument) {
  const auto context = parse_number<std::uint32_t>(argument, "a number of tokens");
  OpenOptions request = run_.options.open;
  request.context = context;
  const MemoryPlan plan = plan_memory(request);
  // What the present context holds is given back first.
  request.context = conversation_.context();
  const std::uint64_t held = plan_memory(request).allocated_bytes();
  if (plan.available_bytes != 0 && plan.allocated_bytes() > plan.available_bytes + held)
    throw Error(ErrorCode::kOutOfMemory, fmt::format("that does not fit\n{}", plan.text()));
  conversation_.set_context(context);
  say(fmt::format("context of {} tokens; the conversation is read again at the next turn",
                  context));
}

void Repl::set_think(chat::ThinkMode think) {
  conversation_.set_think(think);
  const chat::ThinkMode fitting = chat::fitting_think_mode(think, conversation_.context());
  say(fitting == think
          ? fmt::format("thinking: {}", think_mode_name(think))
          : fmt::format("thinking: {}; {} needs a context of {} tokens", think_mode_name(fitting),
                        think_mode_name(think), chat::kMaxEffortContextTokens));
}

void Repl::think(std::string_view) {
  set_think(chat::ThinkMode::kHigh);
}

void Repl::think_max(std::string_view) {
  set_think(chat::ThinkMode::kMax);
}

void Repl::no_think(std::string_view) {
  set_think(chat::ThinkMode::kNone);
}

void Repl::power(std::string_view argument) {
  run_.engine.throttle().set_percent(parse_number<int>(argument, "a percentage from 1 to 100"));
  say(fmt::format("power: {}%", run_.engine.throttle().percent()));
}

void Repl::steer(std::string_view argument) {
  run_.engine.set_steering_scale(parse_number<float>(argument, "a scale from -100 to 100"));
  say(fmt::format("steering: {}", run_.engine.steering().ffn_scale));
}

void Repl::status(std::string_view) {
  const Engine& engine = run_.engine;
  const sample::SamplingOptions& s = run_.options.sampling;
  std::string text = fmt::format("model     {} ({}, {:.1f} MiB)\n", engine.info().name,
                                 engine.info().quantisation, mebibytes(engine.info().file_bytes));
  text += fmt::format("backend   {}\n", run_.engine.executor().info().backend);
  text += fmt::format("context   {} of {} tokens, {} turns\n", conversation_.length(),
                      conversation_.context(), conversation_.turn_count());
  text += fmt::format("thinking  {}\n", think_mode_name(conversation_.think()));
  text += fmt::format("sampling  temperature {}, top-k {}, top-p {}, min-p {}\n", s.temperature,
                      s.top_k, s.top_p, s.min_p);
  text += fmt::format("power     {}%", run_.engine.throttle().percent());
  if (!engine.steering().directions.empty()) {
    text += fmt::format("\nsteering  FFN {}, attention {}", engine.steering().ffn_scale,
                        engine.steering().attention_scale);
  }
  say(text);
}

void Repl::save(std::string_view argument) {
  conversation_.save(chats_, argument);
  name_ = argument;
  say(fmt::format("{} tokens kept as {} in {}", conversation_.length(), argument,
                  chats_.directory().string()));
}

void Repl::load(std::string_view argument) {
  const std::uint32_t restored = conversation_.load(chats_, argument);
  name_ = argument;
  say(fmt::format("{} turns, {} of {} tokens{}", conversation_.turn_count(), conversation_.length(),
                  conversation_.context(),
                  restored > 0 || conversation_.length() == 0 ? "" : "; to be read again"));
}

void Repl::list(std::string_view) {
  const auto entries = chats_.list();
  if (entries.empty()) return say("no kept conversations; /save NAME keeps this one");
  for (const KeptChats::Entry& entry : entries) {
    const std::tm time = fmt::localtime(static_cast<std::time_t>(entry.updated_s));
    say(fmt::format("  {:<24} {:%Y-%m-%d %H:%M} {:>9} tokens{}", entry.name, time,
                    entry.token_count, entry.has_state ? "" : ", words alone"));
  }
}

void Repl::switch_to(std::string_view argument) {
  // The other one first: if it is not there, nothing has happened.
  chats_.read(argument);
  if (!name_.empty()) conversation_.save(chats_, name_);
  load(argument);
}

void Repl::remove(std::string_view argument) {
  chats_.remove(argument);
  if (name_ == argument) name_.clear();
  say(fmt::format("{} is gone", argument));
}

void Repl::strip(std::string_view argument) {
  chats_.strip(argument);
  say(fmt::format("{} keeps its words", argument));
}

void Repl::leave(std::string_view) {
  leaving_ = true;
}

}  // namespace ds4::app
