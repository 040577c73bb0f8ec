// Decode products of 1, 8 and 32 rows: Flash's shapes, experts IQ2_XXS and Q2_K, the rest Q8_0.
//
//   naive       one thread an output, weights decoded to f32, sums in f64: the reference
//   experts     src/cuda/row_experts.cu and few_experts.cu, gate and up and down; routings take
//               turns, so that codes come from memory
//   dense       src/cuda/matvec.cu for one row, rows_product.cu for several: the first row of
//               several must be the row alone
#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "cuda/codecs.cuh"
#include "cuda/experts.h"
#include "cuda/integer_dot.cuh"
#include "cuda/matvec.h"
#include "cuda/rows_product.h"
#include "ladder.h"
#include "naive_unit.cuh"
#include "random_matrix.h"

namespace ds4::ladder {

namespace {

constexpr std::uint32_t kWidth = 4096, kInner = 2048, kExperts = 256, kUsed = 6, kSlots = kUsed + 1;
constexpr float kLimit = 7.0F;
constexpr double kErrorLimit = 1e-3;

// out[i][o] = w[slabs[i]][o] * x[rows[i]]
template <ElementType type>
DS4_KERNEL void naive(Matrix m,
                      const std::byte* grid,
                      const float* x,
                      const std::uint32_t* rows,
                      const std::uint32_t* slabs,
                      double* out) {
  using C = cuda::Codec<type>;
  DS4_SHARED cuda::CodebookMemory<1> book_memory;
  const cuda::Codebook book = book_memory.view();
  cuda::load_codebook(grid, book_memory);
  cuda::block_sync();
  const std::uint32_t o = blockIdx.x * blockDim.x + threadIdx.x;
  const std::uint32_t slab = slabs[blockIdx.y];
  const float* from = x + std::size_t{rows[blockIdx.y]} * m.columns;
  double sum = 0;
  for (std::uint32_t unit = 0; unit < m.columns / C::kUnit; ++unit) {
    const typename C::Unit u = load_unit_alone<type>(m, slab, o, unit);
    for (int s = 0; s < C::kSegments; ++s) {
      float w[8];
      C::decode(u, s, &book, w);
      for (int i = 0; i < 8; ++i)
        sum += static_cast<double>(w[i]) * from[C::column(unit, s) + i];
    }
  }
  out[std::size_t{blockIdx.y} * m.rows + o] = sum;
}

template <ElementType type>
std::vector<double> naive_products(const Matrix& m,
                                   const float* x,
                                   const std::vector<std::uint32_t>& rows,
                                   const std::vector<std::uint32_t>& slabs) {
  cuda::Stream stream(false);
  const Device<std::uint32_t> row_list(rows);
  const Device<std::uint32_t> slab_list(slabs);
  Device<double> out(rows.size() * m.rows);
  cuda::launch(
      stream, "naive",
      {.grid_x = m.rows / 64, .grid_y = static_cast<std::uint32_t>(rows.size()), .threads = 64},
      naive<type>, m, grid_of_card().get(), x, row_list.get(), slab_list.get(), out.get());
  stream.synchronize("naive");
  return out.download();
}

DS4_KERNEL void to_integers(const float* x, std::uint32_t columns, std::byte* to) {
  const float* from = x + std::size_t{blockIdx.x} * columns;
  cuda::put_rows<false>(cuda::row_integers(to, blockIdx.x, columns), 1, columns,
                        [&](std::uint32_t) { return from; });
}

std::vector<float> random_floats(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> one(-1, 1);
  std::vector<float> all(count);
  for (float& v : all)
    v = one(random);
  return all;
}

// A row of each of `count` rows chooses kUsed different experts.
std::vector<std::int32_t> random_ids(std::uint32_t rows, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> all(kExperts);
  for (std::uint32_t e = 0; e < kExperts; ++e)
    all[e] = static_cast<std::int32_t>(e);
  for (std::uint32_t r = 0; r < rows; ++r) {
    std::shuffle(all.begin(), all.end(), random);
    ids.insert(ids.end(), all.begin(), all.begin() + kUsed);
  }
  return ids;
}

struct Layer {
  RandomMatrix gate{ElementType::kIQ2XXS, kExperts, kInner, kWidth, 1};
  RandomMatrix up{ElementType::kIQ2XXS, kExperts, kInner, kWidth, 2};
  RandomMatrix down{ElementType::kQ2K, kExperts, kWidth, kInner, 3};
  RandomMatrix shared_gate{ElementType::kQ8_0, 1, kInner, kWidth, 4};
  RandomMatrix shared_up{ElementType::kQ8_0, 1, kInner, kWidth, 5};
  RandomMatrix shared_down{ElementType::kQ8_0, 1, kWidth, kInner, 6};
};

// Rows with their inputs, some routings, and outputs.
struct Batch {
  static constexpr std::uint32_t kRoutings = 16;
  std::uint32_t rows;
  Device<float> x;
  Device<std::byte> integers;
  std::vector<std::int32_t> chosen;
  Device<std::int32_t> ids;  // [kRoutings, rows, kUsed]
  Device<float> weights;
  Device<float> mid;
  Device<float> slot_out;
  Device<float> out;

