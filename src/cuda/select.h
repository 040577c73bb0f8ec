#pragma once
#include "cuda/device.h"
#include "cuda/step.h"

namespace ds4::cuda {

// The indexer's choice of compressed rows, for rows that see more than `top_k`.
struct SelectJob {
  Step step;
  std::uint32_t layer = 0;
  std::uint32_t first_row = 0;  // rows [first_row, first_row + row_count) of the step
  std::uint32_t row_count = 0;
  std::uint32_t top_k = 0;
  std::uint32_t head_count = 0;
  std::uint32_t visible_max = 0;      // of any row; the stride of `scores`
  const float* query = nullptr;       // [rows, head_count, kIndexDim]
  const float* weights = nullptr;     // [rows, head_count]
  float* scores = nullptr;            // [row_count, visible_max]
  std::int32_t* selection = nullptr;  // [rows, top_k], ascending
};

// `key_blocks`: blocks over which the keys of a row are shared; more hide latency, results do not
// depend on it.
void score_keys(Stream& stream, const SelectJob& job, std::uint32_t key_blocks);
void select_top(Stream& stream, const SelectJob& job);

}  // namespace ds4::cuda
