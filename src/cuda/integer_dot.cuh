#pragma once
#include "cuda/codecs.cuh"
#include "cuda/integer_rows.h"
#include "cuda/reduce.cuh"

namespace ds4::cuda {

// Products of quantised weights with a few vectors on the integer tensor cores.
//
// Weights are small integers times a scale (Codec::integers()).  A vector becomes 15-bit integers,
// one scale for 256 columns, held as two planes of signed bytes:
//
//   x[c] = scale[c / 256] * (128 * high[c] + low[c])        |128 * high + low| <= 16256
//
// so that the matrix instruction, 16 weight rows by 32 columns by 8 plane rows, sums them exactly;
// what is lost is the rounding of x, 2^-15 of the largest in its block.  Each row of x has two of
// the eight columns of the instruction: four rows of x cost what one does, and no result depends on
// the others.
//
// A warp holds 16 weight rows; lane 4 * g + q loads the units of rows g and g + 8 that are its own
// (codecs.cuh) and ends with the sums of those two rows for row q of each four of x.

inline constexpr float kIntegerLargest = 16256.0F;
inline constexpr std::uint32_t kTileOutputs = 16;  // weight rows of a warp's tile

// The planes in shared memory, [2 * rows][stride] bytes: high of row 0, low of row 0, ...  The
// stride puts the eight plane rows of an instruction into different banks.
struct IntegerRows {
  std::byte* planes;
  float* scales;  // [rows][blocks]
  std::uint32_t stride;
  std::uint32_t blocks;  // of 256 columns, the last one perhaps cut short

  // `memory` has integer_rows_bytes() bytes.
  DS4_DEVICE IntegerRows(std::byte* memory, std::uint32_t rows, std::uint32_t columns)
      : planes(memory),
        scales(nullptr),
        stride((columns + 255) / 256 * 256 + 32),
        blocks((columns + 255) / 256) {
    scales = reinterpret_cast<float*>(memory + std::size_t{2} * rows * stride);
  }
  // Those from row `first` on.
  DS4_DEVICE IntegerRows from(std::uint32_t first) const {
    IntegerRows rest = *this;
    rest.planes += std::size_t{2} * first * stride;
    rest.scales += first * blocks;
    return rest;
  }
};

// Eight neighbouring values of a row of `width`, a multiple of 4; those beyond it are zero or
// unwritten.
DS4_DEVICE void load8(const float* row, std::uint32_t width, std::uint32_t c, float (&v)[8]) {
#pragma unroll
  for (std::uint32_t half = 0; half < 2; ++half) {
    const Float4 x = c + half * 4 < width ? *reinterpret_cast<const Float4*>(row + c + half * 4)
                                          : Float4{0, 0, 0, 0};
    v[half * 4] = x.x;
    v[half * 4 + 1] = x.y;
    v[half * 4 + 2] = x.z;
    v[half * 4 + 3] = x.w;
  }
}
DS4_DEVICE void store8(float* row, std::uint32_t width, std::uint32_t c, const float (&v)[8]) {
#pragma unroll
  for (std::uint32_t half = 0; half < 2; ++half)
    if (c + half * 4 < width)
      *reinterpret_cast<Float4*>(row + c + half * 4) = {v[half * 4], v[half * 4 + 1],
                                                        v[half * 4 + 2], v[half * 4 + 3]};
}

// One block of 256 columns of row `r`, by a warp: lane l has columns 8 * l .. 8 * l + 7 in `v`.
DS4_DEVICE void put_integers(const IntegerRows& to,
                             std::uint32_t r,
                             std::uint32_t block,
                             const float (&v)[8]) {
  const std::uint32_t lane = threadIdx.x % 32;
  float largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i)
    largest = fmaxf(largest, fabsf(v[i]));
  largest = warp_max(largest);
  const float inverse = largest > 0 ? kIntegerLargest / largest : 0.0F;
  std::uint32_t high[2] = {0, 0};
  std::uint32_t low[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const auto q = static_cast<std::int32_t>(rintf(v[i] * inverse));
    const std::int32_t upper = (q + 64) >> 7;
    high[i / 4] |= (static_cast<std::uint32_t>(upper) & 255) << (8 * (i % 4));
    low[i / 4] |= (static_cast<std::uint32_t>(q - upper * 128) & 255) << (8 * (i % 4));
  }
  std::byte* at = to.planes + std::size_t{2} * r * to.stride + block * 256 + lane * 8;
  *reinterpret_cast<Words2*>(at) = {high[0], high[1]};
  *reinterpret_cast<Words2*>(at + to.stride) = {low[0], low[1]};
  if (lane == 0) to.scales[r * to.blocks + block] = largest / kIntegerLargest;
}

