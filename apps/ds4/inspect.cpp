#include "inspect.h"

#include <map>

#include <fmt/format.h>

#include "gguf/reader.h"
#include "model/config.h"

namespace ds4::app {

namespace {

struct Total {
  std::uint64_t tensor_count = 0;
  std::uint64_t value_count = 0;
  std::uint64_t bytes = 0;
};

std::string size_text(std::uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

std::string config_text(const ModelConfig& c) {
  std::uint32_t indexed = 0;
  std::uint32_t compressed = 0;
  for (const LayerPlan& layer : c.layers) {
    indexed += layer.kind() == LayerKind::kIndexed ? 1 : 0;
    compressed += layer.kind() == LayerKind::kCompressed ? 1 : 0;
  }
  return fmt::format(
      "name        {}\n"
      "layers      {} ({} with an indexer, {} compressed)\n"
      "width       {} in {} streams\n"
      "heads       {} of {}, {} rotary; window {}\n"
      "experts     {} a token of {}, width {}\n"
      "vocabulary  {}\n"
      "context     {} tokens at most\n",
      c.name, c.layer_count, indexed, compressed, c.width, c.stream_count, c.head_count, c.head_dim,
      c.rope_dim, c.window, c.experts_used, c.expert_count, c.expert_width, c.vocab_size,
      c.context_max);
}

}  // namespace

std::string inspect_text(const std::filesystem::path& path) {
  const gguf::Reader file(path);
  std::string text = fmt::format("file        {} ({}, {} metadata keys)\n", path.string(),
                                 size_text(file.file_bytes()), file.keys().size());
  text += config_text(read_config(file, {}));
  std::map<std::string, Total> totals;
  Total all;
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    for (Total* total : {&totals[tensor.type_name()], &all}) {
      ++total->tensor_count;
      total->value_count += tensor.value_count();
      total->bytes += tensor.bytes.size();
    }
  }
  text += fmt::format("tensors     {}, {:.3f} billion values\n", all.tensor_count,
                      static_cast<double>(all.value_count) / 1e9);
  for (const auto& [name, total] : totals) {
    text += fmt::format("  {:<9} {:>6} tensors {:>16} values {:>14}\n", name, total.tensor_count,
                        total.value_count, size_text(total.bytes));
  }
  return text;
}

}  // namespace ds4::app
