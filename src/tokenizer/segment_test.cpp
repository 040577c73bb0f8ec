#include "tokenizer/segment.h"

#include <gtest/gtest.h>

namespace ds4::tokenizer {
namespace {

TEST(RenderedPrompt, JoinsNeighbouringTextsAndKeepsMarkersApart) {
  RenderedPrompt prompt;
  prompt.add_text("a");
  prompt.add_text("");
  prompt.add_text("b");
  prompt.add_control("<think>");
  prompt.add_control("</think>");
  RenderedPrompt tail;
  tail.add_text("<think>");
  prompt.append(tail);
  prompt.append(tail);
  const std::vector<Segment> expected = {{SegmentKind::kText, "ab"},
                                         {SegmentKind::kControl, "<think>"},
                                         {SegmentKind::kControl, "</think>"},
                                         {SegmentKind::kText, "<think><think>"}};
  EXPECT_EQ(prompt.segments(), expected);
  EXPECT_EQ(prompt.text(), "ab<think></think><think><think>");
}

}  // namespace
}  // namespace ds4::tokenizer
