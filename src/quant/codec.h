#pragma once
#include <cstddef>
#include <span>

#include "tensor/element_type.h"

namespace ds4::quant {

// Rows of any element type to and from f32, by the scalar code of each format.  Pure functions:
// usable from any thread.

// Decodes values.size() numbers, a multiple of the type's block, from the bytes of a row.
// I32 becomes the nearest float.
void decode_row(ElementType type, std::span<const std::byte> row, std::span<float> values);

// Encodes a row.  `importance`, when not empty, has one non-negative weight per value for the
// squared error that block formats minimise; plain types ignore it.  The values must be finite.
void encode_row(ElementType type,
                std::span<const float> values,
                std::span<std::byte> row,
                std::span<const float> importance = {});

}  // namespace ds4::quant
