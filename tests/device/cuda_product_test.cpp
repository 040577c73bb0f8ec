// Products of several rows against the matrix-vector product of each row alone: the same to the
// bit.
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "cuda/cuda_executor.h"
#include "cuda/matvec.h"
#include "cuda/rows_product.h"
#include "tensor/float16.h"

namespace ds4::cuda {
namespace {

// Device memory with a vector's contents.
template <class T>
DeviceBuffer on_device(Stream& stream, const std::vector<T>& from) {
  DeviceBuffer buffer(from.size() * sizeof(T), "a test");
  stream.upload(buffer.data(), from.data(), from.size() * sizeof(T));
  stream.synchronize("a test");
  return buffer;
}

template <class T>
std::vector<T> from_device(Stream& stream, const DeviceBuffer& buffer) {
  std::vector<T> to(buffer.bytes() / sizeof(T));
  stream.download(to.data(), buffer.data(), buffer.bytes());
  stream.synchronize("a test");
  return to;
}

// A Q8_0 matrix of random numbers.
struct RandomMatrix {
  DeviceBuffer codes, scales;
  Matrix m;

  RandomMatrix(Stream& stream, std::uint32_t rows, std::uint32_t columns) {
    std::mt19937 random(rows + columns);
    std::vector<std::uint8_t> code_bytes(std::size_t{rows} * columns);
    for (std::uint8_t& code : code_bytes)
      code = static_cast<std::uint8_t>(random());
    std::vector<std::uint16_t> scale_halves(std::size_t{rows} * columns / 32);
    for (std::uint16_t& scale : scale_halves)
      scale = f32_to_f16(1.0F / static_cast<float>(64 + random() % 64));
    codes = on_device(stream, code_bytes);
    scales = on_device(stream, scale_halves);
    m = {.type = ElementType::kQ8_0,
         .slabs = 1,
         .rows = rows,
         .columns = columns,
         .codes_bytes = columns,
         .scales_bytes = columns / 32 * 2,
         .codes = codes.data(),
         .scales = scales.data()};
  }
};

struct ProductShape {
  std::uint32_t outputs, columns, groups;
};

class CudaProduct : public testing::TestWithParam<ProductShape> {};

TEST_P(CudaProduct, RowsAreThoseOfEachAlone) {
  if (card_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  const auto [outputs, columns, groups] = GetParam();
  constexpr std::uint32_t kRows = 32;
  const DeviceInfo device = open_device();
  Stream stream(device.programmatic_launch);
  const RandomMatrix w(stream, outputs, columns);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(std::size_t{kRows} * groups * columns);
  for (float& value : x)
    value = normal(random);
  const DeviceBuffer x_device = on_device(stream, x);
  DeviceBuffer integers(kRows * groups * integer_rows_bytes(1, columns), "a test");
  make_integers(stream, kRows * groups, columns, x_device.as<float>(), nullptr, 0, integers.data());

  DeviceBuffer alone_device(std::size_t{kRows} * outputs * sizeof(float), "a test");
  for (std::uint32_t r = 0; r < kRows; ++r) {
    MatvecJobs jobs;
    jobs.rows = 1;
    MatvecJob& job = jobs.add(w.m, x_device.as<float>(), groups * columns,
                              alone_device.as<float>() + std::size_t{r} * outputs, outputs);
    job.integers = integers.data() + r * groups * integer_rows_bytes(1, columns);
    job.rows_per_group = groups > 1 ? outputs / groups : 0;
    job.group_columns = columns;
    run_matvec(stream, device, "one row", jobs);
  }
  const auto alone = from_device<float>(stream, alone_device);
  DeviceBuffer alone_integers(kRows * integer_rows_bytes(1, outputs), "a test");
  stream.clear(alone_integers.data(), alone_integers.bytes());
  make_integers(stream, kRows, outputs, alone_device.as<float>(), nullptr, 0,
                alone_integers.data());
  const auto expected_integers = from_device<std::byte>(stream, alone_integers);

  for (const std::uint32_t rows : {2U, 8U, 9U, 17U, 32U}) {
    DeviceBuffer parts(product_parts(rows, outputs, columns) * sizeof(float), "a test");
    DeviceBuffer out(std::size_t{rows} * outputs * sizeof(float), "a test");
    DeviceBuffer out_integers(rows * integer_rows_bytes(1, outputs), "a test");
    stream.clear(out_integers.data(), out_integers.bytes());
    RowsProduct product{.w = w.m,
                        .x = integers.data(),
                        .rows = rows,
                        .rows_per_group = groups > 1 ? outputs / groups : 0,
                        .parts = parts.as<float>(),
                        .out = out.as<float>(),
                        .out_stride = outputs};
    run_rows_product(stream, device, "some rows", product);
    product.out_integers = out_integers.data();
    run_rows_product(stream, device, "some rows as integers", product);
    const auto together = from_device<float>(stream, out);
    const auto together_integers = from_device<std::byte>(stream, out_integers);
    EXPECT_TRUE(std::equal(together.begin(), together.end(), alone.begin())) << rows << " rows";
    EXPECT_EQ(
        std::memcmp(together_integers.data(), expected_integers.data(), together_integers.size()),
        0)
        << rows << " rows";
  }
}

// One part of the columns and several, in one chunk and in several; a last block that is cut short;
// outputs that fill no tile; groups with columns of their own.
INSTANTIATE_TEST_SUITE_P(Shapes,
                         CudaProduct,
                         testing::Values(ProductShape{40, 704, 1},
                                         ProductShape{48, 1024, 1},
                                         ProductShape{128, 1600, 2},
                                         ProductShape{32, 2112, 1},
                                         ProductShape{256, 4096, 2},
                                         ProductShape{48, 8192, 1}));

}  // namespace
}  // namespace ds4::cuda
