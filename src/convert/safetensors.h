#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace ds4::convert {

// Element types of checkpoints, as safetensors names them.
enum class SourceType { kF32, kF16, kBF16, kF8E4M3, kF8E8M0, kI8, kI32, kI64 };

std::string_view source_type_name(SourceType type);
std::size_t source_type_bytes(SourceType type);

// One tensor of a checkpoint: a view into its file.
struct SourceTensor {
  std::string name;
  SourceType type;
  std::vector<std::uint64_t> shape;  // row-major, the last axis contiguous
  std::span<const std::byte> bytes;

  // E.g. "F8_E4M3 [1024, 4096]".
  std::string describe() const;
};

// A safetensors file, mapped.  The header may be hostile: its length, every shape and every offset
// is checked against the file before use.  Tensors of types that no part of a checkpoint needs are
// left out.  Immutable; views live as long as the object.
class SafetensorsFile {
 public:
  // Throws Error(kNotFound | kIo | kBadFormat).
  explicit SafetensorsFile(const std::filesystem::path& path);
  // Reads bytes that the caller keeps alive; `name` stands for the file in messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  const std::map<std::string, SourceTensor, std::less<>>& tensors() const { return tensors_; }

 private:
  void parse(std::span<const std::byte> bytes);

  MappedFile file_;
  std::string name_;
  std::map<std::string, SourceTensor, std::less<>> tensors_;
};

// A checkpoint directory in the published layout: config.json and either one model.safetensors or
// the shards that model.safetensors.index.json lists.  Immutable.
class Checkpoint {
 public:
  // Throws Error when the directory holds no checkpoint, a shard is missing or damaged, or a tensor
  // of the index is not in its shard.
  explicit Checkpoint(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  // Nothing when there is no tensor of that name.
  const SourceTensor* find(std::string_view name) const;
  // Throws Error(kBadFormat) naming tensor and directory when there is none.
  const SourceTensor& get(std::string_view name) const;

 private:
  void add_shard(const std::filesystem::path& path);
  void read_index(const std::filesystem::path& path);

  std::filesystem::path directory_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string_view, const SourceTensor*, std::less<>> tensors_;
};

}  // namespace ds4::convert
