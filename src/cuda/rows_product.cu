// Products of a quantised matrix with 2 to 32 rows of integers (integer_dot.cuh), for decode of
// several sequences.
//
// A block holds a chunk of the columns of all rows in shared memory, up to four blocks of 256, and
// its 8 warps take tiles of 16 weight rows over them.  A chunk is one or two of the parts that
// matvec.cu adds a row's sum up from; sums of several chunks meet in memory, and a second launch
// adds them in matvec.cu's order and, where the next product wants it, turns them into integers.
//
// The codes of the next block are on their way while one is multiplied, those of the first are
// asked for before the launch waits for its inputs.  Memory: each weight byte once; rows once a
// block, from the second-level cache; 8 bytes an output, row and chunk, written and read there.
#include <algorithm>

#include "cuda/integer_dot.cuh"
#include "cuda/rows_product.h"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kWarps = kThreads / 32;
constexpr std::uint32_t kChunkBlocks = 4;  // of 256 columns, unless one part has more
constexpr std::uint32_t kChunksMax = 8;

// How columns are shared out.
struct Chunks {
  std::uint32_t count;
  std::uint32_t parts;        // of the matrix
  std::uint32_t own_parts;    // of a chunk: 1 or 2
  std::uint32_t part_blocks;  // of a part, the last ones perhaps fewer
};
constexpr Chunks chunks_of(std::uint32_t columns) {
  const std::uint32_t parts = column_parts(columns);
  const std::uint32_t part_blocks = ((columns + 255) / 256 + parts - 1) / parts;
  const std::uint32_t own_parts = parts > 1 && part_blocks * 2 <= kChunkBlocks ? 2 : 1;
  return {parts / own_parts, parts, own_parts, part_blocks};
}

struct Tiling {
  Chunks chunks;
  std::uint32_t groups, group_tiles, group_blocks;  // blocks of a group's tiles, for each chunk
  std::uint32_t warp_tiles;
};

// The chunk's columns of all rows of one group to shared memory: block b of x is block
// block_of(b) of the rows, by the whole block of threads.
template <class BlockOf>
DS4_DEVICE void fetch_rows(const RowsProduct& p,
                           const IntegerRows& x,
                           std::uint32_t group,
                           std::uint32_t groups,
                           const BlockOf& block_of) {
  constexpr std::uint32_t kPieces = 16;  // of 16 bytes, in 256 columns of a plane
  for (std::uint32_t i = threadIdx.x; i < p.rows * 2 * x.blocks * kPieces; i += kThreads) {
    const std::uint32_t b = i / kPieces % x.blocks;
    const std::uint32_t plane = i / (kPieces * x.blocks);  // 2 * row, + 1
    const IntegerRows from = row_integers(p.x, plane / 2 * groups + group, p.w.columns);
    if (block_of(b) < from.blocks)
      copy_async(x.planes + plane * x.stride + b * 256 + i % kPieces * 16,
                 from.planes + plane % 2 * from.stride + block_of(b) * 256 + i % kPieces * 16,
                 true);
  }
  for (std::uint32_t i = threadIdx.x; i < p.rows * x.blocks; i += kThreads) {
    const IntegerRows from = row_integers(p.x, i / x.blocks * groups + group, p.w.columns);
    const std::uint32_t block = block_of(i % x.blocks);
    if (block < from.blocks) copy_async_4(x.scales + i, from.scales + block);
  }
}

// The results of a tile from `first_output` on, or the chunk's share of them: sums of sixteen rows
// and sixteen more.
template <int kTurns, int kOwnTiles>
DS4_DEVICE void write_sums(const RowsProduct& p,
                           const Chunks& chunks,
                           std::uint32_t first_output,
                           const float (&sums)[kTurns][kOwnTiles][2]) {
  const std::uint32_t lane = threadIdx.x % 32;
  const bool is_final = chunks.count == 1 && p.out_integers == nullptr;
  float* const to = is_final ? p.out : p.parts + std::size_t{blockIdx.y} * p.rows * p.w.rows;
  const std::size_t stride = is_final ? p.out_stride : p.w.rows;
  const std::uint32_t output = first_output + lane / 4;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn)
#pragma unroll
    for (int t = 0; t < kOwnTiles; ++t) {
      const std::uint32_t r = static_cast<std::uint32_t>(turn * 4 + t) * 4 + lane % 4;
      if (r >= p.rows) break;
      if (output < p.w.rows) to[r * stride + output] = sums[turn][t][0];
      if (output + 8 < p.w.rows) to[r * stride + output + 8] = sums[turn][t][1];
    }
}

