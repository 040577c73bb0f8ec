#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace ds4::tokenizer {

// Byte strings to token ids: a flat open-addressing table over strings that the owner keeps alive.
// Filled once, then immutable.
class TextIndex {
 public:
  explicit TextIndex(std::size_t text_count);
  // False, and nothing changes, when the text is there already.
  bool add(std::string_view text, std::uint32_t id);
  std::optional<std::uint32_t> find(std::string_view text) const;
  std::size_t text_bytes_max() const { return text_bytes_max_; }
  // Memory that it holds.
  std::size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    std::string_view text;  // data() is null in an empty slot
    std::uint32_t hash = 0;
    std::uint32_t id = 0;
  };
  static std::uint64_t hash_of(std::string_view text);

  std::vector<Slot> slots_;
  std::size_t mask_;
  std::size_t text_bytes_max_ = 0;
};

}  // namespace ds4::tokenizer
