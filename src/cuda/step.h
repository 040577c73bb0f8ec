#pragma once
#include <cstdint>

namespace ds4::cuda {

// The graph's constants that kernels are built for; make_cuda_executor() refuses other models.
inline constexpr std::uint32_t kStreams = 4;
inline constexpr std::uint32_t kMixes = kStreams * (2 + kStreams);
inline constexpr std::uint32_t kHeadDim = 512;
inline constexpr std::uint32_t kRopeDim = 64;
inline constexpr std::uint32_t kNopeDim = kHeadDim - kRopeDim;
inline constexpr std::uint32_t kIndexDim = 128;
inline constexpr std::uint32_t kIndexHeadsMax = 64;
inline constexpr std::uint32_t kExpertsUsedMax = 8;
inline constexpr std::uint32_t kExpertsMax = 512;
inline constexpr std::uint32_t kRowBytes = 584;     // a packed attention row
inline constexpr std::uint32_t kKeyCodeBytes = 64;  // E2M1 codes of an index key
inline constexpr std::uint32_t kKeyScaleBytes = 4;  // its scales

// One row of the batch as kernels see it: everything that changes from step to step is here, in
// device memory, so that a recorded pass can be replayed.
struct StepRow {
  std::int32_t token;
  std::uint32_t position;
  std::uint32_t sequence;
  std::uint32_t run_first_row;  // of the row's sequence in this batch
  std::uint32_t run_first_position;
  std::uint32_t run_count;
  std::uint32_t wants_logits;
  std::uint32_t padding;
};

// Where one layer of one sequence keeps its state; stores without use are null.
struct LayerState {
  std::byte* window = nullptr;      // ring [window_capacity, kRowBytes] by position
  std::byte* compressed = nullptr;  // [rows, kRowBytes]
  std::byte* key_codes = nullptr;   // [rows, kKeyCodeBytes]
  std::byte* key_scales = nullptr;  // [rows, kKeyScaleBytes]
  float* frontier = nullptr;        // ring [frontier_capacity, 2, W]
  float* index_frontier = nullptr;  // ring [frontier_capacity, 2, 2 * kIndexDim]
};

// The rows of the step and the states of all sequences.
struct Step {
  const StepRow* rows = nullptr;  // [count]
  std::uint32_t count = 0;
  const LayerState* states = nullptr;  // [sequences, layers]
  std::uint32_t layers = 0;            // the MTP block included
  std::uint32_t window = 0;            // positions visible
  std::uint32_t window_capacity = 0;   // rows of a ring
};

// Tokens that a sequence can always take back.
inline constexpr std::uint32_t kRewindMax = 16;
// Most rows of one sequence in a step that may write its rings before the step has read them: the
// rings hold this many rows more than any row reads.
inline constexpr std::uint32_t kDirectRowsMax = kRewindMax;

constexpr std::uint32_t frontier_capacity(std::uint32_t ratio) {
  return ratio * (ratio == 4 ? 2 : 1) + kRewindMax;
}

}  // namespace ds4::cuda
