// Matrix products over many rows on the tensor cores, for dense matrices and for experts.
//
//   out[t][o] = sum over c of w[o][c] * x[t][c]      w decoded to f16, x f16, sums f32
//
// Who does what: a block makes a tile of 128 outputs by kTokens rows; 8 warps of 32 outputs by
// kTokens / 2 rows each, mma.m16n8k16 with the weights as the 16-row operand.  Columns go in steps
// of 64 through two stages of shared memory: while a step is multiplied, the next step's codes are
// on their way to registers and its activations to shared memory by cp.async; then the codes are
// decoded into the other stage.  Outputs depend on their own row and the matrix alone.
//
// Memory: codes are read once per kTokens rows.  Shared: 2 * (128 + kTokens [* 2]) rows of 144
// bytes; rows are padded by 16 bytes so that the eight rows of a matrix load fall in different
// banks.
//
// The fence that matters: block_sync() before decoding into a stage, since the step before the last
// still reads it.
#include "cuda/codecs.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tile_product.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kOutputs = 128;
constexpr std::uint32_t kStep = 64;
constexpr std::uint32_t kPitch = kStep + 8;  // halves

constexpr std::uint32_t stage_halves(std::uint32_t tokens, bool split) {
  return (kOutputs + tokens * (split ? 2 : 1)) * kPitch;
}

// Which rows a block's tile has.
struct Rows {
  std::uint32_t slab;
  std::uint32_t first;
  std::uint32_t count;
};

DS4_DEVICE std::uint32_t x_row_of(const TileProduct& p, std::uint32_t index) {
  return p.pairs == nullptr ? index : p.pairs[index] / p.x_divisor;
}
DS4_DEVICE std::uint32_t out_row_of(const TileProduct& p, std::uint32_t index) {
  return p.pairs == nullptr ? index : p.pairs[index];
}

// Activations of one step to shared memory, in the background; rows past the tile become zeros.
template <std::uint32_t kTokens>
DS4_DEVICE void fetch_rows(const std::uint16_t* x,
                           const TileProduct& p,
                           const std::uint32_t* x_rows,
                           std::uint32_t count,
                           std::uint32_t column,
                           std::uint16_t* to) {
  for (std::uint32_t i = threadIdx.x; i < kTokens * 8; i += kThreads) {
    const std::uint32_t t = i / 8;
    const std::uint32_t c = i % 8 * 8;
    const bool valid = t < count && column + c < p.w.columns;
    const std::uint16_t* from = valid ? x + std::size_t{x_rows[t]} * p.x_stride + column + c : x;
    copy_async(to + t * kPitch + c, from, valid);
  }
}

// A thread's share of one step's codes.  A unit of a quantised format has 8 columns of each of
// kSegments groups of 32: a step of 64 columns takes two of them.
template <class C>
struct WeightStep {
  static constexpr std::uint32_t kUnits = C::kQuantised ? 4 : kStep / C::kUnit;
  static constexpr std::uint32_t kMine = (kOutputs * kUnits + kThreads - 1) / kThreads;
  static constexpr std::uint32_t kSteps = C::kQuantised ? C::kSegments / 2 : 1;  // of a unit
  typename C::Unit unit[kMine];

  static DS4_DEVICE std::uint32_t unit_of(std::uint32_t step, std::uint32_t i) {
    return step / kSteps * kUnits + i;
  }

  DS4_DEVICE void load(const Matrix& m,
                       std::uint32_t slab,
                       std::uint32_t first_output,
                       std::uint32_t row_end,
                       std::uint32_t step) {
    if (step % kSteps != 0) return;  // the unit is here already
#pragma unroll
    for (std::uint32_t k = 0; k < kMine; ++k) {
      const std::uint32_t i = threadIdx.x + k * kThreads;
      const std::uint32_t output = first_output + i / kUnits;
      const std::uint32_t index = unit_of(step, i % kUnits);
      if (output < row_end && index * C::kUnit < m.columns)
        unit[k] =
            C::load(row_codes(m, slab, output), row_scales(m, slab, output), m.columns, index);
    }
  }

  DS4_DEVICE void store(const Matrix& m,
                        std::uint32_t first_output,
                        std::uint32_t row_end,
                        std::uint32_t step,
                        const Grid* grid,
                        std::uint16_t* to) {
#pragma unroll
    for (std::uint32_t k = 0; k < kMine; ++k) {
      const std::uint32_t i = threadIdx.x + k * kThreads;
      const std::uint32_t output = i / kUnits;
      const std::uint32_t index = unit_of(step, i % kUnits);
      const bool real = first_output + output < row_end && index * C::kUnit < m.columns;
      if constexpr (C::kQuantised) C::finish(unit[k]);
#pragma unroll
      for (int s = 0; s < C::kSegments; ++s) {
        if (static_cast<std::uint32_t>(s / 2) != step % kSteps) continue;
        float w[8] = {};
        if (real) C::decode(unit[k], s, grid, w);
        *reinterpret_cast<Words4*>(to + output * kPitch + C::column(index, s) - step * kStep) = {
            pack_half2(w[0], w[1]), pack_half2(w[2], w[3]), pack_half2(w[4], w[5]),
            pack_half2(w[6], w[7])};
      }
    }
  }
};

