#include "table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace ds4::bench {
namespace {

TEST(Table, BeginsWithTheColumnsThatOtherPlottersKnow) {
  EXPECT_THAT(csv_header(),
              testing::StartsWith("ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,"
                                  "gen_first_ms,gen_steady_tokens,gen_steady_tps,kvcache_bytes,"));
}

TEST(Table, ReadsWhatItWrote) {
  TableRow row;
  row.ctx_tokens = 32768;
  row.prefill_tokens = 30720;
  row.prefill_tps = 6012.25;
  row.gen_tps = 145.5;
  row.gen_first_ms = 7.125;
  row.kvcache_bytes = 118000000000ULL;
  row.batch = 8;
  row.gen_roof_share = 0.4375;
  row.device = "a \"fast\" card, with commas";
  row.driver = "580.65, CUDA 13.0";
  const std::vector<TableRow> rows = parse_csv(csv_header() + csv_line(row), "test");
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].ctx_tokens, 32768U);
  EXPECT_EQ(rows[0].prefill_tps, 6012.25);
  EXPECT_EQ(rows[0].gen_first_ms, 7.125);
  EXPECT_EQ(rows[0].kvcache_bytes, 118000000000ULL);
  EXPECT_EQ(rows[0].batch, 8U);
  EXPECT_EQ(rows[0].gen_roof_share, 0.4375);
  EXPECT_EQ(rows[0].device, row.device);
  EXPECT_EQ(rows[0].driver, row.driver);
}

TEST(Table, ReadsTheColumnsOfOtherTools) {
  const auto rows = parse_csv(
      "ctx_tokens,prefill_tokens,prefill_tps,gen_tokens,gen_tps,kvcache_bytes\r\n"
      "2048,2048,1371.00,128,33.30,52200000\r\n\n",
      "reference");
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].prefill_tps, 1371);
  EXPECT_EQ(rows[0].gen_tps, 33.3);
  EXPECT_EQ(rows[0].batch, 1U);
}

TEST(Table, NamesTheLineThatIsWrong) {
  const auto message = [](std::string_view text) {
    try {
      parse_csv(text, "t.csv");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message(""), testing::HasSubstr("empty"));
  EXPECT_THAT(message("a,b\n"), testing::HasSubstr("no column ctx_tokens"));
  EXPECT_THAT(message("ctx_tokens,prefill_tps,gen_tps\n1,2\n"),
              testing::HasSubstr("t.csv, line 2: 2 fields, the header has 3"));
  EXPECT_THAT(message("ctx_tokens,prefill_tps,gen_tps\n1,2,3\n1,fast,3\n"),
              testing::HasSubstr("t.csv, line 3: prefill_tps is 'fast'"));
  EXPECT_THAT(message("ctx_tokens,prefill_tps,gen_tps\n-1,2,3\n"),
              testing::HasSubstr("ctx_tokens is '-1'"));
}

TEST(Table, MedianAndSpread) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(spread({5}), 0);
  EXPECT_EQ(spread({9, 10, 12}), 0.3);
}

}  // namespace
}  // namespace ds4::bench
