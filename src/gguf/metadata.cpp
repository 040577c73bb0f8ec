// The typed metadata access of Reader.
#include <cmath>
#include <limits>
#include <utility>
#include <variant>

#include <fmt/format.h>

#include "base/error.h"
#include "gguf/reader.h"

namespace ds4::gguf {

namespace {

// Says what a metadata key was expected to be.
struct Expectation {
  const Reader& reader;
  std::string_view key;
  std::string_view expected;

  [[noreturn]] void fail(std::string_view found) const {
    throw Error(ErrorCode::kBadFormat, fmt::format("{}: metadata key '{}' is {}; {} was expected",
                                                   reader.name(), key, found, expected));
  }
};

std::string describe(const Value& value) {
  if (const auto* array = std::get_if<ArrayValue>(&value.data)) {
    return fmt::format("an array of {} {}", array->count, value_type_name(array->element_type));
  }
  return fmt::format("of type {}", value_type_name(value.type));
}

template <class Integer>
Integer to_integer(const Value& value, const Expectation& expectation) {
  if (const auto* number = std::get_if<std::uint64_t>(&value.data)) {
    if (std::in_range<Integer>(*number)) return static_cast<Integer>(*number);
    expectation.fail(fmt::to_string(*number));
  }
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) {
    if (std::in_range<Integer>(*number)) return static_cast<Integer>(*number);
    expectation.fail(fmt::to_string(*number));
  }
  expectation.fail(describe(value));
}

float to_float(const Value& value, const Expectation& expectation) {
  double number = 0;
  if (const auto* real = std::get_if<double>(&value.data)) {
    number = *real;
  } else if (const auto* natural = std::get_if<std::uint64_t>(&value.data)) {
    number = static_cast<double>(*natural);
  } else if (const auto* whole = std::get_if<std::int64_t>(&value.data)) {
    number = static_cast<double>(*whole);
  } else {
    expectation.fail(describe(value));
  }
  if (!(std::abs(number) <= double{std::numeric_limits<float>::max()}))
    expectation.fail(fmt::to_string(number));
  return static_cast<float>(number);
}

// The array of `value`; an array of strings does not count as one of numbers.
const ArrayValue& to_array(const Value& value, const Expectation& expectation, bool of_strings) {
  const auto* array = std::get_if<ArrayValue>(&value.data);
  if (array == nullptr) expectation.fail(describe(value));
  const bool fits = of_strings ? array->element_type == ValueType::kString
                               : value_type_bytes(array->element_type) != 0;
  if (!fits) expectation.fail(describe(value));
  return *array;
}

template <class T, class Convert>
std::vector<T> to_vector(const Value& value, const Expectation& expectation, Convert convert) {
  const ArrayValue& array = to_array(value, expectation, false);
  std::vector<T> result;
  result.reserve(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i)
    result.push_back(convert(array.at(i), expectation));
  return result;
}

template <class T>
T require(std::optional<T> value, const Reader& reader, std::string_view key) {
  if (value) return *std::move(value);
  throw Error(
      ErrorCode::kBadFormat,
      fmt::format("{}: metadata key '{}' is missing; this file was not made for this engine "
                  "or is incomplete",
                  reader.name(), key));
}

}  // namespace

const Value* Reader::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<std::uint32_t> Reader::find_u32(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_integer<std::uint32_t>(*value, {*this, key, "a 32-bit natural number"});
}

std::optional<std::uint64_t> Reader::find_u64(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_integer<std::uint64_t>(*value, {*this, key, "a natural number"});
}

std::optional<float> Reader::find_f32(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_float(*value, {*this, key, "a finite number"});
}

std::optional<bool> Reader::find_bool(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* truth = std::get_if<bool>(&value->data)) return *truth;
  Expectation{*this, key, "a boolean"}.fail(describe(*value));
}

std::optional<std::string_view> Reader::find_string(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* text = std::get_if<std::string_view>(&value->data)) return *text;
  Expectation{*this, key, "a string"}.fail(describe(*value));
}

std::optional<std::vector<std::uint32_t>> Reader::find_u32_array(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_vector<std::uint32_t>(*value, {*this, key, "an array of 32-bit natural numbers"},
                                  to_integer<std::uint32_t>);
}

std::optional<std::vector<std::int32_t>> Reader::find_i32_array(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_vector<std::int32_t>(*value, {*this, key, "an array of 32-bit integers"},
                                 to_integer<std::int32_t>);
}

std::optional<std::vector<float>> Reader::find_f32_array(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_vector<float>(*value, {*this, key, "an array of finite numbers"}, to_float);
}

std::optional<StringArray> Reader::find_strings(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return StringArray(to_array(*value, {*this, key, "an array of strings"}, true));
}

std::uint32_t Reader::get_u32(std::string_view key) const {
  return require(find_u32(key), *this, key);
}

std::uint64_t Reader::get_u64(std::string_view key) const {
  return require(find_u64(key), *this, key);
}

float Reader::get_f32(std::string_view key) const {
  return require(find_f32(key), *this, key);
}

bool Reader::get_bool(std::string_view key) const {
  return require(find_bool(key), *this, key);
}

std::string_view Reader::get_string(std::string_view key) const {
  return require(find_string(key), *this, key);
}

std::vector<std::uint32_t> Reader::get_u32_array(std::string_view key) const {
  return require(find_u32_array(key), *this, key);
}

std::vector<float> Reader::get_f32_array(std::string_view key) const {
  return require(find_f32_array(key), *this, key);
}

StringArray Reader::get_strings(std::string_view key) const {
  return require(find_strings(key), *this, key);
}

}  // namespace ds4::gguf
