// ds4-gguf logits: the logits of every position of a token list, for comparisons between programs.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "commands.h"
#include "runtime/open.h"

namespace {

constexpr std::size_t kIdsFileBytesMax = std::size_t{64} << 20;

struct Options {
  ds4::OpenOptions open;
  std::string ids;
  std::string output;
  std::string mtp_output;
  std::uint32_t chunk = 512;
};

std::vector<ds4::TokenId> read_ids(const std::string& path) {
  const auto list =
      nlohmann::json::parse(ds4::read_text_file(path, kIdsFileBytesMax), nullptr, false);
  const auto is_id = [](const nlohmann::json& value) {
    return value.is_number_integer() && value >= 0 &&
           value <= std::numeric_limits<std::int32_t>::max();
  };
  if (!list.is_array() || !std::all_of(list.begin(), list.end(), is_id)) {
    throw ds4::Error(ds4::ErrorCode::kBadFormat,
                     fmt::format("{}: expected a JSON list of token ids", path));
  }
  std::vector<ds4::TokenId> tokens;
  for (const auto& id : list)
    tokens.push_back(ds4::TokenId{id.get<std::int32_t>()});
  if (tokens.empty())
    throw ds4::Error(ds4::ErrorCode::kBadFormat, fmt::format("{}: the list is empty", path));
  return tokens;
}

void write_logits(Options options) {
  const std::vector<ds4::TokenId> tokens = read_ids(options.ids);
  const auto count = static_cast<std::uint32_t>(tokens.size());
  options.open.context = std::max(2U, count);
  options.open.rows_max = options.chunk;
  const ds4::OpenedExecutor opened = ds4::open_executor(options.open);
  ds4::Executor& executor = *opened.executor;
  if (!options.mtp_output.empty() && !executor.info().has_mtp) {
    throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                     fmt::format("{} has no MTP block for --mtp-out", options.open.model.string()));
  }
  const std::size_t vocab = executor.config().vocab_size;
  ds4::AtomicFileWriter out(options.output);
  std::unique_ptr<ds4::AtomicFileWriter> mtp_out;
  if (!options.mtp_output.empty())
    mtp_out = std::make_unique<ds4::AtomicFileWriter>(options.mtp_output);
  const ds4::SequenceId sequence = executor.open_sequence(options.open.context);
  const std::uint32_t chunk = std::min(options.chunk, executor.info().rows_max);
  std::vector<float> logits(chunk * vocab);
  std::vector<float> mtp_logits(mtp_out ? logits.size() : 0);
  std::vector<ds4::BatchRow> rows;
  for (std::uint32_t first = 0; first < count; first += chunk) {
    rows.clear();
    for (std::uint32_t p = first; p < std::min(count, first + chunk); ++p)
      rows.push_back({tokens[p], ds4::Position{p}, sequence, true});
    const std::size_t mtp_rows = rows.size() - (first == 0 ? 1 : 0);
    ds4::BatchOutputs outputs{.logits = ds4::Rows(logits.data(), {rows.size(), vocab})};
    if (mtp_out) outputs.mtp_logits = ds4::Rows(mtp_logits.data(), {mtp_rows, vocab});
    executor.run({rows}, outputs);
    out.write(std::as_bytes(std::span(logits).first(rows.size() * vocab)));
    if (mtp_out) mtp_out->write(std::as_bytes(std::span(mtp_logits).first(mtp_rows * vocab)));
  }
  out.commit();
  if (mtp_out) mtp_out->commit();
}

}  // namespace

void add_logits_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "logits", "Write the logits of every position of a token list as little-endian f32");
  command->add_option("-m,--model", options->open.model, "model file")->required();
  command->add_option("--ids", options->ids, "JSON list of token ids")->required();
  command->add_option("--out", options->output, "f32 [tokens, vocabulary]")->required();
  command->add_option("--mtp-out", options->mtp_output,
                      "f32 [tokens - 1, vocabulary] of the MTP block");
  const std::map<std::string, ds4::RowCodec> codecs{{"packed", ds4::RowCodec::kPacked},
                                                    {"exact", ds4::RowCodec::kExact}};
  command->add_option("--kv", options->open.codec, "key/value rows: packed (default) or exact f32")
      ->transform(CLI::CheckedTransformer(codecs));
  command->add_option("--backend", options->open.backend, "backend (default: auto)");
  command->add_option("--threads", options->open.thread_count, "threads (default: physical cores)");
  command->add_option("--chunk", options->chunk, "tokens of one batch (default: 512)")
      ->check(CLI::Range(1U, 65536U));
  command->callback([options] { write_logits(*options); });
}
