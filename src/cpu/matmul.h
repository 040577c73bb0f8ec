#pragma once
#include <cstddef>
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
// depends neither on the number of threads nor on the other rows.
class Matmul {
 public:
  Matmul(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}

  // Runs all jobs as one parallel region.  Jobs must not write the same output.
  void run(std::span<const MatmulJob> jobs);

 private:
  struct Block {
    const MatmulJob* job;
    std::size_t first;  // output within the job
    std::size_t count;
  };

  void run_block(const Block& block) const;

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::vector<Block> blocks_;  // scratch of run(); grows to the largest region once
};

}  // namespace ds4::cpu
