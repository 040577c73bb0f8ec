// Queries, key/value rows, the indexer's selection, attention over window and compressed rows, and
// the grouped output projection.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/row_codec.h"
#include "base/error.h"
#include "cpu/machine.h"
#include "cpu/vectors.h"
#include "tensor/float16.h"

namespace ds4::cpu {

namespace {
// Bounds of per-task buffers on the stack; dimensions are checked against them when a file is read.
constexpr std::size_t kPackedRowBytesMax = 2 * kHeadDimMax;
// Of a packed index key (backend/row_codec.h).
constexpr std::size_t kKeyCodesPerScale = 32;
}  // namespace

void CpuMachine::add_query_job(LayerIndex index) {
  jobs_.push_back({.weight = &layer(index).query_a,
                   .output_count = config_.query_rank,
                   .inputs = inputs(0, a_.normed, config_.width),
                   .outputs = outputs(0, a_.query_rank, config_.query_rank)});
}

void CpuMachine::normalize_query_rank(LayerIndex index, std::size_t r) {
  const auto rank = row(a_.query_rank, r, config_.query_rank);
  rms_normalize(rank, vector_values(layer(index).query_a_norm), rank);
}

// query_rank -> query
void CpuMachine::expand_query(LayerIndex index) {
  multiply(layer(index).query_b, a_.query_rank, config_.query_rank, a_.query,
           config_.heads_width());
  pool_.run(row_count(), [&](std::size_t r) {
    for (std::size_t h = 0; h < config_.head_count; ++h) {
      const auto head =
          row(a_.query, r, config_.heads_width()).subspan(h * config_.head_dim, config_.head_dim);
      rms_normalize(head, {}, head);
      rotate(index, r, head.last(config_.rope_dim), RopeDirection::kForward);
    }
  });
}

void CpuMachine::project_query(LayerIndex index) {
  jobs_.clear();
  add_query_job(index);
  matmul_.run(jobs_);
  pool_.run(row_count(), [&](std::size_t r) { normalize_query_rank(index, r); });
  expand_query(index);
}

void CpuMachine::add_key_value_job(LayerIndex index) {
  jobs_.push_back({.weight = &layer(index).key_value,
                   .output_count = config_.head_dim,
                   .inputs = inputs(0, a_.normed, config_.width),
                   .outputs = outputs(1, a_.key_value, config_.head_dim)});
}

void CpuMachine::finish_key_value(LayerIndex index, std::size_t r) {
  const auto values = row(a_.key_value, r, config_.head_dim);
  rms_normalize(values, vector_values(layer(index).key_value_norm), values);
  rotate(index, r, values.last(config_.rope_dim), RopeDirection::kForward);
  if (!packed()) return;
  // Rows of this batch are seen as storage will give them back to later ones.
  std::array<std::byte, kPackedRowBytesMax> stored;  // NOLINT: filled before use
  const auto used = std::span(stored).first(packed_row_.bytes());
  pack_attention_row(packed_row_, values, used);
  load_row(used, values);
}

void CpuMachine::project_key_value(LayerIndex index) {
  jobs_.clear();
  add_key_value_job(index);
  matmul_.run(jobs_);
  pool_.run(row_count(), [&](std::size_t r) { finish_key_value(index, r); });
}

// Everything that reads `normed` as one region, then the rest of every row as another.
void CpuMachine::project_attention(LayerIndex index, bool compresses) {
  jobs_.clear();
  add_query_job(index);
  add_key_value_job(index);
  if (compresses) add_compressor_jobs(index);
  matmul_.run(jobs_);
  pool_.run(row_count(), [&](std::size_t r) {
    normalize_query_rank(index, r);
    finish_key_value(index, r);
    if (compresses) finish_frontier(index, r);
  });
  if (compresses) emit_all(index);
  expand_query(index);
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
  const float scale = 1.0F / std::sqrt(static_cast<float>(query_width));
  pool_.run(row_count(), [&](std::size_t r) {
    for (std::size_t h = 0; h < config_.index_head_count; ++h) {
      const auto head =
          row(a_.index_query, r, query_width).subspan(h * config_.index_dim, config_.index_dim);
      rotate(index, r, head.last(config_.rope_dim), RopeDirection::kForward);
      // Rotating queries and keys alike leaves exact scores as they are, so kExact skips both.
      if (!packed()) continue;
      hadamard(head);
      round_index_key(head);
    }
    for (float& weight : row(a_.index_weights, r, config_.index_head_count))
      weight *= scale;
  });
}

std::uint32_t CpuMachine::compressed_rows_at(LayerIndex index, std::size_t r) const {
  return (step_.rows[r].position.value() + 1) / config_.layer(index).ratio;
}

void CpuMachine::select_rows(LayerIndex index) {
  const auto selects = [&](const RowRun& run) {
    return compressed_rows_at(index, run.first_row + run.count - 1) > config_.index_top_k;
  };
  if (std::any_of(step_.runs.begin(), step_.runs.end(), selects)) project_index_queries(index);
  for (const RowRun& run : step_.runs) {
    const std::size_t end = std::size_t{run.first_row} + run.count;
    for (std::size_t r = run.first_row; r < end; r += kSelectRows) {
      const std::size_t count = std::min(kSelectRows, end - r);
      if (selects(run)) score_index_keys(index, run, r, count);
      pool_.run(count, [&](std::size_t i) { select_for_row(index, r + i, i); });
    }
  }
}

void CpuMachine::load_key(std::span<const std::byte> stored, std::span<float> key) const {
  if (!packed()) {
    std::memcpy(key.data(), stored.data(), stored.size());
    return;
  }
  const std::byte* scales = stored.data() + key.size() / 2;
  for (std::size_t first = 0; first < key.size(); first += kKeyCodesPerScale)
    kernels_.unpack_e2m1(stored.data() + first / 2,
                         e8m0_to_f32(static_cast<std::uint8_t>(scales[first / kKeyCodesPerScale])),
                         key.data() + first, kKeyCodesPerScale);
}

// Scores of all index keys for some rows of a run; keys are unpacked once for all of them.
void CpuMachine::score_index_keys(LayerIndex index,
                                  const RowRun& run,
                                  std::size_t first_row,
                                  std::size_t count) {
  const RowStore& keys = state(run.sequence).layer(index).index_keys;
  const std::size_t heads = config_.index_head_count;
  const std::size_t dim = config_.index_dim;
  const std::uint32_t visible = compressed_rows_at(index, first_row + count - 1);
  constexpr std::size_t kKeysPerTask = 16;
  pool_.run((visible + kKeysPerTask - 1) / kKeysPerTask, [&](std::size_t task) {
    std::array<float, kKeysPerTask * kIndexDimMax> unpacked;  // NOLINT: filled before use
    const std::size_t first = task * kKeysPerTask;
    const std::size_t key_count = std::min<std::size_t>(visible - first, kKeysPerTask);
    for (std::size_t c = 0; c < key_count; ++c)
      load_key(keys.row(static_cast<std::uint32_t>(first + c)),
               std::span(unpacked).subspan(c * dim, dim));
    for (std::size_t i = 0; i < count; ++i) {
      kernels_.score_keys({.queries = row(a_.index_query, first_row + i, heads * dim).data(),
                           .weights = row(a_.index_weights, first_row + i, heads).data(),
                           .head_count = heads,
                           .dim = dim,
                           .keys = unpacked.data(),
                           .key_count = key_count,
                           .scores = index_scores_.data() + i * index_rows_max_ + first});
    }
  });
}

// The rows with the largest scores, of equal ones the lower; all rows when there are no more.
void CpuMachine::select_for_row(LayerIndex index, std::size_t r, std::size_t slot) {
  const std::uint32_t visible = compressed_rows_at(index, r);
  const auto selected = row(a_.selection, r, config_.index_top_k);
  a_.selection_count[r] = std::min(visible, config_.index_top_k);
  if (visible <= config_.index_top_k) {
    std::iota(selected.begin(), selected.begin() + visible, 0);
    return;
  }
  const float* scores = index_scores_.data() + slot * index_rows_max_;
  const auto order = std::span(index_order_).subspan(slot * index_rows_max_, visible);
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + config_.index_top_k, order.end(),
                   [&](std::int32_t a, std::int32_t b) {
                     const float sa = scores[a];
                     const float sb = scores[b];
                     return sa != sb ? sa > sb : a < b;
                   });
  std::copy_n(order.begin(), config_.index_top_k, selected.begin());
  std::sort(selected.begin(), selected.end());
}

