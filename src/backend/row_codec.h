#pragma once
#include <cstddef>
#include <span>

#include "backend/state.h"

namespace ds4 {

// Storage of attention rows and index keys, and the roundings that go with it: the scalar truth
// that every backend's own code is tested against.  Pure functions.

// Rounds and packs one attention row: the first nope_dim values in blocks of 64 to E4M3 with a
// power-of-two scale, as the graph demands; the rotary values, which it leaves alone, to 16-bit
// integers with one power-of-two scale: an error of 2^-16 of the largest, where f16 would have
// 2^-12 of each.  (docs/model.md, key/value rows)
//   row   f32 [nope_dim + rope_dim]
//   out   layout.bytes()
void pack_attention_row(const PackedRowLayout& layout,
                        std::span<const float> row,
                        std::span<std::byte> out);

// The exact values that a packed row stands for.
void unpack_attention_row(const PackedRowLayout& layout,
                          std::span<const std::byte> packed,
                          std::span<float> row);

// Walsh-Hadamard transform in natural order, scaled by 1 / sqrt(size); size must be a power of two.
void hadamard(std::span<float> values);

// Packs an index key or query head that has been through hadamard(): blocks of 32 to E2M1 with a
// power-of-two scale.
void pack_index_key(std::span<const float> key, std::span<std::byte> out);
void unpack_index_key(std::span<const std::byte> packed, std::span<float> key);

// pack + unpack: the values that storage would give back.
void round_index_key(std::span<float> key);

}  // namespace ds4
