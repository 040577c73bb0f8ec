// Whole conversions: a checkpoint made here with a shape of its own, and the golden one when its
// folder is beside the source tree.
#include "convert/checkpoint_converter.h"

#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "convert/model_shape.h"
#include "convert/rows.h"
#include "convert/tensor_plan.h"
#include "convert/test_checkpoint.h"
#include "gguf/reader.h"
#include "quant/codec.h"

namespace ds4::convert {
namespace {

using ::testing::HasSubstr;
using testing::RawTensor;

class ConverterTest : public ::testing::Test {
 protected:
  void write_checkpoint(const std::map<std::string, RawTensor>& tensors) {
    testing::write_file(directory_.path() / "config.json", testing::config_json(shape_));
    testing::write_file(directory_.path() / "model.safetensors",
                        testing::safetensors_bytes(tensors));
  }

  ConvertOptions options(std::string_view recipe) const {
    return {.checkpoint = directory_.path(),
            .output = directory_.path() / "out.gguf",
            .recipe = Recipe(recipe),
            .thread_count = 2};
  }

  std::string error_of(const ConvertOptions& options) {
    try {
      convert_checkpoint(options, {}, {});
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

  std::size_t files_left() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path()))
      if (entry.path().string().find(".gguf") != std::string::npos) ++count;
    return count;
  }

