// config.json of a published checkpoint to a ModelShape.
#include <cmath>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "convert/json.h"
#include "convert/model_shape.h"

namespace ds4::convert {

namespace {

constexpr std::size_t kConfigBytesMax = 16'000'000;
// Far above any model of the family; keeps products of two dimensions far from overflow.
constexpr std::uint64_t kDimensionMax = 1U << 24;
constexpr std::uint32_t kLayersMax = 1024;

class ConfigReader {
 public:
  ConfigReader(const Json& json, std::string file) : json_(json), file_(std::move(file)) {}

  // A natural number from `least` to `most`.
  std::uint32_t natural(const char* key, std::uint64_t least, std::uint64_t most) const {
    if (!json_.contains(key)) fail(key, "is missing");
    return static_cast<std::uint32_t>(checked(key, json_[key], least, most));
  }
  std::uint32_t dimension(const char* key) const { return natural(key, 1, kDimensionMax); }
  std::uint64_t natural_or(const char* key, std::uint64_t fallback) const {
    if (!json_.contains(key) || json_[key].is_null()) return fallback;
    return checked(key, json_[key], 0, std::uint64_t{1} << 40);
  }
  float real_or(const char* key, float fallback) const {
    if (!json_.contains(key) || json_[key].is_null()) return fallback;
    if (!json_[key].is_number()) fail(key, "is not a number");
    const auto value = json_[key].get<double>();
    if (!(std::abs(value) < 1e30)) fail(key, "is not a finite number");
    return static_cast<float>(value);
  }
  bool truth_or(const char* key, bool fallback) const {
    if (!json_.contains(key) || json_[key].is_null()) return fallback;
    if (!json_[key].is_boolean()) fail(key, "is not true or false");
    return json_[key].get<bool>();
  }
  std::string text_or(const char* key, std::string fallback) const {
    if (!json_.contains(key) || !json_[key].is_string()) return fallback;
    return json_[key].get<std::string>();
  }
  std::vector<std::uint32_t> naturals(const char* key, std::size_t count_min) const {
    if (!json_.contains(key) || !json_[key].is_array()) fail(key, "is missing or not a list");
    if (json_[key].size() < count_min || json_[key].size() > 2 * std::size_t{kLayersMax}) {
      fail(key, fmt::format("has {} entries; one for each of {} layers was expected",
                            json_[key].size(), count_min));
    }
    std::vector<std::uint32_t> values;
    for (const Json& value : json_[key])
      values.push_back(static_cast<std::uint32_t>(checked(key, value, 0, kDimensionMax)));
    return values;
  }
  // The object under `key`, or an empty one.
  ConfigReader object(const char* key) const {
    static const Json kNone = Json::object();
    return {json_.contains(key) && json_[key].is_object() ? json_[key] : kNone,
            fmt::format("{}: {}", file_, key)};
  }

  [[noreturn]] void fail(std::string_view key, std::string_view problem) const {
    throw Error(ErrorCode::kBadFormat, fmt::format("{}: '{}' {}", file_, key, problem));
  }

 private:
  std::uint64_t checked(const char* key,
                        const Json& value,
                        std::uint64_t least,
                        std::uint64_t most) const {
    if (!value.is_number_unsigned()) fail(key, "is not a natural number");
    const auto number = value.get<std::uint64_t>();
    if (number < least || number > most)
      fail(key, fmt::format("is {}; {} to {} was expected", number, least, most));
    return number;
  }

