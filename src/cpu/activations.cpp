#include "cpu/activations.h"

namespace ds4::cpu {

// The one list of buffers and row widths: construction and planning both walk it.
template <class Self, class Visit>
void Activations::visit_buffers(Self& self, const ModelConfig& c, bool has_mtp, Visit visit) {
  const std::size_t streams = c.stream_count;
  const std::size_t experts = std::size_t{c.experts_used} + 1;
  visit(self.window_turns, c.rope_dim);
  visit(self.compressed_turns, c.rope_dim);
  visit(self.streams, c.streams_width());
  visit(self.stream_mixes, streams * (2 + streams));
  visit(self.mix, streams + streams * streams);
  visit(self.reduced, c.width);
  visit(self.normed, c.width);
  visit(self.query_rank, c.query_rank);
  visit(self.query, c.heads_width());
  visit(self.key_value, c.head_dim);
  visit(self.frontier, std::size_t{4} * c.head_dim);
  visit(self.index_frontier, std::size_t{4} * c.index_dim);
  visit(self.index_query, std::size_t{c.index_head_count} * c.index_dim);
  visit(self.index_weights, c.index_head_count);
  visit(self.selection, c.index_top_k);
  visit(self.selection_count, 1);
  visit(self.heads, c.heads_width());
  visit(self.output_low, std::size_t{c.output_group_count} * c.output_rank);
  visit(self.output, c.width);
  visit(self.router, c.expert_count);
  visit(self.expert_ids, c.experts_used);
  visit(self.expert_weights, c.experts_used);
  visit(self.expert_gate, experts * c.expert_width);
  visit(self.expert_up, experts * c.expert_width);
  visit(self.expert_out, experts * c.width);
  visit(self.previous, has_mtp ? c.streams_width() : 0);
}

Activations::Activations(const ModelConfig& config, std::uint32_t rows_max, bool has_mtp) {
  visit_buffers(*this, config, has_mtp,
                [&](auto& buffer, std::size_t row_width) { buffer.resize(row_width * rows_max); });
}

std::uint64_t Activations::bytes() const {
  std::uint64_t total = 0;
  // The walk needs a config only for widths, which are not used here.
  visit_buffers(*this, ModelConfig{}, true, [&](const auto& buffer, std::size_t) {
    total += buffer.size() * sizeof(buffer[0]);
  });
  return total;
}

std::uint64_t Activations::planned_bytes(const ModelConfig& config,
                                         std::uint32_t rows_max,
                                         bool has_mtp) {
  std::uint64_t total = 0;
  const Activations none(ModelConfig{}, 0, false);
  visit_buffers(none, config, has_mtp, [&](const auto& buffer, std::size_t row_width) {
    total += std::uint64_t{row_width} * rows_max * sizeof(buffer[0]);
  });
  return total;
}

}  // namespace ds4::cpu
