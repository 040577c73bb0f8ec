#include "convert/test_checkpoint.h"

#include <cstring>
#include <random>

#include <fmt/format.h>
#include <unistd.h>

#include "base/file.h"
#include "convert/json.h"
#include "convert/tensor_plan.h"
#include "tensor/float16.h"

namespace ds4::convert::testing {

namespace {

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

std::vector<std::uint64_t> reversed(const std::vector<std::uint64_t>& shape) {
  return {shape.rbegin(), shape.rend()};
}

class Maker {
 public:
  std::map<std::string, RawTensor> take() { return std::move(tensors_); }

  void add_fp8(const std::string& name, std::uint64_t rows, std::uint64_t columns) {
    RawTensor codes{"F8_E4M3", {rows, columns}, {}};
    for (std::uint64_t i = 0; i < rows * columns; ++i) {
      const auto code = static_cast<std::uint8_t>(random_());
      codes.bytes.push_back(static_cast<char>((code & 0x7F) == 0x7F ? 0 : code));
    }
    tensors_[name] = std::move(codes);
    add_scales(name, (rows + 127) / 128, (columns + 127) / 128, 115);
  }

  void add_fp4(const std::string& name, std::uint64_t rows, std::uint64_t columns) {
    RawTensor codes{"I8", {rows, columns / 2}, {}};
    for (std::uint64_t i = 0; i < rows * columns / 2; ++i)
      codes.bytes.push_back(static_cast<char>(random_()));
    tensors_[name] = std::move(codes);
    add_scales(name, rows, columns / 32, 122);
  }

  void add_ids(const std::string& name,
               std::uint64_t rows,
               std::uint64_t columns,
               std::uint32_t bound) {
    RawTensor ids{"I64", {rows, columns}, {}};
    for (std::uint64_t i = 0; i < rows * columns; ++i)
      append(ids.bytes, static_cast<std::int64_t>(random_() % bound));
    tensors_[name] = std::move(ids);
  }

  void add_plain(const std::string& name, std::vector<std::uint64_t> shape) {
    std::uint64_t count = 1;
    for (const std::uint64_t extent : shape)
      count *= extent;
    std::vector<float> values(count);
    std::normal_distribution<float> normal(0, 0.1F);
    for (float& value : values)
      value = bf16_to_f32(f32_to_bf16(normal(random_)));
    tensors_[name] = random_() % 2 == 0 ? bf16_tensor(std::move(shape), values)
                                        : f32_tensor(std::move(shape), values);
  }

 private:
  void add_scales(const std::string& name, std::uint64_t rows, std::uint64_t columns, int centre) {
    RawTensor scales{"F8_E8M0", {rows, columns}, {}};
    for (std::uint64_t i = 0; i < rows * columns; ++i)
      scales.bytes.push_back(static_cast<char>(centre + static_cast<int>(random_() % 5)));
    tensors_[name.substr(0, name.size() - std::string(".weight").size()) + ".scale"] =
        std::move(scales);
  }

  std::mt19937 random_{42};
  std::map<std::string, RawTensor> tensors_;
};

void add_tensor(Maker& maker, const PlannedTensor& tensor, const ModelShape& shape) {
  switch (tensor.tensor_class) {
    case TensorClass::kRoutedGate:
    case TensorClass::kRoutedDown:
    case TensorClass::kRoutedUp:
      for (std::uint64_t e = 0; e < tensor.slabs(); ++e)
        maker.add_fp4(tensor.source_of(e), tensor.rows(), tensor.columns());
      return;
    case TensorClass::kAttention:
    case TensorClass::kShared:
    case TensorClass::kMtpProjection:
      return maker.add_fp8(tensor.source, tensor.rows(), tensor.columns());
    case TensorClass::kIndices:
      return maker.add_ids(tensor.source, tensor.rows(), tensor.columns(), shape.expert_count);
    case TensorClass::kEmbedding:
    case TensorClass::kOutput:
    case TensorClass::kAttentionOther:
    case TensorClass::kDense:
    case TensorClass::kVector:
      return maker.add_plain(tensor.source, reversed(tensor.shape));
  }
}

}  // namespace

TestDirectory::TestDirectory(const std::string& name)
    : path_(std::filesystem::temp_directory_path() / fmt::format("ds4-{}-{}", name, ::getpid())) {
  std::filesystem::create_directories(path_);
}

TestDirectory::~TestDirectory() {
  std::filesystem::remove_all(path_);
}

std::string safetensors_bytes(const std::map<std::string, RawTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.type},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  std::string bytes;
  append(bytes, std::uint64_t{text.size()});
  return bytes + text + data;
}