  testing::TestDirectory directory_{"converter"};
  ModelShape shape_ = testing::odd_shape();
};

std::vector<float> decoded(const gguf::TensorInfo& tensor) {
  std::vector<float> values(tensor.value_count());
  quant::decode_row(*tensor.type, tensor.bytes, values);
  return values;
}

// Compares every tensor of `reader` with the checkpoint, value by value: with F32 nothing is lost.
void expect_equal(const gguf::Reader& reader,
                  const Checkpoint& checkpoint,
                  const std::vector<PlannedTensor>& tensors) {
  for (const PlannedTensor& tensor : tensors) {
    const gguf::TensorInfo* found = reader.find_tensor(tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_EQ(found->shape, tensor.shape) << tensor.name;
    if (tensor.tensor_class == TensorClass::kIndices) continue;
    const std::vector<float> values = decoded(*found);
    std::vector<float> row(tensor.columns());
    for (std::uint64_t slab = 0; slab < tensor.slabs(); ++slab) {
      const RowSource source(checkpoint, tensor.source_of(slab), tensor.rows(), tensor.columns());
      for (std::uint64_t r = 0; r < tensor.rows(); ++r) {
        source.read(r, row);
        const auto* start = values.data() + (slab * tensor.rows() + r) * tensor.columns();
        ASSERT_TRUE(std::equal(row.begin(), row.end(), start)) << tensor.name << " row " << r;
      }
    }
  }
}

TEST_F(ConverterTest, ShapesOfItsOwnConvertWithoutLoss) {
  write_checkpoint(testing::random_checkpoint(shape_));
  convert_checkpoint(options("f32"), {}, {});
  const gguf::Reader reader(directory_.path() / "out.gguf");
  const Checkpoint checkpoint(directory_.path());
  expect_equal(reader, checkpoint, plan_main(shape_));
  expect_equal(reader, checkpoint, plan_mtp(shape_));
  EXPECT_EQ(reader.tensors().size(), plan_main(shape_).size() + plan_mtp(shape_).size());
  EXPECT_EQ(reader.get_u32("deepseek4.attention.key_length"), 128U);
  EXPECT_EQ(reader.get_u32("deepseek4.attention.sliding_window"), 16U);
  EXPECT_EQ(reader.get_u32("deepseek4.expert_count"), 5U);
  EXPECT_EQ(reader.get_u32("deepseek4.nextn_predict_layers"), 1U);
  EXPECT_EQ(reader.get_f32_array("deepseek4.swiglu_clamp_exp"), std::vector<float>(5, 7.0F));
  EXPECT_EQ(reader.get_u32_array("deepseek4.attention.compress_ratios"),
            (std::vector<std::uint32_t>{0, 4, 128, 4, 0}));
  const gguf::TensorInfo* table = reader.find_tensor("blk.0.ffn_gate_tid2eid.weight");
  std::int64_t first = 0;
  std::memcpy(&first, checkpoint.get("layers.0.ffn.gate.tid2eid").bytes.data(), sizeof first);
  EXPECT_EQ(decoded(*table)[0], static_cast<float>(first));
}

// FP4 experts become MXFP4 blocks that hold the same values.
TEST_F(ConverterTest, Fp4ExpertsRepackWithoutLoss) {
  write_checkpoint(testing::random_checkpoint(shape_));
  ConvertOptions job = options("f32");
  job.recipe.add_choice("experts=mxfp4");
  convert_checkpoint(job, {}, {});
  const gguf::Reader reader(directory_.path() / "out.gguf");
  EXPECT_EQ(reader.find_tensor("blk.1.ffn_up_exps.weight")->type, ElementType::kMXFP4);
  expect_equal(reader, Checkpoint(directory_.path()), plan_main(shape_));
}

TEST_F(ConverterTest, TheMtpBlockCanHaveItsOwnFile) {
  write_checkpoint(testing::random_checkpoint(shape_));
  ConvertOptions job = options("q8");
  job.mtp_output = directory_.path() / "mtp.gguf";
  convert_checkpoint(job, {}, {});
  const gguf::Reader main(job.output);
  const gguf::Reader mtp(job.mtp_output);
  EXPECT_EQ(main.find_tensor("mtp.0.e_proj.weight"), nullptr);
  EXPECT_EQ(main.get_u32("deepseek4.nextn_predict_layers"), 0U);
  EXPECT_NE(mtp.find_tensor("mtp.0.e_proj.weight"), nullptr);
  EXPECT_EQ(mtp.find_tensor("token_embd.weight"), nullptr);
  EXPECT_EQ(mtp.get_u32("deepseek4.nextn_predict_layers"), 1U);
}

TEST_F(ConverterTest, ThreadsDoNotChangeTheBytes) {
  write_checkpoint(testing::random_checkpoint(shape_));
  ConvertOptions job = options("q8");
  job.thread_count = 1;
  convert_checkpoint(job, {}, {});
  const std::string one = read_text_file(job.output, std::size_t{1} << 30);
  job.thread_count = 4;
  convert_checkpoint(job, {}, {});
  EXPECT_TRUE(read_text_file(job.output, std::size_t{1} << 30) == one);
}

TEST_F(ConverterTest, DamageLeavesNoFile) {
  auto tensors = testing::random_checkpoint(shape_);
  auto damaged = tensors;
  damaged["layers.2.attn.wkv.weight"].bytes[77] = '\x7F';
  write_checkpoint(damaged);
  EXPECT_THAT(error_of(options("f32")), HasSubstr("layers.2.attn.wkv.weight"));
  EXPECT_EQ(files_left(), 0U);

  damaged = tensors;
  damaged.erase("layers.3.ffn.experts.4.w2.weight");
  write_checkpoint(damaged);
  EXPECT_THAT(error_of(options("f32")), HasSubstr("'layers.3.ffn.experts.4.w2.weight' is missing"));

  damaged = tensors;
  damaged["norm.weight"] = testing::f32_tensor({2}, std::vector<float>{1, 2});
  write_checkpoint(damaged);
  EXPECT_THAT(error_of(options("f32")), HasSubstr("F32 [2]; shape [192]"));

  damaged = tensors;
  auto& ids = damaged["layers.0.ffn.gate.tid2eid"].bytes;
  ids[8] = 5;  // there are experts 0 to 4
  write_checkpoint(damaged);
  EXPECT_THAT(error_of(options("f32")), HasSubstr("names expert 5"));

  damaged = tensors;
  std::vector<float> huge(std::size_t{24} * 4 * 192, 1e6F);
  damaged["layers.0.hc_attn_fn"] = testing::f32_tensor({24, 4 * 192}, huge);
  write_checkpoint(damaged);
  EXPECT_THAT(error_of(options("f16")), HasSubstr("F16 cannot hold"));
  EXPECT_EQ(files_left(), 0U);
}

TEST_F(ConverterTest, ConfigsOfOtherModelsAreRefused) {
  write_checkpoint(testing::random_checkpoint(shape_));
  const std::string sound = testing::config_json(shape_);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string config = sound;
    config.replace(config.find(from), from.size(), to);
    testing::write_file(directory_.path() / "config.json", config);
    return error_of(options("f32"));
  };
  EXPECT_THAT(with("deepseek_v4", "llama"), HasSubstr("'llama'"));
  EXPECT_THAT(with("\"hidden_size\":192", "\"hidden_size\":0"), HasSubstr("'hidden_size' is 0"));
  EXPECT_THAT(with("\"hidden_size\":192", "\"hidden_size\":-1"), HasSubstr("'hidden_size'"));
  EXPECT_THAT(with("\"hidden_size\":192", "\"hidden_sise\":192"),
              HasSubstr("'hidden_size' is missing"));
  EXPECT_THAT(with("[0,4,128,4,0]", "[0,4]"), HasSubstr("compress_ratios"));
  EXPECT_THAT(with("[0,4,128,4,0]", "[0,4,64,4,0]"), HasSubstr("64"));
  EXPECT_THAT(with("\"head_dim\":128", "\"head_dim\":1e3"), HasSubstr("'head_dim'"));
  EXPECT_THAT(with("\"num_experts_per_tok\":3", "\"num_experts_per_tok\":6"),
              HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(with("{", "["), HasSubstr("JSON"));
}

TEST(GoldenCheckpoint, ConvertsWithoutLoss) {
  const std::filesystem::path golden = "../shared/data/golden/tinyB";
  if (!std::filesystem::exists(golden / "config.json")) GTEST_SKIP() << golden << " is not there";
  const testing::TestDirectory directory("golden");
  const auto output = directory.path() / "golden.gguf";
  convert_checkpoint({.checkpoint = golden, .output = output, .recipe = Recipe("f32")}, {}, {});
  const gguf::Reader reader(output);
  const Checkpoint checkpoint(golden);
  const ModelShape shape = read_hf_config(golden / "config.json");
  expect_equal(reader, checkpoint, plan_main(shape));
  expect_equal(reader, checkpoint, plan_mtp(shape));
  EXPECT_EQ(reader.get_u32("deepseek4.attention.indexer.top_k"), 16U);
}

}  // namespace
}  // namespace ds4::convert
