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
// weight rows, half the other's; a warp has a tile, of the shared expert a quarter of its columns.
//
// down, one row: a block makes 16 outputs, every slot has one or two warps, which share the
// columns, and slots are added in the block.  Several rows: blocks as in gate_up, a tile a warp,
// results by pair to memory, and a kernel more to add the slots.  Both add in the same order.
//
// Parts meet in shared memory and are added in warp order: sums do not depend on other rows.
// Memory: codes once an expert, of the shared one once for eight rows, then from the second-level
// cache; the input once a block, from the cache.
#include <algorithm>

#include "cuda/activate.cuh"
#include "cuda/experts.h"
#include "cuda/grouped_experts.h"
#include "cuda/integer_dot.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kOutputs = 16;  // of a block
constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kWarps = kThreads / 32;
constexpr std::uint32_t kGateWarps = kWarps / 2;  // of one of the two matrices
constexpr std::uint32_t kRoutedParts = 1;         // warps that share the columns of a tile
constexpr std::uint32_t kSharedParts = 4;         // those of the shared expert are few and long
constexpr std::uint32_t kDownThreadsMax = 512;
constexpr std::uint32_t kPairsTogether = 4;  // pairs that share one decoding of codes
constexpr std::uint32_t kSharedRows = 8;     // rows that share a read of the shared expert

static_assert(kIntegerRowsMax * kExpertsUsedMax <= kThreads);

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

// What a block works on: some tiles for one pair or for the shared slot of some rows.
struct Share {
  std::uint32_t first;  // the pair, or the first row
  std::uint32_t rows;   // of the shared slot
  std::uint32_t first_tile, tile_count;
  bool is_shared;
};

