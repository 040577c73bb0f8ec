#pragma once
#include <span>
#include <vector>

#include "model/config.h"
#include "tensor/strong.h"

namespace ds4 {

// Angular frequencies f_i of the rotary pairs of one layer family: computed in f64, rounded to f32.
// (docs/model.md, rope)   [rope_dim / 2]
std::vector<float> rope_frequencies(const RopeConfig& config, std::uint32_t rope_dim);

// Which way to turn.
enum class RopeDirection { kForward, kInverse };

// Rotates the adjacent pairs of `tail` (the rotary values of one head) by position * f_i.  The
// angle is an f32 product, as in the model's training; at a million positions f64 would drift from
// it.
void apply_rope(std::span<float> tail,
                std::span<const float> frequencies,
                Position position,
                RopeDirection direction);

}  // namespace ds4
