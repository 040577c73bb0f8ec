#include "tokenizer/segment.h"

namespace ds4::tokenizer {

void RenderedPrompt::add_text(std::string_view text) {
  if (text.empty()) return;
  if (!segments_.empty() && segments_.back().kind == SegmentKind::kText) {
    segments_.back().text += text;
    return;
  }
  segments_.push_back({SegmentKind::kText, std::string(text)});
}

void RenderedPrompt::add_control(std::string_view name) {
  segments_.push_back({SegmentKind::kControl, std::string(name)});
}

void RenderedPrompt::append(const RenderedPrompt& other) {
  for (const Segment& segment : other.segments_) {
    switch (segment.kind) {
      case SegmentKind::kText:
        add_text(segment.text);
        break;
      case SegmentKind::kControl:
        add_control(segment.text);
        break;
    }
  }
}

std::string RenderedPrompt::text() const {
  std::string all;
  for (const Segment& segment : segments_)
    all += segment.text;
  return all;
}

}  // namespace ds4::tokenizer
