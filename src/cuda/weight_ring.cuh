#pragma once
#include "cuda/integer_dot.cuh"

namespace ds4::cuda {

// Weights on their way to a warp through shared memory: as many as memory needs to have asked of
// it, and more than registers hold.  Every lane copies and reads its own units, so no barrier is
// needed, only the wait for its own copies.

// How a format's unit travels: codes, then words of its scales.
//
//   Codes, kWords     the codes of a unit, and how many words of scales
//   word_from()       where word `i` of unit `unit` lies in a row's scales, which are aligned to 4
//   unit()            the unit from its codes and `words`, those of a warp's lanes (slot_word())
template <ElementType type>
struct TravellingUnit;

// Word `i` of the lane's own; words of all lanes stand side by side.
DS4_DEVICE std::uint32_t slot_word(const std::byte* words, std::uint32_t i) {
  return reinterpret_cast<const std::uint32_t*>(words)[i * 32 + threadIdx.x % 32];
}

// Two bytes travel in the word that they lie in.
struct TravellingHalf {
  static constexpr std::uint32_t kWords = 1;
  static DS4_DEVICE const std::byte* word_from(const std::byte* scales,
                                               std::uint32_t,
                                               std::uint32_t unit,
                                               std::uint32_t) {
    return scales + unit / 8 * 4;
  }
  static DS4_DEVICE std::uint16_t half(const std::byte* words, std::uint32_t unit) {
    return static_cast<std::uint16_t>(slot_word(words, 0) >> (unit / 4 % 2 * 16));
  }
};

template <>
struct TravellingUnit<ElementType::kIQ2XXS> : TravellingHalf {
  using Codes = Words4;
  static DS4_DEVICE Codec<ElementType::kIQ2XXS>::Unit unit(const Codes& codes,
                                                           const std::byte* words,
                                                           std::uint32_t unit) {
    return {codes, 0, 0, half(words, unit)};
  }
};

template <>
struct TravellingUnit<ElementType::kMXFP4> : TravellingHalf {
  using Codes = Words2;
  static DS4_DEVICE Codec<ElementType::kMXFP4>::Unit unit(const Codes& codes,
                                                          const std::byte* words,
                                                          std::uint32_t unit) {
    return {codes, half(words, unit)};
  }
};

template <>
struct TravellingUnit<ElementType::kQ8_0> {
  using Codes = Words4;
  static constexpr std::uint32_t kWords = 1;
  static DS4_DEVICE const std::byte* word_from(const std::byte* scales,
                                               std::uint32_t,
                                               std::uint32_t unit,
                                               std::uint32_t) {
    return scales + unit / 4 * 4;
  }
  static DS4_DEVICE Codec<ElementType::kQ8_0>::Unit unit(const Codes& codes,
                                                         const std::byte* words,
                                                         std::uint32_t) {
    return {codes, slot_word(words, 0)};
  }
};

// The four lanes of a row have its header between them.
template <>
struct TravellingUnit<ElementType::kQ4K> {
  using Codes = Words4;
  static constexpr std::uint32_t kWords = 1;
  static DS4_DEVICE const std::byte* word_from(const std::byte* scales,
                                               std::uint32_t,
                                               std::uint32_t unit,
                                               std::uint32_t) {
    return scales + unit / 8 * 16 + unit % 4 * 4;
  }
  static DS4_DEVICE Codec<ElementType::kQ4K>::Unit unit(const Codes& codes,
                                                        const std::byte* words,
                                                        std::uint32_t unit) {
    return {codes, reinterpret_cast<const Words4*>(words)[threadIdx.x % 32 / 4], unit / 4 % 2 * 4};
  }
};

template <>
struct TravellingUnit<ElementType::kQ2K> {
  using Codes = Words4;
  static constexpr std::uint32_t kWords = 3;
  static DS4_DEVICE const std::byte* word_from(const std::byte* scales,
                                               std::uint32_t columns,
                                               std::uint32_t unit,
                                               std::uint32_t i) {
    const std::byte* own = scales + (unit / 4 * 4 + unit % 4 / 2 * 2) * 4;
    return i < 2 ? own + i * 4 : scales + (columns / 256 * 4 + unit / 4) * 4;
  }
  static DS4_DEVICE Codec<ElementType::kQ2K>::Unit unit(const Codes& codes,
                                                        const std::byte* words,
                                                        std::uint32_t) {
    return {codes, {slot_word(words, 0), slot_word(words, 1)}, {0, 0}, slot_word(words, 2)};
  }
};

// A unit's place in a slot of a warp's 32 units.
template <ElementType type>
struct UnitSlot {
  using Travelling = TravellingUnit<type>;
  using Codes = typename Travelling::Codes;
  static constexpr std::uint32_t kWordsAt = 32 * sizeof(Codes);
  static constexpr std::uint32_t kBytes = kWordsAt + Travelling::kWords * 32 * 4;

