#include <gtest/gtest.h>

#include "base/error.h"
#include "kvstore/state_io.h"
#include "kvstore/test_state.h"

namespace ds4::kvstore {
namespace {

TEST(StateLayout, CountsRowsFromTheLengthAlone) {
  const RowArray rows{ArrayKind::kCompressedRows, 0, 4, 584};
  EXPECT_EQ(row_count(rows, 3), 0U);
  EXPECT_EQ(row_count(rows, 4), 1U);
  EXPECT_EQ(row_count(rows, 511), 127U);

  const CarryArray window{
      ArrayKind::kWindow, 0, CarryRule::kComplete, CarryPlace::kEveryState, 1, 128, 584};
  EXPECT_EQ(row_count(window, 0), 0U);
  EXPECT_EQ(row_count(window, 127), 127U);
  EXPECT_EQ(row_count(window, 129), 128U);

  const CarryArray previous{
      ArrayKind::kFrontierPrevious, 0, CarryRule::kComplete, CarryPlace::kEveryState, 4, 4, 4096};
  EXPECT_EQ(row_count(previous, 3), 0U);
  EXPECT_EQ(row_count(previous, 4), 4U);
  EXPECT_EQ(row_count(previous, 7), 4U);

  const CarryArray partial{
      ArrayKind::kFrontierCurrent, 0, CarryRule::kPartial, CarryPlace::kEveryState, 128, 0, 4096};
  EXPECT_EQ(row_count(partial, 128), 0U);
  EXPECT_EQ(row_count(partial, 130), 2U);
}

// The figures that the chunk size and the stride of resume states were chosen by.
TEST(StateLayout, FlashSizes) {
  const StateLayout layout = flash_layout();
  // 21 layers of ratio 4 with keys, 20 of ratio 128: 21 * (584 + 68) / 4 + 20 * 584 / 128 a token.
  EXPECT_EQ(rows_bytes(layout, 0, 1024), 1024ULL / 4 * 21 * (584 + 68) + 1024ULL / 128 * 20 * 584);
  // 43 windows and the previous window of the ratio-4 compressors; the ratio-128 one is empty.
  EXPECT_EQ(carry_bytes(layout, 8192, CarryPlace::kEveryState),
            43ULL * 128 * 584 + 21ULL * 4 * (2 * 512 + 2 * 128) * 4);
  const double state_per_token =
      static_cast<double>(carry_bytes(layout, 8192, CarryPlace::kEveryState)) / 8192;
  EXPECT_LT(static_cast<double>(rows_bytes(layout, 0, 8192)) / 8192 + state_per_token, 4000.0);
}

TEST(StateLayout, DigestSeesEveryField) {
  const StateLayout layout = small_layout();
  const Sha256Digest digest = layout_digest(layout);
  EXPECT_EQ(digest, layout_digest(small_layout()));
  const auto differs = [&](auto&& change) {
    StateLayout other = layout;
    change(other);
    EXPECT_NE(digest, layout_digest(other));
  };
  differs([](StateLayout& other) { other.version = 2; });
  differs([](StateLayout& other) { other.codec += "x"; });
  differs([](StateLayout& other) { other.rows[0].row_bytes += 1; });
  differs([](StateLayout& other) { other.rows.pop_back(); });
  differs([](StateLayout& other) { other.carries[0].rows_max += 1; });
  differs([](StateLayout& other) { std::swap(other.carries[0], other.carries[1]); });
}

TEST(StateLayout, RefusesWhatDoesNotDivideAChunk) {
  StateLayout layout = small_layout();
  EXPECT_NO_THROW(check_layout(layout, 128));
  EXPECT_THROW(check_layout(layout, 100), Error);
  layout.rows[0].row_bytes = 0;
  EXPECT_THROW(check_layout(layout, 128), Error);
}

}  // namespace
}  // namespace ds4::kvstore
