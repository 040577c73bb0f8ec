#include "engine/prompt_key.h"

#include <algorithm>

#include "base/error.h"

namespace ds4 {

using tokenizer::RenderedPrompt;
using tokenizer::Segment;
using tokenizer::SegmentKind;

std::string prompt_key(const RenderedPrompt& prompt) {
  std::string key;
  for (const Segment& segment : prompt.segments()) {
    if (segment.kind == SegmentKind::kControl) key += kMarkerByte;
    key += segment.text;
  }
  return key;
}

void append_token_key(std::string& key, const tokenizer::Tokenizer& tokenizer, TokenId token) {
  if (tokenizer.is_marker(token)) key += kMarkerByte;
  key += tokenizer.token_bytes(token);
}

std::vector<TokenId> encode_rest(const tokenizer::Tokenizer& tokenizer,
                                 const RenderedPrompt& prompt,
                                 std::size_t offset) {
  RenderedPrompt rest;
  for (const Segment& segment : prompt.segments()) {
    const bool control = segment.kind == SegmentKind::kControl;
    const std::size_t bytes = segment.text.size() + (control ? 1 : 0);
    if (offset >= bytes) {
      offset -= bytes;
      continue;
    }
    DS4_CHECK(offset == 0 || !control);
    if (control) {
      rest.add_control(segment.text);
    } else {
      rest.add_text(std::string_view(segment.text).substr(offset));
    }
    offset = 0;
  }
  DS4_CHECK(offset == 0);
  return tokenizer.encode_rendered(rest);
}

std::size_t common_prefix_bytes(std::string_view a, std::string_view b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::size_t>(end - a.begin());
}

}  // namespace ds4
