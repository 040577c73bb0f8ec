#include "model/weights.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include <fmt/format.h>

#include "base/error.h"
#include "gguf/reader.h"

namespace ds4 {

namespace {

using TypeList = std::span<const ElementType>;

// The support table: which element types each role of a tensor may have.
constexpr std::array kVectorTypes = {ElementType::kF32};
constexpr std::array kIndexTypes = {ElementType::kI32};
constexpr std::array kPlainTypes = {ElementType::kF32, ElementType::kF16, ElementType::kBF16};
constexpr std::array kMatrixTypes = {ElementType::kF32,    ElementType::kF16,  ElementType::kBF16,
                                     ElementType::kQ8_0,   ElementType::kQ2K,  ElementType::kQ4K,
                                     ElementType::kIQ2XXS, ElementType::kMXFP4};

std::string type_names(TypeList types) {
  std::string names;
  for (const ElementType type : types)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", element_type_info(type).name);
  return names;
}

struct Shape {
  std::size_t rows = 1;
  std::size_t columns = 1;
  std::size_t slabs = 1;
};

std::string shape_text(const Shape& shape) {
  if (shape.slabs > 1) return fmt::format("[{}, {}, {}]", shape.columns, shape.rows, shape.slabs);
  if (shape.rows > 1) return fmt::format("[{}, {}]", shape.columns, shape.rows);
  return fmt::format("[{}]", shape.columns);
}

// A file's axes beyond the first that are 1 carry no information.
bool same_shape(const std::vector<std::uint64_t>& found, const Shape& expected) {
  const auto axis = [&](std::size_t i) { return i < found.size() ? found[i] : 1; };
  for (std::size_t i = 3; i < found.size(); ++i)
    if (found[i] != 1) return false;
  return axis(0) == expected.columns && axis(1) == expected.rows && axis(2) == expected.slabs;
}

// Finds tensors of one block or of the whole model by leaf name and checks them.
class Binder {
 public:
  Binder(const gguf::Reader& file, const ModelConfig& config, const LogSink& log)
      : file_(file),
        config_(config),
        log_(log) {}

  void set_prefix(std::string prefix) { prefix_ = std::move(prefix); }

