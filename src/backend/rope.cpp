#include "backend/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace ds4 {

namespace {

// The pair index at which a rotation makes `turns` turns over the original context.
double correction_dim(double turns, const RopeConfig& config, double rope_dim) {
  return rope_dim * std::log(config.original_context / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.base));
}

}  // namespace

std::vector<float> rope_frequencies(const RopeConfig& config, std::uint32_t rope_dim) {
  const std::size_t pairs = rope_dim / 2;
  const double last = static_cast<double>(rope_dim) - 1;
  double low = 0;
  double high = 0;
  if (config.factor != 1.0) {
    low = std::clamp(std::floor(correction_dim(config.beta_fast, config, rope_dim)), 0.0, last);
    high = std::clamp(std::ceil(correction_dim(config.beta_slow, config, rope_dim)), 0.0, last);
    if (low == high) high += 0.001;
  }
  std::vector<float> frequencies(pairs);
  for (std::size_t i = 0; i < pairs; ++i) {
    const double plain = std::pow(config.base, -2.0 * static_cast<double>(i) / rope_dim);
    double ramp = 0;
    if (config.factor != 1.0)
      ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = static_cast<float>(plain * (1 - ramp) + plain / config.factor * ramp);
  }
  return frequencies;
}

void apply_rope(std::span<float> tail,
                std::span<const float> frequencies,
                Position position,
                RopeDirection direction) {
  DS4_DCHECK(tail.size() == 2 * frequencies.size());
  const auto p = static_cast<float>(position.value());
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = p * frequencies[i];
    const float cosine = std::cos(angle);
    const float sine = direction == RopeDirection::kForward ? std::sin(angle) : -std::sin(angle);
    const float a = tail[2 * i];
    const float b = tail[2 * i + 1];
    tail[2 * i] = a * cosine - b * sine;
    tail[2 * i + 1] = a * sine + b * cosine;
  }
}

}  // namespace ds4
