#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ds4 {

// Element types of tensors, with the ids of the GGUF format.  Block types store `values` numbers in
// `bytes` bytes; the layouts are in src/quant.
enum class ElementType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ8_0 = 8,
  kQ2K = 10,
  kQ4K = 12,
  kIQ2XXS = 16,
  kI32 = 26,
  kBF16 = 30,
  kMXFP4 = 39,
};

struct ElementTypeInfo {
  std::string_view name;  // as the format's documents spell it, e.g. "Q8_0"
  std::size_t values;     // numbers per block
  std::size_t bytes;      // bytes per block
};

ElementTypeInfo element_type_info(ElementType type);

// The type of a GGUF id, or nothing when this engine does not know it.
std::optional<ElementType> element_type_from_id(std::uint32_t id);

// The type of a name ("q8_0", "F16", ...), letter case ignored.
std::optional<ElementType> element_type_from_name(std::string_view name);

// Bytes of one row of `values` numbers; `values` must be a multiple of the block size.
std::size_t row_bytes(ElementType type, std::size_t values);

}  // namespace ds4
