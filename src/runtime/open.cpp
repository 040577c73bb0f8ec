#include "runtime/open.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/session.h"
#include "gguf/reader.h"
#include "model/fingerprint.h"
#include "model/weights.h"
#include "runtime/backends.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace ds4 {

namespace {

// Everything that views into the mapped files, kept together with them.
struct LoadedModel {
  gguf::Reader file;
  std::optional<gguf::Reader> mtp_file;
  ModelConfig config;
  Weights weights;
};

std::shared_ptr<LoadedModel> load_model(const OpenOptions& options) {
  auto model = std::make_shared<LoadedModel>(LoadedModel{
      .file = gguf::Reader(options.model), .mtp_file = {}, .config = {}, .weights = {}});
  if (!options.mtp.empty()) model->mtp_file.emplace(options.mtp);
  model->config = read_config(model->file, options.log);
  model->weights = bind_weights(model->file, model->mtp_file ? &*model->mtp_file : nullptr,
                                model->config, options.log);
  if (!options.use_mtp) model->weights.mtp.reset();
  return model;
}

void check_context(const OpenOptions& options, const ModelConfig& config) {
  if (options.context >= 2 && options.context <= config.context_max) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("a context of {} tokens; expected 2 to {}, what the model was made for",
                          options.context, config.context_max));
}

const BackendFactory& chosen_backend(const OpenOptions& options) {
  const BackendFactory* cuda = cuda_backend();
  if (options.backend == "cpu") return cpu_backend();
  if (cuda != nullptr && options.backend == cuda->name) return *cuda;
  if (options.backend == "auto") return cuda != nullptr && cuda->usable() ? *cuda : cpu_backend();
  throw Error(ErrorCode::kUnsupported,
              fmt::format("backend '{}' is not part of this build; it has: {}", options.backend,
                          fmt::join(backend_names(), ", ")));
}

OpenOptions with_context(OpenOptions options, const ModelConfig& config) {
  if (options.context == 0) options.context = default_context(config);
  return options;
}

MemoryPlan plan_loaded(const OpenOptions& options, const LoadedModel& model) {
  check_context(options, model.config);
  MemoryPlan plan;
  const BackendFactory& backend = chosen_backend(options);
  plan.backend = backend.name;
  plan.items = backend.plan(model.config, model.weights, options);
  for (MemoryItem& item : plan.items)
    if (item.name == "state") item.bytes *= options.session_count;
  plan.available_bytes = backend.available_bytes();
  return plan;
}

// Adds what is held beside the executor, where that comes from the same memory.  `tokenizer` is
// null where there will be an executor alone.
void add_engine_items(MemoryPlan& plan,
                      const tokenizer::Tokenizer* tokenizer,
                      const OpenOptions& options,
                      const LoadedModel& model) {
  const BackendFactory& backend = chosen_backend(options);
  if (backend.planned_info == nullptr) return;
  plan.items.push_back({"tables", model.file.table_bytes() + model.weights.table_bytes() +
                                      (model.mtp_file ? model.mtp_file->table_bytes() : 0)});
  if (tokenizer == nullptr) return;
  const ExecutorInfo info = backend.planned_info(model.weights, options);
  const StateLayout layout(model.config, options.codec, info.has_mtp);
  plan.items.push_back({"vocabulary", tokenizer->bytes()});
  plan.items.push_back(
      {"sessions", options.session_count * Session::planned_bytes(model.config, layout, info,
                                                                  {.context = options.context})});
}

void check_fits(const MemoryPlan& plan, const OpenOptions& options) {
  if (plan.available_bytes == 0 || plan.allocated_bytes() <= plan.available_bytes) return;
  throw Error(ErrorCode::kOutOfMemory,
              fmt::format("a context of {} tokens does not fit; choose a smaller one\n{}",
                          options.context, plan.text()));
}

// "IQ2_XXS, Q2_K, Q8_0, F16, F32": block types by share of the bytes.
std::string quantisation_text(const Weights& weights) {
  std::map<std::string_view, std::uint64_t> bytes;
  weights.for_each(
      [&](const Weight& w) { bytes[element_type_info(w.type).name] += w.bytes.size(); });
  std::vector<std::pair<std::uint64_t, std::string_view>> order;
  order.reserve(bytes.size());
  for (const auto& [name, count] : bytes)
    order.emplace_back(count, name);
  std::sort(order.rbegin(), order.rend());
  std::vector<std::string_view> names;
  names.reserve(order.size());
  for (const auto& [count, name] : order)
    names.push_back(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

tokenizer::Tokenizer load_tokenizer(const LoadedModel& model) {
  tokenizer::Tokenizer tokenizer(tokenizer::read_gguf_vocabulary(model.file));
  tokenizer::check_vocabulary_rows(tokenizer, model.config.vocab_size);
  return tokenizer;
}

// Checks the plan and the slice, then makes the executor.  `tokenizer` is null where no sessions
// will be opened.
std::unique_ptr<Executor> make_executor(const OpenOptions& request,
                                        const LoadedModel& model,
                                        const tokenizer::Tokenizer* tokenizer) {
  const OpenOptions options = with_context(request, model.config);
  MemoryPlan plan = plan_loaded(options, model);
  add_engine_items(plan, tokenizer, options, model);
  check_fits(plan, options);
  if (!model.weights.embedding.present() || !model.weights.output.present()) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} holds a slice without the first or the last layer; it runs only as "
                            "a part of a distributed model",
                            options.model.string()));
  }
  return chosen_backend(options).make(model.config, model.weights, options);
}

