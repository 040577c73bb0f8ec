// Matrix-vector products for decode, several matrices a launch.
//
//   out[r][o] = sum over c of w[o][c] * x[r][c]
//
// Eight rows of x at a time: the second dimension of the grid, whose blocks run side by side.
//
// Quantised matrices: a block of 8 warps turns its rows of x into integers (integer_dot.cuh),
// normalising them on the way when the job says so, and makes passes.  In a pass `split` warps
// share a tile of 16 weight rows, each taking every split-th block of 256 columns; the codes of the
// next block, be it of the next pass, are on their way while one is multiplied, and those of the
// first are asked for before the launch waits for its inputs.
//
// Plain matrices (F32, F16, BF16), which keep f32's accuracy: x stays f32 in shared memory, four
// rows at a time; a warp holds 4 weight rows and a lane 8 columns of them.
//
// Partial sums meet in shared memory and are added in an order of their own, so results do not
// depend on the other rows.  Memory: each weight byte is read once (plain: once per 4 rows); x once
// a block, from the second-level cache.  Shared: quantised rows * columns * 2 bytes, plain 4 rows *
// columns * 5.
#include <algorithm>

#include "cuda/codecs.cuh"
#include "cuda/integer_dot.cuh"
#include "cuda/matvec.h"
#include "cuda/reduce.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kWarps = kThreads / 32;
constexpr std::uint32_t kPlainRows = 4;    // weight rows of a warp, plain
constexpr std::uint32_t kPlainUnit = 8;    // columns of a lane, plain
constexpr std::uint32_t kPlainInputs = 4;  // rows of x at once, plain

constexpr bool is_plain(const Matrix& m) {
  return m.scales_bytes == 0;
}

// Warps that share a set of weight rows.
constexpr std::uint32_t split_of(const Matrix& m) {
  return column_parts(m.columns);
}

// Weight rows of one pass of a block.
constexpr std::uint32_t pass_rows_of(const Matrix& m) {
  return kWarps / split_of(m) * (is_plain(m) ? kPlainRows : kTileOutputs);
}

// What a block works on.
struct Share {
  std::uint32_t first_pass, pass_count;
  std::uint32_t group, groups;  // which slice of x, of how many
  std::uint32_t x_offset;
  std::uint32_t first_row, rows;  // of x
};

// ---- quantised ----

template <class C, int kTiles>
DS4_DEVICE void run_quantised(const MatvecJob& job,
                              const MatvecJobs& jobs,
                              const Share& share,
                              const Codebook* book,
                              float* partial) {
  const Matrix& m = job.w;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t split = split_of(m);
  const std::uint32_t sets = kWarps / split;
  const std::uint32_t part = threadIdx.x / 32 % split;
  const std::uint32_t set = threadIdx.x / 32 / split;
  const IntegerRows x(dynamic_shared(), share.rows, m.columns);
  constexpr std::uint32_t kInputs = kTiles * 4;
  const auto tile_of = [&](std::uint32_t pass) {
    return TileRows(m, 0, ((share.first_pass + pass) * sets + set) * kTileOutputs);
  };
  const auto stage = [&] {
    wait_for_inputs();
    if (job.integers != nullptr) {
      copy_rows(x, share.rows, [&](std::uint32_t r) {
        const std::uint32_t index = (share.first_row + r) * share.groups + share.group;
        return row_integers(job.integers, index, m.columns);
      });
    } else {
      const float* from = job.x + std::size_t{share.first_row} * job.x_stride + share.x_offset;
      const auto row_of = [&](std::uint32_t r) { return from + std::size_t{r} * job.x_stride; };
      put_rows<(kTiles > 1)>(x, share.rows, m.columns, row_of, job.norm_weight, jobs.epsilon);
    }
    block_sync();
  };
  const auto finish = [&](std::uint32_t pass, const float(&sums)[kTiles][2]) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (std::uint32_t i = 0; i < 2; ++i)
        partial[((set * split + part) * kTileOutputs + lane / 4 + i * 8) * kInputs +
                static_cast<std::uint32_t>(t) * 4 + lane % 4] = sums[t][i];
    block_sync();
    for (std::uint32_t i = threadIdx.x; i < sets * kTileOutputs * share.rows; i += kThreads) {
      const std::uint32_t o = i % (sets * kTileOutputs);
      const std::uint32_t r = i / (sets * kTileOutputs);
      const std::uint32_t out_row = (share.first_pass + pass) * sets * kTileOutputs + o;
      if (out_row >= m.rows) continue;
      const auto part_of = [&](std::uint32_t s) {
        return partial[((o / kTileOutputs * split + s) * kTileOutputs + o % kTileOutputs) *
                           kInputs +
                       r];
      };
      job.out[std::size_t{share.first_row + r} * job.out_stride + out_row] =
          sum_parts(split, part_of);
    }
    block_sync();
  };
  walk_tiles<C, kTiles>(share.pass_count, m.columns, part, split, x, share.rows, book, tile_of,
                        stage, finish);
}

