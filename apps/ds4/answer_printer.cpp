#include "answer_printer.h"

#include <utility>
#include <variant>

#include <fmt/format.h>

namespace ds4::app {

namespace {

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

}  // namespace

AnswerPrinter::AnswerPrinter(const Terminal& terminal, const PrinterOptions& options, Write write)
    : terminal_(terminal),
      options_(options),
      write_(std::move(write)),
      parser_({.starts_in_reasoning = options.starts_in_reasoning,
               .reasoning_calls = chat::ReasoningCalls::kRefuse,
               .tools = {}}) {}

void AnswerPrinter::feed(std::string_view bytes) {
  if (options_.parses_markup) {
    parser_.feed(bytes, events_);
    show_events();
  } else {
    show_text(bytes);
  }
  if (!pending_.empty()) write_(std::exchange(pending_, {}));
}

void AnswerPrinter::finish(chat::FinishCause cause) {
  if (options_.parses_markup) {
    parser_.finish(cause, events_);
    show_events();
  }
  end_reasoning();
  if (last_ != '\n') put("\n");
  if (!pending_.empty()) write_(std::exchange(pending_, {}));
}

void AnswerPrinter::show_events() {
  for (const chat::ResponseEvent& event : events_)
    show(event);
  events_.clear();
}

// No tools are offered here, so a call is something that the model says: it is shown, never run.
void AnswerPrinter::show(const chat::ResponseEvent& event) {
  std::visit(
      Overloaded{
          [&](const chat::TextPiece& piece) { show_text(piece.text); },
          [&](const chat::ReasoningPiece& piece) { show_reasoning(piece.text); },
          [&](const chat::ReasoningEnd&) { end_reasoning(); },
          [&](const chat::CallBegin& call) { show_text(fmt::format("\n[call {} ", call.name)); },
          [&](const chat::ArgumentPiece& piece) { show_text(piece.json); },
          [&](const chat::CallEnd&) { show_text("]"); },
          [&](const chat::CallBlockEnd&) { show_text("\n"); },
          [&](const chat::Malformed& markup) { show_text(markup.raw); },
      },
      event);
}

void AnswerPrinter::show_text(std::string_view text) {
  if (text.empty()) return;
  end_reasoning();
  put(text);
}

void AnswerPrinter::show_reasoning(std::string_view text) {
  if (text.empty() || !options_.shows_reasoning) return;
  if (terminal_.has_colour && !std::exchange(dim_, true)) pending_ += style_on(Style::kReasoning);
  reasoned_ = true;
  put(text);
}

void AnswerPrinter::end_reasoning() {
  if (std::exchange(dim_, false)) pending_ += kStyleOff;
  if (std::exchange(reasoned_, false) && last_ != '\n') put("\n");
}

void AnswerPrinter::put(std::string_view text) {
  pending_ += text;
  last_ = text.back();
}

}  // namespace ds4::app
