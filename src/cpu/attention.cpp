// Queries, key/value rows, the indexer's selection, attention over window and compressed rows, and
// the grouped output projection.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/rope.h"
#include "backend/row_codec.h"
#include "base/error.h"
#include "cpu/machine.h"
#include "cpu/vectors.h"

namespace ds4::cpu {

namespace {
// Bounds of per-task buffers on the stack; dimensions are checked against them when a file is read.
constexpr std::size_t kPackedRowBytesMax = 2 * kHeadDimMax;
}  // namespace

void CpuMachine::project_query(LayerIndex index) {
  const LayerWeights& w = layer(index);
  multiply(w.query_a, a_.normed, config_.width, a_.query_rank, config_.query_rank);
  pool_.run(row_count(), [&](std::size_t r) {
    const auto rank = row(a_.query_rank, r, config_.query_rank);
    rms_normalize(rank, vector_values(w.query_a_norm), rank);
  });
  multiply(w.query_b, a_.query_rank, config_.query_rank, a_.query, config_.heads_width());
  const auto& turns = frequencies(index);
  pool_.run(row_count(), [&](std::size_t r) {
    for (std::size_t h = 0; h < config_.head_count; ++h) {
      const auto head =
          row(a_.query, r, config_.heads_width()).subspan(h * config_.head_dim, config_.head_dim);
      rms_normalize(head, {}, head);
      apply_rope(head.last(config_.rope_dim), turns, step_.rows[r].position,
                 RopeDirection::kForward);
    }
  });
}

void CpuMachine::project_key_value(LayerIndex index) {
  const LayerWeights& w = layer(index);
  multiply(w.key_value, a_.normed, config_.width, a_.key_value, config_.head_dim);
  const auto& turns = frequencies(index);
  pool_.run(row_count(), [&](std::size_t r) {
    const auto values = row(a_.key_value, r, config_.head_dim);
    rms_normalize(values, vector_values(w.key_value_norm), values);
    apply_rope(values.last(config_.rope_dim), turns, step_.rows[r].position,
               RopeDirection::kForward);
    if (!packed()) return;
    // Rows of this batch are seen as storage will give them back to later ones.
    std::array<std::byte, kPackedRowBytesMax> stored;  // NOLINT: filled before use
    const auto used = std::span(stored).first(packed_row_.bytes());
    pack_attention_row(packed_row_, values, used);
    unpack_attention_row(packed_row_, used, values);
  });
}

void CpuMachine::project_index_queries(LayerIndex index) {
  const IndexerWeights& w = *layer(index).indexer;
  const std::size_t query_width = std::size_t{config_.index_head_count} * config_.index_dim;
  const MatmulJob jobs[] = {{.weight = &w.query,
                             .output_count = query_width,
                             .inputs = inputs(0, a_.query_rank, config_.query_rank),
                             .outputs = outputs(0, a_.index_query, query_width)},
                            {.weight = &w.proj,
                             .output_count = config_.index_head_count,
                             .inputs = inputs(1, a_.normed, config_.width),
                             .outputs = outputs(1, a_.index_weights, config_.index_head_count)}};
  matmul_.run(jobs);
  const auto& turns = frequencies(index);
  const float scale = 1.0F / std::sqrt(static_cast<float>(query_width));
  pool_.run(row_count(), [&](std::size_t r) {
    for (std::size_t h = 0; h < config_.index_head_count; ++h) {
      const auto head =
          row(a_.index_query, r, query_width).subspan(h * config_.index_dim, config_.index_dim);
      apply_rope(head.last(config_.rope_dim), turns, step_.rows[r].position,
                 RopeDirection::kForward);
      // Rotating queries and keys alike leaves exact scores as they are, so kExact skips both.
      if (!packed()) continue;
      hadamard(head);
      round_index_key(head);
    }
    for (float& weight : row(a_.index_weights, r, config_.index_head_count))
      weight *= scale;
  });
}

void CpuMachine::select_rows(LayerIndex index) {
  const auto visible_at = [&](std::size_t r) {
    return (step_.rows[r].position.value() + 1) / config_.layer(index).ratio;
  };
  const bool any_selects =
      std::any_of(step_.runs.begin(), step_.runs.end(), [&](const RowRun& run) {
        return visible_at(run.first_row + run.count - 1) > config_.index_top_k;
      });
  if (any_selects) project_index_queries(index);
  for (const RowRun& run : step_.runs) {
    for (std::size_t r = run.first_row; r < run.first_row + run.count; ++r) {
      const std::uint32_t visible = visible_at(r);
      if (visible > config_.index_top_k) {
        select_for_row(index, run, r, visible);
        continue;
      }
      a_.selection_count[r] = visible;
      const auto all = row(a_.selection, r, config_.index_top_k);
      std::iota(all.begin(), all.begin() + visible, 0);
    }
  }
}

void CpuMachine::select_for_row(LayerIndex index,
                                const RowRun& run,
                                std::size_t r,
                                std::uint32_t visible) {
  const RowStore& keys = state(run.sequence).layer(index).index_keys;
  const std::size_t heads = config_.index_head_count;
  const std::size_t dim = config_.index_dim;
  const auto queries = row(a_.index_query, r, heads * dim);
  const auto weights = row(a_.index_weights, r, heads);
  constexpr std::size_t kKeysPerTask = 64;
  pool_.run((visible + kKeysPerTask - 1) / kKeysPerTask, [&](std::size_t task) {
    std::array<float, kIndexDimMax> key;  // NOLINT: filled before use
    const std::size_t end = std::min<std::size_t>(visible, (task + 1) * kKeysPerTask);
    for (std::size_t c = task * kKeysPerTask; c < end; ++c) {
      const auto stored = keys.row(static_cast<std::uint32_t>(c));
      if (packed()) {
        unpack_index_key(stored, std::span(key).first(dim));
      } else {
        std::memcpy(key.data(), stored.data(), stored.size());
      }
      float score = 0;
      for (std::size_t h = 0; h < heads; ++h)
        score +=
            weights[h] * std::max(0.0F, kernels_.dot(queries.data() + h * dim, key.data(), dim));
      index_scores_[c] = score;
    }
  });
  // The largest scores; of equal ones the lower row.
  const auto order = std::span(index_order_).first(visible);
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + config_.index_top_k, order.end(),
                   [&](std::int32_t a, std::int32_t b) {
                     const float sa = index_scores_[static_cast<std::size_t>(a)];
                     const float sb = index_scores_[static_cast<std::size_t>(b)];
                     return sa != sb ? sa > sb : a < b;
                   });
  const auto selected = row(a_.selection, r, config_.index_top_k);
  std::copy_n(order.begin(), config_.index_top_k, selected.begin());
  std::sort(selected.begin(), selected.end());
  a_.selection_count[r] = config_.index_top_k;
}

