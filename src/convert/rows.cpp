#include "convert/rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "base/error.h"
#include "quant/codec.h"
#include "tensor/float16.h"

namespace ds4::convert {

namespace {

constexpr std::uint64_t kFp8Tile = 128;  // rows and columns that share a scale
constexpr std::uint64_t kFp4Group = 32;  // columns that share a scale
constexpr std::uint8_t kScaleNan = 255;  // E8M0

constexpr auto kE4m3Values = [] {
  std::array<float, 256> values{};
  for (unsigned code = 0; code < values.size(); ++code)
    values[code] = e4m3_to_f32(static_cast<std::uint8_t>(code));
  return values;
}();

bool shape_is(const SourceTensor& tensor, std::uint64_t rows, std::uint64_t columns) {
  if (tensor.shape.size() == 1) return rows == 1 && tensor.shape[0] == columns;
  return tensor.shape.size() == 2 && tensor.shape[0] == rows && tensor.shape[1] == columns;
}

[[noreturn]] void fail_shape(const Checkpoint& checkpoint,
                             const SourceTensor& tensor,
                             std::string_view expected,
                             std::uint64_t rows,
                             std::uint64_t columns) {
  const std::string shape =
      rows == 1 ? fmt::format("[{}]", columns) : fmt::format("[{}, {}]", rows, columns);
  throw Error(ErrorCode::kBadFormat,
              fmt::format("{}: tensor '{}' is {}; {} {} was expected from config.json",
                          checkpoint.directory().string(), tensor.name, tensor.describe(), expected,
                          shape));
}

std::uint8_t byte_at(const SourceTensor& tensor, std::uint64_t index) {
  return static_cast<std::uint8_t>(tensor.bytes[index]);
}

}  // namespace

RowSource::RowSource(const Checkpoint& checkpoint,
                     std::string_view name,
                     std::uint64_t rows,
                     std::uint64_t columns)
    : tensor_(&checkpoint.get(name)),
      rows_(rows),
      columns_(columns) {
  switch (tensor_->type) {
    case SourceType::kF32:
    case SourceType::kF16:
    case SourceType::kBF16:
      if (!shape_is(*tensor_, rows, columns))
        fail_shape(checkpoint, *tensor_, "shape", rows, columns);
      return;
    case SourceType::kF8E4M3:
      if (!shape_is(*tensor_, rows, columns))
        fail_shape(checkpoint, *tensor_, "shape", rows, columns);
      scale_columns_ = (columns + kFp8Tile - 1) / kFp8Tile;
      find_scale(checkpoint);
      return;
    case SourceType::kI8:
      if (columns % kFp4Group != 0 || !shape_is(*tensor_, rows, columns / 2))
        fail_shape(checkpoint, *tensor_, "packed FP4 of shape", rows, columns / 2);
      scale_columns_ = columns / kFp4Group;
      find_scale(checkpoint);
      return;
    case SourceType::kF8E8M0:
    case SourceType::kI32:
    case SourceType::kI64:
      break;
  }
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format("{}: tensor '{}' is {}, which holds no weights; F32, F16, BF16, F8_E4M3 or "
                  "packed FP4 (I8) was expected",
                  checkpoint.directory().string(), tensor_->name, tensor_->describe()));
}

void RowSource::find_scale(const Checkpoint& checkpoint) {
  constexpr std::string_view kWeight = ".weight";
  std::string name = tensor_->name;
  if (name.ends_with(kWeight)) name.resize(name.size() - kWeight.size());
  scale_ = &checkpoint.get(name + ".scale");
  const std::uint64_t scale_rows =
      tensor_->type == SourceType::kI8 ? rows_ : (rows_ + kFp8Tile - 1) / kFp8Tile;
  const bool power_of_two = scale_->type == SourceType::kF8E8M0;
  if ((!power_of_two && scale_->type != SourceType::kF32) ||
      !shape_is(*scale_, scale_rows, scale_columns_)) {
    fail_shape(checkpoint, *scale_, "F8_E8M0 of shape", scale_rows, scale_columns_);
  }
}

void RowSource::fail_at(std::uint64_t row, std::uint64_t column) const {
  throw Error(
      ErrorCode::kBadFormat,
      fmt::format("tensor '{}' is not a number at row {}, column {}: the checkpoint is damaged, "
                  "download it again",
                  tensor_->name, row, column));
}