// 1 / rms of a row, by a warp.
DS4_DEVICE float inverse_rms(const float* from, std::uint32_t columns, float epsilon) {
  float square = 0;
#pragma unroll 4
  for (std::uint32_t c = threadIdx.x % 32 * 8; c < columns; c += 256) {
    float v[8];
    load8(from, columns, c, v);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      square += v[i] * v[i];
  }
  return 1.0F / sqrtf(warp_sum(square) / static_cast<float>(columns) + epsilon);
}

// Rows of f32 from memory, row_of(r), by `warps` warps of which this is number `warp`; with
// `norm_weight` RMS-normalised first.  Each warp has neighbouring blocks of 256 columns; with
// kAhead some of them are on their way while others become integers, which takes registers.
template <bool kAhead, class RowOf>
DS4_DEVICE void put_rows_by(const IntegerRows& to,
                            std::uint32_t rows,
                            std::uint32_t columns,
                            const RowOf& row_of,
                            std::uint32_t warp,
                            std::uint32_t warps,
                            const float* norm_weight = nullptr,
                            float epsilon = 0) {
  constexpr std::uint32_t kTogether = 4;
  const std::uint32_t each = (rows * to.blocks + warps - 1) / warps;
  const std::uint32_t lane_column = threadIdx.x % 32 * 8;
  const std::uint32_t end =
      (warp + 1) * each < rows * to.blocks ? (warp + 1) * each : rows * to.blocks;
  float next[kTogether][8];
  const auto load_from = [&](std::uint32_t first) {
#pragma unroll
    for (std::uint32_t k = 0; k < kTogether; ++k) {
      if (first + k >= end) break;
      const std::uint32_t r = (first + k) / to.blocks;
      load8(row_of(r), columns, (first + k) % to.blocks * 256 + lane_column, next[k]);
    }
  };
  std::uint32_t normed_row = rows;
  float inverse = 0;
  if (kAhead) load_from(warp * each);
  for (std::uint32_t first = warp * each; first < end; first += kTogether) {
    if (!kAhead) load_from(first);
    float v[kTogether][8];
#pragma unroll
    for (std::uint32_t k = 0; k < kTogether; ++k)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        v[k][i] = next[k][i];
    if (kAhead) load_from(first + kTogether);
#pragma unroll
    for (std::uint32_t k = 0; k < kTogether; ++k) {
      if (first + k >= end) break;
      const std::uint32_t r = (first + k) / to.blocks;
      const std::uint32_t block = (first + k) % to.blocks;
      if (norm_weight != nullptr) {
        if (r != normed_row) {
          normed_row = r;
          inverse = inverse_rms(row_of(r), columns, epsilon);
        }
        float weight[8];
        load8(norm_weight, columns, block * 256 + lane_column, weight);
#pragma unroll
        for (int i = 0; i < 8; ++i)
          v[k][i] *= inverse * weight[i];
      }
      put_integers(to, r, block, v[k]);
    }
  }
}

// The same by the whole block of threads.
template <bool kAhead, class RowOf>
DS4_DEVICE void put_rows(const IntegerRows& to,
                         std::uint32_t rows,
                         std::uint32_t columns,
                         const RowOf& row_of,
                         const float* norm_weight = nullptr,
                         float epsilon = 0) {
  put_rows_by<kAhead>(to, rows, columns, row_of, threadIdx.x / 32, blockDim.x / 32, norm_weight,
                      epsilon);
}

// Row `index` of rows that a kernel before turned into integers, each as IntegerRows of one row.
DS4_DEVICE IntegerRows row_integers(std::byte* all, std::uint32_t index, std::uint32_t columns) {
  return IntegerRows(all + index * integer_rows_bytes(1, columns), 1, columns);
}

