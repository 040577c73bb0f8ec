#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace ds4::cpu {

// The buffers that stages pass data through, sized for `rows_max` rows (backend/stages.h names
// them). All row-major; one row's width is in the comment.
struct Activations {
  Activations(const ModelConfig& config, std::uint32_t rows_max, bool has_mtp);

  std::vector<float> window_turns;      // [rope_dim / 2, 2] cosine and sine of each pair
  std::vector<float> compressed_turns;  // likewise
  std::vector<float> streams;           // [stream_count * width]
  std::vector<float> stream_mixes;      // [stream_count * (2 + stream_count)] raw mixer outputs
  std::vector<float> mix;               // [stream_count + stream_count^2] post gates, combination
  std::vector<float> reduced;           // [width]
  std::vector<float> normed;            // [width]
  std::vector<float> query_rank;        // [query_rank]
  std::vector<float> query;             // [head_count * head_dim]
  std::vector<float> key_value;         // [head_dim]
  std::vector<float> frontier;          // [2, W]: projection, then gate score
  std::vector<float> index_frontier;    // [2, 2 * index_dim]
  std::vector<float> index_query;       // [index_head_count * index_dim]
  std::vector<float> index_weights;     // [index_head_count]
  std::vector<std::int32_t> selection;  // [index_top_k]
  std::vector<std::uint32_t> selection_count;  // [1]
  std::vector<float> heads;                    // [head_count * head_dim]
  std::vector<float> output_low;               // [output_group_count * output_rank]
  std::vector<float> output;                   // [width]
  std::vector<float> router;                   // [expert_count]
  std::vector<std::int32_t> expert_ids;        // [experts_used]
  std::vector<float> expert_weights;           // [experts_used]
  std::vector<float>
      expert_gate;                // [experts_used + 1, expert_width]; the last is the shared expert
  std::vector<float> expert_up;   // likewise
  std::vector<float> expert_out;  // [experts_used + 1, width]
  std::vector<float> previous;    // [stream_count * width]; only with an MTP block

  std::uint64_t bytes() const;
  static std::uint64_t planned_bytes(const ModelConfig& config,
                                     std::uint32_t rows_max,
                                     bool has_mtp);

 private:
  template <class Self, class Visit>
  static void visit_buffers(Self& self, const ModelConfig& config, bool has_mtp, Visit visit);
};

}  // namespace ds4::cpu