// ---- plain ----

template <int R>
DS4_DEVICE void stage_inputs(const MatvecJob& job,
                             std::uint32_t first_row,
                             std::uint32_t rows,
                             std::uint32_t x_offset,
                             float epsilon,
                             float* x) {
  const std::uint32_t columns = job.w.columns;
  const std::uint32_t stride = padded(columns);
  for (std::uint32_t r = 0; r < R; ++r) {
    const bool real = first_row + r < rows;
    const float* from = job.x + std::size_t{real ? first_row + r : 0} * job.x_stride + x_offset;
    float* to = x + r * stride;
    if (job.norm_weight == nullptr) {
      for (std::uint32_t c = threadIdx.x * 4; c < columns; c += kThreads * 4)
        copy_async(to + padded(c), from + c, real);
      continue;
    }
    const float inverse = real ? inverse_rms(from, columns, epsilon) : 0.0F;
    for (std::uint32_t c = threadIdx.x * 4; c < columns; c += kThreads * 4) {
      const Float4 v = *reinterpret_cast<const Float4*>(from + c);
      const Float4 w = *reinterpret_cast<const Float4*>(job.norm_weight + c);
      *reinterpret_cast<Float4*>(to + padded(c)) = {v.x * inverse * w.x, v.y * inverse * w.y,
                                                    v.z * inverse * w.z, v.w * inverse * w.w};
    }
  }
  copy_async_commit();
  copy_async_wait<0>();
}

template <int R>
DS4_DEVICE void add_unit(const float (&w)[kPlainRows][kPlainUnit],
                         std::uint32_t unit,
                         const float* x,
                         std::uint32_t stride,
                         float (&sum)[kPlainRows][R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const float* from = x + static_cast<std::uint32_t>(r) * stride + padded(unit * kPlainUnit);
#pragma unroll
    for (std::uint32_t i = 0; i < kPlainUnit; i += 4) {
      const Float4 v = *reinterpret_cast<const Float4*>(from + i);
#pragma unroll
      for (std::uint32_t k = 0; k < kPlainRows; ++k) {
        sum[k][r] = fmaf(w[k][i], v.x, sum[k][r]);
        sum[k][r] = fmaf(w[k][i + 1], v.y, sum[k][r]);
        sum[k][r] = fmaf(w[k][i + 2], v.z, sum[k][r]);
        sum[k][r] = fmaf(w[k][i + 3], v.w, sum[k][r]);
      }
    }
  }
}

template <class C, int R>
DS4_DEVICE void run_plain_pass(const MatvecJob& job,
                               std::uint32_t pass,
                               std::uint32_t first_row,
                               std::uint32_t rows,
                               const float* x,
                               float* partial) {
  const Matrix& m = job.w;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t split = split_of(m);
  const std::uint32_t sets = kWarps / split;
  const std::uint32_t units = m.columns / kPlainUnit;
  const std::uint32_t pass_row = pass * sets * kPlainRows;
  const std::uint32_t row = pass_row + warp / split * kPlainRows;
  float sum[kPlainRows][R] = {};
  if (row < m.rows) {
#pragma unroll 2
    for (std::uint32_t unit = warp % split * 32 + lane; unit < units; unit += split * 32) {
      typename C::Unit codes[kPlainRows];
#pragma unroll
      for (std::uint32_t k = 0; k < kPlainRows; ++k) {
        const std::uint32_t at = row + k < m.rows ? row + k : row;
        codes[k] = C::load(row_codes(m, 0, at), row_scales(m, 0, at), m.columns, unit);
      }
      float w[kPlainRows][kPlainUnit];
#pragma unroll
      for (std::uint32_t k = 0; k < kPlainRows; ++k)
        C::decode(codes[k], 0, nullptr, w[k]);
      add_unit<R>(w, unit, x, padded(m.columns), sum);
    }
  }
#pragma unroll
  for (std::uint32_t k = 0; k < kPlainRows; ++k)
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float total = warp_sum(sum[k][r]);
      if (lane == 0) partial[(warp * kPlainRows + k) * R + static_cast<std::uint32_t>(r)] = total;
    }
  block_sync();
  for (std::uint32_t i = threadIdx.x; i < sets * kPlainRows * R; i += kThreads) {
    const std::uint32_t set = i / (kPlainRows * R);
    const std::uint32_t out_row = pass_row + i / R;
    const std::uint32_t r = i % R;
    if (out_row >= m.rows || first_row + r >= rows) continue;
    float total = 0;
    for (std::uint32_t s = 0; s < split; ++s)
      total += partial[((set * split + s) * kPlainRows + i / R % kPlainRows) * R + r];
    job.out[std::size_t{first_row + r} * job.out_stride + out_row] = total;
  }
  block_sync();
}

