#include "base/utf8.h"

#include <string>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

TEST(Utf8, RoundTripsEveryScalarValue) {
  for (std::uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    const DecodedCodePoint decoded = decode_code_point(text);
    ASSERT_TRUE(decoded.valid) << c;
    ASSERT_EQ(decoded.value, c);
    ASSERT_EQ(decoded.bytes, text.size());
  }
}

TEST(Utf8, RejectsWhatIsNotWellFormed) {
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82"}) {
    EXPECT_FALSE(is_valid_utf8(bad)) << bad;
    EXPECT_TRUE(is_valid_utf8(to_valid_utf8(bad)));
  }
}

TEST(Utf8, HoldbackNeverSplitsACharacter) {
  const std::string text = "a\u00e9\u4f60\U0001F600z";
  for (std::size_t piece_bytes = 1; piece_bytes <= text.size(); ++piece_bytes) {
    Utf8Holdback holdback;
    std::string all;
    for (std::size_t i = 0; i < text.size(); i += piece_bytes) {
      const std::string out = holdback.push(text.substr(i, piece_bytes));
      EXPECT_TRUE(is_valid_utf8(out)) << piece_bytes;
      all += out;
    }
    EXPECT_EQ(all + holdback.finish(), text);
  }
}

TEST(Utf8, HoldbackPassesHopelessBytesOn) {
  Utf8Holdback holdback;
  EXPECT_EQ(holdback.push("\xE2\x28"), "\xE2\x28");
  EXPECT_EQ(holdback.push("\xE2\x82"), "");
  EXPECT_EQ(holdback.finish(), "\xE2\x82");
}

}  // namespace
}  // namespace ds4
