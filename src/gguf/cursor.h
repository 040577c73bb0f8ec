#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gguf/value.h"

namespace ds4::gguf {

// Reads the head of a GGUF file from front to back, never past its end.  Internal to this module;
// confined to one thread.  Every method throws Error(kBadFormat), naming the file, the place and
// what was being read, when the bytes do not hold it.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  std::uint64_t offset() const { return offset_; }
  std::uint64_t remaining() const { return bytes_.size() - offset_; }

  // The next `byte_count` bytes; `what` names them in the message.
  std::span<const std::byte> take(std::uint64_t byte_count, std::string_view what);
  std::uint32_t read_u32(std::string_view what);
  std::uint64_t read_u64(std::string_view what);
  std::string_view read_string(std::string_view what);
  // A count of things that take at least `bytes_each` bytes each: more than the rest of the file
  // can hold is refused, so that nobody allocates for them.
  std::uint64_t read_count(std::uint64_t bytes_each, std::string_view what);
  Value read_value(std::string_view key);

  // Throws Error(kBadFormat): "FILE is damaged at byte N: problem".
  [[noreturn]] void fail(std::string_view problem) const;

 private:
  ArrayValue read_array(std::string_view key, int depth);
  ValueType read_value_type(std::string_view key);

  std::span<const std::byte> bytes_;
  std::string_view file_;
  std::uint64_t offset_ = 0;
};

}  // namespace ds4::gguf