RawTensor bf16_tensor(std::vector<std::uint64_t> shape, std::span<const float> values) {
  RawTensor tensor{"BF16", std::move(shape), {}};
  for (const float value : values)
    append(tensor.bytes, f32_to_bf16(value));
  return tensor;
}

RawTensor f32_tensor(std::vector<std::uint64_t> shape, std::span<const float> values) {
  RawTensor tensor{"F32", std::move(shape), {}};
  for (const float value : values)
    append(tensor.bytes, value);
  return tensor;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  AtomicFileWriter writer(path);
  writer.write(bytes);
  writer.commit();
}

ModelShape odd_shape() {
  ModelShape shape = tiny_shape();
  shape.name = "odd";
  shape.layer_count = 4;
  shape.width = 192;
  shape.vocab_size = 320;
  shape.head_count = 6;
  shape.head_dim = 128;
  shape.rope_dim = 32;
  shape.query_rank = 96;
  shape.output_group_count = 3;
  shape.output_rank = 32;
  shape.window = 16;
  shape.index_head_count = 2;
  shape.index_dim = 64;
  shape.expert_count = 5;
  shape.experts_used = 3;
  shape.expert_width = 160;
  shape.hash_layer_count = 1;
  shape.swiglu_limit = 7.0F;
  shape.compress_ratios = {0, 4, 128, 4, 0};
  return shape;
}

std::string config_json(const ModelShape& s) {
  const Json config = {{"model_type", "deepseek_v4"},
                       {"num_hidden_layers", s.layer_count},
                       {"num_nextn_predict_layers", s.mtp_layer_count},
                       {"hidden_size", s.width},
                       {"vocab_size", s.vocab_size},
                       {"num_attention_heads", s.head_count},
                       {"num_key_value_heads", 1},
                       {"head_dim", s.head_dim},
                       {"qk_rope_head_dim", s.rope_dim},
                       {"q_lora_rank", s.query_rank},
                       {"o_groups", s.output_group_count},
                       {"o_lora_rank", s.output_rank},
                       {"sliding_window", s.window},
                       {"index_n_heads", s.index_head_count},
                       {"index_head_dim", s.index_dim},
                       {"index_topk", s.index_top_k},
                       {"n_routed_experts", s.expert_count},
                       {"num_experts_per_tok", s.experts_used},
                       {"n_shared_experts", 1},
                       {"moe_intermediate_size", s.expert_width},
                       {"num_hash_layers", s.hash_layer_count},
                       {"hc_mult", s.stream_count},
                       {"hc_sinkhorn_iters", s.sinkhorn_iterations},
                       {"max_position_embeddings", s.context_max},
                       {"swiglu_limit", s.swiglu_limit},
                       {"routed_scaling_factor", s.expert_weight_scale},
                       {"norm_topk_prob", true},
                       {"rope_theta", 10000},
                       {"compress_rope_theta", 160000},
                       {"rope_scaling",
                        {{"type", "yarn"},
                         {"factor", 16},
                         {"beta_fast", 32},
                         {"beta_slow", 1},
                         {"original_max_position_embeddings", 65536}}},
                       {"compress_ratios", s.compress_ratios}};
  return config.dump();
}

std::map<std::string, RawTensor> random_checkpoint(const ModelShape& shape) {
  Maker maker;
  for (const PlannedTensor& tensor : plan_main(shape))
    add_tensor(maker, tensor, shape);
  for (const PlannedTensor& tensor : plan_mtp(shape))
    add_tensor(maker, tensor, shape);
  return maker.take();
}

}  // namespace ds4::convert::testing
