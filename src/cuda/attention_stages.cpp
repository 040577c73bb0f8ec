// The stages of a layer's first half.
#include <algorithm>
#include <span>
#include <utility>

#include "base/error.h"
#include "cuda/attend.h"
#include "cuda/machine.h"
#include "cuda/matvec.h"
#include "cuda/rows_product.h"
#include "cuda/streams.h"
#include "cuda/tile_product.h"

namespace ds4::cuda {

bool CudaMachine::selects(LayerIndex index) const {
  return config_.layer(index).kind() == LayerKind::kIndexed &&
         visible_max_ / 4 > config_.index_top_k;
}

// Products whose input is the normalised row.
void CudaMachine::project_from_normed(const DeviceLayer& w, const Parts& parts) {
  struct Projection {
    const Matrix* matrix;
    float* out;
    std::uint32_t out_stride;
  };
  Projection products[kMatvecJobsMax];
  std::uint32_t count = 0;
  const auto add = [&](const Matrix& m, float* out, std::uint32_t out_stride) {
    products[count++] = {&m, out, out_stride};
  };
  if (parts.query) add(w.query_a, a_.query_rank, config_.query_rank);
  if (parts.key_value) add(w.key_value, a_.key_value, kHeadDim);
  const auto add_compressor = [&](const DeviceCompressor& c, float* fresh) {
    add(c.kv, fresh, 2 * c.kv.rows);
    add(c.gate, fresh + c.kv.rows, 2 * c.kv.rows);
  };
  if (parts.compress) {
    add_compressor(*w.compressor, a_.frontier);
    if (w.index_compressor) add_compressor(*w.index_compressor, a_.index_frontier);
  }
  if (parts.index_query) add(w.index_proj, a_.index_weights, config_.index_head_count);
  if (count == 0) return;
  // Of few outputs each, but together enough for the whole card.
  if (row_count() <= kNarrowRowsMax) {
    MatvecJobs jobs;
    jobs.rows = row_count();
    jobs.grid = weights_.grid;
    for (std::uint32_t i = 0; i < count; ++i)
      jobs.add(*products[i].matrix, a_.normed, config_.width, products[i].out,
               products[i].out_stride)
          .integers = a_.integers;
    return run_matvec(stream_, device_, "attention projections", jobs);
  }
  round(a_.normed, config_.width, row_count());
  for (std::uint32_t i = 0; i < count; ++i)
    multiply_rounded("attention projections", *products[i].matrix, config_.width, products[i].out,
                     products[i].out_stride, row_count());
}

// Products whose input is the normalised low-rank query.
void CudaMachine::project_from_rank(const DeviceLayer& w, const Parts& parts) {
  struct Projection {
    const char* stage;
    const Matrix* matrix;
    float* out;
    std::uint32_t width;
  };
  Projection products[2];
  std::uint32_t count = 0;
  if (parts.query)
    products[count++] = {"query projection", &w.query_b, a_.query,
                         static_cast<std::uint32_t>(config_.heads_width())};
  if (parts.index_query)
    products[count++] = {"index query projection", &w.index_query, a_.index_query,
                         config_.index_head_count * kIndexDim};
  MatvecJobs jobs;  // these normalise on the way
  jobs.rows = row_count();
  jobs.grid = weights_.grid;
  jobs.epsilon = config_.norm_epsilon;
  bool has_integers = false;
  bool is_rounded = false;
  for (const Projection& p : std::span(products, count)) {
    if (by_rows_product(*p.matrix, row_count())) {
      if (!std::exchange(has_integers, true))
        make_integers(stream_, row_count(), config_.query_rank, a_.query_rank, w.query_a_norm,
                      config_.norm_epsilon, a_.rank_integers);
      multiply(p.stage, {.w = *p.matrix,
                         .x = nullptr,
                         .x_stride = 0,
                         .integers = a_.rank_integers,
                         .out = p.out,
                         .out_stride = p.width,
                         .rows = row_count()});
    } else if (few()) {
      jobs.add(*p.matrix, a_.query_rank, config_.query_rank, p.out, p.width).norm_weight =
          w.query_a_norm;
    } else {
      if (!std::exchange(is_rounded, true)) {
        normalize_rows(stream_, row_count(), config_.query_rank, a_.query_rank, w.query_a_norm,
                       config_.norm_epsilon, a_.query_rank_normed);
        round(a_.query_rank_normed, config_.query_rank, row_count());
      }
      multiply_rounded(p.stage, *p.matrix, config_.query_rank, p.out, p.width, row_count());
    }
  }
  if (jobs.count > 0) run_matvec(stream_, device_, "query projections", jobs);
  if (count > 0) fetch_ahead({&w.output_a});
}

PrepareJob CudaMachine::prepare_job(LayerIndex index, const Parts& parts) const {
  const DeviceLayer& w = layer(index);
  PrepareJob job{.step = step_,
                 .layer = index.value(),
                 .ratio = config_.layer(index).ratio,
                 .head_count = config_.head_count,
                 .index_head_count = config_.index_head_count,
                 .epsilon = config_.norm_epsilon,
                 .frequencies = frequencies(index),
                 .direct = direct_,
                 .with_query = parts.query && !attends_raw_queries(),
                 .with_key_value = parts.key_value,
                 .with_compress = parts.compress,
                 .with_index_query = parts.index_query,
                 .query = a_.query,
                 .key_value = a_.key_value,
                 .key_value_norm = w.key_value_norm,
                 .fresh_rows = a_.fresh_rows,
                 .rows = {},
                 .keys = {},
                 .index_query = a_.index_query,
                 .index_weights = a_.index_weights};
  if (w.compressor) job.rows = {w.compressor->ape, w.compressor->norm, a_.frontier};
  if (w.index_compressor)
    job.keys = {w.index_compressor->ape, w.index_compressor->norm, a_.index_frontier};
  return job;
}

void CudaMachine::project(LayerIndex index, const Parts& parts) {
  const DeviceLayer& w = layer(index);
  project_from_normed(w, parts);
  project_from_rank(w, parts);
  const PrepareJob job = prepare_job(index, parts);
  prepare_attention(stream_, job);
  if (parts.compress && !direct_) store_frontier(stream_, job);
}

void CudaMachine::project_query(LayerIndex index) {
  project(index, {.query = true});
}

void CudaMachine::project_key_value(LayerIndex index) {
  project(index, {.key_value = true});
}

void CudaMachine::compress(LayerIndex index) {
  project(index, {.compress = true});
}

void CudaMachine::project_attention(LayerIndex index, bool compresses) {
  project(
      index,
      {.query = true, .key_value = true, .compress = compresses, .index_query = selects(index)});
  index_queries_ready_ = selects(index);
}

void CudaMachine::select_rows(LayerIndex index) {
  if (!selects(index)) return;
  if (!index_queries_ready_) {
    // The rank may still be raw or be missing: project_query() left it in query_rank.
    project(index, {.index_query = true});
  }
  index_queries_ready_ = false;
  const std::uint32_t stride = context_max_ / 4 + 1;
  const auto portion = static_cast<std::uint32_t>(
      std::min<std::size_t>(row_count(), scores_.bytes() / (std::size_t{stride} * sizeof(float))));
  for (std::uint32_t first = 0; first < row_count(); first += portion) {
    const SelectJob job{.step = step_,
                        .layer = index.value(),
                        .first_row = first,
                        .row_count = std::min(portion, row_count() - first),
                        .top_k = config_.index_top_k,
                        .head_count = config_.index_head_count,
                        .visible_max = stride,
                        .query = a_.index_query,
                        .weights = a_.index_weights,
                        .scores = scores_.as<float>(),
                        .selection = a_.selection};
    const std::uint32_t blocks = row_count() <= kRecordRowsMax ? device_.multiprocessors : 4;
    score_keys(stream_, job, blocks);
    select_top(stream_, job);
  }
}

// With as many blocks as rows attention itself normalises and rotates, once a row.
bool CudaMachine::attends_raw_queries() const {
  return row_count() > kRecordRowsMax;
}

void CudaMachine::attend(LayerIndex index) {
  const LayerPlan& plan = config_.layer(index);
  std::uint32_t splits = 1;
  if (!attends_raw_queries()) {
    // One part a tile where the tiles are bounded; a fixed number where they grow with the context.
    const std::uint32_t window_tiles = (config_.window + kAttendTileRows - 1) / kAttendTileRows;
    splits = plan.ratio == 0 ? std::max(2U, window_tiles) : kSplitsMax;  // parts are joined
    if (plan.ratio == 4)
      splits = std::min(kSplitsMax, (config_.window + config_.index_top_k + kAttendTileRows - 1) /
                                        kAttendTileRows);
  }
  const bool by_product = by_rows_product(layer(index).output_a, row_count());
  attend_rows(stream_, device_,
              {.step = step_,
               .layer = index.value(),
               .ratio = plan.ratio,
               .head_count = config_.head_count,
               .top_k = config_.index_top_k,
               .frequencies = frequencies(index),
               .sinks = layer(index).sinks,
               .query = a_.query,
               .raw_query = attends_raw_queries(),
               .epsilon = config_.norm_epsilon,
               .fresh_rows = a_.fresh_rows,
               .selection = a_.selection,
               .heads = few() && !by_product ? a_.heads : nullptr,
               .heads_rounded = few() || by_product ? nullptr : a_.heads_rounded,
               .heads_integers = few() || by_product ? a_.heads_integers : nullptr,
               .group_heads = config_.head_count / config_.output_group_count,
               .splits = splits,
               .part_values = a_.part_values,
               .part_sums = a_.part_sums});
}

void CudaMachine::store_window(LayerIndex index) {
  if (direct_) return;
  cuda::store_window(stream_, step_, index.value(), a_.fresh_rows);
}

void CudaMachine::project_out(LayerIndex index) {
  const DeviceLayer& w = layer(index);
  const std::uint32_t groups = config_.output_group_count;
  const std::uint32_t group_width = static_cast<std::uint32_t>(config_.heads_width()) / groups;
  const std::uint32_t low = groups * config_.output_rank;
  const bool by_product = by_rows_product(w.output_a, row_count());
  if (by_product || few()) {
    if (by_product) {
      run_rows_product(stream_, device_, "output projection, low",
                       {.w = w.output_a,
                        .x = a_.heads_integers,
                        .rows = row_count(),
                        .rows_per_group = config_.output_rank,
                        .parts = a_.part_products,
                        .out = a_.output_low,
                        .out_stride = low,
                        .out_integers = a_.low_integers,
                        .grid = weights_.grid});
    } else {
      MatvecJobs jobs;
      jobs.rows = row_count();
      jobs.grid = weights_.grid;
      MatvecJob& job = jobs.add(w.output_a, a_.heads, groups * group_width, a_.output_low, low);
      job.rows_per_group = config_.output_rank;
      job.group_columns = group_width;
      job.integers = a_.heads_integers;
      run_matvec(stream_, device_, "output projection, low", jobs);
    }
    multiply("output projection", {.w = w.output_b,
                                   .x = a_.output_low,
                                   .x_stride = low,
                                   .integers = by_product ? a_.low_integers : nullptr,
                                   .out = a_.output,
                                   .out_stride = config_.width,
                                   .rows = row_count()});
    return fetch_ahead({&w.shared_gate, &w.shared_up, &w.shared_down});
  }
  run_tile_product(stream_, "output projection, low",
                   {.w = w.output_a,
                    .x = a_.heads_rounded,
                    .x_stride = groups * group_width,
                    .out_rounded = a_.low_rounded,
                    .out_stride = low,
                    .rows = row_count(),
                    .groups = groups,
                    .group_columns = group_width,
                    .grid = weights_.grid});
  run_tile_product(stream_, "output projection",
                   {.w = w.output_b,
                    .x = a_.low_rounded,
                    .x_stride = low,
                    .out = a_.output,
                    .out_stride = config_.width,
                    .rows = row_count(),
                    .grid = weights_.grid});
  fetch_ahead({&w.shared_gate, &w.shared_up, &w.shared_down});
}

}  // namespace ds4::cuda
