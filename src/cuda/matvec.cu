// Matrix-vector products for decode, several matrices a launch.
//
//   out[r][o] = sum over c of w[o][c] * x[r][c]        r < R <= 4 per block, f32 throughout
//
// Who does what: a block of 8 warps stages its R input rows in shared memory (normalising them on
// the way when the job says so), then makes passes.  In a pass `split` warps share a set of weight
// rows, each taking every split-th run of 32 units; a warp holds 4 weight rows (2 for formats with
// units of 32), so one read of x serves them all and as many weight loads are in flight per lane.
// Partial sums meet in shared memory and are added in warp order.
//
// Memory: each weight byte is read once per R rows; x is read once per block, from the second-level
// cache.  Shared: R * columns * 5 bytes, 2 KiB of codebook, 128 floats.
#include <algorithm>

#include "cuda/codecs.cuh"
#include "cuda/matvec.h"
#include "cuda/reduce.cuh"

namespace ds4::cuda {

namespace {

constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kWarps = kThreads / 32;

// Numbers of a unit: Codec<type>::kUnit.
constexpr int unit_of(ElementType type) {
  switch (type) {
    case ElementType::kF32:
    case ElementType::kF16:
    case ElementType::kBF16:
      return 8;
    case ElementType::kQ8_0:
      return 16;
    default:
      return 32;
  }
}

// Weight rows that a warp holds at once.
constexpr std::uint32_t warp_rows(int unit) {
  return unit <= 16 ? 4 : 2;
}

// Warps that share a set of weight rows: enough runs of 32 units each for two loads in flight.
constexpr std::uint32_t split_of(std::uint32_t columns, int unit) {
  const std::uint32_t runs = (columns / static_cast<std::uint32_t>(unit) + 31) / 32;
  return runs >= 16 ? 8 : runs >= 8 ? 4 : runs >= 4 ? 2 : 1;
}

// Weight rows of one pass of a block.
constexpr std::uint32_t pass_rows_of(const Matrix& m) {
  const int unit = unit_of(m.type);
  return kWarps / split_of(m.columns, unit) * warp_rows(unit);
}

template <int R>
DS4_DEVICE void stage_inputs(const MatvecJob& job,
                             std::uint32_t first_row,
                             std::uint32_t rows,
                             std::uint32_t x_offset,
                             float epsilon,
                             float* x,
                             float* partial) {
  const std::uint32_t columns = job.w.columns;
  const std::uint32_t stride = padded(columns);
  for (std::uint32_t r = 0; r < R; ++r) {
    const bool real = first_row + r < rows;
    const float* from = job.x + std::size_t{first_row + r} * job.x_stride + x_offset;
    float square = 0;
    for (std::uint32_t c = threadIdx.x * 4; c < columns; c += kThreads * 4) {
      const Float4 v = real ? *reinterpret_cast<const Float4*>(from + c) : Float4{0, 0, 0, 0};
      square += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
      *reinterpret_cast<Float4*>(x + r * stride + padded(c)) = v;
    }
    if (job.norm_weight == nullptr) continue;
    const float mean = block_sum(square, partial) / static_cast<float>(columns);
    const float inverse = 1.0F / sqrtf(mean + epsilon);
    for (std::uint32_t c = threadIdx.x * 4; c < columns; c += kThreads * 4) {
      auto* v = reinterpret_cast<Float4*>(x + r * stride + padded(c));
      const Float4 w = *reinterpret_cast<const Float4*>(job.norm_weight + c);
      *v = {v->x * inverse * w.x, v->y * inverse * w.y, v->z * inverse * w.z, v->w * inverse * w.w};
    }
  }
}

template <class C, int R>
DS4_DEVICE void add_unit(const float (&w)[warp_rows(C::kUnit)][C::kUnit],
                         std::uint32_t unit,
                         const float* x,
                         std::uint32_t stride,
                         float (&sum)[warp_rows(C::kUnit)][R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int s = 0; s < C::kUnit / C::kSegment; ++s) {
      const float* from = x + static_cast<std::uint32_t>(r) * stride + padded(C::column(unit, s));
#pragma unroll
      for (int i = 0; i < C::kSegment; i += 4) {
        const Float4 v = *reinterpret_cast<const Float4*>(from + i + i / 16 * 4);
#pragma unroll
        for (std::uint32_t k = 0; k < warp_rows(C::kUnit); ++k) {
          const float* weight = &w[k][s * C::kSegment + i];
          sum[k][r] = fmaf(weight[0], v.x, sum[k][r]);
          sum[k][r] = fmaf(weight[1], v.y, sum[k][r]);
          sum[k][r] = fmaf(weight[2], v.z, sum[k][r]);
          sum[k][r] = fmaf(weight[3], v.w, sum[k][r]);
        }
      }
    }
  }
}

template <class C, int R>
DS4_DEVICE void run_job(const MatvecJob& job,
                        std::uint32_t block,
                        std::uint32_t first_row,
                        std::uint32_t rows,
                        const float* x,
                        const Grid* grid,
                        float* partial) {
  constexpr std::uint32_t kRows = warp_rows(C::kUnit);
  const Matrix& m = job.w;
  const std::uint32_t warp = threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t split = split_of(m.columns, C::kUnit);
  const std::uint32_t sets = kWarps / split;
  const std::uint32_t units = m.columns / C::kUnit;
  const std::uint32_t stride = padded(m.columns);
  for (std::uint32_t pass = 0; pass < job.passes_per_block; ++pass) {
    const std::uint32_t pass_row = (block * job.passes_per_block + pass) * sets * kRows;
    if (pass_row >= m.rows) return;
    const std::uint32_t row = pass_row + warp / split * kRows;
    float sum[kRows][R] = {};
    if (row < m.rows) {
#pragma unroll 2
      for (std::uint32_t unit = warp % split * 32 + lane; unit < units; unit += split * 32) {
        typename C::Raw raw[kRows];
#pragma unroll
        for (std::uint32_t k = 0; k < kRows; ++k) {
          const std::uint32_t at = row + k < m.rows ? row + k : row;
          raw[k] = C::load(row_codes(m, 0, at), row_scales(m, 0, at), m.columns, unit);
        }
        float w[kRows][C::kUnit];
#pragma unroll
        for (std::uint32_t k = 0; k < kRows; ++k)
          C::decode(raw[k], unit, grid, w[k]);
        add_unit<C, R>(w, unit, x, stride, sum);
      }
    }
    block_sync();
#pragma unroll
    for (std::uint32_t k = 0; k < kRows; ++k)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const float total = warp_sum(sum[k][r]);
        if (lane == 0) partial[(warp * kRows + k) * R + static_cast<std::uint32_t>(r)] = total;
      }
    block_sync();
    for (std::uint32_t i = threadIdx.x; i < sets * kRows * R; i += kThreads) {
      const std::uint32_t set = i / (kRows * R);
      const std::uint32_t out_row = pass_row + i / R;
      const std::uint32_t r = i % R;
      if (out_row >= m.rows || first_row + r >= rows) continue;
      float total = 0;
      for (std::uint32_t s = 0; s < split; ++s)
        total += partial[((set * split + s) * kRows + i / R % kRows) * R + r];
      job.out[std::size_t{first_row + r} * job.out_stride + out_row] = total;
    }
  }
}

