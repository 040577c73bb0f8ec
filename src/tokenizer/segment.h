#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ds4::tokenizer {

enum class SegmentKind {
  kText,     // untrusted or plain: never yields anything but text tokens
  kControl,  // exactly one marker token, by its literal name
};

struct Segment {
  SegmentKind kind;
  std::string text;
  friend bool operator==(const Segment&, const Segment&) = default;
};

// A prompt that remembers which of its markers the renderer wrote: the only way to a marker token
// is add_control(), so text that merely looks like a marker stays text.  Neighbouring texts are
// one segment, because a tokenizer may merge across their seam.  A value; no thread rule.
class RenderedPrompt {
 public:
  void add_text(std::string_view text);
  void add_control(std::string_view name);
  void append(const RenderedPrompt& other);

  const std::vector<Segment>& segments() const& { return segments_; }
  std::vector<Segment> segments() && { return std::move(segments_); }
  bool empty() const { return segments_.empty(); }
  // All segments joined: what the official encoder would write.
  std::string text() const;

  friend bool operator==(const RenderedPrompt&, const RenderedPrompt&) = default;

 private:
  std::vector<Segment> segments_;
};

}  // namespace ds4::tokenizer
