#include "runner.h"

#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "cpu/cpu_executor.h"
#include "support/random_model.h"

namespace ds4::bench {
namespace {

std::unique_ptr<Executor> make_executor(const test::RandomModel& model) {
  return cpu::make_cpu_executor(model.config(), model.weights(),
                                {.thread_count = 1, .rows_max = 64});
}

std::vector<float> last_logits(Executor& executor,
                               const Prompt& prompt,
                               std::uint32_t user,
                               std::uint32_t length) {
  const SequenceId sequence = executor.open_sequence(length + 1);
  std::vector<float> logits(executor.config().vocab_size);
  for (std::uint32_t p = 0; p < length; ++p) {
    const BatchRow row{prompt.at(p, user), Position{p}, sequence, true};
    executor.run({{&row, 1}}, {.logits = Rows(logits.data(), {1, logits.size()})});
  }
  executor.close_sequence(sequence);
  return logits;
}

TEST(Runner, MeasuresEveryRunOfEachPhase) {
  const test::RandomModel model(test::small_shape());
  const auto executor = make_executor(model);
  const Prompt prompt(model.config().vocab_size);
  Runner runner(*executor, prompt, {.users = 2, .context = 400, .decode_tokens = 5, .runs = 3});
  for (const std::uint32_t frontier : {100U, 101U, 300U}) {
    const Measurement m = runner.measure(frontier);
    EXPECT_EQ(m.context, frontier);
    EXPECT_EQ(m.prefill_s.size(), 3U);
    EXPECT_EQ(m.decode.size(), 3U);
    EXPECT_GT(m.state_bytes, 0U);
    for (const DecodeTime& time : m.decode)
      EXPECT_TRUE(time.first_s > 0 && time.rest_s > 0);
  }
}

TEST(Runner, LongPhasesRunOnceAndNoTokensMeansNoDecoding) {
  const test::RandomModel model(test::small_shape());
  const auto executor = make_executor(model);
  const Prompt prompt(model.config().vocab_size);
  Runner runner(*executor, prompt,
                {.context = 100, .decode_tokens = 0, .runs = 5, .run_seconds_max = 0});
  const Measurement m = runner.measure(50);
  EXPECT_EQ(m.prefill_s.size(), 1U);
  EXPECT_TRUE(m.decode.empty());
}

TEST(Runner, AThrottledMachineTakesLonger) {
  const test::RandomModel model(test::small_shape());
  const auto executor = make_executor(model);
  const Prompt prompt(model.config().vocab_size);
  const auto seconds = [&](int power_percent) {
    Runner runner(*executor, prompt,
                  {.context = 400, .decode_tokens = 8, .power_percent = power_percent});
    const Measurement m = runner.measure(300);
    return std::pair(m.prefill_s.front(), m.decode.front().rest_s);
  };
  const auto full = seconds(100);
  const auto tenth = seconds(10);
  // Ten times as long; a busy machine gets room.
  EXPECT_GT(tenth.first, 3 * full.first);
  EXPECT_GT(tenth.second, 3 * full.second);
}

// Whatever ran in between, the state at a frontier is that of the prompt.
TEST(Runner, RepetitionsAndDecodingLeaveTheStateAsItWas) {
  const test::RandomModel model(test::small_shape());
  const auto executor = make_executor(model);
  const Prompt prompt(model.config().vocab_size);
  const auto expected = last_logits(*executor, prompt, 0, 290);
  const std::filesystem::path folder = testing::TempDir();
  Runner runner(
      *executor, prompt,
      {.users = 2, .context = 400, .decode_tokens = 20, .runs = 2, .logits_directory = folder});
  for (const std::uint32_t frontier : {70U, 130U, 290U})
    runner.measure(frontier);
  std::string text = "{\"ctx_tokens\": 290, \"logits\": [";
  for (std::size_t i = 0; i < expected.size(); ++i)
    text += fmt::format("{}{:.9g}", i == 0 ? "" : ", ", expected[i]);
  EXPECT_EQ(read_text_file(folder / "logits-290.json", 1 << 20), text + "]}\n");
}

TEST(Runner, UsersHaveTokensOfTheirOwn) {
  const Prompt random(5000);
  const Prompt text(std::vector<TokenId>{TokenId{1}, TokenId{2}, TokenId{3}, TokenId{4}});
  int equal = 0;
  for (std::uint32_t p = 0; p < 100; ++p) {
    equal += random.at(p, 0) == random.at(p, 1) ? 1 : 0;
    EXPECT_NE(text.at(p, 0), text.at(p, 1));
    EXPECT_LT(random.at(p, 7).value(), 5000);
  }
  EXPECT_LT(equal, 3);
}

}  // namespace
}  // namespace ds4::bench
