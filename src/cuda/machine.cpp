#include "cuda/machine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "backend/rope.h"
#include "base/error.h"
#include "cuda/matvec.h"
#include "cuda/rows_product.h"
#include "cuda/tile_product.h"

namespace ds4::cuda {

namespace {

static_assert(kDecodeRowsMax == kMatvecRowsMax);

constexpr std::uint32_t kSequencesMax = 256;
constexpr std::size_t kSmallBytes = std::size_t{1} << 20;
// Most bytes of indexer scores; longer contexts take their rows in portions.
constexpr std::size_t kScoreBytes = std::size_t{256} << 20;

std::uint32_t layer_total(const ModelConfig& config, bool has_mtp) {
  return config.layer_count + (has_mtp ? 1 : 0);
}

std::size_t score_bytes(const ModelConfig& config, std::uint32_t rows_max, std::uint32_t context) {
  const std::size_t row = (std::size_t{context} / 4 + 1) * sizeof(float);
  static_cast<void>(config);
  const std::size_t few = row * std::min(rows_max, kRecordRowsMax);
  return std::max(few, std::min(row * rows_max, kScoreBytes));
}

std::uint64_t table_bytes(const ModelConfig& config, bool has_mtp) {
  return std::uint64_t{kSequencesMax} * layer_total(config, has_mtp) * sizeof(LayerState) +
         kRopeDim * sizeof(float);
}

// The first dimension that the kernels are not built for, as text; empty when there is none.
std::string unsupported(const ModelConfig& c) {
  const auto fixed = [](std::string_view name, std::uint32_t found, std::uint32_t expected) {
    return found == expected
               ? std::string()
               : fmt::format("{} is {}, the kernels are built for {}", name, found, expected);
  };
  const auto limit = [](std::string_view name, std::uint32_t found, std::uint32_t most) {
    return found <= most ? std::string()
                         : fmt::format("{} is {}, the kernels take up to {}", name, found, most);
  };
  const auto multiple = [](std::string_view name, std::uint32_t found, std::uint32_t of) {
    return found % of == 0
               ? std::string()
               : fmt::format("{} is {}, the kernels need a multiple of {}", name, found, of);
  };
  for (const std::string& text :
       {fixed("stream_count", c.stream_count, kStreams), fixed("head_dim", c.head_dim, kHeadDim),
        fixed("rope_dim", c.rope_dim, kRopeDim), fixed("index_dim", c.index_dim, kIndexDim),
        limit("index_head_count", c.index_head_count, kIndexHeadsMax),
        limit("experts_used", c.experts_used, kExpertsUsedMax),
        limit("expert_count", c.expert_count, kExpertsMax), multiple("width", c.width, 64),
        multiple("query_rank", c.query_rank, 64), multiple("expert_width", c.expert_width, 64),
        multiple("output_rank", c.output_rank, 64)}) {
    if (!text.empty()) return text;
  }
  return {};
}

DeviceInfo open_device_for(const ModelConfig& config, const CudaOptions& options) {
  if (const std::string text = unsupported(config); !text.empty())
    throw Error(ErrorCode::kUnsupported,
                fmt::format("backend 'cuda' cannot run this model: {}; use --backend cpu", text));
  if (options.codec != RowCodec::kPacked)
    throw Error(ErrorCode::kUnsupported,
                "backend 'cuda' stores packed rows alone; exact rows need --backend cpu");
  return open_device();
}

}  // namespace

CudaMachine::CudaMachine(const ModelConfig& config,
                         const Weights& weights,
                         const CudaOptions& options)
    : config_(config),
      options_(options),
      device_(open_device_for(config, options)),
      stream_(device_.programmatic_launch, options.stage_times),
      weights_(stream_, weights, options.thread_count, options.progress),
      first_layer_(weights.first_layer),
      has_mtp_(weights.mtp.has_value()),
      a_(config, options.rows_max, has_mtp_),
      frequencies_(kRopeDim * sizeof(float), "rotation frequencies"),
      states_(std::size_t{kSequencesMax} * layer_total(config, has_mtp_) * sizeof(LayerState),
              "the state table"),
      small_(kSmallBytes + options.rows_max * sizeof(StepRow)),
      host_logits_(std::size_t{kLogitRows} * config.vocab_size * sizeof(float)),
      sample_(kLogitRows),
      host_rows_(options.rows_max),
      host_pointers_(options.rows_max) {
  info_ = {.backend = "cuda",
           .device = device_.name,
           .rows_max = options.rows_max,
           .rewind_max = kRewindMax,
           .has_mtp = has_mtp_,
           .decode_rows_max = kDecodeRowsMax,
           .candidate_rows_max = kLogitRows};
  std::vector<float> turns = rope_frequencies(config.window_rope, kRopeDim);
  const std::vector<float> compressed = rope_frequencies(config.compressed_rope, kRopeDim);
  turns.insert(turns.end(), compressed.begin(), compressed.end());
  upload_small(frequencies_.data(), turns.data(), turns.size() * sizeof(float));
  stream_.clear(states_.data(), states_.bytes());
  grow_scores(options.context);
  step_.states = states_.as<LayerState>();
  step_.layers = layer_total(config, has_mtp_);
  step_.window = config.window;
  step_.window_capacity = config.window + 2 * kRewindMax;
  step_.rows = a_.rows;
  stream_.synchronize("preparing the card");
}

CudaMachine::~CudaMachine() = default;

bool CudaMachine::few() const {
  return row_count() <= kMatvecRowsMax;
}

bool CudaMachine::by_rows_product(const Matrix& w, std::size_t rows) {
  return rows > 1 && rows <= kIntegerRowsMax && is_quantised(w);
}

const DeviceLayer& CudaMachine::layer(LayerIndex index) const {
  return index == config_.mtp_index() ? *weights_.mtp_layer
                                      : weights_.layers[index.value() - first_layer_];
}

const float* CudaMachine::frequencies(LayerIndex index) const {
  return frequencies_.as<float>() + (config_.layer(index).ratio == 0 ? 0 : kRopeDim / 2);
}

void CudaMachine::grow_scores(std::uint32_t context) {
  if (context <= context_max_) return;
  const std::size_t bytes = score_bytes(config_, options_.rows_max, context);
  if (bytes > scores_.bytes()) {
    recordings_.clear();
    scores_ = DeviceBuffer();
    scores_ = DeviceBuffer(bytes, "the indexer's scores");
  }
  // Recorded passes hold the stride of the scores.
  recordings_.clear();
  context_max_ = context;
}

void CudaMachine::open_sequence(SequenceId sequence, std::uint32_t context) {
  const std::size_t slot = sequence.value();
  if (slot >= kSequencesMax) {
    throw Error(ErrorCode::kBusy,
                fmt::format("the CUDA backend holds {} sequences at most", kSequencesMax));
  }
  if (slot >= sequences_.size()) sequences_.resize(slot + 1);
  grow_scores(context);
  sequences_[slot] = std::make_unique<SequenceState>(stream_, config_, has_mtp_, context);
  const auto& layers = sequences_[slot]->layers();
  upload_small(states_.as<LayerState>() + slot * step_.layers, layers.data(),
               layers.size() * sizeof(LayerState));
}

void CudaMachine::close_sequence(SequenceId sequence) {
  stream_.synchronize("closing a sequence");
  sequences_[sequence.value()].reset();
}

void CudaMachine::read_state(SequenceId sequence,
                             const StateSection& section,
                             std::span<std::byte> out) const {
  sequences_[sequence.value()]->read(stream_, section, out);
}

void CudaMachine::write_state(SequenceId sequence,
                              const StateSection& section,
                              std::span<const std::byte> bytes) {
  sequences_[sequence.value()]->write(stream_, section, bytes);
}

void CudaMachine::set_steering(const Steering& steering) {
  // Scales are arguments of recorded launches.
  recordings_.clear();
  steering_ = steering;
  if (steering.directions.empty()) return;
  const std::size_t bytes = steering.directions.size() * sizeof(float);
  if (directions_.bytes() != bytes) directions_ = DeviceBuffer(bytes, "steering directions");
  stream_.upload(directions_.data(), steering_.directions.data(), bytes);
  stream_.synchronize("loading steering directions");
}

std::vector<MemoryItem> CudaMachine::memory() const {
  std::uint64_t states = 0;
  for (const auto& sequence : sequences_)
    if (sequence) states += sequence->bytes();
  return {{"weights", weights_.bytes()},
          {"state", states},
          {"scratch", a_.bytes() + scores_.bytes() + states_.bytes() + frequencies_.bytes() +
                          directions_.bytes() + sample_.bytes()}};
}

std::vector<MemoryItem> plan_cuda_memory(const ModelConfig& config,
                                         const Weights& weights,
                                         const CudaOptions& options,
                                         std::uint32_t context) {
  const bool has_mtp = weights.mtp.has_value();
  const std::uint32_t longest = std::max(context, options.context);
  return {{"weights", DeviceWeights::planned_bytes(weights)},
          {"state", SequenceState::planned_bytes(config, has_mtp, context)},
          {"scratch", Activations::planned_bytes(config, options.rows_max, has_mtp) +
                          score_bytes(config, options.rows_max, longest) +
                          table_bytes(config, has_mtp) + SampleBuffers::planned_bytes(kLogitRows)}};
}

void CudaMachine::upload_small(void* device, const void* host, std::size_t bytes) {
  DS4_CHECK(bytes <= small_.bytes() && !recording_);
  if (small_used_ + bytes > small_.bytes()) {
    stream_.synchronize("an earlier step");
    small_used_ = 0;
  }
  std::memcpy(small_.data() + small_used_, host, bytes);
  stream_.upload(device, small_.data() + small_used_, bytes);
  small_used_ += (bytes + 63) / 64 * 64;
  small_used_ = std::min(small_used_, small_.bytes());
}

void CudaMachine::begin(const StepRows& step) {
  DS4_CHECK(!recording_ && step.rows.size() <= options_.rows_max);
  std::uint32_t longest_run = 0;
  visible_max_ = 0;
  for (const RowRun& run : step.runs) {
    longest_run = std::max(longest_run, run.count);
    visible_max_ = std::max(visible_max_, run.first_position.value() + run.count);
    for (std::uint32_t i = 0; i < run.count; ++i) {
      const BatchRow& row = step.rows[run.first_row + i];
      host_rows_[run.first_row + i] = {.token = row.token.value(),
                                       .position = row.position.value(),
                                       .sequence = row.sequence.value(),
                                       .run_first_row = run.first_row,
                                       .run_first_position = run.first_position.value(),
                                       .run_count = run.count,
                                       .wants_logits = row.wants_logits ? 1U : 0U,
                                       .padding = 0};
    }
  }
  step_.count = static_cast<std::uint32_t>(step.rows.size());
  stream_.count_for(step_.count);
  direct_ = longest_run <= kDirectRowsMax;
  upload_small(a_.rows, host_rows_.data(), step.rows.size() * sizeof(StepRow));
}

bool CudaMachine::begin_pass(bool recordable) {
  if (!recordable || row_count() > kRecordRowsMax || !stream_.can_record()) return true;
  const PassKey key{row_count(), visible_max_ / 4 > config_.index_top_k, direct_};
  if (const auto found = recordings_.find(key); found != recordings_.end()) {
    // What a pass before left to be added belongs to its own streams.
    pending_expand_ = false;
    stream_.replay(found->second);
    return false;
  }
  ahead_.join(stream_);  // a recording may not wait for what came before it
  stream_.begin_recording();
  recording_ = true;
  recording_key_ = key;
  return true;
}

void CudaMachine::end_pass() {
  settle_streams();
  ahead_.join(stream_);
  if (!recording_) return;
  recording_ = false;
  Recording recording = stream_.end_recording();
  stream_.replay(recording);
  recordings_.insert_or_assign(recording_key_, std::move(recording));
}

void CudaMachine::fetch_ahead(std::initializer_list<const Matrix*> matrices) {
  if (row_count() <= kRecordRowsMax && stream_.can_record()) ahead_.fetch(stream_, matrices);
}

void CudaMachine::fetch_layer_ahead(LayerIndex index) {
  if (index == config_.mtp_index() || index.value() - first_layer_ >= weights_.layers.size()) {
    return fetch_ahead({&weights_.output});
  }
  const DeviceLayer& w = layer(index);
  const Matrix none;
  const DeviceCompressor* rows = w.compressor ? &*w.compressor : nullptr;
  const DeviceCompressor* keys = w.index_compressor ? &*w.index_compressor : nullptr;
  fetch_ahead({&w.query_a, &w.key_value, rows ? &rows->kv : &none, rows ? &rows->gate : &none,
               keys ? &keys->kv : &none, keys ? &keys->gate : &none, &w.query_b});
}

void CudaMachine::multiply(const char* stage, const Product& p) {
  if (p.integers != nullptr && by_rows_product(p.w, p.rows)) {
    return run_rows_product(stream_, device_, stage,
                            {.w = p.w,
                             .x = p.integers,
                             .rows = p.rows,
                             .parts = a_.part_products,
                             .out = p.out,
                             .out_stride = p.out_stride,
                             .grid = weights_.grid});
  }
  if (p.rows <= kMatvecRowsMax || (p.rows <= kNarrowRowsMax && p.w.rows <= kNarrowOutputsMax)) {
    MatvecJobs jobs;
    jobs.rows = p.rows;
    jobs.grid = weights_.grid;
    jobs.add(p.w, p.x, p.x_stride, p.out, p.out_stride).integers = p.integers;
    return run_matvec(stream_, device_, stage, jobs);
  }
  round_activations(stream_, p.x, p.x_stride, p.rows, p.w.columns, a_.rounded, a_.rounded_rest);
  multiply_rounded(stage, p.w, p.w.columns, p.out, p.out_stride, p.rows);
}

void CudaMachine::round(const float* x, std::uint32_t columns, std::uint32_t rows) {
  round_activations(stream_, x, columns, rows, columns, a_.rounded, a_.rounded_rest);
}

void CudaMachine::multiply_rounded(const char* stage,
                                   const Matrix& w,
                                   std::uint32_t x_stride,
                                   float* out,
                                   std::uint32_t out_stride,
                                   std::uint32_t rows) {
  const bool plain = w.scales_bytes == 0;
  run_tile_product(stream_, stage,
                   {.w = w,
                    .x = a_.rounded,
                    .x_rest = plain ? a_.rounded_rest : nullptr,
                    .x_stride = x_stride,
                    .out = out,
                    .out_stride = out_stride,
                    .rows = rows,
                    .grid = weights_.grid});
}

}  // namespace ds4::cuda
