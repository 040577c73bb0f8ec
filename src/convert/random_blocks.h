#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/element_type.h"

namespace ds4::convert {

// A fast generator for filling memory (xoshiro256++, seeded through splitmix64).  Not for secrets.
class Random {
 public:
  explicit Random(std::uint64_t seed);
  std::uint64_t next();
  // Uniform in [0, bound), for small bounds.
  std::uint32_t below(std::uint32_t bound) {
    return static_cast<std::uint32_t>((next() >> 32) * bound >> 32);
  }
  // Near normal, mean 0, deviation 1: a sum of four uniform values.
  float normal();

 private:
  std::uint64_t state_[4];
};

// Fills `row_bytes_span`, whole blocks of `type`, with random weights of mean 0 and about the given
// deviation, in the type's own format.  Cost: about that of writing the memory.
void fill_random_blocks(ElementType type,
                        float deviation,
                        Random& random,
                        std::span<std::byte> blocks);

}  // namespace ds4::convert
