#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/executor.h"
#include "cpu/cpu_executor.h"
#include "cuda/cuda_executor.h"
#include "support/random_model.h"

namespace ds4::test {

// The smallest shape that has every part the CUDA kernels know, with row counts that fill no tile.
inline convert::ModelShape device_shape() {
  convert::ModelShape shape = convert::tiny_shape();
  shape.query_rank = 256;
  shape.output_rank = 128;
  shape.index_top_k = 20;
  shape.expert_count = 10;
  shape.experts_used = 3;
  return shape;
}

// One random model on both backends.
class CudaPair {
 public:
  CudaPair(const convert::ModelShape& shape, const MatrixTypes& types, std::uint32_t rows_max = 256)
      : model(shape, types),
        cpu(cpu::make_cpu_executor(
            model.config(), model.weights(), {.thread_count = 2, .rows_max = rows_max})),
        cuda(cuda::make_cuda_executor(model.config(),
                                      model.weights(),
                                      {.thread_count = 2, .rows_max = rows_max, .context = 1024})) {
  }

  RandomModel model;
  std::unique_ptr<Executor> cpu;
  std::unique_ptr<Executor> cuda;
};

// Logits of every row; `rows` extend their sequences.
inline std::vector<float> run_rows(Executor& executor, std::vector<BatchRow> rows) {
  for (BatchRow& row : rows)
    row.wants_logits = true;
  std::vector<float> logits(rows.size() * executor.config().vocab_size);
  executor.run({rows},
               {.logits = Rows(logits.data(), {rows.size(), executor.config().vocab_size})});
  return logits;
}

inline std::vector<BatchRow> rows_of(const std::vector<TokenId>& tokens,
                                     SequenceId sequence,
                                     std::uint32_t from,
                                     std::uint32_t to) {
  std::vector<BatchRow> rows;
  for (std::uint32_t p = from; p < to; ++p)
    rows.push_back({tokens[p], Position{p}, sequence});
  return rows;
}

// How far apart two sets of values are, against the size of the first.
struct Distance {
  double relative_rms = 0;
  double largest = 0;
};

inline Distance distance(const std::vector<float>& expected, const std::vector<float>& found) {
  double square = 0;
  double error = 0;
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
    square += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    error += difference * difference;
    largest = std::max(largest, std::isfinite(difference) ? std::fabs(difference) : INFINITY);
  }
  const double relative = std::sqrt(error / std::max(square, 1e-30));
  return {std::isfinite(relative) ? relative : INFINITY, largest};
}

// The median over rows of their relative distance: one expert or compressed row chosen otherwise,
// where two were equal but for rounding, moves its own row's logits and no others.
inline double typical_distance(const std::vector<float>& expected,
                               const std::vector<float>& found,
                               std::size_t row_width) {
  std::vector<double> rows;
  for (std::size_t first = 0; first < expected.size(); first += row_width) {
    const auto part = [&](const std::vector<float>& all) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
      return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(row_width));
    };
    rows.push_back(distance(part(expected), part(found)).relative_rms);
  }
  std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(rows.size() / 2),
                   rows.end());
  return rows[rows.size() / 2];
}

inline void append(std::vector<float>& all, const std::vector<float>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

inline void copy_state(const Executor& from, SequenceId source, Executor& to, SequenceId target) {
  const std::uint32_t length = from.length(source);
  to.begin_restore(target, length);
  for (const StateSection& section : from.layout().sections(length)) {
    std::vector<std::byte> bytes(section.bytes());
    from.read_state(source, section, bytes);
    to.write_state(target, section, bytes);
  }
}

}  // namespace ds4::test
