#include "gguf/reader.h"

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "gguf/cursor.h"

namespace ds4::gguf {

namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF", little-endian
constexpr std::uint32_t kVersion = 3;
constexpr std::uint32_t kMaxRank = 8;
// The format asks for a multiple of 8; blocks and f32 rows are then aligned for direct access.
constexpr std::uint64_t kAlignmentMin = 8;
constexpr std::uint64_t kAlignmentMax = std::uint64_t{1} << 20;
constexpr std::size_t kNameBytesMax = 65535;
// Least bytes of a metadata pair (key length, type, one byte) and of a tensor's description.
constexpr std::uint64_t kPairBytesMin = 8 + 4 + 1;
constexpr std::uint64_t kTensorInfoBytesMin = 8 + 4 + 8 + 4 + 8;

// What a tensor's data takes, or a complaint.
struct DataSize {
  std::uint64_t bytes = 0;
  std::string problem;
};

DataSize data_size(const TensorInfo& tensor) {
  std::uint64_t values = 1;
  for (const std::uint64_t extent : tensor.shape) {
    if (extent == 0) return {0, "has an empty axis"};
    if (values > std::numeric_limits<std::int64_t>::max() / extent)
      return {0, "is impossibly large"};
    values *= extent;
  }
  if (!tensor.type) return {};
  const ElementTypeInfo info = element_type_info(*tensor.type);
  if (tensor.shape[0] % info.values != 0) {
    return {0, fmt::format("has rows of {} values, but {} comes in blocks of {}", tensor.shape[0],
                           info.name, info.values)};
  }
  const std::uint64_t blocks = values / info.values;
  if (blocks > std::numeric_limits<std::int64_t>::max() / info.bytes)
    return {0, "is impossibly large"};
  return {blocks * info.bytes, {}};
}

TensorInfo read_tensor_info(Cursor& cursor) {
  TensorInfo tensor{};
  tensor.name = cursor.read_string("a tensor's name");
  if (tensor.name.empty() || tensor.name.size() > kNameBytesMax)
    cursor.fail(fmt::format("a tensor's name has {} bytes", tensor.name.size()));
  const std::uint32_t rank = cursor.read_u32("a tensor's number of axes");
  if (rank == 0 || rank > kMaxRank)
    cursor.fail(
        fmt::format("tensor '{}' has {} axes; 1 to {} are possible", tensor.name, rank, kMaxRank));
  tensor.shape.resize(rank);
  for (std::uint64_t& extent : tensor.shape)
    extent = cursor.read_u64("a tensor's shape");
  tensor.type_id = cursor.read_u32("a tensor's type");
  tensor.type = element_type_from_id(tensor.type_id);
  tensor.offset = cursor.read_u64("a tensor's offset");
  return tensor;
}

}  // namespace

std::uint64_t TensorInfo::value_count() const {
  std::uint64_t values = 1;
  for (const std::uint64_t extent : shape)
    values *= extent;
  return values;
}

std::string TensorInfo::type_name() const {
  return type ? std::string(element_type_info(*type).name) : fmt::format("type {}", type_id);
}

std::string TensorInfo::shape_text() const {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Reader::Reader(const std::filesystem::path& path) : Reader(MappedFile(path)) {}

Reader::Reader(MappedFile file)
    : file_(std::move(file)),
      bytes_(file_.bytes()),
      name_(file_.path().string()) {
  parse();
}

Reader::Reader(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes),
      name_(std::move(name)) {
  parse();
}

void Reader::parse() {
  Cursor cursor(bytes_, name_);
  read_header(cursor);
  const std::uint64_t tensor_count =
      cursor.read_count(kTensorInfoBytesMin, "the number of tensors");
  const std::uint64_t pair_count = cursor.read_count(kPairBytesMin, "the number of metadata pairs");
  read_metadata(cursor, pair_count);
  // Counted again: the metadata took its part of the file.
  if (tensor_count > cursor.remaining() / kTensorInfoBytesMin)
    cursor.fail(fmt::format("{} tensors cannot be described in what is left", tensor_count));
  tensors_.reserve(tensor_count);
  for (std::uint64_t i = 0; i < tensor_count; ++i)
    tensors_.push_back(read_tensor_info(cursor));
  if (const auto alignment = find_u64("general.alignment")) {
    if (*alignment < kAlignmentMin || *alignment > kAlignmentMax ||
        !std::has_single_bit(*alignment)) {
      cursor.fail(fmt::format("general.alignment is {}; a power of two from {} to {} was expected",
                              *alignment, kAlignmentMin, kAlignmentMax));
    }
    alignment_ = static_cast<std::uint32_t>(*alignment);
  }
  data_offset_ = (cursor.offset() + alignment_ - 1) / alignment_ * alignment_;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    place_tensor(cursor, tensors_[i]);
    if (!tensor_index_.emplace(tensors_[i].name, i).second)
      cursor.fail(fmt::format("tensor '{}' appears twice", tensors_[i].name));
  }
}

