// The experts of several rows: codes of each chosen expert are read and decoded once for up to four
// of the rows that chose it.
//
//   mid[r][s] = silu(min(W1 x, limit)) * clamp(W3 x, limit) * weight
//   out[r]    = sum over s of W2 mid[r][s]
//
// A pair is a row and one of its chosen experts, a group up to four pairs of one expert.  Products
// are integer (integer_dot.cuh), four rows for the price of one.
//
// A block a multiprocessor.  The first blocks have the shared expert, for up to eight rows; the
// others equal shares of all groups' tiles of 16 values, which they find out by themselves.  Warps
// of a block take its tiles in turn, each with its own weights on their way (weight_ring.cuh), and
// meet only where the block goes on to rows that are not in its shared memory yet: once or twice.
// Three launches: gate and up, which a warp multiplies side by side; down; and the sum of a row's
// slots.
//
// Sums of a row do not depend on the other rows, and are those of row_experts.cu.  Memory: codes
// once a group; rows once a block, from the second-level cache.
#include <algorithm>
#include <cmath>

#include "cuda/expert_tiles.cuh"
#include "cuda/grouped_experts.h"
#include "cuda/weight_ring.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kPairsMax = kIntegerRowsMax * kExpertsUsedMax;
constexpr std::uint32_t kPairsTogether = 4;   // pairs of a group
constexpr std::uint32_t kGroupsTogether = 4;  // groups with rows in shared memory at a time
constexpr std::uint32_t kStagedRowsMax = 8;   // rows of theirs

static_assert(kPairsMax <= 256 && kPairsMax % 32 == 0);  // a thread a pair, a byte a pair

// Most warps of a block: formats of more bytes have fewer, so that their rings fit.
constexpr std::uint32_t warps_max(ElementType type) {
  return type == ElementType::kIQ2XXS || type == ElementType::kQ2K ? 16 : 8;
}

constexpr std::uint32_t kWarpsMin = 8;  // two matrices' times kSharedParts
static_assert(kWarpsMin * 32 >= kPairsMax);

// How the grid is shared out.
struct BlockShares {
  std::uint32_t shared_blocks = 0;  // a multiple of the sets of kSharedRows rows
  std::uint32_t staged_rows = 0;    // for which there is room: kPairsTogether at least
};

// All groups, in the order of their first pairs.
struct GroupList {
  std::int32_t ids[kPairsMax];
  std::uint8_t ranks[kPairsMax];   // how many pairs before chose the same expert
  std::uint8_t firsts[kPairsMax];  // of each group
  std::uint32_t found[kPairsMax / 32];
};

// The groups whose rows are in shared memory.
struct Staged {
  std::uint32_t count;  // groups
  std::uint32_t rows;
  std::size_t slabs[kGroupsTogether];
  std::uint32_t first_row[kGroupsTogether];  // in shared memory
  std::uint32_t group_rows[kGroupsTogether];
  std::uint8_t pairs[kStagedRowsMax];  // of each row
};

// By the whole block; the number of groups.
DS4_DEVICE std::uint32_t list_groups(const ExpertsJob& job, GroupList& list) {
  const std::uint32_t pairs = job.rows * job.used;
  const std::uint32_t own = threadIdx.x;
  if (own < pairs) list.ids[own] = job.ids[own];
  block_sync();
  std::uint32_t rank = 0;
  bool leads = false;
  if (own < pairs) {
    for (std::uint32_t other = 0; other < own; ++other)
      rank += list.ids[other] == list.ids[own] ? 1 : 0;
    list.ranks[own] = static_cast<std::uint8_t>(rank);
    leads = rank % kPairsTogether == 0;
  }
  const std::uint32_t votes = ballot(leads);
  if (own % 32 == 0 && own < kPairsMax) list.found[own / 32] = votes;
  block_sync();
  std::uint32_t before = 0;
  std::uint32_t count = 0;
  for (std::uint32_t w = 0; w < shares(pairs, 32); ++w) {
    const auto leaders = static_cast<std::uint32_t>(count_bits(list.found[w]));
    if (w < own / 32) before += leaders;
    count += leaders;
  }
  if (leads) {
    before += static_cast<std::uint32_t>(count_bits(votes & ((1U << (own % 32)) - 1)));
    list.firsts[before] = static_cast<std::uint8_t>(own);
  }
  block_sync();
  return count;
}

