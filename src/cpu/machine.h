#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backend/machine.h"
#include "backend/rope.h"
#include "base/thread_pool.h"
#include "cpu/activations.h"
#include "cpu/cpu_executor.h"
#include "cpu/kernels.h"
#include "cpu/matmul.h"
#include "cpu/sequence_state.h"
#include "model/weights.h"

namespace ds4::cpu {

// Rows whose selections are made together.
inline constexpr std::size_t kSelectRows = 16;

// The model's steps on the CPU, in f32: the reference that other backends are tested against.
// Every row's result is one fixed chain of operations, whatever shares its batch and however many
// threads run.  The stages stand in streams.cpp, attention.cpp, compress.cpp and experts.cpp.
// Confined to one thread, which uses the pool.
class CpuMachine final : public Machine {
 public:
  CpuMachine(const ModelConfig& config, const Weights& weights, const CpuOptions& options);

  const ExecutorInfo& info() const override { return info_; }

  void open_sequence(SequenceId sequence, std::uint32_t context) override;
  void close_sequence(SequenceId sequence) override;
  void read_state(SequenceId sequence,
                  const StateSection& section,
                  std::span<std::byte> out) const override;
  void write_state(SequenceId sequence,
                   const StateSection& section,
                   std::span<const std::byte> bytes) override;
  void set_steering(const Steering& steering) override { steering_ = steering; }
  std::vector<MemoryItem> memory() const override;

  void begin(const StepRows& step) override;
  void embed() override;
  void load_streams(ConstRows hidden) override;
  void read_streams(Rows hidden) override;
  void reduce_streams(LayerIndex layer, Sublayer sublayer) override;
  void normalize(LayerIndex layer, Sublayer sublayer) override;
  void expand_streams(LayerIndex layer, Sublayer sublayer) override;
  void steer(LayerIndex layer, Sublayer sublayer) override;
  void project_query(LayerIndex layer) override;
  void project_key_value(LayerIndex layer) override;
  void compress(LayerIndex layer) override;
  void select_rows(LayerIndex layer) override;
  void attend(LayerIndex layer) override;
  void store_window(LayerIndex layer) override;
  void project_out(LayerIndex layer) override;
  void route(LayerIndex layer) override;
  void experts(LayerIndex layer) override;
  void store_streams() override;
  void recall_streams(const StepRows& step) override;
  void reuse_streams() override;
  void combine_mtp() override;
  void head(HeadKind kind, std::span<const std::uint32_t> row_indices, Rows logits) override;
  void project_attention(LayerIndex layer, bool compresses) override;
  void reduce_and_normalize(LayerIndex layer, Sublayer sublayer) override;

 private:
  void warm_weights();
  std::size_t row_count() const { return step_.rows.size(); }
  const LayerWeights& layer(LayerIndex index) const { return weights_.layer(index, config_); }
  SequenceState& state(SequenceId sequence) { return *sequences_[sequence.value()]; }
  bool packed() const { return options_.codec == RowCodec::kPacked; }

  // Row r of a buffer.
  template <class T>
  std::span<T> row(std::vector<T>& buffer, std::size_t r, std::size_t width) {
    return std::span(buffer).subspan(r * width, width);
  }
  // Pointers to the rows of a buffer, for matmul jobs; valid until the next call with that slot.
  std::span<const float* const> inputs(std::size_t slot,
                                       const std::vector<float>& buffer,
                                       std::size_t width,
                                       std::size_t offset = 0);
  std::span<float* const> outputs(std::size_t slot,
                                  std::vector<float>& buffer,
                                  std::size_t width,
                                  std::size_t offset = 0);
  // outputs := weight * inputs for all rows.
  void multiply(const Weight& weight,
                const std::vector<float>& in,
                std::size_t in_width,
                std::vector<float>& out,
                std::size_t out_width);

  // weight * values / rms(values); an empty weight means all ones.
  void rms_normalize(std::span<const float> values,
                     std::span<const float> weight,
                     std::span<float> out) const;
  // Turns the pairs of `tail` by the position of row r, forward or back.
  void rotate(LayerIndex layer, std::size_t r, std::span<float> tail, RopeDirection direction);

  const HcWeights& mixer(LayerIndex layer, Sublayer sublayer) const;
  void mix_streams(LayerIndex layer, Sublayer sublayer);
  void reduce_row(const HcWeights& hc, std::size_t r);
  void normalize_row(LayerIndex layer, Sublayer sublayer, std::size_t r);
  void split_mixes(const HcWeights& hc,
                   std::span<const float> mixes,
                   std::span<float> pre,
                   std::span<float> mix) const;
  float streams_rms(std::size_t r);

