// The experts of few rows: two launches that read the codes of each chosen expert.
//
//   mid[r][slot] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight     out[r] = sum of W2 mid
//
// Slots of a row are its chosen experts, then the shared one; a pair is a row and one of its chosen
// experts.  Products are integer (integer_dot.cuh), up to four rows for the price of one.
//
// gate_up: a block makes some tiles of 16 values of one expert, for all rows that chose it: every
// pair has its blocks, and those of the first pair of an expert do the work of all, four pairs at a
// time, so codes are decoded once for four.  Blocks of the shared expert, which come first in the
// grid as they are the longest, have up to eight rows.  Half of a block's 8 warps hold the gate's
// weight rows, half the other's, and the warps of a half share the columns.
//
// down: a block makes some tiles of 16 outputs of one row; every slot has one or two warps, which
// share the columns.  Blocks of different rows for the same tiles are neighbours, so that rows that
// chose the same expert find its codes in the second-level cache.
//
// Parts meet in shared memory and are added in warp order: sums do not depend on other rows.
// Memory: codes once an expert (down: once a pair, mostly from the cache), the shared expert's once
// for eight rows, then from the cache; the input once a block, from the cache.
#include <algorithm>

#include "cuda/activate.cuh"
#include "cuda/experts.h"
#include "cuda/integer_dot.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kOutputs = 16;  // of a block
constexpr std::uint32_t kGateThreads = 256;
constexpr std::uint32_t kGateWarps = kGateThreads / 32 / 2;  // of one of the two matrices
constexpr std::uint32_t kRoutedParts = 1;  // warps that share the columns of a tile
constexpr std::uint32_t kSharedParts = 4;  // those of the shared expert are few and long
constexpr std::uint32_t kDownThreadsMax = 512;
constexpr std::uint32_t kPairsTogether = 4;  // pairs that share one decoding of codes
constexpr std::uint32_t kSharedRows = 8;     // rows that share a read of the shared expert

static_assert(kExpertRowsMax * kExpertsUsedMax <= kGateThreads);

// Stands for a type that the kernel does not know beforehand.  A kernel built for its types needs
// fewer registers than one that holds every format.
constexpr ElementType kAnyType = ElementType::kI32;

template <ElementType kRouted, ElementType kShared, class Body>
DS4_DEVICE void with_expert_codec(bool is_shared, ElementType type, const Body& body) {
  if constexpr (kRouted == kAnyType) {
    with_codec(type, body);
  } else if (is_shared) {
    body(Codec<kShared>{});
  } else {
    body(Codec<kRouted>{});
  }
}

constexpr std::uint32_t shares(std::uint32_t count, std::uint32_t each) {
  return (count + each - 1) / each;
}

// Lanes' copies of IQ2_XXS's codebook, where a kernel may meet the format.
constexpr std::uint32_t book_copies(ElementType type) {
  return type == ElementType::kIQ2XXS || type == kAnyType ? 16 : 1;
}

// What a block of gate_up() works on: some tiles for one pair or for the shared slot of some rows.
struct GateShare {
  std::uint32_t first;  // the pair, or the first row
  std::uint32_t rows;   // of the shared slot
  std::uint32_t first_tile, tile_count;
  bool is_shared;
};

DS4_DEVICE GateShare gate_share(const ExpertsJob& job) {
  GateShare share{};
  const std::uint32_t tiles = shares(job.gate.rows, kOutputs);
  const std::uint32_t groups = shares(job.rows, kSharedRows);
  const std::uint32_t shared_blocks = groups * shares(tiles, job.shared_tiles);
  std::uint32_t block = blockIdx.x;
  share.is_shared = block < shared_blocks;
  std::uint32_t each = job.routed_tiles;
  if (share.is_shared) {
    // Groups of rows that read the same weights are neighbours.
    each = job.shared_tiles;
    share.first = block % groups * kSharedRows;
    share.rows = job.rows - share.first < kSharedRows ? job.rows - share.first : kSharedRows;
    share.first_tile = block / groups * each;
  } else {
    block -= shared_blocks;
    share.first = block / shares(tiles, each);
    share.first_tile = block % shares(tiles, each) * each;
  }
  share.tile_count = tiles - share.first_tile < each ? tiles - share.first_tile : each;
  return share;
}

