#include "gguf/cursor.h"

#include <cstring>

#include <fmt/format.h>

#include "base/error.h"

namespace ds4::gguf {

namespace {

// Deeper nesting of arrays has no use in this format and would recurse.
constexpr int kArrayDepthMax = 8;

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

void Cursor::fail(std::string_view problem) const {
  throw Error(
      ErrorCode::kBadFormat,
      fmt::format("{} is not a sound GGUF file: {} (at byte {}); download or convert it again",
                  file_, problem, offset_));
}

std::span<const std::byte> Cursor::take(std::uint64_t byte_count, std::string_view what) {
  if (byte_count > remaining()) {
    fail(fmt::format("{} takes {} bytes but only {} are left, so the file is truncated or damaged",
                     what, byte_count, remaining()));
  }
  const auto taken = bytes_.subspan(offset_, byte_count);
  offset_ += byte_count;
  return taken;
}

std::uint32_t Cursor::read_u32(std::string_view what) {
  return load<std::uint32_t>(take(sizeof(std::uint32_t), what).data());
}

std::uint64_t Cursor::read_u64(std::string_view what) {
  return load<std::uint64_t>(take(sizeof(std::uint64_t), what).data());
}

std::string_view Cursor::read_string(std::string_view what) {
  const std::uint64_t length = read_u64(what);
  const auto bytes = take(length, what);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint64_t Cursor::read_count(std::uint64_t bytes_each, std::string_view what) {
  const std::uint64_t count = read_u64(what);
  if (count > remaining() / bytes_each) {
    fail(fmt::format("{} is {}, more than the {} bytes left can hold", what, count, remaining()));
  }
  return count;
}

ValueType Cursor::read_value_type(std::string_view key) {
  const std::uint32_t id = read_u32("a value type");
  const auto type = static_cast<ValueType>(id);
  if (value_type_name(type) == "?")
    fail(fmt::format("metadata key '{}' has the unknown value type {}", key, id));
  return type;
}

ArrayValue Cursor::read_array(std::string_view key, int depth) {
  if (depth > kArrayDepthMax)
    fail(fmt::format("metadata key '{}' nests arrays deeper than {}", key, kArrayDepthMax));
  ArrayValue array{};
  array.element_type = read_value_type(key);
  const std::size_t fixed_bytes = value_type_bytes(array.element_type);
  const std::uint64_t bytes_min = fixed_bytes != 0 ? fixed_bytes : sizeof(std::uint64_t);
  array.count = read_count(bytes_min, "an array's length");
  const std::uint64_t start = offset_;
  if (fixed_bytes != 0) {
    take(array.count * fixed_bytes, "an array");
  } else if (array.element_type == ValueType::kString) {
    for (std::uint64_t i = 0; i < array.count; ++i)
      read_string("a string of an array");
  } else {
    for (std::uint64_t i = 0; i < array.count; ++i)
      read_array(key, depth + 1);
  }
  array.bytes = bytes_.subspan(start, offset_ - start);
  return array;
}

Value Cursor::read_value(std::string_view key) {
  Value value{};
  value.type = read_value_type(key);
  const std::uint64_t start = offset_;
  if (value.type == ValueType::kString) {
    value.data = read_string("a string value");
  } else if (value.type == ValueType::kArray) {
    value.data = read_array(key, 1);
  } else {
    take(value_type_bytes(value.type), "a value");
  }
  value.encoded = bytes_.subspan(start, offset_ - start);
  if (value_type_bytes(value.type) != 0) return scalar_value(value.type, value.encoded);
  return value;
}

}  // namespace ds4::gguf