// Collects the rows that row r sees into visible_rows_: the window, then the compressed rows, each
// in ascending order.  Returns how many.
std::size_t CpuMachine::gather_rows(LayerIndex index, const RowRun& run, std::size_t r) {
  const LayerPlan& plan = config_.layer(index);
  const LayerState& cache = state(run.sequence).layer(index);
  const std::uint32_t position = step_.rows[r].position.value();
  const std::uint32_t window_count = std::min(position + 1, config_.window);
  const std::uint32_t window_first = position + 1 - window_count;
  std::size_t compressed_count = 0;
  if (plan.kind() == LayerKind::kIndexed) compressed_count = a_.selection_count[r];
  if (plan.kind() == LayerKind::kCompressed) compressed_count = (position + 1) / plan.ratio;
  const std::size_t total = window_count + compressed_count;
  DS4_DCHECK(total <= visible_max_);

  constexpr std::size_t kRowsPerTask = 16;
  pool_.run((total + kRowsPerTask - 1) / kRowsPerTask, [&](std::size_t task) {
    const std::size_t end = std::min(total, (task + 1) * kRowsPerTask);
    for (std::size_t i = task * kRowsPerTask; i < end; ++i) {
      const auto target = row(visible_rows_, i, config_.head_dim);
      if (i >= window_count) {
        const std::size_t n = i - window_count;
        const auto number =
            plan.kind() == LayerKind::kIndexed
                ? static_cast<std::uint32_t>(a_.selection[r * config_.index_top_k + n])
                : static_cast<std::uint32_t>(n);
        load_row(cache.compressed.row(number), target);
        continue;
      }
      const std::uint32_t p = window_first + static_cast<std::uint32_t>(i);
      if (p < run.first_position.value()) {
        load_row(cache.window.row(p), target);
      } else {
        const std::size_t fresh = run.first_row + (p - run.first_position.value());
        const auto values = row(a_.key_value, fresh, config_.head_dim);
        std::copy(values.begin(), values.end(), target.begin());
      }
    }
  });
  return total;
}