// Of the blocks that make `tiles` tiles, `each` a block: first those of the shared slot.
DS4_DEVICE Share share_of_block(const ExpertsJob& job,
                                std::uint32_t tiles,
                                std::uint32_t routed_tiles,
                                std::uint32_t shared_tiles) {
  Share share{};
  const std::uint32_t groups = shares(job.rows, kSharedRows);
  const std::uint32_t shared_blocks = groups * shares(tiles, shared_tiles);
  std::uint32_t block = blockIdx.x;
  share.is_shared = block < shared_blocks;
  std::uint32_t each = routed_tiles;
  if (share.is_shared) {
    // Groups of rows that read the same weights are neighbours.
    each = shared_tiles;
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
  std::uint32_t pairs[kThreads];
  std::uint32_t found[kThreads / 32];  // a bit a pair
};

// Lists the pairs that chose the expert of `pair`, by the whole block; none if `pair` is not the
// first of them.  Their number.
DS4_DEVICE std::uint32_t list_pairs(const ExpertsJob& job, std::uint32_t pair, PairList& list) {
  const std::uint32_t pairs = job.rows * job.used;
  const std::uint32_t other = threadIdx.x;
  const bool same = other < pairs && job.ids[other] == job.ids[pair];
  const std::uint32_t votes = ballot(same);
  if (threadIdx.x % 32 == 0) list.found[threadIdx.x / 32] = votes;
  block_sync();
  std::uint32_t before_pair = 0;
  std::uint32_t before = 0;
  std::uint32_t count = 0;
  const auto below = [](std::uint32_t bits, std::uint32_t word, std::uint32_t end) {
    return end / 32 > word ? bits : end / 32 < word ? 0 : bits & ((1U << (end % 32)) - 1);
  };
  for (std::uint32_t w = 0; w < shares(pairs, 32); ++w) {
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
                             const Share& share,
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
    for (std::uint32_t at = threadIdx.x; at < kSets * kOutputs * rows; at += kThreads) {
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
DS4_KERNEL void DS4_BOUNDS(kThreads, 2) gate_up(ExpertsJob job) {
  DS4_SHARED GateMemory<book_copies(kRouted)> memory;
  const Share share =
      share_of_block(job, shares(job.gate.rows, kOutputs), job.routed_tiles, job.shared_tiles);
  const ElementType type = share.is_shared ? job.shared_gate.type : job.gate.type;
  const std::uint32_t slots = job.used + 1;
  const Codebook book = memory.book.view();
  if (type == ElementType::kIQ2XXS) load_codebook(job.grid, memory.book);
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

// Of one row.
template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kDownThreadsMax, 1) down(ExpertsJob job) {
  DS4_SHARED CodebookMemory<book_copies(kRouted)> book_memory;
  DS4_SHARED float partial[kExpertsUsedMax + 1][kDownParts][kOutputs];
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t slot = warp / kDownParts;
  const std::uint32_t columns = job.down.columns;
  const Codebook book = book_memory.view();
  if (job.down.type == ElementType::kIQ2XXS || job.shared_down.type == ElementType::kIQ2XXS)
    load_codebook(job.grid, book_memory);
  const bool is_shared = slot == job.used;
  const Matrix& m = is_shared ? job.shared_down : job.down;
  // The ids are older than the launch before this one, so they need no wait.
  const std::size_t slab = is_shared ? 0 : static_cast<std::size_t>(job.ids[slot]);
  const IntegerRows x(dynamic_shared() + slot * integer_rows_bytes(1, columns), 1, columns);
  const float* mid = job.mid + std::size_t{slot} * columns;
  const std::uint32_t tiles = shares(m.rows, kOutputs);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(m, slab, (blockIdx.x + i * gridDim.x) * kOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    // A slot's warps bring in its row.  All warps meet here, though some from the shared expert's
    // code and some from the routed experts'.
    put_row_by(x, 0, mid, columns, warp % kDownParts, kDownParts);
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[1][2]) {
    if (lane % 4 == 0) {
      partial[slot][warp % kDownParts][lane / 4] = sums[0][0];
      partial[slot][warp % kDownParts][lane / 4 + 8] = sums[0][1];
    }
    block_sync();
    const std::uint32_t output = (blockIdx.x + i * gridDim.x) * kOutputs + threadIdx.x;
    if (threadIdx.x < kOutputs && output < m.rows) {
      float total = 0;
      for (std::uint32_t s = 0; s <= job.used; ++s) {
        float sum = partial[s][0][threadIdx.x];
#pragma unroll
        for (std::uint32_t p = 1; p < kDownParts; ++p)
          sum += partial[s][p][threadIdx.x];
        total += sum;
      }
      job.output[output] = total;
    }
    block_sync();
  };
  const std::uint32_t count = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
  with_expert_codec<kRouted, kShared>(is_shared, m.type, [&](auto codec) {
    walk_tiles<decltype(codec), 1>(count, columns, warp % kDownParts, kDownParts, x, 1, &book,
                                   tile_of, stage, finish);
  });
}

// Of some rows of one expert or of the shared one: place_of(r) names a row of mid and of the
// results.
template <class C, int kTiles, std::uint32_t kDownParts, class PlaceOf>
DS4_DEVICE void down_rows(const ExpertsJob& job,
                          const Share& share,
                          std::size_t slab,
                          std::uint32_t rows,
                          const Codebook& book,
                          const PlaceOf& place_of) {
  const Matrix& m = share.is_shared ? job.shared_down : job.down;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t own_tile = share.first_tile + threadIdx.x / 32;
  const IntegerRows x(dynamic_shared(), rows, m.columns);
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(m, slab, (own_tile + i * kWarps) * kOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    block_sync();  // whoever still reads the rows before
    for (std::uint32_t r = 0; r < rows; ++r)
      put_row(x, r, job.mid + place_of(r) * m.columns, m.columns, nullptr, 0);
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[kTiles][2]) {
    if (own_tile + i * kWarps >= share.first_tile + share.tile_count) return;
    const std::uint32_t output = (own_tile + i * kWarps) * kOutputs + lane / 4;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const std::uint32_t r = static_cast<std::uint32_t>(t) * 4 + lane % 4;
      if (r >= rows) break;
      float* to = job.slot_output + place_of(r) * m.rows + output;
      if (output < m.rows) to[0] = sums[t][0];
      if (output + 8 < m.rows) to[8] = sums[t][1];
    }
  };
  walk_tiles<C, kTiles, kDownParts>(shares(share.tile_count, kWarps), m.columns, 0, kDownParts, x,
                                    rows, &book, tile_of, stage, finish);
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(kThreads, 2) down_of_pairs(ExpertsJob job) {
  DS4_SHARED CodebookMemory<book_copies(kRouted)> book_memory;
  DS4_SHARED PairList list;
  const Share share = share_of_block(job, shares(job.down.rows, kOutputs), job.routed_down_tiles,
                                     job.shared_down_tiles);
  const ElementType type = share.is_shared ? job.shared_down.type : job.down.type;
  const std::uint32_t slots = job.used + 1;
  const Codebook book = book_memory.view();
  if (type == ElementType::kIQ2XXS) load_codebook(job.grid, book_memory);
  if (share.is_shared) {
    const auto place_of = [&](std::uint32_t r) {
      return std::size_t{share.first + r} * slots + job.used;
    };
    return with_expert_codec<kRouted, kShared>(true, type, [&](auto codec) {
      using C = decltype(codec);
      if (share.rows > 4) {
        down_rows<C, 2, kDownParts>(job, share, 0, share.rows, book, place_of);
      } else {
        down_rows<C, 1, kDownParts>(job, share, 0, share.rows, book, place_of);
      }
    });
  }
  // The ids are older than the launch before this one, so they need no wait.
  const std::uint32_t count = list_pairs(job, share.first, list);
  const auto slab = static_cast<std::size_t>(job.ids[share.first]);
  for (std::uint32_t first = 0; first < count; first += kPairsTogether) {
    const std::uint32_t rows = count - first < kPairsTogether ? count - first : kPairsTogether;
    const auto place_of = [&](std::uint32_t r) {
      const std::uint32_t pair = list.pairs[first + r];
      return std::size_t{pair / job.used} * slots + pair % job.used;
    };
    with_expert_codec<kRouted, kShared>(false, type, [&](auto codec) {
      down_rows<decltype(codec), 1, kDownParts>(job, share, slab, rows, book, place_of);
    });
  }
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
  const bool alone = job.rows == 1;
  if (job.shared_down.type == kShared) {
    if (job.down.type == ElementType::kQ2K)
      return alone ? down<ElementType::kQ2K, kShared, kDownParts>
                   : down_of_pairs<ElementType::kQ2K, kShared, kDownParts>;
    if (job.down.type == ElementType::kQ4K)
      return alone ? down<ElementType::kQ4K, kShared, kDownParts>
                   : down_of_pairs<ElementType::kQ4K, kShared, kDownParts>;
  }
  return alone ? down<kAnyType, kAnyType, kDownParts>
               : down_of_pairs<kAnyType, kAnyType, kDownParts>;
}

// Blocks of share_of_block().
std::uint32_t blocks_of(const ExpertsJob& job,
                        std::uint32_t tiles,
                        std::uint32_t routed_tiles,
                        std::uint32_t shared_tiles) {
  return shares(job.rows, kSharedRows) * shares(tiles, shared_tiles) +
         job.rows * job.used * shares(tiles, routed_tiles);
}

// Tiles of a routed block, a multiple of `step`: two blocks a multiprocessor, few enough tiles each
// that the last to end is not late.  A tile of the shared expert has several times the bytes.
std::uint32_t routed_share(const DeviceInfo& device,
                           const ExpertsJob& job,
                           std::uint32_t tiles,
                           std::uint32_t step,
                           std::uint32_t most) {
  const std::uint32_t units = job.rows * job.used + 3 * shares(job.rows, kSharedRows);
  const std::uint32_t share = tiles * units / (device.multiprocessors * 2);
  return std::clamp(share / step * step, step, most);
}

}  // namespace

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& wanted) {
  ExpertsJob job = wanted;
  DS4_CHECK(job.rows <= kIntegerRowsMax);
  const std::uint32_t slots = job.used + 1;
  const std::uint32_t rows = std::min(job.rows, kSharedRows);
  const std::uint32_t tiles = shares(job.gate.rows, kOutputs);
  job.routed_tiles = routed_share(device, job, tiles, kGateWarps, 8);
  job.shared_tiles = shares(job.routed_tiles, 2);
  launch(stream, "expert gate and up",
         {.grid_x = blocks_of(job, tiles, job.routed_tiles, job.shared_tiles),
          .threads = kThreads,
          .shared_bytes = integer_rows_bytes(rows, job.gate.columns)},
         gate_up_kernel(job), job);

  const bool halves = slots * 64 <= kDownThreadsMax;
  const ExpertsKernel kernel = halves ? down_kernel<2>(job) : down_kernel<1>(job);
  const std::uint32_t down_tiles = shares(job.down.rows, kOutputs);
  if (job.rows == 1) {
    const std::size_t bytes = slots * integer_rows_bytes(1, job.down.columns);
    DS4_CHECK(bytes + 24 * 1024 <= device.shared_bytes_max);
    return launch(stream, "expert down",
                  {.grid_x = std::min(down_tiles, device.multiprocessors),
                   .threads = slots * (halves ? 64 : 32),
                   .shared_bytes = bytes},
                  kernel, job);
  }
  job.routed_down_tiles = routed_share(device, job, down_tiles, kWarps, 4 * kWarps);
  job.shared_down_tiles = kWarps;
  launch(stream, "expert down",
         {.grid_x = blocks_of(job, down_tiles, job.routed_down_tiles, job.shared_down_tiles),
          .threads = kThreads,
          .shared_bytes = integer_rows_bytes(rows, job.down.columns)},
         kernel, job);
  combine_experts(stream, job.rows, slots, job.down.rows, job.slot_output, job.output);
}

}  // namespace ds4::cuda
