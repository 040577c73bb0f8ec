#pragma once
#include <type_traits>

#include "cuda/activate.cuh"
#include "cuda/halves.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tile_product.h"

namespace ds4::cuda::tiles {

// The kernel of tile_product.h.  A warp makes 32 weight rows, two tiles of 16, by all kRows rows of
// x that its block has, mma.m16n8k16 with the weights as the 16-row operand.  With kParts 1 a block
// makes 128 weight rows.  With kParts 4, for few rows, its warps share 32 weight rows and take
// turns at groups of columns; the parts are added in the order of the warps.
//
// Weights go from memory to registers and nowhere else: lane 4 * g + q loads the units that are its
// own of rows g and g + 8 of both tiles, one group of columns ahead, and decodes a segment of eight
// columns into the operands of two matrix instructions.  Which columns an instruction sums is free
// as long as both operands agree: of 32 columns, instruction i takes columns 8 * q + 4 * i ..
// 8 * q + 4 * i + 3 of lane q, and x stands in that order in memory (operand_pair()).
//
// x goes through shared memory, steps of 64 columns, some of them in flight by cp.async, for all
// threads that work on the same columns (a team).  A row of a step is 128 bytes; odd rows swap
// their halves, so that the eight lanes of a load of 16 bytes fall in different banks.  Rows are
// done in pairs of 8; pairs without rows are skipped, so a tile costs what it holds, to 16 rows.
//
// The fence that matters: the team's barrier at the top of a step, after which the step's x is
// there and the stage of the step before is free.
//
// An output is one sum over the columns in an order that the matrix and kParts fix: it does not
// depend on the other rows.
inline constexpr std::uint32_t kThreads = 128;
inline constexpr std::uint32_t kWarpOutputs = 32;
inline constexpr std::uint32_t kStep = 64;
// Steps of x in shared memory: teams of split rows must fit 99 KiB.
constexpr std::uint32_t stage_count(std::uint32_t parts, bool split) {
  return parts > 1 && split ? 3 : 4;
}

// Weight rows of a block.
constexpr std::uint32_t block_outputs(std::uint32_t parts, bool gated) {
  return kThreads / 32 * kWarpOutputs / parts / (gated ? 2 : 1);
}
// Halves of one stage of one team.
constexpr std::uint32_t stage_halves(std::uint32_t rows, bool split) {
  return rows * kStep * (split ? 2 : 1);
}

// A block's rows.
struct Rows {
  std::uint32_t slab;
  std::uint32_t first;
  std::uint32_t count;
};

DS4_DEVICE Rows rows_of_block(const TileProduct& p, std::uint32_t tile, std::uint32_t tile_rows) {
  if (p.experts.tiles != nullptr) {
    if (tile >= *p.experts.tile_count) return {0, 0, 0};
    const ExpertTile t = p.experts.tiles[tile];
    return {t.expert, t.first, t.count};
  }
  const std::uint32_t first = tile * tile_rows;
  return {0, first, p.rows - first < tile_rows ? p.rows - first : tile_rows};
}

// Where a block's rows come from and go to.
template <std::uint32_t kRows>
struct RowTable {
  std::uint32_t x[kRows];    // offset of the row in x
  std::uint32_t out[kRows];  // row of out
  float weight[kRows];
};

template <std::uint32_t kRows>
DS4_DEVICE void list_rows(const TileProduct& p, const Rows& rows, RowTable<kRows>& table) {
  for (std::uint32_t t = threadIdx.x; t < kRows; t += kThreads) {
    std::uint32_t row = rows.first + (t < rows.count ? t : 0);
    if (p.experts.pairs != nullptr) row = p.experts.pairs[row];
    table.x[t] = row / p.x_divisor * p.x_stride;
    table.out[t] = row;
    table.weight[t] =
        p.weights == nullptr ? 1.0F : p.weights[row / p.slots * (p.slots - 1) + row % p.slots];
  }
}

// The threads that work on the same columns.
template <std::uint32_t kParts>
struct Team {
  static constexpr std::uint32_t kSize = kThreads / kParts;
  static DS4_DEVICE std::uint32_t index() { return threadIdx.x / kSize; }
  static DS4_DEVICE std::uint32_t member() { return threadIdx.x % kSize; }
  static DS4_DEVICE void sync() {
    if constexpr (kParts == 1) {
      block_sync();
    } else {
      static_assert(kSize == 32);
      warp_sync();
    }
  }
};

// One step of x to shared memory in the background.  Only rows that the tile's pairs cover; of
// those past its end the first row again, whose sums nobody writes.
template <std::uint32_t kRows, std::uint32_t kParts>
DS4_DEVICE void fetch_rows(const std::uint16_t* x,
                           const RowTable<kRows>& table,
                           std::uint32_t pairs,
                           std::uint32_t column,
                           std::uint16_t* to) {
  using T = Team<kParts>;
  const std::uint32_t piece = T::member() % 8;
  const std::uint16_t* from = x + column + piece * 8;
#pragma unroll
  for (std::uint32_t i = 0; i < kRows * 8 / T::kSize; ++i) {
    const std::uint32_t t = T::member() / 8 + i * (T::kSize / 8);
    if (t < pairs * 16) copy_async(to + t * kStep + (piece ^ (t % 8)) * 8, from + table.x[t], true);
  }
}

// What a lane holds of one group of columns: kUnits units of each of its four weight rows.
template <ElementType type>
struct WeightGroup {
  using C = Codec<type>;
  // A group is at least one step.
  static constexpr std::uint32_t kUnits = C::kSegments >= 2 ? 1 : 2;
  static constexpr std::uint32_t kSegments = C::kSegments * kUnits;
  static constexpr std::uint32_t kSteps = kSegments * 32 / kStep;
  typename C::Unit unit[4][kUnits];