  // Asks for the lane's unit; arguments as of Codec::load().
  static DS4_DEVICE void fetch(std::byte* slot,
                               const std::byte* codes,
                               const std::byte* scales,
                               std::uint32_t columns,
                               std::uint32_t unit) {
    const std::uint32_t lane = threadIdx.x % 32;
    std::byte* to = slot + lane * sizeof(Codes);
    const std::byte* from = codes + std::size_t{unit} * sizeof(Codes);
    if constexpr (sizeof(Codes) == 16) {
      copy_async(to, from, true);
    } else {
      copy_async_8(to, from);
    }
#pragma unroll
    for (std::uint32_t i = 0; i < Travelling::kWords; ++i)
      copy_async_4(slot + kWordsAt + (i * 32 + lane) * 4,
                   Travelling::word_from(scales, columns, unit, i));
  }
  // Unit `unit` of a row, once it is there.
  static DS4_DEVICE typename Codec<type>::Unit take(const std::byte* slot, std::uint32_t unit) {
    return Travelling::unit(reinterpret_cast<const Codes*>(slot)[threadIdx.x % 32], slot + kWordsAt,
                            unit);
  }
};

// How many blocks of 256 columns a warp has in shared memory: one in use, the others on their way.
// More are slower: what is left of shared memory is the first-level cache, which the rows' scales
// come through.
inline constexpr int kRingStages = 2;

// Bytes of one warp's ring; 0 for plain numbers, which have none.
template <class C, int kMatrices>
constexpr std::uint32_t ring_bytes() {
  if constexpr (C::kQuantised) {
    return kRingStages * kMatrices * 2 * C::kBlockUnits * UnitSlot<C::kType>::kBytes;
  } else {
    return 0;
  }
}

// A lane's two rows, `half` 0 and 1, of a tile of 16 in each of some matrices of one shape.
template <int kMatrices>
struct TilesRows {
  const std::byte* codes[kMatrices];
  const std::byte* scales[kMatrices];

  DS4_DEVICE void set(const Matrix* const (&m)[kMatrices], std::size_t slab, std::uint32_t tile) {
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      codes[i] = row_codes(*m[i], slab, tile * kTileOutputs + threadIdx.x % 32 / 4);
      scales[i] = row_scales(*m[i], slab, tile * kTileOutputs + threadIdx.x % 32 / 4);
    }
  }
};

// Sums of the tiles first, first + step, ... below `end` of matrices of one shape, by a warp.
//
//   place(tile)            .slab and .tile of the matrices, .x and .rows of at most four vectors
//   stage()                brings x to shared memory; weights are on their way before
//   finish(place, sums)    takes sums[matrix][0 or 1] of weight rows g and g + 8 with row q of x
//
// Without kWantsRing, and of plain numbers, weights are loaded as they are used.
// Sums over blocks f, f + kFolds, ... are added up for each f, then these in their order: so that
// kFolds warps that share the blocks get the same.  Rows of a matrix are a multiple of 16.
template <class C,
          bool kWantsRing,
          int kMatrices,
          int kFolds,
          class Place,
          class Stage,
          class Finish>