  void load_row(std::span<const std::byte> stored, std::span<float> row) const;
  void store_row(std::span<const float> row, std::span<std::byte> stored) const;

  // One of a layer's compressors, with where its tokens and rows go.  A token contributes a
  // projection and a gate score, each `width` values: for ratio 4 the first half of them belongs to
  // the row after its own, the second half to its own row.
  struct Compressor {
    const CompressorWeights& weights;
    LayerIndex layer;
    std::uint32_t ratio;
    std::size_t size;           // of a pooled row
    std::size_t width;          // of a token's projection
    std::vector<float>& fresh;  // [rows, 2, width] of this batch
    StatePart frontier;
    StatePart rows;
    bool index_keys;

    bool overlaps() const { return width != size; }
  };
  Compressor row_compressor(LayerIndex layer);
  Compressor key_compressor(LayerIndex layer);
  void add_compressor_jobs(LayerIndex layer);
  void finish_frontier(LayerIndex layer, std::size_t r);
  void emit_all(LayerIndex layer);
  void emit_rows(const Compressor& compressor, const RowRun& run);
  void pool_window(const Compressor& compressor,
                   const RowRun& run,
                   std::uint32_t window,
                   std::span<float> pooled);
  void finish_row(const Compressor& compressor,
                  std::uint32_t window,
                  std::span<float> pooled,
                  RowStore& store);

  void add_query_job(LayerIndex layer);
  void normalize_query_rank(LayerIndex layer, std::size_t r);
  void expand_query(LayerIndex layer);
  void add_key_value_job(LayerIndex layer);
  void finish_key_value(LayerIndex layer, std::size_t r);

  void project_index_queries(LayerIndex layer);
  void load_key(std::span<const std::byte> stored, std::span<float> key) const;
  std::uint32_t compressed_rows_at(LayerIndex layer, std::size_t r) const;
  void score_index_keys(LayerIndex layer,
                        const RowRun& run,
                        std::size_t first_row,
                        std::size_t count);
  void select_for_row(LayerIndex layer, std::size_t r, std::size_t slot);
  // Where the rows that a run sees lie: of its window those before the run, unpacked, and the
  // compressed ones, unpacked either all or for one row at a time.
  struct VisibleRows {
    std::uint32_t window_count = 0;
    bool all_compressed = false;
  };
  VisibleRows unpack_visible(LayerIndex layer, const RowRun& run);
  void unpack_rows(const RowStore& store,
                   const std::int32_t* numbers,
                   std::uint32_t first,
                   std::uint32_t count,
                   std::size_t target);
  void attend_rows(LayerIndex layer,
                   const RowRun& run,
                   const VisibleRows& seen,
                   std::uint32_t first,
                   std::uint32_t count);
  void attend_heads(LayerIndex layer,
                    const RowRun& run,
                    const VisibleRows& seen,
                    std::size_t r,
                    std::size_t first_head,
                    std::size_t head_count);

  void choose_experts(const LayerWeights& w, const LayerPlan& plan, std::size_t r);
  void group_by_expert();
  void run_expert_matrices(const LayerWeights& w);

  const ModelConfig config_;
  const Weights& weights_;
  const CpuOptions options_;
  const StateLayout layout_;
  const PackedRowLayout packed_row_;
  ExecutorInfo info_;
  ThreadPool pool_;
  const Kernels& kernels_;
  Matmul matmul_;
  Activations a_;
  StepRows step_;
  Steering steering_;
  std::vector<float> window_frequencies_;
  std::vector<float> compressed_frequencies_;
  std::vector<std::unique_ptr<SequenceState>> sequences_;

  // Scratch, grown when a sequence is opened, never in a step.
  std::vector<float> visible_rows_;        // [visible, head_dim] of the run or row being attended
  std::vector<float> index_scores_;        // [kSelectRows, index_rows_max_]
  std::vector<std::int32_t> index_order_;  // likewise
  std::size_t index_rows_max_ = 0;         // compressed rows of the largest context
  std::vector<std::vector<const float*>> input_pointers_;
  std::vector<std::vector<float*>> output_pointers_;
  std::vector<MatmulJob> jobs_;
  std::vector<std::uint32_t> expert_first_;  // [expert_count + 1] into expert_pairs_
  std::vector<std::uint32_t> expert_pairs_;  // row * (experts_used + 1) + slot, grouped by expert
  std::size_t visible_max_ = 0;
};

}  // namespace ds4::cpu