  Batch(cuda::Stream& stream, std::uint32_t row_count)
      : rows(row_count),
        x(random_floats(std::size_t{rows} * kWidth, 7)),
        integers(rows * cuda::integer_rows_bytes(1, kWidth)),
        chosen(random_ids(rows * kRoutings, 8)),
        ids(chosen),
        weights(random_floats(std::size_t{rows} * kUsed, 9)),
        mid(std::size_t{rows} * kSlots * kInner),
        slot_out(std::size_t{rows} * kSlots * kWidth),
        out(std::size_t{rows} * kWidth) {
    cuda::launch(stream, "integers", {.grid_x = rows, .threads = 256}, to_integers, x.get(), kWidth,
                 integers.get());
    mid.poison();
    slot_out.poison();
    out.poison();
  }
  cuda::ExpertsJob job(const Layer& w, std::uint32_t routing) const {
    return {.rows = rows,
            .used = kUsed,
            .limit = kLimit,
            .gate = w.gate.m,
            .up = w.up.m,
            .down = w.down.m,
            .shared_gate = w.shared_gate.m,
            .shared_up = w.shared_up.m,
            .shared_down = w.shared_down.m,
            .ids = ids.get() + std::size_t{routing} * rows * kUsed,
            .weights = weights.get(),
            .x = integers.get(),
            .mid = mid.get(),
            .slot_output = slot_out.get(),
            .output = out.get(),
            .grid = grid_of_card().get()};
  }
};

cuda::DeviceInfo this_card() {
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, 0), "reading the card's properties");
  cuda::DeviceInfo info;
  info.multiprocessors = static_cast<std::uint32_t>(properties.multiProcessorCount);
  info.shared_bytes_max = properties.sharedMemPerBlockOptin;
  return info;
}

void append(std::vector<double>& to, const float* from, std::size_t count) {
  to.insert(to.end(), from, from + count);
}

// Every row against itself alone, to the bit: what a row gets must not depend on the others.
void check_alone(cuda::Stream& stream,
                 const Layer& w,
                 const Batch& batch,
                 const std::vector<float>& mid,
                 const std::vector<float>& out) {
  std::uint32_t different = 0;
  for (std::uint32_t r = 0; r < batch.rows && batch.rows > 1; ++r) {
    cuda::ExpertsJob alone = batch.job(w, 0);
    alone.rows = 1;
    alone.ids += std::size_t{r} * kUsed;
    alone.weights += std::size_t{r} * kUsed;
    alone.x += r * cuda::integer_rows_bytes(1, kWidth);
    cuda::run_experts_of_few(stream, this_card(), alone);
    stream.synchronize("experts of one row");
    const std::vector<float> own_mid = batch.mid.download();
    const std::vector<float> own_out = batch.out.download();
    constexpr std::size_t kMid = std::size_t{kSlots} * kInner;
    const bool equal = std::equal(&mid[r * kMid], &mid[r * kMid] + kMid, own_mid.begin()) &&
                       std::equal(&out[std::size_t{r} * kWidth],
                                  &out[std::size_t{r} * kWidth] + kWidth, own_out.begin());
    different += equal ? 0 : 1;
  }
  std::printf("  rows that differ from theirs alone: %u%s\n", different, verdict(different, 0.5));
}