template <ElementType kType, int kRows>
DS4_KERNEL void DS4_BOUNDS(kThreads, 2) multiply_rows(RowsProduct p, Tiling tiling) {
  using C = Codec<kType>;
  constexpr int kTiles = 4;  // of four rows, at a time
  constexpr int kTurns = kRows <= 16 ? 1 : 2;
  constexpr int kOwnTiles = kRows <= 8 ? 2 : kTiles;
  DS4_SHARED CodebookMemory<kType == ElementType::kIQ2XXS ? 8 : 1> book_memory;
  const Codebook book = book_memory.view();
  if constexpr (kType == ElementType::kIQ2XXS) load_codebook(p.grid, book_memory);
  const Chunks& chunks = tiling.chunks;
  const std::uint32_t blocks = (p.w.columns + 255) / 256;
  const std::uint32_t first_part = blockIdx.y * chunks.own_parts;
  const auto block_of = [&](std::uint32_t b) {
    return first_part + b / chunks.part_blocks + b % chunks.part_blocks * chunks.parts;
  };
  const std::uint32_t group = blockIdx.x / tiling.group_blocks;
  const std::uint32_t first_tile =
      (blockIdx.x % tiling.group_blocks * kWarps + threadIdx.x / 32) * tiling.warp_tiles;
  const std::uint32_t end_tile = std::min(first_tile + tiling.warp_tiles, tiling.group_tiles);
  const std::uint32_t own_blocks = chunks.own_parts * chunks.part_blocks;
  const IntegerRows x(dynamic_shared(), kRows, own_blocks * 256);

  WeightBlock<C> next;
  std::uint32_t next_tile = first_tile;
  std::uint32_t next_block = 0;
  const auto load_next = [&] {
    while (next_tile < end_tile && block_of(next_block) >= blocks)
      if (++next_block == own_blocks) {
        next_block = 0;
        ++next_tile;
      }
    if (next_tile >= end_tile) return;
    const TileRows tile(p.w, 0, (group * tiling.group_tiles + next_tile) * kTileOutputs);
    tile.load(next, p.w.columns, block_of(next_block));
    if (++next_block == own_blocks) {
      next_block = 0;
      ++next_tile;
    }
  };
  load_next();
  wait_for_inputs();
  fetch_rows(p, x, group, tiling.groups, block_of);
  copy_async_commit();
  copy_async_wait<0>();
  block_sync();

  for (std::uint32_t tile = first_tile; tile < end_tile; ++tile) {
    float total[kTurns][kOwnTiles][2] = {};
    for (std::uint32_t part = 0; part < chunks.own_parts; ++part) {
      float sums[kTurns][1][kOwnTiles][2] = {};
      for (std::uint32_t j = 0; j < chunks.part_blocks; ++j) {
        const std::uint32_t b = part * chunks.part_blocks + j;
        if (block_of(b) >= blocks) break;
        WeightBlock<C> now[1] = {next};
        load_next();
#pragma unroll
        for (int turn = 0; turn < kTurns; ++turn)
          add_block<C, kOwnTiles, 1>(now, x.from(static_cast<std::uint32_t>(turn) * kTiles * 4),
                                     kOwnTiles * 4, b, &book, sums[turn]);
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn)
#pragma unroll
        for (int t = 0; t < kOwnTiles; ++t)
#pragma unroll
          for (int k = 0; k < 2; ++k)
            total[turn][t][k] =
                part == 0 ? sums[turn][0][t][k] : total[turn][t][k] + sums[turn][0][t][k];
    }
    write_sums(p, chunks, (group * tiling.group_tiles + tile) * kTileOutputs, total);
  }
}

// Adds the chunks' sums, a warp 256 outputs of a row.
DS4_KERNEL void add_chunks(RowsProduct p, std::uint32_t chunks) {
  wait_for_inputs();
  const std::uint32_t block = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const std::uint32_t r = blockIdx.y;
  if (block * 256 >= p.w.rows) return;
  const std::uint32_t c = block * 256 + threadIdx.x % 32 * 8;
  float v[kChunksMax][8];
#pragma unroll
  for (std::uint32_t k = 0; k < kChunksMax; ++k)
    if (k < chunks) load8(p.parts + (std::size_t{k} * p.rows + r) * p.w.rows, p.w.rows, c, v[k]);
  float sums[8];
#pragma unroll
  for (int i = 0; i < 8; ++i)
    sums[i] = sum_parts(chunks, [&](std::uint32_t k) { return v[k][i]; });
  store8(p.out + std::size_t{r} * p.out_stride, p.w.rows, c, sums);
  if (p.out_integers != nullptr)
    put_integers(row_integers(p.out_integers, r, p.w.rows), 0, block, sums);
}

