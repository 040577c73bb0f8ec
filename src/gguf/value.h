#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>
#include <variant>

namespace ds4::gguf {

// The value types of GGUF metadata, with the format's ids.
enum class ValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// As the format's documents spell it, e.g. "u32"; "?" for an id outside the enumeration.
std::string_view value_type_name(ValueType type);

// Bytes of one value of a fixed-size type; 0 for strings and arrays.
std::size_t value_type_bytes(ValueType type);

struct Value;

// An array as it lies in the file.  `bytes` holds exactly `count` elements, checked when the file
// was read.
struct ArrayValue {
  ValueType element_type;
  std::uint64_t count;
  std::span<const std::byte> bytes;

  // Element `index` of an array of numbers or booleans.
  Value at(std::uint64_t index) const;
};

// One metadata value: a view, valid while the Reader (or the bytes it was given) lives.  Immutable.
struct Value {
  ValueType type;
  // Unsigned integers widen to u64, signed ones to i64, floats to f64.
  std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, ArrayValue> data;
  std::span<const std::byte> encoded;  // the value as stored, without its type id
};

// The value of a fixed-size type that lies in `bytes`, which are exactly as many as it takes.
Value scalar_value(ValueType type, std::span<const std::byte> bytes);

// The strings of an array, read in order without copying.  Elements have different lengths, so
// there is no access by index; copy the views into a vector where that is needed.
class StringArray {
 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string_view*;
    using reference = std::string_view;

    Iterator() = default;
    explicit Iterator(const std::byte* at) : at_(at) {}
    std::string_view operator*() const;
    Iterator& operator++();
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(Iterator a, Iterator b) { return a.at_ == b.at_; }

   private:
    const std::byte* at_ = nullptr;
  };

  StringArray() = default;
  // `array` must come from a Reader and have string elements.
  explicit StringArray(const ArrayValue& array);

  std::size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  Iterator begin() const { return Iterator(bytes_.data()); }
  Iterator end() const { return Iterator(bytes_.data() + bytes_.size()); }

 private:
  std::size_t count_ = 0;
  std::span<const std::byte> bytes_;
};

}  // namespace ds4::gguf