// The groups from `first` on, below `end`, that fit together in `rows_max` rows; by the whole
// block.
DS4_DEVICE void choose_staged(const ExpertsJob& job,
                              std::uint32_t rows_max,
                              const GroupList& list,
                              std::uint32_t first,
                              std::uint32_t end,
                              Staged& staged) {
  const std::uint32_t pairs = job.rows * job.used;
  const std::uint32_t lane = threadIdx.x;
  block_sync();  // whoever still reads the last ones
  if (threadIdx.x < 32) {
    std::uint32_t rows = 0;
    std::uint32_t groups = 0;
    for (; groups < kGroupsTogether && first + groups < end; ++groups) {
      const std::uint32_t leader = list.firsts[first + groups];
      std::uint32_t fill = rows;
      for (std::uint32_t base = 0; base < pairs; base += 32) {
        const std::uint32_t pair = base + lane;
        const bool is_member =
            pair < pairs && list.ids[pair] == list.ids[leader] &&
            list.ranks[pair] / kPairsTogether == list.ranks[leader] / kPairsTogether;
        const std::uint32_t votes = ballot(is_member);
        const std::uint32_t at =
            fill + static_cast<std::uint32_t>(count_bits(votes & ((1U << lane) - 1)));
        if (is_member && at < rows_max) staged.pairs[at] = static_cast<std::uint8_t>(pair);
        fill += static_cast<std::uint32_t>(count_bits(votes));
      }
      if (fill > rows_max) break;
      if (lane == 0) {
        staged.slabs[groups] = static_cast<std::size_t>(list.ids[leader]);
        staged.first_row[groups] = rows;
        staged.group_rows[groups] = fill - rows;
      }
      rows = fill;
    }
    if (lane == 0) {
      staged.count = groups;
      staged.rows = rows;
    }
  }
  block_sync();
}

// Where a tile is found, and its rows of x.
struct Place {
  std::size_t slab;
  std::uint32_t tile;
  IntegerRows x;
  std::uint32_t rows;
  std::uint32_t first_row;
};

// The block's share of the tiles of all groups, some groups at a time: `stage` brings the rows of
// `staged` to x, put(pair, output, sums) takes sums[matrix] of an output.
template <class C, bool kRinged, int kMatrices, int kFolds, class Stage, class Put>
DS4_DEVICE void walk_groups(const Matrix* const (&m)[kMatrices],
                            const ExpertsJob& job,
                            const BlockShares& each,
                            const GroupList& list,
                            std::uint32_t groups,
                            Staged& staged,
                            const IntegerRows& x,
                            const Codebook* book,
                            const Stage& stage,
                            const Put& put) {
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t tiles = m[0]->rows / kTileOutputs;
  const std::uint32_t own = blockIdx.x - each.shared_blocks;
  const std::uint32_t blocks = gridDim.x - each.shared_blocks;
  const std::uint32_t first = own * (groups * tiles) / blocks;
  const std::uint32_t end = (own + 1) * (groups * tiles) / blocks;
  std::byte* ring = dynamic_shared() + integer_rows_bytes(each.staged_rows, m[0]->columns) +
                    std::size_t{warp} * ring_bytes<C, kMatrices>();
  for (std::uint32_t group = first / tiles; group * tiles < end; group += staged.count) {
    choose_staged(job, each.staged_rows, list, group, shares(end, tiles), staged);
    const auto place = [&](std::uint32_t tile) {
      std::uint32_t k = 0;
      for (tile -= group * tiles; tile >= tiles; tile -= tiles)
        ++k;
      return Place{staged.slabs[k], tile, x.from(staged.first_row[k]), staged.group_rows[k],
                   staged.first_row[k]};
    };
    const auto finish = [&](const Place& at, const float(&sums)[kMatrices][2]) {
      if (lane % 4 >= at.rows) return;
      const std::uint32_t pair = staged.pairs[at.first_row + lane % 4];
      const std::uint32_t output = at.tile * kTileOutputs + lane / 4;
#pragma unroll
      for (std::uint32_t k = 0; k < 2; ++k) {
        float own_sums[kMatrices];
#pragma unroll
        for (int i = 0; i < kMatrices; ++i)
          own_sums[i] = sums[i][k];
        put(pair, output + k * 8, own_sums);
      }
    };
    const std::uint32_t from = first > group * tiles ? first : group * tiles;
    const std::uint32_t staged_end = (group + staged.count) * tiles;
    walk_ring<C, kRinged, kMatrices, kFolds>(ring, m, from + warp,
                                             end < staged_end ? end : staged_end, blockDim.x / 32,
                                             book, place, stage, finish);
  }
}

