#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/machine.h"
#include "cuda/activations.h"
#include "cuda/ahead.h"
#include "cuda/cuda_executor.h"
#include "cuda/device.h"
#include "cuda/prepare.h"
#include "cuda/sample.h"
#include "cuda/select.h"
#include "cuda/sequence_state.h"
#include "cuda/weights.h"

namespace ds4::cuda {

struct MatvecJobs;

// The model's steps on a card.  Stages put launches on one stream and return; read_streams(),
// head() and state transfers wait.  Everything that changes from step to step lies in device
// memory, so a pass over few rows is recorded once per shape and replayed.
//
// A row goes through matrix-vector kernels; up to kIntegerRowsMax rows through kernels that read a
// weight once for all of them and add in the same order, so a row's result does not depend on the
// others.  More rows go through tensor-core tiles with f16 inputs: their results do not depend on
// the other rows either, but differ from the former by rounding.  Plain matrices of many outputs
// take the matrix-vector kernels up to kMatvecRowsMax, and then tiles.  The stages stand in
// machine.cpp, attention_stages.cpp and ffn_stages.cpp. Confined to one thread.
class CudaMachine final : public Machine {
 public:
  CudaMachine(const ModelConfig& config, const Weights& weights, const CudaOptions& options);
  CudaMachine(const CudaMachine&) = delete;
  CudaMachine& operator=(const CudaMachine&) = delete;
  ~CudaMachine() override;

  const ExecutorInfo& info() const override { return info_; }

  void open_sequence(SequenceId sequence, std::uint32_t context) override;
  void close_sequence(SequenceId sequence) override;
  void read_state(SequenceId sequence,
                  const StateSection& section,
                  std::span<std::byte> out) const override;
  void write_state(SequenceId sequence,
                   const StateSection& section,
                   std::span<const std::byte> bytes) override;
  void set_steering(const Steering& steering) override;
  std::vector<MemoryItem> memory() const override;
  bool begin_pass(bool recordable) override;
  void end_pass() override;

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
  void project_attention(LayerIndex layer, bool compresses) override;
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
  void head_candidates(HeadKind kind,
                       std::span<const std::uint32_t> row_indices,
                       std::span<const sample::CandidateQuery> queries,
                       std::span<sample::CandidateSet> sets) override;
  void read_logits(std::size_t index, std::span<float> logits) override;

 private:
  // Which projections a call makes.
  struct Parts {
    bool query = false;
    bool key_value = false;
    bool compress = false;
    bool index_query = false;
  };

  std::uint32_t row_count() const { return step_.count; }
  bool few() const;
  // Whether a product of `rows` rows is run_rows_product()'s.
  static bool by_rows_product(const Matrix& w, std::size_t rows);
  const DeviceLayer& layer(LayerIndex index) const;
  const float* frequencies(LayerIndex index) const;
  bool selects(LayerIndex index) const;
  bool attends_raw_queries() const;
  void add_states(SequenceId sequence);
  void grow_scores(std::uint32_t context);
  // Host bytes to the device without waiting: through page-locked memory that is reused.
  void upload_small(void* device, const void* host, std::size_t bytes);
  // Fetches weights that the step will need soon, in decode: many rows leave the memory no idle
  // time.
  void fetch_ahead(std::initializer_list<const Matrix*> matrices);
  void fetch_layer_ahead(LayerIndex index);
  // Applies what expand_streams() put off.
  void settle_streams();

  // out[r] = w * x[r]; plain matrices keep f32's accuracy.
  struct Product {
    const Matrix& w;
    const float* x;
    std::uint32_t x_stride;
    std::byte* integers;  // x again, of up to kIntegerRowsMax rows, or null
    float* out;
    std::uint32_t out_stride;
    std::uint32_t rows;
  };
  void multiply(const char* stage, const Product& product);
  void multiply_rounded(const char* stage,
                        const Matrix& w,
                        std::uint32_t x_stride,
                        float* out,
                        std::uint32_t out_stride,
                        std::uint32_t rows);
  // x to f16 in a_.rounded, for multiply_rounded().
  void round(const float* x, std::uint32_t columns, std::uint32_t rows);

  void project(LayerIndex index, const Parts& parts);
  void project_from_normed(const DeviceLayer& w, const Parts& parts);
  void project_from_rank(const DeviceLayer& w, const Parts& parts);
  PrepareJob prepare_job(LayerIndex index, const Parts& parts) const;
  void experts_of_many(const DeviceLayer& w, float limit);
  // Logits of up to kLogitRows rows into a_.logits.
  void make_logits(const DeviceHead& head, std::span<const std::uint32_t> row_indices);

  struct PassKey {
    std::uint32_t rows;
    bool selects;
    bool direct;
    auto operator<=>(const PassKey&) const = default;
  };

  const ModelConfig config_;
  const CudaOptions options_;
  DeviceInfo device_;
  ExecutorInfo info_;
  mutable Stream stream_;
  Ahead ahead_;
  DeviceWeights weights_;
  std::uint32_t first_layer_;
  bool has_mtp_;
  Activations a_;
  DeviceBuffer frequencies_;  // [2, kRopeDim / 2]: window layers, compressed layers
  DeviceBuffer states_;       // [kSequencesMax, layers] LayerState
  DeviceBuffer scores_;       // the indexer's
  DeviceBuffer directions_;   // steering
  Steering steering_;
  PinnedBuffer small_;
  std::size_t small_used_ = 0;
  PinnedBuffer host_logits_;
  SampleBuffers sample_;
  std::vector<std::unique_ptr<SequenceState>> sequences_;
  std::vector<StepRow> host_rows_;
  std::vector<float*> host_pointers_;

  Step step_;
  std::uint32_t visible_max_ = 0;     // largest position of the step, plus 1
  bool direct_ = false;               // rows enter the rings at once
  bool pending_expand_ = false;       // `output` is still to be added to the streams
  bool index_queries_ready_ = false;  // project_attention() made them for the next select_rows()
  std::uint32_t context_max_ = 0;     // of the sequences that the scratch is sized for
  std::map<PassKey, Recording> recordings_;
  bool recording_ = false;
  PassKey recording_key_{};
};

}  // namespace ds4::cuda
