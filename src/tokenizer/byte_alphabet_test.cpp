#include "tokenizer/byte_alphabet.h"

#include <gtest/gtest.h>

#include "base/utf8.h"

namespace ds4::tokenizer {
namespace {

TEST(ByteAlphabet, EveryByteHasItsOwnPrintableCodePoint) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte)
    all.push_back(static_cast<char>(byte));
  const std::string text = bytes_to_alphabet(all);
  EXPECT_TRUE(is_valid_utf8(text));
  EXPECT_EQ(alphabet_to_bytes(text), all);
  EXPECT_EQ(bytes_to_alphabet(" a\n"), "\u0120a\u010A");
}

TEST(ByteAlphabet, OtherTextIsRefused) {
  for (const char* text : {" ", "\n", "｜", "\u0144", "\xFF", "a\xC4"}) {
    EXPECT_FALSE(alphabet_to_bytes(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace ds4::tokenizer
