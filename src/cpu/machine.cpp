#include "cpu/machine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>

#include <fmt/format.h>

#include "backend/rope.h"
#include "backend/row_codec.h"
#include "base/error.h"

namespace ds4::cpu {

namespace {

// Most matmul jobs that one region holds besides the experts', and so the pointer lists in use.
constexpr std::size_t kPointerSlots = 4;

std::uint64_t weight_bytes(const Weights& weights) {
  std::uint64_t total = 0;
  weights.for_each([&](const Weight& weight) { total += weight.bytes.size(); });
  return total;
}

// Rows that one query can see: the window, and the larger of a selection and all rows of ratio 128.
std::size_t visible_rows_max(const ModelConfig& config, std::uint32_t context) {
  return config.window + std::max<std::size_t>(config.index_top_k, context / 128 + 1);
}

// Distinct input rows of one region: the middle rows of all chosen experts are the most.
std::size_t matmul_rows(const ModelConfig& config, std::uint32_t rows_max) {
  return (config.experts_used + std::size_t{1}) * rows_max;
}

// The most values that the input rows of one region have.
std::size_t matmul_values(const ModelConfig& config, std::uint32_t rows_max) {
  const std::size_t row_values =
      std::max({Matmul::padded(config.width) + Matmul::padded(config.query_rank),
                Matmul::padded(config.heads_width() / config.output_group_count),
                Matmul::padded(std::size_t{config.output_group_count} * config.output_rank),
                (config.experts_used + std::size_t{1}) * Matmul::padded(config.expert_width)});
  return row_values * rows_max;
}

struct ScratchSizes {
  std::size_t visible_rows;
  std::size_t attention_scores;
  std::size_t index_rows;
};

ScratchSizes scratch_sizes(const ModelConfig& config, std::uint32_t context) {
  const std::size_t visible = visible_rows_max(config, context);
  return {visible * config.head_dim, visible * config.head_count, context / 4 + 1};
}

std::uint64_t scratch_bytes(const ScratchSizes& sizes) {
  return (sizes.visible_rows + sizes.attention_scores) * sizeof(float) +
         sizes.index_rows * (sizeof(float) + sizeof(std::int32_t));
}

}  // namespace

CpuMachine::CpuMachine(const ModelConfig& config, const Weights& weights, const CpuOptions& options)
    : config_(config),
      weights_(weights),
      options_(options),
      layout_(config, options.codec, weights.mtp.has_value()),
      packed_row_{config.nope_dim(), config.rope_dim},
      pool_(options.thread_count),
      kernels_(best_kernels()),
      matmul_(pool_,
              kernels_,
              matmul_rows(config, options.rows_max),
              matmul_values(config, options.rows_max)),
      a_(config, options.rows_max, weights.mtp.has_value()),
      window_frequencies_(rope_frequencies(config.window_rope, config.rope_dim)),
      compressed_frequencies_(rope_frequencies(config.compressed_rope, config.rope_dim)) {
  info_ = {.backend = "cpu",
           .device = fmt::format("{} threads, {}", pool_.thread_count(), kernels_.name),
           .rows_max = options.rows_max,
           .rewind_max = kRewindMax,
           .has_mtp = weights.mtp.has_value()};
  const std::size_t slots = config.experts_used + std::size_t{1};
  input_pointers_.assign(kPointerSlots, std::vector<const float*>(options.rows_max * slots));
  output_pointers_.assign(kPointerSlots, std::vector<float*>(options.rows_max * slots));
  jobs_.reserve(2 * (std::size_t{config.expert_count} + 1) + config.output_group_count);
  expert_first_.resize(config.expert_count + std::size_t{1});
  expert_pairs_.resize(options.rows_max * slots);
}

void CpuMachine::open_sequence(SequenceId sequence, std::uint32_t context) {
  if (sequence.value() >= sequences_.size()) sequences_.resize(sequence.value() + 1);
  try {
    sequences_[sequence.value()] =
        std::make_unique<SequenceState>(layout_, config_, info_.has_mtp, context);
    const ScratchSizes sizes = scratch_sizes(config_, context);
    visible_rows_.resize(std::max(visible_rows_.size(), sizes.visible_rows));
    attention_scores_.resize(std::max(attention_scores_.size(), sizes.attention_scores));
    index_scores_.resize(std::max(index_scores_.size(), sizes.index_rows));
    index_order_.resize(std::max(index_order_.size(), sizes.index_rows));
    visible_max_ = std::max(visible_max_, visible_rows_max(config_, context));
  } catch (const std::bad_alloc&) {
    sequences_[sequence.value()].reset();
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("no memory for the state of a {} token context; choose a smaller one",
                            context));
  }
}

