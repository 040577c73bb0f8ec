#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "gguf/value.h"
#include "tensor/element_type.h"

namespace ds4::gguf {

// Writes a GGUF v3 file that may be far larger than memory.  Order of use: metadata and
// add_tensor() in any order, then begin_data(), then write_tensor() until every byte of every
// tensor is there, then commit().  The bytes go to a temporary name beside the target and appear
// under the target's name whole or not at all; a writer destroyed without commit() leaves nothing
// behind. One thread until begin_data(); after it write_tensor() may be called from several
// threads.
class Writer {
 public:
  // Throws Error(kIo) when the directory is not writable and Error(kInvalidArgument) when the
  // target is a directory or a device.
  explicit Writer(const std::filesystem::path& target);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer();

  // --- metadata: each key once ---
  void set_u32(std::string_view key, std::uint32_t value);
  void set_u64(std::string_view key, std::uint64_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_u32_array(std::string_view key, std::span<const std::uint32_t> values);
  void set_i32_array(std::string_view key, std::span<const std::int32_t> values);
  void set_f32_array(std::string_view key, std::span<const float> values);
  void set_string_array(std::string_view key, std::span<const std::string> values);
  // A value of another file, unchanged.
  void set(std::string_view key, const Value& value);

  // Declares a tensor and returns its index for write_tensor().  `shape` is in `ne` order; shape[0]
  // must be a multiple of the type's block.
  std::size_t add_tensor(std::string_view name,
                         ElementType type,
                         std::span<const std::uint64_t> shape);
  std::uint64_t tensor_bytes(std::size_t tensor) const { return tensors_[tensor].bytes; }

  // Writes everything before the data and reserves room for the data on the disk.  Throws
  // Error(kIo) with the size needed when the disk is too small.
  void begin_data();
  // Size of the whole file; known after begin_data().
  std::uint64_t file_bytes() const { return file_bytes_; }

  // Writes `bytes` at `offset` within the tensor's data.  Each byte of a tensor is written once.
  void write_tensor(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> bytes);

  // Syncs and gives the file its name.  Every declared byte must have been written.
  void commit();

 private:
  struct Tensor {
    std::string name;
    ElementType type;
    std::vector<std::uint64_t> shape;
    std::uint64_t bytes;
    std::uint64_t offset;  // from the start of the data
  };

  void begin_value(std::string_view key, ValueType type);
  void reserve_file() const;
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) const;

  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool is_named_ = false;  // the temporary file has a name to remove
  std::string metadata_;   // encoded pairs
  std::uint64_t metadata_count_ = 0;
  std::unordered_set<std::string> keys_;
  std::unordered_set<std::string> tensor_names_;
  std::vector<Tensor> tensors_;
  std::uint64_t data_bytes_ = 0;
  std::uint64_t data_offset_ = 0;  // 0 until begin_data()
  std::uint64_t file_bytes_ = 0;
  std::atomic<std::uint64_t> written_bytes_{0};
};

}  // namespace ds4::gguf
