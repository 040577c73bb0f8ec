#include "convert/safetensors.h"

#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "convert/json.h"

namespace ds4::convert {

namespace {

// The format's own limit on the header, and one on the index file.
constexpr std::uint64_t kHeaderBytesMax = 100'000'000;
constexpr std::size_t kIndexBytesMax = 256'000'000;
constexpr std::size_t kRankMax = 8;

struct TypeEntry {
  SourceType type;
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array kTypes = {
    TypeEntry{SourceType::kF32, "F32", 4},        TypeEntry{SourceType::kF16, "F16", 2},
    TypeEntry{SourceType::kBF16, "BF16", 2},      TypeEntry{SourceType::kF8E4M3, "F8_E4M3", 1},
    TypeEntry{SourceType::kF8E8M0, "F8_E8M0", 1}, TypeEntry{SourceType::kI8, "I8", 1},
    TypeEntry{SourceType::kI32, "I32", 4},        TypeEntry{SourceType::kI64, "I64", 8}};

const TypeEntry& entry_of(SourceType type) {
  for (const TypeEntry& entry : kTypes)
    if (entry.type == type) return entry;
  DS4_CHECK(false);
  return kTypes[0];
}

std::optional<SourceType> type_from_name(std::string_view name) {
  for (const TypeEntry& entry : kTypes)
    if (entry.name == name) return entry.type;
  return std::nullopt;
}

[[noreturn]] void fail(std::string_view file, std::string_view problem) {
  throw Error(
      ErrorCode::kBadFormat,
      fmt::format("{} is not a sound safetensors file: {}; download it again", file, problem));
}

std::uint64_t natural(const Json& value, std::string_view file, std::string_view what) {
  if (!value.is_number_unsigned()) fail(file, fmt::format("{} is not a natural number", what));
  return value.get<std::uint64_t>();
}

// The checked size in bytes of a tensor's data.
std::uint64_t data_bytes(const SourceTensor& tensor, std::string_view file) {
  std::uint64_t bytes = source_type_bytes(tensor.type);
  for (const std::uint64_t extent : tensor.shape) {
    if (extent != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / extent)
      fail(file, fmt::format("tensor '{}' is impossibly large", tensor.name));
    bytes *= extent;
  }
  return bytes;
}

// Reads one entry of the header; nothing for a type that no checkpoint tensor of ours has.
std::optional<SourceTensor> read_entry(const std::string& name,
                                       const Json& entry,
                                       std::span<const std::byte> data,
                                       std::string_view file) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
    fail(file, fmt::format("the entry of tensor '{}' lacks dtype, shape or data_offsets", name));
  if (entry["shape"].size() > kRankMax)
    fail(file, fmt::format("tensor '{}' has {} axes", name, entry["shape"].size()));
  const auto type = type_from_name(entry["dtype"].get<std::string>());
  const std::uint64_t begin = natural(entry["data_offsets"][0], file, "an offset");
  const std::uint64_t end = natural(entry["data_offsets"][1], file, "an offset");
  if (begin > end || end > data.size()) {
    fail(file, fmt::format(
                   "tensor '{}' lies at bytes {} to {} of {}, so the file is truncated or damaged",
                   name, begin, end, data.size()));
  }
  if (!type) return std::nullopt;
  SourceTensor tensor{name, *type, {}, data.subspan(begin, end - begin)};
  for (const Json& extent : entry["shape"])
    tensor.shape.push_back(natural(extent, file, "an extent"));
  if (data_bytes(tensor, file) != tensor.bytes.size()) {
    fail(file, fmt::format("tensor '{}' is {} but has {} bytes", name, tensor.describe(),
                           tensor.bytes.size()));
  }
  return tensor;
}

}  // namespace

std::string_view source_type_name(SourceType type) {
  return entry_of(type).name;
}

std::size_t source_type_bytes(SourceType type) {
  return entry_of(type).bytes;
}

std::string SourceTensor::describe() const {
  return fmt::format("{} [{}]", source_type_name(type), fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path),
      name_(path.string()) {
  parse(file_.bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name)
    : name_(std::move(name)) {
  parse(bytes);
}

void SafetensorsFile::parse(std::span<const std::byte> bytes) {
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) fail(name_, "it is too short");
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  bytes = bytes.subspan(sizeof header_bytes);
  if (header_bytes > bytes.size() || header_bytes > kHeaderBytesMax)
    fail(name_, fmt::format("its header claims {} bytes", header_bytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), header_bytes);
  const Json header = parse_json(text, name_);
  const auto data = bytes.subspan(header_bytes);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    if (auto tensor = read_entry(name, entry, data, name_))
      tensors_.emplace(name, *std::move(tensor));
  }
}

Checkpoint::Checkpoint(const std::filesystem::path& directory) : directory_(directory) {
  const auto index = directory / "model.safetensors.index.json";
  const auto single = directory / "model.safetensors";
  if (std::filesystem::exists(index)) {
    read_index(index);
  } else if (std::filesystem::exists(single)) {
    add_shard(single);
  } else {
    throw Error(
        ErrorCode::kNotFound,
        fmt::format("{} holds neither model.safetensors.index.json nor model.safetensors; give "
                    "the directory of a downloaded checkpoint",
                    directory.string()));
  }
  for (const SafetensorsFile& shard : shards_) {
    for (const auto& [name, tensor] : shard.tensors()) {
      if (!tensors_.emplace(name, &tensor).second) {
        throw Error(ErrorCode::kBadFormat,
                    fmt::format("{}: tensor '{}' is in two files", directory.string(), name));
      }
    }
  }
}

void Checkpoint::add_shard(const std::filesystem::path& path) {
  shards_.emplace_back(path);
}

void Checkpoint::read_index(const std::filesystem::path& path) {
  const Json index = parse_json(read_text_file(path, kIndexBytesMax), path.string());
  if (!index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw Error(ErrorCode::kBadFormat, fmt::format("{} has no weight_map", path.string()));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string()) {
      throw Error(ErrorCode::kBadFormat,
                  fmt::format("{}: the file of tensor '{}' is not a name", path.string(), tensor));
    }
    names.insert(file.get<std::string>());
  }
  shards_.reserve(names.size());
  for (const std::string& name : names) {
    // A shard lies beside its index: a path could lead anywhere.
    if (name.empty() || name.find('/') != std::string::npos || name == "..") {
      throw Error(ErrorCode::kBadFormat,
                  fmt::format("{} names the file '{}'; a plain file name was expected",
                              path.string(), name));
    }
    add_shard(directory_ / name);
  }
}

const SourceTensor* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second;
}

const SourceTensor& Checkpoint::get(std::string_view name) const {
  if (const SourceTensor* tensor = find(name)) return *tensor;
  throw Error(ErrorCode::kBadFormat,
              fmt::format("{}: tensor '{}' is missing; the download is incomplete or config.json "
                          "describes another model",
                          directory_.string(), name));
}

}  // namespace ds4::convert
