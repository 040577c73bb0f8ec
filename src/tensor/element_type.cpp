#include "tensor/element_type.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace ds4 {

namespace {
constexpr std::array kAllTypes = {ElementType::kF32, ElementType::kF16,  ElementType::kQ8_0,
                                  ElementType::kQ2K, ElementType::kQ4K,  ElementType::kIQ2XXS,
                                  ElementType::kI32, ElementType::kBF16, ElementType::kMXFP4};
}  // namespace

ElementTypeInfo element_type_info(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return {"F32", 1, 4};
    case ElementType::kF16:
      return {"F16", 1, 2};
    case ElementType::kQ8_0:
      return {"Q8_0", 32, 34};
    case ElementType::kQ2K:
      return {"Q2_K", 256, 84};
    case ElementType::kQ4K:
      return {"Q4_K", 256, 144};
    case ElementType::kIQ2XXS:
      return {"IQ2_XXS", 256, 66};
    case ElementType::kI32:
      return {"I32", 1, 4};
    case ElementType::kBF16:
      return {"BF16", 1, 2};
    case ElementType::kMXFP4:
      return {"MXFP4", 32, 17};
  }
  return {"?", 1, 0};
}

std::optional<ElementType> element_type_from_id(std::uint32_t id) {
  for (const ElementType type : kAllTypes)
    if (static_cast<std::uint32_t>(type) == id) return type;
  return std::nullopt;
}

std::optional<ElementType> element_type_from_name(std::string_view name) {
  const auto same = [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) ==
           std::toupper(static_cast<unsigned char>(b));
  };
  for (const ElementType type : kAllTypes) {
    const std::string_view known = element_type_info(type).name;
    if (std::equal(known.begin(), known.end(), name.begin(), name.end(), same)) return type;
  }
  return std::nullopt;
}

std::size_t row_bytes(ElementType type, std::size_t values) {
  const ElementTypeInfo info = element_type_info(type);
  DS4_CHECK(values % info.values == 0);
  return values / info.values * info.bytes;
}

}  // namespace ds4