void CpuMachine::attend_row(LayerIndex index, std::size_t r, std::size_t visible) {
  const auto sinks = vector_values(layer(index).sinks);
  const float scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
  const auto& turns = frequencies(index);
  const std::size_t dim = config_.head_dim;
  pool_.run(config_.head_count, [&](std::size_t h) {
    const float* query = a_.query.data() + r * config_.heads_width() + h * dim;
    const auto scores = std::span(attention_scores_).subspan(h * visible_max_, visible);
    float largest = sinks[h];
    for (std::size_t i = 0; i < visible; ++i) {
      scores[i] = kernels_.dot(query, visible_rows_.data() + i * dim, dim) * scale;
      largest = std::max(largest, scores[i]);
    }
    // The sink takes weight and has no value.
    float sum = std::exp(sinks[h] - largest);
    for (float& score : scores) {
      score = std::exp(score - largest);
      sum += score;
    }
    const auto out = row(a_.heads, r, config_.heads_width()).subspan(h * dim, dim);
    std::fill(out.begin(), out.end(), 0.0F);
    for (std::size_t i = 0; i < visible; ++i)
      kernels_.add_scaled(out.data(), visible_rows_.data() + i * dim, scores[i] / sum, dim);
    // Keys are their own values, so values carry their position; this takes it out again.
    apply_rope(out.last(config_.rope_dim), turns, step_.rows[r].position, RopeDirection::kInverse);
  });
}

void CpuMachine::attend(LayerIndex index) {
  for (const RowRun& run : step_.runs) {
    for (std::size_t r = run.first_row; r < run.first_row + run.count; ++r)
      attend_row(index, r, gather_rows(index, run, r));
  }
}

void CpuMachine::store_window(LayerIndex index) {
  for (const RowRun& run : step_.runs) {
    RowStore& window = state(run.sequence).layer(index).window;
    const auto kept =
        static_cast<std::uint32_t>(std::min<std::size_t>(run.count, window.capacity()));
    for (std::uint32_t i = run.count - kept; i < run.count; ++i)
      store_row(row(a_.key_value, run.first_row + i, config_.head_dim),
                window.row(run.first_position.value() + i));
  }
}

void CpuMachine::project_out(LayerIndex index) {
  const LayerWeights& w = layer(index);
  const std::size_t groups = config_.output_group_count;
  const std::size_t group_width = config_.heads_width() / groups;
  const std::size_t low_width = groups * config_.output_rank;
  for (std::size_t g = 0; g < groups; ++g) {
    const MatmulJob job{.weight = &w.output_a,
                        .first_output = g * config_.output_rank,
                        .output_count = config_.output_rank,
                        .inputs = inputs(0, a_.heads, config_.heads_width(), g * group_width),
                        .outputs = outputs(0, a_.output_low, low_width, g * config_.output_rank)};
    matmul_.run({&job, 1});
  }
  multiply(w.output_b, a_.output_low, low_width, a_.output, config_.width);
}

}  // namespace ds4::cpu
