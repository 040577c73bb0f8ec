#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds4 {

// One code point read from the front of a text.
struct DecodedCodePoint {
  std::uint32_t value;  // the code point; meaningless when !valid
  std::uint8_t bytes;   // bytes it took, 1 when !valid; 0 only for an empty text
  bool valid;           // false: the first byte starts no well-formed sequence
};

// Reads strictly (no overlong forms, no surrogates, at most U+10FFFF).
DecodedCodePoint decode_code_point(std::string_view text);

// Appends the UTF-8 of `code_point`, which must be a scalar value.
void append_utf8(std::string& out, std::uint32_t code_point);

bool is_valid_utf8(std::string_view text);

// Bytes at the end of `text` that start a sequence which more bytes could complete: 0 to 3.
std::size_t incomplete_utf8_suffix(std::string_view text);

// `text` with each byte that is not part of well-formed UTF-8 replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text);

// Turns a stream of byte pieces into pieces that never end inside a character: tokens may split
// one.  Bytes that can no longer become valid are passed on as they are.  Confined to one thread.
class Utf8Holdback {
 public:
  // Returns what can be shown now; keeps at most 3 bytes.
  std::string push(std::string_view piece);
  // Returns the bytes still held, complete or not.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace ds4