// `rows` such rows, from(r), become rows of `to`, by the whole block of threads; complete after a
// block_sync().
template <class From>
DS4_DEVICE void copy_rows(const IntegerRows& to, std::uint32_t rows, const From& from) {
  for (std::uint32_t r = 0; r < rows; ++r) {
    const IntegerRows source = from(r);
    std::byte* planes = to.planes + std::size_t{2} * r * to.stride;
    for (std::uint32_t i = threadIdx.x * 16; i < 2 * to.stride; i += blockDim.x * 16)
      copy_async(planes + i, source.planes + i, true);
    for (std::uint32_t i = threadIdx.x; i < to.blocks; i += blockDim.x)
      copy_async_4(to.scales + r * to.blocks + i, source.scales + i);
  }
  copy_async_commit();
  copy_async_wait<0>();
}

// Parts that the sum over the columns of a matrix of many rows is made of: part p has blocks p,
// p + parts, ... of 256 columns; enough for two loads of each to be under way.
constexpr std::uint32_t column_parts(std::uint32_t columns) {
  const std::uint32_t blocks = (columns + 255) / 256;
  return blocks >= 16 ? 8 : blocks >= 8 ? 4 : blocks >= 4 ? 2 : 1;
}
// Their sum: neighbours first, so that neighbours may be added where they are made.
template <class PartOf>
DS4_DEVICE float sum_parts(std::uint32_t parts, const PartOf& part_of) {
  const auto part = [&](std::uint32_t p) { return p < parts ? part_of(p) : 0.0F; };
  return ((part(0) + part(1)) + (part(2) + part(3))) + ((part(4) + part(5)) + (part(6) + part(7)));
}

// The units of a lane for one block of 256 columns of its two weight rows.
template <class C>
struct WeightBlock {
  typename C::Unit low[C::kBlockUnits];
  typename C::Unit high[C::kBlockUnits];

  // Rows by their planes; a last block that is cut short repeats units that exist, against zeros.
  DS4_DEVICE void load(const std::byte* low_codes,
                       const std::byte* low_scales,
                       const std::byte* high_codes,
                       const std::byte* high_scales,
                       std::uint32_t columns,
                       std::uint32_t block) {
    const std::uint32_t q = threadIdx.x % 4;
#pragma unroll
    for (std::uint32_t u = 0; u < C::kBlockUnits; ++u) {
      std::uint32_t unit = (block * C::kBlockUnits + u) * 4 + q;
      if (unit * C::kUnit >= columns) unit = q;
      low[u] = C::load(low_codes, low_scales, columns, unit);
      high[u] = C::load(high_codes, high_scales, columns, unit);
    }
  }
};

// The 16 weight rows from `first_output` on, as a warp's lanes take them.
struct TileRows {
  const std::byte* codes[2];
  const std::byte* scales[2];

  DS4_DEVICE TileRows(const Matrix& m, std::size_t slab, std::uint32_t first_output) {
#pragma unroll
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t wanted = first_output + threadIdx.x % 32 / 4 + i * 8;
      const std::uint32_t row = wanted < m.rows ? wanted : m.rows - 1;
      codes[i] = row_codes(m, slab, row);
      scales[i] = row_scales(m, slab, row);
    }
  }
  template <class C>
  DS4_DEVICE void load(WeightBlock<C>& w, std::uint32_t columns, std::uint32_t block) const {
    w.load(codes[0], scales[0], codes[1], scales[1], columns, block);
  }
};

// The same for a format of plain numbers, which are not integers: f32 sums of what the planes hold.
template <class C, int kTiles>
DS4_DEVICE void add_plain_block(const WeightBlock<C>& w,
                                const IntegerRows& x,
                                std::uint32_t rows,
                                std::uint32_t block,
                                float (&sums)[kTiles][2]) {
  const std::uint32_t q = threadIdx.x % 4;
  for (std::uint32_t r = 0; r < rows; ++r) {
    const std::byte* plane = x.planes + std::size_t{2} * r * x.stride + block * 256 + q * 8;
    float part[2] = {0, 0};
#pragma unroll
    for (int u = 0; u < C::kBlockUnits; ++u) {
      float low[8];
      float high[8];
      C::decode(w.low[u], 0, nullptr, low);
      C::decode(w.high[u], 0, nullptr, high);
      const Words2 h = *reinterpret_cast<const Words2*>(plane + u * 32);
      const Words2 l = *reinterpret_cast<const Words2*>(plane + x.stride + u * 32);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float v =
            128.0F * signed_byte(i < 4 ? h.x : h.y, i % 4) + signed_byte(i < 4 ? l.x : l.y, i % 4);
        part[0] += low[i] * v;
        part[1] += high[i] * v;
      }
    }
    const float scale = x.scales[r * x.blocks + block];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      part[i] += shuffle_xor(part[i], 1);
      part[i] += shuffle_xor(part[i], 2);
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
        if (r == static_cast<std::uint32_t>(t) * 4 + q) sums[t][i] += scale * part[i];
    }
  }
}

