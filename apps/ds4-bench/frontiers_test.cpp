#include "frontiers.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4::bench {
namespace {

using Contexts = std::vector<std::uint32_t>;

TEST(Frontiers, StepByTokensAndAlwaysEndAtTheLast) {
  EXPECT_EQ(frontiers_of({.start = 2, .last = 9, .increment = 3}), (Contexts{2, 5, 8, 9}));
  EXPECT_EQ(frontiers_of({.start = 2, .last = 8, .increment = 3}), (Contexts{2, 5, 8}));
  EXPECT_EQ(frontiers_of({.start = 7, .last = 7}), (Contexts{7}));
}

TEST(Frontiers, StepByAFactorByOneTokenAtLeast) {
  EXPECT_EQ(frontiers_of({.start = 2048, .last = 32768, .factor = 4}),
            (Contexts{2048, 8192, 32768}));
  EXPECT_EQ(frontiers_of({.start = 1, .last = 5, .factor = 1.01}), (Contexts{1, 2, 3, 4, 5}));
  EXPECT_EQ(frontiers_of({.start = 10, .last = 40, .factor = 1.5}), (Contexts{10, 15, 23, 35, 40}));
}

TEST(Frontiers, DoNotWrapAround) {
  EXPECT_EQ(frontiers_of({.start = 1, .last = 4294967295U, .factor = 1e300}),
            (Contexts{1, 4294967295U}));
}

TEST(Frontiers, RefuseWhatDoesNotAdvance) {
  EXPECT_THROW(frontiers_of({.start = 0}), Error);
  EXPECT_THROW(frontiers_of({.start = 9, .last = 8}), Error);
  EXPECT_THROW(frontiers_of({.start = 1, .last = 8, .increment = 0}), Error);
  EXPECT_THROW(frontiers_of({.start = 1, .last = 8, .factor = 0.5}), Error);
}

}  // namespace
}  // namespace ds4::bench
