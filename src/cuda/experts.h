#pragma once
#include "cuda/device.h"
#include "cuda/integer_rows.h"
#include "cuda/matrix.h"
#include "cuda/step.h"

namespace ds4::cuda {

// Routing: from router logits to expert ids and weights.
struct RouteJob {
  Step step;
  std::uint32_t expert_count = 0;
  std::uint32_t used = 0;
  float weight_scale = 0;
  const float* logits = nullptr;             // [rows, expert_count]
  const float* bias = nullptr;               // [expert_count] or null
  const std::int32_t* hash_table = nullptr;  // [vocab, used] or null
  std::int32_t* ids = nullptr;               // [rows, used]
  float* weights = nullptr;                  // [rows, used]
};
void route_rows(Stream& stream, const RouteJob& job);

// The experts of few rows (kIntegerRowsMax), straight from the quantised weights.  Slots of a row:
// the chosen experts, then the shared one.
struct ExpertsJob {
  std::uint32_t rows = 0;
  std::uint32_t used = 0;
  float limit = 0;
  Matrix gate, up, down;  // stacked
  Matrix shared_gate, shared_up, shared_down;
  const std::int32_t* ids = nullptr;  // [rows, used]
  const float* weights = nullptr;     // [rows, used]
  std::byte* x = nullptr;             // [rows] of width as integers (integer_rows.h)
  float* mid = nullptr;               // [rows, used + 1, expert_width]
  float* slot_output = nullptr;       // [rows, used + 1, width]; not used by one row
  float* output = nullptr;            // [rows, width]
  const std::byte* grid = nullptr;
};
void run_experts_of_few(Stream& stream, const DeviceInfo& device, const ExpertsJob& job);

}  // namespace ds4::cuda
