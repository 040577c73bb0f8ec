#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "gguf/value.h"
#include "tensor/element_type.h"

namespace ds4::gguf {

class Cursor;

// One tensor of a file.
struct TensorInfo {
  std::string_view name;
  std::uint32_t type_id;            // as stored
  std::optional<ElementType> type;  // empty when this engine does not know the id
  // The format's `ne` order: shape[0] is the contiguous axis (a matrix's input width), so a matrix
  // of `out` rows of `in` values has shape {in, out}, and a stack of experts {in, out, experts}.
  std::vector<std::uint64_t> shape;
  std::uint64_t offset;              // of the data, from the start of the file
  std::span<const std::byte> bytes;  // the data; empty when `type` is

  std::uint64_t value_count() const;
  // The type's name, or "type 99" when it is not known.
  std::string type_name() const;
  // E.g. "[4096, 1024]", in `ne` order.
  std::string shape_text() const;
};

// A GGUF v3 file, read without copying: names, strings, arrays and tensor data are views into the
// bytes and live as long as the Reader.  The input may be hostile: every count, length and offset
// is checked against the file before it is used and before anything is allocated; duplicate keys
// and tensor names are refused.  A tensor of an unknown type is kept by id, and refused by whoever
// needs it.  Immutable after construction: may be read from several threads.
class Reader {
 public:
  // Maps the file.  Throws Error(kNotFound | kIo | kInvalidArgument) when it can't be opened and
  // Error(kBadFormat | kUnsupported) when it is not a sound GGUF v3 file.
  explicit Reader(const std::filesystem::path& path);
  explicit Reader(MappedFile file);
  // Reads bytes that the caller keeps alive; `name` stands for the file in messages.
  Reader(std::span<const std::byte> bytes, std::string name);

  Reader(Reader&&) = default;
  Reader& operator=(Reader&&) = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() = default;

  // The file's name, for messages.
  const std::string& name() const { return name_; }
  std::uint64_t file_bytes() const { return bytes_.size(); }
  std::uint32_t alignment() const { return alignment_; }
  std::uint64_t data_offset() const { return data_offset_; }

  // Memory that it holds beside the mapping, within a few per cent.
  std::uint64_t table_bytes() const;

  // --- metadata ---

  // In the order of the file.
  const std::vector<std::string_view>& keys() const { return keys_; }
  // Nothing when the key is absent.
  const Value* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  // get_*: the value of a key that must be there.  find_*: nothing when the key is absent.
  // Both throw Error(kBadFormat) naming key, found and expected when the type does not convert or
  // the value does not fit.  Any integer type serves as an integer; any number serves as a float.
  std::uint32_t get_u32(std::string_view key) const;
  std::uint64_t get_u64(std::string_view key) const;
  float get_f32(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;
  std::optional<std::uint32_t> find_u32(std::string_view key) const;
  std::optional<std::uint64_t> find_u64(std::string_view key) const;
  std::optional<float> find_f32(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;

  // Arrays convert element by element by the same rules.
  std::vector<std::uint32_t> get_u32_array(std::string_view key) const;
  std::vector<float> get_f32_array(std::string_view key) const;
  StringArray get_strings(std::string_view key) const;
  std::optional<std::vector<std::uint32_t>> find_u32_array(std::string_view key) const;
  std::optional<std::vector<std::int32_t>> find_i32_array(std::string_view key) const;
  std::optional<std::vector<float>> find_f32_array(std::string_view key) const;
  std::optional<StringArray> find_strings(std::string_view key) const;

  // --- tensors ---

  // In the order of the file.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  // Nothing when there is no tensor of that name.
  const TensorInfo* find_tensor(std::string_view name) const;

 private:
  void parse();
  void read_header(Cursor& cursor);
  void read_metadata(Cursor& cursor, std::uint64_t pair_count);
  void place_tensor(const Cursor& cursor, TensorInfo& tensor) const;

  MappedFile file_;
  std::span<const std::byte> bytes_;
  std::string name_;
  std::uint32_t alignment_ = 32;
  std::uint64_t data_offset_ = 0;
  std::vector<std::string_view> keys_;
  std::unordered_map<std::string_view, Value> values_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, std::size_t> tensor_index_;
};

}  // namespace ds4::gguf
