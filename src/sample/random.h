#pragma once
#include <cstdint>

namespace ds4::sample {

// The xorshift64* generator.  One seed gives one sequence on every machine, which is what makes a
// seeded answer repeatable.  A plain value: copy it to fork the sequence.  Confined to one thread.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next();

  // Uniform in [0, 1) on a grid of 2^-24, so that the value is exact in f32.
  float uniform();

  // The whole state: Random(state()) continues where this one stands.
  std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_;
};

}  // namespace ds4::sample
