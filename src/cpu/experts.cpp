// Routing and the experts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.h"
#include "cpu/machine.h"
#include "cpu/vectors.h"

namespace ds4::cpu {

namespace {

constexpr float kWeightSumFloor = 0x1p-14F;

// sqrt(log(1 + e^x)), stable at both ends.
float router_score(float logit) {
  if (logit > 20.0F) return std::sqrt(logit);
  return std::sqrt(logit < -20.0F ? std::exp(logit) : std::log1p(std::exp(logit)));
}

// The experts with the largest biased scores, best first; of equal ones the lower.  An empty `bias`
// is none.
void select_by_score(std::span<const float> scores,
                     std::span<const float> bias,
                     std::span<std::int32_t> ids) {
  for (std::size_t k = 0; k < ids.size(); ++k) {
    const auto taken = ids.first(k);
    std::int32_t best = -1;
    float best_score = -std::numeric_limits<float>::infinity();
    for (std::size_t e = 0; e < scores.size(); ++e) {
      const auto id = static_cast<std::int32_t>(e);
      const float score = scores[e] + (bias.empty() ? 0.0F : bias[e]);
      const bool is_taken = std::find(taken.begin(), taken.end(), id) != taken.end();
      if (!is_taken && (best < 0 || score > best_score)) {
        best = id;
        best_score = score;
      }
    }
    ids[k] = best;
  }
}

}  // namespace

void CpuMachine::route(LayerIndex index) {
  const LayerWeights& w = layer(index);
  multiply(w.router, a_.normed, config_.width, a_.router, config_.expert_count);
  pool_.run(row_count(), [&](std::size_t r) { choose_experts(w, config_.layer(index), r); });
}

// Selection by biased score or by the token's table; weights from the unbiased scores.
void CpuMachine::choose_experts(const LayerWeights& w, const LayerPlan& plan, std::size_t r) {
  const auto scores = row(a_.router, r, config_.expert_count);
  for (float& score : scores)
    score = router_score(score);
  const auto ids = row(a_.expert_ids, r, config_.experts_used);
  if (plan.hash_routed) {
    const auto* table = reinterpret_cast<const std::int32_t*>(
        w.hash_table.row(0, static_cast<std::size_t>(step_.rows[r].token.value())).data());
    std::copy_n(table, ids.size(), ids.begin());
  } else {
    const std::span<const float> bias =
        w.router_bias.present() ? vector_values(w.router_bias) : std::span<const float>{};
    select_by_score(scores, bias, ids);
  }
  float sum = 0;
  for (const std::int32_t id : ids)
    sum += scores[static_cast<std::size_t>(id)];
  const auto weights = row(a_.expert_weights, r, config_.experts_used);
  for (std::size_t k = 0; k < ids.size(); ++k)
    weights[k] = scores[static_cast<std::size_t>(ids[k])] / std::max(sum, kWeightSumFloor) *
                 config_.expert_weight_scale;
}

// Counting sort of (row, slot) pairs by expert, so that one read of an expert serves all its rows.
void CpuMachine::group_by_expert() {
  const std::size_t used = config_.experts_used;
  std::fill(expert_first_.begin(), expert_first_.end(), 0);
  const std::size_t pairs = row_count() * used;
  for (std::size_t i = 0; i < pairs; ++i)
    ++expert_first_[static_cast<std::size_t>(a_.expert_ids[i]) + 1];
  for (std::size_t e = 0; e < config_.expert_count; ++e)
    expert_first_[e + 1] += expert_first_[e];
  for (std::size_t i = pairs; i-- > 0;) {
    // Filled from the back: the end of each group moves down to its start, then is put back.
    const auto e = static_cast<std::size_t>(a_.expert_ids[i]);
    expert_pairs_[--expert_first_[e + 1]] =
        static_cast<std::uint32_t>(i / used * (used + 1) + i % used);
  }
  for (std::size_t e = 0; e < config_.expert_count; ++e)
    expert_first_[e] = expert_first_[e + 1];
  expert_first_[config_.expert_count] = static_cast<std::uint32_t>(pairs);
}

// All experts' gate and up products as one region, the activation, then all down products.
void CpuMachine::run_expert_matrices(const LayerWeights& w) {
  const std::size_t slots = std::size_t{config_.experts_used} + 1;
  const std::size_t pairs = row_count() * config_.experts_used;
  // Pair lists: the grouped routed pairs, then one pair a row for the shared expert.
  auto& in = input_pointers_[1];
  auto& gate = output_pointers_[1];
  auto& up = output_pointers_[2];
  auto& mid = input_pointers_[2];
  auto& out = output_pointers_[3];
  for (std::size_t i = 0; i < pairs + row_count(); ++i) {
    const std::size_t pair = i < pairs ? expert_pairs_[i] : (i - pairs) * slots + slots - 1;
    in[i] = a_.normed.data() + pair / slots * config_.width;
    gate[i] = a_.expert_gate.data() + pair * config_.expert_width;
    up[i] = a_.expert_up.data() + pair * config_.expert_width;
    mid[i] = gate[i];
    out[i] = a_.expert_out.data() + pair * config_.width;
  }
  const auto add_jobs = [&](const Weight& routed, const Weight& shared, std::size_t width,
                            const std::vector<const float*>& from, std::vector<float*>& to) {
    for (std::size_t e = 0; e <= config_.expert_count; ++e) {
      const bool is_shared = e == config_.expert_count;
      const std::size_t first = is_shared ? pairs : expert_first_[e];
      const std::size_t count = is_shared ? row_count() : expert_first_[e + 1] - first;
      if (count == 0) continue;
      jobs_.push_back({.weight = is_shared ? &shared : &routed,
                       .slab = is_shared ? 0 : e,
                       .output_count = width,
                       .inputs = std::span(from).subspan(first, count),
                       .outputs = std::span(to).subspan(first, count)});
    }
  };
  jobs_.clear();
  add_jobs(w.expert_gate, w.shared_gate, config_.expert_width, in, gate);
  add_jobs(w.expert_up, w.shared_up, config_.expert_width, in, up);
  matmul_.run(jobs_);
  jobs_.clear();
  add_jobs(w.expert_down, w.shared_down, config_.width, mid, out);
}

// output = sum over chosen experts of W2 (silu(min(g, limit)) * clamp(v, limit) * weight) + shared
void CpuMachine::experts(LayerIndex index) {
  const LayerWeights& w = layer(index);
  const float limit = config_.layer(index).swiglu_limit;
  const std::size_t used = config_.experts_used;
  const std::size_t slots = used + 1;
  group_by_expert();
  run_expert_matrices(w);
  pool_.run(row_count() * slots, [&](std::size_t pair) {
    const std::size_t slot = pair % slots;
    const float weight = slot < used ? a_.expert_weights[pair / slots * used + slot] : 1.0F;
    const auto gate = row(a_.expert_gate, pair, config_.expert_width);
    const auto up = row(a_.expert_up, pair, config_.expert_width);
    kernels_.swiglu(gate.data(), up.data(), limit, weight, gate.size());
  });
  matmul_.run(jobs_);
  pool_.run(row_count(), [&](std::size_t r) {
    const auto output = row(a_.output, r, config_.width);
    std::fill(output.begin(), output.end(), 0.0F);
    for (std::size_t slot = 0; slot < slots; ++slot)
      kernels_.add_scaled(output.data(), a_.expert_out.data() + (r * slots + slot) * config_.width,
                          1.0F, config_.width);
  });
}

}  // namespace ds4::cpu
