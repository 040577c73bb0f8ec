// ds4-gguf synth: a file of random weights in a given shape.
#include "convert/synth.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "commands.h"
#include "progress.h"

namespace {

struct Options {
  std::string shape;
  std::string output;
  std::string recipe = "q2";
  std::string tokenizer;
  std::vector<std::string> choices;
  std::uint32_t layer_count = 0;
  std::uint64_t seed = 1;
  std::size_t thread_count = 0;
  bool with_mtp = false;
  bool verbose = false;
};

ds4::convert::ModelShape shape_named(const std::string& name) {
  if (name == "flash") return ds4::convert::flash_shape();
  if (name == "pro") return ds4::convert::pro_shape();
  if (name == "tiny") return ds4::convert::tiny_shape();
  throw ds4::Error(ds4::ErrorCode::kInvalidArgument,
                   "unknown shape '" + name + "'; expected flash, pro or tiny");
}

void synth(const Options& options) {
  ds4::convert::SynthOptions job;
  job.shape = shape_named(options.shape);
  if (options.layer_count != 0)
    job.shape = ds4::convert::with_layers(job.shape, options.layer_count);
  job.recipe = ds4::convert::Recipe(options.recipe);
  for (const std::string& choice : options.choices)
    job.recipe.add_choice(choice);
  job.with_mtp = options.with_mtp || options.shape == "tiny";
  job.tokenizer = options.tokenizer;
  job.output = options.output;
  job.seed = options.seed;
  job.thread_count = options.thread_count;
  ds4::convert::synthesize(job, stderr_log(options.verbose), terminal_progress());
}

}  // namespace

void add_synth_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "synth", "Make a GGUF file of random weights, to try speed and capacity without a download");
  command->add_option("--shape", options->shape, "flash, pro or tiny (tiny has the MTP block)")
      ->required();
  command->add_option("--out", options->output, "GGUF file to write")->required();
  command->add_option("--layers", options->layer_count, "keep only the first N layers")
      ->check(CLI::PositiveNumber);
  command->add_option("--quant", options->recipe,
                      "recipe: " + std::string(ds4::convert::Recipe::names()) + " (default q2)");
  command->add_option("--type", options->choices,
                      "CLASS=TYPE, repeatable, the last one wins. CLASS: " +
                          std::string(ds4::convert::Recipe::class_names()) +
                          ", or the beginning of tensor names");
  command->add_option("--tokenizer", options->tokenizer,
                      "tokenizer.json to embed; without it, one token per byte");
  command->add_flag("--mtp", options->with_mtp, "include the MTP (draft) block");
  command->add_option("--seed", options->seed, "same seed, same bytes (default 1)");
  command->add_option("--threads", options->thread_count, "0: one per physical core");
  command->add_flag("--verbose", options->verbose, "say more");
  command->callback([options] { synth(*options); });
}
