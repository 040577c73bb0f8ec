// Matrix products over many rows: Flash's shapes, its formats, chunks of 2,048 to 8,192 rows.
//
//   naive       one thread an output, weights decoded to f32, sums in f64: the reference
//   tiles       src/cuda/tile_product.cuh by warps' matrix instructions
//   groups      the same by warpgroups', where the card has them
#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "cuda/activate.cuh"
#include "cuda/codecs.cuh"
#include "cuda/grouped_experts.h"
#include "cuda/tile_product.h"
#include "ladder.h"
#include "naive_unit.cuh"
#include "random_matrix.h"
#include "tensor/float16.h"

namespace ds4::ladder {

namespace {

using cuda::Matrix;
using cuda::TileProduct;

// Where column `c` of an input stands.
constexpr std::size_t operand_column(std::size_t c) {
  return c / 32 * 32 + cuda::operand_pair(c % 32 / 2) * 2 + c % 2;
}

// out[i][o] of the first rows.
template <ElementType type>
DS4_KERNEL void naive(Matrix m,
                      const std::byte* grid,
                      const std::uint16_t* x,
                      const std::uint16_t* rest,
                      std::uint32_t x_stride,
                      std::uint32_t slab,
                      double* out) {
  using C = cuda::Codec<type>;
  DS4_SHARED cuda::CodebookMemory<1> book_memory;
  const cuda::Codebook book = book_memory.view();
  cuda::load_codebook(grid, book_memory);
  cuda::block_sync();
  const std::uint32_t o = blockIdx.x * blockDim.x + threadIdx.x;
  double sum = 0;
  for (std::uint32_t unit = 0; unit < m.columns / C::kUnit; ++unit) {
    const typename C::Unit u = load_unit_alone<type>(m, slab, o, unit);
    for (int s = 0; s < C::kSegments; ++s) {
      float w[8];
      C::decode(u, s, &book, w);
      const std::size_t at = std::size_t{blockIdx.y} * x_stride + C::column(unit, s);
      for (int i = 0; i < 8; ++i) {
        const std::size_t place = operand_column(at + i);
        double v = cuda::half_to_float(x[place]);
        if (rest != nullptr) v += cuda::half_to_float(rest[place]);
        sum += static_cast<double>(w[i]) * v;
      }
    }
  }
  out[std::size_t{blockIdx.y} * m.rows + o] = sum;
}

constexpr double kErrorMax = 2e-3;

void report(const std::string& name,
            const Ceilings& most,
            double seconds,
            double flops,
            double bytes,
            double error) {
  const double floor = std::max(flops / most.flops, bytes / most.bytes_per_second);
  std::printf("%-34s %9.1f us  floor %8.1f us  %5.0f TF/s  %5.2f TB/s  %4.0f %%  error %.1e%s\n",
              name.c_str(), seconds * 1e6, floor * 1e6, flops / seconds * 1e-12,
              bytes / seconds * 1e-12, 100 * floor / seconds, error, verdict(error, kErrorMax));
}

// Rounded outputs in the order of their columns.
std::vector<double> plain_order(const std::vector<std::uint16_t>& rounded) {
  std::vector<double> all(rounded.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = f16_to_f32(rounded[operand_column(i)]);
  return all;
}

const char* way(bool portable) {
  return portable ? ", tiles" : ", groups";
}

// The first rows of a product, by the naive kernel.
constexpr std::uint32_t kCheckedRows = 3;

template <ElementType type>
std::vector<double> naive_rows(const Matrix& m,
                               const std::uint16_t* x,
                               const std::uint16_t* rest,
                               std::uint32_t x_stride,
                               std::uint32_t slab,
                               std::uint32_t rows = kCheckedRows) {
  Device<double> out(std::size_t{rows} * m.rows);
  naive<type><<<dim3(m.rows / 64, rows), 64>>>(m, grid_of_card().get(), x, rest, x_stride, slab,
                                               out.get());
  cuda::check(cudaDeviceSynchronize(), "naive");
  return out.download();
}

template <ElementType type>
void dense_case(cuda::Stream& stream,
                const Ceilings& most,
                const char* name,
                std::uint32_t outputs,
                std::uint32_t columns,
                std::uint32_t rows) {
  const RandomMatrix w(type, 1, outputs, columns, 1);
  const bool split = type == ElementType::kF16;
  const Device<std::uint16_t> x(random_halves(std::size_t{rows} * columns, 2.0F, 3));
  const Device<std::uint16_t> rest(
      random_halves(split ? std::size_t{rows} * columns : 1, 0.001F, 4));
  Device<float> out(std::size_t{rows} * outputs);
  const std::vector<double> expected =
      naive_rows<type>(w.m, x.get(), split ? rest.get() : nullptr, columns, 0);
  for (const bool portable : {true, false}) {
    if (!portable && rows <= 32) continue;
    out.poison();
    const double seconds = median_seconds(stream, [&] {
      cuda::run_tile_product(stream, name,
                             {.w = w.m,
                              .x = x.get(),
                              .x_rest = split ? rest.get() : nullptr,
                              .x_stride = columns,
                              .out = out.get(),
                              .out_stride = outputs,
                              .rows = rows,
                              .grid = grid_of_card().get(),
                              .portable = portable});
    });
    const std::vector<float> all = out.download();
    const std::vector<double> found(all.begin(), all.begin() + kCheckedRows * outputs);
    const bool finite =
        std::all_of(all.begin(), all.end(), [](float v) { return std::isfinite(v); });
    report(std::string(name) + ", " + std::to_string(rows) + way(portable), most, seconds,
           2.0 * rows * outputs * columns * (split ? 2 : 1),
           static_cast<double>(w.bytes_of_all()) + 2.0 * rows * columns + 4.0 * rows * outputs,
           finite ? relative_distance(expected, found) : INFINITY);
  }
}

// Six random experts of 256 a row.
struct Routing {
  static constexpr std::uint32_t kUsed = 6, kExperts = 256;
  std::uint32_t rows;
  std::vector<std::int32_t> chosen;
  Device<std::int32_t> ids;
  Device<std::uint32_t> pairs;
  Device<cuda::ExpertTile> tiles;
  Device<std::uint32_t> tile_count;

  explicit Routing(std::uint32_t row_count)
      : rows(row_count),
        chosen(choose(row_count)),
        ids(chosen),
        pairs(std::size_t{row_count} * kUsed),
        tiles(cuda::expert_tiles_max(row_count, kUsed, kExperts)),
        tile_count(1) {}
  static std::vector<std::int32_t> choose(std::uint32_t row_count) {
    std::mt19937 random(5);
    std::vector<std::int32_t> all;
    for (std::uint32_t r = 0; r < row_count; ++r)
      for (std::uint32_t k = 0; k < kUsed;) {
        const auto e = static_cast<std::int32_t>(random() % kExperts);
        if (std::find(all.end() - k, all.end(), e) != all.end()) continue;
        all.push_back(e);
        ++k;
      }
    return all;
  }
  cuda::ExpertTiles group(cuda::Stream& stream) {
    return cuda::group_by_expert(stream, {.rows = rows,
                                          .used = kUsed,
                                          .expert_count = kExperts,
                                          .ids = ids.get(),
                                          .pairs = pairs.get(),
                                          .tiles = tiles.get(),
                                          .tile_count = tile_count.get()});
  }
  // Of all experts.
  double share_touched() const {
    std::vector<bool> seen(kExperts);
    for (const auto e : chosen)
      seen[static_cast<std::size_t>(e)] = true;
    return static_cast<double>(std::count(seen.begin(), seen.end(), true)) / kExperts;
  }
};

constexpr std::uint32_t kWidth = 4096, kInner = 2048, kSlots = Routing::kUsed + 1;
constexpr float kLimit = 7.0F;
constexpr float kPairWeight = 0.25F;

double gated(double gate, double up) {
  const double a = std::min<double>(gate, kLimit);
  return a / (1 + std::exp(-a)) * std::clamp<double>(up, -kLimit, kLimit) * kPairWeight;
}

// A layer's routed experts.
struct Experts {
  RandomMatrix gate{ElementType::kIQ2XXS, Routing::kExperts, kInner, kWidth, 1};
  RandomMatrix up{ElementType::kIQ2XXS, Routing::kExperts, kInner, kWidth, 2};
  RandomMatrix down{ElementType::kQ2K, Routing::kExperts, kWidth, kInner, 7};
};

void gate_up_case(cuda::Stream& stream,
                  const Ceilings& most,
                  const Experts& w,
                  const Routing& routing,
                  const cuda::ExpertTiles& tiles) {
  const std::uint32_t rows = routing.rows;
  const double pairs = static_cast<double>(rows) * Routing::kUsed;
  const Device<std::uint16_t> x(random_halves(std::size_t{rows} * kWidth, 2.0F, 3));
  const Device<float> weights(std::vector<float>(std::size_t{rows} * Routing::kUsed, kPairWeight));
  Device<std::uint16_t> mid(std::size_t{rows} * kSlots * kInner);
  // Slot 0 of the first row.
  const auto slab = static_cast<std::uint32_t>(routing.chosen[0]);
  const auto g = naive_rows<ElementType::kIQ2XXS>(w.gate.m, x.get(), nullptr, kWidth, slab);
  const auto u = naive_rows<ElementType::kIQ2XXS>(w.up.m, x.get(), nullptr, kWidth, slab);
  std::vector<double> expected(kInner);
  for (std::uint32_t i = 0; i < kInner; ++i)
    expected[i] = gated(g[i], u[i]);
  for (const bool portable : {true, false}) {
    mid.poison();
    const double seconds = median_seconds(stream, [&] {
      cuda::run_gated_tile_product(stream, "gated",
                                   {.w = w.gate.m,
                                    .up = w.up.m,
                                    .x = x.get(),
                                    .x_stride = kWidth,
                                    .out_rounded = mid.get(),
                                    .out_stride = kInner,
                                    .experts = tiles,
                                    .x_divisor = kSlots,
                                    .limit = kLimit,
                                    .weights = weights.get(),
                                    .slots = kSlots,
                                    .grid = grid_of_card().get(),
                                    .portable = portable});
    });
    std::vector<double> found = plain_order(mid.download());
    found.resize(kInner);
    report(
        "gate and up IQ2_XXS, " + std::to_string(rows) + way(portable), most, seconds,
        4.0 * pairs * kInner * kWidth,
        static_cast<double>(w.gate.bytes_of_all() + w.up.bytes_of_all()) * routing.share_touched() +
            2.0 * rows * kWidth + 2.0 * pairs * kInner,
        relative_distance(expected, found));
  }
}

void down_case(cuda::Stream& stream,
               const Ceilings& most,
               const Experts& w,
               const Routing& routing,
               const cuda::ExpertTiles& tiles) {
  const std::uint32_t rows = routing.rows;
  const double pairs = static_cast<double>(rows) * Routing::kUsed;
  const Device<std::uint16_t> mid(random_halves(std::size_t{rows} * kSlots * kInner, 2.0F, 6));
  Device<float> out(std::size_t{rows} * kSlots * kWidth);
  const auto slab = static_cast<std::uint32_t>(routing.chosen[0]);
  auto expected = naive_rows<ElementType::kQ2K>(w.down.m, mid.get(), nullptr, kInner, slab);
  expected.resize(kWidth);
  for (const bool portable : {true, false}) {
    out.poison();
    const double seconds = median_seconds(stream, [&] {
      cuda::run_tile_product(stream, "down",
                             {.w = w.down.m,
                              .x = mid.get(),
                              .x_stride = kInner,
                              .out = out.get(),
                              .out_stride = kWidth,
                              .experts = tiles,
                              .grid = grid_of_card().get(),
                              .portable = portable});
    });
    const std::vector<float> all = out.download();
    report("down Q2_K, " + std::to_string(rows) + way(portable), most, seconds,
           2.0 * pairs * kInner * kWidth,
           static_cast<double>(w.down.bytes_of_all()) * routing.share_touched() +
               2.0 * pairs * kInner + 4.0 * pairs * kWidth,
           relative_distance(expected, std::vector<double>(all.begin(), all.begin() + kWidth)));
  }
}

void expert_cases(cuda::Stream& stream,
                  const Ceilings& most,
                  const Experts& w,
                  std::uint32_t rows) {
  Routing routing(rows);
  const double seconds = median_seconds(stream, [&] { routing.group(stream); });
  std::printf("grouping %u rows: %.1f us\n", rows, seconds * 1e6);
  const cuda::ExpertTiles tiles = routing.group(stream);
  gate_up_case(stream, most, w, routing, tiles);
  down_case(stream, most, w, routing, tiles);
}

// One line of a check.
void judge(const std::string& name,
           const std::vector<double>& expected,
           std::vector<double> found) {
  const bool finite =
      std::all_of(found.begin(), found.end(), [](double v) { return std::isfinite(v); });
  const double error = finite ? relative_distance(expected, found) : INFINITY;
  std::printf("%-50s error %.1e%s\n", name.c_str(), error, verdict(error, kErrorMax));
}

// Plain products of every width, with x in one part and in two, and in groups to rounded outputs.
template <ElementType type>
void check_plain(cuda::Stream& stream, const char* type_name, std::uint32_t rows, bool split) {
  constexpr std::uint32_t kOutputs = 320, kColumns = 768, kGroups = 2;
  const RandomMatrix w(type, 1, kOutputs, kColumns, 1);
  const std::uint32_t stride = kGroups * kColumns;
  const Device<std::uint16_t> x(random_halves(std::size_t{rows} * stride, 2.0F, 3));
  const Device<std::uint16_t> rest(random_halves(std::size_t{rows} * stride, 0.5F, 4));
  const std::uint16_t* used_rest = split ? rest.get() : nullptr;
  const auto first = naive_rows<type>(w.m, x.get(), used_rest, stride, 0, rows);
  auto grouped = naive_rows<type>(w.m, x.get() + kColumns, nullptr, stride, 0, rows);
  for (std::uint32_t r = 0; r < rows; ++r)
    std::copy_n(&first[std::size_t{r} * kOutputs], kOutputs / kGroups,
                &grouped[std::size_t{r} * kOutputs]);
  for (const bool portable : {true, false}) {
    const std::string name =
        std::string(type_name) + (split ? " split, " : ", ") + std::to_string(rows) + way(portable);
    Device<float> out(first.size());
    out.poison();
    TileProduct product{.w = w.m,
                        .x = x.get(),
                        .x_rest = used_rest,
                        .x_stride = stride,
                        .out = out.get(),
                        .out_stride = kOutputs,
                        .rows = rows,
                        .grid = grid_of_card().get(),
                        .portable = portable};
    cuda::run_tile_product(stream, "plain", product);
    stream.synchronize(name.c_str());
    const std::vector<float> all = out.download();
    judge(name, first, {all.begin(), all.end()});
    if (split) continue;
    Device<std::uint16_t> rounded(first.size());
    rounded.poison();
    product.out = nullptr;
    product.out_rounded = rounded.get();
    product.groups = kGroups;
    product.group_columns = kColumns;
    cuda::run_tile_product(stream, "rounded", product);
    stream.synchronize(name.c_str());
    judge(name + ", rounded", grouped, plain_order(rounded.download()));
  }
}

// Gated products and plain ones of experts, three rows' pairs of them.
template <ElementType type>
void check_experts(cuda::Stream& stream, const char* type_name, std::uint32_t rows) {
  constexpr std::uint32_t kOutputs = 64, kColumns = 512;
  const RandomMatrix gate(type, Routing::kExperts, kOutputs, kColumns, 1);
  const RandomMatrix up(type, Routing::kExperts, kOutputs, kColumns, 2);
  Routing routing(rows);
  const cuda::ExpertTiles tiles = routing.group(stream);
  const Device<std::uint16_t> x(random_halves(std::size_t{rows} * kColumns, 2.0F, 3));
  const Device<float> weights(std::vector<float>(std::size_t{rows} * Routing::kUsed, kPairWeight));
  const std::uint32_t checked[] = {0, rows / 2, rows - 1};
  std::vector<double> middle, plain;
  for (const std::uint32_t r : checked)
    for (std::uint32_t k = 0; k < Routing::kUsed; ++k) {
      const auto slab = static_cast<std::uint32_t>(routing.chosen[r * Routing::kUsed + k]);
      const std::uint16_t* row = x.get() + std::size_t{r} * kColumns;
      const auto g = naive_rows<type>(gate.m, row, nullptr, kColumns, slab, 1);
      const auto u = naive_rows<type>(up.m, row, nullptr, kColumns, slab, 1);
      for (std::uint32_t i = 0; i < kOutputs; ++i)
        middle.push_back(gated(g[i], u[i]));
      plain.insert(plain.end(), g.begin(), g.end());
    }
  for (const bool portable : {true, false}) {
    const std::string name =
        std::string(type_name) + " experts, " + std::to_string(rows) + way(portable);
    Device<std::uint16_t> mid(std::size_t{rows} * kSlots * kOutputs);
    Device<float> out(mid.count());
    mid.poison();
    out.poison();
    TileProduct product{.w = gate.m,
                        .up = up.m,
                        .x = x.get(),
                        .x_stride = kColumns,
                        .out_rounded = mid.get(),
                        .out_stride = kOutputs,
                        .experts = tiles,
                        .x_divisor = kSlots,
                        .limit = kLimit,
                        .weights = weights.get(),
                        .slots = kSlots,
                        .grid = grid_of_card().get(),
                        .portable = portable};
    cuda::run_gated_tile_product(stream, "gated", product);
    product.out_rounded = nullptr;
    product.out = out.get();
    product.weights = nullptr;
    cuda::run_tile_product(stream, "plain", product);
    stream.synchronize(name.c_str());
    const std::vector<double> all_mid = plain_order(mid.download());
    const std::vector<float> all_out = out.download();
    std::vector<double> found_mid, found_out;
    for (const std::uint32_t r : checked) {
      const std::size_t at = std::size_t{r} * kSlots * kOutputs;
      constexpr std::size_t kCount = Routing::kUsed * kOutputs;
      found_mid.insert(found_mid.end(), &all_mid[at], &all_mid[at] + kCount);
      found_out.insert(found_out.end(), &all_out[at], &all_out[at] + kCount);
    }
    judge(name + ", gated", middle, found_mid);
    judge(name, plain, found_out);
  }
}

template <ElementType type>
void check_type(cuda::Stream& stream, const char* name) {
  for (const std::uint32_t rows : {7U, 30U, 33U, 64U, 65U, 90U, 100U, 128U, 300U}) {
    check_plain<type>(stream, name, rows, false);
    if constexpr (!cuda::Codec<type>::kQuantised) check_plain<type>(stream, name, rows, true);
  }
  for (const std::uint32_t rows : {200U, 1500U, 4096U})
    check_experts<type>(stream, name, rows);
}

}  // namespace

void check_tiles(cuda::Stream& stream) {
  check_type<ElementType::kF32>(stream, "F32");
  check_type<ElementType::kF16>(stream, "F16");
  check_type<ElementType::kBF16>(stream, "BF16");
  check_type<ElementType::kQ8_0>(stream, "Q8_0");
  check_type<ElementType::kIQ2XXS>(stream, "IQ2_XXS");
  check_type<ElementType::kMXFP4>(stream, "MXFP4");
  check_type<ElementType::kQ4K>(stream, "Q4_K");
  check_type<ElementType::kQ2K>(stream, "Q2_K");
}

void tile_ladder(cuda::Stream& stream, const Ceilings& most) {
  for (const std::uint32_t rows : {32U, 2048U, 4096U}) {
    dense_case<ElementType::kQ8_0>(stream, most, "query_b Q8_0", 32768, 1024, rows);
    dense_case<ElementType::kQ8_0>(stream, most, "output_b Q8_0", 4096, 8192, rows);
    dense_case<ElementType::kQ8_0>(stream, most, "query_a Q8_0", 1024, 4096, rows);
    dense_case<ElementType::kF16>(stream, most, "index query F16 split", 8192, 1024, rows);
    dense_case<ElementType::kF16>(stream, most, "compressor F16 split", 1024, 4096, rows);
  }
  const Experts experts;
  for (const std::uint32_t rows : {32U, 2048U, 4096U, 8192U})
    expert_cases(stream, most, experts, rows);
}

}  // namespace ds4::ladder