DS4_DEVICE void walk_ring(std::byte* ring,
                          const Matrix* const (&m)[kMatrices],
                          std::uint32_t first,
                          std::uint32_t end,
                          std::uint32_t step,
                          const Codebook* book,
                          const Place& place,
                          const Stage& stage,
                          const Finish& finish) {
  constexpr bool kRinged = kWantsRing && C::kQuantised;
  constexpr std::uint32_t kStageBytes = ring_bytes<C, kMatrices>() / kRingStages;
  const std::uint32_t columns = m[0]->columns;
  const std::uint32_t blocks = (columns + 255) / 256;
  const std::uint32_t q = threadIdx.x % 4;
  const std::size_t code_step = std::size_t{8} * m[0]->codes_bytes;
  const std::size_t scale_step = std::size_t{8} * m[0]->scales_bytes;
  // A last block that is cut short repeats units that exist, against zeros.
  const auto unit_of = [&](std::uint32_t block, int u) {
    const std::uint32_t unit = (block * C::kBlockUnits + static_cast<std::uint32_t>(u)) * 4 + q;
    return unit * C::kUnit < columns ? unit : q;
  };

  const auto after = [](std::uint32_t slot) {
    return slot == kStageBytes * (kRingStages - 1) ? 0 : slot + kStageBytes;
  };
  TilesRows<kMatrices> ahead{};
  std::uint32_t ahead_tile = first;
  std::uint32_t ahead_block = 0;
  std::uint32_t ahead_slot = 0;
  const auto fetch = [&] {
    if constexpr (kRinged) {
      if (ahead_tile < end) {
        if (ahead_block == 0) {
          const auto at = place(ahead_tile);
          ahead.set(m, at.slab, at.tile);
        }
        std::byte* slot = ring + ahead_slot;
#pragma unroll
        for (int i = 0; i < kMatrices * 2; ++i)
#pragma unroll
          for (int u = 0; u < C::kBlockUnits; ++u, slot += UnitSlot<C::kType>::kBytes)
            UnitSlot<C::kType>::fetch(slot, ahead.codes[i / 2] + i % 2 * code_step,
                                      ahead.scales[i / 2] + i % 2 * scale_step, columns,
                                      unit_of(ahead_block, u));
        if (++ahead_block == blocks) {
          ahead_block = 0;
          ahead_tile += step;
        }
      }
      ahead_slot = after(ahead_slot);
      copy_async_commit();
    }
  };
  TilesRows<kMatrices> now{};
  std::uint32_t now_slot = 0;
  const auto take = [&](std::uint32_t block, WeightBlock<C>(&w)[kMatrices]) {
    std::byte* slot = ring + now_slot;
#pragma unroll
    for (int i = 0; i < kMatrices * 2; ++i)
#pragma unroll
      for (int u = 0; u < C::kBlockUnits; ++u) {
        const std::byte* codes = now.codes[i / 2] + i % 2 * code_step;
        const std::byte* scales = now.scales[i / 2] + i % 2 * scale_step;
        auto& unit = i % 2 == 0 ? w[i / 2].low[u] : w[i / 2].high[u];
        if constexpr (kRinged) {
          unit = UnitSlot<C::kType>::take(slot, unit_of(block, u));
          slot += UnitSlot<C::kType>::kBytes;
        } else {
          unit = C::load(codes, scales, columns, unit_of(block, u));
        }
      }
    now_slot = after(now_slot);
  };

  for (int s = 0; s + 1 < kRingStages; ++s)
    fetch();
  stage();
  for (std::uint32_t tile = first; tile < end; tile += step) {
    const auto at = place(tile);
    now.set(m, at.slab, at.tile);
    // sums[0] is of the block's own fold: they take turns.
    float sums[kFolds][kMatrices][1][2] = {};
    const auto turn = [&] {
#pragma unroll
      for (int i = 0; i < kMatrices; ++i)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const float own = sums[0][i][0][k];
#pragma unroll
          for (int f = 0; f + 1 < kFolds; ++f)
            sums[f][i][0][k] = sums[f + 1][i][0][k];
          sums[kFolds - 1][i][0][k] = own;
        }
    };
#pragma unroll 1
    for (std::uint32_t block = 0; block < blocks; ++block) {
      copy_async_wait<kRingStages - 2>();
      warp_sync();  // lanes read each other's headers
      WeightBlock<C> w[kMatrices];
      take(block, w);
      fetch();
      add_block<C, 1, kMatrices>(w, at.x, at.rows, block, book, sums[0]);
      turn();
    }
    for (std::uint32_t rest = blocks; rest % kFolds != 0; ++rest)
      turn();
    float total[kMatrices][2];
#pragma unroll
    for (int i = 0; i < kMatrices; ++i)
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        total[i][k] = sums[0][i][0][k];
#pragma unroll
        for (int f = 1; f < kFolds; ++f)
          total[i][k] += sums[f][i][0][k];
      }
    finish(at, total);
  }
}

}  // namespace ds4::cuda
