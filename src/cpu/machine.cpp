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
#include "base/file.h"
#include "tensor/float16.h"

namespace ds4::cpu {

namespace {

// Most matmul jobs that one region holds besides the experts', and so the pointer lists in use.
constexpr std::size_t kPointerSlots = 6;
// Of a packed attention row (backend/row_codec.h).
constexpr std::size_t kCodesPerScale = 64;

std::uint64_t weight_bytes(const Weights& weights) {
  std::uint64_t total = 0;
  weights.for_each([&](const Weight& weight) { total += weight.bytes.size(); });
  return total;
}

// Compressed rows that are unpacked whole for a chunk of ratio 4 even when each of its rows
// selects; of longer pasts every row gathers its own.
constexpr std::size_t kUnpackedRowsMax = 4096;

// Unpacked rows kept at once: the window, and the largest of a selection, all rows of ratio 128,
// and the rows above.
std::size_t visible_rows_max(const ModelConfig& config, std::uint32_t context) {
  const std::size_t unpacked = std::min<std::size_t>(context / 4 + 1, kUnpackedRowsMax);
  return config.window +
         std::max({std::size_t{config.index_top_k}, std::size_t{context} / 128 + 1, unpacked});
}

// Distinct input rows of one region: the middle rows of all chosen experts, or all groups of heads.
std::size_t matmul_rows(const ModelConfig& config, std::uint32_t rows_max) {
  return std::max<std::size_t>(config.experts_used + 1, config.output_group_count) * rows_max;
}

// The most values that the input rows of one region have.
std::size_t matmul_values(const ModelConfig& config, std::uint32_t rows_max) {
  const std::size_t row_values = std::max(
      {Matmul::padded(config.width) + Matmul::padded(config.query_rank),
       config.output_group_count * Matmul::padded(config.heads_width() / config.output_group_count),
       Matmul::padded(std::size_t{config.output_group_count} * config.output_rank),
       (config.experts_used + std::size_t{1}) * Matmul::padded(config.expert_width)});
  return row_values * rows_max;
}

struct ScratchSizes {
  std::size_t visible_rows;  // values
  std::size_t index_rows;
};

ScratchSizes scratch_sizes(const ModelConfig& config, std::uint32_t context) {
  const std::size_t visible = visible_rows_max(config, context);
  return {visible * config.head_dim, kSelectRows * (context / 4 + std::size_t{1})};
}

// Jobs of the largest region: two matrices of every expert, or the groups of heads.
std::size_t jobs_max(const ModelConfig& config) {
  return 2 * (std::size_t{config.expert_count} + 1) + config.output_group_count;
}

// The lists of pointers to rows, of jobs, and of the rows of each expert.
std::uint64_t list_bytes(const ModelConfig& config, std::uint32_t rows_max) {
  return matmul_rows(config, rows_max) *
             (2 * kPointerSlots * sizeof(float*) + sizeof(std::uint32_t)) +
         jobs_max(config) * sizeof(MatmulJob) +
         (config.expert_count + std::size_t{1}) * sizeof(std::uint32_t);
}

std::uint64_t scratch_bytes(const ScratchSizes& sizes) {
  return sizes.visible_rows * sizeof(float) +
         sizes.index_rows * (sizeof(float) + sizeof(std::int32_t));
}

}  // namespace

CpuMachine::CpuMachine(const ModelConfig& config, const Weights& weights, const CpuOptions& options)
    : config_(config),
      weights_(weights),
      options_(options),
      layout_(config, options.codec, weights.mtp.has_value()),
      packed_row_{config.nope_dim(), config.rope_dim},
      pool_(options.thread_count, usable_memory_nodes()),
      kernels_(best_kernels()),
      matmul_(pool_,
              kernels_,
              matmul_rows(config, options.rows_max),
              matmul_values(config, options.rows_max)),
      a_(config, options.rows_max, weights.mtp.has_value()),
      window_frequencies_(rope_frequencies(config.window_rope, config.rope_dim)),
      compressed_frequencies_(rope_frequencies(config.compressed_rope, config.rope_dim)) {
  info_ = planned_cpu_info(weights, options);
  info_.device = fmt::format("{} threads, {}", pool_.thread_count(), kernels_.name);
  if (config.head_dim % 16 != 0 || config.index_dim % 16 != 0)
    throw Error(ErrorCode::kUnsupported, "head sizes must be multiples of 16");
  const std::size_t rows = matmul_rows(config, options.rows_max);
  input_pointers_.assign(kPointerSlots, std::vector<const float*>(rows));
  output_pointers_.assign(kPointerSlots, std::vector<float*>(rows));
  jobs_.reserve(jobs_max(config));
  expert_first_.resize(config.expert_count + std::size_t{1});
  expert_pairs_.resize(rows);
  if (options.warm_weights) warm_weights();
}

// Pages of the file are placed on the node of the thread that reads them first: node n reads the
// n-th part of every slab, which is what Matmul gives it later.
void CpuMachine::warm_weights() {
  std::vector<std::span<const std::byte>> parts;
  std::vector<std::size_t> first;
  const std::size_t nodes = pool_.node_count();
  for (std::size_t n = 0; n < nodes; ++n) {
    first.push_back(parts.size());
    weights_.for_each([&](const Weight& weight) {
      for (std::size_t slab = 0; slab < weight.slabs; ++slab) {
        const std::size_t begin = weight.rows * n / nodes;
        const std::size_t end = weight.rows * (n + 1) / nodes;
        if (begin == end) continue;
        parts.push_back(
            weight.bytes.subspan(slab * weight.slab_bytes() + begin * weight.row_bytes(),
                                 (end - begin) * weight.row_bytes()));
      }
    });
  }
  first.push_back(parts.size());
  pool_.run_by_node(first, [&](std::size_t i) { MappedFile::touch(parts[i]); });
}

void CpuMachine::open_sequence(SequenceId sequence, std::uint32_t context) {
  if (sequence.value() >= sequences_.size()) sequences_.resize(sequence.value() + 1);
  try {
    sequences_[sequence.value()] =
        std::make_unique<SequenceState>(layout_, config_, info_.has_mtp, context);
    const ScratchSizes sizes = scratch_sizes(config_, context);
    visible_rows_.resize(std::max(visible_rows_.size(), sizes.visible_rows));
    index_scores_.resize(std::max(index_scores_.size(), sizes.index_rows));
    index_order_.resize(std::max(index_order_.size(), sizes.index_rows));
    index_rows_max_ = index_order_.size() / kSelectRows;
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
  std::uint64_t lists = jobs_.capacity() * sizeof(MatmulJob) +
                        (expert_first_.size() + expert_pairs_.size()) * sizeof(std::uint32_t);
  for (const auto& pointers : input_pointers_)
    lists += pointers.size() * sizeof(pointers[0]);
  for (const auto& pointers : output_pointers_)
    lists += pointers.size() * sizeof(pointers[0]);
  const std::uint64_t scratch = a_.bytes() + matmul_.bytes() + lists +
                                visible_rows_.size() * sizeof(float) +
                                index_scores_.size() * (sizeof(float) + sizeof(std::int32_t));
  return {{"weights", weight_bytes(weights_), true}, {"state", states}, {"scratch", scratch}};
}

ExecutorInfo planned_cpu_info(const Weights& weights, const CpuOptions& options) {
  return {.backend = "cpu",
          .device = {},
          .rows_max = options.rows_max,
          .rewind_max = kRewindMax,
          .has_mtp = weights.mtp.has_value()};
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
                          Matmul::planned_bytes(matmul_rows(config, options.rows_max),
                                                matmul_values(config, options.rows_max)) +
                          list_bytes(config, options.rows_max) +
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
  kernels_.scale_weighted(out.data(), values.data(), inverse,
                          weight.empty() ? nullptr : weight.data(), values.size());
}

// The turns of every row are the same in all layers of a family.
void CpuMachine::begin(const StepRows& step) {
  step_ = step;
  const auto fill = [&](std::span<const float> frequencies, std::span<float> turns, Position p) {
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
      // An f32 product: see apply_rope().
      const float angle = static_cast<float>(p.value()) * frequencies[i];
      turns[2 * i] = std::cos(angle);
      turns[2 * i + 1] = std::sin(angle);
    }
  };
  pool_.run(row_count(), [&](std::size_t r) {
    const Position position = step_.rows[r].position;
    fill(window_frequencies_, row(a_.window_turns, r, config_.rope_dim), position);
    fill(compressed_frequencies_, row(a_.compressed_turns, r, config_.rope_dim), position);
  });
}

void CpuMachine::rotate(LayerIndex index,
                        std::size_t r,
                        std::span<float> tail,
                        RopeDirection direction) {
  const auto turns = row(config_.layer(index).ratio == 0 ? a_.window_turns : a_.compressed_turns, r,
                         config_.rope_dim);
  for (std::size_t i = 0; i < tail.size(); i += 2) {
    const float cosine = turns[i];
    const float sine = direction == RopeDirection::kForward ? turns[i + 1] : -turns[i + 1];
    const float a = tail[i];
    const float b = tail[i + 1];
    tail[i] = a * cosine - b * sine;
    tail[i + 1] = a * sine + b * cosine;
  }
}

void CpuMachine::load_row(std::span<const std::byte> stored, std::span<float> row) const {
  if (!packed()) {
    std::memcpy(row.data(), stored.data(), stored.size());
    return;
  }
  const PackedRowLayout& layout = packed_row_;
  const auto scale = [&](std::size_t at) {
    return e8m0_to_f32(static_cast<std::uint8_t>(stored[at]));
  };
  for (std::size_t first = 0; first < layout.nope_dim; first += kCodesPerScale)
    kernels_.unpack_e4m3(stored.data() + first,
                         scale(layout.scale_offset() + first / kCodesPerScale), row.data() + first,
                         std::min(kCodesPerScale, layout.nope_dim - first));
  kernels_.unpack_i16(stored.data() + layout.rope_offset(), scale(layout.rope_scale_offset()),
                      row.data() + layout.nope_dim, layout.rope_dim);
}

void CpuMachine::store_row(std::span<const float> row, std::span<std::byte> stored) const {
  if (packed()) {
    pack_attention_row(packed_row_, row, stored);
  } else {
    std::memcpy(stored.data(), row.data(), stored.size());
  }
}

}  // namespace ds4::cpu