// The pairs of one expert.
struct PairList {
  std::uint32_t pairs[kGateThreads];
  std::uint32_t found[kGateThreads / 32];  // a bit a pair
};

// Lists the pairs that chose the expert of `pair`, by the whole block; none if `pair` is not the
// first of them.  Their number.
DS4_DEVICE std::uint32_t list_pairs(const ExpertsJob& job, std::uint32_t pair, PairList& list) {
  const std::uint32_t other = threadIdx.x;
  const bool same = other < job.rows * job.used && job.ids[other] == job.ids[pair];
  const std::uint32_t votes = ballot(same);
  if (threadIdx.x % 32 == 0) list.found[threadIdx.x / 32] = votes;
  block_sync();
  std::uint32_t before_pair = 0;
  std::uint32_t before = 0;
  std::uint32_t count = 0;
  const auto below = [](std::uint32_t bits, std::uint32_t word, std::uint32_t end) {
    return end / 32 > word ? bits : end / 32 < word ? 0 : bits & ((1U << (end % 32)) - 1);
  };
#pragma unroll
  for (std::uint32_t w = 0; w < kGateThreads / 32; ++w) {
    const std::uint32_t bits = list.found[w];
    before_pair += static_cast<std::uint32_t>(count_bits(below(bits, w, pair)));
    before += static_cast<std::uint32_t>(count_bits(below(bits, w, other)));
    count += static_cast<std::uint32_t>(count_bits(bits));
  }
  if (before_pair != 0) return 0;
  if (same) list.pairs[before] = other;
  block_sync();
  return count;
}

// Shared memory of a block of gate_up().
template <std::uint32_t kCopies>
struct GateMemory {
  CodebookMemory<kCopies> book;
  PairList list;
  // Of the warps that share a tile's columns, of gate and up.
  float parts[2][kGateWarps][kOutputs][kSharedRows];
};

