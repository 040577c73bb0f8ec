#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/model_shape.h"
#include "tensor/element_type.h"

namespace ds4::convert {

// The classes of tensors that a file's recipe gives types to.
enum class TensorClass {
  kRoutedGate,      // w1 of the routed experts
  kRoutedDown,      // w2
  kRoutedUp,        // w3
  kEmbedding,       // token_embd
  kOutput,          // output
  kShared,          // the shared expert
  kAttention,       // the five attention projections
  kAttentionOther,  // indexer and compressors
  kDense,           // stream mixers and router
  kMtpProjection,   // e_proj and h_proj of the MTP block
  kVector,          // norms, sinks, biases: always F32
  kIndices,         // the hash-routing table: always I32
};

// One tensor of the file to be.
struct PlannedTensor {
  std::string name;    // in the GGUF file
  std::string source;  // in the checkpoint; of a stack "PREFIX{}SUFFIX" with {} for the expert
  TensorClass tensor_class;
  std::vector<std::uint64_t> shape;  // `ne` order: {columns}, {columns, rows} or {.., .., experts}
  bool optional = false;             // may be missing from a checkpoint
  bool mtp = false;                  // of the MTP block

  bool is_stack() const { return shape.size() == 3; }
  std::uint64_t columns() const { return shape[0]; }
  std::uint64_t rows() const { return shape.size() > 1 ? shape[1] : 1; }
  std::uint64_t slabs() const { return is_stack() ? shape[2] : 1; }
  // The checkpoint's name of one expert's matrix, or of the whole tensor.
  std::string source_of(std::uint64_t expert) const;
};

// Every tensor of the main model, in file order.
std::vector<PlannedTensor> plan_main(const ModelShape& shape);

// Every tensor of the MTP block "mtp.0.".
std::vector<PlannedTensor> plan_mtp(const ModelShape& shape);

}  // namespace ds4::convert