// The part of the shared expert's tiles that a block has, for which rows.
struct SharedPart {
  std::uint32_t first_row, rows;
  TileRange range;

  DS4_DEVICE SharedPart(const ExpertsJob& job, const BlockShares& each, std::uint32_t tiles) {
    // Blocks that read the same weights are neighbours.
    const std::uint32_t sets = shares(job.rows, kSharedRows);
    const std::uint32_t blocks = each.shared_blocks / sets;
    const std::uint32_t own = blockIdx.x / sets;
    first_row = blockIdx.x % sets * kSharedRows;
    rows = job.rows - first_row < kSharedRows ? job.rows - first_row : kSharedRows;
    range.first = own * tiles / blocks;
    range.count = (own + 1) * tiles / blocks - range.first;
  }
};

template <ElementType kRouted, ElementType kShared>
DS4_KERNEL void DS4_BOUNDS(warps_max(kRouted) * 32, 1) gate_up(ExpertsJob job, BlockShares each) {
  DS4_SHARED GateMemory<kRouted, warps_max(kRouted)> memory;
  DS4_SHARED GroupList list;
  DS4_SHARED Staged staged;
  const bool is_shared = blockIdx.x < each.shared_blocks;
  const ElementType type = is_shared ? job.shared_gate.type : job.gate.type;
  const std::uint32_t slots = job.used + 1;
  const Codebook book = memory.book.view();
  if (type == ElementType::kIQ2XXS) load_codebook(job.grid, memory.book);
  if (is_shared) {
    // Its codes are known before the router has spoken.
    const SharedPart own(job, each, shares(job.gate.rows, kTileOutputs));
    const auto row_of = [&](std::uint32_t r) { return own.first_row + r; };
    const auto put = [&](std::uint32_t r, std::uint32_t output, float gate, float up) {
      job.mid[(std::size_t{own.first_row + r} * slots + job.used) * job.gate.rows + output] =
          activated(gate, up, job.limit, 1.0F);
    };
    return with_expert_codec<kRouted, kShared>(true, type, [&](auto codec) {
      gate_up_tiles<decltype(codec), 2, kSharedParts>(job.shared_gate, job.shared_up, 0, own.range,
                                                      job.x, own.rows, memory, row_of, put);
    });
  }
  const IntegerRows x(dynamic_shared(), each.staged_rows, job.gate.columns);
  wait_for_inputs();
  const std::uint32_t groups = list_groups(job, list);
  const auto stage = [&] {
    copy_rows(x, staged.rows, [&](std::uint32_t r) {
      return row_integers(job.x, staged.pairs[r] / job.used, job.gate.columns);
    });
    block_sync();
  };
  const auto put = [&](std::uint32_t pair, std::uint32_t output, const float(&sums)[2]) {
    const std::size_t row = std::size_t{pair / job.used} * slots + pair % job.used;
    job.mid[row * job.gate.rows + output] =
        activated(sums[0], sums[1], job.limit, job.weights[pair]);
  };
  with_expert_codec<kRouted, kShared>(false, type, [&](auto codec) {
    walk_groups<decltype(codec), kRouted != kAnyType, 2, 1>({&job.gate, &job.up}, job, each, list,
                                                            groups, staged, x, &book, stage, put);
  });
}