float RowSource::scale_at(std::uint64_t row, std::uint64_t tile) const {
  const std::uint64_t index = row * scale_columns_ + tile;
  if (scale_->type == SourceType::kF32) {
    float scale = 0;
    std::memcpy(&scale, scale_->bytes.data() + index * sizeof scale, sizeof scale);
    return scale;
  }
  const std::uint8_t code = byte_at(*scale_, index);
  if (code == kScaleNan) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("tensor '{}' has the scale NaN (code 255) at row {}, column {}: the "
                            "checkpoint is damaged, download it again",
                            scale_->name, row, tile));
  }
  return e8m0_to_f32(code);
}

void RowSource::read_fp8(std::uint64_t row, std::span<float> values) const {
  const std::uint64_t start = row * columns_;
  for (std::uint64_t tile = 0; tile < scale_columns_; ++tile) {
    const float scale = scale_at(row / kFp8Tile, tile);
    const std::uint64_t end = std::min(columns_, (tile + 1) * kFp8Tile);
    for (std::uint64_t column = tile * kFp8Tile; column < end; ++column)
      values[column] = kE4m3Values[byte_at(*tensor_, start + column)] * scale;
  }
}

void RowSource::read_fp4(std::uint64_t row, std::span<float> values) const {
  const std::uint64_t start = row * columns_ / 2;
  for (std::uint64_t group = 0; group < scale_columns_; ++group) {
    const float scale = scale_at(row, group);
    for (std::uint64_t i = group * kFp4Group / 2; i < (group + 1) * kFp4Group / 2; ++i) {
      const std::uint8_t packed = byte_at(*tensor_, start + i);
      // Adding zero turns the code of -0 into 0.
      values[2 * i] = e2m1_to_f32(packed & 15) * scale + 0.0F;
      values[2 * i + 1] = e2m1_to_f32(packed >> 4) * scale + 0.0F;
    }
  }
}

void RowSource::read(std::uint64_t row, std::span<float> values) const {
  DS4_CHECK(row < rows_ && values.size() == columns_);
  const auto plain = [&](ElementType type) {
    const std::size_t bytes = row_bytes(type, columns_);
    quant::decode_row(type, tensor_->bytes.subspan(row * bytes, bytes), values);
  };
  switch (tensor_->type) {
    case SourceType::kF32:
      plain(ElementType::kF32);
      break;
    case SourceType::kF16:
      plain(ElementType::kF16);
      break;
    case SourceType::kBF16:
      plain(ElementType::kBF16);
      break;
    case SourceType::kF8E4M3:
      read_fp8(row, values);
      break;
    case SourceType::kI8:
      read_fp4(row, values);
      break;
    case SourceType::kF8E8M0:
    case SourceType::kI32:
    case SourceType::kI64:
      DS4_CHECK(false);
  }
  for (std::uint64_t column = 0; column < columns_; ++column)
    if (!std::isfinite(values[column])) fail_at(row, column);
}

std::vector<std::int32_t> read_expert_ids(const Checkpoint& checkpoint,
                                          std::string_view name,
                                          std::uint64_t rows,
                                          std::uint64_t columns,
                                          std::uint32_t id_count) {
  const SourceTensor& tensor = checkpoint.get(name);
  const bool wide = tensor.type == SourceType::kI64;
  if ((!wide && tensor.type != SourceType::kI32) || !shape_is(tensor, rows, columns))
    fail_shape(checkpoint, tensor, "I64 or I32 of shape", rows, columns);
  std::vector<std::int32_t> ids(rows * columns);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::int64_t id = 0;
    if (wide) {
      std::memcpy(&id, tensor.bytes.data() + i * sizeof id, sizeof id);
    } else {
      std::int32_t narrow = 0;
      std::memcpy(&narrow, tensor.bytes.data() + i * sizeof narrow, sizeof narrow);
      id = narrow;
    }
    if (id < 0 || id >= std::int64_t{id_count}) {
      throw Error(ErrorCode::kBadFormat,
                  fmt::format("tensor '{}' names expert {} in row {}; there are {} experts", name,
                              id, i / columns, id_count));
    }
    ids[i] = static_cast<std::int32_t>(id);
  }
  return ids;
}

}  // namespace ds4::convert