void Reader::read_header(Cursor& cursor) {
  if (bytes_.size() < 2 * sizeof(std::uint32_t) || cursor.read_u32("the magic") != kMagic) {
    throw Error(
        ErrorCode::kBadFormat,
        fmt::format("{} is not a GGUF file (it does not start with 'GGUF'); give the path of "
                    "a .gguf model file",
                    name_));
  }
  const std::uint32_t version = cursor.read_u32("the version");
  if (version == kVersion) return;
  if (version == std::uint32_t{kVersion} << 24) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("{} is a big-endian GGUF file; only little-endian files are supported", name_));
  }
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("{} is GGUF version {}; only version {} is supported, convert it again with "
                  "a current tool",
                  name_, version, kVersion));
}

void Reader::read_metadata(Cursor& cursor, std::uint64_t pair_count) {
  keys_.reserve(pair_count);
  values_.reserve(pair_count);
  for (std::uint64_t i = 0; i < pair_count; ++i) {
    const std::string_view key = cursor.read_string("a metadata key");
    if (key.empty() || key.size() > kNameBytesMax)
      cursor.fail(fmt::format("a metadata key has {} bytes", key.size()));
    if (!values_.emplace(key, cursor.read_value(key)).second)
      cursor.fail(fmt::format("metadata key '{}' appears twice", key));
    keys_.push_back(key);
  }
}

void Reader::place_tensor(const Cursor& cursor, TensorInfo& tensor) const {
  const DataSize size = data_size(tensor);
  if (!size.problem.empty()) {
    cursor.fail(
        fmt::format("tensor '{}' {} (shape {})", tensor.name, size.problem, tensor.shape_text()));
  }
  if (tensor.offset % alignment_ != 0) {
    cursor.fail(fmt::format("tensor '{}' starts at {}, which is not a multiple of the alignment {}",
                            tensor.name, tensor.offset, alignment_));
  }
  const std::uint64_t data_bytes = bytes_.size() > data_offset_ ? bytes_.size() - data_offset_ : 0;
  if (tensor.offset > data_bytes || size.bytes > data_bytes - tensor.offset) {
    cursor.fail(
        fmt::format("tensor '{}' needs {} bytes at offset {}, but the data has {} bytes, so "
                    "the file is truncated or damaged",
                    tensor.name, size.bytes, tensor.offset, data_bytes));
  }
  tensor.offset += data_offset_;
  if (tensor.type) tensor.bytes = bytes_.subspan(tensor.offset, size.bytes);
}

const TensorInfo* Reader::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

std::uint64_t Reader::table_bytes() const {
  // A node of a map: the pair, its hash and a pointer; and a pointer a bucket.
  constexpr std::size_t kNode = sizeof(std::size_t) + sizeof(void*);
  std::uint64_t total = keys_.capacity() * sizeof(std::string_view) +
                        tensors_.capacity() * sizeof(tensors_[0]) +
                        values_.size() * (sizeof(*values_.begin()) + kNode) +
                        tensor_index_.size() * (sizeof(*tensor_index_.begin()) + kNode) +
                        (values_.bucket_count() + tensor_index_.bucket_count()) * sizeof(void*);
  for (const TensorInfo& tensor : tensors_)
    total += tensor.shape.capacity() * sizeof(tensor.shape[0]);
  return total;
}

}  // namespace ds4::gguf
