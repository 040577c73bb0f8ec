#include "answer_printer.h"

#include <string>

#include <gtest/gtest.h>

namespace ds4::app {
namespace {

constexpr Terminal kPipe{};
constexpr Terminal kColour{.is_tty = true, .has_colour = true};

// The same whether the bytes come at once or one by one.
std::string printed(const Terminal& terminal,
                    const PrinterOptions& options,
                    std::string_view text) {
  std::string results[2];
  for (const std::size_t piece : {text.size() + 1, std::size_t{1}}) {
    std::string& out = results[piece == 1 ? 1 : 0];
    AnswerPrinter printer(terminal, options, [&](std::string_view more) { out += more; });
    for (std::size_t at = 0; at < text.size(); at += piece)
      printer.feed(text.substr(at, piece));
    printer.finish(chat::FinishCause::kEndOfTurn);
  }
  EXPECT_EQ(results[0], results[1]);
  return results[0];
}

TEST(AnswerPrinter, EndsWithOneLineBreak) {
  EXPECT_EQ(printed(kPipe, {}, "hello"), "hello\n");
  EXPECT_EQ(printed(kPipe, {}, "hello\n"), "hello\n");
}

TEST(AnswerPrinter, HidesTheMarkersAndBreaksTheLineWhereReasoningEnds) {
  EXPECT_EQ(printed(kPipe, {.starts_in_reasoning = true}, "why</think>so"), "why\nso\n");
  EXPECT_EQ(printed(kPipe, {.starts_in_reasoning = true}, "why\n</think>so"), "why\nso\n");
  EXPECT_EQ(printed(kPipe, {.starts_in_reasoning = true}, "</think>so"), "so\n");
}

TEST(AnswerPrinter, ReasoningIsDimWithColourAlone) {
  const std::string text = printed(kColour, {.starts_in_reasoning = true}, "why</think>so");
  EXPECT_EQ(text, "\x1b[90mwhy\x1b[0m\nso\n");
  EXPECT_EQ(printed(kColour, {}, "so"), "so\n");
}

TEST(AnswerPrinter, TurnsTheStyleOffWhenTheReasoningIsCut) {
  const std::string text = printed(kColour, {.starts_in_reasoning = true}, "why");
  EXPECT_EQ(text, "\x1b[90mwhy\x1b[0m\n");
}

TEST(AnswerPrinter, CanLeaveTheReasoningOut) {
  const PrinterOptions options{.starts_in_reasoning = true, .shows_reasoning = false};
  EXPECT_EQ(printed(kPipe, options, "why</think>so"), "so\n");
  EXPECT_EQ(printed(kColour, options, "why</think>so"), "so\n");
}

TEST(AnswerPrinter, NeverEndsInsideACharacter) {
  std::string out;
  AnswerPrinter printer(kPipe, {}, [&](std::string_view more) { out += more; });
  printer.feed("a\xc3");
  EXPECT_EQ(out.find('\xc3'), std::string::npos);
  printer.feed("\xa9z");
  printer.finish(chat::FinishCause::kEndOfTurn);
  EXPECT_EQ(out, "a\xc3\xa9z\n");
}

TEST(AnswerPrinter, ShowsBytesAsTheyAreWhenAsked) {
  EXPECT_EQ(printed(kPipe, {.parses_markup = false}, "a</think>\xff"), "a</think>\xff\n");
}

}  // namespace
}  // namespace ds4::app
