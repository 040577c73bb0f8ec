#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ds4::tokenizer {

// The byte alphabet of byte-level BPE: bytes that print stand for themselves as code points, the
// other 68, in order, for U+0100 and up (a space is U+0120, a line feed U+010A).
std::uint32_t byte_to_code_point(std::uint8_t byte);
std::optional<std::uint8_t> code_point_to_byte(std::uint32_t code_point);

std::string bytes_to_alphabet(std::string_view bytes);
// Nothing when `text` is not written in the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

}  // namespace ds4::tokenizer
