#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/response_event.h"
#include "chat/response_parser.h"
#include "common/terminal.h"

namespace ds4::app {

struct PrinterOptions {
  bool starts_in_reasoning = false;
  bool shows_reasoning = true;
  bool parses_markup = true;  // false: bytes as they are, for raw prompts
};

// An answer as a reader sees it, while it is generated: reasoning dim on a terminal with colour and
// its markers hidden, one line break where it ends, nothing that ends inside a character, and one
// line break at the end.  Confined to one thread.
class AnswerPrinter {
 public:
  using Write = std::function<void(std::string_view text)>;
  AnswerPrinter(const Terminal& terminal, const PrinterOptions& options, Write write);

  // The bytes of a token.
  void feed(std::string_view bytes);
  // The answer is over; kCut when the model did not end it.
  void finish(chat::FinishCause cause);

 private:
  void show_events();
  void show(const chat::ResponseEvent& event);
  void show_text(std::string_view text);
  void show_reasoning(std::string_view text);
  void end_reasoning();
  void put(std::string_view text);

  Terminal terminal_;
  PrinterOptions options_;
  Write write_;
  chat::ResponseParser parser_;
  std::vector<chat::ResponseEvent> events_;
  std::string pending_;    // of this call, written in one piece
  bool dim_ = false;       // the terminal's style is on
  bool reasoned_ = false;  // reasoning was shown and not ended
  char last_ = '\n';       // the last byte shown
};

}  // namespace ds4::app