DS4_KERNEL void rows_to_integers(std::uint32_t columns,
                                 const float* x,
                                 const float* norm_weight,
                                 float epsilon,
                                 std::byte* integers) {
  wait_for_inputs();
  const std::uint32_t r = blockIdx.x;
  const float* from = x + std::size_t{r} * columns;
  put_rows<false>(
      row_integers(integers, r, columns), 1, columns, [&](std::uint32_t) { return from; },
      norm_weight, epsilon);
}

template <ElementType kType>
void launch_product(Stream& stream,
                    const DeviceInfo& device,
                    const char* stage,
                    const RowsProduct& p) {
  const Chunks chunks = chunks_of(p.w.columns);
  Tiling tiling{
      .chunks = chunks, .groups = 1, .group_tiles = 0, .group_blocks = 0, .warp_tiles = 1};
  if (p.rows_per_group != 0) {
    tiling.groups = p.w.rows / p.rows_per_group;
    DS4_CHECK(p.rows_per_group % kTileOutputs == 0);
  }
  const std::uint32_t group_rows = p.w.rows / tiling.groups;
  tiling.group_tiles = (group_rows + kTileOutputs - 1) / kTileOutputs;
  // Two blocks a multiprocessor.
  const std::uint32_t tiles = tiling.group_tiles * tiling.groups * chunks.count;
  const std::uint32_t warps = device.multiprocessors * 2 * kWarps;
  tiling.warp_tiles = (tiles + warps - 1) / warps;
  const std::uint32_t block_tiles = kWarps * tiling.warp_tiles;
  tiling.group_blocks = (tiling.group_tiles + block_tiles - 1) / block_tiles;
  const std::uint32_t columns = chunks.own_parts * chunks.part_blocks * 256;
  const std::uint32_t rows = p.rows <= 8 ? 8 : p.rows <= 16 ? 16 : 32;
  const LaunchShape shape{.grid_x = tiling.group_blocks * tiling.groups,
                          .grid_y = chunks.count,
                          .threads = kThreads,
                          .shared_bytes = integer_rows_bytes(rows, columns)};
  DS4_CHECK(shape.shared_bytes + 10 * 1024 <= device.shared_bytes_max);
  if (rows == 8) return launch(stream, stage, shape, multiply_rows<kType, 8>, p, tiling);
  if (rows == 16) return launch(stream, stage, shape, multiply_rows<kType, 16>, p, tiling);
  launch(stream, stage, shape, multiply_rows<kType, 32>, p, tiling);
}

}  // namespace

std::size_t product_parts(std::uint32_t rows, std::uint32_t outputs, std::uint32_t columns) {
  return std::size_t{chunks_of(columns).count} * rows * outputs;
}

void run_rows_product(Stream& stream,
                      const DeviceInfo& device,
                      const char* stage,
                      const RowsProduct& p) {
  DS4_CHECK(p.rows <= kIntegerRowsMax && is_quantised(p.w));
  const auto run = [&] {
    switch (p.w.type) {
      case ElementType::kQ8_0:
        return launch_product<ElementType::kQ8_0>(stream, device, stage, p);
      case ElementType::kIQ2XXS:
        return launch_product<ElementType::kIQ2XXS>(stream, device, stage, p);
      case ElementType::kMXFP4:
        return launch_product<ElementType::kMXFP4>(stream, device, stage, p);
      case ElementType::kQ4K:
        return launch_product<ElementType::kQ4K>(stream, device, stage, p);
      case ElementType::kQ2K:
        return launch_product<ElementType::kQ2K>(stream, device, stage, p);
      default:
        DS4_CHECK(false);
    }
  };
  run();
  const std::uint32_t chunks = chunks_of(p.w.columns).count;
  if (chunks == 1 && p.out_integers == nullptr) return;
  const std::uint32_t blocks = (p.w.rows + 255) / 256;
  launch(stream, stage, {.grid_x = (blocks + 3) / 4, .grid_y = p.rows, .threads = 128}, add_chunks,
         p, chunks);
}

void make_integers(Stream& stream,
                   std::uint32_t rows,
                   std::uint32_t columns,
                   const float* x,
                   const float* norm_weight,
                   float epsilon,
                   std::byte* integers) {
  launch(stream, "integers", {.grid_x = rows, .threads = 128}, rows_to_integers, columns, x,
         norm_weight, epsilon, integers);
}

}  // namespace ds4::cuda
