#pragma once
#include <cmath>
#include <span>

#include "model/weights.h"

namespace ds4::cpu {

// A one-dimensional f32 tensor as numbers; the file aligns tensor data for it.
inline std::span<const float> vector_values(const Weight& weight) {
  return {reinterpret_cast<const float*>(weight.bytes.data()), weight.rows * weight.columns};
}

inline float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

}  // namespace ds4::cpu
