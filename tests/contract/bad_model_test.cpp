// Model files that are sound GGUF and wrong for this graph: each is refused with a message that
// names what was found and what was expected.
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "gguf/writer.h"
#include "model/weights.h"
#include "support/random_model.h"

namespace ds4 {
namespace {

// How one copy of a good file differs from it.
struct Change {
  std::string drop_tensor = {};
  std::string reshape_tensor = {};              // its first two axes swapped
  std::string retype_tensor = {};               // stored as I32
  std::string key = {};                         // replaced by ...
  std::function<void(gguf::Writer&)> set = {};  // ... this; none: dropped
  // Names of keys and tensors in another dialect: text that is replaced in each of them.
  std::vector<std::pair<std::string, std::string>> rename = {};
};

std::string renamed(std::string_view name, const Change& change) {
  std::string result(name);
  for (const auto& [from, to] : change.rename) {
    const auto at = result.find(from);
    if (at != std::string::npos) return result.replace(at, from.size(), to);
  }
  return result;
}

void copy_changed(const gguf::Reader& from, const std::filesystem::path& to, const Change& change) {
  gguf::Writer writer(to);
  for (const std::string_view key : from.keys())
    if (key != change.key) writer.set(renamed(key, change), *from.find(key));
  if (change.set) change.set(writer);
  std::vector<std::pair<std::size_t, const gguf::TensorInfo*>> tensors;
  for (const gguf::TensorInfo& tensor : from.tensors()) {
    if (tensor.name == change.drop_tensor) continue;
    auto shape = tensor.shape;
    if (tensor.name == change.reshape_tensor) std::swap(shape.at(0), shape.at(1));
    const ElementType type = tensor.name == change.retype_tensor ? ElementType::kI32 : *tensor.type;
    tensors.emplace_back(writer.add_tensor(renamed(tensor.name, change), type, shape), &tensor);
  }
  writer.begin_data();
  for (const auto& [index, tensor] : tensors)
    writer.write_tensor(index, 0, tensor->bytes);
  writer.commit();
}

class BadModelTest : public testing::Test {
 protected:
  // The message with which the changed file is refused, empty when it is taken.
  std::string refusal(const Change& change) {
    const auto path = std::filesystem::path(testing::TempDir()) /
                      ("ds4-bad-" + std::to_string(::getpid()) + ".gguf");
    copy_changed(model_.file(), path, change);
    const gguf::Reader file(path);
    std::filesystem::remove(path);
    log_.clear();
    const LogSink log = [this](LogLevel, std::string_view line) {
      log_ += std::string(line) + "\n";
    };
    try {
      const ModelConfig config = read_config(file, log);
      bind_weights(file, nullptr, config, log);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

  test::RandomModel model_{test::small_shape()};
  std::string log_;
};

using testing::AllOf;
using testing::HasSubstr;

TEST_F(BadModelTest, AGoodFileIsTaken) {
  EXPECT_EQ(refusal({}), "");
}

TEST_F(BadModelTest, WrongArchitecture) {
  EXPECT_THAT(
      refusal({.key = "general.architecture",
               .set = [](gguf::Writer& w) { w.set_string("general.architecture", "llama"); }}),
      AllOf(HasSubstr("'llama'"), HasSubstr("'deepseek4'")));
}

TEST_F(BadModelTest, MissingTensorIsNamed) {
  EXPECT_THAT(refusal({.drop_tensor = "blk.2.attn_compressor_kv.weight"}),
              AllOf(HasSubstr("blk.2.attn_compressor_kv.weight"), HasSubstr("missing")));
  EXPECT_THAT(refusal({.drop_tensor = "output.weight"}), HasSubstr("output.weight"));
  EXPECT_THAT(refusal({.drop_tensor = "mtp.0.hnorm.weight"}), HasSubstr("mtp.0.hnorm.weight"));
}

TEST_F(BadModelTest, WrongShapeSaysBoth) {
  EXPECT_THAT(
      refusal({.reshape_tensor = "blk.0.attn_q_b.weight"}),
      AllOf(HasSubstr("blk.0.attn_q_b.weight"), HasSubstr("[512, 32]"), HasSubstr("[32, 512]")));
}

TEST_F(BadModelTest, UnsupportedTypeSaysWhatRuns) {
  EXPECT_THAT(refusal({.retype_tensor = "blk.1.attn_kv.weight"}),
              AllOf(HasSubstr("blk.1.attn_kv.weight"), HasSubstr("I32"), HasSubstr("Q8_0")));
}

TEST_F(BadModelTest, MissingKeyIsNamed) {
  EXPECT_THAT(refusal({.key = "deepseek4.expert_count"}), HasSubstr("deepseek4.expert_count"));
}

TEST_F(BadModelTest, ImpossibleCounts) {
  const auto with_u32 = [&](const char* key, std::uint32_t value) {
    return refusal({.key = key, .set = [=](gguf::Writer& w) { w.set_u32(key, value); }});
  };
  EXPECT_THAT(with_u32("deepseek4.block_count", 0), HasSubstr("block_count"));
  EXPECT_THAT(with_u32("deepseek4.block_count", 4000000000U), HasSubstr("block_count"));
  EXPECT_THAT(with_u32("deepseek4.embedding_length", 0), HasSubstr("embedding_length"));
  EXPECT_THAT(with_u32("deepseek4.expert_used_count", 99), HasSubstr("expert_used_count"));
  EXPECT_THAT(with_u32("deepseek4.attention.head_count", 3), HasSubstr("heads"));
  EXPECT_THAT(with_u32("deepseek4.rope.dimension_count", 63), HasSubstr("dimension_count"));
  EXPECT_THAT(with_u32("deepseek4.attention.indexer.key_length", 96), HasSubstr("key_length"));
}

TEST_F(BadModelTest, UnknownRatioIsNamed) {
  const std::vector<std::uint32_t> ratios{0, 0, 4, 64, 4, 128, 0};
  EXPECT_THAT(refusal({.key = "deepseek4.attention.compress_ratios",
                       .set =
                           [&](gguf::Writer& w) {
                             w.set_u32_array("deepseek4.attention.compress_ratios", ratios);
                           }}),
              AllOf(HasSubstr("layer 3"), HasSubstr("64"), HasSubstr("0, 4 or 128")));
}

// What earlier converters called the same things; each use is logged.
TEST_F(BadModelTest, OtherDialectsLoad) {
  const std::vector<std::pair<std::string, std::string>> dialect{
      {"hyper_connection.count", "hyper_connection.mult"},
      {"hyper_connection.sinkhorn_iterations", "hyper_connection.sinkhorn_iters"},
      {"hyper_connection.epsilon", "hyper_connection.eps"},
      {"attention.output_lora_rank", "attention.o_lora_rank"},
      {"attention.compress_rope_freq_base", "rope.freq_base_compress"},
      {"attention.compress_ratios", "attention.layer_compress_ratio"},
      {"output_hc_", "hc_head_"},
      {"attn_kv.weight", "attn_kv_a_mqa.weight"},
      {"attn_output_a", "attn_o_a"},
      {"attn_output_b", "attn_o_b"},
      {"attn_compressor_ape.weight", "attn_compressor.ape"},
      {"attn_compressor_kv", "attn_compressor.wkv"},
      {"attn_compressor_gate", "attn_compressor.wgate"},
      {"attn_compressor_norm", "attn_compressor.norm"},
      {"indexer_compressor_ape.weight", "indexer.compressor.ape"},
      {"indexer_compressor_kv", "indexer.compressor.wkv"},
      {"indexer_compressor_gate", "indexer.compressor.wgate"},
      {"indexer_compressor_norm", "indexer.compressor.norm"},
      {"attn_sinks.weight", "attn_sinks"},
      {"exp_probs_b.bias", "exp_probs_b.weight"}};
  for (const auto& name : dialect) {
    EXPECT_EQ(refusal({.rename = {name}}), "") << name.second;
    EXPECT_THAT(log_, AllOf(HasSubstr("taking"), HasSubstr(name.second), HasSubstr(name.first)));
  }
  EXPECT_EQ(refusal({.rename = dialect}), "");
}

TEST_F(BadModelTest, ValuesOfAllLayersMayStandOnceAndTheReverse) {
  EXPECT_EQ(refusal({.key = "deepseek4.swiglu_clamp_exp",
                     .set = [](auto& w) { w.set_f32("deepseek4.swiglu_clamp_exp", 10.0F); }}),
            "");
  const auto with_widths = [&](std::uint32_t last) {
    const std::uint32_t width = model_.config().expert_width;
    return refusal({.key = "deepseek4.expert_feed_forward_length", .set = [=](auto& w) {
                      const std::uint32_t widths[] = {width, width, last};
                      w.set_u32_array("deepseek4.expert_feed_forward_length", widths);
                    }});
  };
  EXPECT_EQ(with_widths(model_.config().expert_width), "");
  EXPECT_THAT(with_widths(7), HasSubstr("expert_feed_forward_length differs"));
  EXPECT_EQ(refusal({.key = "deepseek4.vocab_size"}), "");
  EXPECT_THAT(log_, HasSubstr("vocab_size"));
}

TEST_F(BadModelTest, ASliceOfTheLayersLoadsForThatSlice) {
  // Layers 4 and 5 gone: what is left are layers 0 to 3, without an output.
  const auto path = std::filesystem::path(testing::TempDir()) /
                    ("ds4-slice-" + std::to_string(::getpid()) + ".gguf");
  {
    gguf::Writer writer(path);
    for (const std::string_view key : model_.file().keys())
      writer.set(key, *model_.file().find(key));
    std::vector<std::pair<std::size_t, const gguf::TensorInfo*>> kept;
    for (const gguf::TensorInfo& tensor : model_.file().tensors()) {
      if (tensor.name.rfind("blk.4.", 0) == 0 || tensor.name.rfind("blk.5.", 0) == 0) continue;
      kept.emplace_back(writer.add_tensor(tensor.name, *tensor.type, tensor.shape), &tensor);
    }
    writer.begin_data();
    for (const auto& [index, tensor] : kept)
      writer.write_tensor(index, 0, tensor->bytes);
    writer.commit();
  }
  const gguf::Reader file(path);
  std::filesystem::remove(path);
  const ModelConfig config = read_config(file, {});
  const Weights weights = bind_weights(file, nullptr, config, {});
  EXPECT_EQ(weights.first_layer, 0U);
  EXPECT_EQ(weights.layers.size(), 4U);
  EXPECT_TRUE(weights.embedding.present());
  EXPECT_FALSE(weights.output.present());
}

}  // namespace
}  // namespace ds4