template <int R>
DS4_DEVICE void run_plain(const MatvecJob& job,
                          const MatvecJobs& jobs,
                          const Share& share,
                          float* partial) {
  auto* x = reinterpret_cast<float*>(dynamic_shared());
  wait_for_inputs();
  const std::uint32_t end = share.first_row + share.rows;
  for (std::uint32_t first_row = share.first_row; first_row < end; first_row += R) {
    stage_inputs<R>(job, first_row, end, share.x_offset, jobs.epsilon, x);
    block_sync();
    with_plain_codec(job.w.type, [&](auto codec) {
      for (std::uint32_t pass = 0; pass < share.pass_count; ++pass)
        run_plain_pass<decltype(codec), R>(job, share.first_pass + pass, first_row, end, x,
                                           partial);
    });
  }
}

// One kernel a quantised type and row count, so that registers are those that it needs.
template <ElementType kType, int kRows>
DS4_KERNEL void DS4_BOUNDS(kThreads, 2) matvec(MatvecJobs jobs) {
  constexpr int kTiles = (kRows + 3) / 4;
  DS4_SHARED float partial[kWarps * kTileOutputs * 4 * kTiles];
  DS4_SHARED CodebookMemory<8> book_memory;
  const Codebook book = book_memory.view();
  std::uint32_t index = 0;
  while (index + 1 < jobs.count && blockIdx.x >= jobs.job[index + 1].first_block)
    ++index;
  const MatvecJob& job = jobs.job[index];
  const std::uint32_t first_row = blockIdx.y * kMatvecRowsMax;
  Share share{(blockIdx.x - job.first_block) * job.passes_per_block,
              job.passes_per_block,
              0,
              1,
              0,
              first_row,
              jobs.rows - first_row < kMatvecRowsMax ? jobs.rows - first_row : kMatvecRowsMax};
  const std::uint32_t pass_rows = pass_rows_of(job.w);
  const std::uint32_t passes = (job.w.rows + pass_rows - 1) / pass_rows;
  if (share.pass_count > passes - share.first_pass) share.pass_count = passes - share.first_pass;
  // A block's rows lie in one group: run_matvec() sees to it.
  if (job.rows_per_group != 0) {
    share.group = share.first_pass * pass_rows / job.rows_per_group;
    share.groups = job.w.rows / job.rows_per_group;
    share.x_offset = share.group * job.group_columns;
  }
  if (is_plain(job.w)) return run_plain<(kRows < 4 ? 1 : 4)>(job, jobs, share, partial);
  if constexpr (kType == ElementType::kIQ2XXS) {
    load_codebook(jobs.grid, book_memory);
    block_sync();
  }
  run_quantised<Codec<kType>, kTiles>(job, jobs, share, &book, partial);
}

template <ElementType kType>
void launch_matvec(Stream& stream,
                   const DeviceInfo& device,
                   const char* stage,
                   const MatvecJobs& jobs,
                   std::uint32_t blocks) {
  DS4_CHECK(jobs.rows <= kNarrowRowsMax);
  const std::uint32_t rows = std::min(jobs.rows, kMatvecRowsMax);
  std::size_t shared_bytes = 0;
  for (std::uint32_t j = 0; j < jobs.count; ++j) {
    const Matrix& m = jobs.job[j].w;
    const std::size_t plain_row = (m.columns + m.columns / 16 * 4) * sizeof(float);
    shared_bytes = std::max(shared_bytes, is_plain(m) ? plain_row * (rows == 1 ? 1 : kPlainInputs)
                                                      : integer_rows_bytes(rows, m.columns));
  }
  DS4_CHECK(shared_bytes + 16 * 1024 <= device.shared_bytes_max);
  const LaunchShape shape{.grid_x = blocks,
                          .grid_y = (jobs.rows + kMatvecRowsMax - 1) / kMatvecRowsMax,
                          .threads = kThreads,
                          .shared_bytes = shared_bytes};
  if (jobs.rows == 1) return launch(stream, stage, shape, matvec<kType, 1>, jobs);
  if (jobs.rows <= 4) return launch(stream, stage, shape, matvec<kType, 4>, jobs);
  launch(stream, stage, shape, matvec<kType, 8>, jobs);
}