  Weight matrix(std::string_view leaf, std::size_t rows, std::size_t columns) const {
    if (columns > kMatrixColumnsMax) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor {}{} has rows of {} values; expected at most {}",
                              file_.name(), prefix_, leaf, columns, kMatrixColumnsMax));
    }
    return bind(leaf, {rows, columns, 1}, kMatrixTypes);
  }
  Weight plain(std::string_view leaf, std::size_t rows, std::size_t columns) const {
    return bind(leaf, {rows, columns, 1}, kPlainTypes);
  }
  Weight vector(std::string_view leaf, std::size_t columns) const {
    return bind(leaf, {1, columns, 1}, kVectorTypes);
  }
  Weight stack(std::string_view leaf, std::size_t rows, std::size_t columns) const {
    return bind(leaf, {rows, columns, config_.expert_count}, kMatrixTypes);
  }
  Weight indices(std::string_view leaf, std::size_t rows, std::size_t columns) const {
    return bind(leaf, {rows, columns, 1}, kIndexTypes);
  }
  bool contains(std::string_view leaf) const { return find(leaf) != nullptr; }

 private:
  // Other dialects' names of the same tensors.  The names that llama.cpp has settled on are ours;
  // these are of its earlier converters.
  struct Alias {
    std::string_view stem;
    std::string_view other;
  };
  static constexpr std::array<Alias, 15> kAliases = {{
      {"output_hc_fn", "hc_head_fn"},
      {"output_hc_base", "hc_head_base"},
      {"output_hc_scale", "hc_head_scale"},
      {"attn_kv", "attn_kv_a_mqa"},
      {"attn_kv_a_norm", "attn_kv_norm"},
      {"attn_output_a", "attn_o_a"},
      {"attn_output_b", "attn_o_b"},
      {"attn_compressor_ape", "attn_compressor.ape"},
      {"attn_compressor_kv", "attn_compressor.wkv"},
      {"attn_compressor_gate", "attn_compressor.wgate"},
      {"attn_compressor_norm", "attn_compressor.norm"},
      {"indexer_compressor_ape", "indexer.compressor.ape"},
      {"indexer_compressor_kv", "indexer.compressor.wkv"},
      {"indexer_compressor_gate", "indexer.compressor.wgate"},
      {"indexer_compressor_norm", "indexer.compressor.norm"},
  }};

  const gguf::TensorInfo* find(std::string_view leaf) const {
    if (const auto* tensor = file_.find_tensor(fmt::format("{}{}", prefix_, leaf))) return tensor;
    const std::string_view stem = leaf.substr(0, leaf.rfind('.'));
    if (const auto* tensor = find_other(leaf, stem)) return tensor;
    for (const Alias& alias : kAliases) {
      if (alias.stem == stem) return find_other(leaf, alias.other);
    }
    return nullptr;
  }

  // A tensor of that stem with any of the endings in use, or without one; logged.
  const gguf::TensorInfo* find_other(std::string_view leaf, std::string_view stem) const {
    for (const std::string_view ending : {".weight", ".bias", ""}) {
      const std::string other = fmt::format("{}{}{}", prefix_, stem, ending);
      const auto* tensor = file_.find_tensor(other);
      if (tensor == nullptr) continue;
      ds4::log(log_, LogLevel::kInfo,
               fmt::format("{}: taking {} for {}{}", file_.name(), other, prefix_, leaf));
      return tensor;
    }
    return nullptr;
  }

  Weight bind(std::string_view leaf, const Shape& shape, TypeList types) const {
    const std::string name = fmt::format("{}{}", prefix_, leaf);
    const gguf::TensorInfo* tensor = find(leaf);
    if (tensor == nullptr) {
      throw Error(ErrorCode::kBadFormat,
                  fmt::format("{}: tensor {} is missing; expected {} of {}", file_.name(), name,
                              shape_text(shape), type_names(types)));
    }
    if (!tensor->type || std::find(types.begin(), types.end(), *tensor->type) == types.end()) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor {} has type {}; this engine runs it as {}", file_.name(),
                              name, tensor->type_name(), type_names(types)));
    }
    if (!same_shape(tensor->shape, shape)) {
      throw Error(ErrorCode::kBadFormat,
                  fmt::format("{}: tensor {} has shape {}; expected {}", file_.name(), name,
                              tensor->shape_text(), shape_text(shape)));
    }
    return {name, *tensor->type, shape.slabs, shape.rows, shape.columns, tensor->bytes};
  }

  const gguf::Reader& file_;
  const ModelConfig& config_;
  const LogSink& log_;
  std::string prefix_;
};

HcWeights bind_hc(const Binder& b, const ModelConfig& c, std::string_view site) {
  const std::size_t mixes = c.stream_count * (2 + std::size_t{c.stream_count});
  return {.fn = b.plain(fmt::format("hc_{}_fn.weight", site), mixes, c.streams_width()),
          .base = b.vector(fmt::format("hc_{}_base.weight", site), mixes),
          .scale = b.vector(fmt::format("hc_{}_scale.weight", site), 3)};
}

HeadWeights bind_head(const Binder& b,
                      const ModelConfig& c,
                      std::string_view hc_prefix,
                      std::string_view hc_suffix,
                      std::string_view norm) {
  const auto leaf = [&](std::string_view part) {
    return fmt::format("{}_{}{}", hc_prefix, part, hc_suffix);
  };
  return {.hc = {.fn = b.plain(leaf("fn"), c.stream_count, c.streams_width()),
                 .base = b.vector(leaf("base"), c.stream_count),
                 .scale = b.vector(leaf("scale"), 1)},
          .norm = b.vector(norm, c.width)};
}

