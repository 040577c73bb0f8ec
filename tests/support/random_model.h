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

// The types of a random model's matrices; vectors, mixers and the router stay f32.
struct MatrixTypes {
  // All of one type: implicit, as the common case.
  // NOLINTNEXTLINE(google-explicit-constructor)
  MatrixTypes(ElementType type) : MatrixTypes(type, type, type) {}
  MatrixTypes(ElementType others, ElementType routed_gate_up, ElementType routed_down)
      : all(others),
        gate_up(routed_gate_up),
        down(routed_down) {}

  ElementType all;            // but for the routed experts'
  ElementType gate_up, down;  // of those
};

// Writes a model of that shape with random weights.  The same seed gives the same bytes.
void write_random_model(const std::filesystem::path& path,
                        const convert::ModelShape& shape,
                        const MatrixTypes& types,
                        std::uint64_t seed);

// A random model in a temporary file, loaded.  The file is removed at once: the mapping keeps it.
class RandomModel {
 public:
  explicit RandomModel(const convert::ModelShape& shape,
                       const MatrixTypes& types = ElementType::kF32,
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