// The block's tiles for `rows` rows: row_of(r) names a row of x, put(r, output, gate, up) takes a
// result.
template <class C, int kTiles, std::uint32_t kParts, class Memory, class RowOf, class Put>
DS4_DEVICE void gate_up_rows(const ExpertsJob& job,
                             const GateShare& share,
                             std::size_t slab,
                             std::uint32_t rows,
                             const Codebook& book,
                             Memory& memory,
                             const RowOf& row_of,
                             const Put& put) {
  const Matrix& gate = share.is_shared ? job.shared_gate : job.gate;
  const Matrix& up = share.is_shared ? job.shared_up : job.up;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t half = warp / kGateWarps;
  constexpr std::uint32_t kSets = kGateWarps / kParts;  // tiles at a time
  const std::uint32_t own_tile = share.first_tile + warp % kGateWarps / kParts;
  const IntegerRows x(dynamic_shared(), rows, gate.columns);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(half == 0 ? gate : up, slab, (own_tile + i * kSets) * kOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    for (std::uint32_t r = 0; r < rows; ++r)
      copy_row(x, r, row_integers(job.x, row_of(r), gate.columns));
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[kTiles][2]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (std::uint32_t k = 0; k < 2; ++k)
        memory.parts[half][warp % kGateWarps][lane / 4 + k * 8]
                    [static_cast<std::uint32_t>(t) * 4 + lane % 4] = sums[t][k];
    block_sync();
    for (std::uint32_t at = threadIdx.x; at < kSets * kOutputs * rows; at += kGateThreads) {
      const std::uint32_t o = at % kOutputs;
      const std::uint32_t set = at / kOutputs % kSets;
      const std::uint32_t r = at / (kOutputs * kSets);
      const std::uint32_t tile = i * kSets + set;
      const std::uint32_t output = (share.first_tile + tile) * kOutputs + o;
      if (tile >= share.tile_count || output >= gate.rows) continue;
      float total[2] = {0, 0};
      for (std::uint32_t p = set * kParts; p < (set + 1) * kParts; ++p) {
        total[0] += memory.parts[0][p][o][r];
        total[1] += memory.parts[1][p][o][r];
      }
      put(r, output, total[0], total[1]);
    }
    block_sync();
  };
  walk_tiles<C, kTiles>(shares(share.tile_count, kSets), gate.columns, warp % kParts, kParts, x,
                        rows, &book, tile_of, stage, finish);
}

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(kGateThreads, 2) gate_up(ExpertsJob job) {
  DS4_SHARED GateMemory<book_copies(kRouted)> memory;
  const GateShare share = gate_share(job);
  const ElementType type = share.is_shared ? job.shared_gate.type : job.gate.type;
  const std::uint32_t slots = job.used + 1;
  Codebook book;
  if (type == ElementType::kIQ2XXS) book = load_codebook(job.grid, memory.book);
  if (share.is_shared) {
    // Its codes are known before the router has spoken.
    const auto row_of = [&](std::uint32_t r) { return share.first + r; };
    const auto put = [&](std::uint32_t r, std::uint32_t output, float gate, float up) {
      job.mid[(std::size_t{share.first + r} * slots + job.used) * job.gate.rows + output] =
          activated(gate, up, job.limit, 1.0F);
    };
    return with_expert_codec<kRouted, kShared>(true, type, [&](auto codec) {
      using C = decltype(codec);
      if (share.rows > 4) {
        gate_up_rows<C, 2, kSharedParts>(job, share, 0, share.rows, book, memory, row_of, put);
      } else {
        gate_up_rows<C, 1, kSharedParts>(job, share, 0, share.rows, book, memory, row_of, put);
      }
    });
  }
  wait_for_inputs();
  const std::uint32_t count = list_pairs(job, share.first, memory.list);
  const auto slab = static_cast<std::size_t>(job.ids[share.first]);
  for (std::uint32_t first = 0; first < count; first += kPairsTogether) {
    const std::uint32_t rows = count - first < kPairsTogether ? count - first : kPairsTogether;
    const auto row_of = [&](std::uint32_t r) { return memory.list.pairs[first + r] / job.used; };
    const auto put = [&](std::uint32_t r, std::uint32_t output, float gate, float up) {
      const std::uint32_t pair = memory.list.pairs[first + r];
      const std::size_t row = std::size_t{pair / job.used} * slots + pair % job.used;
      job.mid[row * job.gate.rows + output] = activated(gate, up, job.limit, job.weights[pair]);
    };
    with_expert_codec<kRouted, kShared>(false, type, [&](auto codec) {
      gate_up_rows<decltype(codec), 1, kRoutedParts>(job, share, slab, rows, book, memory, row_of,
                                                     put);
    });
  }
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kDownThreadsMax, 1) down(ExpertsJob job) {
  DS4_SHARED CodebookMemory<book_copies(kRouted)> book_memory;
  DS4_SHARED float partial[(kExpertsUsedMax + 1) * kDownParts][kOutputs];
  const std::uint32_t r = blockIdx.x;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t slot = warp / kDownParts;
  const std::uint32_t columns = job.down.columns;
  Codebook book;
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    book = load_codebook(job.grid, book_memory);
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  // The ids are older than the launch before this one, so they need no wait.
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[r * job.used + slot]);
  const IntegerRows x(dynamic_shared() + slot * integer_rows_bytes(1, columns), 1, columns);
  const float* mid = job.mid + (std::size_t{r} * (job.used + 1) + slot) * columns;
  const std::uint32_t tiles = shares(m.rows, kOutputs);
  const std::uint32_t first = blockIdx.y * job.down_tiles;
  const auto tile_of = [&](std::uint32_t i) { return TileRows(m, slab, (first + i) * kOutputs); };
  const auto stage = [&] {
    wait_for_inputs();
    // A slot's warps bring in its row.  All warps meet here, though some from the shared expert's
    // code and some from the routed experts'.
    put_row_by(x, 0, mid, columns, warp % kDownParts, kDownParts);
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[1][2]) {
    if (lane % 4 == 0) {
      partial[warp][lane / 4] = sums[0][0];
      partial[warp][lane / 4 + 8] = sums[0][1];
    }
    block_sync();
    const std::uint32_t output = (first + i) * kOutputs + threadIdx.x;
    if (threadIdx.x < kOutputs && output < m.rows) {
      float total = 0;
      for (std::uint32_t p = 0; p < (job.used + 1) * kDownParts; ++p)
        total += partial[p][threadIdx.x];
      job.output[std::size_t{r} * m.rows + output] = total;
    }
    block_sync();
  };
  const std::uint32_t count = tiles - first < job.down_tiles ? tiles - first : job.down_tiles;
  with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
    walk_tiles<decltype(codec), 1>(count, columns, warp % kDownParts, kDownParts, x, 1, &book,
                                   tile_of, stage, finish);
  });
}

