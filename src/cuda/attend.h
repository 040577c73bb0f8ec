#pragma once
#include "cuda/device.h"
#include "cuda/step.h"

namespace ds4::cuda {

// Attention of every row over its window and compressed rows.
struct AttendJob {
  Step step;
  std::uint32_t layer = 0;
  std::uint32_t ratio = 0;
  std::uint32_t head_count = 0;
  std::uint32_t top_k = 0;  // ratio 4
  const float* frequencies = nullptr;
  const float* sinks = nullptr;             // [head_count]
  const float* query = nullptr;             // [rows, head_count, kHeadDim]
  bool raw_query = false;                   // still to be normalised and rotated; needs 1 split
  float epsilon = 0;                        // of that
  const std::byte* fresh_rows = nullptr;    // [rows, kRowBytes]
  const std::int32_t* selection = nullptr;  // [rows, top_k], for rows that see more than top_k
  // At most one of the two; [rows, head_count, kHeadDim].  The rounded ones are the input of a tile
  // product.
  float* heads = nullptr;
  std::uint16_t* heads_rounded = nullptr;
  // The heads, or the heads again, as integers (integer_rows.h) [rows, groups] of group_heads
  // heads; with more than 1 split, or null.
  std::byte* heads_integers = nullptr;
  std::uint32_t group_heads = 1;
  // Parts of a row's past that separate blocks take; 1: none, and the two below are unused.
  std::uint32_t splits = 1;
  float* part_values = nullptr;  // [rows, splits, head_count, kHeadDim]
  float* part_sums = nullptr;    // [rows, splits, head_count, 2]: largest score, sum
  bool ahead = false;            // set by attend_rows(): tiles are fetched while others are used
  bool portable = false;         // without what only some cards have
};

inline constexpr std::uint32_t kAttendTileRows = 64;
inline constexpr std::uint32_t kAttendSplitsMax = 16;

void attend_rows(Stream& stream, const DeviceInfo& device, const AttendJob& job);

}  // namespace ds4::cuda
