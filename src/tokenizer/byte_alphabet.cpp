#include "tokenizer/byte_alphabet.h"

#include <array>

#include "base/utf8.h"

namespace ds4::tokenizer {
namespace {

constexpr bool stands_for_itself(std::uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
         (byte >= 174 && byte <= 255);
}

constexpr std::uint32_t kShiftedFirst = 0x100;
constexpr std::uint32_t kShiftedCount = 68;

struct Maps {
  std::array<std::uint16_t, 256> code_point_of{};
  std::array<std::uint8_t, kShiftedCount> byte_of_shifted{};
};

constexpr Maps make_maps() {
  Maps maps;
  std::uint32_t shifted = 0;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    if (stands_for_itself(byte)) {
      maps.code_point_of[byte] = static_cast<std::uint16_t>(byte);
      continue;
    }
    maps.byte_of_shifted[shifted] = static_cast<std::uint8_t>(byte);
    maps.code_point_of[byte] = static_cast<std::uint16_t>(kShiftedFirst + shifted);
    ++shifted;
  }
  return maps;
}

constexpr Maps kMaps = make_maps();
static_assert(kMaps.code_point_of[' '] == 0x120 && kMaps.code_point_of['\n'] == 0x10A);
static_assert(kMaps.byte_of_shifted[kShiftedCount - 1] == 173);

}  // namespace

std::uint32_t byte_to_code_point(std::uint8_t byte) {
  return kMaps.code_point_of[byte];
}

std::optional<std::uint8_t> code_point_to_byte(std::uint32_t code_point) {
  if (code_point < 256 && stands_for_itself(code_point)) {
    return static_cast<std::uint8_t>(code_point);
  }
  if (code_point >= kShiftedFirst && code_point < kShiftedFirst + kShiftedCount) {
    return kMaps.byte_of_shifted[code_point - kShiftedFirst];
  }
  return std::nullopt;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    append_utf8(text, byte_to_code_point(static_cast<std::uint8_t>(byte)));
  }
  return text;
}

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const DecodedCodePoint c = decode_code_point(text);
    const auto byte = c.valid ? code_point_to_byte(c.value) : std::nullopt;
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    text.remove_prefix(c.bytes);
  }
  return bytes;
}

}  // namespace ds4::tokenizer
