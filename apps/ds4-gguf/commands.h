#pragma once

namespace CLI {
class App;
}  // namespace CLI

// Each adds its subcommand to `app`; the work is done in the subcommand's callback, which throws
// ds4::Error when it fails.
void add_inspect_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_synth_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_greedy_command(CLI::App& app);
