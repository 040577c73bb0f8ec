#include "options.h"

#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

namespace ds4::app {
namespace {

ParseResult parse(std::initializer_list<const char*> words) {
  std::vector<const char*> argv{"ds4"};
  argv.insert(argv.end(), words);
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

Options options(std::initializer_list<const char*> words) {
  const ParseResult result = parse(words);
  EXPECT_TRUE(result.options) << result.text;
  return result.options.value_or(Options{});
}

TEST(Options, DefaultsAreTheProducts) {
  const Options o = options({});
  EXPECT_EQ(o.mode, Mode::kChat);
  EXPECT_EQ(o.think, chat::ThinkMode::kHigh);
  EXPECT_EQ(o.token_max, 50000U);
  EXPECT_EQ(o.open.context, 0U);  // the model's default
  EXPECT_EQ(o.power_percent, 100);
  EXPECT_FLOAT_EQ(o.sampling.temperature, 1);
  EXPECT_FLOAT_EQ(o.sampling.min_p, 0.05F);
  EXPECT_FALSE(o.seed);
  EXPECT_TRUE(o.open.use_mtp);
  EXPECT_FALSE(o.system.empty());
}

TEST(Options, ModesFollowTheirFlags) {
  EXPECT_EQ(options({"-p", "x"}).mode, Mode::kOneShot);
  EXPECT_EQ(options({"--prompt-file", "x"}).mode, Mode::kOneShot);
  EXPECT_EQ(options({"--plan"}).mode, Mode::kPlan);
  EXPECT_EQ(options({"--inspect"}).mode, Mode::kInspect);
  EXPECT_EQ(options({"--dump-tokens", "-p", "x"}).mode, Mode::kDumpTokens);
  EXPECT_EQ(options({"--dump-logprobs", "f", "-p", "x"}).dump_file, "f");
  EXPECT_EQ(options({"--dump-logits", "g", "-p", "x"}).dump_file, "g");
  EXPECT_EQ(options({"--perplexity-file", "f"}).mode, Mode::kPerplexity);
}

TEST(Options, ValuesReachTheirPlaces) {
  const Options o = options({"-m",        "f.gguf",
                             "-c",        "4096",
                             "-t",        "3",
                             "--kv",      "exact",
                             "--nothink", "--seed",
                             "9",         "--top-p",
                             "0",         "-sys",
                             "",          "--mtp-draft",
                             "0",         "--prefill-chunk",
                             "64",        "--logprobs-top-k",
                             "500"});
  EXPECT_EQ(o.open.model, "f.gguf");
  EXPECT_EQ(o.open.context, 4096U);
  EXPECT_EQ(o.open.thread_count, 3U);
  EXPECT_EQ(o.open.codec, RowCodec::kExact);
  EXPECT_EQ(o.open.rows_max, 64U);
  EXPECT_EQ(o.think, chat::ThinkMode::kNone);
  EXPECT_EQ(o.seed, 9U);
  EXPECT_FLOAT_EQ(o.sampling.top_p, 1);  // 0 means no cut
  EXPECT_EQ(o.system, "");
  EXPECT_FALSE(o.open.use_mtp);
  EXPECT_EQ(o.logprobs_top_k, 128U);
  EXPECT_EQ(options({"--cuda"}).open.backend, "cuda");
  EXPECT_EQ(options({"--backend", "x"}).open.backend, "x");
}

TEST(Options, QualityIsAskedOfTheBackend) {
  EXPECT_FALSE(options({}).open.quality);
  EXPECT_TRUE(options({"--quality"}).open.quality);
}

TEST(Options, TheMarginOfDraftsIsCheckedAndDropped) {
  EXPECT_EQ(options({"--mtp-margin", "7.5"}).draft_count, options({}).draft_count);
  EXPECT_EQ(parse({"--mtp-margin", "1000"}).exit_code, 0);
  EXPECT_EQ(parse({"--mtp-margin", "1001"}).exit_code, 2);
  EXPECT_EQ(parse({"--mtp-margin", "-1"}).exit_code, 2);
  EXPECT_NE(parse({"--help"}).text.find("--mtp-margin"), std::string::npos);
}

TEST(Options, ASteeringFileAloneSteersTheFfn) {
  EXPECT_FLOAT_EQ(options({"--dir-steering-file", "f"}).open.steering_ffn_scale, 1);
  const Options o = options({"--dir-steering-file", "f", "--dir-steering-attn", "-2"});
  EXPECT_FLOAT_EQ(o.open.steering_ffn_scale, 0);
  EXPECT_FLOAT_EQ(o.open.steering_attention_scale, -2);
}

TEST(Options, WrongUsageEndsWithTwo) {
  for (const auto& words : {std::initializer_list<const char*>{"--bogus"},
                            {"-p", "a", "--prompt-file", "b"},
                            {"-p", ""}}) {
    const ParseResult result = parse(words);
    EXPECT_FALSE(result.options);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.text.find("usage:"), std::string::npos);
  }
}

}  // namespace
}  // namespace ds4::app
