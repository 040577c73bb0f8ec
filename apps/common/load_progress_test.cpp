#include "common/load_progress.h"

#include <gtest/gtest.h>

namespace ds4::app {
namespace {

TEST(LoadProgress, EveryPartIsPassedOnceAndTheEndIsShown) {
  constexpr std::uint64_t kTotal = 86'720'000'000;
  int passed = 0;
  std::uint64_t shown = 0;
  for (std::uint64_t done = 0; done <= kTotal; done += 20'000'000) {
    if (!passes_part(shown, done, kTotal, 10)) continue;
    ++passed;
    shown = done;
  }
  EXPECT_EQ(passed, 10);
  EXPECT_EQ(shown, kTotal);
}

TEST(LoadProgress, NothingToLoadShowsNothing) {
  EXPECT_FALSE(passes_part(0, 0, 0, 10));
  EXPECT_FALSE(passes_part(5, 5, 10, 10));
  EXPECT_TRUE(passes_part(0, 3, 3, 10));
}

}  // namespace
}  // namespace ds4::app
