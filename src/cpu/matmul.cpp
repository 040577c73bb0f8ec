#include "cpu/matmul.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/error.h"

namespace ds4::cpu {

namespace {

// Outputs per task are a multiple of what a kernel takes at once, few enough to balance and enough
// to outweigh handing them out.
constexpr std::size_t kQuantizedOutputs = 32;
constexpr std::size_t kFloatOutputs = 4;
constexpr std::size_t kOutputsMax = 256;
constexpr std::size_t kTasksPerThread = 16;
// Jobs that usually read one distinct row: gate and up of an expert.
constexpr std::size_t kJobsPerRow = 2;

std::size_t task_outputs(std::size_t total, std::size_t threads, std::size_t unit) {
  const std::size_t even = total / (threads * kTasksPerThread);
  return std::clamp(even / unit * unit, unit, kOutputsMax);
}

// Slots of the table of distinct rows: at most a quarter is taken.
std::size_t table_slots(std::size_t rows_max) {
  return std::bit_ceil(4 * rows_max);
}

// The table slot where a row is looked for first.  Rows lie at multiples of their width, so the low
// bits of addresses say little.
std::size_t home_slot(const float* input, std::size_t mask) {
  return (reinterpret_cast<std::uintptr_t>(input) >> 6) * 0x9E3779B97F4A7C15ULL >> 20 & mask;
}

}  // namespace

Matmul::Matmul(ThreadPool& pool,
               const Kernels& kernels,
               std::size_t rows_max,
               std::size_t values_max)
    : pool_(pool),
      kernels_(kernels) {
  table_.resize(table_slots(rows_max));
  distinct_.reserve(rows_max);
  quantized_.resize(rows_max);
  job_rows_.reserve(kJobsPerRow * rows_max);
  codes_.resize(values_max);
  scales_.resize(values_max / kActivationBlock);
  sums_.resize(values_max / kSumBlock);
}

std::uint64_t Matmul::planned_bytes(std::size_t rows_max, std::size_t values_max) {
  return std::uint64_t{table_slots(rows_max) + rows_max} * sizeof(Input) +
         std::uint64_t{rows_max} * (sizeof(QuantizedRow) + kJobsPerRow * sizeof(void*)) +
         std::uint64_t{values_max} * sizeof(std::int16_t) +
         std::uint64_t{values_max / kActivationBlock} * sizeof(float) +
         std::uint64_t{values_max / kSumBlock} * sizeof(float);
}

const QuantizedRow* Matmul::find_or_add(const float* input, std::size_t columns) {
  const std::size_t mask = table_.size() - 1;
  std::size_t slot = home_slot(input, mask);
  while (table_[slot].values != nullptr && table_[slot].values != input)
    slot = (slot + 1) & mask;
  if (table_[slot].values == nullptr) {
    DS4_CHECK(distinct_.size() < quantized_.size() &&
              values_used_ + padded(columns) <= codes_.size());
    table_[slot] = {input, columns, distinct_.size(), values_used_};
    quantized_[distinct_.size()] = {codes_.data() + values_used_,
                                    scales_.data() + values_used_ / kActivationBlock,
                                    sums_.data() + values_used_ / kSumBlock};
    distinct_.push_back(table_[slot]);
    values_used_ += padded(columns);
  }
  DS4_DCHECK(table_[slot].columns == columns);
  return &quantized_[table_[slot].row];
}

// Each distinct input row is rounded once, however many jobs read it.
void Matmul::quantize_inputs(std::span<const MatmulJob> jobs) {
  const std::size_t mask = table_.size() - 1;
  for (const Input& input : distinct_) {
    // Clears the runs that hold the last region's rows without touching the rest of the table.
    for (std::size_t slot = home_slot(input.values, mask); table_[slot].values != nullptr;
         slot = (slot + 1) & mask)
      table_[slot].values = nullptr;
  }
  values_used_ = 0;
  distinct_.clear();
  job_rows_.clear();
  job_first_row_.clear();
  for (const MatmulJob& job : jobs) {
    job_first_row_.push_back(job_rows_.size());
    if (!is_quantized(job.weight->type)) continue;
    for (const float* input : job.inputs)
      job_rows_.push_back(find_or_add(input, job.weight->columns));
  }
  pool_.run(distinct_.size(), [this](std::size_t i) {
    const Input& input = distinct_[i];
    kernels_.quantize_row(input.values, input.columns, codes_.data() + input.first,
                          scales_.data() + input.first / kActivationBlock,
                          sums_.data() + input.first / kSumBlock);
  });
}

// Node n gets the n-th part of every matrix's rows, so that its threads meet the same weights in
// every step, whichever experts are chosen: pages of the file are placed where they are first read.
void Matmul::split_jobs(std::span<const MatmulJob> jobs) {
  blocks_.clear();
  std::size_t total = 0;
  for (const MatmulJob& job : jobs)
    total += job.output_count;
  const std::size_t nodes = pool_.node_count();
  for (std::size_t node = 0; node < nodes; ++node) {
    first_block_[node] = blocks_.size();
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      const MatmulJob& job = jobs[j];
      DS4_DCHECK(job.inputs.size() == job.outputs.size());
      if (job.inputs.empty()) continue;
      const std::size_t unit = is_quantized(job.weight->type) ? kQuantizedOutputs : kFloatOutputs;
      const std::size_t count = task_outputs(total, pool_.thread_count(), unit);
      for (std::size_t first = 0; first < job.output_count; first += count) {
        if ((job.first_output + first) * nodes / job.weight->rows != node) continue;
        blocks_.push_back({&job, j, first, std::min(count, job.output_count - first)});
      }
    }
  }
  first_block_[nodes] = blocks_.size();
}

void Matmul::run(std::span<const MatmulJob> jobs) {
  quantize_inputs(jobs);
  split_jobs(jobs);
  pool_.run_by_node(std::span(first_block_).first(pool_.node_count() + 1),
                    [this](std::size_t i) { run_block(blocks_[i]); });
}

void Matmul::run_block(const Block& block) const {
  const MatmulJob& job = *block.job;
  const Weight& weight = *job.weight;
  const std::byte* weights = weight.row(job.slab, job.first_output + block.first).data();
  // The kernel writes from each output pointer's start, so shifted pointers go in slices.
  constexpr std::size_t kSlice = 1024;
  std::array<float*, kSlice> outputs;  // NOLINT: filled before use
  for (std::size_t r = 0; r < job.inputs.size(); r += kSlice) {
    const std::size_t count = std::min(kSlice, job.inputs.size() - r);
    for (std::size_t i = 0; i < count; ++i)
      outputs[i] = job.outputs[r + i] + block.first;
    if (is_quantized(weight.type)) {
      kernels_.multiply_quantized({.type = weight.type,
                                   .weights = weights,
                                   .row_bytes = weight.row_bytes(),
                                   .columns = weight.columns,
                                   .output_count = block.count,
                                   .rows = job_rows_.data() + job_first_row_[block.job_index] + r,
                                   .row_count = count,
                                   .outputs = outputs.data()});
    } else {
      kernels_.multiply_float({.type = weight.type,
                               .weights = weights,
                               .row_bytes = weight.row_bytes(),
                               .columns = weight.columns,
                               .output_count = block.count,
                               .rows = job.inputs.data() + r,
                               .row_count = count,
                               .outputs = outputs.data()});
    }
  }
}

}  // namespace ds4::cpu
