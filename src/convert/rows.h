#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "convert/safetensors.h"

namespace ds4::convert {

// The rows of one checkpoint tensor as f32, whatever it is stored as: F32, F16, BF16, FP8 (E4M3
// times a power of two per 128 x 128 tile) or FP4 (two E2M1 codes a byte, low nibble first, times a
// power of two per 32 values).  The scales of X.weight are the tensor X.scale.  A view of its
// Checkpoint; immutable, usable from several threads.
class RowSource {
 public:
  // `rows` x `columns` is what the model needs; a vector has one row.  Throws Error(kBadFormat)
  // with tensor, found and expected when the tensor is missing or has another shape, and
  // Error(kUnsupported) for a type that holds no weights.
  RowSource(const Checkpoint& checkpoint,
            std::string_view name,
            std::uint64_t rows,
            std::uint64_t columns);

  SourceType type() const { return tensor_->type; }

  // Decodes one row of `columns` values.  Throws Error(kBadFormat) for NaN or infinity: E4M3 0x7F,
  // E8M0 255 and their like mean a damaged file.
  void read(std::uint64_t row, std::span<float> values) const;

 private:
  void find_scale(const Checkpoint& checkpoint);
  float scale_at(std::uint64_t row, std::uint64_t tile) const;
  void read_fp8(std::uint64_t row, std::span<float> values) const;
  void read_fp4(std::uint64_t row, std::span<float> values) const;
  [[noreturn]] void fail_at(std::uint64_t row, std::uint64_t column) const;

  const SourceTensor* tensor_;
  const SourceTensor* scale_ = nullptr;  // of FP8 and FP4
  std::uint64_t rows_;
  std::uint64_t columns_;
  std::uint64_t scale_columns_ = 0;
};

// The expert ids of a hash-routing table, `rows` x `columns`, stored as I32 or I64.  Throws
// Error(kBadFormat) when the shape differs or an id is not below `id_count`.
std::vector<std::int32_t> read_expert_ids(const Checkpoint& checkpoint,
                                          std::string_view name,
                                          std::uint64_t rows,
                                          std::uint64_t columns,
                                          std::uint32_t id_count);

}  // namespace ds4::convert