CompressorWeights bind_compressor(const Binder& b,
                                  const ModelConfig& c,
                                  std::string_view prefix,
                                  std::uint32_t ratio,
                                  std::size_t size) {
  const std::size_t width = size * (ratio == 4 ? 2 : 1);
  const auto leaf = [&](std::string_view part) {
    return fmt::format("{}_{}.weight", prefix, part);
  };
  return {.ape = b.matrix(leaf("ape"), ratio, width),
          .kv = b.matrix(leaf("kv"), width, c.width),
          .gate = b.matrix(leaf("gate"), width, c.width),
          .norm = b.vector(leaf("norm"), size)};
}

void bind_ffn(const Binder& b, const ModelConfig& c, const LayerPlan& plan, LayerWeights& w) {
  w.ffn_hc = bind_hc(b, c, "ffn");
  w.ffn_norm = b.vector("ffn_norm.weight", c.width);
  w.router = b.matrix("ffn_gate_inp.weight", c.expert_count, c.width);
  if (plan.hash_routed) {
    w.hash_table = b.indices("ffn_gate_tid2eid.weight", c.vocab_size, c.experts_used);
  } else if (b.contains("exp_probs_b.bias")) {
    w.router_bias = b.vector("exp_probs_b.bias", c.expert_count);
  }
  w.expert_gate = b.stack("ffn_gate_exps.weight", c.expert_width, c.width);
  w.expert_up = b.stack("ffn_up_exps.weight", c.expert_width, c.width);
  w.expert_down = b.stack("ffn_down_exps.weight", c.width, c.expert_width);
  w.shared_gate = b.matrix("ffn_gate_shexp.weight", c.expert_width, c.width);
  w.shared_up = b.matrix("ffn_up_shexp.weight", c.expert_width, c.width);
  w.shared_down = b.matrix("ffn_down_shexp.weight", c.width, c.expert_width);
  if (w.expert_gate.type != w.expert_up.type) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} is {} and {} is {}; both must have the same type",
                            w.expert_gate.name, element_type_info(w.expert_gate.type).name,
                            w.expert_up.name, element_type_info(w.expert_up.type).name));
  }
}

LayerWeights bind_layer(const Binder& b, const ModelConfig& c, const LayerPlan& plan) {
  LayerWeights w;
  w.attention_hc = bind_hc(b, c, "attn");
  w.attention_norm = b.vector("attn_norm.weight", c.width);
  w.query_a = b.matrix("attn_q_a.weight", c.query_rank, c.width);
  w.query_a_norm = b.vector("attn_q_a_norm.weight", c.query_rank);
  w.query_b = b.matrix("attn_q_b.weight", c.heads_width(), c.query_rank);
  w.key_value = b.matrix("attn_kv.weight", c.head_dim, c.width);
  w.key_value_norm = b.vector("attn_kv_a_norm.weight", c.head_dim);
  w.sinks = b.vector("attn_sinks.weight", c.head_count);
  const std::size_t low = std::size_t{c.output_group_count} * c.output_rank;
  w.output_a = b.matrix("attn_output_a.weight", low, c.heads_width() / c.output_group_count);
  w.output_b = b.matrix("attn_output_b.weight", c.width, low);
  if (plan.ratio != 0)
    w.compressor = bind_compressor(b, c, "attn_compressor", plan.ratio, c.head_dim);
  if (plan.kind() == LayerKind::kIndexed) {
    w.indexer = IndexerWeights{
        .query = b.matrix("indexer.attn_q_b.weight", std::size_t{c.index_head_count} * c.index_dim,
                          c.query_rank),
        .proj = b.matrix("indexer.proj.weight", c.index_head_count, c.width),
        .compressor = bind_compressor(b, c, "indexer_compressor", plan.ratio, c.index_dim)};
  }
  bind_ffn(b, c, plan, w);
  return w;
}

