// The exact top k of the indexer, ties included, against sorting on the host.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "cuda/device.h"
#include "cuda/select.h"

namespace ds4::cuda {
namespace {

// How the scores are spread: from none alike to all alike.
enum class Scores { kNormal, kFewValues, kAllEqual, kWithZerosOfBothSigns, kTiny };

std::vector<float> make_scores(Scores kind, std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scores(count);
  for (float& s : scores) {
    const float x = normal(random);
    switch (kind) {
      case Scores::kNormal:
        s = x;
        break;
      case Scores::kFewValues:
        s = std::round(x * 2) / 2;
        break;
      case Scores::kAllEqual:
        s = 3.5F;
        break;
      case Scores::kWithZerosOfBothSigns:
        s = x > 1 ? x : (x > 0 ? 0.0F : -0.0F);
        break;
      case Scores::kTiny:
        s = std::ldexp(std::round(x * 4), -140);
        break;
    }
  }
  return scores;
}

// The larger score first, of equals the lower row; then ascending.
std::vector<std::int32_t> sorted_top(const float* scores, std::uint32_t visible, std::uint32_t k) {
  std::vector<std::int32_t> order(visible);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [scores](std::int32_t a, std::int32_t b) { return scores[a] > scores[b]; });
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

void compare(Scores kind, const std::vector<std::uint32_t>& visible, std::uint32_t top_k) {
  const auto rows = static_cast<std::uint32_t>(visible.size());
  const std::uint32_t longest = *std::max_element(visible.begin(), visible.end());
  const std::vector<float> scores =
      make_scores(kind, std::size_t{rows} * longest, longest + static_cast<std::uint32_t>(kind));
  std::vector<StepRow> step_rows(rows);
  for (std::uint32_t r = 0; r < rows; ++r)
    step_rows[r].position = visible[r] * 4 - 1 + r % 4;
  Stream stream(false);
  const DeviceBuffer device_rows(rows * sizeof(StepRow), "rows");
  const DeviceBuffer device_scores(scores.size() * sizeof(float), "scores");
  const DeviceBuffer selection(std::size_t{rows} * top_k * sizeof(std::int32_t), "selection");
  stream.upload(device_rows.data(), step_rows.data(), device_rows.bytes());
  stream.upload(device_scores.data(), scores.data(), device_scores.bytes());
  SelectJob job;
  job.step.rows = device_rows.as<StepRow>();
  job.step.count = rows;
  job.row_count = rows;
  job.top_k = top_k;
  job.visible_max = longest;
  job.scores = device_scores.as<float>();
  job.selection = selection.as<std::int32_t>();
  select_top(stream, job);
  std::vector<std::int32_t> found(std::size_t{rows} * top_k);
  stream.download(found.data(), selection.data(), selection.bytes());
  stream.synchronize("selecting");
  for (std::uint32_t r = 0; r < rows; ++r) {
    const auto begin = found.begin() + static_cast<std::ptrdiff_t>(r) * top_k;
    EXPECT_EQ(sorted_top(scores.data() + std::size_t{r} * longest, visible[r], top_k),
              std::vector<std::int32_t>(begin, begin + top_k))
        << "kind " << static_cast<int>(kind) << ", " << visible[r] << " rows, top " << top_k;
  }
}

class CudaSelect : public testing::TestWithParam<Scores> {};

TEST_P(CudaSelect, ShortRows) {
  if (device_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  compare(GetParam(), {21, 33, 512, 513, 1500}, 20);
  compare(GetParam(), {513, 700, 1025}, 512);
}

TEST_P(CudaSelect, RowsOfAMillionTokens) {
  if (device_count() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  compare(GetParam(), {8192, 32768, 131072, 262143, 262144}, 512);
}

INSTANTIATE_TEST_SUITE_P(Scores,
                         CudaSelect,
                         testing::Values(Scores::kNormal,
                                         Scores::kFewValues,
                                         Scores::kAllEqual,
                                         Scores::kWithZerosOfBothSigns,
                                         Scores::kTiny));

}  // namespace
}  // namespace ds4::cuda
