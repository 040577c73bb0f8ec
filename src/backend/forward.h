#pragma once
#include "backend/executor.h"
#include "backend/stages.h"
#include "model/config.h"

namespace ds4 {

// Which layers this file or machine holds.
struct LayerSlice {
  std::uint32_t first = 0;
  std::uint32_t end = 0;
};

// What a pass does beyond the plain graph.
struct ForwardOptions {
  LayerSlice slice;
  bool steer_attention = false;
  bool steer_ffn = false;
  Executor::LayerHook layer_hook = nullptr;  // called after each layer
  void* layer_hook_context = nullptr;
};

// The forward pass of the main layers over the rows of the last begin(): the streams go in and come
// out in the `streams` buffer.  Written once for every backend; reads like docs/model.md.
void run_layers(Stages& stages, const ModelConfig& config, const ForwardOptions& options);

// One layer, main or MTP.
void run_layer(Stages& stages,
               const ModelConfig& config,
               LayerIndex layer,
               const ForwardOptions& options);

// The MTP block over the rows of the last begin(); `previous` must be set.
void run_mtp_block(Stages& stages, const ModelConfig& config);

}  // namespace ds4