// The operand of 16 weight rows by 32 columns: the segment of both of a lane's units.
template <class C>
DS4_DEVICE void weight_operand(const typename C::Unit& low,
                               const typename C::Unit& high,
                               int s,
                               const Codebook* book,
                               std::uint32_t (&a)[4]) {
  std::uint32_t words[2][2];
  C::integers(low, s, book, words[0]);
  C::integers(high, s, book, words[1]);
  a[0] = words[0][0];
  a[1] = words[1][0];
  a[2] = words[0][1];
  a[3] = words[1][1];
}

// sums[i][t][0 or 1] += the block's products of matrix i's weight rows g or g + 8 with row 4 * t +
// q of x.  `rows` of x are there; lanes beyond them repeat the last, and their sums mean nothing.
// Sums stay integers for as long as the format's scales are: 256 columns, or 32 where each 32 have
// a scale of their own.
template <class C, int kTiles, int kMatrices>
DS4_DEVICE void add_integer_block(WeightBlock<C> (&w)[kMatrices],
                                  const IntegerRows& x,
                                  std::uint32_t rows,
                                  std::uint32_t block,
                                  const Codebook* book,
                                  float (&sums)[kMatrices][kTiles][2]) {
  constexpr bool kWhole = C::kBlockScale || C::kCodeScale;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::byte* plane[kTiles];
  float part[kMatrices][kTiles][2] = {};
  // Of the planes' rows 2 * q and 2 * q + 1 with weight row g, then with g + 8.
  std::int32_t whole[kMatrices][kTiles][4] = {};
  std::int32_t mins[kMatrices][kTiles][4] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const std::uint32_t wanted = static_cast<std::uint32_t>(t) * 4 + lane / 8;
    const std::uint32_t r = wanted < rows ? wanted : rows - 1;
    plane[t] = x.planes + (2 * r + lane / 4 % 2) * x.stride + block * 256 + lane % 4 * 8;
  }
#pragma unroll
  for (int u = 0; u < C::kBlockUnits; ++u) {
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      C::finish(w[i].low[u]);
      C::finish(w[i].high[u]);
    }
#pragma unroll
    for (int s = 0; s < C::kSegments; ++s) {
      std::uint32_t b[kTiles][2];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const Words2 v = *reinterpret_cast<const Words2*>(plane[t] + (u * C::kSegments + s) * 32);
        b[t][0] = v.x;
        b[t][1] = v.y;
      }
