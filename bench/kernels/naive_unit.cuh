#pragma once
#include "cuda/codecs.cuh"

namespace ds4::ladder {

// Unit `unit` of a weight row, complete, for a lane that works alone: a naive kernel's lanes all
// look at the same unit of rows of their own, so the scales that four lanes of a warp tell each
// other (Codec::finish()) are put together by hand.
template <ElementType type>
DS4_DEVICE typename cuda::Codec<type>::Unit load_unit_alone(const cuda::Matrix& m,
                                                            std::uint32_t slab,
                                                            std::uint32_t row,
                                                            std::uint32_t unit) {
  using C = cuda::Codec<type>;
  const auto load = [&](std::uint32_t i) {
    return C::load(row_codes(m, slab, row), row_scales(m, slab, row), m.columns, i);
  };
  typename C::Unit u = load(unit);
  if constexpr (type == ElementType::kIQ2XXS) {
    std::uint32_t all = 0;
    for (std::uint32_t q = 0; q < 4; ++q)
      all |= C::own_scales(load(unit / 4 * 4 + q)) << (8 * q);
    C::complete(u, all);
  } else if constexpr (C::kQuantised) {
    C::finish(u);
  }
  return u;
}

}  // namespace ds4::ladder