// Some rows' slot of the shared expert, a tile a warp at a time.
template <class C, std::uint32_t kDownParts>
DS4_DEVICE void shared_down(const ExpertsJob& job, const SharedPart& own, const Codebook& book) {
  const Matrix& m = job.shared_down;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t own_tile = own.range.first + threadIdx.x / 32;
  const std::uint32_t slots = job.used + 1;
  const std::uint32_t warps = blockDim.x / 32;
  const IntegerRows x(dynamic_shared(), own.rows, m.columns);
  const auto place_of = [&](std::uint32_t r) {
    return std::size_t{own.first_row + r} * slots + job.used;
  };
  const auto tile_of = [&](std::uint32_t i) {
    return TileRows(m, 0, (own_tile + i * warps) * kTileOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    put_rows<false>(x, own.rows, m.columns,
                    [&](std::uint32_t r) { return job.mid + place_of(r) * m.columns; });
    block_sync();
  };
  const auto finish = [&](std::uint32_t i, const float(&sums)[2][2]) {
    const std::uint32_t tile = own_tile + i * warps;
    if (tile >= own.range.first + own.range.count) return;
    const std::uint32_t output = tile * kTileOutputs + lane / 4;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const std::uint32_t r = static_cast<std::uint32_t>(t) * 4 + lane % 4;
      if (r >= own.rows) break;
      float* to = job.slot_output + place_of(r) * m.rows + output;
      to[0] = sums[t][0];
      to[8] = sums[t][1];
    }
  };
  walk_tiles<C, 2, kDownParts>(shares(own.range.count, warps), m.columns, 0, kDownParts, x,
                               own.rows, &book, tile_of, stage, finish);
}

template <ElementType kRouted, ElementType kShared, std::uint32_t kDownParts>
DS4_KERNEL void DS4_BOUNDS(warps_max(kRouted) * 32, 1) down(ExpertsJob job, BlockShares each) {
  DS4_SHARED CodebookMemory<book_copies(kRouted)> book_memory;
  DS4_SHARED GroupList list;
  DS4_SHARED Staged staged;
  const bool is_shared = blockIdx.x < each.shared_blocks;
  const ElementType type = is_shared ? job.shared_down.type : job.down.type;
  const std::uint32_t slots = job.used + 1;
  const Codebook book = book_memory.view();
  if (type == ElementType::kIQ2XXS) load_codebook(job.grid, book_memory);
  if (is_shared) {
    const SharedPart own(job, each, shares(job.down.rows, kTileOutputs));
    return with_expert_codec<kRouted, kShared>(
        true, type, [&](auto codec) { shared_down<decltype(codec), kDownParts>(job, own, book); });
  }
  const std::uint32_t columns = job.down.columns;
  const IntegerRows x(dynamic_shared(), each.staged_rows, columns);
  // The ids are older than the launch before this one, so they need no wait.
  const std::uint32_t groups = list_groups(job, list);
  const auto place_of = [&](std::uint32_t pair) {
    return std::size_t{pair / job.used} * slots + pair % job.used;
  };
  const auto stage = [&] {
    wait_for_inputs();
    put_rows<false>(x, staged.rows, columns,
                    [&](std::uint32_t r) { return job.mid + place_of(staged.pairs[r]) * columns; });
    block_sync();
  };
  const auto put = [&](std::uint32_t pair, std::uint32_t output, const float(&sums)[1]) {
    job.slot_output[place_of(pair) * job.down.rows + output] = sums[0];
  };
  with_expert_codec<kRouted, kShared>(false, type, [&](auto codec) {
    walk_groups<decltype(codec), kRouted != kAnyType, 1, kDownParts>(
        {&job.down}, job, each, list, groups, staged, x, &book, stage, put);
  });
}

struct Kernel {
  void (*run)(ExpertsJob, BlockShares);
  std::uint32_t warps;       // at most
  std::uint32_t ring_bytes;  // of a warp
};

// The kernels of the published combinations, else the one for all.
template <ElementType kRouted>
Kernel gate_up_of() {
  return {gate_up<kRouted, ElementType::kQ8_0>, warps_max(kRouted),
          ring_bytes<Codec<kRouted>, 2>()};
}
Kernel any_gate_up() {
  return {gate_up<kAnyType, kAnyType>, warps_max(kAnyType), 0};
}
Kernel gate_up_kernel(const ExpertsJob& job) {
  constexpr ElementType kShared = ElementType::kQ8_0;
  if (job.shared_gate.type == kShared && job.shared_up.type == kShared &&
      job.gate.scales_bytes % 4 == 0) {
    if (job.gate.type == ElementType::kIQ2XXS) return gate_up_of<ElementType::kIQ2XXS>();
    if (job.gate.type == ElementType::kQ4K) return gate_up_of<ElementType::kQ4K>();
    if (job.gate.type == ElementType::kMXFP4) return gate_up_of<ElementType::kMXFP4>();
  }
  return any_gate_up();
}