#pragma unroll
      for (int i = 0; i < kMatrices; ++i) {
        const auto& low = w[i].low[u];
        const auto& high = w[i].high[u];
        std::uint32_t a[4];
        weight_operand<C>(low, high, s, book, a);
        std::uint32_t m[4];
        if constexpr (C::kHasMins) {
          m[0] = m[2] = C::min_bytes(low, s);
          m[1] = m[3] = C::min_bytes(high, s);
        }
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          if constexpr (C::kHasMins) multiply_bytes(mins[i][t], m, b[t]);
          if constexpr (C::kBlockScale) {
            multiply_bytes(whole[i][t], a, b[t]);
            continue;
          }
          std::int32_t dot[4];
          set_to_bytes_product(dot, a, b[t]);
          if constexpr (C::kCodeScale) {
            const auto low_code = static_cast<std::int32_t>(C::scale_code(low, s));
            const auto high_code = static_cast<std::int32_t>(C::scale_code(high, s));
#pragma unroll
            for (int k = 0; k < 4; ++k)
              whole[i][t][k] += (k < 2 ? low_code : high_code) * dot[k];
          } else {
            part[i][t][0] += C::scale(low, s) * static_cast<float>(dot[0] * 128 + dot[1]);
            part[i][t][1] += C::scale(high, s) * static_cast<float>(dot[2] * 128 + dot[3]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const auto both = [](std::int32_t high, std::int32_t low) {
      return 128.0F * static_cast<float>(high) + static_cast<float>(low);
    };
    const auto factor = [](const typename C::Unit& u) {
      if constexpr (C::kCodeScale) {
        return C::block_factor(u);
      } else {
        return C::scale(u, 0);
      }
    };
    const std::uint32_t wanted = static_cast<std::uint32_t>(t) * 4 + lane % 4;
    const float scale = x.scales[(wanted < rows ? wanted : rows - 1) * x.blocks + block];
#pragma unroll
    for (int i = 0; i < kMatrices; ++i) {
      const auto& low = w[i].low[0];
      const auto& high = w[i].high[0];
      if constexpr (kWhole) {
        part[i][t][0] = factor(low) * both(whole[i][t][0], whole[i][t][1]);
        part[i][t][1] = factor(high) * both(whole[i][t][2], whole[i][t][3]);
      }
      if constexpr (C::kHasMins) {
        part[i][t][0] -= C::min_scale(low) * both(mins[i][t][0], mins[i][t][1]);
        part[i][t][1] -= C::min_scale(high) * both(mins[i][t][2], mins[i][t][3]);
      }
      sums[i][t][0] += scale * part[i][t][0];
      sums[i][t][1] += scale * part[i][t][1];
    }
  }
}

template <class C, int kTiles, int kMatrices>
DS4_DEVICE void add_block(WeightBlock<C> (&w)[kMatrices],
                          const IntegerRows& x,
                          std::uint32_t rows,
                          std::uint32_t block,
                          const Codebook* book,
                          float (&sums)[kMatrices][kTiles][2]) {
  if constexpr (C::kQuantised) {
    add_integer_block<C, kTiles, kMatrices>(w, x, rows, block, book, sums);
  } else {
#pragma unroll
    for (int i = 0; i < kMatrices; ++i)
      add_plain_block<C, kTiles>(w[i], x, rows, block, sums[i]);
  }
}

// Sums of `count` tiles of 16 weight rows over the blocks of columns that are `part`'s of `parts`:
// every `parts`-th.  With kFolds a warp stands for that many parts from `part` on, one after the
// other, and adds their sums in their order, as if each had a warp of its own.  tile_of(i) gives
// tile i's TileRows, finish(i, sums) takes its result.  The codes of the next block, be it of the
// next tile, are on their way while one is multiplied; those of the very first are asked for before
// `stage` waits for the input and brings it to shared memory.
template <class C, int kTiles, std::uint32_t kFolds = 1, class TileOf, class Stage, class Finish>
DS4_DEVICE void walk_tiles(std::uint32_t count,
                           std::uint32_t columns,
                           std::uint32_t part,
                           std::uint32_t parts,
                           const IntegerRows& x,
                           std::uint32_t x_rows,
                           const Codebook* book,
                           const TileOf& tile_of,
                           const Stage& stage,
                           const Finish& finish) {
  WeightBlock<C> next;
  TileRows tile = tile_of(0);
  std::uint32_t next_tile = 0;
  std::uint32_t next_fold = 0;
  std::uint32_t next_block = part;
  const auto load_next = [&] {
    if (part >= x.blocks) return;
    while (next_block >= x.blocks) {
      if (++next_fold == kFolds) {
        next_fold = 0;
        if (++next_tile < count) tile = tile_of(next_tile);
      }
      next_block = part + next_fold;
    }
    if (next_tile >= count) return;
    tile.load(next, columns, next_block);
    next_block += parts;
  };
  load_next();
  stage();
  for (std::uint32_t i = 0; i < count; ++i) {
    float total[kTiles][2];
#pragma unroll 1
    for (std::uint32_t fold = 0; fold < kFolds; ++fold) {
      float sums[1][kTiles][2] = {};
      for (std::uint32_t block = part + fold; block < x.blocks; block += parts) {
        WeightBlock<C> now[1] = {next};
        load_next();
        add_block<C, kTiles, 1>(now, x, x_rows, block, book, sums);
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int k = 0; k < 2; ++k)
          total[t][k] = fold == 0 ? sums[0][t][k] : total[t][k] + sums[0][t][k];
    }
    finish(i, total);
  }
}

}  // namespace ds4::cuda
