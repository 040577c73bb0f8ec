// The compressors: pooling windows of tokens into compressed rows and index keys.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "backend/rope.h"
#include "backend/row_codec.h"
#include "base/error.h"
#include "cpu/machine.h"
#include "cpu/vectors.h"
#include "quant/codec.h"

namespace ds4::cpu {

CpuMachine::Compressor CpuMachine::row_compressor(LayerIndex index) {
  const std::uint32_t ratio = config_.layer(index).ratio;
  const std::size_t overlap = ratio == 4 ? 2 : 1;
  return {*layer(index).compressor,
          index,
          ratio,
          config_.head_dim,
          overlap * config_.head_dim,
          a_.frontier,
          StatePart::kFrontier,
          StatePart::kCompressed,
          false};
}

CpuMachine::Compressor CpuMachine::key_compressor(LayerIndex index) {
  return {layer(index).indexer->compressor,
          index,
          config_.layer(index).ratio,
          config_.index_dim,
          std::size_t{2} * config_.index_dim,
          a_.index_frontier,
          StatePart::kIndexFrontier,
          StatePart::kIndexKeys,
          true};
}

// fresh[r] = { Wkv n, Wgate n + ape[position mod ratio] }: the products, then the rest of a row.
void CpuMachine::add_compressor_jobs(LayerIndex index) {
  const auto add = [&](const Compressor& c, std::size_t slot) {
    jobs_.push_back({.weight = &c.weights.kv,
                     .output_count = c.width,
                     .inputs = inputs(0, a_.normed, config_.width),
                     .outputs = outputs(slot, c.fresh, 2 * c.width)});
    jobs_.push_back({.weight = &c.weights.gate,
                     .output_count = c.width,
                     .inputs = inputs(0, a_.normed, config_.width),
                     .outputs = outputs(slot + 1, c.fresh, 2 * c.width, c.width)});
  };
  add(row_compressor(index), 2);
  if (layer(index).indexer) add(key_compressor(index), 4);
}

void CpuMachine::finish_frontier(LayerIndex index, std::size_t r) {
  const auto add_ape = [&](const Compressor& c) {
    std::array<float, 2 * kHeadDimMax> ape;  // NOLINT: filled before use
    const auto used = std::span(ape).first(c.width);
    quant::decode_row(c.weights.ape.type,
                      c.weights.ape.row(0, step_.rows[r].position.value() % c.ratio), used);
    kernels_.add_scaled(row(c.fresh, r, 2 * c.width).data() + c.width, ape.data(), 1.0F, c.width);
  };
  add_ape(row_compressor(index));
  if (layer(index).indexer) add_ape(key_compressor(index));
}

void CpuMachine::emit_all(LayerIndex index) {
  for (const RowRun& run : step_.runs) {
    emit_rows(row_compressor(index), run);
    if (layer(index).indexer) emit_rows(key_compressor(index), run);
  }
}

void CpuMachine::compress(LayerIndex index) {
  jobs_.clear();
  add_compressor_jobs(index);
  matmul_.run(jobs_);
  pool_.run(row_count(), [&](std::size_t r) { finish_frontier(index, r); });
  emit_all(index);
}

// Appends the rows that this run completes, then keeps its newest tokens for later ones.
void CpuMachine::emit_rows(const Compressor& c, const RowRun& run) {
  const std::uint32_t first = run.first_position.value();
  const std::uint32_t end = first + run.count;
  RowStore& rows = state(run.sequence).part(c.rows, c.layer);
  const std::uint32_t first_window = first / c.ratio;
  pool_.run(end / c.ratio - first_window, [&](std::size_t i) {
    const auto window = first_window + static_cast<std::uint32_t>(i);
    std::array<float, kHeadDimMax> pooled;  // NOLINT: filled before use
    const auto values = std::span(pooled).first(c.size);
    pool_window(c, run, window, values);
    finish_row(c, window, values, rows);
  });
  RowStore& frontier = state(run.sequence).part(c.frontier, c.layer);
  const auto kept =
      static_cast<std::uint32_t>(std::min<std::size_t>(run.count, frontier.capacity()));
  for (std::uint32_t i = run.count - kept; i < run.count; ++i) {
    const auto values = row(c.fresh, run.first_row + i, 2 * c.width);
    std::memcpy(frontier.row(first + i).data(), values.data(), values.size_bytes());
  }
}

// Softmax per channel over the window's scores, with the window before it when windows overlap.
void CpuMachine::pool_window(const Compressor& c,
                             const RowRun& run,
                             std::uint32_t window,
                             std::span<float> pooled) {
  const RowStore& frontier = state(run.sequence).part(c.frontier, c.layer);
  const std::uint32_t own_first = window * c.ratio;
  const std::uint32_t first = c.overlaps() && window > 0 ? own_first - c.ratio : own_first;
  const std::uint32_t end = own_first + c.ratio;
  std::array<const float*, 128> projection{};
  std::array<const float*, 128> score{};
  const std::size_t count = end - first;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t position = first + static_cast<std::uint32_t>(i);
    const float* values =
        position >= run.first_position.value()
            ? row(c.fresh, run.first_row + (position - run.first_position.value()), 2 * c.width)
                  .data()
            : reinterpret_cast<const float*>(frontier.row(position).data());
    const std::size_t half = c.overlaps() && position >= own_first ? c.size : 0;
    projection[i] = values + half;
    score[i] = values + c.width + half;
  }
  kernels_.pool_rows(pooled.data(), projection.data(), score.data(), count, c.size);
}

void CpuMachine::finish_row(const Compressor& c,
                            std::uint32_t window,
                            std::span<float> pooled,
                            RowStore& store) {
  rms_normalize(pooled, vector_values(c.weights.norm), pooled);
  apply_rope(pooled.last(config_.rope_dim), compressed_frequencies_, Position{window * c.ratio},
             RopeDirection::kForward);
  const auto stored = store.row(window);
  if (!c.index_keys) {
    store_row(pooled, stored);
  } else if (packed()) {
    hadamard(pooled);
    pack_index_key(pooled, stored);
  } else {
    std::memcpy(stored.data(), pooled.data(), stored.size());
  }
}

}  // namespace ds4::cpu
