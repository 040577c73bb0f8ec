#pragma once
#include "cuda/device.h"
#include "cuda/matrix.h"
#include "cuda/step.h"

namespace ds4::cuda {

// One of a layer's compressors.
struct CompressJob {
  Matrix ape;                   // [ratio, W], plain
  const float* norm = nullptr;  // [size]
  float* fresh =
      nullptr;  // [rows, 2, W]: projections and gate scores, the position term not yet added
};

// What stands between the projections of a layer and its attention.
struct PrepareJob {
  Step step;
  std::uint32_t layer = 0;
  std::uint32_t ratio = 0;
  std::uint32_t head_count = 0;
  std::uint32_t index_head_count = 0;
  float epsilon = 0;
  const float* frequencies = nullptr;  // [kRopeDim / 2]
  bool direct = false;                 // few rows: write the rings at once (kDirectRowsMax)
  bool with_query = false;
  bool with_key_value = false;
  bool with_compress = false;
  bool with_index_query = false;
  float* query = nullptr;            // [rows, head_count, kHeadDim], in place
  const float* key_value = nullptr;  // [rows, kHeadDim] raw projection
  const float* key_value_norm = nullptr;
  std::byte* fresh_rows = nullptr;  // [rows, kRowBytes]
  CompressJob rows;
  CompressJob keys;
  float* index_query = nullptr;    // [rows, index_head_count, kIndexDim], in place
  float* index_weights = nullptr;  // [rows, index_head_count], in place
};

// Runs the parts that `job` names, as one launch.
void prepare_attention(Stream& stream, const PrepareJob& job);

// The rings' share of a step that was too long for `direct`; after everything that reads them.
void store_frontier(Stream& stream, const PrepareJob& job);
void store_window(Stream& stream,
                  const Step& step,
                  std::uint32_t layer,
                  const std::byte* fresh_rows);

}  // namespace ds4::cuda
