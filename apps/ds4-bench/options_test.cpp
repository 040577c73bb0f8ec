#include "options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/fence.h"

namespace ds4::bench {
namespace {

ParseResult parse(std::vector<const char*> words) {
  words.insert(words.begin(), "ds4-bench");
  return parse_options(static_cast<int>(words.size()), words.data());
}

TEST(BenchOptions, TheContextFollowsFromTheLastFrontier) {
  const auto parsed = parse({"-m", "x.gguf", "--frontiers", "8192,2048,2048", "-n", "64"});
  ASSERT_TRUE(parsed.options) << parsed.text;
  EXPECT_EQ(parsed.options->frontiers, (std::vector<std::uint32_t>{2048, 8192}));
  EXPECT_EQ(parsed.options->open.context, 8192U + 64 + 1);
}

TEST(BenchOptions, TheSweepOfTheReference) {
  const auto parsed = parse({"-m", "x.gguf", "--ctx-max", "8192", "--batch", "1,8,32"});
  ASSERT_TRUE(parsed.options) << parsed.text;
  EXPECT_EQ(parsed.options->frontiers, (std::vector<std::uint32_t>{2048, 4096, 6144, 8192}));
  EXPECT_EQ(parsed.options->open.session_count, 32U);
}

TEST(BenchOptions, BadInputIsAUsageError) {
  for (const std::vector<const char*>& words :
       std::vector<std::vector<const char*>>{{"--no-such-flag"},
                                             {"-m", "x.gguf", "--ctx-alloc", "100"},
                                             {"-m", "x.gguf", "--ctx-start", "9", "--ctx-max", "8"},
                                             {"-m", "x.gguf", "--batch", "0"},
                                             {"-m", "x.gguf", "--prompt-file", "/no/such/file"},
                                             {"--compare", "/no/such/file", "/nor/this"}}) {
    const auto parsed = parse(words);
    EXPECT_FALSE(parsed.options);
    EXPECT_EQ(parsed.exit_code, app::kExitUsage);
    EXPECT_FALSE(parsed.text.empty());
  }
}

TEST(BenchOptions, AChatIsAFileAndASystemText) {
  const auto parsed = parse({"-m", "x.gguf", "--chat-prompt-file", "CMakeLists.txt", "-sys",
                             "Be brief.", "--power", "40", "--quality"});
  ASSERT_TRUE(parsed.options) << parsed.text;
  EXPECT_EQ(parsed.options->chat_prompt_file, "CMakeLists.txt");
  EXPECT_EQ(parsed.options->system, "Be brief.");
  EXPECT_EQ(parsed.options->power_percent, 40);
  EXPECT_TRUE(parsed.options->open.quality);
  EXPECT_EQ(
      parse({"--chat-prompt-file", "CMakeLists.txt", "--prompt-file", "CMakeLists.txt"}).exit_code,
      2);
  EXPECT_EQ(parse({"-sys", "Be brief."}).exit_code, 2);
  EXPECT_EQ(parse({"--power", "0"}).exit_code, 2);
}

TEST(BenchOptions, HelpNamesThePageThatExplainsTheTable) {
  const auto parsed = parse({"--help"});
  EXPECT_EQ(parsed.exit_code, 0);
  EXPECT_THAT(parsed.text, testing::HasSubstr("docs/performance.md"));
}

}  // namespace
}  // namespace ds4::bench
