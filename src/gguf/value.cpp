#include "gguf/value.h"

#include <cstring>

#include "base/error.h"

namespace ds4::gguf {

namespace {

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

std::string_view value_type_name(ValueType type) {
  switch (type) {
    case ValueType::kU8:
      return "u8";
    case ValueType::kI8:
      return "i8";
    case ValueType::kU16:
      return "u16";
    case ValueType::kI16:
      return "i16";
    case ValueType::kU32:
      return "u32";
    case ValueType::kI32:
      return "i32";
    case ValueType::kF32:
      return "f32";
    case ValueType::kBool:
      return "bool";
    case ValueType::kString:
      return "string";
    case ValueType::kArray:
      return "array";
    case ValueType::kU64:
      return "u64";
    case ValueType::kI64:
      return "i64";
    case ValueType::kF64:
      return "f64";
  }
  return "?";
}

std::size_t value_type_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      return 0;
  }
  return 0;
}

Value scalar_value(ValueType type, std::span<const std::byte> bytes) {
  DS4_CHECK(bytes.size() == value_type_bytes(type) && !bytes.empty());
  const std::byte* at = bytes.data();
  Value value{type, {}, bytes};
  switch (type) {
    case ValueType::kU8:
      value.data = std::uint64_t{load<std::uint8_t>(at)};
      break;
    case ValueType::kU16:
      value.data = std::uint64_t{load<std::uint16_t>(at)};
      break;
    case ValueType::kU32:
      value.data = std::uint64_t{load<std::uint32_t>(at)};
      break;
    case ValueType::kU64:
      value.data = load<std::uint64_t>(at);
      break;
    case ValueType::kI8:
      value.data = std::int64_t{load<std::int8_t>(at)};
      break;
    case ValueType::kI16:
      value.data = std::int64_t{load<std::int16_t>(at)};
      break;
    case ValueType::kI32:
      value.data = std::int64_t{load<std::int32_t>(at)};
      break;
    case ValueType::kI64:
      value.data = load<std::int64_t>(at);
      break;
    case ValueType::kF32:
      value.data = double{load<float>(at)};
      break;
    case ValueType::kF64:
      value.data = load<double>(at);
      break;
    case ValueType::kBool:
      value.data = load<std::uint8_t>(at) != 0;
      break;
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return value;
}

Value ArrayValue::at(std::uint64_t index) const {
  const std::size_t element_bytes = value_type_bytes(element_type);
  DS4_CHECK(index < count && element_bytes != 0);
  return scalar_value(element_type, bytes.subspan(index * element_bytes, element_bytes));
}

StringArray::StringArray(const ArrayValue& array) : count_(array.count), bytes_(array.bytes) {
  DS4_CHECK(array.element_type == ValueType::kString);
}

std::string_view StringArray::Iterator::operator*() const {
  return {reinterpret_cast<const char*>(at_ + sizeof(std::uint64_t)), load<std::uint64_t>(at_)};
}

StringArray::Iterator& StringArray::Iterator::operator++() {
  at_ += sizeof(std::uint64_t) + load<std::uint64_t>(at_);
  return *this;
}

}  // namespace ds4::gguf