// Every row of the first routing against the naive products.
void check_batch(cuda::Stream& stream, const Layer& w, const Batch& batch) {
  cuda::run_experts_of_few(stream, this_card(), batch.job(w, 0));
  stream.synchronize("experts");
  const std::vector<float> mid = batch.mid.download();
  const std::vector<float> out = batch.out.download();
  std::vector<std::uint32_t> rows, slabs, mid_rows, shared_mid_rows, every_row, zeros;
  for (std::uint32_t r = 0; r < batch.rows; ++r) {
    every_row.push_back(r);
    zeros.push_back(0);
    shared_mid_rows.push_back(r * kSlots + kUsed);
    for (std::uint32_t s = 0; s < kUsed; ++s) {
      rows.push_back(r);
      mid_rows.push_back(r * kSlots + s);
      slabs.push_back(static_cast<std::uint32_t>(batch.chosen[r * kUsed + s]));
    }
  }
  const float* x = batch.x.get();
  const auto gate = naive_products<ElementType::kIQ2XXS>(w.gate.m, x, rows, slabs);
  const auto up = naive_products<ElementType::kIQ2XXS>(w.up.m, x, rows, slabs);
  const auto shared_gate = naive_products<ElementType::kQ8_0>(w.shared_gate.m, x, every_row, zeros);
  const auto shared_up = naive_products<ElementType::kQ8_0>(w.shared_up.m, x, every_row, zeros);
  const float* middle = batch.mid.get();
  const auto down = naive_products<ElementType::kQ2K>(w.down.m, middle, mid_rows, slabs);
  const auto shared_down =
      naive_products<ElementType::kQ8_0>(w.shared_down.m, middle, shared_mid_rows, zeros);
  const std::vector<float> weights = batch.weights.download();
  std::vector<double> expected_mid, found_mid, expected_out(out.size()), found_out;
  for (std::uint32_t r = 0; r < batch.rows; ++r) {
    for (std::uint32_t s = 0; s < kSlots; ++s)
      for (std::uint32_t i = 0; i < kInner; ++i) {
        const std::size_t at = (std::size_t{r} * kUsed + s) * kInner + i;
        const std::size_t own = std::size_t{r} * kInner + i;
        const double g = s < kUsed ? gate[at] : shared_gate[own];
        const double u = s < kUsed ? up[at] : shared_up[own];
        const double kept = std::min<double>(g, kLimit);
        expected_mid.push_back(kept / (1 + std::exp(-kept)) *
                               std::clamp<double>(u, -kLimit, kLimit) *
                               (s < kUsed ? weights[r * kUsed + s] : 1.0F));
      }
    for (std::uint32_t o = 0; o < kWidth; ++o) {
      double& sum = expected_out[std::size_t{r} * kWidth + o];
      for (std::uint32_t s = 0; s < kUsed; ++s)
        sum += down[(std::size_t{r} * kUsed + s) * kWidth + o];
      sum += shared_down[std::size_t{r} * kWidth + o];
    }
  }
  append(found_mid, mid.data(), mid.size());
  append(found_out, out.data(), out.size());
  const double mid_error = relative_distance(expected_mid, found_mid);
  const double out_error = relative_distance(expected_out, found_out);
  std::printf("experts, %u rows: gate and up error %.1e%s, down error %.1e%s\n", batch.rows,
              mid_error, verdict(mid_error, kErrorLimit), out_error,
              verdict(out_error, kErrorLimit));
  check_alone(stream, w, batch, mid, out);
}

void time_experts(cuda::Stream& stream, const Ceilings& most, const Layer& w, const Batch& batch) {
  const cuda::DeviceInfo card = this_card();
  double distinct = 0;
  for (std::uint32_t k = 0; k < Batch::kRoutings; ++k) {
    const auto from = batch.chosen.begin() + std::ptrdiff_t{k} * batch.rows * kUsed;
    std::vector<std::int32_t> own(from, from + std::ptrdiff_t{batch.rows} * kUsed);
    std::sort(own.begin(), own.end());
    distinct += static_cast<double>(std::unique(own.begin(), own.end()) - own.begin());
  }
  distinct /= Batch::kRoutings;
  const double seconds = median_seconds(stream,
                                        [&] {
                                          for (std::uint32_t k = 0; k < Batch::kRoutings; ++k)
                                            cuda::run_experts_of_few(stream, card, batch.job(w, k));
                                        }) /
                         Batch::kRoutings;
  const double bytes =
      static_cast<double>(w.gate.bytes_of_all() + w.up.bytes_of_all() + w.down.bytes_of_all()) *
          distinct / kExperts +
      static_cast<double>(w.shared_gate.bytes_of_all() + w.shared_up.bytes_of_all() +
                          w.shared_down.bytes_of_all());
  std::printf("experts, %2u rows, %5.1f experts: %7.1f us, %.2f TB/s, floor %.1f us\n", batch.rows,
              distinct, seconds * 1e6, bytes / seconds * 1e-12,
              bytes / most.bytes_per_second * 1e6);
}

