#include "common/fence.h"

#include <new>
#include <stdexcept>

#include <gtest/gtest.h>

namespace ds4::app {
namespace {

TEST(Fence, WhatTheBodyReturnsIsTheExitCode) {
  EXPECT_EQ(run_fenced("program", ErrorCode::kBusy, [] { return 7; }), 7);
}

// The exit code and the one line on standard error of a body that throws.
template <class E>
std::pair<int, std::string> failed(const E& error) {
  testing::internal::CaptureStderr();
  const int code = run_fenced("program", ErrorCode::kBusy, [&]() -> int { throw error; });
  return {code, testing::internal::GetCapturedStderr()};
}

TEST(Fence, EveryErrorIsOneLineAndACode) {
  using Result = std::pair<int, std::string>;
  EXPECT_EQ(failed(Error(ErrorCode::kIo, "disk full")),
            Result(kExitFailure, "program: disk full\n"));
  EXPECT_EQ(failed(Error(ErrorCode::kBusy, "running already")),
            Result(kExitUsage, "program: running already\n"));
  EXPECT_EQ(failed(std::bad_alloc()), Result(kExitFailure, "program: out of memory\n"));
  EXPECT_EQ(failed(Error(ErrorCode::kDevice, "it is gone")),
            Result(kExitDeviceLost, "program: it is gone\n"));
  EXPECT_EQ(failed(std::runtime_error("odd")),
            Result(kExitFailure, "program: internal error: odd\n"));
}

}  // namespace
}  // namespace ds4::app
