// The trained small model of the repository against an independent implementation of the graph
// (tools/tiny, PyTorch f32): the strongest logits of every position of two prompts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "convert/safetensors.h"
#include "cpu/cpu_executor.h"
#include "gguf/reader.h"
#include "model/weights.h"

namespace ds4 {
namespace {

const std::filesystem::path kModel = "models/ds4-tiny.gguf";
const std::filesystem::path kGolden = "tools/tiny/golden";

template <class T>
std::vector<T> values_of(const convert::SafetensorsFile& file, const std::string& name) {
  const convert::SourceTensor& tensor = file.tensors().at(name);
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

struct Agreement {
  double mean_difference;  // over the listed logits
  double argmax_share;     // of positions
};

// Compares rows of logits with the listed strongest ones, likeliest first.
Agreement compare(const std::vector<float>& logits,
                  std::size_t vocab,
                  const std::vector<std::int32_t>& top_ids,
                  const std::vector<float>& top_logits) {
  const std::size_t rows = logits.size() / vocab;
  const std::size_t listed = top_ids.size() / rows;
  double sum = 0;
  std::size_t same = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    const float* row = logits.data() + r * vocab;
    for (std::size_t k = 0; k < listed; ++k) {
      const auto id = static_cast<std::size_t>(top_ids[r * listed + k]);
      sum += std::fabs(static_cast<double>(row[id]) - top_logits[r * listed + k]);
    }
    same += std::max_element(row, row + vocab) - row == top_ids[r * listed] ? 1 : 0;
  }
  return {sum / static_cast<double>(rows * listed),
          static_cast<double>(same) / static_cast<double>(rows)};
}

struct Case {
  std::string prompt;
  std::string tag;  // of the golden values
  RowCodec codec;
  double mean_difference_max;
  double argmax_share_min;
};

class TinyGoldenTest : public testing::TestWithParam<Case> {};

TEST_P(TinyGoldenTest, LogitsAgree) {
  const Case& c = GetParam();
  const gguf::Reader file(kModel);
  const ModelConfig config = read_config(file, {});
  const Weights weights = bind_weights(file, nullptr, config, {});
  const convert::SafetensorsFile golden(kGolden / (c.prompt + ".safetensors"));
  const auto ids = values_of<std::int32_t>(golden, "ids");
  const auto executor =
      cpu::make_cpu_executor(config, weights, {.rows_max = 128, .codec = c.codec});
  const auto count = static_cast<std::uint32_t>(ids.size());
  const std::size_t vocab = config.vocab_size;
  const SequenceId sequence = executor->open_sequence(count);
  std::vector<float> logits(count * vocab);
  std::vector<float> drafts((count - 1) * vocab);
  for (std::uint32_t p = 0; p < count; p += 128) {
    std::vector<BatchRow> rows;
    for (std::uint32_t i = p; i < std::min(count, p + 128); ++i)
      rows.push_back({TokenId{ids[i]}, Position{i}, sequence, true});
    const std::size_t first_draft = p == 0 ? 0 : p - 1;
    executor->run({rows}, {.logits = Rows(&logits[p * vocab], {rows.size(), vocab}),
                           .mtp_logits = Rows(&drafts[first_draft * vocab],
                                              {rows.size() - (p == 0 ? 1 : 0), vocab})});
  }
  const Agreement main = compare(logits, vocab, values_of<std::int32_t>(golden, "top_ids_" + c.tag),
                                 values_of<float>(golden, "top_logits_" + c.tag));
  const Agreement draft =
      compare(drafts, vocab, values_of<std::int32_t>(golden, "mtp_top_ids_" + c.tag),
              values_of<float>(golden, "mtp_top_logits_" + c.tag));
  std::printf("%s %s: mean |d logit| %.3g, argmax equal %.4f; MTP %.3g, %.4f\n", c.prompt.c_str(),
              c.tag.c_str(), main.mean_difference, main.argmax_share, draft.mean_difference,
              draft.argmax_share);
  EXPECT_LT(main.mean_difference, c.mean_difference_max);
  EXPECT_GE(main.argmax_share, c.argmax_share_min);
  EXPECT_LT(draft.mean_difference, c.mean_difference_max);
  EXPECT_GE(draft.argmax_share, c.argmax_share_min);
}

// Without rounding of rows what is left is the 16-bit rounding of activations and f32 sums, a few
// 1e-4 of logits up to 30.  With it, a difference of that size flips some codes.
INSTANTIATE_TEST_SUITE_P(Prompts,
                         TinyGoldenTest,
                         testing::Values(Case{"agent", "noquant", RowCodec::kExact, 3e-3, 0.99},
                                         Case{"recall", "noquant", RowCodec::kExact, 3e-3, 0.99},
                                         Case{"agent", "quant", RowCodec::kPacked, 2e-2, 0.98},
                                         Case{"recall", "quant", RowCodec::kPacked, 2e-2, 0.98}));

}  // namespace
}  // namespace ds4
