// Synthetic files: the same bytes on any number of threads, weights of the promised size, a
// vocabulary that works.
#include "convert/synth.h"

#include <cmath>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/random_blocks.h"
#include "convert/test_checkpoint.h"
#include "convert/vocabulary.h"
#include "gguf/reader.h"
#include "quant/codec.h"
#include "tokenizer/tokenizer.h"

namespace ds4::convert {
namespace {

TEST(RandomBlocks, HaveTheDeviationAskedFor) {
  constexpr std::size_t kCount = std::size_t{1} << 16;
  for (const ElementType type :
       {ElementType::kF32, ElementType::kF16, ElementType::kBF16, ElementType::kQ8_0,
        ElementType::kQ2K, ElementType::kQ4K, ElementType::kIQ2XXS, ElementType::kMXFP4}) {
    std::vector<std::byte> row(row_bytes(type, kCount));
    Random random(5);
    constexpr float kDeviation = 0.02F;
    fill_random_blocks(type, kDeviation, random, row);
    std::vector<float> values(kCount);
    quant::decode_row(type, row, values);
    double sum = 0;
    double square = 0;
    for (const float value : values) {
      sum += double{value};
      square += double{value} * double{value};
    }
    const double deviation = std::sqrt(square / kCount);
    // MXFP4 has only powers of two to scale with: up to sqrt(2) off.
    const double tolerance = type == ElementType::kMXFP4 ? 0.42 : 0.06;
    EXPECT_NEAR(deviation / double{kDeviation}, 1, tolerance) << element_type_info(type).name;
    EXPECT_LT(std::abs(sum / kCount), 0.02 * double{kDeviation}) << element_type_info(type).name;
  }
}

TEST(RandomTest, IsUniformAndDeterministic) {
  Random a(1);
  Random b(1);
  Random c(2);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t value = a.next();
    EXPECT_EQ(value, b.next());
    differs = differs || value != c.next();
  }
  EXPECT_TRUE(differs);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i)
    ++counts[a.below(7)];
  for (const int count : counts)
    EXPECT_NEAR(count, 10000, 500);  // five deviations
}

class SynthTest : public ::testing::Test {
 protected:
  SynthOptions tiny(const char* name) const {
    SynthOptions options;
    options.shape = with_layers(tiny_shape(), 3);
    options.with_mtp = true;
    options.output = directory_.path() / name;
    return options;
  }
  std::string bytes_of(const SynthOptions& options) const {
    synthesize(options, {}, {});
    return read_text_file(options.output, std::size_t{1} << 30);
  }
  testing::TestDirectory directory_{"synth"};
};

TEST_F(SynthTest, TheSeedAloneDecidesTheBytes) {
  SynthOptions one = tiny("one.gguf");
  one.thread_count = 1;
  SynthOptions four = tiny("four.gguf");
  four.thread_count = 4;
  SynthOptions other = tiny("other.gguf");
  other.seed = 2;
  const std::string bytes = bytes_of(one);
  EXPECT_TRUE(bytes == bytes_of(four));
  EXPECT_FALSE(bytes == bytes_of(other));
}

// A large tensor is made in several tasks, each with numbers of its own.
TEST_F(SynthTest, NoTwoPartsOfATensorAreAlike) {
  SynthOptions options = tiny("m.gguf");
  options.shape = with_layers(options.shape, 1);
  options.with_mtp = false;
  options.shape.vocab_size = 24576;  // the embedding takes 12 MiB
  synthesize(options, {}, {});
  const gguf::Reader reader(options.output);
  const auto bytes = reader.find_tensor("token_embd.weight")->bytes;
  constexpr std::size_t kPart = std::size_t{1} << 20;
  std::set<std::string_view> parts;
  for (std::size_t at = 0; at + kPart <= bytes.size(); at += kPart)
    parts.emplace(reinterpret_cast<const char*>(bytes.data() + at), 64);
  EXPECT_EQ(parts.size(), bytes.size() / kPart);
}

TEST_F(SynthTest, TheFileIsComplete) {
  const SynthOptions options = tiny("m.gguf");
  synthesize(options, {}, {});
  const gguf::Reader reader(options.output);
  EXPECT_EQ(reader.get_u32("deepseek4.block_count"), 3U);
  EXPECT_EQ(reader.get_u32_array("deepseek4.attention.compress_ratios"),
            (std::vector<std::uint32_t>{0, 0, 4, 0}));
  EXPECT_EQ(reader.tensors().size(),
            plan_main(options.shape).size() + plan_mtp(options.shape).size());
  const gguf::TensorInfo& table = *reader.find_tensor("blk.0.ffn_gate_tid2eid.weight");
  const auto* ids = reinterpret_cast<const std::int32_t*>(table.bytes.data());
  for (std::size_t token = 0; token < table.shape[1]; ++token) {
    std::set<std::int32_t> row(ids + token * table.shape[0], ids + (token + 1) * table.shape[0]);
    EXPECT_EQ(row.size(), table.shape[0]);
    EXPECT_LT(*row.rbegin(), static_cast<std::int32_t>(options.shape.expert_count));
    EXPECT_GE(*row.begin(), 0);
  }
}

TEST_F(SynthTest, TheByteVocabularyWorks) {
  const SynthOptions options = tiny("m.gguf");
  synthesize(options, {}, {});
  const gguf::Reader reader(options.output);
  const tokenizer::Tokenizer tokenizer(tokenizer::read_gguf_vocabulary(reader));
  EXPECT_EQ(tokenizer.size(), options.shape.vocab_size);
  std::string text = "Grüße, 世界!\n";
  for (int byte = 0; byte < 256; ++byte)
    text += static_cast<char>(byte);
  const auto ids = tokenizer.encode_text(text);
  EXPECT_EQ(ids.size(), text.size());
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_EQ(tokenizer.bos().value(), 0);
  EXPECT_EQ(tokenizer.eos().value(), 1);
  EXPECT_TRUE(tokenizer.find_marker("<｜User｜>").has_value());
  EXPECT_TRUE(tokenizer.find_marker("</think>").has_value());
}

TEST(ByteVocabulary, HasThePublishedIdsAtFullSize) {
  const tokenizer::Tokenizer tokenizer(byte_vocabulary(129280));
  EXPECT_EQ(tokenizer.marker("<｜User｜>").value(), 128803);
  EXPECT_EQ(tokenizer.marker("｜DSML｜").value(), 128825);
  EXPECT_THROW(byte_vocabulary(256), Error);
}

TEST_F(SynthTest, LayersAreBounded) {
  EXPECT_THROW(with_layers(tiny_shape(), 0), Error);
  EXPECT_THROW(with_layers(tiny_shape(), 7), Error);
  EXPECT_EQ(with_layers(flash_shape(), 43).compress_ratios, flash_shape().compress_ratios);
}

}  // namespace
}  // namespace ds4::convert
