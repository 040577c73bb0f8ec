#include "sample/random.h"

namespace ds4::sample {

namespace {
// Zero is the one state that the shifts cannot leave; it is replaced by the golden-ratio constant.
constexpr std::uint64_t kZeroSeedState = 0x9e3779b97f4a7c15ULL;
constexpr std::uint64_t kOutputMultiplier = 0x2545f4914f6cdd1dULL;
constexpr int kUniformBits = 24;
}  // namespace

std::uint64_t Random::next() {
  if (state_ == 0) state_ = kZeroSeedState;
  state_ ^= state_ >> 12U;
  state_ ^= state_ << 25U;
  state_ ^= state_ >> 27U;
  return state_ * kOutputMultiplier;
}

float Random::uniform() {
  // The high bits are the good ones of this generator.
  const std::uint64_t bits = next() >> (64 - kUniformBits);
  return static_cast<float>(bits) * 0x1p-24F;
}

}  // namespace ds4::sample
