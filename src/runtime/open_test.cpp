#include "runtime/open.h"

#include <algorithm>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/session.h"
#include "tests/support/allocation_count.h"

namespace ds4 {
namespace {

using testing::AllOf;
using testing::HasSubstr;

OpenOptions small_model() {
  OpenOptions options;
  options.model = "models/ds4-tiny.gguf";
  options.backend = "cpu";
  options.thread_count = 2;
  return options;
}

// The message and code with which opening fails; empty when it does not.
std::pair<std::string, ErrorCode> refusal(const OpenOptions& options) {
  try {
    open_engine(options);
  } catch (const Error& error) {
    return {error.what(), error.code()};
  }
  return {};
}

// Opens `session_count` sessions and fills the first one's with `token_count` tokens; what the
// allocator has handed out for all of that since it began.
std::uint64_t bytes_held(const OpenOptions& options, std::uint32_t token_count) {
  const std::uint64_t before = test::bytes_allocated();
  const auto engine = open_engine(options);
  std::vector<std::unique_ptr<Session>> sessions;
  for (std::uint32_t i = 0; i < options.session_count; ++i)
    sessions.push_back(
        std::make_unique<Session>(*engine, SessionOptions{.context = options.context}));
  std::vector<TokenId> prompt;
  for (std::uint32_t i = 0; i < token_count; ++i)
    prompt.emplace_back(static_cast<std::int32_t>(i * 37 % engine->config().vocab_size));
  sessions.front()->sync(prompt);
  prompt = {};
  return test::bytes_allocated() - before;
}

// The plan against the allocator itself: after loading, and once the first steps have run.
TEST(MemoryPlan, AgreesWithWhatIsAllocatedToOnePercent) {
  for (const std::uint32_t context : {32U, 256U, 2048U, 32768U}) {
    for (const std::uint32_t session_count : {1U, 4U}) {
      OpenOptions options = small_model();
      options.context = context;
      options.session_count = session_count;
      const std::uint64_t planned = plan_memory(options).allocated_bytes();
      for (const std::uint32_t token_count : {1U, std::min(context - 1, 600U)}) {
        const std::uint64_t held = bytes_held(options, token_count);
        EXPECT_NEAR(static_cast<double>(held) / static_cast<double>(planned), 1.0, 0.01)
            << session_count << " sessions of " << context << " tokens, " << token_count
            << " run: planned " << planned << ", held " << held;
      }
    }
  }
}

TEST(MemoryPlan, WhatDoesNotFitIsRefusedWithTheNumbers) {
  OpenOptions options = small_model();
  options.context = 65536;
  options.session_count = 1U << 20;
  const auto [message, code] = refusal(options);
  EXPECT_EQ(code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(message, AllOf(HasSubstr("65536 tokens does not fit"), HasSubstr("state"),
                             HasSubstr("allocated"), HasSubstr("available")));
}

TEST(Open, RefusesWhatIsNotThere) {
  OpenOptions options = small_model();
  options.backend = "abacus";
  EXPECT_THAT(refusal(options).first, AllOf(HasSubstr("'abacus'"), HasSubstr("cpu")));
  options = small_model();
  options.model = "no/such.gguf";
  EXPECT_EQ(refusal(options).second, ErrorCode::kNotFound);
  options = small_model();
  options.context = 1;
  EXPECT_THAT(refusal(options).first, AllOf(HasSubstr("1 tokens"), HasSubstr("2 to ")));
  options = small_model();
  options.mtp = "CMakeLists.txt";
  EXPECT_THAT(refusal(options).first, HasSubstr("CMakeLists.txt"));
}

}  // namespace
}  // namespace ds4