  const Json& json_;
  std::string file_;
};

void read_rope(const ConfigReader& config, ModelShape& shape) {
  shape.rope_base = config.real_or("rope_theta", shape.rope_base);
  shape.compressed_rope_base = config.real_or("compress_rope_theta", shape.compressed_rope_base);
  const ConfigReader scaling = config.object("rope_scaling");
  shape.rope_factor = scaling.real_or("factor", shape.rope_factor);
  shape.yarn_beta_fast = scaling.real_or("beta_fast", shape.yarn_beta_fast);
  shape.yarn_beta_slow = scaling.real_or("beta_slow", shape.yarn_beta_slow);
  shape.rope_original_context =
      scaling.natural_or("original_max_position_embeddings", shape.rope_original_context);
}

void check_graph(const ConfigReader& config, const ModelShape& shape) {
  const std::string type = config.text_or("model_type", "deepseek_v4");
  if (type != "deepseek_v4") {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("this checkpoint is of model_type '{}'; only deepseek_v4 is supported", type));
  }
  if (config.natural_or("num_key_value_heads", 1) != 1)
    config.fail("num_key_value_heads", "must be 1: keys and values are one shared vector");
  if (shape.shared_expert_count != 1) config.fail("n_shared_experts", "must be 1");
  if (shape.head_count % shape.output_group_count != 0)
    config.fail("o_groups", "must divide num_attention_heads");
  if (shape.experts_used > shape.expert_count)
    config.fail("num_experts_per_tok", "exceeds n_routed_experts");
  if (shape.rope_dim >= shape.head_dim) config.fail("qk_rope_head_dim", "must be below head_dim");
  for (const std::uint32_t ratio : shape.compress_ratios)
    if (ratio != 0 && ratio != 4 && ratio != 128)
      config.fail("compress_ratios", fmt::format("has {}; 0, 4 or 128 was expected", ratio));
}

}  // namespace

ModelShape read_hf_config(const std::filesystem::path& path) {
  const Json json = parse_json(read_text_file(path, kConfigBytesMax), path.string());
  const ConfigReader config(json, path.string());
  ModelShape shape;
  const auto directory = std::filesystem::absolute(path).parent_path();
  shape.name = config.text_or("_name_or_path", directory.filename().string());
  shape.layer_count = config.natural("num_hidden_layers", 1, kLayersMax);
  shape.mtp_layer_count = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(config.natural_or("num_nextn_predict_layers", 0), kLayersMax));
  shape.width = config.dimension("hidden_size");
  shape.vocab_size = config.dimension("vocab_size");
  shape.head_count = config.dimension("num_attention_heads");
  shape.head_dim = config.dimension("head_dim");
  shape.rope_dim = config.dimension("qk_rope_head_dim");
  shape.query_rank = config.dimension("q_lora_rank");
  shape.output_group_count = config.dimension("o_groups");
  shape.output_rank = config.dimension("o_lora_rank");
  shape.window = config.dimension("sliding_window");
  shape.index_head_count = config.dimension("index_n_heads");
  shape.index_dim = config.dimension("index_head_dim");
  shape.index_top_k = config.dimension("index_topk");
  shape.expert_count = config.dimension("n_routed_experts");
  shape.experts_used = config.dimension("num_experts_per_tok");
  shape.shared_expert_count = config.dimension("n_shared_experts");
  shape.expert_width = config.dimension("moe_intermediate_size");
  shape.hash_layer_count = config.natural("num_hash_layers", 0, shape.layer_count);
  shape.stream_count = config.natural("hc_mult", 1, 64);
  shape.sinkhorn_iterations = config.natural("hc_sinkhorn_iters", 1, 1000);
  shape.context_max = config.natural_or("max_position_embeddings", shape.context_max);
  shape.rms_epsilon = config.real_or("rms_norm_eps", shape.rms_epsilon);
  shape.hc_epsilon = config.real_or("hc_eps", shape.hc_epsilon);
  shape.expert_weight_scale = config.real_or("routed_scaling_factor", shape.expert_weight_scale);
  shape.swiglu_limit = config.real_or("swiglu_limit", shape.swiglu_limit);
  shape.normalize_expert_weights = config.truth_or("norm_topk_prob", true);
  read_rope(config, shape);
  shape.compress_ratios = config.naturals("compress_ratios", shape.layer_count);
  shape.compress_ratios.resize(shape.layer_count + shape.mtp_layer_count, 0);
  check_graph(config, shape);
  return shape;
}

}  // namespace ds4::convert