// One step's products of a warp: 32 outputs by kTokens / 2 rows.
template <std::uint32_t kTokens>
DS4_DEVICE void multiply_step(const std::uint16_t* weights,
                              const std::uint16_t* rows,
                              float (&sum)[2][kTokens / 16][4]) {
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint16_t* a_row = weights + (warp % 4 * 32 + lane % 16) * kPitch + lane / 16 * 8;
  // Matrices of a load: rows 0..7 then 8..15, each at columns 0..7 and 8..15.
  const std::uint16_t* b_row =
      rows + (warp / 4 * (kTokens / 2) + lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 8;
#pragma unroll
  for (std::uint32_t c = 0; c < kStep; c += 16) {
    std::uint32_t a[2][4];
    load_tiles(a[0], a_row + c);
    load_tiles(a[1], a_row + 16 * kPitch + c);
#pragma unroll
    for (std::uint32_t n = 0; n < kTokens / 16; n += 2) {
      std::uint32_t b[4];
      load_tiles(b, b_row + n * 8 * kPitch + c);
      const std::uint32_t b0[2] = {b[0], b[1]};
      const std::uint32_t b1[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        multiply_tile(sum[m][n], a[m], b0);
        multiply_tile(sum[m][n + 1], a[m], b1);
      }
    }
  }
}

template <class C, std::uint32_t kTokens, bool kSplit>
DS4_KERNEL void tile_product(TileProduct p) {
  DS4_SHARED Grid grid[kGridRows];
  DS4_SHARED std::uint32_t x_rows[kTokens];
  auto* shared = reinterpret_cast<std::uint16_t*>(dynamic_shared());
  if (p.w.type == ElementType::kIQ2XXS) load_grid(reinterpret_cast<const Grid*>(p.grid), grid);
  wait_for_inputs();
  Rows rows{0, blockIdx.y * kTokens, 0};
  if (p.tiles != nullptr) {
    if (blockIdx.y >= *p.tile_count) return;
    const ExpertTile tile = p.tiles[blockIdx.y];
    rows = {tile.expert, tile.first, tile.count};
  } else {
    rows.count = p.rows - rows.first < kTokens ? p.rows - rows.first : kTokens;
  }
  const std::uint32_t group_rows = p.w.rows / p.groups;
  const std::uint32_t row_end = (blockIdx.z + 1) * group_rows;
  const std::uint32_t first_output = blockIdx.z * group_rows + blockIdx.x * kOutputs;
  const std::uint16_t* x = p.x + std::size_t{blockIdx.z} * p.group_columns;
  const std::uint16_t* rest =
      kSplit ? p.x_rest + std::size_t{blockIdx.z} * p.group_columns : nullptr;
  for (std::uint32_t t = threadIdx.x; t < kTokens; t += kThreads)
    x_rows[t] = t < rows.count ? x_row_of(p, rows.first + t) : 0;
  block_sync();

  constexpr std::uint32_t kStage = stage_halves(kTokens, kSplit);
  constexpr std::uint32_t kRowsAt = kOutputs * kPitch;
  constexpr std::uint32_t kRestAt = (kOutputs + kTokens) * kPitch;
  const std::uint32_t steps = (p.w.columns + kStep - 1) / kStep;
  float sum[2][kTokens / 16][4] = {};
  WeightStep<C> weights;
  const auto fetch = [&](std::uint32_t step) {
    std::uint16_t* stage = shared + step % 2 * kStage;
    fetch_rows<kTokens>(x, p, x_rows, rows.count, step * kStep, stage + kRowsAt);
    if constexpr (kSplit)
      fetch_rows<kTokens>(rest, p, x_rows, rows.count, step * kStep, stage + kRestAt);
    copy_async_commit();
    weights.load(p.w, rows.slab, first_output, row_end, step);
  };
  fetch(0);
  weights.store(p.w, first_output, row_end, 0, grid, shared);
  for (std::uint32_t step = 0; step < steps; ++step) {
    copy_async_wait<0>();
    block_sync();
    if (step + 1 < steps) fetch(step + 1);
    const std::uint16_t* stage = shared + step % 2 * kStage;
    multiply_step<kTokens>(stage, stage + kRowsAt, sum);
    if constexpr (kSplit) multiply_step<kTokens>(stage, stage + kRestAt, sum);
    if (step + 1 < steps)
      weights.store(p.w, first_output, row_end, step + 1, grid, shared + (step + 1) % 2 * kStage);
  }

  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (std::uint32_t m = 0; m < 2; ++m)
#pragma unroll
    for (std::uint32_t n = 0; n < kTokens / 16; ++n)
#pragma unroll
      for (std::uint32_t i = 0; i < 4; ++i) {
        const std::uint32_t output = first_output + warp % 4 * 32 + m * 16 + lane / 4 + i / 2 * 8;
        const std::uint32_t t = warp / 4 * (kTokens / 2) + n * 8 + lane % 4 * 2 + i % 2;
        if (output < row_end && t < rows.count)
          p.out[std::size_t{out_row_of(p, rows.first + t)} * p.out_stride + output] = sum[m][n][i];
      }
}

template <class C, std::uint32_t kTokens, bool kSplit>
void launch_tiles(Stream& stream, const char* stage, const TileProduct& p) {
  const std::uint32_t group_rows = p.w.rows / p.groups;
  launch(stream, stage,
         {.grid_x = (group_rows + kOutputs - 1) / kOutputs,
          .grid_y = p.tiles != nullptr ? p.tiles_max : (p.rows + kTokens - 1) / kTokens,
          .grid_z = p.groups,
          .threads = kThreads,
          .shared_bytes = 2 * stage_halves(kTokens, kSplit) * sizeof(std::uint16_t)},
         tile_product<C, kTokens, kSplit>, p);
}

template <ElementType type>
void launch_quantised(Stream& stream, const char* stage, const TileProduct& p) {
  launch_tiles<Codec<type>, kExpertTileRows, false>(stream, stage, p);
}

template <ElementType type>
void launch_plain(Stream& stream, const char* stage, const TileProduct& p) {
  if (p.x_rest != nullptr) {
    launch_tiles<Codec<type>, 64, true>(stream, stage, p);
  } else {
    launch_tiles<Codec<type>, kExpertTileRows, false>(stream, stage, p);
  }
}

DS4_KERNEL void round_rows(const float* x,
                           std::uint32_t x_stride,
                           std::uint32_t columns,
                           std::uint16_t* rounded,
                           std::uint16_t* rest) {
  wait_for_inputs();
  const float* from = x + std::size_t{blockIdx.y} * x_stride;
  const std::uint32_t c = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (c >= columns) return;
  const Float4 v = *reinterpret_cast<const Float4*>(from + c);
  const Words2 high = {pack_half2(v.x, v.y), pack_half2(v.z, v.w)};
  const std::size_t at = std::size_t{blockIdx.y} * columns + c;
  *reinterpret_cast<Words2*>(rounded + at) = high;
  if (rest == nullptr) return;
  const auto low = [](std::uint32_t pair) {
    return half_to_float(static_cast<std::uint16_t>(pair & 0xFFFF));
  };
  const auto up = [](std::uint32_t pair) {
    return half_to_float(static_cast<std::uint16_t>(pair >> 16));
  };
  *reinterpret_cast<Words2*>(rest + at) = {pack_half2(v.x - low(high.x), v.y - up(high.x)),
                                           pack_half2(v.z - low(high.y), v.w - up(high.y))};
}

}  // namespace