// Every id of the table must name an expert: it is used as an index at run time.
void check_hash_table(const Weight& table, const ModelConfig& c) {
  const auto* ids = reinterpret_cast<const std::int32_t*>(table.bytes.data());
  const std::size_t count = table.rows * table.columns;
  for (std::size_t i = 0; i < count; ++i) {
    if (ids[i] >= 0 && static_cast<std::uint32_t>(ids[i]) < c.expert_count) continue;
    throw Error(ErrorCode::kBadFormat,
                fmt::format("tensor {} names expert {} for token {}; there are {} experts",
                            table.name, ids[i], i / table.columns, c.expert_count));
  }
}

MtpWeights bind_mtp(const gguf::Reader& file, const ModelConfig& c, const LogSink& log) {
  Binder b(file, c, log);
  b.set_prefix("mtp.0.");
  MtpWeights mtp;
  mtp.token_projection = b.matrix("e_proj.weight", c.width, c.width);
  mtp.stream_projection = b.matrix("h_proj.weight", c.width, c.width);
  mtp.token_norm = b.vector("enorm.weight", c.width);
  mtp.stream_norm = b.vector("hnorm.weight", c.width);
  mtp.block = bind_layer(b, c, c.mtp_layer);
  mtp.head = bind_head(b, c, "hc_head", ".weight", "norm.weight");
  return mtp;
}

// The first layer present and how many follow it without a gap: a file may hold a slice.
void bind_layers(const gguf::Reader& file, const ModelConfig& c, const LogSink& log, Weights& w) {
  const auto holds = [&](std::uint32_t l) {
    return file.find_tensor(fmt::format("blk.{}.attn_q_a.weight", l)) != nullptr;
  };
  while (w.first_layer < c.layer_count && !holds(w.first_layer))
    ++w.first_layer;
  if (w.first_layer == c.layer_count) {
    throw Error(ErrorCode::kBadFormat,
                fmt::format("{}: holds none of the {} layers (no tensor blk.N.attn_q_a.weight)",
                            file.name(), c.layer_count));
  }
  Binder b(file, c, log);
  for (std::uint32_t l = w.first_layer; l < c.layer_count && holds(l); ++l) {
    b.set_prefix(fmt::format("blk.{}.", l));
    w.layers.push_back(bind_layer(b, c, c.layers[l]));
    if (w.layers.back().hash_table.present()) check_hash_table(w.layers.back().hash_table, c);
  }
}

}  // namespace

Weights bind_weights(const gguf::Reader& file,
                     const gguf::Reader* mtp_file,
                     const ModelConfig& config,
                     const LogSink& log) {
  Weights w;
  bind_layers(file, config, log, w);
  const Binder b(file, config, log);
  const bool has_first = w.first_layer == 0;
  const bool has_last = w.first_layer + w.layers.size() == config.layer_count;
  if (has_first) w.embedding = b.matrix("token_embd.weight", config.vocab_size, config.width);
  if (has_last) {
    w.head = bind_head(b, config, "output_hc", ".weight", "output_norm.weight");
    w.output = b.matrix("output.weight", config.vocab_size, config.width);
  }
  if (!has_first || !w.output.present()) {
    ds4::log(log, LogLevel::kInfo,
             fmt::format("{}: holds layers {} to {} of {}", file.name(), w.first_layer,
                         w.first_layer + w.layers.size() - 1, config.layer_count));
    return w;
  }
  for (const gguf::Reader* source : {&file, mtp_file}) {
    if (w.mtp || source == nullptr || source->find_tensor("mtp.0.e_proj.weight") == nullptr)
      continue;
    w.mtp = bind_mtp(*source, config, log);
  }
  if (mtp_file != nullptr && !w.mtp) {
    throw Error(
        ErrorCode::kBadFormat,
        fmt::format("{}: holds no MTP block (no tensor mtp.0.e_proj.weight)", mtp_file->name()));
  }
  return w;
}

std::uint64_t Weights::table_bytes() const {
  std::uint64_t total = sizeof(Weights) + layers.capacity() * sizeof(LayerWeights);
  for_each([&](const Weight& weight) {
    const std::size_t in_place = std::string().capacity();
    if (weight.name.capacity() > in_place) total += weight.name.capacity() + 1;
  });
  return total;
}

}  // namespace ds4
