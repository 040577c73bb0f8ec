#include "runtime/open.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "base/error.h"

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

// What the allocator has handed out, 0 under a sanitizer's own.
std::uint64_t allocated_now() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

// The plan against the allocator itself, for contexts whose state outweighs the megabyte of tables
// that no plan lists.
TEST(MemoryPlan, AgreesWithWhatIsAllocatedToOnePercent) {
  OpenOptions options = small_model();
  options.context = 65536;
  options.session_count = 4;
  const std::uint64_t planned = plan_memory(options).allocated_bytes();
  const std::uint64_t before = allocated_now();
  const OpenedExecutor opened = open_executor(options);
  for (std::uint32_t i = 0; i < options.session_count; ++i)
    opened.executor->open_sequence(options.context);
  const std::uint64_t held = allocated_now() - before;
  if (held == 0) GTEST_SKIP() << "this allocator does not say what it has handed out";
  EXPECT_NEAR(static_cast<double>(held) / static_cast<double>(planned), 1.0, 0.01)
      << "planned " << planned << ", held " << held;
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
