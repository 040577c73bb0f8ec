#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "model/weights.h"

namespace ds4::cpu {

// One matrix product: outputs[r][o] = sum over i of weight[slab][o][i] * inputs[r][i], for every
// row r and every o in [first_output, first_output + output_count).  Rows are given by pointer, so
// that they may be gathered; outputs[r][0] is the value of first_output.
struct MatmulJob {
  const Weight* weight = nullptr;
  std::size_t slab = 0;
  std::size_t first_output = 0;
  std::size_t output_count = 0;
  std::span<const float* const> inputs;  // [rows] of weight->columns values
  std::span<float* const> outputs;       // [rows] of output_count values
};

// Runs matrix products over the thread pool.  Each output is one dot product in a fixed order: it
// depends neither on the number of threads nor on the other rows.  Rows that meet quantised weights
// are rounded to 16-bit integers first (see QuantizedRow); F32, F16 and BF16 weights meet f32 rows.
class Matmul {
 public:
  // Reserves for regions with at most `rows_max` distinct input rows, of `values_max` values in all
  // when each row counts as a multiple of kActivationBlock.
  Matmul(ThreadPool& pool, const Kernels& kernels, std::size_t rows_max, std::size_t values_max);

  // Bytes reserved; equals planned_bytes() of the same arguments.
  std::uint64_t bytes() const { return planned_bytes(quantized_.size(), codes_.size()); }
  static std::uint64_t planned_bytes(std::size_t rows_max, std::size_t values_max);
  // What one row of `columns` values counts.
  static constexpr std::size_t padded(std::size_t columns) {
    return (columns + kActivationBlock - 1) / kActivationBlock * kActivationBlock;
  }

  // Runs all jobs as one parallel region.  Jobs must not write the same output.
  void run(std::span<const MatmulJob> jobs);

 private:
  struct Block {
    const MatmulJob* job;
    std::size_t job_index;
    std::size_t first;  // output within the job
    std::size_t count;
  };

  void quantize_inputs(std::span<const MatmulJob> jobs);
  const QuantizedRow* find_or_add(const float* input, std::size_t columns);
  void split_jobs(std::span<const MatmulJob> jobs);
  void run_block(const Block& block) const;

  // An input row of the current region.
  struct Input {
    const float* values = nullptr;  // null: a free slot of the table
    std::size_t columns = 0;
    std::size_t row = 0;    // into quantized_
    std::size_t first = 0;  // into codes_
  };

  ThreadPool& pool_;
  const Kernels& kernels_;
  // Scratch of run(); grows to the largest region once.
  std::vector<Block> blocks_;  // by node
  std::array<std::size_t, ThreadPool::kNodesMax + 1> first_block_{};
  std::vector<const QuantizedRow*> job_rows_;  // of all jobs, end to end
  std::vector<std::size_t> job_first_row_;     // [jobs] into job_rows_; unused for float jobs
  // Distinct inputs: an open-addressed table by address, and the rows in order of discovery.
  std::vector<Input> table_;
  std::vector<Input> distinct_;
  std::size_t values_used_ = 0;
  std::vector<QuantizedRow> quantized_;
  std::vector<std::int16_t> codes_;
  std::vector<float> scales_;
  std::vector<float> sums_;
};

}  // namespace ds4::cpu