template <ElementType kRouted, std::uint32_t kDownParts>
Kernel down_of() {
  return {down<kRouted, ElementType::kQ8_0, kDownParts>, warps_max(kRouted),
          ring_bytes<Codec<kRouted>, 1>()};
}
template <std::uint32_t kDownParts>
Kernel any_down() {
  return {down<kAnyType, kAnyType, kDownParts>, warps_max(kAnyType), 0};
}
template <std::uint32_t kDownParts>
Kernel down_kernel(const ExpertsJob& job) {
  if (job.shared_down.type == ElementType::kQ8_0 && job.down.scales_bytes % 4 == 0) {
    if (job.down.type == ElementType::kQ2K) return down_of<ElementType::kQ2K, kDownParts>();
    if (job.down.type == ElementType::kQ4K) return down_of<ElementType::kQ4K, kDownParts>();
    if (job.down.type == ElementType::kMXFP4) return down_of<ElementType::kMXFP4, kDownParts>();
  }
  return any_down<kDownParts>();
}

// A tile of the shared expert, for a set of rows, takes the time of so many of a routed one's.
constexpr double kSharedCost = 4;

// Of `blocks` those of the shared expert, by the groups of rows that choose evenly.
std::uint32_t shared_blocks(const ExpertsJob& job, std::uint32_t blocks) {
  const double experts = std::max(job.gate.slabs, 1U);
  const double groups = experts * (1 - std::pow(1 - 1 / experts, job.rows * job.used));
  const std::uint32_t sets = shares(job.rows, kSharedRows);
  const double share = kSharedCost / (groups + sets * kSharedCost);
  return sets * std::max(1U, static_cast<std::uint32_t>(std::lround(blocks * share)));
}

// `unringed` is the kernel where shared memory is too small for the other.
void run_kernel(Stream& stream,
                const DeviceInfo& device,
                const char* stage,
                Kernel kernel,
                const Kernel& unringed,
                const ExpertsJob& job,
                std::uint32_t columns) {
  constexpr std::size_t kOwnBytes = 26 * 1024;  // of a block, beside what it is launched with
  // Cards of 99 KiB have room for the published model.
  static_assert(integer_rows_bytes(kPairsTogether, 4096) +
                    kWarpsMin * ring_bytes<Codec<ElementType::kIQ2XXS>, 2>() + kOwnBytes <=
                99 * 1024);
  const std::uint32_t sets = shares(job.rows, kSharedRows);
  const std::uint32_t blocks = std::max(device.multiprocessors, 2 * sets);
  const std::size_t room = device.shared_bytes_max - kOwnBytes;
  BlockShares each{shared_blocks(job, blocks), kStagedRowsMax};
  const auto bytes = [&] {
    return std::max(
        integer_rows_bytes(each.staged_rows, columns) + kernel.warps * kernel.ring_bytes,
        integer_rows_bytes(std::min(job.rows, kSharedRows), columns));
  };
  // On cards of less shared memory.
  if (bytes() > room) each.staged_rows = kPairsTogether;
  if (bytes() > room) kernel.warps = kWarpsMin;
  if (bytes() > room) kernel = unringed;
  DS4_CHECK(bytes() <= room);
  launch(stream, stage, {.grid_x = blocks, .threads = kernel.warps * 32, .shared_bytes = bytes()},
         kernel.run, job, each);
}

}  // namespace

void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& job) {
  DS4_CHECK(job.rows <= kIntegerRowsMax);
  if (job.rows == 1) return run_experts_of_row(stream, device, job);
  DS4_CHECK(job.gate.rows % kTileOutputs == 0 && job.down.rows % kTileOutputs == 0);
  const bool two_parts = down_parts(job) == 2;
  run_kernel(stream, device, "expert gate and up", gate_up_kernel(job), any_gate_up(), job,
             job.gate.columns);
  run_kernel(stream, device, "expert down", two_parts ? down_kernel<2>(job) : down_kernel<1>(job),
             two_parts ? any_down<2>() : any_down<1>(), job, job.down.columns);
  combine_experts(stream, job.rows, job.used + 1, job.down.rows, job.slot_output, job.output);
}

}  // namespace ds4::cuda
