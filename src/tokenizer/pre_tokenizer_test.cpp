#include "tokenizer/pre_tokenizer.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace ds4::tokenizer {
namespace {

using Pieces = std::vector<std::string>;

Pieces pieces_of(std::string_view text) {
  Pieces pieces;
  PieceScanner scanner(text);
  for (std::string_view p = scanner.next(); !p.empty(); p = scanner.next())
    pieces.emplace_back(p);
  return pieces;
}

TEST(UnicodeClasses, KnowsEachGeneralCategory) {
  const UnicodeClasses& classes = unicode_classes();
  EXPECT_EQ(classes.of('a'), CharClass::kLetter);
  EXPECT_EQ(classes.of(0x4E2D), CharClass::kLetter);   // CJK
  EXPECT_EQ(classes.of(0x0301), CharClass::kMark);     // combining acute
  EXPECT_EQ(classes.of(0x0663), CharClass::kNumber);   // Arabic-Indic digit
  EXPECT_EQ(classes.of(0x00BD), CharClass::kNumber);   // one half
  EXPECT_EQ(classes.of(0x3002), CharClass::kSymbol);   // ideographic full stop
  EXPECT_EQ(classes.of(0x1F642), CharClass::kSymbol);  // emoji
  EXPECT_EQ(classes.of(0x00A0), CharClass::kSpace);    // no-break space
  EXPECT_EQ(classes.of(0x0085), CharClass::kSpace);    // next line
  EXPECT_EQ(classes.of(0x200B), CharClass::kOther);    // zero-width space is no white space
  EXPECT_EQ(classes.of('\n'), CharClass::kBreak);
  EXPECT_EQ(classes.of(0), CharClass::kOther);
  EXPECT_EQ(classes.of(0x10FFFF), CharClass::kOther);
  EXPECT_EQ(classes.of(0x20000), CharClass::kLetter);  // supplementary ideograph
}

TEST(PieceScanner, FollowsTheThreeSplits) {
  EXPECT_EQ(pieces_of(""), Pieces{});
  EXPECT_EQ(pieces_of("Hello, world!"), (Pieces{"Hello", ",", " world", "!"}));
  EXPECT_EQ(pieces_of("1234567x"), (Pieces{"123", "456", "7", "x"}));
  EXPECT_EQ(pieces_of("a中文か、b"), (Pieces{"a", "中文か", "、", "b"}));
  EXPECT_EQ(pieces_of("don't .method()"), (Pieces{"don", "'t", " .", "method", "()"}));
  EXPECT_EQ(pieces_of("。\n\nx"), (Pieces{"。\n\n", "x"}));
  EXPECT_EQ(pieces_of("  \n  x"), (Pieces{"  \n", " ", " x"}));
  EXPECT_EQ(pieces_of("a   b"), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(pieces_of("a   1"), (Pieces{"a", "   ", "1"}));  // the digit is another region
  EXPECT_EQ(pieces_of("a   "), (Pieces{"a", "   "}));
  EXPECT_EQ(pieces_of("\t\tx"), (Pieces{"\t", "\tx"}));
  EXPECT_EQ(pieces_of("\t\t;"), (Pieces{"\t", "\t", ";"}));
  EXPECT_EQ(pieces_of("カ・カ"), (Pieces{"カ", "・", "カ"}));
  EXPECT_EQ(pieces_of("\x01\x02"
                      "a"),
            (Pieces{"\x01",
                    "\x02"
                    "a"}));
  EXPECT_EQ(pieces_of("\x01\x02"), (Pieces{"\x01\x02"}));
}

TEST(PieceScanner, PiecesJoinToTheTextWhateverItsBytes) {
  std::mt19937 random(11);
  const std::vector<std::string> parts = {"a",    "Z",        "9",   " ",  "\n",     "\r", "\t",
                                          ",",    "中",       "か",  "é",  "\u0301", "²",  "🙂",
                                          "\xFF", "\xE4\xBD", "\0x", "。", "\u00A0"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i)
      text += parts[random() % parts.size()];
    std::string joined;
    for (const std::string& piece : pieces_of(text))
      joined += piece;
    ASSERT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace ds4::tokenizer
