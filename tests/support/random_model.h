#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>

#include "backend/executor.h"
#include "convert/model_shape.h"
#include "gguf/reader.h"
#include "model/weights.h"
#include "tensor/element_type.h"

namespace ds4::test {

// A shape small enough to run thousands of tokens in a second that still has every kind of layer,
// an MTP block, and dimensions unlike the published ones: what works here reads its dimensions from
// the file.
convert::ModelShape small_shape();

// Writes a model of that shape with random weights, matrices in `type` (vectors stay f32).  The
// same seed gives the same bytes.
void write_random_model(const std::filesystem::path& path,
                        const convert::ModelShape& shape,
                        ElementType type,
                        std::uint64_t seed);

// A random model in a temporary file, loaded.  The file is removed at once: the mapping keeps it.
class RandomModel {
 public:
  explicit RandomModel(const convert::ModelShape& shape,
                       ElementType type = ElementType::kF32,
                       std::uint64_t seed = 1);
  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  const gguf::Reader& file() const { return *file_; }

 private:
  std::unique_ptr<gguf::Reader> file_;
  ModelConfig config_;
  Weights weights_;
};

// `count` random token ids of the model.
std::vector<TokenId> random_tokens(const ModelConfig& config,
                                   std::size_t count,
                                   std::uint64_t seed);

}  // namespace ds4::test
