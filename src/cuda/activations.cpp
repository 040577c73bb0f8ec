#include "cuda/activations.h"

#include <algorithm>

#include "cuda/integer_rows.h"
#include "cuda/matvec.h"
#include "cuda/rows_product.h"
#include "cuda/streams.h"

namespace ds4::cuda {

// The one list of buffers and sizes: construction and planning both walk it.
template <class Place>
void Activations::visit(const ModelConfig& c, std::uint32_t rows_max, bool has_mtp, Place&& place) {
  const std::size_t slots = std::size_t{c.experts_used} + 1;
  const std::size_t low = std::size_t{c.output_group_count} * c.output_rank;
  const std::size_t chunks = (c.width + kMixChannels - 1) / kMixChannels;
  const std::size_t few = std::min(rows_max, kRecordRowsMax);
  const std::size_t few_rows = std::min(rows_max, kMatvecRowsMax);
  const std::size_t widest = std::max<std::size_t>(c.width, c.query_rank);
  const auto rows_of = [&](auto*& buffer, std::size_t width) { place(buffer, width * rows_max); };
  const auto group_width = static_cast<std::uint32_t>(c.heads_width() / c.output_group_count);
  rows_of(rows, 1);
  rows_of(logit_rows, 1);
  rows_of(pointers, 1);
  rows_of(streams, c.streams_width());
  rows_of(partial, chunks * (kMixes + 1));
  rows_of(mix, kStreams + kStreams * kStreams);
  rows_of(reduced, c.width);
  rows_of(normed, c.width);
  rows_of(head_normed, c.width);
  place(integers, kIntegerRowsMax * integer_rows_bytes(1, c.width));
  place(heads_integers,
        std::size_t{kIntegerRowsMax} * c.output_group_count * integer_rows_bytes(1, group_width));
  place(rank_integers, kIntegerRowsMax * integer_rows_bytes(1, c.query_rank));
  place(low_integers, kIntegerRowsMax * integer_rows_bytes(1, static_cast<std::uint32_t>(low)));
  const auto parts_of = [&](std::size_t outputs, std::size_t columns) {
    return product_parts(static_cast<std::uint32_t>(few), static_cast<std::uint32_t>(outputs),
                         static_cast<std::uint32_t>(columns));
  };
  place(part_products, std::max({parts_of(low, group_width), parts_of(c.width, low),
                                 parts_of(c.vocab_size, c.width)}));
  rows_of(query_rank, c.query_rank);
  rows_of(query_rank_normed, c.query_rank);
  rows_of(query, c.heads_width());
  rows_of(key_value, kHeadDim);
  rows_of(fresh_rows, kRowBytes);
  rows_of(frontier, std::size_t{4} * kHeadDim);
  rows_of(index_frontier, std::size_t{4} * kIndexDim);
  rows_of(index_query, std::size_t{c.index_head_count} * kIndexDim);
  rows_of(index_weights, c.index_head_count);
  rows_of(selection, c.index_top_k);
  place(heads, few_rows * c.heads_width());
  rows_of(heads_rounded, c.heads_width());
  place(output_low, few * low);
  rows_of(low_rounded, low);
  rows_of(output, c.width);
  rows_of(router, c.expert_count);
  rows_of(expert_ids, c.experts_used);
  rows_of(expert_weights, c.experts_used);
  place(expert_gate, std::min(rows_max, kIntegerRowsMax) * slots * c.expert_width);
  rows_of(expert_mid, slots * c.expert_width);
  rows_of(expert_out, slots * c.width);
  rows_of(pairs, c.experts_used);
  place(tiles, expert_tiles_max(rows_max, c.experts_used, c.expert_count));
  place(tile_count, 1);
  rows_of(previous, has_mtp ? c.streams_width() : 0);
  rows_of(rounded, widest);
  rows_of(rounded_rest, widest);
  place(logits, std::size_t{kLogitRows} * c.vocab_size);
  place(part_values, few * kSplitsMax * c.heads_width());
  place(part_sums, few * kSplitsMax * c.head_count * 2);
}

std::uint64_t Activations::planned_bytes(const ModelConfig& config,
                                         std::uint32_t rows_max,
                                         bool has_mtp) {
  Activations none;
  std::uint64_t total = 0;
  none.visit(config, rows_max, has_mtp, [&](auto*& buffer, std::size_t count) {
    total += (count * sizeof *buffer + 255) / 256 * 256;
  });
  return total;
}

Activations::Activations(const ModelConfig& config, std::uint32_t rows_max, bool has_mtp)
    : memory_(planned_bytes(config, rows_max, has_mtp), "activations") {
  std::byte* next = memory_.data();
  visit(config, rows_max, has_mtp, [&](auto*& buffer, std::size_t count) {
    buffer = reinterpret_cast<std::remove_reference_t<decltype(buffer)>>(next);
    next += (count * sizeof *buffer + 255) / 256 * 256;
  });
}

}  // namespace ds4::cuda
