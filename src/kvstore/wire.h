#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

// Little-endian fields at fixed places, for the formats of this module.
namespace ds4::kvstore {

static_assert(std::endian::native == std::endian::little,
              "the formats of this module are little-endian and are copied as they lie in memory");

// Writes and reads fields of trivially copyable types inside one span.
class FieldWriter {
 public:
  explicit FieldWriter(std::span<std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  void put(std::size_t offset, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    DS4_CHECK(offset + sizeof(T) <= bytes_.size());
    std::memcpy(bytes_.data() + offset, &value, sizeof(T));
  }
  // Zero-padded to `field_bytes`.
  void put_text(std::size_t offset, std::string_view text, std::size_t field_bytes) {
    DS4_CHECK(text.size() < field_bytes && offset + field_bytes <= bytes_.size());
    std::memset(bytes_.data() + offset, 0, field_bytes);
    if (!text.empty()) std::memcpy(bytes_.data() + offset, text.data(), text.size());
  }

 private:
  std::span<std::byte> bytes_;
};

class FieldReader {
 public:
  explicit FieldReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T get(std::size_t offset) const {
    static_assert(std::is_trivially_copyable_v<T>);
    DS4_CHECK(offset + sizeof(T) <= bytes_.size());
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    return value;
  }
  // Up to the first zero byte, or the whole field.
  std::string get_text(std::size_t offset, std::size_t field_bytes) const {
    DS4_CHECK(offset + field_bytes <= bytes_.size());
    const char* first = reinterpret_cast<const char*>(bytes_.data() + offset);
    return std::string(first, ::strnlen(first, field_bytes));
  }
  bool is_zero(std::size_t offset, std::size_t field_bytes) const {
    for (const std::byte byte : bytes_.subspan(offset, field_bytes))
      if (byte != std::byte{0}) return false;
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace ds4::kvstore
