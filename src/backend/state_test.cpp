#include "backend/state.h"

#include <map>

#include <gtest/gtest.h>

namespace ds4 {
namespace {

// Flash's attention plan in small: window, window, ratio 4, ratio 128.
ModelConfig config() {
  ModelConfig c;
  c.layer_count = 4;
  c.width = 256;
  c.stream_count = 4;
  c.head_dim = 512;
  c.rope_dim = 64;
  c.window = 128;
  c.index_dim = 128;
  c.layers = {{.ratio = 0}, {.ratio = 0}, {.ratio = 4}, {.ratio = 128}};
  return c;
}

const StateSection* find(const std::vector<StateSection>& all,
                         StatePart part,
                         std::uint32_t layer) {
  for (const StateSection& section : all)
    if (section.part == part && section.layer.value() == layer) return &section;
  return nullptr;
}

TEST(StateLayout, NeedsWhatTheGraphStillReads) {
  const StateLayout layout(config(), RowCodec::kPacked, true);
  const auto all = layout.sections(1030);
  EXPECT_EQ(find(all, StatePart::kWindow, 0)->first, 902U);
  EXPECT_EQ(find(all, StatePart::kWindow, 0)->count, 128U);
  EXPECT_EQ(find(all, StatePart::kCompressed, 2)->count, 257U);
  EXPECT_EQ(find(all, StatePart::kIndexKeys, 2)->count, 257U);
  EXPECT_EQ(find(all, StatePart::kCompressed, 3)->count, 8U);
  // 1030 = 257 * 4 + 2: the open window's two tokens and the four before them.
  EXPECT_EQ(find(all, StatePart::kFrontier, 2)->first, 1024U);
  EXPECT_EQ(find(all, StatePart::kFrontier, 2)->count, 6U);
  EXPECT_EQ(find(all, StatePart::kFrontier, 3)->first, 1024U);
  EXPECT_EQ(find(all, StatePart::kFrontier, 3)->count, 6U);
  EXPECT_EQ(find(all, StatePart::kWindow, 4)->count, 128U);
  EXPECT_EQ(find(all, StatePart::kWindow, 4)->first, 901U)
      << "the MTP window ends one entry earlier";
  EXPECT_EQ(find(all, StatePart::kStreams, 0)->first, 1029U);
}

TEST(StateLayout, BoundaryStateIsSmall) {
  const StateLayout layout(config(), RowCodec::kPacked, false);
  const auto all = layout.frontier_sections(1024);
  EXPECT_EQ(find(all, StatePart::kFrontier, 3), nullptr)
      << "a closed window of 128 has no frontier";
  EXPECT_EQ(find(all, StatePart::kFrontier, 2)->count, 4U);
  EXPECT_EQ(find(all, StatePart::kCompressed, 2), nullptr);
}

TEST(StateLayout, AnEmptySequenceHasNoState) {
  EXPECT_TRUE(StateLayout(config(), RowCodec::kPacked, true).sections(0).empty());
}

TEST(StateLayout, AppendedRowsOfConsecutiveRangesTile) {
  const StateLayout layout(config(), RowCodec::kExact, false);
  std::map<std::pair<int, std::uint32_t>, std::uint32_t> next;
  std::uint32_t from = 0;
  for (const std::uint32_t to : {1U, 7U, 128U, 129U, 1000U}) {
    for (const StateSection& s : layout.appended_sections(from, to)) {
      auto& expected = next[{static_cast<int>(s.part), s.layer.value()}];
      EXPECT_EQ(s.first, expected);
      expected = s.first + s.count;
    }
    from = to;
  }
  EXPECT_EQ((next[{static_cast<int>(StatePart::kCompressed), 2U}]), 250U);
  EXPECT_EQ((next[{static_cast<int>(StatePart::kCompressed), 3U}]), 7U);
}

}  // namespace
}  // namespace ds4