void CpuMachine::close_sequence(SequenceId sequence) {
  sequences_[sequence.value()].reset();
}

void CpuMachine::read_state(SequenceId sequence,
                            const StateSection& section,
                            std::span<std::byte> out) const {
  const RowStore& store =
      std::as_const(*sequences_[sequence.value()]).part(section.part, section.layer);
  for (std::uint32_t i = 0; i < section.count; ++i) {
    const auto row = store.row(section.first + i);
    std::memcpy(out.data() + i * row.size(), row.data(), row.size());
  }
}

void CpuMachine::write_state(SequenceId sequence,
                             const StateSection& section,
                             std::span<const std::byte> bytes) {
  RowStore& store = state(sequence).part(section.part, section.layer);
  for (std::uint32_t i = 0; i < section.count; ++i) {
    const auto row = store.row(section.first + i);
    std::memcpy(row.data(), bytes.data() + i * row.size(), row.size());
  }
}

std::vector<MemoryItem> CpuMachine::memory() const {
  std::uint64_t states = 0;
  for (const auto& sequence : sequences_)
    if (sequence) states += sequence->bytes();
  const std::uint64_t scratch = a_.bytes() + matmul_.bytes() +
                                (visible_rows_.size() + attention_scores_.size()) * sizeof(float) +
                                index_scores_.size() * (sizeof(float) + sizeof(std::int32_t));
  return {{"weights", weight_bytes(weights_), true}, {"state", states}, {"scratch", scratch}};
}

std::vector<MemoryItem> plan_cpu_memory(const ModelConfig& config,
                                        const Weights& weights,
                                        const CpuOptions& options,
                                        std::uint32_t context) {
  const bool has_mtp = weights.mtp.has_value();
  const StateLayout layout(config, options.codec, has_mtp);
  return {{"weights", weight_bytes(weights), true},
          {"state", SequenceState::planned_bytes(layout, config, has_mtp, context)},
          {"scratch", Activations::planned_bytes(config, options.rows_max, has_mtp) +
                          Matmul::planned_bytes(matmul_values(config, options.rows_max)) +
                          scratch_bytes(scratch_sizes(config, context))}};
}

std::span<const float* const> CpuMachine::inputs(std::size_t slot,
                                                 const std::vector<float>& buffer,
                                                 std::size_t width,
                                                 std::size_t offset) {
  auto& pointers = input_pointers_[slot];
  for (std::size_t r = 0; r < row_count(); ++r)
    pointers[r] = buffer.data() + r * width + offset;
  return std::span(pointers).first(row_count());
}

std::span<float* const> CpuMachine::outputs(std::size_t slot,
                                            std::vector<float>& buffer,
                                            std::size_t width,
                                            std::size_t offset) {
  auto& pointers = output_pointers_[slot];
  for (std::size_t r = 0; r < row_count(); ++r)
    pointers[r] = buffer.data() + r * width + offset;
  return std::span(pointers).first(row_count());
}

void CpuMachine::multiply(const Weight& weight,
                          const std::vector<float>& in,
                          std::size_t in_width,
                          std::vector<float>& out,
                          std::size_t out_width) {
  const MatmulJob job{.weight = &weight,
                      .output_count = weight.rows,
                      .inputs = inputs(0, in, in_width),
                      .outputs = outputs(0, out, out_width)};
  matmul_.run({&job, 1});
}

void CpuMachine::rms_normalize(std::span<const float> values,
                               std::span<const float> weight,
                               std::span<float> out) const {
  const float mean_square =
      kernels_.dot(values.data(), values.data(), values.size()) / static_cast<float>(values.size());
  const float inverse = 1.0F / std::sqrt(mean_square + config_.norm_epsilon);
  for (std::size_t i = 0; i < values.size(); ++i)
    out[i] = values[i] * inverse * (weight.empty() ? 1.0F : weight[i]);
}

void CpuMachine::load_row(std::span<const std::byte> stored, std::span<float> row) const {
  if (packed()) {
    unpack_attention_row(packed_row_, stored, row);
  } else {
    std::memcpy(row.data(), stored.data(), stored.size());
  }
}

void CpuMachine::store_row(std::span<const float> row, std::span<std::byte> stored) const {
  if (packed()) {
    pack_attention_row(packed_row_, row, stored);
  } else {
    std::memcpy(stored.data(), row.data(), stored.size());
  }
}

}  // namespace ds4::cpu