void run_tile_product(Stream& stream, const char* stage, const TileProduct& p) {
  switch (p.w.type) {
    case ElementType::kF32:
      return launch_plain<ElementType::kF32>(stream, stage, p);
    case ElementType::kF16:
      return launch_plain<ElementType::kF16>(stream, stage, p);
    case ElementType::kBF16:
      return launch_plain<ElementType::kBF16>(stream, stage, p);
    case ElementType::kQ8_0:
      if (p.tiles == nullptr && p.rows > 64)
        return launch_tiles<Codec<ElementType::kQ8_0>, 128, false>(stream, stage, p);
      return launch_quantised<ElementType::kQ8_0>(stream, stage, p);
    case ElementType::kIQ2XXS:
      return launch_quantised<ElementType::kIQ2XXS>(stream, stage, p);
    case ElementType::kMXFP4:
      return launch_quantised<ElementType::kMXFP4>(stream, stage, p);
    case ElementType::kQ4K:
      return launch_quantised<ElementType::kQ4K>(stream, stage, p);
    case ElementType::kQ2K:
      return launch_quantised<ElementType::kQ2K>(stream, stage, p);
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

void round_activations(Stream& stream,
                       const float* x,
                       std::uint32_t x_stride,
                       std::uint32_t rows,
                       std::uint32_t columns,
                       std::uint16_t* rounded,
                       std::uint16_t* rest) {
  DS4_CHECK(columns % 4 == 0 && rows <= 65535);
  launch(stream, "rounding activations",
         {.grid_x = (columns / 4 + 255) / 256, .grid_y = rows, .threads = 256}, round_rows, x,
         x_stride, columns, rounded, rest);
}

}  // namespace ds4::cuda
