#include "cpu/matmul.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "quant/codec.h"

namespace ds4::cpu {
namespace {

struct Problem {
  Weight weight;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // decoded weights
};

Problem make_problem(ElementType type, std::size_t slabs, std::size_t rows, std::size_t columns) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Problem p;
  p.weight = {"w", type, slabs, rows, columns, {}};
  p.bytes.resize(slabs * p.weight.slab_bytes());
  p.values.resize(slabs * rows * columns);
  p.weight.bytes = p.bytes;
  std::vector<float> row(columns);
  for (std::size_t r = 0; r < slabs * rows; ++r) {
    for (float& value : row)
      value = normal(random);
    const auto stored = std::span(p.bytes).subspan(r * p.weight.row_bytes(), p.weight.row_bytes());
    quant::encode_row(type, row, stored);
    quant::decode_row(type, stored, std::span(p.values).subspan(r * columns, columns));
  }
  return p;
}

std::vector<float> multiply(const Problem& p,
                            std::size_t slab,
                            const std::vector<float>& x,
                            std::size_t rows,
                            std::size_t threads,
                            const Kernels& kernels = best_kernels(),
                            const std::vector<CpuList>& nodes = {}) {
  ThreadPool pool(threads, nodes);
  Matmul matmul(pool, kernels, rows, rows * Matmul::padded(p.weight.columns));
  std::vector<float> y(rows * p.weight.rows, -1.0F);
  std::vector<const float*> in;
  std::vector<float*> out;
  for (std::size_t r = 0; r < rows; ++r) {
    in.push_back(x.data() + r * p.weight.columns);
    out.push_back(y.data() + r * p.weight.rows);
  }
  const MatmulJob job{.weight = &p.weight,
                      .slab = slab,
                      .output_count = p.weight.rows,
                      .inputs = in,
                      .outputs = out};
  matmul.run({&job, 1});
  return y;
}

class MatmulTypes : public testing::TestWithParam<ElementType> {};

TEST_P(MatmulTypes, MatchesF64AtOddShapes) {
  const std::size_t block = element_type_info(GetParam()).values;
  for (const std::size_t columns : {block, 3 * block, std::size_t{1280}}) {
    const Problem p = make_problem(GetParam(), 2, 19, (columns + block - 1) / block * block);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> x(3 * p.weight.columns);
    for (float& value : x)
      value = normal(random);
    const auto y = multiply(p, 1, x, 3, 2);
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t o = 0; o < p.weight.rows; ++o) {
        double exact = 0;
        double magnitude = 0;
        double weight_sum = 0;
        double largest = 0;
        for (std::size_t i = 0; i < p.weight.columns; ++i) {
          const double term =
              static_cast<double>(p.values[(p.weight.rows + o) * p.weight.columns + i]) *
              x[r * p.weight.columns + i];
          exact += term;
          weight_sum +=
              std::abs(static_cast<double>(p.values[(p.weight.rows + o) * p.weight.columns + i]));
          largest = std::max(largest, std::abs(static_cast<double>(x[r * p.weight.columns + i])));
          magnitude += std::abs(term);
        }
        // Every input is off by at most half a 32639th of the largest; the rest is f32 sums.
        EXPECT_NEAR(y[r * p.weight.rows + o], exact,
                    1e-6 * magnitude + weight_sum * largest / 32639 / 2);
      }
    }
  }
}

TEST_P(MatmulTypes, InstructionSetsAgree) {
  const Problem p = make_problem(GetParam(), 1, 37, 2304);
  for (const std::size_t rows : {1U, 3U, 15U}) {
    std::vector<float> x(rows * 2304);
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>((i * 37) % 101) - 50.0F;
    const auto portable = multiply(p, 0, x, rows, 1, portable_kernels());
    for (const Kernels* kernels : usable_kernels()) {
      const auto values = multiply(p, 0, x, rows, 1, *kernels);
      // The same sums in the same order; only fused multiply-adds round once instead of twice.
      for (std::size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(values[i], portable[i], 1e-3) << kernels->name << " " << i;
    }
  }
}

// Few rows and many are multiplied by different loops, as are outputs beyond the last 16.
TEST_P(MatmulTypes, DoesNotDependOnThreadsOrOtherRows) {
  constexpr std::size_t kRows = 15;
  constexpr std::size_t kOutputs = 40;
  const Problem p = make_problem(GetParam(), 1, kOutputs, 1280);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(kRows * 1280);
  for (float& value : x)
    value = normal(random);
  for (const Kernels* kernels : usable_kernels()) {
    const auto all = multiply(p, 0, x, kRows, 3, *kernels);
    EXPECT_EQ(all, multiply(p, 0, x, kRows, 1, *kernels));
    // Nodes that this machine does not have: only the order of the work changes.
    EXPECT_EQ(all, multiply(p, 0, x, kRows, 3, *kernels, {{500}, {501}, {502}}));
    for (const std::size_t count : {1U, 2U, 3U, 4U, 7U}) {
      const std::vector<float> last(x.end() - static_cast<std::ptrdiff_t>(count * 1280), x.end());
      const auto alone = multiply(p, 0, last, count, 2, *kernels);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(),
                             all.end() - static_cast<std::ptrdiff_t>(count * kOutputs)))
          << kernels->name << " " << count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         MatmulTypes,
                         testing::Values(ElementType::kF32,
                                         ElementType::kF16,
                                         ElementType::kBF16,
                                         ElementType::kQ8_0,
                                         ElementType::kQ2K,
                                         ElementType::kQ4K,
                                         ElementType::kIQ2XXS,
                                         ElementType::kMXFP4));

}  // namespace
}  // namespace ds4::cpu