// One dense matrix by some rows of integers, in some groups; copies of it take turns.
void dense_case(cuda::Stream& stream,
                const Ceilings& most,
                const char* name,
                std::uint32_t outputs,
                std::uint32_t columns,
                std::uint32_t groups) {
  constexpr std::uint32_t kCopies = 4;
  constexpr std::uint32_t kRowsMax = 32;
  const RandomMatrix w(ElementType::kQ8_0, kCopies, outputs, columns, 1);
  const Device<float> x(random_floats(std::size_t{kRowsMax} * groups * columns, 2));
  const Device<std::byte> integers(kRowsMax * groups * cuda::integer_rows_bytes(1, columns));
  cuda::make_integers(stream, kRowsMax * groups, columns, x.get(), nullptr, 0, integers.get());
  const std::uint32_t group_rows = groups > 1 ? outputs / groups : 0;
  const auto copy_of = [&](std::uint32_t copy) {
    Matrix m = w.m;
    m.codes += std::size_t{copy} * outputs * m.codes_bytes;
    m.scales += std::size_t{copy} * outputs * m.scales_bytes;
    return m;
  };
  std::vector<float> first_row;
  for (const std::uint32_t rows : {1U, 8U, 32U}) {
    Device<float> out(std::size_t{rows} * outputs);
    const Device<float> parts(cuda::product_parts(rows, outputs, columns));
    out.poison();
    const auto run = [&](std::uint32_t copy) {
      if (rows > 1)
        return cuda::run_rows_product(stream, this_card(), name,
                                      {.w = copy_of(copy),
                                       .x = integers.get(),
                                       .rows = rows,
                                       .rows_per_group = group_rows,
                                       .parts = parts.get(),
                                       .out = out.get(),
                                       .out_stride = outputs});
      cuda::MatvecJobs jobs;
      jobs.rows = rows;
      cuda::MatvecJob& job = jobs.add(copy_of(copy), x.get(), groups * columns, out.get(), outputs);
      job.integers = integers.get();
      job.rows_per_group = group_rows;
      job.group_columns = columns;
      cuda::run_matvec(stream, this_card(), name, jobs);
    };
    run(0);
    stream.synchronize(name);
    const std::vector<float> all = out.download();
    if (rows == 1) first_row = all;
    double error = std::equal(first_row.begin(), first_row.end(), all.begin()) ? 0 : 1;
    if (groups == 1 && rows == 1) {
      std::vector<double> found;
      append(found, all.data(), outputs);
      error = relative_distance(naive_products<ElementType::kQ8_0>(w.m, x.get(), {0}, {0}), found);
    }
    const double seconds = median_seconds(stream,
                                          [&] {
                                            for (std::uint32_t k = 0; k < 4 * kCopies; ++k)
                                              run(k % kCopies);
                                          }) /
                           (4 * kCopies);
    const double bytes = static_cast<double>(w.bytes_of_all()) / kCopies;
    std::printf("%-14s %2u rows: %6.1f us, floor %.1f us, error %.1e%s\n", name, rows,
                seconds * 1e6, bytes / most.bytes_per_second * 1e6, error,
                verdict(error, kErrorLimit));
  }
}

}  // namespace

void experts_ladder(cuda::Stream& stream, const Ceilings& most, bool check_only) {
  const Layer layer;
  for (const std::uint32_t rows : {1U, 2U, 5U, 8U, 16U, 32U}) {
    const Batch batch(stream, rows);
    check_batch(stream, layer, batch);
    if (!check_only) time_experts(stream, most, layer, batch);
  }
  if (check_only) return;
  dense_case(stream, most, "query_b", 32768, 1024, 1);
  dense_case(stream, most, "output_a", 8192, 4096, 8);
  dense_case(stream, most, "output_b", 4096, 8192, 1);
}

}  // namespace ds4::ladder
