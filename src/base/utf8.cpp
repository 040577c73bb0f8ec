#include "base/utf8.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ds4 {

namespace {

// Length of the sequence that a first byte announces, 0 for a byte that starts none.
std::uint8_t sequence_bytes(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (first >= 0xE0 && first <= 0xEF) return 3;
  if (first >= 0xF0 && first <= 0xF4) return 4;
  return 0;
}

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0) == 0x80;
}

// The second byte's range is narrower after some first bytes: overlong forms, surrogates, > 10FFFF.
bool second_byte_fits(unsigned char first, unsigned char second) {
  if (!is_continuation(second)) return false;
  switch (first) {
    case 0xE0:
      return second >= 0xA0;
    case 0xED:
      return second <= 0x9F;
    case 0xF0:
      return second >= 0x90;
    case 0xF4:
      return second <= 0x8F;
    default:
      return true;
  }
}

// How many bytes at the front of `text` are consistent with one well-formed sequence.
std::size_t consistent_prefix(std::string_view text, std::uint8_t expected) {
  std::size_t count = 1;
  while (count < expected && count < text.size()) {
    const auto byte = static_cast<unsigned char>(text[count]);
    const bool fits = count == 1 ? second_byte_fits(static_cast<unsigned char>(text[0]), byte)
                                 : is_continuation(byte);
    if (!fits) break;
    ++count;
  }
  return count;
}

}  // namespace

DecodedCodePoint decode_code_point(std::string_view text) {
  if (text.empty()) return {0, 0, false};
  const auto first = static_cast<unsigned char>(text[0]);
  const std::uint8_t bytes = sequence_bytes(first);
  if (bytes == 1) return {first, 1, true};
  if (bytes == 0 || consistent_prefix(text, bytes) != bytes) return {0, 1, false};
  std::uint32_t value = first & (0x7FU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i)
    value = (value << 6) | (static_cast<unsigned char>(text[i]) & 0x3FU);
  return {value, bytes, true};
}

void append_utf8(std::string& out, std::uint32_t code_point) {
  DS4_DCHECK(code_point <= 0x10FFFF);
  const auto tail = [&](unsigned shift) {
    out.push_back(static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)));
  };
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    tail(0);
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (code_point >> 12)));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | (code_point >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    if (!c.valid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

std::size_t incomplete_utf8_suffix(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    const auto first = static_cast<unsigned char>(tail[0]);
    if (is_continuation(first)) continue;
    const std::uint8_t expected = sequence_bytes(first);
    return expected > back && consistent_prefix(tail, expected) == back ? back : 0;
  }
  return 0;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    if (c.valid) {
      out.append(text.substr(0, c.bytes));
    } else {
      append_utf8(out, 0xFFFD);
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string Utf8Holdback::push(std::string_view piece) {
  held_.append(piece);
  const std::size_t keep = incomplete_utf8_suffix(held_);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string Utf8Holdback::finish() {
  return std::exchange(held_, {});
}

}  // namespace ds4
