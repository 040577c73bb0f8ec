#include "support/random_model.h"

#include <atomic>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

#include "convert/tensor_plan.h"
#include "gguf/writer.h"
#include "quant/codec.h"

namespace ds4::test {

namespace {

using convert::PlannedTensor;
using convert::TensorClass;

ElementType type_of(const PlannedTensor& tensor, const MatrixTypes& types) {
  switch (tensor.tensor_class) {
    case TensorClass::kVector:
      return ElementType::kF32;
    case TensorClass::kIndices:
      return ElementType::kI32;
    case TensorClass::kDense:
      return ElementType::kF32;
    case TensorClass::kRoutedGate:
    case TensorClass::kRoutedUp:
      return types.gate_up;
    case TensorClass::kRoutedDown:
      return types.down;
    default:
      return types.all;
  }
}

bool contains(const std::string& name, const char* part) {
  return name.find(part) != std::string::npos;
}

// Values that keep activations near one: norms around 1, mixers and gates small.
void fill(const PlannedTensor& tensor, std::mt19937_64& random, std::vector<float>& values) {
  std::normal_distribution<float> normal;
  float offset = 0;
  float spread = 1.0F / std::sqrt(static_cast<float>(tensor.columns()));
  if (contains(tensor.name, "norm")) offset = 1.0F, spread = 0.1F;
  if (contains(tensor.name, "scale")) offset = 1.0F, spread = 0.2F;
  if (contains(tensor.name, "base") || contains(tensor.name, "sinks")) spread = 0.5F;
  if (contains(tensor.name, "bias")) spread = 0.1F;
  if (contains(tensor.name, "ape")) spread = 0.5F;
  if (contains(tensor.name, "token_embd")) spread = 1.0F;
  for (float& value : values)
    value = offset + spread * normal(random);
}

void write_tensor(gguf::Writer& writer,
                  std::size_t index,
                  const PlannedTensor& tensor,
                  ElementType type,
                  std::uint32_t expert_count,
                  std::mt19937_64& random) {
  const std::size_t columns = tensor.columns();
  std::vector<std::byte> row(row_bytes(type, columns));
  std::vector<float> values(columns);
  for (std::uint64_t r = 0; r < tensor.rows() * tensor.slabs(); ++r) {
    if (tensor.tensor_class == TensorClass::kIndices) {
      auto* ids = reinterpret_cast<std::int32_t*>(row.data());
      const auto first = static_cast<std::int32_t>(random() % expert_count);
      for (std::size_t i = 0; i < columns; ++i)
        ids[i] = (first + static_cast<std::int32_t>(i)) % static_cast<std::int32_t>(expert_count);
    } else {
      fill(tensor, random, values);
      quant::encode_row(type, values, row);
    }
    writer.write_tensor(index, r * row.size(), row);
  }
}

std::filesystem::path temporary_path() {
  static std::atomic<int> next{0};
  return std::filesystem::temp_directory_path() /
         ("ds4-random-" + std::to_string(::getpid()) + "-" + std::to_string(next++) + ".gguf");
}

}  // namespace

convert::ModelShape small_shape() {
  convert::ModelShape s = convert::tiny_shape();
  s.name = "random-small";
  s.layer_count = 6;
  s.mtp_layer_count = 1;
  s.compress_ratios = {0, 0, 4, 128, 4, 128, 0};
  s.hash_layer_count = 3;
  s.width = 64;
  s.vocab_size = 97;
  s.head_count = 4;
  s.head_dim = 128;
  s.rope_dim = 32;
  s.query_rank = 32;
  s.output_group_count = 2;
  s.output_rank = 24;
  s.window = 16;
  s.index_head_count = 4;
  s.index_dim = 64;
  s.index_top_k = 8;
  s.expert_count = 5;
  s.experts_used = 2;
  s.expert_width = 32;
  s.swiglu_limit = 2.0F;
  return s;
}

void write_random_model(const std::filesystem::path& path,
                        const convert::ModelShape& shape,
                        const MatrixTypes& types,
                        std::uint64_t seed) {
  gguf::Writer writer(path);
  convert::write_shape_metadata(writer, shape, shape.mtp_layer_count > 0);
  std::vector<PlannedTensor> plan = convert::plan_main(shape);
  if (shape.mtp_layer_count > 0) {
    for (PlannedTensor& tensor : convert::plan_mtp(shape))
      plan.push_back(std::move(tensor));
  }
  std::vector<std::size_t> indices;
  for (const PlannedTensor& tensor : plan)
    indices.push_back(writer.add_tensor(tensor.name, type_of(tensor, types), tensor.shape));
  writer.begin_data();
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < plan.size(); ++i)
    write_tensor(writer, indices[i], plan[i], type_of(plan[i], types), shape.expert_count, random);
  writer.commit();
}

RandomModel::RandomModel(const convert::ModelShape& shape,
                         const MatrixTypes& types,
                         std::uint64_t seed) {
  const auto path = temporary_path();
  write_random_model(path, shape, types, seed);
  file_ = std::make_unique<gguf::Reader>(path);
  std::filesystem::remove(path);
  config_ = read_config(*file_, {});
  weights_ = bind_weights(*file_, nullptr, config_, {});
}

std::vector<TokenId> random_tokens(const ModelConfig& config,
                                   std::size_t count,
                                   std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i)
    tokens.push_back(TokenId{static_cast<std::int32_t>(random() % config.vocab_size)});
  return tokens;
}

}  // namespace ds4::test