std::filesystem::path program_directory() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace

std::uint64_t MemoryPlan::allocated_bytes() const {
  std::uint64_t total = 0;
  for (const MemoryItem& item : items)
    total += item.mapped ? 0 : item.bytes;
  return total;
}

std::uint64_t MemoryPlan::mapped_bytes() const {
  std::uint64_t total = 0;
  for (const MemoryItem& item : items)
    total += item.mapped ? item.bytes : 0;
  return total;
}

std::string MemoryPlan::text() const {
  constexpr double kMebi = 1024.0 * 1024.0;
  const auto line = [&](std::string_view name, std::uint64_t bytes, std::string_view note) {
    return fmt::format("{:<12}{:>12.1f} MiB{}\n", name, static_cast<double>(bytes) / kMebi, note);
  };
  std::string text = fmt::format("memory plan, backend {}\n", backend);
  for (const MemoryItem& item : items)
    text += line(item.name, item.bytes, item.mapped ? "  mapped from the file" : "");
  text += line("allocated", allocated_bytes(), "");
  if (available_bytes == 0) return text;
  text += line("available", available_bytes, "");
  const std::uint64_t left = available_bytes - std::min(available_bytes, allocated_bytes());
  if (mapped_bytes() > left) {
    text += fmt::format(
        "the weights need {:.1f} MiB more than memory has left: what does not stay in the page "
        "cache "
        "is read from the file again, and tokens wait for the disk\n",
        static_cast<double>(mapped_bytes() - left) / kMebi);
  }
  return text;
}

std::vector<std::string> backend_names() {
  const BackendFactory* cuda = cuda_backend();
  if (cuda == nullptr) return {"cpu"};
  if (cuda->usable()) return {"cuda", "cpu"};
  return {"cpu", "cuda"};
}

MemoryPlan plan_memory(const OpenOptions& request) {
  const auto model = load_model(request);
  const OpenOptions options = with_context(request, model->config);
  MemoryPlan plan = plan_loaded(options, *model);
  const tokenizer::Tokenizer tokenizer = load_tokenizer(*model);
  add_engine_items(plan, &tokenizer, options, *model);
  return plan;
}

std::uint32_t default_context(const ModelConfig& config) {
  constexpr std::uint64_t kContextDefault = 32768;
  return static_cast<std::uint32_t>(std::min(kContextDefault, config.context_max));
}

OpenedExecutor open_executor(const OpenOptions& options) {
  auto model = load_model(options);
  auto executor = make_executor(options, *model, nullptr);
  OpenedExecutor opened;
  opened.traffic = weight_traffic(model->weights, model->config);
  model->weights.for_each([&](const Weight& w) { opened.weight_bytes += w.bytes.size(); });
  opened.resources = std::move(model);
  opened.executor = std::move(executor);
  return opened;
}

MachineReport report_machine(const OpenOptions& options) {
  return chosen_backend(options).report(options);
}

MachineState machine_state(const OpenOptions& options) {
  return chosen_backend(options).state();
}

std::unique_ptr<Engine> open_engine(const OpenOptions& options) {
  const auto model = load_model(options);
  auto tokenizer = std::make_shared<const tokenizer::Tokenizer>(load_tokenizer(*model));
  auto executor = make_executor(options, *model, tokenizer.get());
  ModelInfo info{.path = options.model.string(),
                 .name = model->config.name,
                 .quantisation = quantisation_text(model->weights),
                 .fingerprint = model_fingerprint(model->file),
                 .file_bytes = model->file.file_bytes()};
  auto engine =
      std::make_unique<Engine>(std::move(info), std::move(executor), std::move(tokenizer), model);
  if (!options.steering.empty()) {
    engine->load_steering(options.steering.string(), options.steering_attention_scale,
                          options.steering_ffn_scale);
  }
  return engine;
}

std::filesystem::path default_model_path() {
  const std::filesystem::path here = program_directory();
  const std::filesystem::path candidates[] = {
      "ds4flash.gguf", here / "ds4-tiny.gguf", here / "../share/ds4/ds4-tiny.gguf",
      // In a build tree: build/<preset>/apps/<program>/.
      here / "../../../../models/ds4-tiny.gguf", "models/ds4-tiny.gguf"};
  std::string places;
  for (const auto& path : candidates) {
    if (std::filesystem::exists(path)) return path.lexically_normal();
    places += fmt::format("\n  {}", path.lexically_normal().string());
  }
  throw Error(ErrorCode::kNotFound,
              fmt::format("no model file; name one with -m FILE. Looked for:{}", places));
}

}  // namespace ds4
