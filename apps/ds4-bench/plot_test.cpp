#include "plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ds4::bench {
namespace {

using testing::HasSubstr;

std::vector<TableRow> rows() {
  std::vector<TableRow> all;
  for (const std::uint32_t users : {1U, 8U}) {
    for (const std::uint32_t context : {2048U, 8192U, 32768U}) {
      TableRow row;
      row.ctx_tokens = context;
      row.batch = users;
      row.prefill_tps = 6000 - context / 20.0;
      row.gen_steady_tps = 150.0 * users;
      all.push_back(row);
    }
  }
  return all;
}

std::size_t count(const std::string& text, std::string_view what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++n;
  return n;
}

TEST(Plot, HasAPointAndALineForEveryMeasurement) {
  const std::string svg = plot_svg("Flash", "one card", series_by_users(rows(), ""));
  EXPECT_EQ(count(svg, "<circle"), 12U);
  EXPECT_EQ(count(svg, "<path"), 4U);
  for (const char* text : {"8 users", "1 user<", ">2k<", ">32k<", ">1200<", "5898"})
    EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_EQ(count(svg, "<text"), count(svg, "</text>"));
}

TEST(Plot, FetchesNothingAndEscapesNames) {
  const std::string svg = plot_svg("a < b & c", "", series_by_users(rows(), ""));
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_EQ(count(svg, "http"), 1U);  // the namespace
  EXPECT_EQ(count(svg, "href"), 0U);
}

TEST(Plot, OnePointNoPointsAndNoDecoding) {
  std::vector<TableRow> one = {rows()[0]};
  one[0].gen_steady_tps = 0;
  const std::string svg = plot_svg("t", "s", series_by_users(one, ""));
  EXPECT_EQ(count(svg, "<circle"), 1U);
  EXPECT_THAT(svg, HasSubstr("not measured"));
  EXPECT_THAT(svg, testing::Not(HasSubstr("nan")));
  EXPECT_EQ(count(plot_svg("t", "s", {}), "not measured"), 2U);
}

TEST(Plot, SeriesAreByUsersInOrderOfContext) {
  std::vector<TableRow> mixed = rows();
  std::swap(mixed[0], mixed[5]);
  const auto series = series_by_users(mixed, "A, ");
  ASSERT_EQ(series.size(), 2U);
  EXPECT_EQ(series[0].label, "A, 1 user");
  EXPECT_EQ(series[1].label, "A, 8 users");
  for (const PlotSeries& s : series) {
    ASSERT_EQ(s.rows.size(), 3U);
    EXPECT_LT(s.rows[0].ctx_tokens, s.rows[2].ctx_tokens);
  }
}

}  // namespace
}  // namespace ds4::bench