template <int R>
DS4_KERNEL void matvec(MatvecJobs jobs) {
  DS4_SHARED float partial[kWarps * 4 * 4];
  DS4_SHARED Grid grid[kGridRows];
  auto* x = reinterpret_cast<float*>(dynamic_shared());
  std::uint32_t index = 0;
  while (index + 1 < jobs.count && blockIdx.x >= jobs.job[index + 1].first_block)
    ++index;
  const MatvecJob& job = jobs.job[index];
  const std::uint32_t block = blockIdx.x - job.first_block;
  const std::uint32_t first_row = blockIdx.y * R;
  if (job.w.type == ElementType::kIQ2XXS) load_grid(reinterpret_cast<const Grid*>(jobs.grid), grid);
  wait_for_inputs();
  std::uint32_t x_offset = 0;
  if (job.rows_per_group != 0) {
    // A block's rows lie in one group: run_matvec() sees to it.
    x_offset =
        block * job.passes_per_block * pass_rows_of(job.w) / job.rows_per_group * job.group_columns;
  }
  stage_inputs<R>(job, first_row, jobs.rows, x_offset, jobs.epsilon, x, partial);
  block_sync();
  with_codec(job.w.type, [&](auto codec) {
    run_job<decltype(codec), R>(job, block, first_row, jobs.rows, x, grid, partial);
  });
}

template <int R>
void launch_matvec(Stream& stream,
                   const char* stage,
                   const MatvecJobs& jobs,
                   std::uint32_t blocks,
                   std::size_t shared_bytes) {
  launch(stream, stage,
         {.grid_x = blocks,
          .grid_y = (jobs.rows + R - 1) / R,
          .threads = kThreads,
          .shared_bytes = shared_bytes},
         matvec<R>, jobs);
}

}  // namespace

void run_matvec(Stream& stream, const DeviceInfo& device, const char* stage, MatvecJobs& jobs) {
  std::uint32_t total_passes = 0;
  std::uint32_t columns_max = 0;
  std::uint32_t passes[kMatvecJobsMax] = {};
  for (std::uint32_t j = 0; j < jobs.count; ++j) {
    const Matrix& m = jobs.job[j].w;
    const std::uint32_t pass_rows = pass_rows_of(m);
    passes[j] = (m.rows + pass_rows - 1) / pass_rows;
    total_passes += passes[j];
    columns_max = std::max(columns_max, m.columns);
  }
  // A few blocks a multiprocessor: fewer would not cover latency, more would stage x more often.
  const std::uint32_t wanted = device.multiprocessors * 4;
  std::uint32_t blocks = 0;
  for (std::uint32_t j = 0; j < jobs.count; ++j) {
    MatvecJob& job = jobs.job[j];
    job.passes_per_block = std::clamp<std::uint32_t>(total_passes / wanted, 1, 8);
    if (job.rows_per_group != 0) {
      const std::uint32_t pass_rows = pass_rows_of(job.w);
      DS4_CHECK(job.rows_per_group % pass_rows == 0);
      while (job.rows_per_group % (pass_rows * job.passes_per_block) != 0)
        --job.passes_per_block;
    }
    job.first_block = blocks;
    blocks += (passes[j] + job.passes_per_block - 1) / job.passes_per_block;
  }
  const std::size_t row_bytes = (columns_max + columns_max / 16 * 4) * sizeof(float);
  const std::size_t room = device.shared_bytes_max - 6 * 1024;
  if (jobs.rows == 1 || 2 * row_bytes > room) {
    launch_matvec<1>(stream, stage, jobs, blocks, row_bytes);
  } else if (jobs.rows == 2 || 4 * row_bytes > room) {
    launch_matvec<2>(stream, stage, jobs, blocks, 2 * row_bytes);
  } else {
    launch_matvec<4>(stream, stage, jobs, blocks, 4 * row_bytes);
  }
}

}  // namespace ds4::cuda
