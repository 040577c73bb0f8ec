#pragma once
#include <cstdint>

#include "cuda/attend.h"
#include "cuda/device.h"
#include "cuda/grouped_experts.h"
#include "cuda/step.h"
#include "model/config.h"

namespace ds4::cuda {

// Rows up to which a step is decode: every kernel then has a grid that follows from the row count
// alone, so the pass can be recorded.
inline constexpr std::uint32_t kRecordRowsMax = 32;
// Rows whose logits are made at a time.
inline constexpr std::uint32_t kLogitRows = 32;
// Parts that a row's past is cut into when few rows would leave the card idle.
inline constexpr std::uint32_t kSplitsMax = kAttendSplitsMax;

// The buffers that stages pass data through, sized for `rows_max` rows (backend/stages.h names
// them), in one allocation.  One row's width is in the comment.
struct Activations {
  Activations() = default;
  Activations(const ModelConfig& config, std::uint32_t rows_max, bool has_mtp);
  static std::uint64_t planned_bytes(const ModelConfig& config,
                                     std::uint32_t rows_max,
                                     bool has_mtp);

  StepRow* rows;                 // [1]
  std::uint32_t* logit_rows;     // [1]
  float** pointers;              // [1] of gather and scatter
  float* streams;                // [kStreams * width]
  float* partial;                // [chunks, kMixes + 1]
  float* mix;                    // [kStreams + kStreams^2]
  float* reduced;                // [width]
  float* normed;                 // [width]
  float* head_normed;            // [width]
  std::byte* integers;           // [width] as integers (integer_rows.h) of kIntegerRowsMax rows
  std::byte* heads_integers;     // [groups] of a group's heads, likewise
  std::byte* rank_integers;      // [query_rank], likewise, normalised
  std::byte* low_integers;       // [output_group_count * output_rank], likewise
  float* part_products;          // of the widest rows product (rows_product.h)
  float* query_rank;             // [query_rank], raw
  float* query_rank_normed;      // [query_rank]
  float* query;                  // [heads_width]
  float* key_value;              // [kHeadDim], raw
  std::byte* fresh_rows;         // [kRowBytes]
  float* frontier;               // [2, W]
  float* index_frontier;         // [2, 2 * kIndexDim]
  float* index_query;            // [index_head_count * kIndexDim]
  float* index_weights;          // [index_head_count]
  std::int32_t* selection;       // [index_top_k]
  float* heads;                  // [heads_width] of kMatvecRowsMax rows
  std::uint16_t* heads_rounded;  // [heads_width]
  float* output_low;             // [output_group_count * output_rank] of kRecordRowsMax rows
  std::uint16_t* low_rounded;    // [output_group_count * output_rank]
  float* output;                 // [width]
  float* router;                 // [expert_count]
  std::int32_t* expert_ids;      // [experts_used]
  float* expert_weights;         // [experts_used]
  float* expert_gate;         // [experts_used + 1, expert_width] of kIntegerRowsMax rows, activated
  std::uint16_t* expert_mid;  // [experts_used + 1, expert_width], activated
  float* expert_out;          // [experts_used + 1, width]
  std::uint32_t* pairs;       // [experts_used]
  ExpertTile* tiles;          // expert_tiles_max()
  std::uint32_t* tile_count;  // 1 in all
  float* previous;            // [kStreams * width]; only with an MTP block
  std::uint16_t* rounded;     // [widest product input]
  std::uint16_t* rounded_rest;  // [width or query_rank]
  float* logits;                // [vocab_size] of kLogitRows rows
  float* part_values;           // [kSplitsMax, heads_width] of kRecordRowsMax rows
  float* part_sums;             // [kSplitsMax, head_count, 2] of kRecordRowsMax rows

  std::uint64_t bytes() const { return memory_.bytes(); }

 private:
  template <class Place>
  void visit(const ModelConfig& config, std::uint32_t rows_max, bool has_mtp, Place&& place);

  DeviceBuffer memory_;
};

}  // namespace ds4::cuda
