#include "backend/forward.h"

#include "base/error.h"

namespace ds4 {

namespace {

void run_attention(Stages& s, const LayerPlan& plan, LayerIndex layer, bool steer) {
  s.reduce_and_normalize(layer, Sublayer::kAttention);
  s.project_attention(layer, plan.ratio != 0);
  if (plan.kind() == LayerKind::kIndexed) s.select_rows(layer);
  s.attend(layer);
  s.store_window(layer);
  s.project_out(layer);
  if (steer) s.steer(layer, Sublayer::kAttention);
  s.expand_streams(layer, Sublayer::kAttention);
}

void run_ffn(Stages& s, LayerIndex layer, bool steer) {
  s.reduce_and_normalize(layer, Sublayer::kFfn);
  s.route(layer);
  s.experts(layer);
  if (steer) s.steer(layer, Sublayer::kFfn);
  s.expand_streams(layer, Sublayer::kFfn);
}

}  // namespace

void Stages::head_candidates(HeadKind,
                             std::span<const std::uint32_t>,
                             std::span<const sample::CandidateQuery>,
                             std::span<sample::CandidateSet>) {
  DS4_CHECK(false && "this backend keeps no logits");
}

void Stages::read_logits(std::size_t, std::span<float>) {
  DS4_CHECK(false && "this backend keeps no logits");
}

void run_layer(Stages& stages,
               const ModelConfig& config,
               LayerIndex layer,
               const ForwardOptions& options) {
  run_attention(stages, config.layer(layer), layer, options.steer_attention);
  run_ffn(stages, layer, options.steer_ffn);
}

void run_layers(Stages& stages, const ModelConfig& config, const ForwardOptions& options) {
  for (std::uint32_t l = options.slice.first; l < options.slice.end; ++l) {
    run_layer(stages, config, LayerIndex{l}, options);
    if (options.layer_hook != nullptr) options.layer_hook(options.layer_hook_context);
  }
}

void run_mtp_block(Stages& stages, const ModelConfig& config) {
  stages.combine_mtp();
  run_layer(stages, config, config.mtp_index(), ForwardOptions{});
}

}  // namespace ds4