// visible_rows_[target + i] = row numbers[i] of the store, or row first + i without numbers.
void CpuMachine::unpack_rows(const RowStore& store,
                             const std::int32_t* numbers,
                             std::uint32_t first,
                             std::uint32_t count,
                             std::size_t target) {
  constexpr std::uint32_t kRowsPerTask = 16;
  DS4_DCHECK(target + count <= visible_max_);
  pool_.run((count + kRowsPerTask - 1) / kRowsPerTask, [&](std::size_t task) {
    const auto begin = static_cast<std::uint32_t>(task) * kRowsPerTask;
    const std::uint32_t end = std::min(count, begin + kRowsPerTask);
    for (std::uint32_t i = begin; i < end; ++i) {
      const std::uint32_t number =
          numbers == nullptr ? first + i : static_cast<std::uint32_t>(numbers[i]);
      load_row(store.row(number), row(visible_rows_, target + i, config_.head_dim));
    }
  });
}

CpuMachine::VisibleRows CpuMachine::unpack_visible(LayerIndex index, const RowRun& run) {
  const LayerPlan& plan = config_.layer(index);
  const LayerState& cache = state(run.sequence).layer(index);
  const std::uint32_t first = run.first_position.value();
  VisibleRows seen;
  seen.window_count = std::min(first, config_.window - 1);
  unpack_rows(cache.window, nullptr, first - seen.window_count, seen.window_count, 0);
  if (plan.ratio == 0) return seen;
  const std::uint32_t compressed = (first + run.count) / plan.ratio;
  seen.all_compressed = plan.kind() == LayerKind::kCompressed ||
                        (seen.window_count + std::size_t{compressed} <= visible_max_ &&
                         compressed <= std::size_t{run.count} * config_.index_top_k);
  if (seen.all_compressed) unpack_rows(cache.compressed, nullptr, 0, compressed, seen.window_count);
  return seen;
}

