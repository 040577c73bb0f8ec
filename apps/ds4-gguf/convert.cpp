// ds4-gguf convert: a published checkpoint to GGUF.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "commands.h"
#include "convert/checkpoint_converter.h"
#include "progress.h"

namespace {

struct Options {
  std::string checkpoint;
  std::string output;
  std::string mtp_output;
  std::string imatrix;
  std::string recipe = "q2";
  std::vector<std::string> choices;
  std::size_t thread_count = 0;
  bool verbose = false;
};

void convert(const Options& options) {
  ds4::convert::ConvertOptions job{.checkpoint = options.checkpoint,
                                   .output = options.output,
                                   .mtp_output = options.mtp_output,
                                   .imatrix = options.imatrix,
                                   .recipe = ds4::convert::Recipe(options.recipe),
                                   .thread_count = options.thread_count};
  for (const std::string& choice : options.choices)
    job.recipe.add_choice(choice);
  ds4::convert::convert_checkpoint(job, stderr_log(options.verbose), terminal_progress());
}

}  // namespace

void add_convert_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("convert", "Make a GGUF file of a downloaded checkpoint");
  command
      ->add_option("--hf", options->checkpoint, "checkpoint directory: config.json and safetensors")
      ->required();
  command->add_option("--out", options->output, "GGUF file to write")->required();
  command->add_option("--mtp-out", options->mtp_output,
                      "write the MTP (draft) block to this file instead of into --out");
  command->add_option("--quant", options->recipe,
                      "recipe: " + std::string(ds4::convert::Recipe::names()) + " (default q2)");
  command->add_option("--type", options->choices,
                      "CLASS=TYPE, repeatable, the last one wins. CLASS: " +
                          std::string(ds4::convert::Recipe::class_names()) +
                          ", or the beginning of tensor names");
  command->add_option("--imatrix", options->imatrix, "importance file (.dat) for the encoders");
  command->add_option("--threads", options->thread_count, "0: one per physical core");
  command->add_flag("--verbose", options->verbose, "say what is done to each tensor");
  command->callback([options] { convert(*options); });
}
