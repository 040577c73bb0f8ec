#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "model/config.h"
#include "tensor/element_type.h"

namespace ds4 {

// Longest rows of a matrix that kernels keep whole on their stacks.
inline constexpr std::size_t kMatrixColumnsMax = 65536;

// One tensor of the file, bound to its place in the graph: a view into the mapping, which must
// outlive it.  Shapes are checked when it is bound.
struct Weight {
  std::string name;
  ElementType type = ElementType::kF32;
  std::size_t slabs = 1;    // experts of a stacked tensor; 1 for everything else
  std::size_t rows = 0;     // outputs
  std::size_t columns = 0;  // inputs, contiguous
  std::span<const std::byte> bytes;

  bool present() const { return !bytes.empty(); }
  std::size_t row_bytes() const { return ds4::row_bytes(type, columns); }
  std::size_t slab_bytes() const { return rows * row_bytes(); }
  // The bytes of one row of one slab.
  std::span<const std::byte> row(std::size_t slab, std::size_t row_index) const {
    return bytes.subspan(slab * slab_bytes() + row_index * row_bytes(), row_bytes());
  }
};

// Mixing coefficients of a hyper-connection site (docs/model.md, streams).
struct HcWeights {
  Weight fn;     // [24 or 4, stream_count * width]
  Weight base;   // [24 or 4] f32
  Weight scale;  // [3 or 1] f32
};

struct CompressorWeights {
  Weight ape;   // [ratio, W]  W = head size, twice that for ratio 4
  Weight kv;    // [W, width]
  Weight gate;  // [W, width]
  Weight norm;  // [head size] f32
};

struct IndexerWeights {
  Weight query;  // [index_head_count * index_dim, query_rank]
  Weight proj;   // [index_head_count, width]
  CompressorWeights compressor;
};

struct LayerWeights {
  HcWeights attention_hc, ffn_hc;
  Weight attention_norm, ffn_norm;              // [width] f32
  Weight query_a;                               // [query_rank, width]
  Weight query_a_norm;                          // [query_rank] f32
  Weight query_b;                               // [head_count * head_dim, query_rank]
  Weight key_value;                             // [head_dim, width]
  Weight key_value_norm;                        // [head_dim] f32
  Weight sinks;                                 // [head_count] f32
  Weight output_a;                              // [groups * output_rank, heads_width / groups]
  Weight output_b;                              // [width, groups * output_rank]
  std::optional<CompressorWeights> compressor;  // ratio 4 and 128
  std::optional<IndexerWeights> indexer;        // ratio 4
  Weight router;                                // [expert_count, width]
  Weight router_bias;                           // [expert_count] f32; may be absent
  Weight hash_table;                            // [vocab_size, experts_used] i32; hash-routed only
  Weight expert_gate, expert_up;                // slabs [expert_width, width]
  Weight expert_down;                           // slabs [width, expert_width]
  Weight shared_gate, shared_up;                // [expert_width, width]
  Weight shared_down;                           // [width, expert_width]
};

// The collapse of the streams before an output matrix.
struct HeadWeights {
  HcWeights hc;  // fn [stream_count, stream_count * width], base [stream_count], scale [1]
  Weight norm;   // [width] f32
};

struct MtpWeights {
  Weight token_projection;   // e_proj [width, width]
  Weight stream_projection;  // h_proj [width, width]
  Weight token_norm;         // enorm [width] f32
  Weight stream_norm;        // hnorm [width] f32
  LayerWeights block;
  HeadWeights head;
};

// Everything the graph reads, as views into one or two mapped files.  Immutable.
struct Weights {
  Weight embedding;  // [vocab_size, width]; absent from a slice without the first layer
  Weight output;     // [vocab_size, width]; absent from a slice without the last layer
  HeadWeights head;
  std::uint32_t first_layer = 0;     // of the slice that the file holds
  std::vector<LayerWeights> layers;  // consecutive, starting at first_layer
  std::optional<MtpWeights> mtp;

  const LayerWeights& layer(LayerIndex index, const ModelConfig& config) const {
    return index == config.mtp_index() ? mtp->block : layers[index.value() - first_layer];
  }
  // Calls visit(weight) for every bound tensor, in file order of the graph.
  template <class Visit>
  void for_each(Visit&& visit) const;
  // Memory that it holds beside the mapping.
  std::uint64_t table_bytes() const;
};

// Binds every tensor the config asks for and checks type and shape of each: a type that the graph
// has no use for is refused by name, with what was found and what was expected.  `mtp_file` may
// hold the MTP block when `file` does not; null when there is none.
Weights bind_weights(const gguf::Reader& file,
                     const gguf::Reader* mtp_file,
                     const ModelConfig& config,
                     const LogSink& log);

namespace internal {

template <class Visit>
void visit_hc(const HcWeights& hc, Visit& visit) {
  visit(hc.fn), visit(hc.base), visit(hc.scale);
}

template <class Visit>
void visit_compressor(const CompressorWeights& w, Visit& visit) {
  visit(w.ape), visit(w.kv), visit(w.gate), visit(w.norm);
}

template <class Visit>
void visit_layer(const LayerWeights& w, Visit& visit) {
  visit_hc(w.attention_hc, visit);
  for (const Weight* weight : {&w.attention_norm, &w.query_a, &w.query_a_norm, &w.query_b,
                               &w.key_value, &w.key_value_norm, &w.sinks, &w.output_a, &w.output_b})
    visit(*weight);
  if (w.compressor) visit_compressor(*w.compressor, visit);
  if (w.indexer) {
    visit(w.indexer->query), visit(w.indexer->proj);
    visit_compressor(w.indexer->compressor, visit);
  }
  visit_hc(w.ffn_hc, visit);
  for (const Weight* weight :
       {&w.ffn_norm, &w.router, &w.router_bias, &w.hash_table, &w.expert_gate, &w.expert_up,
        &w.expert_down, &w.shared_gate, &w.shared_up, &w.shared_down})
    if (weight->present()) visit(*weight);
}

}  // namespace internal

template <class Visit>
void Weights::for_each(Visit&& visit) const {
  if (embedding.present()) visit(embedding);
  for (const LayerWeights& layer : layers)
    internal::visit_layer(layer, visit);
  if (output.present()) {
    internal::visit_hc(head.hc, visit);
    visit(head.norm), visit(output);
  }
  if (!mtp) return;
  for (const Weight* weight :
       {&mtp->token_projection, &mtp->stream_projection, &mtp->token_norm, &mtp->stream_norm})
    visit(*weight);
  internal::visit_layer(mtp->block, visit);
  internal::visit_hc(mtp->head.hc, visit);
  visit(mtp->head.norm);
}

}  // namespace ds4