// Gives every job its blocks: two a multiprocessor in all, each about the same bytes.
std::uint32_t share_blocks(const DeviceInfo& device, MatvecJobs& jobs) {
  const auto pass_bytes = [](const Matrix& m) {
    return std::uint64_t{pass_rows_of(m)} * (m.codes_bytes + m.scales_bytes);
  };
  std::uint64_t total = 0;
  for (std::uint32_t j = 0; j < jobs.count; ++j) {
    const Matrix& m = jobs.job[j].w;
    total += std::uint64_t{m.rows} * (m.codes_bytes + m.scales_bytes);
  }
  const std::uint64_t wanted = total / (std::uint64_t{device.multiprocessors} * 2) + 1;
  std::uint32_t blocks = 0;
  for (std::uint32_t j = 0; j < jobs.count; ++j) {
    MatvecJob& job = jobs.job[j];
    const std::uint32_t pass_rows = pass_rows_of(job.w);
    const std::uint32_t passes = (job.w.rows + pass_rows - 1) / pass_rows;
    const std::uint64_t bytes = pass_bytes(job.w);
    job.passes_per_block = static_cast<std::uint32_t>((wanted + bytes - 1) / bytes);
    if (job.rows_per_group != 0) {
      DS4_CHECK(job.rows_per_group % pass_rows == 0);
      while (job.rows_per_group % (pass_rows * job.passes_per_block) != 0)
        --job.passes_per_block;
    }
    job.first_block = blocks;
    blocks += (passes + job.passes_per_block - 1) / job.passes_per_block;
  }
  return blocks;
}

void run_of_type(Stream& stream,
                 const DeviceInfo& device,
                 const char* stage,
                 ElementType type,
                 MatvecJobs& jobs) {
  const std::uint32_t blocks = share_blocks(device, jobs);
  switch (type) {
    case ElementType::kQ8_0:
      return launch_matvec<ElementType::kQ8_0>(stream, device, stage, jobs, blocks);
    case ElementType::kIQ2XXS:
      return launch_matvec<ElementType::kIQ2XXS>(stream, device, stage, jobs, blocks);
    case ElementType::kMXFP4:
      return launch_matvec<ElementType::kMXFP4>(stream, device, stage, jobs, blocks);
    case ElementType::kQ4K:
      return launch_matvec<ElementType::kQ4K>(stream, device, stage, jobs, blocks);
    case ElementType::kQ2K:
      return launch_matvec<ElementType::kQ2K>(stream, device, stage, jobs, blocks);
    case ElementType::kF32:
    case ElementType::kF16:
    case ElementType::kBF16:
    case ElementType::kI32:
      break;
  }
  DS4_CHECK(false);
}

}  // namespace

void run_matvec(Stream& stream,
                const DeviceInfo& device,
                const char* stage,
                const MatvecJobs& jobs) {
  // One launch for each quantised type; plain matrices go with the first.
  bool done[kMatvecJobsMax] = {};
  for (std::uint32_t first = 0; first < jobs.count; ++first) {
    if (done[first]) continue;
    MatvecJobs some = jobs;
    some.count = 0;
    ElementType type = ElementType::kQ8_0;
    for (std::uint32_t j = first; j < jobs.count; ++j)
      if (!done[j] && !is_plain(jobs.job[j].w)) {
        type = jobs.job[j].w.type;
        break;
      }
    for (std::uint32_t j = first; j < jobs.count; ++j) {
      const Matrix& m = jobs.job[j].w;
      if (done[j] || (!is_plain(m) && m.type != type)) continue;
      done[j] = true;
      some.job[some.count++] = jobs.job[j];
    }
    run_of_type(stream, device, stage, type, some);
  }
}

}  // namespace ds4::cuda
