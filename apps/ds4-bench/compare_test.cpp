#include "compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4::bench {
namespace {

TableRow row(std::uint32_t context, std::uint32_t users, double prefill, double decode) {
  TableRow r;
  r.ctx_tokens = context;
  r.batch = users;
  r.prefill_tps = prefill;
  r.gen_tps = decode / 2;
  r.gen_steady_tps = decode;
  return r;
}

TEST(Compare, RatiosOfTheLinesThatBothHave) {
  const std::string text =
      compare_tables({row(2048, 1, 1000, 50), row(8192, 1, 800, 40), row(2048, 8, 1000, 200)},
                     {row(2048, 1, 4000, 100), row(2048, 8, 1000, 400), row(32768, 1, 1, 1)});
  EXPECT_THAT(text, testing::ContainsRegex("2048 +1 +1000.0 +4000.0 +4.000  +50.0 +100.0 +2.000"));
  EXPECT_THAT(text, testing::ContainsRegex("2048 +8 +1000.0 +1000.0 +1.000~ +200.0 +400.0 +2.000"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("8192")));
  EXPECT_THAT(text, testing::HasSubstr("prefill 2.000, decode 2.000"));
}

TEST(Compare, MarksWhatLiesInsideTheSpread) {
  TableRow a = row(2048, 1, 1000, 50);
  TableRow b = row(2048, 1, 1040, 60);
  b.prefill_spread = 0.05;
  b.gen_spread = 0.05;
  EXPECT_THAT(compare_tables({a}, {b}), testing::ContainsRegex("1.040~ .*1.200 \n"));
}

TEST(Compare, AMissingRateIsADash) {
  EXPECT_THAT(compare_tables({row(2048, 1, 1000, 0)}, {row(2048, 1, 2000, 5)}),
              testing::HasSubstr("decode -"));
}

TEST(Compare, RefusesTablesWithNothingInCommon) {
  EXPECT_THROW(compare_tables({row(1, 1, 1, 1)}, {row(2, 1, 1, 1)}), Error);
  EXPECT_THROW(compare_tables({}, {}), Error);
}

}  // namespace
}  // namespace ds4::bench
