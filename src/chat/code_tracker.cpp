#include "chat/code_tracker.h"

namespace ds4::chat {
namespace {

constexpr std::uint32_t kFenceMin = 3;

constexpr bool is_quote(std::uint32_t c) {
  switch (c) {
    case '"':
    case '\'':
    case 0x2018:  // left single quotation mark
    case 0x201C:  // left double quotation mark
    case 0x201E:  // low double quotation mark
    case 0x00AB:  // left guillemet
    case 0x300C:  // left corner bracket
    case 0x300E:  // left white corner bracket
      return true;
    default:
      return false;
  }
}

}  // namespace

void CodeTracker::push(std::uint32_t c) {
  if (c == '`' || (c == '~' && (line_is_blank_ || run_char_ == '~'))) {
    if (run_ > 0 && run_char_ != c) end_run();
    if (run_ == 0) run_at_start_ = line_is_blank_;
    run_char_ = c;
    ++run_;
    line_is_blank_ = false;
    after_quote_ = false;
    return;
  }
  end_run();
  if (c == '\n') {
    end_line();
    return;
  }
  if (c == ' ' || c == '\t' || c == '\r') return;
  if (line_is_blank_ && c == '>') line_is_quoted_ = true;
  line_is_blank_ = false;
  fence_closes_ = false;
  after_quote_ = is_quote(c);
}

void CodeTracker::end_run() {
  if (run_ == 0) return;
  const std::uint32_t length = run_;
  run_ = 0;
  if (fence_ > 0) {
    if (run_at_start_ && run_char_ == fence_char_ && length >= fence_) fence_closes_ = true;
    return;
  }
  if (run_at_start_ && length >= kFenceMin) {
    fence_ = length;
    fence_char_ = run_char_;
    return;
  }
  if (run_char_ != '`') return;
  if (inline_ == 0) {
    inline_ = length;
  } else if (inline_ == length) {
    inline_ = 0;
  }
}

void CodeTracker::end_line() {
  if (fence_closes_) fence_ = 0;
  fence_closes_ = false;
  inline_ = 0;
  line_is_blank_ = true;
  line_is_quoted_ = false;
  after_quote_ = false;
}

bool CodeTracker::in_code() const {
  CodeTracker next = *this;
  next.end_run();
  return next.fence_ > 0 || next.inline_ > 0 || line_is_quoted_;
}

}  // namespace ds4::chat
