#include "convert/imatrix.h"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"

namespace ds4::convert {

namespace {

// Reads the file front to back, never past its end.
class ImatrixCursor {
 public:
  ImatrixCursor(std::span<const std::byte> bytes, std::string_view file)
      : bytes_(bytes),
        file_(file) {}

  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(
        ErrorCode::kBadFormat,
        fmt::format("{} is not a sound importance file (.dat): {}; make it again", file_, problem));
  }
  bool at_end() const { return bytes_.empty(); }
  std::span<const std::byte> take(std::uint64_t byte_count) {
    if (byte_count > bytes_.size()) fail("it ends too early");
    const auto taken = bytes_.first(byte_count);
    bytes_ = bytes_.subspan(byte_count);
    return taken;
  }
  std::int32_t read_i32() {
    std::int32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::uint32_t read_count() {
    const std::int32_t count = read_i32();
    if (count < 0) fail("a count is negative");
    return static_cast<std::uint32_t>(count);
  }
  std::string read_text() {
    const auto bytes = take(read_count());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::vector<float> read_floats() {
    const std::uint64_t count = read_count();
    const auto bytes = take(count * sizeof(float));
    std::vector<float> values(count);
    if (count != 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view file_;
};

}  // namespace

Imatrix::Imatrix(const std::filesystem::path& path) : name_(path.string()) {
  const MappedFile file(path);
  parse(file.bytes());
}

Imatrix::Imatrix(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  parse(bytes);
}

void Imatrix::parse(std::span<const std::byte> bytes) {
  ImatrixCursor cursor(bytes, name_);
  const std::uint32_t entry_count = cursor.read_count();
  for (std::uint32_t i = 0; i < entry_count; ++i) {
    std::string tensor = cursor.read_text();
    const std::int32_t call_count = cursor.read_i32();
    std::vector<float> values = cursor.read_floats();
    for (float& value : values) {
      if (call_count > 0) value /= static_cast<float>(call_count);
      if (!std::isfinite(value) || value < 0)
        cursor.fail(fmt::format("the entry of '{}' has the value {}", tensor, value));
    }
    if (!entries_.emplace(tensor, std::move(values)).second)
      cursor.fail(fmt::format("'{}' appears twice", tensor));
  }
  // What follows is informational and absent from older files.
  if (!cursor.at_end()) chunk_count_ = cursor.read_count();
  if (!cursor.at_end()) dataset_ = cursor.read_text();
}

std::span<const float> Imatrix::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return {};
  return found->second;
}

std::span<const float> Imatrix::find(const PlannedTensor& tensor, std::uint64_t slab) const {
  if (entries_.empty()) return {};
  const std::array names = {std::string_view(tensor.name), std::string_view(tensor.source)};
  const auto check = [&](std::span<const float> values, std::uint64_t expected) {
    if (values.size() == expected) return;
    throw Error(
        ErrorCode::kBadFormat,
        fmt::format("{}: tensor {} has {} values; {} were expected, so this importance file was "
                    "made for another model",
                    name_, tensor.name, values.size(), expected));
  };
  for (const std::string_view name : names) {
    if (tensor.is_stack()) {
      for (const char mark : {'.', '_'}) {
        const auto values = entry(fmt::format("{}.expert{}{}", name, mark, slab));
        if (values.empty()) continue;
        check(values, tensor.columns());
        return values;
      }
    }
    const auto values = entry(name);
    if (values.empty()) continue;
    check(values, tensor.columns() * tensor.slabs());
    return values.subspan(slab * tensor.columns(), tensor.columns());
  }
  return {};
}

void Imatrix::write_metadata(gguf::Writer& writer) const {
  if (entries_.empty()) return;
  writer.set_string("quantize.imatrix.file", std::filesystem::path(name_).filename().string());
  writer.set_string("quantize.imatrix.dataset", dataset_);
  writer.set_u64("quantize.imatrix.entries_count", entries_.size());
  writer.set_u64("quantize.imatrix.chunks_count", chunk_count_);
}

}  // namespace ds4::convert