void CpuMachine::attend_heads(LayerIndex index,
                              const RowRun& run,
                              const VisibleRows& seen,
                              std::size_t r,
                              std::size_t first_head,
                              std::size_t head_count) {
  const LayerPlan& plan = config_.layer(index);
  const std::size_t dim = config_.head_dim;
  const std::uint32_t fresh = static_cast<std::uint32_t>(r) - run.first_row + 1;
  const std::uint32_t shown = std::min(fresh, config_.window);
  const std::uint32_t stored = std::min(seen.window_count, config_.window - shown);
  const float* unpacked = visible_rows_.data();
  // The window: rows from before the run, then the run's own; then the compressed rows.
  std::array<RowList, 3> lists = {{{unpacked + (seen.window_count - stored) * dim, dim, stored},
                                   {a_.key_value.data() + (r + 1 - shown) * dim, dim, shown},
                                   {unpacked + seen.window_count * dim, dim, 0}}};
  if (plan.kind() == LayerKind::kCompressed)
    lists[2].count = (step_.rows[r].position.value() + 1) / plan.ratio;
  if (plan.kind() == LayerKind::kIndexed) {
    lists[2].count = a_.selection_count[r];
    if (seen.all_compressed) lists[2].index = a_.selection.data() + r * config_.index_top_k;
  }
  const std::size_t at = r * config_.heads_width() + first_head * dim;
  kernels_.attend({.queries = a_.query.data() + at,
                   .sinks = vector_values(layer(index).sinks).data() + first_head,
                   .outputs = a_.heads.data() + at,
                   .head_count = head_count,
                   .dim = dim,
                   .scale = 1.0F / std::sqrt(static_cast<float>(dim)),
                   .lists = lists.data(),
                   .list_count = lists.size()});
  // Keys are their own values, so values carry their position; this takes it out again.
  for (std::size_t h = 0; h < head_count; ++h)
    rotate(index, r, std::span(a_.heads).subspan(at + h * dim, dim).last(config_.rope_dim),
           RopeDirection::kInverse);
}

// Some rows of a run, in groups of heads: large enough to share unpacked rows in registers, small
// enough to give every thread some.
void CpuMachine::attend_rows(LayerIndex index,
                             const RowRun& run,
                             const VisibleRows& seen,
                             std::uint32_t first,
                             std::uint32_t count) {
  const std::size_t heads = config_.head_count;
  const std::size_t even = heads * count / (2 * pool_.thread_count());
  const std::size_t group = std::clamp<std::size_t>(even, 1, std::min(heads, kAttentionHeadsMax));
  const std::size_t groups = (heads + group - 1) / group;
  pool_.run(count * groups, [&](std::size_t task) {
    const std::size_t head = task % groups * group;
    attend_heads(index, run, seen, first + task / groups, head, std::min(group, heads - head));
  });
}

void CpuMachine::attend(LayerIndex index) {
  for (const RowRun& run : step_.runs) {
    const VisibleRows seen = unpack_visible(index, run);
    if (config_.layer(index).ratio == 0 || seen.all_compressed) {
      attend_rows(index, run, seen, run.first_row, run.count);
      continue;
    }
    const RowStore& compressed = state(run.sequence).layer(index).compressed;
    for (std::uint32_t r = run.first_row; r < run.first_row + run.count; ++r) {
      unpack_rows(compressed, a_.selection.data() + std::size_t{r} * config_.index_top_k, 0,
                  a_.selection_count[r], seen.window_count);
      attend_rows(index, run, seen, r, 1);
    }
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
  jobs_.clear();
  for (std::size_t g = 0; g < groups; ++g) {
    const auto in = std::span(input_pointers_[0]).subspan(g * row_count(), row_count());
    const auto out = std::span(output_pointers_[0]).subspan(g * row_count(), row_count());
    for (std::size_t r = 0; r < row_count(); ++r) {
      in[r] = a_.heads.data() + r * config_.heads_width() + g * group_width;
      out[r] = a_.output_low.data() + r * low_width + g * config_.output_rank;
    }
    jobs_.push_back({.weight = &w.output_a,
                     .first_output = g * config_.output_rank,
                     .output_count = config_.output_rank,
                     .inputs = in,
                     .outputs = out});
  }
  matmul_.run(jobs_);
  multiply(w.output_b, a_.output_low, low_width, a_.output, config_.width);
}

}  // namespace ds4::cpu
