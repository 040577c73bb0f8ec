#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/open.h"

namespace ds4 {
namespace {

constexpr std::uint64_t kMebi = std::uint64_t{1} << 20;

MemoryPlan plan(std::uint64_t weights, std::uint64_t available) {
  return {.backend = "cpu",
          .items = {{"weights", weights, true}, {"state", 3 * kMebi}, {"scratch", kMebi}},
          .available_bytes = available};
}

TEST(MemoryPlan, SumsMappedAndAllocatedItemsApart) {
  EXPECT_EQ(plan(10 * kMebi, 0).allocated_bytes(), 4 * kMebi);
  EXPECT_EQ(plan(10 * kMebi, 0).mapped_bytes(), 10 * kMebi);
}

TEST(MemoryPlan, SaysByHowMuchTheWeightsDoNotFit) {
  using testing::HasSubstr;
  using testing::Not;
  EXPECT_THAT(plan(10 * kMebi, 0).text(), Not(HasSubstr("disk")));
  EXPECT_THAT(plan(10 * kMebi, 14 * kMebi).text(), Not(HasSubstr("disk")));
  EXPECT_THAT(plan(10 * kMebi, 12 * kMebi).text(), HasSubstr("2.0 MiB more than memory has left"));
  EXPECT_THAT(plan(10 * kMebi, 2 * kMebi).text(), HasSubstr("10.0 MiB more than memory has left"));
}

}  // namespace
}  // namespace ds4
