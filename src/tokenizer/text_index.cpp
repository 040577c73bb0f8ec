#include "tokenizer/text_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/hash.h"

namespace ds4::tokenizer {

TextIndex::TextIndex(std::size_t text_count)
    : slots_(std::bit_ceil(std::max<std::size_t>(text_count * 2, 16))),
      mask_(slots_.size() - 1) {}

// Short texts are nearly all that is asked for; for them one multiplication does.
std::uint64_t TextIndex::hash_of(std::string_view text) {
  if (text.size() > 16) return xxh3(std::as_bytes(std::span(text)));
  std::uint64_t words[2] = {0, 0};
  std::memcpy(words, text.data(), text.size());
  std::uint64_t h = (words[0] ^ (text.size() << 56)) * 0x9E3779B97F4A7C15u;
  h ^= h >> 29;
  h = (h ^ words[1]) * 0xBF58476D1CE4E5B9u;
  return h ^ (h >> 32);
}

bool TextIndex::add(std::string_view text, std::uint32_t id) {
  const std::uint64_t hash = hash_of(text);
  const auto short_hash = static_cast<std::uint32_t>(hash >> 20);
  std::size_t slot = hash & mask_;
  while (slots_[slot].text.data() != nullptr) {
    if (slots_[slot].hash == short_hash && slots_[slot].text == text) return false;
    slot = (slot + 1) & mask_;
  }
  slots_[slot] = {text, short_hash, id};
  text_bytes_max_ = std::max(text_bytes_max_, text.size());
  return true;
}

std::optional<std::uint32_t> TextIndex::find(std::string_view text) const {
  if (text.size() > text_bytes_max_) return std::nullopt;
  const std::uint64_t hash = hash_of(text);
  const auto short_hash = static_cast<std::uint32_t>(hash >> 20);
  for (std::size_t slot = hash & mask_; slots_[slot].text.data() != nullptr;
       slot = (slot + 1) & mask_) {
    if (slots_[slot].hash == short_hash && slots_[slot].text == text) return slots_[slot].id;
  }
  return std::nullopt;
}

}  // namespace ds4::tokenizer