using ExpertsKernel = void (*)(ExpertsJob);

// The kernels of the published combinations, else the one for all.
ExpertsKernel gate_up_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_gate.type == kShared && job.shared_up.type == kShared) {
    if (job.gate.type == ElementType::kIQ2XXS) return gate_up<ElementType::kIQ2XXS, kShared>;
    if (job.gate.type == ElementType::kQ4K) return gate_up<ElementType::kQ4K, kShared>;
  }
  return gate_up<kAnyType, kAnyType>;
}

template <std::uint32_t kDownParts>
ExpertsKernel down_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_down.type == kShared) {
    if (job.down.type == ElementType::kQ2K) return down<ElementType::kQ2K, kShared, kDownParts>;
    if (job.down.type == ElementType::kQ4K) return down<ElementType::kQ4K, kShared, kDownParts>;
  }
  return down<kAnyType, kAnyType, kDownParts>;
}

}  // namespace

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& wanted) {
  ExpertsJob job = wanted;
  DS4_CHECK(job.rows <= kExpertRowsMax);
  const std::uint32_t slots = job.used + 1;
  const std::uint32_t pairs = job.rows * job.used;
  const std::uint32_t shared_rows = std::min(job.rows, kSharedRows);
  const std::uint32_t groups = shares(job.rows, kSharedRows);
  // Two blocks a multiprocessor, few enough tiles each that the last to end is not late.  A tile of
  // the shared expert has several times the bytes of a routed one.
  const std::uint32_t tiles = shares(job.gate.rows, kOutputs);
  const std::uint32_t share = tiles * (pairs + 3 * groups) / (device.multiprocessors * 2);
  job.routed_tiles = std::clamp(share, 4U, 8U) / 4 * 4;
  job.shared_tiles = shares(job.routed_tiles, 2);
  launch(
      stream, "expert gate and up",
      {.grid_x = groups * shares(tiles, job.shared_tiles) + pairs * shares(tiles, job.routed_tiles),
       .threads = kGateThreads,
       .shared_bytes = integer_rows_bytes(shared_rows, job.gate.columns)},
      gate_up_kernel(job), job);
  const std::size_t down_bytes = slots * integer_rows_bytes(1, job.down.columns);
  DS4_CHECK(down_bytes + 8192 <= device.shared_bytes_max);
  // One row: all warps that fit; several: blocks small enough that two share a multiprocessor.
  const std::uint32_t parts = job.rows == 1 && slots * 64 <= kDownThreadsMax ? 2 : 1;
  const std::uint32_t down_tiles = shares(job.down.rows, kOutputs);
  const std::uint32_t resident = device.multiprocessors * (parts == 2 ? 1 : 2);
  job.down_tiles = std::min(shares(down_tiles * job.rows, resident), 8U);
  launch(stream, "expert down",
         {.grid_x = job.rows,
          .grid_y = shares(down_tiles, job.down_tiles),
          .threads = slots * parts * 32,
          .shared_bytes = down_bytes},
         parts == 2 ? down_kernel<2>(job) : down_kernel<1>(job), job);
}

}  // namespace ds4::cuda
