#pragma once
#include <cstdint>
#include <span>

#include "backend/batch.h"
#include "model/config.h"

namespace ds4 {

// The rows of one sequence inside a batch.
struct RowRun {
  SequenceId sequence;
  std::uint32_t first_row;
  std::uint32_t count;
  Position first_position;
};

// The rows that the following stages work on.  Spans stay valid until the next begin().
struct StepRows {
  std::span<const BatchRow> rows;
  std::span<const RowRun> runs;
};

// The two halves of a layer: each reads the reduced streams and writes back into them.
enum class Sublayer { kAttention, kFfn };

// Which output matrix and stream collapse.
enum class HeadKind { kMain, kMtp };

// The model's own steps, the fine seam: backend/forward.cpp calls them in order, a backend
// implements them.  Data passes from stage to stage in the backend's activation buffers, named
// here:
//
//   streams     f32 [rows, stream_count, width]   the residual
//   mix         f32 [rows, stream_count + stream_count^2]   post gates and combination matrix
//   reduced     f32 [rows, width]                 input of a sublayer, before its norm
//   normed      f32 [rows, width]
//   query_rank  f32 [rows, query_rank]            normed low-rank query, also the indexer's input
//   query       f32 [rows, head_count, head_dim]
//   key_value   f32 [rows, head_dim]              rounded as the row codec stores it
//   selection   i32 [rows, index_top_k], count per row; ascending row numbers
//   heads       f32 [rows, head_count, head_dim]  attention output
//   choice      i32 and f32 [rows, experts_used]  expert ids and weights
//   output      f32 [rows, width]                 of a sublayer
//   previous    f32 [rows, stream_count, width]   MTP: the streams of the token before each row
//
// Equation numbers are those of docs/model.md.  A fused kernel overrides a wider stage (the
// non-pure ones); the contract test holds it to the parts.  Confined to one thread.
class Stages {
 public:
  Stages() = default;
  Stages(const Stages&) = delete;
  Stages& operator=(const Stages&) = delete;
  virtual ~Stages() = default;

  // Sets the rows of everything up to the next begin().
  virtual void begin(const StepRows& step) = 0;

  // token ids -> streams: the embedding row copied into every stream.
  virtual void embed() = 0;
  // Host rows [rows, stream_count * width] -> streams, for a slice that does not hold layer 0.
  virtual void load_streams(ConstRows hidden) = 0;
  // streams -> host.
  virtual void read_streams(Rows hidden) = 0;

  // streams -> reduced, mix.
  virtual void reduce_streams(LayerIndex layer, Sublayer sublayer) = 0;
  // reduced -> normed.
  virtual void normalize(LayerIndex layer, Sublayer sublayer) = 0;
  // output, mix, streams -> streams.
  virtual void expand_streams(LayerIndex layer, Sublayer sublayer) = 0;
  // output -> output without its component along the layer's steering direction.
  virtual void steer(LayerIndex layer, Sublayer sublayer) = 0;

  // normed -> query_rank, query (normalised per head, rotated).
  virtual void project_query(LayerIndex layer) = 0;
  // normed -> key_value (normalised, rotated, rounded).
  virtual void project_key_value(LayerIndex layer) = 0;
  // normed -> frontier; appends the compressed rows and index keys that the rows complete.
  virtual void compress(LayerIndex layer) = 0;
  // query_rank, normed, index keys -> selection.  Ratio-4 layers only.
  virtual void select_rows(LayerIndex layer) = 0;
  // query, key_value, window, compressed rows, selection -> heads (rotated back).
  virtual void attend(LayerIndex layer) = 0;
  // key_value -> window: keeps the newest rows for later batches.
  virtual void store_window(LayerIndex layer) = 0;
  // heads -> output.
  virtual void project_out(LayerIndex layer) = 0;

  // normed, token ids -> choice.
  virtual void route(LayerIndex layer) = 0;
  // normed, choice -> output: routed experts plus the shared one.
  virtual void experts(LayerIndex layer) = 0;

  // Keeps the streams of the newest rows per sequence for the MTP block.
  virtual void store_streams() = 0;
  // previous := the streams of position - 1 of each row in `step` whose position is not 0, in
  // order; taken from the `streams` of the same run in this batch, or from what store_streams()
  // kept.
  virtual void recall_streams(const StepRows& step) = 0;
  // previous := the streams that the MTP block itself left, for a deeper draft.
  virtual void reuse_streams() = 0;
  // token ids, previous -> streams: the MTP block's input.
  virtual void combine_mtp() = 0;

  // streams of the rows listed -> logits on the host, [row_indices, vocab_size].
  virtual void head(HeadKind kind, std::span<const std::uint32_t> row_indices, Rows logits) = 0;

  // The same, but the logits stay on the device and `sets` get what the draws depend on.  Only
  // where ExecutorInfo::candidate_rows_max allows that many rows.
  virtual void head_candidates(HeadKind kind,
                               std::span<const std::uint32_t> row_indices,
                               std::span<const sample::CandidateQuery> queries,
                               std::span<sample::CandidateSet> sets);
  // Row `index` of the last head_candidates(), whole: [vocab_size].
  virtual void read_logits(std::size_t index, std::span<float> logits);

  // Wider stages.
  virtual void project_attention(LayerIndex layer, bool compresses) {
    project_query(layer);
    project_key_value(layer);
    if (compresses) compress(layer);
  }
  virtual void reduce_and_normalize(LayerIndex layer, Sublayer sublayer) {
    reduce_streams(layer, sublayer);
    normalize(layer, sublayer);
  }
};

}  // namespace ds4