  // Rows g and g + 8 from `first_output` on of w, then 16 + g and 24 + g, or of up g and g + 8; the
  // last row stands for those past the end.
  template <bool kGated>
  DS4_DEVICE void load(const TileProduct& p,
                       std::uint32_t slab,
                       std::uint32_t first_output,
                       std::uint32_t output_end,
                       std::uint32_t group) {
#pragma unroll
    for (std::uint32_t i = 0; i < kUnits; ++i) {
      const std::uint32_t index = (group * kUnits + i) * 4 + threadIdx.x % 4;
#pragma unroll
      for (std::uint32_t r = 0; r < 4; ++r) {
        const Matrix& m = kGated && r >= 2 ? p.up : p.w;
        const std::uint32_t wanted = first_output + threadIdx.x % 32 / 4 + (kGated ? r % 2 : r) * 8;
        const std::uint32_t row = wanted < output_end ? wanted : output_end - 1;
        unit[r][i] = C::load(row_codes(m, slab, row), row_scales(m, slab, row), m.columns, index);
      }
    }
  }
  DS4_DEVICE void finish() {
    if constexpr (C::kQuantised) {
#pragma unroll
      for (std::uint32_t r = 0; r < 4; ++r)
#pragma unroll
        for (std::uint32_t i = 0; i < kUnits; ++i)
          C::finish(unit[r][i]);
    }
  }
  DS4_DEVICE void decode(std::uint32_t r,
                         std::uint32_t segment,
                         const Codebook* book,
                         std::uint32_t (&h)[4]) const {
    if constexpr (kUnits == 1) {
      Halves<type>::decode(unit[r][0], static_cast<int>(segment), book, h);
    } else {
      Halves<type>::decode(unit[r][segment % 2], 0, book, h);
    }
  }
};

// Operands of two instructions, 32 columns of eight rows: b[2 * i] and b[2 * i + 1] of instruction
// i.
DS4_DEVICE void load_rows(std::uint32_t (&b)[4],
                          const std::uint16_t* stage,
                          std::uint32_t first_row,
                          std::uint32_t half) {
  const std::uint32_t row = threadIdx.x % 8;
  const std::uint32_t piece = (half * 4 + threadIdx.x % 32 / 8) ^ row;
  load_tiles(b, stage + (first_row + row) * kStep + piece * 8);
}

// sums += the products of 32 columns, for the pairs of rows that the tile has.
template <std::uint32_t kRows>
DS4_DEVICE void multiply_rows(const std::uint32_t (&a)[2][2][4],
                              const std::uint16_t* stage,
                              std::uint32_t half,
                              std::uint32_t pairs,
                              float (&sum)[2][kRows / 8][4]) {
  std::uint32_t next[2][4];
  load_rows(next[0], stage, 0, half);
  load_rows(next[1], stage, 8, half);
#pragma unroll
  for (std::uint32_t pair = 0; pair < kRows / 16; ++pair) {
    if (pair >= pairs) break;
    std::uint32_t b[2][4];
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        b[n][i] = next[n][i];
    if (pair + 1 < kRows / 16) {
      load_rows(next[0], stage, pair * 16 + 16, half);
      load_rows(next[1], stage, pair * 16 + 24, half);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const std::uint32_t columns[2] = {b[n][2 * i], b[n][2 * i + 1]};
#pragma unroll
        for (int m = 0; m < 2; ++m)
          multiply_tile(sum[m][pair * 2 + n], a[m][i], columns);
      }
  }
}

// Operands of the two instructions from rows g and g + 8 of a tile.
DS4_DEVICE void make_operands(const std::uint32_t (&low)[4],
                              const std::uint32_t (&high)[4],
                              std::uint32_t (&a)[2][4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    a[i][0] = low[2 * i];
    a[i][1] = high[2 * i];
    a[i][2] = low[2 * i + 1];
    a[i][3] = high[2 * i + 1];
  }
}

// The same by the whole block in the background; two instructions an operand, 16 columns each.
template <std::uint32_t kRows>
DS4_DEVICE void multiply_rows_by_group(const std::uint32_t (&a)[2][2][4],
                                       const std::uint16_t* stage,
                                       std::uint32_t half,
                                       float (&sum)[2][kRows / 8][4]) {
  group_begin();
#pragma unroll
  for (std::uint32_t i = 0; i < 2; ++i) {
    const std::uint64_t b = describe_rows(stage, half * 2 + i);
#pragma unroll
    for (int m = 0; m < 2; ++m)
      group_multiply(sum[m], a[m][i], b);
  }
  group_commit();
}

template <std::uint32_t kRows>
DS4_DEVICE void fence_sums(float (&sum)[2][kRows / 8][4]) {
#pragma unroll
  for (std::uint32_t i = 0; i < kRows; ++i)
    group_fence(sum[i * 2 / kRows][i / 4 % (kRows / 8)][i % 4]);
}

// One step of 64 columns: `step` of the group that `weights` holds.  What x lost to rounding lies
// `rest` after x.
template <ElementType type, std::uint32_t kRows, bool kSplit, bool kGroup>
DS4_DEVICE void multiply_step(const WeightGroup<type>& weights,
                              std::uint32_t step,
                              const Codebook* book,
                              const std::uint16_t* stage,
                              std::uint32_t rest,
                              std::uint32_t pairs,
                              float (&sum)[2][kRows / 8][4]) {
#pragma unroll
  for (std::uint32_t half = 0; half < 2; ++half) {
    // The operands of this half of the step before are free again.
    if constexpr (kGroup) group_wait<kSplit ? 2 : 1>();
    std::uint32_t a[2][2][4];
#pragma unroll
    for (std::uint32_t m = 0; m < 2; ++m) {
      std::uint32_t low[4];
      std::uint32_t high[4];
      weights.decode(2 * m, step * 2 + half, book, low);
      weights.decode(2 * m + 1, step * 2 + half, book, high);
      make_operands(low, high, a[m]);
    }
    if constexpr (kGroup) {
      multiply_rows_by_group<kRows>(a, stage, half, sum);
      if constexpr (kSplit) multiply_rows_by_group<kRows>(a, stage + rest, half, sum);
    } else {
      multiply_rows<kRows>(a, stage, half, pairs, sum);
      if constexpr (kSplit) multiply_rows<kRows>(a, stage + rest, half, pairs, sum);
    }
  }
}

// The teams' parts to the first one, through shared memory that nobody reads any more.
template <std::uint32_t kRows, std::uint32_t kParts>
DS4_DEVICE void add_parts(float* shared, float (&sum)[2][kRows / 8][4]) {
  constexpr std::uint32_t kSums = 2 * kRows / 8 * 4;
  const std::uint32_t part = Team<kParts>::index();
  const std::uint32_t lane = threadIdx.x % 32;
  block_sync();
#pragma unroll
  for (std::uint32_t i = 0; i < kSums; ++i)
    shared[(part * kSums + i) * 32 + lane] = sum[i / (kSums / 2)][i / 4 % (kRows / 8)][i % 4];
  block_sync();
#pragma unroll
  for (std::uint32_t i = 0; i < kSums; ++i) {
    float total = shared[i * 32 + lane];
#pragma unroll
    for (std::uint32_t other = 1; other < kParts; ++other)
      total += shared[(other * kSums + i) * 32 + lane];
    sum[i / (kSums / 2)][i / 4 % (kRows / 8)][i % 4] = total;
  }
}

// One value of each of two neighbouring rows (2 * q and 2 * q + 1) at output g.
template <class Table>
DS4_DEVICE void write_pair(const TileProduct& p,
                           const Table& table,
                           std::uint32_t count,
                           std::uint32_t t,
                           std::uint32_t output,
                           bool inside,
                           float first,
                           float second) {
  if (p.out != nullptr) {
    if (inside && t < count) p.out[std::size_t{table.out[t]} * p.out_stride + output] = first;
    if (inside && t + 1 < count)
      p.out[std::size_t{table.out[t + 1]} * p.out_stride + output] = second;
    return;
  }
  // The lane of the next output (g + 1) hands over its value of the even row for that of the odd.
  // out_rounded is x of another product: its pairs stand in the order of operands.
  const bool odd = threadIdx.x / 4 % 2 != 0;
  const float other = shuffle_xor(odd ? first : second, 4);
  const std::uint32_t pair = odd ? pack_half2(other, second) : pack_half2(first, other);
  const std::uint32_t row = t + (odd ? 1 : 0);
  if (inside && row < count)
    *reinterpret_cast<std::uint32_t*>(p.out_rounded + std::size_t{table.out[row]} * p.out_stride +
                                      2 * operand_pair(output / 2)) = pair;
}

template <ElementType type, std::uint32_t kRows, bool kGated, class Table>
DS4_DEVICE void write_sums(const TileProduct& p,
                           const Table& table,
                           std::uint32_t count,
                           std::uint32_t first_output,
                           std::uint32_t output_end,
                           const float (&sum)[2][kRows / 8][4]) {
  constexpr float kFactor = Halves<type>::kFactor;
  const std::uint32_t g = threadIdx.x % 32 / 4;
#pragma unroll
  for (std::uint32_t n = 0; n < kRows / 8; ++n) {
    if (n * 8 >= count) break;
    const std::uint32_t t = n * 8 + threadIdx.x % 4 * 2;
#pragma unroll
    for (std::uint32_t h = 0; h < 2; ++h) {
      if constexpr (kGated) {
        const std::uint32_t output = first_output + h * 8 + g;
        const auto value = [&](std::uint32_t i) {
          return activated(sum[0][n][h * 2 + i] * kFactor, sum[1][n][h * 2 + i] * kFactor, p.limit,
                           table.weight[t + i]);
        };
        write_pair(p, table, count, t, output, output < output_end, value(0), value(1));
      } else {
#pragma unroll
        for (std::uint32_t m = 0; m < 2; ++m) {
          const std::uint32_t output = first_output + m * 16 + h * 8 + g;
          write_pair(p, table, count, t, output, output < output_end, sum[m][n][h * 2] * kFactor,
                     sum[m][n][h * 2 + 1] * kFactor);
        }
      }
    }
  }
}

// Blocks that share a multiprocessor: what the registers of the sums leave room for.
constexpr int resident_blocks(std::uint32_t rows) {
  return rows <= 32 ? 4 : rows <= 64 ? 3 : 2;
}

// The stages' place: matrix instructions that read shared memory want it aligned to 1024 bytes.
inline constexpr std::size_t kGroupAlignment = 1024;
template <bool kGroup>
DS4_DEVICE std::uint16_t* first_stage() {
  std::byte* memory = dynamic_shared();
  if constexpr (kGroup) memory += (0 - shared_address(memory)) % kGroupAlignment;
  return reinterpret_cast<std::uint16_t*>(memory);
}

// Groups of columns whose codes are asked for ahead: where few blocks run, more have to be under
// way.
template <ElementType type>
constexpr std::uint32_t groups_ahead(std::uint32_t parts) {
  if (parts == 1 || WeightGroup<type>::kSteps > 1) return 1;
  return WeightGroup<type>::kUnits == 1 ? 3 : 2;
}

// A block's share of a product, in shared memory and registers of its threads.
template <std::uint32_t kRows>
struct Share {
  const RowTable<kRows>& table;
  const Codebook& book;
  std::uint16_t* stages;  // of the team
  Rows rows;
  std::uint32_t first_output;  // of the warp
  std::uint32_t output_end;
  std::size_t x_offset;
};

// The whole product of a block that has at most kHeld of kRows rows.
template <ElementType type,
          std::uint32_t kRows,
          std::uint32_t kHeld,
          std::uint32_t kParts,
          bool kGated,
          bool kSplit,
          bool kGroup>
DS4_DEVICE void multiply_share(const TileProduct& p, const Share<kRows>& b) {
  using T = Team<kParts>;
  using Group = WeightGroup<type>;
  constexpr std::uint32_t kStages = stage_count(kParts, kSplit);
  constexpr std::uint32_t kStage = stage_halves(kRows, kSplit);
  constexpr std::uint32_t kRest = kRows * kStep;
  const std::uint32_t pairs = (b.rows.count + 15) / 16;
  const std::uint32_t steps = p.w.columns / kStep;
  // The team's groups of columns are every kParts-th; `turn` counts its steps.
  const auto step_of = [](std::uint32_t turn) {
    return (turn / Group::kSteps * kParts + T::index()) * Group::kSteps + turn % Group::kSteps;
  };
  const auto fetch = [&](std::uint32_t turn) {
    const std::uint32_t step = step_of(turn);
    if (step < steps) {
      std::uint16_t* stage = b.stages + turn % kStages * kStage;
      fetch_rows<kRows, kParts>(p.x + b.x_offset, b.table, pairs, step * kStep, stage);
      if constexpr (kSplit)
        fetch_rows<kRows, kParts>(p.x_rest + b.x_offset, b.table, pairs, step * kStep,
                                  stage + kRest);
    }
    copy_async_commit();
  };
  constexpr std::uint32_t kFetched = kGroup ? kStages - 2 : kStages - 1;  // steps ahead
#pragma unroll
  for (std::uint32_t turn = 0; turn < kFetched; ++turn)
    fetch(turn);

  float sum[2][kHeld / 8][4] = {};
  if constexpr (kGroup) fence_sums<kHeld>(sum);
  constexpr std::uint32_t kAhead = groups_ahead<type>(kParts);
  Group ahead[kAhead] = {};
  const auto load = [&](Group& group, std::uint32_t turn) {
    if (step_of(turn) < steps)
      group.template load<kGated>(p, b.rows.slab, b.first_output, b.output_end,
                                  step_of(turn) / Group::kSteps);
  };
#pragma unroll
  for (std::uint32_t i = 0; i < kAhead; ++i)
    load(ahead[i], i * Group::kSteps);
  for (std::uint32_t turn = 0; step_of(turn) < steps; turn += Group::kSteps) {
    Group weights = ahead[0];
#pragma unroll
    for (std::uint32_t i = 0; i + 1 < kAhead; ++i)
      ahead[i] = ahead[i + 1];
    load(ahead[kAhead - 1], turn + kAhead * Group::kSteps);
    weights.finish();
#pragma unroll
    for (std::uint32_t i = 0; i < Group::kSteps; ++i) {
      // All but the newest instructions done: of the step before the last, none is under way.
      if constexpr (kGroup) group_wait<kSplit ? 2 : 1>();
      copy_async_wait<kFetched - 1>();
      if constexpr (kGroup) publish_shared();
      T::sync();
      fetch(turn + i + kFetched);
      multiply_step<type, kHeld, kSplit, kGroup>(
          weights, i, &b.book, b.stages + (turn + i) % kStages * kStage, kRest, pairs, sum);
    }
  }
  if constexpr (kGroup) {
    group_wait<0>();
    fence_sums<kHeld>(sum);
  }
  if constexpr (kParts > 1) {
    add_parts<kHeld, kParts>(reinterpret_cast<float*>(dynamic_shared()), sum);
    if (T::index() != 0) return;
  }
  write_sums<type, kHeld, kGated>(p, b.table, b.rows.count, b.first_output, b.output_end, sum);
}

template <ElementType type,
          std::uint32_t kRows,
          std::uint32_t kParts,
          bool kGated,
          bool kSplit,
          bool kGroup>
DS4_KERNEL void DS4_BOUNDS(kThreads, resident_blocks(kRows)) tile_product(TileProduct p) {
  DS4_SHARED CodebookMemory<1> book_memory;
  DS4_SHARED RowTable<kRows> table;
  using T = Team<kParts>;
  constexpr std::uint32_t kTeamHalves = stage_count(kParts, kSplit) * stage_halves(kRows, kSplit);
  const Codebook book = book_memory.view();
  if constexpr (type == ElementType::kIQ2XXS) load_codebook(p.grid, book_memory);
  wait_for_inputs();
  const bool grouped = p.experts.tiles != nullptr;
  const Rows rows = rows_of_block(p, grouped ? blockIdx.y : blockIdx.x, kRows);
  if (rows.count == 0) return;
  list_rows(p, rows, table);
  block_sync();
  const std::uint32_t group_rows = p.w.rows / p.groups;
  const std::uint32_t block_output =
      (grouped ? blockIdx.x : blockIdx.y) * block_outputs(kParts, kGated);
  const std::uint32_t warp_output =
      kParts == 1 ? threadIdx.x / 32 * (kWarpOutputs / (kGated ? 2 : 1)) : 0;
  const Share<kRows> share{table,
                           book,
                           first_stage<kGroup>() + T::index() * kTeamHalves,
                           rows,
                           blockIdx.z * group_rows + block_output + warp_output,
                           (blockIdx.z + 1) * group_rows,
                           std::size_t{blockIdx.z} * p.group_columns};
  if constexpr (kGroup) {
    // The instructions' width is fixed: a width for tiles that are less than full.
    if (rows.count <= kRows / 2)
      return multiply_share<type, kRows, kRows / 2, kParts, kGated, kSplit, kGroup>(p, share);
    if constexpr (kRows == 128) {
      if (rows.count <= 96)
        return multiply_share<type, kRows, 96, kParts, kGated, kSplit, kGroup>(p, share);
    }
  }
  multiply_share<type, kRows, kRows, kParts, kGated, kSplit, kGroup>(p, share);
}

template <ElementType type,
          std::uint32_t kRows,
          std::uint32_t kParts,
          bool kGated,
          bool kSplit,
          bool kGroup>
void launch_as(Stream& stream, const char* stage, const TileProduct& p) {
  const std::uint32_t outputs = block_outputs(kParts, kGated);
  const std::uint32_t output_blocks = (p.w.rows / p.groups + outputs - 1) / outputs;
  const bool grouped = p.experts.tiles != nullptr;
  DS4_CHECK(p.w.columns % kStep == 0);
  // Neighbouring blocks share what is dearer: x of an expert's rows, or weights.
  launch(stream, stage,
         {.grid_x = grouped ? output_blocks : (p.rows + kRows - 1) / kRows,
          .grid_y = grouped ? p.experts.tiles_max : output_blocks,
          .grid_z = p.groups,
          .threads = kThreads,
          .shared_bytes = kParts * stage_count(kParts, kSplit) * stage_halves(kRows, kSplit) *
                              sizeof(std::uint16_t) +
                          (kGroup ? kGroupAlignment : 0)},
         tile_product<type, kRows, kParts, kGated, kSplit, kGroup>, p);
}

// Whether warpgroups multiply weights of this type.  F16 codes are operands as they come from
// memory: the assembler puts the next ones into their registers while instructions in the
// background still read them.  Numbers that a computation makes get registers of their own.
template <ElementType type>
inline constexpr bool kByGroups = kWarpgroups&& type != ElementType::kF16;

template <ElementType type, std::uint32_t kRows, std::uint32_t kParts, bool kGated, bool kSplit>
void launch_tiles(Stream& stream, const char* stage, const TileProduct& p) {
  if constexpr (kByGroups<type> && kRows >= 64) {
    if (has_warpgroups() && !p.portable)
      return launch_as<type, kRows, kParts, kGated, kSplit, true>(stream, stage, p);
  }
  launch_as<type, kRows, kParts, kGated, kSplit, false>(stream, stage, p);
}

// Tiles of the rows there are.  Few rows of a dense matrix would leave most of the card idle: there
// a block's warps share the columns.
template <ElementType type, bool kGated>
void launch_fitting(Stream& stream, const char* stage, const TileProduct& p) {
  if (p.experts.tiles == nullptr && p.rows <= 16)
    return launch_tiles<type, 16, 4, kGated, false>(stream, stage, p);
  if (p.experts.tiles == nullptr && p.rows <= 32)
    return launch_tiles<type, 32, 4, kGated, false>(stream, stage, p);
  switch (p.experts.tiles == nullptr ? (p.rows <= 64 ? 64 : 128) : p.experts.rows) {
    case 16:
      return launch_tiles<type, 16, 1, kGated, false>(stream, stage, p);
    case 64:
      return launch_tiles<type, 64, 1, kGated, false>(stream, stage, p);
    default:
      return launch_tiles<type, 128, 1, kGated, false>(stream, stage, p);
  }
}

// Plain matrices take x in two parts where products are to be near f32's.
template <ElementType type>
void launch_split(Stream& stream, const char* stage, const TileProduct& p) {
  DS4_CHECK(p.experts.tiles == nullptr);
  if (p.rows <= 32) return launch_tiles<type, 32, 4, false, true>(stream, stage, p);
  launch_tiles<type, 64, 1, false, true>(stream, stage, p);
}

}  // namespace ds4::cuda::tiles
