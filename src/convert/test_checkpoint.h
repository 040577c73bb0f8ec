#pragma once
// Test support: writes safetensors files and whole small checkpoints.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "convert/model_shape.h"
#include "convert/safetensors.h"

namespace ds4::convert::testing {

// A directory of its own under the system's temporary one, removed at the end.
class TestDirectory {
 public:
  explicit TestDirectory(const std::string& name);
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  ~TestDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct RawTensor {
  std::string type;  // as safetensors spells it
  std::vector<std::uint64_t> shape;
  std::string bytes;
};

// The bytes of a safetensors file.
std::string safetensors_bytes(const std::map<std::string, RawTensor>& tensors);

// Tensors from f32 values that the type can hold exactly.
RawTensor bf16_tensor(std::vector<std::uint64_t> shape, std::span<const float> values);
RawTensor f32_tensor(std::vector<std::uint64_t> shape, std::span<const float> values);

void write_file(const std::filesystem::path& path, const std::string& bytes);

// A shape unlike the published ones: small heads, a short window, an odd number of experts.
ModelShape odd_shape();

// config.json of a shape.
std::string config_json(const ModelShape& shape);

// Random tensors for every tensor of `shape`, MTP block included: attention projections as FP8 with
// scales, experts as packed FP4 with scales, hash tables as I64, the rest as BF16 or F32.
std::map<std::string, RawTensor> random_checkpoint(const ModelShape& shape);

}  // namespace ds4::convert::testing
